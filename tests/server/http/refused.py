"""Requests that a server refuses."""

from __future__ import annotations

from contextlib import suppress

from tests.support.clients import Answer, Client, Clients, parse_answer
from wsframe.server import Server

PAGE = b"<p>the page"


LIMIT = 1000


# Around what a client sends of which the beginning is enough to be refused, and closed.
REFUSED_EARLY = suppress(BrokenPipeError, ConnectionResetError)


HOST = ("Host", "localhost")


def answers(clients: Clients, server: Server, request: bytes) -> list[Answer]:
    """The answers to a request in one segment, and, unless it is long, a byte at a time."""
    client = clients.connect(server)
    client.send(request)
    result = [client.answer()]
    if len(request) < 500:
        client = clients.connect(server)
        with REFUSED_EARLY:
            client.send_bytewise(request)
        result.append(parse_answer(client.read_until(b"\r\n\r\n") + read_what_comes(client)))
    return result


def read_what_comes(client: Client) -> bytes:
    """The rest, where the client has sent more than was read and so may see a reset."""
    try:
        return client.read_to_end()
    except ConnectionResetError:
        return b""

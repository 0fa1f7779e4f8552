"""Requests that a server refuses."""

from __future__ import annotations

from contextlib import suppress

from tests.support.clients import Client, Clients, Response, parse_response
from wsframe.server import Server

PAGE = b"<p>the page"


LIMIT = 1000


# For data whose beginning is refused: the rest may still be on its way when the server closes.
REFUSED_EARLY = suppress(BrokenPipeError, ConnectionResetError)


HOST = ("Host", "localhost")


def answers(clients: Clients, server: Server, request: bytes) -> list[Response]:
    """Return the answers to a request sent in one segment, and, if it is short, bytewise."""
    client = clients.connect(server)
    client.send(request)
    result = [client.answer()]
    if len(request) < 500:
        client = clients.connect(server)
        with REFUSED_EARLY:
            client.send_bytewise(request)
        result.append(parse_response(client.read_until(b"\r\n\r\n") + read_what_comes(client)))
    return result


def read_what_comes(client: Client) -> bytes:
    """Return the rest; a reset may end it, because the server did not read everything."""
    try:
        return client.read_to_end()
    except ConnectionResetError:
        return b""

"""Exchanges with a server that the checks and the load have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .data import content
from .running import Running
from .wire import Stream, Wire, close_frame, echo, message, request, upgrade


@contextmanager
def websocket(server: Running, target: str = "/echo") -> Iterator[Wire]:
    """Open a WebSocket, and close the socket at the end."""
    with server.connect() as wire:
        wire.send(upgrade(target))
        wire.expect_upgrade()
        yield wire


def expect_echo(wire: Wire, *payloads: str | bytes) -> None:
    """Send messages, all in one segment, and compare their echoes."""
    wire.send(b"".join(map(message, payloads)))
    wire.expect(b"".join(map(echo, payloads)))


def expect_closing_handshake(wire: Wire) -> None:
    """Close the WebSocket, and wait for the end of the connection."""
    wire.send(close_frame(1000, masked=True))
    wire.expect(close_frame(1000, masked=False))
    wire.expect_end()


def expect_numbers(wire: Wire, number: int) -> None:
    """Compare the response, which is an event stream of so many numbers."""
    stream = Stream(wire)
    stream.expect(*map(str, range(number)))
    stream.expect_end()


def expect_page(wire: Wire, number: int) -> bool:
    """Request a page of so many bytes, and compare it; return False if the server then closes."""
    wire.send(request(f"/page?number={number}"))
    response = wire.expect_page(content(number))
    return "close" not in response.fields.tokens("connection")


def publish(server: Running, name: str, event: str) -> None:
    """Publish an event by a request."""
    with server.connect() as wire:
        body = event.encode()
        wire.send(request(f"/publish?name={name}", method="POST", body=body))
        wire.expect_page(b"published")

"""Streams, rules and connections for the tests of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from tests.support.ends import (
    End,
)
from tests.support.tools import normals, receive_in_pieces


def byte_by_byte(data: bytes) -> Iterable[int]:
    return range(1, len(data))


def check_both_ways(codec: ModuleType, end: End, data: bytes, expected: list[Any]) -> None:
    """Expect these events of the data in one piece, and of the data byte by byte."""
    assert receive_in_pieces(end.connect(codec), data, ()) == expected
    assert receive_in_pieces(end.connect(codec), data, byte_by_byte(data)) == expected


LIMIT = 1 << 20


SENDING: dict[str, Callable[[Any], bytes]] = {
    "text": lambda connection: connection.encode("text"),
    "binary": lambda connection: connection.encode(b"data"),
    "ping": lambda connection: connection.ping(b"x"),
    "pong": lambda connection: connection.pong(b"x"),
    "close": lambda connection: connection.close(1001, "again"),
}


def sent_by(codec: ModuleType, end: End, wire: bytes) -> list[Any]:
    """Return the events that the other end decodes from these bytes."""
    return normals(end.peer.connect(codec).receive(wire))

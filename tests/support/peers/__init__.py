"""Other WebSocket libraries, behind one interface."""

from __future__ import annotations

import pytest

from .aiohttp import Aiohttp
from .library import Ended, Library, Peer, Terms
from .terms import ALL_TERMS, Watch, converse
from .websockets import Websockets
from .wsproto import Wsproto

__all__ = [
    "ALL_TERMS",
    "CLOSES",
    "FRAGMENTING",
    "LIBRARIES",
    "LIMITING",
    "MESSAGES",
    "Ended",
    "Library",
    "Peer",
    "Terms",
    "Watch",
    "converse",
    "echo",
    "libraries",
]

LIBRARIES: list[Library] = [Websockets(), Wsproto(), Aiohttp()]
FRAGMENTING = [library for library in LIBRARIES if library.fragments]
LIMITING = [library for library in LIBRARIES if library.limits]

CLOSES = [(1000, ""), (1013, "ünd Schluß"), (4999, "r" * 123)]
EDGES = (125, 126, 65535, 65536, 1 << 20)
MESSAGES: tuple[str | bytes, ...] = (
    *("", b"", "ünïcödé 🎈", "κόσμε 🎈" * 10_000, bytes(range(256))),
    *("x" * size for size in EDGES),
    *(b"\xfe" * size for size in EDGES),
)


def libraries(among: list[Library] = LIBRARIES) -> pytest.MarkDecorator:
    """Run a test with each of these libraries."""
    return pytest.mark.parametrize("library", among, ids=lambda library: library.name)


def echo(peer: Peer) -> None:
    """Echo every message, as the script of a server."""
    try:
        while True:
            peer.send(peer.receive())
    except Ended:
        pass

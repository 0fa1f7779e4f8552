"""The two ends of a connection, and the frames of their peers."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import pytest

from .vectors import by_hand

KEY = bytes.fromhex("37fa213d")
TEXT, BINARY, CONTINUATION = 0x01, 0x02, 0x00
CLOSE, PING, PONG = 0x88, 0x89, 0x8A
FIN, RSV1 = 0x80, 0x40
NORMAL, PROTOCOL_ERROR, BAD_DATA, TOO_BIG = 1000, 1002, 1007, 1009


class End(NamedTuple):
    """One end of a connection, and the masking of its peer."""

    role: str
    peer_key: bytes | None

    def connect(self, codec: ModuleType, **options: Any) -> Any:
        """Return this end, after the opening handshake."""
        return codec.Connection(codec.Role(self.role), **options)

    def wire(self, first: int, payload: bytes = b"", **how: int) -> bytes:
        """Return a frame from the peer."""
        return by_hand(first, payload, self.peer_key, **how)

    @property
    def peer(self) -> End:
        """The other end."""
        return CLIENT if self is SERVER else SERVER


SERVER, CLIENT = End("server", KEY), End("client", None)
ends = pytest.mark.parametrize("end", [SERVER, CLIENT], ids=lambda end: end.role)

"""The clients and requests of the kit, and frames of clients."""

from __future__ import annotations

import sys

import pytest

from wsframe import Opcode, encode_frame
from wsframe.testing import Client, Clients, Response, StreamClient, WebSocketClient
from wsframe.testing.client import END_OF_HEAD, parse_response
from wsframe.testing.clients import AnyClient
from wsframe.testing.requests import KEY, get, head, upgrade

__all__ = [
    "END_OF_HEAD",
    "KEY",
    "AnyClient",
    "Client",
    "Clients",
    "Response",
    "StreamClient",
    "WebSocketClient",
    "can_vanish",
    "get",
    "head",
    "masked",
    "parse_response",
    "upgrade",
]

# Marks tests with Client.vanish().
can_vanish = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux discards what a socket receives"
)


def masked(opcode: Opcode, payload: bytes | str, *, fin: bool = True) -> bytes:
    """Return a frame of a client."""
    return encode_frame(opcode, payload, fin=fin, masking_key=b"\x01\x82\x7f\xfc")

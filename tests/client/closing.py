"""Servers that close a WebSocket in various ways."""

from __future__ import annotations

LOTS = bytes(1 << 25)  # more than the socket buffers of both ends


RECEIVE_BUFFER = 1 << 14

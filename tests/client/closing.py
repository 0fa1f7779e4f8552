"""Servers that close a WebSocket in one way or another."""

from __future__ import annotations

LOTS = bytes(1 << 25)  # more than the buffers of both ends of a connection hold


RECEIVE_BUFFER = 1 << 14

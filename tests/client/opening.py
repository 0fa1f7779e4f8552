"""Requests and responses of the opening handshake."""

from __future__ import annotations

from tests.support.scripted import Visit


def close_at_once(visit: Visit) -> None:
    """Accept the WebSocket, and wait for the client to close."""
    visit.upgrade()
    visit.answer_close()

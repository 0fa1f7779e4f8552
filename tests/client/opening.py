"""Requests and answers of the opening handshake."""

from __future__ import annotations

from tests.support.scripted import Visit


def close_at_once(visit: Visit) -> None:
    """Open the WebSocket; the client closes."""
    visit.upgrade()
    visit.answer_close()

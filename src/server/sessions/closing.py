"""The states of the closing handshake of a WebSocket (RFC 6455 section 7)."""

from __future__ import annotations

from enum import IntEnum


class ClosingState(IntEnum):
    """The state of a WebSocket session; its number never decreases.

    Attributes:
        OPEN: neither side has sent a close frame.
        CLIENT_CLOSING: the client has sent its close frame, or has broken a rule of the protocol.
            The handler still answers the earlier messages; the server's close frame follows the
            answers.
        CLOSING: the server's close frame is queued, and nothing after it. The server waits for the
            client's close frame, unless that came first.
        CLOSED: the socket is shut down or lost.
    """

    OPEN = 0
    CLIENT_CLOSING = 1
    CLOSING = 2
    CLOSED = 3

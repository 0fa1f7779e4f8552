"""The states of the closing handshake of a WebSocket (RFC 6455 section 7)."""

from __future__ import annotations

from enum import IntEnum


class ClosingState(IntEnum):
    """The state of a WebSocket session; it only ever increases.

    Attributes:
        OPEN: neither side has sent a close frame.
        CLIENT_CLOSING: the client has sent its close frame, or has broken a rule of the protocol.
            The handler still answers the messages that came before; ours follows the answers.
        CLOSING: our close frame is queued, and nothing after it. The client's is expected, unless
            it came first.
        CLOSED: the socket is shut or lost.
    """

    OPEN = 0
    CLIENT_CLOSING = 1
    CLOSING = 2
    CLOSED = 3

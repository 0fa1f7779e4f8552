"""The states of a connection."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """The state of one connection; its number never decreases.

    Attributes:
        CONNECTING: the application has not yet answered the upgrade request.
        DENYING: the application sends an HTTP response instead of a WebSocket.
        OPEN: messages are exchanged.
        ANSWERING: the client has sent a close frame, and the application answers earlier messages.
        CLOSING: the last bytes were sent.
        LOST: the connection has ended.
    """

    CONNECTING = 0
    DENYING = 1
    OPEN = 2
    ANSWERING = 3
    CLOSING = 4
    LOST = 5


# Module-level names, because looking up a member of an enum is slower.
CONNECTING, DENYING, OPEN, ANSWERING, CLOSING, LOST = State

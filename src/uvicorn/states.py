"""The states of a connection."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """The state of one connection; it only ever increases.

    Attributes:
        CONNECTING: the application has not answered the upgrade request.
        DENYING: the application sends an answer in place of a WebSocket.
        OPEN: messages are exchanged.
        ANSWERING: the client has closed, and the application answers its earlier messages.
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

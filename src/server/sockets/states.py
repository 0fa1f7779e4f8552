"""The states of a connection on its way to the end."""

from __future__ import annotations

from enum import IntEnum


class PeerState(IntEnum):
    """The state of one connection; it only ever increases.

    Attributes:
        OPEN: frames are sent as they are queued.
        SEALED: the last frames are queued; frames queued later are not sent.
        FINISHING: the same, and our side of the socket is shut when everything is sent.
        SHUT: our side is shut; what the client still sends is discarded.
        CLOSED: the socket is closed.
    """

    OPEN = 0
    SEALED = 1
    FINISHING = 2
    SHUT = 3
    CLOSED = 4


# Module-level names, because looking up a member of an enum is slower.
OPEN, SEALED, FINISHING, SHUT, CLOSED = PeerState

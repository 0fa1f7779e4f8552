"""The states of a connection on its way to the end."""

from __future__ import annotations

from enum import IntEnum


class PeerState(IntEnum):
    """The state of one connection; its number never decreases.

    Attributes:
        OPEN: queued frames are sent.
        SEALED: the last frames are queued; frames queued later are not sent.
        FINISHING: as SEALED; after the last byte, the server's side of the socket is shut down.
        SHUT: the server's side is shut down; data that the client still sends is discarded.
        CLOSED: the socket is closed.
    """

    OPEN = 0
    SEALED = 1
    FINISHING = 2
    SHUT = 3
    CLOSED = 4


# Module-level names, because looking up a member of an enum is slower.
OPEN, SEALED, FINISHING, SHUT, CLOSED = PeerState

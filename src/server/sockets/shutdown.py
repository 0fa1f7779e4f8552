"""Paced shutdown: which connections a stopping server closes next.

Clients reconnect as soon as they lose their connection. Closing all connections at the same moment
would make all clients reconnect at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .peer import Peer

# The part of ``drain`` over which a stop signal spreads the closing of connections. In the rest of
# the time the last clients can complete the closing handshake.
SPREAD = 0.8


class PacedShutdown:
    """The connections of one loop, to be closed in random order. Only the owner calls its methods.

    Args:
        peers: the connections.
        spread: the time over which they are closed evenly, in seconds.
        phase: when the first is closed, as a fraction of the pause between two. Loops with
            different phases alternate.
        now: the time on the loop's clock.
    """

    def __init__(self, peers: Iterable[Peer], spread: float, phase: float, now: float) -> None:
        self._waiting = list(peers)
        random.shuffle(self._waiting)
        self._pause = spread / max(1, len(self._waiting))
        self._next = now + phase * self._pause

    def due(self, now: float) -> Iterator[Peer]:
        """Owner: return the connections that have become due since the last call."""
        while self._waiting and self._next <= now:
            self._next += self._pause
            yield self._waiting.pop()

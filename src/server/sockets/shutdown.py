"""Paced shutdown: the order and pace in which a stopping server closes connections.

Clients reconnect as soon as they lose their connection. Closing all connections at the same moment
would make all clients reconnect at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .peer import Peer

# The fraction of ``drain`` over which connections are closed. In the rest of the time, the last
# clients can complete the closing handshake.
SPREAD = 0.8


class PacedShutdown:
    """The connections of one loop, to be closed in random order. Only the owner calls its methods.

    Args:
        peers: the connections.
        spread: the time over which they are closed evenly, in seconds.
        phase: the delay of the first close, as a fraction of the pause between two. Loops with
            different phases alternate.
        now: the time on the loop's clock.
        grace: the time, in seconds, in which a connection may still send its request. The request
            is often already on its way, and not every client repeats it.
    """

    def __init__(
        self, peers: Iterable[Peer], spread: float, phase: float, now: float, grace: float = 0.0
    ) -> None:
        all_peers = list(peers)
        self._silent = [peer for peer in all_peers if peer.awaiting_request]
        self._waiting = [peer for peer in all_peers if not peer.awaiting_request]
        random.shuffle(self._waiting)
        self._pause = spread / max(1, len(all_peers))
        self._next = now + phase * self._pause
        self._grace_ends = now + grace

    def due(self, now: float) -> Iterator[Peer]:
        """Loop owner: return the connections that have become due since the last call."""
        if self._grace_ends <= now:
            silent, self._silent = self._silent, []
            for peer in silent:
                if peer.awaiting_request:
                    yield peer
                else:
                    self._waiting.append(peer)
        while self._waiting and self._next <= now:
            self._next += self._pause
            yield self._waiting.pop()

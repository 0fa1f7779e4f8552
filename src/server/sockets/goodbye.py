"""Goodbye: whom to tell that the server stops, and when.

Clients that lose their connection come back at once, to another server or to the next one here. If
all were told in the same moment, all would come back in the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .peer import Peer

# Over which part of drain a signal has them told; the rest is for the last ones to answer.
SPREAD = 0.8


class Goodbye:
    """The connections of one loop, to be told in random order. All methods are the owner's.

    Args:
        peers: the connections.
        spread: over how many seconds to tell them, evenly.
        phase: when the first is told, in parts of the time between two; loops with different ones
            take turns.
        now: the time on the loop's clock.
    """

    def __init__(self, peers: Iterable[Peer], spread: float, phase: float, now: float) -> None:
        self._waiting = list(peers)
        random.shuffle(self._waiting)
        self._pause = spread / max(1, len(self._waiting))
        self._next = now + phase * self._pause

    def due(self, now: float) -> Iterator[Peer]:
        """Owner: those whose turn has come since the last time."""
        while self._waiting and self._next <= now:
            self._next += self._pause
            yield self._waiting.pop()

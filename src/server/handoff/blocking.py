"""Blocking profiles: which routes have handlers that block the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..timing import Timing

# The number of lost loops within ``Timing.handoff_window`` after which a route is suspect.
HANDOFFS_OF_A_ROUTE = 3


class BlockingProfile:
    """The blocking behaviour of one route on one loop. Only the owner calls its methods.

    Args:
        route: the route, or the hook of an ``authorize``.
        blocking: the option of the route: True to run every turn in a thread, False to begin every
            turn on the loop, None to learn from the turns.
        timing: the app's timing.

    Attributes:
        slow: True if the last turn took long, so that the answers of others are sent before the
            next one.
    """

    def __init__(self, route: Hashable, blocking: bool | None, timing: Timing) -> None:
        self.route = route
        self.blocking = blocking
        self.slow = False
        self._timing = timing
        self._handoffs: deque[float] = deque(maxlen=HANDOFFS_OF_A_ROUTE)
        self._suspected = -inf

    def probation(self) -> int:
        """Loop owner: return the number of turns for which a new connection is on probation."""
        if self._suspected == -inf:
            return 0
        age = self._timing.clock() - self._suspected
        return self._timing.route_probation_turns if age < self._timing.route_memory else 0

    def needs_thread(self) -> bool:
        """Loop owner: return True if the first turn of a new connection must begin in a thread."""
        return bool(self.blocking) or self.probation() > 0

    def has_blocked(self) -> bool:
        """Loop owner: record that a turn has lost the loop; True if the route is now suspect."""
        now = self._timing.clock()
        self._handoffs.append(now)
        suspect = (
            len(self._handoffs) == HANDOFFS_OF_A_ROUTE
            and now - self._handoffs[0] < self._timing.handoff_window
        )
        if suspect:
            self._suspected = now
        return suspect

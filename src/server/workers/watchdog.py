"""The supervisor's check that the loops of a worker make progress."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

# The number of checks within the time-out.
CHECKS = 4


class Watchdog:
    """The periodic request that all loops of a worker run a callback.

    The time-out is counted in checks of the supervisor. While the machine or the supervisor is
    stopped there are no checks, so the worker is not blamed for that time. Afterwards it still has
    its remaining checks.

    Args:
        clock: a function that returns the time in seconds.
        timeout: seconds without progress after which a worker hangs; 0 for no limit.
        request: a function that sends the request to the worker.

    Attributes:
        due: time of the next :meth:`check`, by the clock.
    """

    def __init__(
        self, clock: Callable[[], float], timeout: float, request: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._interval = timeout / CHECKS
        self._request = request
        self._requested = False
        self._missed = 0
        self.due: float = clock() if timeout else inf

    def answered(self) -> None:
        """Record that all loops of the worker have run the callback."""
        self._requested = False
        self._missed = 0

    def check(self) -> bool:
        """Send a request if one is due.

        Returns:
            True if the worker has not answered for the whole time-out.
        """
        now = self._clock()
        if now < self.due:
            return False
        self.due = now + self._interval
        if self._requested:
            self._missed += 1
        else:
            self._requested = True
            self._request()
        return self._missed >= CHECKS

"""Whether a worker's loops turn, as far as its supervisor sees."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

# How often within the time-out a worker is asked.
BEATS = 4


class Pulse:
    """Asks a worker again and again to have all of its loops turn once.

    Time counts in beats of the supervisor. While the machine, or the supervisor itself, stands
    still there is none, so that no worker is blamed for it; afterwards each still has the rest of
    its beats.

    Args:
        clock: returns the time in seconds.
        timeout: how long the loops may stand still, in seconds; 0 for ever.
        ask: sends the worker the question.

    Attributes:
        due: when :meth:`beat` is to be called, by the clock.
    """

    def __init__(
        self, clock: Callable[[], float], timeout: float, ask: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._interval = timeout / BEATS
        self._ask = ask
        self._asked = False
        self._missed = 0
        self.due = clock() if timeout else inf

    def turned(self) -> None:
        """The worker has answered."""
        self._asked = False
        self._missed = 0

    def beat(self) -> bool:
        """Ask, if that is due; whether the worker has not answered for the whole time-out."""
        now = self._clock()
        if now < self.due:
            return False
        self.due = now + self._interval
        if self._asked:
            self._missed += 1
        else:
            self._asked = True
            self._ask()
        return self._missed >= BEATS

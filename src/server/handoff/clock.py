"""The clock of a loop, and the functions that the loop calls periodically."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..timing import Timing


class LoopClock(ABC):
    """A clock that excludes the time in which the process was suspended, and its ticks.

    Args:
        timing: the timing of the app.

    Attributes:
        timing: the timing of the app.
        tick: a hook that is called with the time on this clock, after :meth:`start_ticks`. It
            returns the pause until the next call in seconds, 0 for the next round of the loop, or
            None to stop the calls. After calls in successive rounds, the pause is measured from the
            first of them.
        checked_at: the time of the last tick; idle connections share this object to save memory.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.tick: Callable[[float], float | None] = lambda now: None
        self._clock = timing.clock
        self._suspended = 0.0  # the total time of suspensions, in seconds
        self.checked_at: float = self.clock()
        # Float objects of coming times, shared to save memory, by seconds after ``checked_at``.
        self._instants: dict[float, float] = {}
        self._ticking = False
        self._tick_again = False  # True if the last tick ended early and must continue
        self._ticked_at = 0.0  # the time of the first tick of a sequence without a pause
        self._next_tick = 0.0
        self._tick_by = 0.0  # a tick after this time means that the process was suspended
        self._at_tick: list[Callable[[], object]] = []

    def clock(self) -> float:
        """Any thread: return the time for deadlines, in seconds.

        The time in which the process was suspended does not count, because the loop has not seen
        the data that clients sent in that time.
        """
        return self._clock() - self._suspended

    @abstractmethod
    def call_safely(self, function: Callable[[], object], /) -> None:
        """Loop owner: call ``function``; an error ends only the connection whose method it is."""

    def at_next_tick(self, function: Callable[[], object]) -> None:
        """Loop owner: call ``function`` at the next check of the deadlines."""
        self.start_ticks()
        self._at_tick.append(function)

    def instant(self, seconds: float) -> float:
        """Loop owner: return the time a number of seconds after ``checked_at``.

        Connections that are checked together share one object, which saves memory.
        """
        if seconds not in self._instants:
            self._instants[seconds] = self.checked_at + seconds
        return self._instants[seconds]

    def start_ticks(self) -> None:
        """Loop owner: call the hook ``tick`` regularly, until it returns None."""
        if not self._ticking:
            self._ticking = True
            self.checked_at = self.clock()
            self._instants.clear()
            self._next_tick = self._tick_by = self.checked_at + self.timing.sweep_interval

    def tick_soon(self) -> None:
        """Loop owner: call the hook ``tick`` in the next round, unless the calls have stopped."""
        self._next_tick = self.clock()

    def _tick_if_due(self, time: float) -> None:
        """Call the hook ``tick`` and the functions of :meth:`at_next_tick`, if they are due.

        Args:
            time: the time on the clock of ``timing``.
        """
        now = time - self._suspended
        if now < self._next_tick:
            return
        late = now - self._tick_by
        if late > self.timing.stall_threshold:
            self._suspended += late
            now = self._tick_by
        self._tick_by = now + self.timing.sweep_interval
        self.checked_at = now
        self._instants.clear()
        if not self._tick_again:
            self._ticked_at = now
            due, self._at_tick = self._at_tick, []
            for function in due:
                self.call_safely(function)
        pause = self.tick(now)
        self._tick_again = pause == 0
        if pause is None and not self._at_tick:
            self._ticking = False
        # A check of many connections takes several ticks. The pause is measured from the first of
        # these ticks, so that the duration of a check does not delay the next check.
        self._next_tick = self._ticked_at + (self.timing.sweep_interval if pause is None else pause)

    def _poll_timeout(self) -> float | None:
        """Return the time for which the poller may block, in seconds; None for no limit."""
        return max(0.0, self._next_tick - self.clock()) if self._ticking else None

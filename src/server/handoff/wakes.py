"""Wake-ups of the threads of handlers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import pure_rounds, rounds
from .round import COLLECT_TIME
from .threads import has_gil

if TYPE_CHECKING:
    from ..pure_rounds import Signal

# The number of rests that are skipped after a rest in which no thread made progress.
LEFT_OUT = 16


class Wakes:
    """The handlers' threads that one loop must wake.

    If many threads are awake at once, they compete for the GIL and the system switches between
    them. So the loop wakes one thread, and each woken thread wakes the next one when it waits
    again and has released the GIL. A woken handler may block instead. So the loop wakes another
    thread if no thread was woken since the loop's last round. While threads run, a loop without
    other work *rests*, because it would compete for the GIL, too. Without a GIL all threads are
    woken at once.

    Attributes:
        new_signal: a function that returns a signal for one thread to wait for.
        one_at_a_time: True if each thread wakes the next one.
        longest_rest: the limit on a rest, in seconds.
        signals: the signals for which threads wait.
        last: the signal of the thread that was woken last and must wake the next one; None if that
            thread waits again and no other thread must be woken.
        resting: a list with one item while the owner rests, until a thread ends the rest.
    """

    def __init__(self) -> None:
        io: Any = rounds.chosen if rounds.usable() else pure_rounds
        self.new_signal: Callable[[], Signal] = io.Signal
        self.one_at_a_time: bool = has_gil()
        self.longest_rest = COLLECT_TIME
        self.signals: deque[Signal] = deque()
        self.last: Signal | None = None
        # Only the owner uses the next two attributes. ``_seen`` is the value that ``last`` had in
        # the owner's previous round. ``_leave_out`` is the number of rests that the owner will
        # skip. The docstring of the class defines a rest.
        self._seen: Signal | None = None
        self._leave_out = 0
        self.resting: list[None] = []
        self._rest_ends: Signal = self.new_signal()

    def add(self, ready_signal: Signal) -> None:
        """Loop owner: schedule the wake-up of the thread that waits for a signal."""
        self.signals.append(ready_signal)

    def wake_some(self, *, idle: bool) -> None:
        """Loop owner: wake a thread, unless threads wake each other; without a GIL, wake all.

        Args:
            idle: True if the owner may rest afterwards.
        """
        if not self.one_at_a_time:
            while self.signals:
                self.signals.popleft().set()
            return
        moving = self.last is not self._seen
        rests = idle and not self._leave_out
        if idle and self._leave_out:
            self._leave_out -= 1
        wakes = self.last is None or not (moving or rests)
        following = self._take_next() if wakes else None
        self._seen = self.last
        if rests and self.last is not None:
            self._rest(following)
        elif following is not None:
            self._rest_ends.wait(0, following)

    def _rest(self, following: Signal | None) -> None:
        """Loop owner: wake the next thread; wait until all threads wait again, at most 100 us."""
        self.resting.append(None)
        if not self._rest_ends.wait(self.longest_rest, following) and self.last is self._seen:
            self._leave_out = LEFT_OUT
            if not self.signals:
                self.last = None  # the thread blocks, and no other thread must be woken
        self.resting.clear()

    def after(self, ready_signal: Signal) -> Signal | None:
        """A handler's thread, before it waits or ends: return the signal that it must set, if any.

        Args:
            ready_signal: the signal for which the thread waits.
        """
        if self.last is not ready_signal:
            return None
        following = self._take_next()
        if following is None and self.resting:
            self.resting.clear()
            return self._rest_ends
        return following

    def _take_next(self) -> Signal | None:
        try:
            while (ready_signal := self.signals.popleft()).is_set:
                pass  # this signal is already set, so its thread needs no other wake-up
        except IndexError:  # no signal is left
            self.last = None
            return None
        self.last = ready_signal
        return ready_signal

    def clear(self) -> None:
        """The child of a fork: forget everything."""
        self.signals.clear()

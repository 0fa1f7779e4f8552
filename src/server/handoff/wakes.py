"""Wake-ups of the threads of handlers."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from queue import SimpleQueue

from .threads import has_gil


class Wakes:
    """The handlers' threads that one loop must wake.

    If many threads are woken at once, they compete for the GIL and the system switches between
    them. So the loop wakes one thread in each round, and each woken thread wakes the next one
    before it may block. Without a GIL all threads are woken at once.

    Attributes:
        one_at_a_time: True to wake one thread in each round.
    """

    def __init__(self) -> None:
        self.one_at_a_time = has_gil()
        self._signals: deque[SimpleQueue[None]] = deque()

    def __bool__(self) -> bool:
        """Any thread: return True if threads must be woken."""
        return bool(self._signals)

    def add(self, ready_signal: SimpleQueue[None]) -> None:
        """Owner: wake the thread that waits for this queue, soon."""
        self._signals.append(ready_signal)

    def wake_some(self) -> None:
        """Owner: wake one thread, or without a GIL all."""
        for _ in range(1 if self.one_at_a_time else len(self._signals)):
            self.wake_next()

    def wake_next(self) -> None:
        """The owner, or any thread that was just woken: wake the next thread."""
        with suppress(IndexError):  # another thread may take the last one
            while self._signals:
                ready_signal = self._signals.popleft()
                if ready_signal.empty():  # otherwise an earlier signal is still unread
                    ready_signal.put(None)
                    return

    def clear(self) -> None:
        """The child of a fork: forget everything."""
        self._signals.clear()

"""The calls that any thread queues for the owner of a loop, and the owner's sleep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from wsframe.waker import Waker

# The number of queued calls that are made before sockets are polled again.
MAX_CALLS_PER_ROUND = 256


class Calls:
    """The queued calls of one loop. A file wakes the owner if it sleeps in the poller.

    Args:
        waker: the file.

    Attributes:
        queue: the queued calls; only the owner removes them.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self.queue: deque[Callable[[], object]] = deque()
        # One item while the owner sleeps or is about to; a thread that sees it wakes the owner.
        self._asleep: list[None] = []
        #: Owner: return the descriptor of the file.
        self.fileno: Callable[[], int] = waker.fileno
        #: Owner: close the file.
        self.close: Callable[[], None] = waker.close

    def add(self, function: Callable[[], object]) -> None:
        """Any thread: queue ``function`` for the owner to call, after all earlier ones."""
        self.queue.append(function)
        if self._asleep:
            self._asleep.clear()  # so that later calls do not wake it again
            self._waker.wake()

    def sleeps(self) -> bool:
        """Any thread: return True if the owner is blocked in the poller, or about to be."""
        return bool(self._asleep)

    def announce_sleep(self) -> None:
        """Owner: announce a sleep. Check after that whether calls are queued; none is lost then."""
        self._asleep.append(None)

    def end_sleep(self) -> None:
        """Owner: record that the sleep is over."""
        self._asleep.clear()

    def ready(self, events: int) -> None:
        """Owner: continue after a wake-up."""
        self._waker.drain()

    def make(self, call_safely: Callable[[Callable[[], object]], Any]) -> None:
        """Owner: make the queued calls, up to a limit; calls queued meanwhile are made later."""
        for _ in range(min(len(self.queue), MAX_CALLS_PER_ROUND)):
            call_safely(self.queue.popleft())

    def clear(self) -> None:
        """The child of a fork: forget everything."""
        self.queue.clear()
        self._asleep.clear()

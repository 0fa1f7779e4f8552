"""The functions that any thread queues for the owner of a loop, and the owner's sleep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from wsframe.waker import Waker

# The number of queued calls that are made before sockets are polled again.
MAX_CALLS_PER_ROUND = 256


class Calls:
    """The queued calls of one loop. The waker wakes the owner if it sleeps in the poller.

    Args:
        waker: the file that wakes the poller.

    Attributes:
        queue: the queued calls; only the owner removes them.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self.queue: deque[Callable[[], object]] = deque()
        # The list has an item while the owner sleeps or is about to sleep. The thread that removes
        # the item must wake the owner.
        self._asleep: list[None] = []
        #: Loop owner: return the descriptor of the file.
        self.fileno: Callable[[], int] = waker.fileno
        #: Loop owner: close the file.
        self.close: Callable[[], None] = waker.close

    def add(self, function: Callable[[], object]) -> None:
        """Any thread: queue ``function`` for the owner to call, after all earlier functions."""
        self.queue.append(function)
        if self._asleep:
            self._asleep.clear()  # later calls do not wake the owner again
            self._waker.wake()

    def sleeps(self) -> bool:
        """Any thread: return True if the loop's thread blocks in the poller, or is about to."""
        return bool(self._asleep)

    def announce_sleep(self) -> None:
        """Loop owner: announce a sleep; the caller must check for queued calls before it sleeps."""
        self._asleep.append(None)

    def end_sleep(self) -> None:
        """Loop owner: record that the sleep is over."""
        self._asleep.clear()

    def ready(self, events: int) -> None:
        """Loop owner: continue after a wake-up."""
        self._waker.drain()

    def make(self, call_safely: Callable[[Callable[[], object]], Any]) -> None:
        """Loop owner: make the queued calls, up to a limit; later calls wait for the next round."""
        for _ in range(min(len(self.queue), MAX_CALLS_PER_ROUND)):
            call_safely(self.queue.popleft())

    def clear(self) -> None:
        """The child of a fork: reset the state."""
        self.queue.clear()
        self._asleep.clear()

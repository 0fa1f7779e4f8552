"""The threads that a test has started."""

from __future__ import annotations

import threading


class NewThreads:
    """The running threads that were started after the creation of this object.

    The number of all threads may change meanwhile, because a thread of an earlier test ends.
    """

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def __len__(self) -> int:
        return len(set(threading.enumerate()) - self._before)

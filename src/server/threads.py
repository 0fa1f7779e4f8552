"""The threads that handlers run in, one for each handler that runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from .loop import Loop

log = logging.getLogger("wsframe.server")


class HandlerThreads:
    """The threads of a server's handlers: started by the loop's owner, waited for at the end."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()  # under the lock
        self._ending: list[threading.Thread] = []  # those that have said so; the owner's

    def run(self, path: str, function: Callable[[], None]) -> None:
        """Owner: run the handler of a path in a thread of its own.

        Raises:
            RuntimeError: the system has no thread left.
        """

        def run() -> None:
            try:
                function()
            finally:
                self._loop.call_soon(lambda: self._reap(thread))

        thread = threading.Thread(target=run, name=f"wsframe-handler {path}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise

    def running_here(self) -> bool:
        """Any thread: whether the calling thread is one of them."""
        with self._lock:
            return threading.current_thread() in self._threads

    def join(self, deadline: float) -> None:
        """Any thread but these: wait for them; those that take longer are named and left behind.

        Args:
            deadline: on the monotonic clock, in seconds.
        """
        with self._lock:
            threads = tuple(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                log.error("%s has not ended and is left behind", thread.name)

    def _reap(self, thread: threading.Thread) -> None:
        """Owner: forget a thread once it is over.

        It is not waited for here: what it still does, to clear its thread-locals, is user code.
        """
        self._ending.append(thread)
        over = [thread for thread in self._ending if not thread.is_alive()]
        if over:
            self._ending = [thread for thread in self._ending if thread not in over]
            with self._lock:
                self._threads.difference_update(over)

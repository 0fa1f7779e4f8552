"""The sources of an app: queues and other iterables that feed topics, with one thread each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any

from .source_threads import IterableThread, Publishable, QueueThread, SourceThread

if TYPE_CHECKING:
    from ..timing import Timing


def check_source(source: object) -> Callable[[Publishable, Timing, Any], SourceThread]:
    """Return the class that takes the items of a source.

    Raises:
        TypeError: the source is neither a queue nor an iterable.
    """
    if hasattr(source, "get") and hasattr(source, "put"):
        # Queues with coroutines, and queues that return copies of their items, are not supported.
        if type(source).__module__.partition(".")[0] not in ("asyncio", "multiprocessing"):
            return QueueThread
    elif isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        return IterableThread
    raise TypeError(
        f"invalid source {source!r}: expected a topic, a thread-safe queue such as queue.Queue, "
        "or an iterable"
    )


class Sources:
    """The sources of an app; their threads run while at least one of its servers does.

    Args:
        timing: the durations of the app.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._threads: dict[
            int, tuple[object, SourceThread]
        ] = {}  # the key is the id of the source, which may not be hashable
        self._lock = threading.Lock()
        self._users = 0

    def topic_of(self, source: object) -> Publishable | None:
        """Any thread: return the topic that a source feeds; None if it feeds no topic."""
        _, thread = self._threads.get(id(source), (None, None))
        return None if thread is None else thread.topic

    def add(self, source: Any, topic: Publishable) -> None:
        """Any thread: feed a topic from a source, while a server runs.

        Raises:
            TypeError: the source is neither a queue nor an iterable.
            ValueError: the source feeds a topic already.
        """
        thread = check_source(source)(topic, self._timing, source)
        with self._lock:
            if id(source) in self._threads:
                raise ValueError("this source feeds a topic already")
            self._threads[id(source)] = source, thread
            if self._users:
                thread.start()

    def start(self) -> None:
        """Any thread, once for each server, when it starts: start the threads."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            # If a thread cannot be started, the earlier ones are stopped and the count is reset.
            with ExitStack() as undo:
                undo.callback(self._leave)
                for thread in self._all():
                    thread.start()
                    undo.callback(thread.stop)
                undo.pop_all()

    def catch_up(self, timeout: float) -> None:
        """Any thread: wait until the present items of all sources are published."""
        until = monotonic() + timeout
        with self._lock:
            for thread in self._all():
                thread.catch_up(max(0.0, until - monotonic()))

    def stop(self) -> bool:
        """Any thread, once for each server, when it has stopped; return True for the last one."""
        with self._lock:
            self._leave()
            if self._users:
                return False
            for thread in self._all():
                thread.stop()
            return True

    def running(self) -> int:
        """Any thread: return the number of running threads."""
        return sum(thread.running for thread in self._all())

    def _leave(self) -> None:
        self._users -= 1

    def _all(self) -> list[SourceThread]:
        return [thread for _, thread in tuple(self._threads.values())]

"""What feeds topics from beside: queues and other iterables, each by one thread."""

from __future__ import annotations

import queue
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from logging import WARNING
from queue import Queue
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsframe import StateError

from ..reports.complaint import Complaint
from ..reports.loggers import log

if TYPE_CHECKING:
    from .topic import Topic


# How long a thread may take to end when the server stops, for its next item, in seconds.
PATIENCE = 0.5

# What a queue raises that was shut down, as it can be from Python 3.13 on.
SHUT_DOWN: list[type[Exception]] = []
if sys.version_info >= (3, 13):
    SHUT_DOWN.append(queue.ShutDown)


def _nothing() -> None:
    """The task_done of a queue that has none."""


class Pump(ABC):
    """Publishes what comes out of a source, in one thread; started and stopped by one at a time."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self._late = Complaint()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # that takes items; under the lock
        self._wanted = False  # likewise

    @property
    def running(self) -> bool:
        """Any thread: whether it takes items."""
        return self._thread is not None

    def start(self) -> None:
        """Begin to take items, or go on where it was stopped."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="wsframe-feed", daemon=True)
                thread.start()
                self._thread = thread
            self._wanted = True

    def stop(self) -> None:
        """Take no more items; a thread that takes too long to end is left behind."""
        with self._lock:
            thread, self._wanted = self._thread, False
        if thread is None:
            return
        self.rouse()
        thread.join(PATIENCE)
        if thread.is_alive():
            log.warning("the thread is left behind that waits for the next item of an event source")

    @abstractmethod
    def catch_up(self, timeout: float) -> None:
        """Wait until what is there before this call is published."""

    @abstractmethod
    def rouse(self) -> None:
        """Have the thread see that it is not wanted, if it waits."""

    @abstractmethod
    def run(self) -> None:
        """The pump's thread: publish the items until it is not wanted, or there is none."""

    def is_unwanted(self) -> bool:
        """The pump's thread: whether to end, and leave the rest to the next one."""
        with self._lock:
            if not self._wanted:
                self._thread = None
            return not self._wanted

    def publish(self, item: object) -> bool:
        """The pump's thread: publish an item; False if the topic was closed."""
        try:
            self.topic.publish(item)
        except StateError as error:
            self._late.log(WARNING, "an event source has more: %s", error)
            return False
        except Exception:  # whatever that can raise, the next item may be in order
            log.exception("an item of an event source is not an event: %.200r", item)
        return True

    def _run(self) -> None:
        try:
            self.run()
        except Exception:
            log.exception("an event source failed")
        with self._lock:
            if self._thread is threading.current_thread():
                self._thread = None


class _Mark(threading.Event):
    """An item that is set when a pump comes to it."""


class QueuePump(Pump):
    """Takes items off a queue. What it is roused by is an item, so that it needs no time-out."""

    def __init__(self, topic: Topic, source: Queue[Any]) -> None:
        super().__init__(topic)
        self._source = source
        self._caught_up = _Mark()
        self._done: Callable[[], object] = getattr(source, "task_done", _nothing)

    def catch_up(self, timeout: float) -> None:
        """Wait until what was put before is published."""
        self._caught_up = mark = _Mark()
        if not self.running:
            return
        with suppress(*SHUT_DOWN):  # then it ends when it has taken what is left
            self._source.put(mark)
        mark.wait(timeout)

    def rouse(self) -> None:
        """Have the thread see that it is not wanted, if it waits."""
        with suppress(*SHUT_DOWN):
            self._source.put(self)

    def run(self) -> None:
        """The pump's thread: publish the items until it finds itself."""
        try:
            with suppress(*SHUT_DOWN):  # the queue's end is ours
                while not self._take(self._source.get()):
                    pass
        finally:
            self._caught_up.set()

    def _take(self, item: object) -> bool:
        """Do what is to be done with an item; whether it is the end."""
        ends = False
        if item is self:
            ends = self.is_unwanted()
        elif isinstance(item, _Mark):
            item.set()
        elif isinstance(item, QueuePump):  # of another app, which takes items off the same one
            if item.running:
                self._source.put(item)
        else:
            self.publish(item)
        self._done()
        return ends


class IterablePump(Pump):
    """Takes the items of any other iterable, which may block."""

    def __init__(self, topic: Topic, source: Iterable[Any]) -> None:
        super().__init__(topic)
        self._source = source
        self._items: Iterator[Any] | None = None

    def catch_up(self, timeout: float) -> None:
        """Nobody knows what an iterable has."""

    def rouse(self) -> None:
        """Nor can it be told anything: the thread sees it after the next item."""

    def run(self) -> None:
        """The pump's thread: publish the items until it is not wanted, or there is none."""
        if self._items is None:
            self._items = iter(self._source)
        while not self.is_unwanted():
            for item in self._items:
                if not self.publish(item):
                    return
                break
            else:
                return


def check_source(source: object) -> Callable[[Topic, Any], Pump]:
    """What takes the items of a source.

    Raises:
        TypeError: it is neither a queue nor an iterable.
    """
    if hasattr(source, "get") and hasattr(source, "put"):
        # These wait by await, or give back copies of what was put; threads cannot use them.
        if type(source).__module__.partition(".")[0] not in ("asyncio", "multiprocessing"):
            return QueuePump
    elif isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        return IterablePump
    raise TypeError(f"a source is a topic, a queue of threads or an iterable, not {source!r}")


class Sources:
    """The pumps of an app; they run while at least one of its servers does."""

    def __init__(self) -> None:
        self._pumps: dict[int, tuple[object, Pump]] = {}  # by source, which may have no hash
        self._lock = threading.Lock()
        self._users = 0

    def topic_of(self, source: object) -> Topic | None:
        """What this source feeds, if it is known."""
        _, pump = self._pumps.get(id(source), (None, None))
        return None if pump is None else pump.topic

    def add(self, source: Any, topic: Topic) -> None:
        """Any thread: have a source feed a topic, as long as a server runs.

        Raises:
            TypeError: it is neither a queue nor an iterable.
            ValueError: it feeds a topic already.
        """
        pump = check_source(source)(topic, source)
        with self._lock:
            if id(source) in self._pumps:
                raise ValueError("this source feeds a topic already")
            self._pumps[id(source)] = source, pump
            if self._users:
                pump.start()

    def start(self) -> None:
        """Any thread, once for each server: it starts."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            with ExitStack() as undo:  # if the system has no thread left for one of them
                undo.callback(self._leave)
                for pump in self._all():
                    pump.start()
                    undo.callback(pump.stop)
                undo.pop_all()

    def catch_up(self, timeout: float) -> None:
        """Any thread: wait until what is there by now is published."""
        until = monotonic() + timeout
        with self._lock:
            if self._users:
                for pump in self._all():
                    pump.catch_up(max(0.0, until - monotonic()))

    def stop(self) -> bool:
        """Any thread, once for each server: it has stopped; True if none is left."""
        with self._lock:
            self._leave()
            if self._users:
                return False
            for pump in self._all():
                pump.stop()
            return True

    def running(self) -> int:
        """Any thread: how many threads there are."""
        return sum(pump.running for pump in self._all())

    def _leave(self) -> None:
        self._users -= 1

    def _all(self) -> list[Pump]:
        return [pump for _, pump in tuple(self._pumps.values())]

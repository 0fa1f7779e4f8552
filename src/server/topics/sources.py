"""What feeds topics from beside: queues and other iterables, each by one thread."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from queue import Queue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .topic import Topic

log = logging.getLogger("wsframe.server")

# How long an iterable may take to its next item when the server stops, in seconds.
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
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Any thread: whether it takes items."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to take items."""
        if not self.running:
            self._thread = threading.Thread(target=self.run, name="wsframe-feed", daemon=True)
            self._thread.start()

    @abstractmethod
    def catch_up(self) -> None:
        """Wait until what is there before this call is published."""

    @abstractmethod
    def stop(self) -> None:
        """Take no more items, and wait until the thread has ended."""

    @abstractmethod
    def run(self) -> None:
        """The pump's thread: publish the items until it is stopped, or there is none any more."""

    def publish(self, item: object) -> None:
        """The pump's thread: publish an item."""
        try:
            self.topic.publish(item)
        except Exception:  # whatever that can raise, the next item may be in order
            log.exception("an item of an event source is not an event: %.200r", item)


class _Mark(threading.Event):
    """An item that is set when a pump comes to it."""


class QueuePump(Pump):
    """Takes items off a queue. It ends by an item, and needs neither a time-out nor a flag."""

    def __init__(self, topic: Topic, source: Queue[Any]) -> None:
        super().__init__(topic)
        self._source = source
        self._caught_up = _Mark()
        self._done: Callable[[], object] = getattr(source, "task_done", _nothing)

    def catch_up(self) -> None:
        """Wait until what was put before is published."""
        self._caught_up = mark = _Mark()
        if self._thread is None or not self.running:
            return
        try:
            self._source.put(mark)
        except tuple(SHUT_DOWN):
            self._thread.join()  # when it has taken what is left
        else:
            mark.wait()

    def stop(self) -> None:
        """Take no more items, and wait until the thread has ended."""
        with suppress(*SHUT_DOWN):
            self._source.put(self)  # which ends the thread
        assert self._thread is not None
        self._thread.join()

    def run(self) -> None:
        """The pump's thread: publish the items until it finds itself."""
        with suppress(*SHUT_DOWN):  # the queue's end is ours
            self._take_items()
        self._caught_up.set()

    def _take_items(self) -> None:
        while (item := self._source.get()) is not self:
            if isinstance(item, _Mark):
                item.set()
            elif isinstance(item, QueuePump):  # of another app, which takes items off the same one
                if item.running:
                    self._source.put(item)
            else:
                self.publish(item)
            self._done()
        self._done()


class IterablePump(Pump):
    """Takes the items of any other iterable, which may block."""

    def __init__(self, topic: Topic, source: Iterable[Any]) -> None:
        super().__init__(topic)
        self._source = source
        self._items: Iterator[Any] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to take items, or go on where it was stopped."""
        self._stopping = False
        super().start()

    def catch_up(self) -> None:
        """Nobody knows what an iterable has."""

    def stop(self) -> None:
        """Take no more items after the next; a thread that waits too long for that is left."""
        self._stopping = True
        assert self._thread is not None
        self._thread.join(PATIENCE)
        if self.running:
            log.warning("the thread is left behind that waits for the next item of an event source")

    def run(self) -> None:
        """The pump's thread: publish the items until it is stopped, or there is none any more."""
        try:
            if self._items is None:
                self._items = iter(self._source)
            while not self._stopping:
                for item in self._items:
                    self.publish(item)
                    break
                else:
                    return
        except Exception:
            log.exception("an event source failed")


def check_source(source: object) -> Callable[[Topic, Any], Pump]:
    """What takes the items of a source.

    Raises:
        TypeError: it is neither a queue nor an iterable.
    """
    if hasattr(source, "get") and hasattr(source, "put"):
        return QueuePump
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        return IterablePump
    raise TypeError(f"a source is a topic, a queue or another iterable, not {source!r}")


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

    def catch_up(self) -> None:
        """Any thread: wait until what is there by now is published."""
        with self._lock:
            if self._users:
                for pump in self._all():
                    pump.catch_up()

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

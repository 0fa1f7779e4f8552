"""What feeds topics: queues and other iterables, each by one thread.

An item that was taken is kept until it is published: in a log of this process that is at once; over
Redis it is when Redis has accepted it. While that is away nothing more is taken, so that the items
wait in the queue.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Queue
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from wsframe import StateError

from ..reports.loggers import log
from ..reports.throttled import ThrottledLog
from .entry import Entry, as_entry
from .errors import BrokerRefused, BrokerUnavailable
from .receipts import Fate, Receipt

if TYPE_CHECKING:
    from ..timing import Timing

# How many items are taken off a queue that Redis has not accepted yet.
WINDOW = 100

# What a queue raises that was shut down, as it can be from Python 3.13 on.
SHUT_DOWN: tuple[type[Exception], ...] = ()
if sys.version_info >= (3, 13):
    SHUT_DOWN = (queue.ShutDown,)


def _nothing() -> None:
    """What is done after an item of a source that wants to hear nothing of it."""


@dataclass(eq=False)
class _Kept:
    """An item that was taken and may have to be published again; None before it was published."""

    entry: Entry
    receipt: Receipt | None = None


class Publishable(Protocol):
    """A topic, as a source sees it."""

    name: str

    def submit(self, entry: Entry, receipt: Receipt | None = None) -> object:
        """Any thread: publish an entry; the receipt is settled when the log has it."""


class SourceThread(ABC):
    """Publishes what comes out of a source, in one thread; started and stopped by one at a time.

    Args:
        topic: to which it is published.
        timing: the app's.
        done: is called when an item needs no more work.
    """

    def __init__(
        self, topic: Publishable, timing: Timing, done: Callable[[], object] = _nothing
    ) -> None:
        self.topic = topic
        self.timing = timing
        self._done = done
        self._late, self._trouble = ThrottledLog(), ThrottledLog()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # that takes items; under the lock
        self._wanted = False  # likewise
        self._unwanted = threading.Event()
        self._kept: deque[_Kept] = deque()  # its thread's
        self._is_closed = False  # the topic; likewise

    @property
    def running(self) -> bool:
        """Any thread: whether it takes items."""
        return self._thread is not None

    def start(self) -> None:
        """Begin to take items, or go on where it was stopped."""
        with self._lock:
            self._unwanted.clear()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="wsframe-feed", daemon=True)
                thread.start()
                self._thread = thread
            self._wanted = True

    def stop(self) -> None:
        """Take no more items; a thread that takes too long to end is left behind."""
        with self._lock:
            thread, self._wanted = self._thread, False
            self._unwanted.set()
        if thread is None:
            return
        thread.join(self.timing.source_stop_timeout)
        if thread.is_alive():
            log.warning("the thread is left behind that waits for the next item of an event source")
        elif self._kept:
            log.warning(
                "Redis has not accepted %d items of an event source of the topic %.100r; they are "
                "published again if a server of the app starts",
                len(self._kept),
                self.topic.name,
            )

    @abstractmethod
    def catch_up(self, timeout: float) -> None:
        """Wait until what is there before this call is published, or has to wait for Redis."""

    @abstractmethod
    def run(self) -> None:
        """Its thread: publish the items until it is not wanted, or there is none."""

    # Its thread ------------------------------------------------------------------------

    def is_unwanted(self) -> bool:
        """Its thread: whether to end, and leave the rest to the next one."""
        with self._lock:
            if not self._wanted:
                self._thread = None
            return not self._wanted

    def take(self, item: object) -> None:
        """Its thread: publish an item, and keep it until it is."""
        try:
            entry = as_entry(item)
        except Exception:  # whatever that can raise, the next item may be in order
            log.exception("an item of an event source is not an event: %.200r", item)
            self._done()
            return
        self._kept.append(_Kept(entry))
        self._submit_all()
        self._forget_settled()

    def retry(self) -> bool:
        """Its thread: publish what is kept, and wait a little; whether that has helped."""
        before = len(self._kept)
        self._submit_all()
        if self._kept:
            receipt = self._kept[0].receipt
            if receipt is None:
                self._unwanted.wait(self.timing.source_poll_interval)
            else:
                receipt.wait(self.timing.source_poll_interval)
            self._forget_settled()
        return len(self._kept) < before

    def _submit_all(self) -> None:
        for kept in self._kept:
            if kept.receipt is None and not self._submit(kept):
                return

    def _submit(self, kept: _Kept) -> bool:
        """Publish an item; False if that is to be done again."""
        receipt = Receipt()
        try:
            self.topic.submit(kept.entry, receipt)
        except (BrokerUnavailable, BrokerRefused) as error:
            self._trouble.log(logging.WARNING, "an event source has to wait: %s", error)
            return False
        except StateError as error:
            self._late.log(logging.WARNING, "an event source has more: %s", error)
            self._is_closed = True
            receipt.settle(Fate.UNFIT)
        except Exception:
            log.exception("an item of an event source cannot be published")
            receipt.settle(Fate.UNFIT)
        kept.receipt = receipt
        return True

    def _forget_settled(self) -> None:
        """Let go of what needs no more work, in order; what was refused is published again."""
        while self._kept:
            receipt = self._kept[0].receipt
            if receipt is None or receipt.fate is Fate.WAITING:
                return
            if receipt.fate in (Fate.ACCEPTED, Fate.UNFIT):
                self._kept.popleft()
                self._done()
                continue
            # Nothing may overtake it, so wait for the others before all are published again.
            if any(each.receipt and each.receipt.fate is Fate.WAITING for each in self._kept):
                self._unwanted.wait(self.timing.source_poll_interval)
                return
            for each in self._kept:
                if each.receipt and each.receipt.fate not in (Fate.ACCEPTED, Fate.UNFIT):
                    each.receipt = None
            return

    def _run(self) -> None:
        try:
            self.run()
        except Exception:
            log.exception("an event source failed")
        with self._lock:
            if self._thread is threading.current_thread():
                self._thread = None


class QueueThread(SourceThread):
    """Takes items off a queue. It never puts one in, for a queue may be full, or sort its items."""

    def __init__(self, topic: Publishable, timing: Timing, source: Queue[Any]) -> None:
        super().__init__(topic, timing, getattr(source, "task_done", _nothing))
        self._source = source
        self._size: Callable[[], int] = getattr(source, "qsize", int)
        # In a round what is in the queue when it begins is published, or has to wait for Redis.
        self._rounds = 0
        self._left = 0  # items of this round; its thread's
        self._round_ended = threading.Condition()
        self._in_a_hurry = False  # somebody waits for the end of a round

    def catch_up(self, timeout: float) -> None:
        """Wait until what was put before is published, or has to wait for Redis."""
        with self._round_ended:
            enough = self._rounds + 2  # the one that has begun may not have all
            self._in_a_hurry = True
            self._round_ended.wait_for(
                lambda: self._rounds >= enough or not self.running, max(0.0, timeout)
            )
            self._in_a_hurry = False

    def run(self) -> None:
        """Its thread: publish the items until it is not wanted, or the queue has ended."""
        try:
            is_open = True
            while (is_open or self._kept) and not self.is_unwanted():
                if not self._left:
                    self._end_round()
                is_open = is_open and self._take()
                if self._kept and not self.retry():
                    self._end_round()
        finally:
            self._end_round()

    def _take(self) -> bool:
        """Take items, until they have to wait for Redis or the round ends; False at the end."""
        try:
            while len(self._kept) < WINDOW and self._wanted:
                at_once = self._kept or self._in_a_hurry
                item = self._source.get(timeout=0 if at_once else self.timing.source_poll_interval)
                self._left -= 1
                self.take(item)
                if not (self._kept and self._left):
                    break
        except queue.Empty:
            self._left = 0
        except SHUT_DOWN:
            return False
        return True

    def _end_round(self) -> None:
        self._left = max(1, self._size())
        with self._round_ended:
            self._rounds += 1
            self._round_ended.notify_all()


class IterableThread(SourceThread):
    """Takes the items of any other iterable, which may block, one by one."""

    def __init__(self, topic: Publishable, timing: Timing, source: Iterable[Any]) -> None:
        super().__init__(topic, timing)
        self._source = source
        self._items: Iterator[Any] | None = None

    def catch_up(self, timeout: float) -> None:
        """Nobody knows what an iterable has."""

    def run(self) -> None:
        """Its thread: publish the items until it is not wanted, or there is none."""
        if self._items is None:
            self._items = iter(self._source)
        while not self.is_unwanted():
            if self._kept:
                self.retry()
                continue
            if self._is_closed:
                return
            for item in self._items:
                self.take(item)
                break
            else:
                return


def check_source(source: object) -> Callable[[Publishable, Timing, Any], SourceThread]:
    """What takes the items of a source.

    Raises:
        TypeError: it is neither a queue nor an iterable.
    """
    if hasattr(source, "get") and hasattr(source, "put"):
        # These wait by await, or give back copies of what was put; threads cannot use them.
        if type(source).__module__.partition(".")[0] not in ("asyncio", "multiprocessing"):
            return QueueThread
    elif isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        return IterableThread
    raise TypeError(f"a source is a topic, a queue of threads or an iterable, not {source!r}")


class Sources:
    """The threads of an app; they run while at least one of its servers does.

    Args:
        timing: the app's.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._threads: dict[
            int, tuple[object, SourceThread]
        ] = {}  # by source, which may have no hash
        self._lock = threading.Lock()
        self._users = 0

    def topic_of(self, source: object) -> Publishable | None:
        """What this source feeds, if it is known."""
        _, thread = self._threads.get(id(source), (None, None))
        return None if thread is None else thread.topic

    def add(self, source: Any, topic: Publishable) -> None:
        """Any thread: have a source feed a topic, as long as a server runs.

        Raises:
            TypeError: it is neither a queue nor an iterable.
            ValueError: it feeds a topic already.
        """
        thread = check_source(source)(topic, self._timing, source)
        with self._lock:
            if id(source) in self._threads:
                raise ValueError("this source feeds a topic already")
            self._threads[id(source)] = source, thread
            if self._users:
                thread.start()

    def start(self) -> None:
        """Any thread, once for each server: it starts."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            with ExitStack() as undo:  # if the system has no thread left for one of them
                undo.callback(self._leave)
                for thread in self._all():
                    thread.start()
                    undo.callback(thread.stop)
                undo.pop_all()

    def catch_up(self, timeout: float) -> None:
        """Any thread: wait until what is there by now is published."""
        until = monotonic() + timeout
        with self._lock:
            if self._users:
                for thread in self._all():
                    thread.catch_up(max(0.0, until - monotonic()))

    def stop(self) -> bool:
        """Any thread, once for each server: it has stopped; True if none is left."""
        with self._lock:
            self._leave()
            if self._users:
                return False
            for thread in self._all():
                thread.stop()
            return True

    def running(self) -> int:
        """Any thread: how many threads there are."""
        return sum(thread.running for thread in self._all())

    def _leave(self) -> None:
        self._users -= 1

    def _all(self) -> list[SourceThread]:
        return [thread for _, thread in tuple(self._threads.values())]

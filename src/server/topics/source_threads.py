"""Threads that publish the items of a queue or another iterable to a topic.

A thread keeps an item until it is published: a log in this process accepts it at once, a broker
later. While the broker is unavailable the thread takes no more items, so that they stay in the
queue.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Queue
from typing import TYPE_CHECKING, Any, Protocol

from wsframe import StateError

from ..reports.loggers import log
from ..reports.throttled import ThrottledLog
from .entry import Entry, as_entry
from .errors import BrokerRefused, BrokerUnavailable
from .failures import log_failure
from .receipts import Fate, Receipt

if TYPE_CHECKING:
    from ..timing import Timing

# The maximum number of items taken from a queue that the broker has not accepted yet.
WINDOW = 100

# The exception of a queue that was shut down; earlier versions than Python 3.13 have none.
SHUT_DOWN: type[Exception] | tuple[()] = getattr(queue, "ShutDown", ())


def _nothing() -> None:
    """Do nothing after an item: the default of ``done``."""


@dataclass(eq=False)
class _Kept:
    """An item that may have to be published again. It has a receipt after it was published."""

    entry: Entry
    receipt: Receipt | None = None


class Publishable(Protocol):
    """The part of a topic that a source uses."""

    name: str

    def submit(self, entry: Entry, receipt: Receipt | None = None) -> object:
        """Any thread: publish an entry; its receipt is settled when the log has stored it."""


class SourceThread(ABC):
    """A thread that publishes the items of a source; one caller at a time starts and stops it.

    Args:
        topic: the topic that the items are published to.
        timing: the durations of the app.
        done: a function that is called after each item that was published or dropped.
    """

    def __init__(
        self, topic: Publishable, timing: Timing, done: Callable[[], object] = _nothing
    ) -> None:
        self.topic = topic
        self.timing = timing
        self._done = done
        self._late, self._trouble = ThrottledLog(), ThrottledLog()
        self._lock = threading.Lock()
        # The thread that takes the items; the lock protects it.
        self._thread: threading.Thread | None = None
        self._wanted = False  # under the lock
        self._unwanted = threading.Event()
        self._kept: deque[_Kept] = deque()  # only the source's thread uses it
        self._is_closed = False  # True if the topic is closed; only the source's thread uses it

    @property
    def stopping(self) -> bool:
        """Any thread: True from a stop until the next start."""
        return self._unwanted.is_set()

    @property
    def running(self) -> bool:
        """Any thread: True while the thread takes items."""
        return self._thread is not None

    def start(self) -> None:
        """Begin to take items, or continue after a stop."""
        with self._lock:
            self._unwanted.clear()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="wsframe-feed", daemon=True)
                thread.start()
                self._thread = thread
            self._wanted = True

    def stop(self) -> None:
        """Take no more items; a thread that does not end in time is abandoned."""
        with self._lock:
            thread, self._wanted = self._thread, False
            self._unwanted.set()
        if thread is None:
            return
        thread.join(self.timing.source_stop_timeout)
        if thread.is_alive():
            log.warning(
                "event source thread of the topic %.100r did not stop within %s s; leaving it "
                "running",
                self.topic.name,
                self.timing.source_stop_timeout,
            )
        elif self._kept:
            log.warning(
                "Redis has not acknowledged %d items of an event source of the topic %.100r; the "
                "next server of the app publishes them again",
                len(self._kept),
                self.topic.name,
            )

    @abstractmethod
    def catch_up(self, timeout: float) -> None:
        """Wait until all items before this call are published, or wait for the broker."""

    @abstractmethod
    def run(self) -> None:
        """The source's thread: publish items until :meth:`stop` is called or the source ends."""

    # The source's thread ------------------------------------------------------------------------

    def is_unwanted(self) -> bool:
        """Its thread: return True if it must end; the next thread continues."""
        with self._lock:
            if not self._wanted:
                self._thread = None
            return not self._wanted

    def take(self, item: object) -> None:
        """Its thread: publish an item, and keep it until the log has accepted it."""
        try:
            entry = as_entry(item)
        except Exception:  # the next item may be valid
            log.exception(
                "dropping item from event source of the topic %.100r: not a valid event: %.200r",
                self.topic.name,
                item,
            )
            self._done()
            return
        self._kept.append(_Kept(entry))
        self._submit_all()
        self._forget_settled()

    def retry(self) -> bool:
        """Its thread, if it keeps items: publish them; return True if some were accepted."""
        before = len(self._kept)
        self._submit_all()
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
        """Publish an item; return False if that must be repeated."""
        receipt = Receipt()
        try:
            self.topic.submit(kept.entry, receipt)
        except (BrokerUnavailable, BrokerRefused) as error:
            self._trouble.log(
                logging.WARNING,
                "event source of the topic %.100r waits: %s",
                self.topic.name,
                error,
            )
            return False
        except StateError as error:
            self._late.log(logging.WARNING, "dropping item from event source: %s", error)
            self._is_closed = True
            receipt.settle(Fate.UNFIT)
        except Exception:
            log.exception(
                "dropping item from event source: publishing it to the topic %.100r failed",
                self.topic.name,
            )
            receipt.settle(Fate.UNFIT)
        kept.receipt = receipt
        return True

    def _forget_settled(self) -> None:
        """Forget finished items, in order; publish rejected ones again."""
        while self._kept:
            receipt = self._kept[0].receipt
            if receipt is None or receipt.fate is Fate.WAITING:
                return
            if receipt.fate in (Fate.ACCEPTED, Fate.UNFIT):
                self._kept.popleft()
                self._done()
                continue
            # The order must not change, so all items are published again after the others are
            # settled.
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
        except Exception as error:
            log_failure(error, "event source of the topic %.100r failed", self.topic.name)
        with self._lock:
            if self._thread is threading.current_thread():
                self._thread = None


class QueueThread(SourceThread):
    """A thread that takes items from a queue.

    The thread never returns an item to the queue, because the queue may be full or sorted.
    """

    def __init__(self, topic: Publishable, timing: Timing, source: Queue[Any]) -> None:
        super().__init__(topic, timing, getattr(source, "task_done", _nothing))
        self._source = source
        self._size: Callable[[], int] = getattr(source, "qsize", int)
        # A round processes the items that are in the queue at its beginning.
        self._rounds = 0
        self._remaining = 0  # the remaining items of this round; only the source's thread uses it
        self._round_ended = threading.Condition()
        self._round_awaited = False  # True while a thread waits for the end of a round

    def catch_up(self, timeout: float) -> None:
        """Wait until all items put before are published, or wait for the broker."""
        with self._round_ended:
            enough = self._rounds + 2  # the current round may have begun before the last item
            self._round_awaited = True
            self._round_ended.wait_for(
                lambda: self._rounds >= enough or not self.running, max(0.0, timeout)
            )
            self._round_awaited = False

    def run(self) -> None:
        """Its thread: publish the items until it is stopped, or the queue is shut down."""
        try:
            is_open = True
            while (is_open or self._kept) and not self.is_unwanted():
                if not self._remaining:
                    self._end_round()
                is_open = is_open and self._take()
                if self._kept and not self.retry():
                    self._end_round()
        finally:
            self._end_round()

    def _take(self) -> bool:
        """Take items until they wait for the broker or the round ends; False after a shutdown."""
        try:
            while len(self._kept) < WINDOW and self._wanted:
                at_once = self._kept or self._round_awaited
                item = self._source.get(timeout=0 if at_once else self.timing.source_poll_interval)
                self._remaining -= 1
                self.take(item)
                if not (self._kept and self._remaining):
                    break
        except queue.Empty:
            self._remaining = 0
        except SHUT_DOWN:  # the queue was shut down (Python 3.13)
            return False
        return True

    def _end_round(self) -> None:
        self._remaining = max(1, self._size())
        with self._round_ended:
            self._rounds += 1
            self._round_ended.notify_all()


class IterableThread(SourceThread):
    """A thread that takes items one by one from an iterable, which may block."""

    def __init__(self, topic: Publishable, timing: Timing, source: Iterable[Any]) -> None:
        super().__init__(topic, timing)
        self._source = source
        self._items: Iterator[Any] | None = None

    def catch_up(self, timeout: float) -> None:
        """Do nothing, because the number of items is unknown."""

    def run(self) -> None:
        """The source's thread: publish items until :meth:`stop` is called or the source ends."""
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

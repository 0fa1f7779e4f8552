"""The state of a topic under its lock: the log, its bounds, and the lagging subscriptions."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from math import inf
from typing import Any, Literal, Protocol, TypeAlias

from ..reports.throttled import ThrottledLog
from ..timing import Timing
from .cursors import EpochIds, Ids
from .entry import Entry
from .lagging import Lagging
from .log import TRIM_SLICE, Bounds, Log
from .sizes import Sizes
from .source_threads import Publishable
from .subscription import EventLoop, LoopDelivery, TopicSubscription

#: The treatment of a client that is slower than its topic: see :meth:`wsframe.server.App.topic`.
Policy: TypeAlias = Literal["disconnect", "drop-oldest", "latest"]


class Registry(Protocol):
    """The part of the registry that each topic uses. Any thread may call the methods.

    Attributes:
        timing: the durations of the app.
        sizes: the sizes of the app's topics.
        late: the throttled log of events that were published to a closed topic.
    """

    timing: Timing
    sizes: Sizes
    late: ThrottledLog

    @property
    def loops(self) -> tuple[EventLoop, ...]:
        """The loops of the app's servers."""

    def call_soon(self, function: Callable[[], object], /) -> None:
        """Queue ``function`` for a loop to call, if a loop exists."""

    def count(self, published: int = 0, dropped: int = 0, weight: int = 0) -> None:
        """Count published events, events that subscribers lost, and bytes of memory."""

    def reaches_none(self, name: str, /) -> None:
        """Record that an event of a topic in this process has reached no subscriber."""

    def fair_share(self) -> float:
        """Return the bytes of memory that the entries of one topic may take now."""

    def keep(self, topic: TopicState, /) -> None:
        """Keep a topic without subscribers while clients may reconnect to it."""

    def is_used(self, topic: TopicState, /) -> None:
        """Record that a topic has a subscriber."""

    def feed(self, source: Any, topic: Publishable, /) -> None:
        """Publish the items of a source to a topic."""


class TopicState(ABC):
    """The log of a topic and the positions of its subscribers in it.

    Attributes:
        name: the name of the topic.
        lock: the lock of the topic. It is reentrant, because a signal handler or a ``__del__``
            method can interrupt any statement. Such code must not interfere with a change, so a
            method that changes the state calls :meth:`entered` before it takes the lock.
        log: the published entries; the lock protects this attribute.
        timing: the durations of the app.
        sizes: the sizes of the app's topics.
        client: the network of the only client that has ever been subscribed; None after a second
            one. The lock protects this attribute.
    """

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self.lock: threading.RLock = threading.RLock()
        self.timing: Timing = registry.timing
        self.sizes: Sizes = registry.sizes
        self.log: Log = Log(Bounds(), self.timing.clock)
        self._registry = registry
        self._ids: Ids = EpochIds()
        self._policy: Policy = "disconnect"
        self._deliveries: dict[EventLoop, LoopDelivery] = {}
        self._lagging = Lagging()
        self.client: Hashable = None
        self._closed = False
        self._subscribers = 0
        self._published = 0
        self._dropped = 0
        # Published entries that are not in the log yet, in order. Any thread appends, without the
        # lock; the thread that holds the lock moves them into the log.
        self._posted: list[Entry] = []
        self._weight = 0  # the memory that the registry has counted, in bytes
        self._trim_scheduled = False  # True if a loop will continue trimming
        self._taken = threading.Condition(self.lock)

    def __del__(self) -> None:
        """The finalizer: subtract the topic's memory from the registry's count."""
        self._registry.count(weight=-self._weight)

    @property
    def registry(self) -> Registry:
        """Any thread: the topics of the app."""
        return self._registry

    def entered(self) -> bool:
        """Any thread: return True if the calling thread is in a method of this topic already."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def use_timing(self, timing: Timing) -> None:
        """Any thread, while no server runs: use another clock; for tests."""
        with self.lock:
            self.timing, self.log.clock = timing, timing.clock

    @property
    def is_delivered(self) -> bool:
        """Any thread: True while a loop delivers the topic's events."""
        return bool(self._deliveries)

    def lagging_by_position(self) -> dict[int, int]:
        """Any thread: return the number of lagging subscriptions at each position in the log."""
        with self.lock:
            return self._lagging.by_position()

    @abstractmethod
    def remove(self, subscription: TopicSubscription) -> None:
        """Any thread: end a subscription; later calls do nothing."""

    # Under the lock ---------------------------------------------------------------------------

    @abstractmethod
    def _remove(self, subscription: TopicSubscription) -> None:
        """End a subscription; later calls do nothing."""

    def cursor(self, position: int) -> str:
        """Return the id with which a client resumes after a position."""
        return self._ids.cursor(self.log, position)

    def notify_taken(self) -> None:
        """Wake publishers, because a loop has taken entries."""
        self._taken.notify_all()

    def mark_lagging(self, subscription: TopicSubscription) -> None:
        """Mark a subscription as lagging, at its position."""
        self._lagging.put(subscription)

    def unmark_lagging(self, subscription: TopicSubscription) -> None:
        """Remove the mark of a lagging subscription."""
        self._lagging.take(subscription, self.log.floor)

    def trim(self) -> int:
        """Drop entries beyond the limits; return the number of lost events or clients."""
        log = self.log
        needed = min((delivery.base for delivery in self._deliveries.values()), default=log.head)
        floor = log.floor
        done = log.trim(
            lambda entry: (
                entry.position > needed
                or (self._lagging.count > 0 and log.size <= log.bounds.max_bytes)
            ),
            min(log.bounds.entries_cost, self._registry.fair_share()),
            TRIM_SLICE if self._registry.loops else inf,
        )
        if not (done or self._trim_scheduled):
            self._trim_scheduled = True
            self._registry.call_soon(self._continue_trimming)
        weight = log.cost + log.encodings_cost
        if weight != self._weight:
            self._registry.count(weight=weight - self._weight)
            self._weight = weight
        if not self._lagging.count:
            return 0
        return sum(map(self._overtake_at, self._lagging.passed(floor, log.floor)))

    def count_encodings(self, entries: Iterable[Entry]) -> None:
        """Count the memory of the entries' encodings, and drop encodings beyond the limit."""
        self.log.count_encodings(entries, self._registry.fair_share())

    def _continue_trimming(self) -> None:
        """The owner of a loop: drop the next entries beyond the limits."""
        with self.lock:
            self._trim_scheduled = False
            self.trim()

    def _overtake_at(self, position: int) -> int:
        """Apply the policy to all subscriptions at a position, which the floor has passed.

        Returns:
            The number of lost events, or of lost clients.
        """
        if self._policy == "disconnect":
            waiting = self._lagging.pop(position)
            for subscription in waiting:
                self.overtake(subscription)
            return len(waiting)
        # This takes the same time for any number of subscriptions.
        moved = self._lagging.move(position, self.log.floor)
        self.count_lost(moved * (self.log.floor - position))
        return moved

    def overtake(self, subscription: TopicSubscription) -> None:
        """Apply the policy to a subscription that the floor has passed."""
        if self._policy == "disconnect":
            self.count_lost(1)
            self._remove(subscription)
            subscription.loop.call_soon(subscription.too_slow)
        else:
            lost = self.log.floor - subscription.position
            self.count_lost(lost)
            subscription.dropped += lost
            subscription.position, subscription.missed = self.log.floor, True
            self.mark_lagging(subscription)
            subscription.loop.call_soon(subscription.advance)

    def count_lost(self, events: int) -> None:
        """Add to the counter of lost events.

        With the policy "disconnect", each closed connection counts as one.
        """
        self._dropped += events
        self._registry.count(dropped=events)

    def _drain_posted(self) -> int:
        """Move the posted entries into the log; return the number of events or clients lost."""
        dropped = 0
        while self._posted:  # a signal handler may append an entry meanwhile
            entries = self._posted[:]
            del self._posted[: len(entries)]
            for entry in entries:
                # An entry with a stream_id was numbered by the broker, which also closes topics.
                mine = not entry.stream_id
                if mine and self._closed:
                    continue
                self.log.append(entry)
                if entry.encoded:
                    self.count_encodings([entry])
                if entry.id is None:
                    entry.id = self.cursor(entry.position)
                self._closed = self._closed or entry.last
                if mine:
                    self._count(entry)
            dropped += self.trim()
            for delivery in self._deliveries.values():
                delivery.schedule()
        return dropped

    def _count(self, entry: Entry) -> None:
        if not entry.last:
            self._published += 1
            self._registry.count(published=1)

    def _renew_log(self, floor_id: str) -> None:
        old = self.log
        self.log = old.successor(floor_id)

"""The state of a topic under its lock: the log, its bounds, and who is where in it."""

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
from .sources import Publishable
from .subscription import EventLoop, LoopDelivery, TopicSubscription

#: The treatment of a client that is slower than its topic: see :meth:`wsframe.server.App.topic`.
Policy: TypeAlias = Literal["disconnect", "drop-oldest", "latest"]


class Registry(Protocol):
    """The topics of an app, as one of them sees them; every method is for any thread.

    Attributes:
        timing: the app's.
        late: logs events that were published to a closed topic.
    """

    timing: Timing
    late: ThrottledLog

    @property
    def loops(self) -> tuple[EventLoop, ...]:
        """The loops of the app's servers."""

    def call_soon(self, function: Callable[[], object], /) -> None:
        """Have the owner of a loop call this, if there is a loop."""

    def count(self, published: int = 0, dropped: int = 0, weight: int = 0) -> None:
        """Count events, those that subscribers lost, and bytes of memory."""

    def fair_share(self) -> float:
        """Return the bytes of memory that the entries of one topic may take now."""

    def keep(self, topic: TopicState, /) -> None:
        """Keep a topic without subscribers while clients may reconnect to it."""

    def is_used(self, topic: TopicState, /) -> None:
        """Note that a topic has a subscriber."""

    def feed(self, source: Any, topic: Publishable, /) -> None:
        """Publish the items of a source to a topic."""


class TopicState(ABC):
    """The log of a topic and the positions of its subscribers in it.

    Attributes:
        name: of the topic.
        lock: guards all of it. The thread that has it may enter again, because foreign code can run
            anywhere: a signal handler, or the ``__del__`` of garbage that is found just then. Such
            code must not change what is being changed, so each method that changes something asks
            :meth:`entered` before it takes the lock.
        log: what was published; under the lock.
        timing: the app's.
        client: the address of the only client that has ever been subscribed, if there is just one;
            under the lock.
    """

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.timing = registry.timing
        self.log = Log(Bounds(), self.timing.clock)
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
        # What was published and is not in the log yet, in order. Any thread appends, without the
        # lock; whoever has the lock moves it into the log.
        self._posted: list[Entry] = []
        self._weight = 0  # bytes of memory that the app has been told of
        self._trim_scheduled = False  # a loop is to go on with that
        self._taken = threading.Condition(self.lock)

    def __del__(self) -> None:
        """Any thread: what it takes is free again."""
        self._registry.count(weight=-self._weight)

    def entered(self) -> bool:
        """Any thread: whether the calling thread is in a method of this topic already."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    @abstractmethod
    def remove(self, subscription: TopicSubscription) -> None:
        """Any thread: end a subscription, the first time."""

    # Under the lock ---------------------------------------------------------------------------

    @abstractmethod
    def _remove(self, subscription: TopicSubscription) -> None:
        """End a subscription, the first time."""

    def cursor(self, position: int) -> str:
        """The id to go on from after this position."""
        return self._ids.cursor(self.log, position)

    def notify_taken(self) -> None:
        """A loop has taken what there was."""
        self._taken.notify_all()

    def mark_lagging(self, subscription: TopicSubscription) -> None:
        """The subscriber is to be sent what comes after its position when that is possible."""
        self._lagging.put(subscription)

    def unmark_lagging(self, subscription: TopicSubscription) -> None:
        """The subscriber is not there any more."""
        self._lagging.take(subscription, self.log.floor)

    def trim(self) -> int:
        """Forget what is past the bounds; return how many events or clients are lost by that."""
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
        """Some of these entries have been encoded: count what that takes, within the bounds."""
        self.log.count_encodings(entries, self._registry.fair_share())

    def _continue_trimming(self) -> None:
        """The owner of a loop: go on with what was too much to be forgotten at once."""
        with self.lock:
            self._trim_scheduled = False
            self.trim()

    def _overtake_at(self, position: int) -> int:
        """What came after this position is gone; return how many have lost something by that."""
        if self._policy == "disconnect":
            waiting = self._lagging.pop(position)
            for subscription in waiting:
                self.overtake(subscription)
            return len(waiting)
        # All of them are moved at once, however many they are.
        moved = self._lagging.move(position, self.log.floor)
        self.count_lost(moved * (self.log.floor - position))
        return moved

    def overtake(self, subscription: TopicSubscription) -> None:
        """The floor has passed a subscriber, which is not behind any more: apply the policy."""
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
        """Subscribers have lost so many events, or their connections."""
        self._dropped += events
        self._registry.count(dropped=events)

    def _drain_posted(self) -> int:
        """Under the lock: put what has arrived into the log; return what is lost by that."""
        dropped = 0
        while self._posted:  # in the meantime more may come from where nobody can wait
            entries = self._posted[:]
            del self._posted[: len(entries)]
            for entry in entries:
                mine = not entry.stream_id  # else a broker has numbered it, and closes the topic
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
        self.log = type(old)(old.bounds, old.clock, old.head, old.offset, floor_id)

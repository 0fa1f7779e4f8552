"""What was published and is not in Redis yet: a queue for each topic, and one bound on all."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from ..errors import BrokerUnavailable
from ..receipts import Fate, Receipt

# What all events together may weigh that wait for Redis, in bytes.
MAX_WAITING = 32 << 20
# From which load of a topic on those who publish to it are slowed down, and to which one.
CROWDED, ROOMY = 0.5, 0.25
# What an event costs in memory while it waits, besides its data.
EVENT_WEIGHT = 1024
# How much is sent to Redis at once: so many events, or so much of them.
BATCH = 100
BATCH_WEIGHT = 512 * 1024
# For so many topics it is remembered which number their last event had.
MAX_NUMBERS = 10_000


class Mark(Receipt):
    """The same for all events that were put in before it; LOST if one of them was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.before: set[Event] = set()  # the last of each topic that waits; the writer's


@dataclass(eq=False, slots=True)
class Event:
    """An event on its way to Redis.

    Attributes:
        topic: the name of its topic.
        weight: what it counts where bytes are bounded.
        last: nothing is published after it.
        bounds: how much the topic keeps: entries, their weight, and for how many ms.
        fields: those of the entry; none if it is lost, and only the gap is to be published.
        receipt: who waits to hear of it.
        number: the writer numbers the events of a run.
        before: the number of the event before it in its topic; 0 if that is not known.
        lost: how many events before it in its topic were lost.
        is_counted: it is part of what waits.
    """

    topic: str
    weight: int
    last: bool
    bounds: tuple[int, int, int]
    fields: list[bytes]
    receipt: Receipt | None = None
    number: int = 0
    before: int = 0
    lost: int = 0
    is_counted: bool = False

    def settle(self, fate: Fate) -> None:
        """The writer, or who ends it: it is settled."""
        receipt, self.receipt = self.receipt, None
        if receipt is not None:
            receipt.settle(fate)


class ClosedError(Exception):
    """The outbox takes no more events: another run has begun."""


class Outbox:
    """Events of one run that wait for Redis.

    Any thread puts events in, even one that is interrupted in here by a signal handler or by a
    finalizer that publishes: the lock is re-entrant, and what such a nested call puts in is counted
    later. All the rest is the writer's.

    A topic may have as much waiting as is still free for all. So one that is flooded gets half, and
    there is always room for the others.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # for the weights, the next three, and to put something in
        self._weight = 0
        self._weights: dict[str, int] = {}  # by topic
        self._is_counting = False
        self.is_closed = False  # this run is to end
        self._new: deque[Event | Mark] = deque()
        # What is to be called when a topic has room again, by topic; any thread appends.
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        # The writer's. The topic whose turn comes first stands first.
        self._queues: OrderedDict[str, deque[Event]] = OrderedDict()
        self._marks: list[Mark] = []
        self._number = 0
        self._numbers: OrderedDict[str, int] = OrderedDict()  # of the topics' last events
        self._lost: OrderedDict[str, int] = OrderedDict()  # events, yet to be published as gaps

    # Any thread -------------------------------------------------------------------------------

    def put(self, item: Event | Mark) -> None:
        """Any thread: add an event, or a mark.

        Raises:
            BrokerUnavailable: too much waits for Redis already.
            ClosedError: no event is taken any more.
        """
        with self._lock:
            if isinstance(item, Event):
                if self.is_closed:
                    raise ClosedError
                if not self._is_counting:
                    self._count(item)
            self._new.append(item)

    def close(self) -> None:
        """Any thread: take no more events."""
        with self._lock:
            self.is_closed = True

    def load(self, topic: str) -> float:
        """Any thread: what waits of a topic, compared with what is free; past 1 it is refused."""
        return self._weights.get(topic, 0) / max(1, MAX_WAITING - self._weight)

    def when_room(self, topic: str, call: Callable[[], object]) -> None:
        """Any thread: have the writer call this when less of the topic waits."""
        self._waiting.append((topic, call))

    def __bool__(self) -> bool:
        """Any thread: whether something waits."""
        return bool(self._new or self._queues)

    def _count(self, event: Event, *, in_any_case: bool = False) -> None:
        """Under the lock: count an event, if there is room for it."""
        self._is_counting = True
        try:
            mine = self._weights.get(event.topic, 0)
            free = MAX_WAITING - self._weight
            if self._weight and mine + event.weight > free and not in_any_case:
                raise BrokerUnavailable(
                    f"{mine} bytes of the topic {event.topic!r} and {self._weight} bytes in all "
                    f"wait for Redis, which is away or too slow; {MAX_WAITING} may wait in all, "
                    "and of one topic as much as is still free"
                )
            self._weights[event.topic] = mine + event.weight
            self._weight += event.weight
            event.is_counted = True
        finally:
            self._is_counting = False

    # The writer -------------------------------------------------------------------------------

    def sort(self) -> None:
        """The writer: put what is new into the queues of the topics."""
        while self._new:
            item = self._new.popleft()
            if isinstance(item, Mark):
                item.before = {queue[-1] for queue in self._queues.values()}
                if item.before:
                    self._marks.append(item)
                else:
                    item.settle(Fate.ACCEPTED)
                continue
            if not item.is_counted:
                with self._lock:
                    self._count(item, in_any_case=True)
            self._number += 1
            item.number, item.before = self._number, self._numbers.get(item.topic, 0)
            item.lost += self._lost.pop(item.topic, 0)
            _remember(self._numbers, item.topic, item.number)
            self._queues.setdefault(item.topic, deque()).append(item)

    def batch(self) -> list[Event]:
        """The writer: what to send next, of each topic in turn; a large event is alone."""
        names = tuple(islice(self._queues, BATCH))
        queues = deque(iter(self._queues[name]) for name in names)
        batch: list[Event] = []
        weight = 0
        while queues and len(batch) < BATCH:
            event = next(queues[0], None)
            if event is None:
                queues.popleft()
                continue
            weight += event.weight
            if batch and weight > BATCH_WEIGHT:
                break
            batch.append(event)
            queues.rotate(-1)
        for name in dict.fromkeys(event.topic for event in batch):
            self._queues.move_to_end(name)
        return batch

    def remove(self, event: Event) -> None:
        """The writer: the first event of its topic is settled."""
        queue = self._queues[event.topic]
        assert queue[0] is event
        queue.popleft()
        if not queue:
            del self._queues[event.topic]
        with self._lock:
            left = self._weights.get(event.topic, 0) - event.weight
            if left > 0:
                self._weights[event.topic] = left
            else:
                self._weights.pop(event.topic, None)
            self._weight -= event.weight
        for mark in tuple(self._marks):
            mark.before.discard(event)
            if not mark.before:
                self._marks.remove(mark)
                mark.settle(Fate.ACCEPTED)

    def tell_of_room(self) -> None:
        """The writer: call those who wait until less of a topic waits."""
        for _ in range(len(self._waiting)):
            topic, call = self._waiting.popleft()
            if self.load(topic) <= ROOMY:
                call()
            else:
                self._waiting.append((topic, call))

    def remove_lost(self, event: Event) -> None:
        """The writer: the same for one that Redis has not taken: what follows it, follows a gap."""
        queue, lost = self._queues[event.topic], event.lost + 1
        if len(queue) > 1:
            queue[1].before = event.before
            queue[1].lost += lost
        else:
            _remember(self._numbers, event.topic, event.before)
            _remember(self._lost, event.topic, lost)
        self.remove(event)

    def clear(self) -> int:
        """Whoever has ended the writer: give up what is left; how many events are lost by that.

        One with a receipt is not: whoever waits for that has the event.
        """
        self.sort()
        left = [event for queue in self._queues.values() for event in queue]
        self._queues.clear()
        lost = sum(bool(event.fields) and event.receipt is None for event in left)
        for event in left:
            event.settle(Fate.LOST)
        for mark in self._marks:
            mark.settle(Fate.LOST)
        while self._waiting:
            _, call = self._waiting.popleft()
            call()
        return lost


def _remember(by_topic: OrderedDict[str, int], topic: str, value: int) -> None:
    """Keep a value for the topics that were used last."""
    by_topic[topic] = value
    by_topic.move_to_end(topic)
    if len(by_topic) > MAX_NUMBERS:
        by_topic.popitem(last=False)

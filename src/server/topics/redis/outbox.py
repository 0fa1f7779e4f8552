"""Published events that Redis has not acknowledged: one queue per topic, one limit for all."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from ..errors import BrokerUnavailable
from ..receipts import Fate, Receipt

# The load above which publishers to a topic are slowed down, and below which they continue.
CROWDED, ROOMY = 0.5, 0.25
# The memory of a waiting event besides its data, in bytes.
EVENT_WEIGHT = 1024
# The maximum number of events in one batch for Redis, and the maximum total weight, in bytes.
BATCH = 100
BATCH_WEIGHT = 512 * 1024
# The maximum number of topics whose last event number is stored.
MAX_NUMBERS = 10_000


class Mark(Receipt):
    """A receipt for all earlier events of the outbox; LOST if one of them was dropped."""

    def __init__(self) -> None:
        super().__init__()
        # The last waiting event before this receipt, by topic. Only the writer uses it.
        self.before: set[Event] = set()


@dataclass(eq=False, slots=True)
class Event:
    """An event on its way to Redis.

    Attributes:
        topic: the name of its topic.
        weight: the number of bytes that count for the limits.
        last: True if the event closes the topic.
        bounds: the limits of the topic in Redis: entries, their weight, their age in ms.
        fields: the fields of the entry; empty if it was dropped, and only its gap is published.
        receipt: the receipt of the publisher; None if it has not requested one.
        number: the number of the event since the threads started, assigned by the writer.
        before: the number of the previous event of its topic; 0 if unknown.
        lost: the number of dropped events just before it in its topic.
        is_counted: True if the weights include the event.
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
        """The writer, or the thread that stops the writer: settle the event's receipt."""
        receipt, self.receipt = self.receipt, None
        if receipt is not None:
            receipt.settle(fate)


class ClosedError(Exception):
    """The error of an outbox that accepts no more events, because its writer stops."""


class Outbox:
    """Events that wait for Redis, from a start of the writer to its stop.

    Any thread puts events in, even a signal handler or a finalizer that interrupts this class: the
    lock is reentrant, and the events of such a nested call are counted later. Only the
    writer calls the other methods.

    The waiting events of a topic may weigh as much as the free part of the limit. So a flooded
    topic uses at most half of the limit, and the others always have room.

    Args:
        max_bytes: the maximum weight of all waiting events, in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.RLock()  # protects the weights, the next three attributes, and put()
        self._weight = 0
        self._weights: dict[str, int] = {}  # the weights by topic
        self._is_counting = False
        self.is_closed: bool = False  # True after the writer has stopped
        self._new: deque[Event | Mark] = deque()
        # The functions that are called when a topic has room again; any thread appends.
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        # Only the writer uses these. The first topic is the next to be sent.
        self._queues: OrderedDict[str, deque[Event]] = OrderedDict()
        self._marks: list[Mark] = []
        self._number = 0
        # The number of each topic's last event.
        self._numbers: OrderedDict[str, int] = OrderedDict()
        # The numbers of dropped events whose gaps were not sent yet.
        self._lost: OrderedDict[str, int] = OrderedDict()

    # Any thread -------------------------------------------------------------------------------

    def put(self, item: Event | Mark) -> None:
        """Any thread: add an event, or a receipt for all events before it.

        Raises:
            BrokerUnavailable: too many events wait for Redis.
            ClosedError: the outbox is closed.
        """
        with self._lock:
            if isinstance(item, Event):
                if self.is_closed:
                    raise ClosedError
                if not self._is_counting:
                    self._count(item)
            self._new.append(item)

    def close(self) -> None:
        """Any thread: accept no more events."""
        with self._lock:
            self.is_closed = True

    def load(self, topic: str) -> float:
        """Any thread: return a topic's weight divided by the free weight; the limit is 1."""
        return self._weights.get(topic, 0) / max(1, self._max_bytes - self._weight)

    def when_room(self, topic: str, call: Callable[[], object]) -> None:
        """Any thread: make the writer call ``call`` when fewer events of the topic wait."""
        self._waiting.append((topic, call))

    def __bool__(self) -> bool:
        """Any thread: True if events wait."""
        return bool(self._new or self._queues)

    def _count(self, event: Event, *, in_any_case: bool = False) -> None:
        """Under the lock: count an event; raise if there is no room, unless ``in_any_case``."""
        self._is_counting = True
        try:
            mine = self._weights.get(event.topic, 0)
            free = self._max_bytes - self._weight
            if self._weight and mine + event.weight > free and not in_any_case:
                raise BrokerUnavailable(
                    "too many events wait for Redis, which is unreachable or too slow: "
                    f"{free} of {self._max_bytes} bytes are free, and a topic may use no more than "
                    f"are free; {mine} bytes wait for the topic {event.topic!r}"
                )
            self._weights[event.topic] = mine + event.weight
            self._weight += event.weight
            event.is_counted = True
        finally:
            self._is_counting = False

    # The writer -------------------------------------------------------------------------------

    def sort(self) -> None:
        """The writer: move new events into the queues of their topics."""
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
        """The writer: return the next events, from each topic in turn, or one large event."""
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
        """The writer: remove the first event of its topic."""
        queue = self._queues[event.topic]
        assert queue[0] is event
        queue.popleft()
        if not queue:
            del self._queues[event.topic]
        with self._lock:
            remaining = self._weights.get(event.topic, 0) - event.weight
            if remaining > 0:
                self._weights[event.topic] = remaining
            else:
                self._weights.pop(event.topic, None)
            self._weight -= event.weight
        for mark in tuple(self._marks):
            mark.before.discard(event)
            if not mark.before:
                self._marks.remove(mark)
                mark.settle(Fate.ACCEPTED)

    def notify_room(self) -> None:
        """The writer: make the calls for topics that have room again."""
        for _ in range(len(self._waiting)):
            topic, call = self._waiting.popleft()
            if self.load(topic) <= ROOMY:
                call()
            else:
                self._waiting.append((topic, call))

    def remove_lost(self, event: Event) -> None:
        """The writer: remove an event that Redis rejected; the next one follows a gap."""
        queue, lost = self._queues[event.topic], event.lost + 1
        if len(queue) > 1:
            queue[1].before = event.before
            queue[1].lost += lost
        else:
            _remember(self._numbers, event.topic, event.before)
            _remember(self._lost, event.topic, lost)
        self.remove(event)

    def clear(self) -> int:
        """The thread that ended the writer: drop all events; return the number of lost events.

        An event with a receipt is not lost: the owner of the receipt still has it.
        """
        self.sort()
        remaining = [event for queue in self._queues.values() for event in queue]
        self._queues.clear()
        lost = sum(bool(event.fields) and event.receipt is None for event in remaining)
        for event in remaining:
            event.settle(Fate.LOST)
        for mark in self._marks:
            mark.settle(Fate.LOST)
        while self._waiting:
            _, call = self._waiting.popleft()
            call()
        return lost


def _remember(by_topic: OrderedDict[str, int], topic: str, value: int) -> None:
    """Store a topic's value; drop the value of the least recently used topic."""
    by_topic[topic] = value
    by_topic.move_to_end(topic)
    if len(by_topic) > MAX_NUMBERS:
        by_topic.popitem(last=False)

"""The thread that writes to Redis: published events, follow requests and presence.

An error of one event, or of one topic, does not stop the others. After an outage, each command
without a reply is repeated. Events are numbered, so Redis recognizes events that it has already
stored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from logging import ERROR, WARNING
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis

from ...reports.loggers import log
from ...reports.throttled import ThrottledLog
from ..receipts import Fate
from . import scripts
from .faults import Fault, fault_of, is_cut
from .interests import FollowRequest, Interests, Presence
from .outbox import BATCH_WEIGHT, Event, Outbox
from .reader import Reader, open_arguments, reach
from .wire import read_snapshot
from .wrong_types import explained

if TYPE_CHECKING:
    from .connection import RedisConnection

# The number of times that Redis may close the connection while receiving an event, before the event
# is dropped.
STRIKES = 5
# The maximum number of rejected topics that are stored.
MAX_REFUSED = 1000


class Losses:
    """The number of events that Redis has rejected. The writer counts; any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._reason = ""

    def add(self, reason: str) -> None:
        """The writer: count one event."""
        with self._lock:
            self._count += 1
            self._reason = reason

    def take(self) -> tuple[int, str]:
        """Any thread: return the count and the reason of the last loss, and reset both."""
        with self._lock:
            count, self._count = self._count, 0
            return count, self._reason


class Writer:
    """The thread that sends commands to Redis, in order.

    Args:
        connection: the connection to Redis.
        publisher: the name of this writer in Redis; each start has a new one.
        outbox: the events.
        interests: the follow requests and the presence of members.
        reader: the reader of the followed topics.
        losses: the counter of events that Redis rejects.
        stop: the event that is set when the thread must stop.
    """

    def __init__(
        self,
        connection: RedisConnection,
        publisher: str,
        outbox: Outbox,
        interests: Interests,
        reader: Reader,
        losses: Losses,
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._outbox = outbox
        self._interests = interests
        self._reader = reader
        self._losses = losses
        self._stop = stop
        # Unlike the methods of other queues and of events, `SimpleQueue.put` may interrupt itself.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._is_woken = False
        self._refused: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._suspect: Event | None = None  # a large event during which Redis closed the connection
        self._strikes = 0  # the number of times that Redis closed the connection during the suspect
        self._trouble, self._late = ThrottledLog(), ThrottledLog()

    def wake(self) -> None:
        """Any thread: wake the thread."""
        if not self._is_woken:
            self._is_woken = True
            self._wake.put(None)

    def refusal(self, topic: str) -> str:
        """Any thread: return the reason why Redis has just rejected a topic; "" if it has not."""
        reason, until = self._refused.get(topic, ("", 0.0))
        return reason if monotonic() < until else ""

    # The writer's thread
    # ---------------------------------------------------------------------------

    def run(self) -> None:
        """The writer's thread: write until ``stop`` is set."""
        self._connection.run_until_stopped("writer", self._write, self._stop)

    def _write(self, client: Any, succeeded: Callable[[], None]) -> None:
        timing, interests = self._connection.timing, self._interests
        sender = _Sender(client, self._connection, self._publisher)
        renewal = retry = 0.0
        while True:
            now = monotonic()
            if now >= renewal:
                renewal = now + timing.presence_renewal
                interests.renew()
            if now >= retry:
                retry = now + timing.redis_retry_delay
                interests.try_again()
            self._outbox.sort()
            tasks = interests.tasks(requests=not self._outbox.is_closed)
            if self._stop.is_set():
                self._reader.wake(client)
                return
            if tasks:
                self._run_tasks(sender, tasks)
                self._reader.wake(client)
            events = self._outbox.batch()
            if events:
                try:
                    replies = sender.send(events)
                except (redis.RedisError, OSError) as error:
                    self._suspect_large(events, error)
                    raise
                self._events_done(sender, events, replies)
            self._outbox.notify_room()
            succeeded()
            if not self._outbox and not interests and not self._stop.is_set():
                with suppress(Empty):
                    self._wake.get(timeout=max(0.0, min(renewal, retry) - monotonic()))
            self._is_woken = False

    def _run_tasks(self, sender: _Sender, tasks: Sequence[FollowRequest | Presence]) -> None:
        for task, reply in zip(tasks, sender.send(tasks), strict=True):
            if isinstance(reply, Exception):
                _raise_what_concerns_all(reply)
                reason = sender.explained(reply, task)
                if isinstance(task, FollowRequest):
                    topic, text = task.topic.name, "Redis rejected the topic %.100r: %s"
                else:
                    topic, text = task.topic, "Redis rejected the members of the topic %.100r: %s"
                self._trouble.log(ERROR, text, topic, reason)
                self._interests.done(task, refused=True)
                continue
            if isinstance(task, FollowRequest):
                self._reader.begin(task, read_snapshot(reply))
            self._interests.done(task)

    def _events_done(
        self, sender: _Sender, events: Sequence[Event], replies: Sequence[Any]
    ) -> None:
        sent_behind = [event.before for event in events]
        waiting = set()  # the topics whose other events must be sent again
        for event, reply, before in zip(events, replies, sent_behind, strict=True):
            topic = event.topic
            if topic in waiting:
                continue
            if isinstance(reply, Exception):
                fault = _raise_what_concerns_all(reply)
                waiting.add(topic)
                if fault is Fault.POISON:
                    self._leave_out(event, reply)
                else:
                    self._refuse(event, sender.explained(reply, event))
            elif reply == b"hole" and before:
                waiting.add(topic)
                event.before = 0
                log.error("Redis has lost acknowledged events of the topic %.100r", topic)
            else:
                if reply == b"closed" and not event.last:
                    self._late.log(WARNING, "dropping event: the topic %.100r is closed", topic)
                self._refused.pop(topic, None)
                self._outbox.remove(event)
                event.settle(Fate.ACCEPTED)

    def _refuse(self, event: Event, reason: str) -> None:
        """Drop an event of a topic that Redis rejects; `publish` raises for a while."""
        reason = f"Redis rejected the topic {event.topic[:100]!r}: {reason}"
        self._refused[event.topic] = reason, monotonic() + self._connection.timing.redis_retry_delay
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)
        self._outbox.remove_lost(event)
        self._lose(event, Fate.REFUSED, reason)

    def _leave_out(self, event: Event, error: Exception) -> None:
        """Drop an event that Redis never accepts, and publish a gap in its place."""
        reason = (
            f"Redis rejected an event of {event.weight} bytes of the topic {event.topic[:100]!r} "
            f"(see its proto-max-bulk-len and client-query-buffer-limit): {error}"
        )
        self._lose(event, Fate.UNFIT, reason)
        event.fields = []
        event.lost += 1
        event.last = False

    def _lose(self, event: Event, fate: Fate, reason: str) -> None:
        # A gap replaces a counted event, and the owner of a receipt may publish the event again.
        if event.fields and (event.receipt is None or fate is Fate.UNFIT):
            self._losses.add(reason)
        event.settle(fate)
        self._trouble.log(ERROR, "dropping event: %s", reason)

    def _suspect_large(self, events: Sequence[Event], error: Exception) -> None:
        """Count the disconnects on a large event: Redis may close without an error reply."""
        event = events[0]
        if len(events) > 1 or event.weight <= BATCH_WEIGHT or not is_cut(error):
            return
        self._strikes = self._strikes + 1 if event is self._suspect else 1
        self._suspect = event
        if self._strikes >= STRIKES:
            self._suspect = None
            self._leave_out(event, error)


class _Sender:
    """The commands of the writer, sent on one connection."""

    def __init__(self, client: Any, connection: RedisConnection, publisher: str) -> None:
        self._client = client
        self._connection = connection
        self._publisher = publisher
        self._load()

    def _load(self) -> None:
        self._publish, self._open, self._join = (
            self._client.script_load(script)
            for script in (scripts.PUBLISH, scripts.OPEN, scripts.JOIN)
        )

    def send(self, batch: Iterable[FollowRequest | Presence | Event]) -> list[Any]:
        """Send a batch in one pipeline; return the replies, errors included."""
        replies = self._send(batch)
        if any(isinstance(each, redis.exceptions.NoScriptError) for each in replies):
            self._load()  # the scripts were removed with SCRIPT FLUSH
            replies = self._send(batch)
        return replies

    def _send(self, batch: Iterable[FollowRequest | Presence | Event]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for item in batch:
            pipe.execute_command(*self._command(item))
        return list(pipe.execute(raise_on_error=False))

    def explained(self, error: Exception, item: FollowRequest | Presence | Event) -> str:
        """Return the reason why Redis has rejected an item."""
        return explained(self._client, error, self._keys(item))

    def _keys(self, item: FollowRequest | Presence | Event) -> dict[str, str]:
        """Return the keys of an item's command, and their types."""
        connection = self._connection
        if isinstance(item, FollowRequest):
            return connection.log_keys(item.topic.name)
        if isinstance(item, Presence):
            return connection.members_key(item.topic)
        number = connection.key(item.topic, f"by:{self._publisher}")
        return {**connection.log_keys(item.topic), number: "string"}

    def _command(self, item: FollowRequest | Presence | Event) -> tuple[object, ...]:
        keys, timing = self._keys(item), self._connection.timing
        if isinstance(item, FollowRequest):
            count = reach(item.topic) + 1
            return "EVALSHA", self._open, *open_arguments(self._connection, item.topic, count)
        if isinstance(item, Presence):
            # The publisher's name distinguishes the members of a new process from those of a dead
            # one.
            members = [f"{self._publisher}\0{member}" for member in item.members]
            if item.present:
                return "EVALSHA", self._join, 1, *keys, round(timing.presence_ttl * 1000), *members
            return "ZREM", *keys, *members
        channel = self._connection.channel(self._connection.key(item.topic))
        bounds = (*item.bounds, int(item.last), channel, item.lost)
        return "EVALSHA", self._publish, 3, *keys, item.number, item.before, *bounds, *item.fields


def _raise_what_concerns_all(error: Exception) -> Fault:
    """Return the fault of one item; raise an error that concerns all items."""
    fault = fault_of(error)
    if fault in (Fault.OUTAGE, Fault.REFUSAL):
        raise error
    return fault

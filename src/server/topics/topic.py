"""Topics: what one publishes and many are subscribed to.

**A topic is a log, a subscription is a position in it, and to deliver is to move it forward.** A
new client, one that comes back for what it missed, and one that is too slow are the same: they are
not at the end of the log. So one lock, the topic's, makes the step from past to present exact.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from logging import WARNING
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from wsframe import StateError

from ..addresses import client_network
from ..forks import renew_in_children
from .cursors import EpochIds, Ids, StreamIds
from .delivery import Delivery
from .entry import Entry, as_entry
from .lagging import Lagging
from .log import SPARE_BYTES, TRIM_SLICE, Bounds, LatestLog, Log
from .redis.outbox import Fate, Receipt

if TYPE_CHECKING:
    from queue import Queue

    from ..handoff.loop import Loop
    from .delivery import Subscription
    from .redis.streams import RedisStreams
    from .registry import Topics

#: What becomes of a client that is slower than its topic: see :meth:`wsframe.server.App.topic`.
Policy: TypeAlias = Literal["disconnect", "drop-oldest", "latest"]

# The weight of what may be published that loops have not taken yet, until a thread that goes on
# publishing waits for them. Loops never wait for clients, so nor does the thread.
AHEAD = 64 * 1024
# How many times its data an encoding can be: each line of an event stream begins with "data: ".
LARGEST_GROWTH = 7


@dataclass(frozen=True)
class Published:
    """Whom an event reaches, of the clients of this process.

    Attributes:
        reached: subscribers that are sent it right away.
        queued: subscribers that are sent it when they have taken what was before it.
        dropped: subscribers that lose an event, or their connection, because they are too slow.
    """

    reached: int = 0
    queued: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class TopicStats:
    """The numbers of a topic in this process.

    Attributes:
        subscribers: how many there are.
        lagging: how many of them have not been sent all yet.
        published: events, ever.
        dropped: how many events subscribers have lost, or connections, because they were too slow.
        history: events that are kept.
        history_bytes: bytes of them.
    """

    subscribers: int
    lagging: int
    published: int
    dropped: int
    history: int
    history_bytes: int


class Topic:
    """A name that events are published to; from :meth:`wsframe.server.App.topic`.

    Attributes:
        name: what it is called.
        lock: guards all of it. The thread that has it may enter again, because foreign code can run
            anywhere: a signal handler, or the ``__del__`` of garbage that is found just then. Such
            code must not change what is being changed, so each method that changes something asks
            :meth:`entered` before it takes the lock.
        log: what was published; under the lock.
        timing: the app's.
        client: the address of the only client that has ever been subscribed, if there is just one;
            under the lock.
    """

    def __init__(self, name: str, topics: Topics, shared: RedisStreams | None = None) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.timing = topics.timing
        self.log = Log(Bounds(), self.timing.clock)
        self._topics = topics
        self._shared: RedisStreams | None = None
        self._ids: Ids = EpochIds()
        self._known = True  # a shared log is only known while it is followed
        # Those whose place is not known yet, and until when to wait for it.
        self._unplaced: list[tuple[Subscription, str | None, str | None, float]] = []
        self._policy: Policy = "disconnect"
        self._closed = False
        self._deliveries: dict[Loop, Delivery] = {}
        self._subscribers = 0
        self._lagging = Lagging()
        self._published = 0
        self._dropped = 0
        self._members: Counter[str] = Counter()
        # What was published and is not in the log yet, in order. Any thread appends, without the
        # lock; whoever has the lock moves it into the log.
        self._posted: list[Entry] = []
        self.client: Hashable = None
        self._first_client: Hashable = None
        self._weight = 0  # bytes of memory that the app has been told of
        self._trims = False  # a loop is to go on with that
        self._taken = threading.Condition(self.lock)
        renew_in_children(self)
        if shared is not None:
            self.share(shared)

    def __del__(self) -> None:
        """Any thread: what it takes is free again."""
        self._topics.count(weight=-self._weight)

    def share(self, shared: RedisStreams) -> None:
        """Any thread: keep the log there, before there is anything in it.

        Raises:
            RuntimeError: it has events or subscribers.
        """
        entered = self.entered()
        with self.lock:
            if entered or self._posted or self.log.head or self._subscribers:
                raise RuntimeError(f"the topic {self.name!r} is in use already")
            self._shared, self._ids, self._known = shared, StreamIds(), False

    def configure(
        self,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Any thread: change what is given; see :meth:`wsframe.server.App.topic`.

        Raises:
            ValueError: a value is not valid, or it is too late for this policy.
            StateError: a signal handler or a finalizer changes the policy to or from "latest" while
                its own thread is at work on the topic.
        """
        if policy is not None and policy not in get_args(Policy):
            raise ValueError(f"a policy is one of {get_args(Policy)}, not {policy!r}")
        given = {"history": history, "max_bytes": max_bytes, "max_age": max_age}
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }
        entered = self.entered()
        with self.lock:
            if not entered:
                self._take_in()
            bounds = replace(self.log.bounds, **changes)
            latest = self._policy == "latest" if policy is None else policy == "latest"
            if latest != isinstance(self.log, LatestLog):
                if self.log.head:
                    raise ValueError(
                        f'{self.name!r} has events: too late for the policy "{policy}"'
                    )
                if entered:
                    raise StateError(
                        f"the policy of the topic {self.name!r} cannot be {policy!r} from now on: "
                        "the calling thread is at work on the topic"
                    )
                self.log = (LatestLog if latest else Log)(bounds, self.timing.clock)
            self.log.bounds = bounds
            self._policy = policy or self._policy
            if not entered:  # else it is trimmed when the next event comes
                self.trim()

    # Publishing -------------------------------------------------------------------------------

    def publish(
        self,
        data: object,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's name in the standard
        *,
        key: str | None = None,
    ) -> Published:
        """Any thread: send an event to all subscribers, of either kind, in the same order to all.

        Slow clients hold nobody up. A thread that publishes faster than the server can send waits
        for it; the server's own loop does not.

        Args:
            data: a ``str``; bytes, which WebSockets get as a binary message and event streams in
                base64; a :class:`wsframe.ServerSentEvent`; or anything that JSON can say.
            event: the type that an ``EventSource`` listens for; "message" if left out.
            id: what a client says that comes back; unlike those of the other events. By default it
                is made up. It has at most 1,024 bytes, no control character, and no blank at either
                end, so that a header can hold it; it does not begin with "?", and is not ":end".
            key: what it is the newest news of, for the policy "latest". It has at most 1,024 bytes,
                as ``event`` has.

        Raises:
            TypeError: JSON has no form for the data.
            ValueError: it contains itself, or a number that is none; or UTF-8 has no form for what
                is text; or CR, LF or NUL stand in ``event``; or the id is not allowed; or a name is
                too long; or the event, as it is sent to any kind of client, has more bytes than
                ``max_bytes`` and 2 MiB.
            StateError: the topic was closed.
            RedisUnavailable: Redis is away or too slow, and as much waits for it as may.
            RedisRefused: Redis cannot be used, or has refused this topic just now.
        """
        return self.submit(as_entry(data, event, id, key))

    def submit(self, entry: Entry, receipt: Receipt | None = None) -> Published:
        """Any thread: publish an entry; the receipt is settled when the log has it."""
        self._check_size(entry)
        if self._shared is not None:
            return self._share(entry, receipt)
        published = self.append([entry])
        if receipt is not None:
            receipt.settle(Fate.ACCEPTED)
        return published

    def _check_size(self, entry: Entry) -> None:
        if LARGEST_GROWTH * len(entry.payload) > SPARE_BYTES:
            largest, size = self.log.bounds.largest_event, entry.largest_form()
            if size > largest:
                raise ValueError(
                    f"an event of {len(entry.payload)} bytes is too large for the topic "
                    f"{self.name!r}: an encoding of it takes {size} bytes, of at most {largest} "
                    f"(max_bytes and {SPARE_BYTES})"
                )

    def feed(self, source: Queue[Any] | Iterable[Any]) -> None:
        """Any thread: publish what comes out of a queue or another iterable.

        One thread takes the items, while a server of the app runs. An item that is no event is
        logged and left out. Over Redis, at most 100 items of a queue are taken that Redis has not
        accepted yet: while it is away the queue keeps the others, and its ``task_done`` is called
        for what was accepted. A queue has ``get(timeout=...)``, which raises ``queue.Empty``.

        Raises:
            TypeError: it is neither a queue nor an iterable.
            ValueError: it feeds a topic already.
        """
        self._topics.sources.add(source, self)

    def subscribe_pubsub(self, channel: str) -> None:
        """Any thread: publish what other programs say on a channel of Redis, by a plain PUBLISH.

        It is published once, however many processes listen, while a server of the app runs in at
        least one of them; text as text, what is no UTF-8 as bytes. Redis keeps nothing of what is
        said on a channel: what comes while the connection to it is lost, or until another process
        has taken the place of one that died, is lost. What must not be is published to the topic.

        Raises:
            RuntimeError: the topic is not in a Redis.
            ValueError: UTF-8 has no form for the name.
        """
        if self._shared is None:
            raise RuntimeError(f"the topic {self.name!r} is not in a Redis")
        self._shared.channels.add(channel, self)

    def close(self) -> None:
        """Any thread: say that nothing more comes; closing twice does nothing.

        When they have been sent what came before, event streams that are subscribed to nothing else
        end for good: their clients do not come back.

        Raises:
            RedisUnavailable: as :meth:`publish`.
        """
        with suppress(StateError):
            entry = Entry("", last=True)
            if self._shared is None:
                self.append([entry])
            else:
                self._share(entry)

    def append(self, entries: Sequence[Entry]) -> Published:
        """Any thread, in any context: put entries into the log, and have the loops send them.

        Nobody waits here without an end: another thread may have the lock while foreign code waits
        for what this thread has. After ``publish_lock_timeout`` the entries are left to a loop, or
        to the next call of any method.
        """
        for entry in entries:
            if entry.is_large:
                self._prepare(entry)
        self._posted.extend(entries)
        reach = self._settle()
        if reach is None:
            self._topics.call_soon(self._settle_later)
            return Published()
        if entries and not entries[-1].position:
            raise self._closed_error()
        return reach

    def _prepare(self, entry: Entry) -> None:
        """The publisher: encode an entry for the kinds of clients that it will be sent to."""
        # Copied in one step: the owners of the loops change these meanwhile.
        for delivery in list(self._deliveries.values()):
            for encoding in delivery.encodings():
                encoding.prepare(self.name, entry)

    def _settle(self) -> Published | None:
        """Put what has arrived into the log; None if that has to be left to somebody else."""
        if self.entered():
            return None
        try:
            if not self.lock.acquire(timeout=self.timing.publish_lock_timeout):
                return None
            reach = self._reach(self._take_in())
            if self._deliveries and self._is_ahead():
                self._taken.wait_for(lambda: not self._is_ahead(), self.timing.publish_send_timeout)
            unused = not self._subscribers
        finally:
            # KeyboardInterrupt may come between any two steps, and must not leave it locked.
            if self.entered():
                self.lock.release()
        if unused:
            self._topics.keep(self)
        return reach

    def _settle_later(self) -> None:
        """The owner of a loop: put into the log what a publisher has left."""
        arrived = tuple(self._posted)
        if self._settle() is None:
            self._topics.call_soon(self._settle_later)
        refused = sum(not entry.position for entry in arrived)
        if refused:
            self._topics.late.log(
                WARNING, "%d events of the topic %r are dropped: it was closed", refused, self.name
            )

    def _take_in(self) -> int:
        """Under the lock: put what has arrived into the log; return what is lost by that."""
        dropped = 0
        while self._posted:  # in the meantime more may come from where nobody can wait
            entries = self._posted[:]
            del self._posted[: len(entries)]
            for entry in entries:
                if self._closed and self._shared is None:  # else Redis sees to it
                    continue
                self.log.append(entry)
                if entry.encoded:
                    self.count_encodings([entry])
                if entry.id is None:
                    entry.id = self.cursor(entry.position)
                self._closed = self._closed or entry.last
                if self._shared is None:
                    self._count(entry)
            dropped += self.trim()
            for delivery in self._deliveries.values():
                delivery.ask()
        return dropped

    def entered(self) -> bool:
        """Any thread: whether the calling thread is in a method of this topic already."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def _closed_error(self) -> StateError:
        return StateError(f"the topic {self.name!r} was closed")

    def _share(self, entry: Entry, receipt: Receipt | None = None) -> Published:
        """Any thread, in any context: have an entry put into the shared log; it comes back."""
        assert self._shared is not None
        if self._closed:
            raise self._closed_error()
        self._shared.publish(self, entry, receipt)
        self._closed = self._closed or entry.last
        self._count(entry)
        if self._shared.is_crowded(self.name):
            self._slow_down(self._shared)
        return self._reach(0)

    def _slow_down(self, shared: RedisStreams) -> None:
        """Any thread, in any context: this one publishes faster than Redis takes the events.

        A turn on a loop is the last of its connection until there is room; a thread waits a little.
        """
        for loop in self._topics.loops:
            if loop.owned():
                loop.slow_down(self, partial(shared.when_room, self.name))
                return
        shared.wait_for_room(self.name, self._topics.timing.publish_send_timeout)

    def _count(self, entry: Entry) -> None:
        if not entry.last:
            self._published += 1
            self._topics.count(published=1)

    def _reach(self, dropped: int) -> Published:
        lagging = self._lagging.count + len(self._unplaced)
        return Published(self._subscribers - lagging, lagging, dropped)

    def _is_ahead(self) -> bool:
        """Whether the calling thread has to wait for a loop; one loop does not for another."""
        return any(
            self.log.offset - delivery.offset > AHEAD for delivery in self._deliveries.values()
        ) and not any(loop.owned() for loop in self._topics.loops)

    # A shared log, by the thread that reads it -------------------------------------------------

    def load(self, floor_id: str, entries: Sequence[Entry]) -> None:
        """The reader: this is all that the shared log has, after a place that is called so."""
        with self.lock:
            self._posted.clear()  # it is among these
            self._renew_log(floor_id)
            self._closed = False
            self._known = True
        self.append(entries)
        self.place()

    def _renew_log(self, floor_id: str) -> None:
        old = self.log
        self.log = type(old)(old.bounds, old.clock, old.head, old.offset, floor_id)

    def lose(self, floor_id: str, oldest: str) -> None:
        """The reader: what came next is gone from the shared log; tell the subscribers."""
        self.append([Entry("", id=floor_id, stream_id=floor_id, oldest=oldest)])

    def place(self) -> None:
        """The reader: begin those subscriptions whose place is known now, or must be."""
        if not self._unplaced:  # of thousands of topics, most
            return
        with self.lock:
            unplaced, self._unplaced = self._unplaced, []
            for subscription, after, otherwise, until in unplaced:
                if not self._place(subscription, after, otherwise):
                    if self.timing.clock() < until or not self._known:
                        self._unplaced.append((subscription, after, otherwise, until))
                        continue
                    # Its event should have come by now: it is not of this log.
                    self._place(subscription, otherwise, None)
                    subscription.missed = True
                subscription.peer.loop.call_soon(subscription.begin)

    # Presence ---------------------------------------------------------------------------------

    def members(self) -> list[str]:
        """Any thread: who is subscribed, of those that have said who they are, in order of name.

        Over Redis it asks Redis, and may wait for it.

        Raises:
            RedisUnavailable: there is no answer from Redis.
        """
        if self._shared is not None:
            return self._shared.members(self)
        with self.lock:
            return sorted(self._members)

    def stats(self) -> TopicStats:
        """Any thread, in any context: what it has done and does, in numbers."""
        entered = self.entered()
        with self.lock:
            if not entered:
                self._take_in()
            return TopicStats(
                subscribers=self._subscribers,
                lagging=self._lagging.count + len(self._unplaced),
                published=self._published,
                dropped=self._dropped,
                history=len(self.log),
                history_bytes=self.log.size,
            )

    # Subscribing ------------------------------------------------------------------------------

    def add(
        self, subscription: Subscription, after: str | None, otherwise: str | None = None
    ) -> None:
        """Any thread, once: begin a subscription after this id; see :meth:`WebSocket.subscribe`.

        If its place is not known yet, it begins when that is. A signal handler or a finalizer that
        has interrupted this thread in a method of the topic leaves all of it to the owner.
        """
        loop, member = subscription.peer.loop, subscription.member
        if self.entered():
            loop.call_soon(partial(self._add_later, subscription, after, otherwise))
            return
        with self.lock:
            self._take_in()
            if subscription.removed:  # its connection has just ended
                return
            if self._shared is not None:
                if member is not None:
                    self._shared.join(self.name, member)
                if not self._subscribers:
                    self._known = False
                    self._shared.follow(self)
            self._note_client(subscription)
            self._subscribers += 1
            if member is not None:
                self._members[member] += 1
            if loop not in self._deliveries:
                self._deliveries[loop] = Delivery(self, subscription.peer.clients)
            subscription.delivery = self._deliveries[loop]
            subscription.delivery.subscriptions += 1
            self.trim()
            if not self._place(subscription, after, otherwise):
                until = self.timing.clock() + self.timing.position_timeout
                self._unplaced.append((subscription, after, otherwise, until))
        self._topics.is_used(self)

    def _add_later(
        self, subscription: Subscription, after: str | None, otherwise: str | None
    ) -> None:
        """The owner of the subscription: add it."""
        try:
            self.add(subscription, after, otherwise)
        except BaseException:
            subscription.end()
            raise
        if subscription.placed:
            subscription.begin()

    def _note_client(self, subscription: Subscription) -> None:
        request = subscription.peer.record.request
        client = None if request is None else client_network(request.client)
        if self._first_client is None:
            self.client = self._first_client = client
        elif client != self._first_client:
            self.client = None

    def remove(self, subscription: Subscription) -> None:
        """Any thread: end a subscription, the first time."""
        with self.lock:
            self._remove(subscription)
            self.trim()  # what was kept for it
            unused = not self._subscribers
        if unused:
            self._topics.keep(self)

    def _remove(self, subscription: Subscription) -> None:
        delivery, member = subscription.delivery, subscription.member
        if delivery is None or subscription.removed:
            subscription.removed = True
            return
        subscription.removed = True
        if self._deliveries.get(delivery.loop) is not delivery:
            return  # this is the child of a fork, and the subscriber its parent's
        self.unmark_lagging(subscription)
        if not subscription.placed:
            self._unplaced = [other for other in self._unplaced if other[0] is not subscription]
        delivery.subscriptions -= 1
        if not delivery.subscriptions:
            del self._deliveries[delivery.loop]
            self._taken.notify_all()
        if member is not None:
            self._members[member] -= 1
            if not self._members[member]:
                del self._members[member]
            if self._shared is not None:
                self._shared.leave(self.name, member)
        self._subscribers -= 1
        if not self._subscribers and self._shared is not None:
            self._shared.unfollow(self)

    # Under the lock ---------------------------------------------------------------------------

    def cursor(self, position: int) -> str:
        """The id to go on from after this position."""
        return self._ids.cursor(self.log, position)

    def taken(self) -> None:
        """A loop has taken what there was."""
        self._taken.notify_all()

    def mark_lagging(self, subscription: Subscription) -> None:
        """The subscriber is to be sent what comes after its position when that is possible."""
        self._lagging.put(subscription)

    def unmark_lagging(self, subscription: Subscription) -> None:
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
            min(log.bounds.entries_cost, self._topics.fair_share()),
            TRIM_SLICE if self._topics.loops else inf,
        )
        if not (done or self._trims):
            self._trims = True
            self._topics.call_soon(self._trim_on)
        weight = log.cost + log.encodings_cost
        if weight != self._weight:
            self._topics.count(weight=weight - self._weight)
            self._weight = weight
        if not self._lagging.count:
            return 0
        return sum(map(self._overtake_at, self._lagging.passed(floor, log.floor)))

    def count_encodings(self, entries: Iterable[Entry]) -> None:
        """Some of these entries have been encoded: count what that takes, within the bounds."""
        self.log.count_encodings(entries, self._topics.fair_share())

    def _trim_on(self) -> None:
        """The owner of a loop: go on with what was too much to be forgotten at once."""
        with self.lock:
            self._trims = False
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
        self.lost(moved * (self.log.floor - position))
        return moved

    def overtake(self, subscription: Subscription) -> None:
        """The floor has passed a subscriber, which is not behind any more: apply the policy."""
        if self._policy == "disconnect":
            self.lost(1)
            self._remove(subscription)
            subscription.peer.loop.call_soon(subscription.too_slow)
        else:
            lost = self.log.floor - subscription.position
            self.lost(lost)
            subscription.dropped += lost
            subscription.position, subscription.missed = self.log.floor, True
            self.mark_lagging(subscription)
            subscription.peer.loop.call_soon(subscription.advance)

    def lost(self, events: int) -> None:
        """Subscribers have lost so many events, or their connections."""
        self._dropped += events
        self._topics.count(dropped=events)

    def _place(self, subscription: Subscription, after: str | None, otherwise: str | None) -> bool:
        """Find where a subscription begins; False if that is not known yet."""
        log, position = self.log, None
        if not self._known:
            return False
        if after:
            position = self._ids.position(log, after)
            if position is None:
                position = log.position_of(after)
            elif position > log.head:
                return False
            subscription.missed = position is None or position < log.floor
        if position is None:  # a new client, or one that cannot prove that it was here
            newcomer = otherwise if after else after
            position = log.end if newcomer is None else log.begin()
        position = max(position, log.floor)
        subscription.position = min(position, log.end)
        subscription.placed = True
        self.mark_lagging(subscription)
        if subscription.delivery is not None:
            subscription.delivery.expect(subscription)
        return True

    # The child of a fork ----------------------------------------------------------------------

    def after_fork(self) -> None:
        """The child of a fork: have no subscribers, and ids and locks of its own.

        The subscribers are the parent's. Another thread may have been at work on the log, and does
        not exist here; then the child begins with an empty one.
        """
        torn = self.entered() or not self.lock.acquire(blocking=False)
        self.lock = threading.RLock()
        self._taken = threading.Condition(self.lock)
        self._posted = []
        self._trims = False
        self._unplaced = []
        self._deliveries = {}
        self._lagging = Lagging()
        self._subscribers = 0
        self._members = Counter()
        self._known = self._shared is None
        if torn:
            self._renew_log(self.log.floor_id)
        if isinstance(self._ids, EpochIds):
            self._ids.begin_anew()

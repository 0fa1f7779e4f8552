"""Topics: what one publishes and many are subscribed to.

**A topic is a log, a subscription is a position in it, and to deliver is to move it forward.** A
new client, one that comes back for what it missed, and one that is too slow are the same: they are
not at the end of the log. So one lock, the topic's, makes the step from past to present exact.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from weakref import WeakSet

from wsframe import StateError

from .delivery import Delivery
from .entry import Entry, as_entry
from .log import Bounds, LatestLog, Log

if TYPE_CHECKING:
    from queue import Queue

    from ..loop import Loop
    from .delivery import Subscription
    from .registry import Topics

#: What becomes of a client that is slower than its topic: see :meth:`wsframe.server.App.topic`.
Policy: TypeAlias = Literal["disconnect", "drop-oldest", "latest"]

# How many bytes may be published that loops have not taken yet, until a thread that goes on
# publishing waits for them. Loops never wait for clients, so nor does the thread.
AHEAD = 64 * 1024


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
        behind: how many of them have not been sent all yet.
        published: events, ever.
        dropped: how many events subscribers have lost, or connections, because they were too slow.
        history: events that are kept.
        history_bytes: bytes of them.
    """

    subscribers: int
    behind: int
    published: int
    dropped: int
    history: int
    history_bytes: int


class Topic:
    """A name that events are published to; from :meth:`wsframe.server.App.topic`.

    Attributes:
        name: what it is called.
        lock: guards all of it.
        log: what was published; under the lock.
    """

    def __init__(self, name: str, topics: Topics) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.log = Log(Bounds())
        self._topics = topics
        self._policy: Policy = "disconnect"
        self._closed = False
        self._deliveries: dict[Loop, Delivery] = {}
        self._subscribers = 0
        # Those that are not at the end of the log, by where they are: one that the log's end
        # passes by has lost something.
        self._behind: dict[int, set[Subscription]] = {}
        self._behind_count = 0
        self._published = 0
        self._dropped = 0
        self._members: dict[str, int] = {}
        self._taken = threading.Condition(self.lock)
        # Makes the ids of this log unlike those of any other, before or after it.
        self._epoch = token_urlsafe(8)
        _topics.add(self)

    def configure(
        self,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Any thread: change what is given; see :meth:`wsframe.server.App.topic`."""
        if policy is not None and policy not in get_args(Policy):
            raise ValueError(f"a policy is one of {get_args(Policy)}, not {policy!r}")
        given = {"history": history, "max_bytes": max_bytes, "max_age": max_age}
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }
        with self.lock:
            bounds = replace(self.log.bounds, **changes)
            latest = self._policy == "latest" if policy is None else policy == "latest"
            if latest != isinstance(self.log, LatestLog):
                if self.log.head:
                    raise ValueError(f'{self.name!r} has events: it is too late for "latest"')
                self.log = (LatestLog if latest else Log)(bounds)
            self.log.bounds = bounds
            self._policy = policy or self._policy

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
                is made up.
            key: what it is the newest news of, for the policy "latest".

        Raises:
            TypeError: JSON has no form for the data.
            ValueError: it contains itself, or a number that is none, or text that UTF-8 has no form
                for; or CR, LF or NUL stand in ``event`` or ``id``.
            StateError: the topic was closed.
        """
        return self.append([as_entry(data, event, id, key)])

    def feed(self, source: Queue[Any] | Iterable[Any]) -> None:
        """Any thread: publish what comes out of a queue or another iterable.

        One thread takes the items, while a server of the app runs. An item that is no event is
        logged and left out.

        Raises:
            TypeError: it is neither a queue nor an iterable.
            ValueError: it feeds a topic already.
        """
        self._topics.sources.add(source, self)

    def close(self) -> None:
        """Any thread: say that nothing more comes; closing twice does nothing.

        When they have been sent what came before, event streams that are subscribed to nothing else
        end for good: their clients do not come back.
        """
        with suppress(StateError):
            self.append([Entry("", last=True)])

    def append(self, entries: Iterable[Entry]) -> Published:
        """Any thread: put entries into the log, and have the loops send them."""
        with self.lock:
            published = self._published
            for entry in entries:
                if self._closed:
                    raise StateError(f"the topic {self.name!r} was closed")
                self.log.append(entry)
                if entry.id is None:
                    entry.id = self.cursor(entry.position)
                self._closed = entry.last
                self._published += not entry.last
            self._topics.count(published=self._published - published)
            dropped = self.trim()
            for delivery in self._deliveries.values():
                delivery.ask()
            at_ease = self._subscribers - self._behind_count
            reach = Published(at_ease, self._behind_count, dropped)
            if self._is_ahead():
                self._taken.wait_for(lambda: not self._is_ahead())
            unused = not self._subscribers
        if unused:
            self._topics.keep(self)
        return reach

    def _is_ahead(self) -> bool:
        """Whether the calling thread has to wait for a loop."""
        return any(
            self.log.offset - delivery.offset > AHEAD and not delivery.loop.owned()
            for delivery in self._deliveries.values()
        )

    # Presence ---------------------------------------------------------------------------------

    def members(self) -> list[str]:
        """Any thread: who is subscribed, of those that have said who they are, in order of name."""
        with self.lock:
            return sorted(self._members)

    def stats(self) -> TopicStats:
        """Any thread: what it has done and does, in numbers."""
        with self.lock:
            return TopicStats(
                subscribers=self._subscribers,
                behind=self._behind_count,
                published=self._published,
                dropped=self._dropped,
                history=len(self.log),
                history_bytes=self.log.size,
            )

    # Subscribing ------------------------------------------------------------------------------

    def add(self, subscription: Subscription, after: str | None) -> None:
        """Any thread, once: begin a subscription after this id; see :meth:`WebSocket.subscribe`."""
        with self.lock:
            if after is None:
                subscription.position = self.log.head
            else:
                self.trim()
                subscription.position, subscription.missed = self._locate(after)
            self.put_behind(subscription)
            self._subscribers += 1
            member = subscription.member
            if member is not None:
                self._members[member] = self._members.get(member, 0) + 1
        self._topics.is_used(self)

    def remove(self, subscription: Subscription) -> None:
        """Any thread, once: end a subscription."""
        with self.lock:
            self.take_from_behind(subscription)
            self._subscribers -= 1
            member = subscription.member
            if member is not None:
                self._members[member] -= 1
                if not self._members[member]:
                    del self._members[member]
            unused = not self._subscribers
        if unused:
            self._topics.keep(self)

    def delivery(self, loop: Loop) -> Delivery:
        """Owner of the loop, under the lock: what delivers to its clients."""
        if loop not in self._deliveries:
            self._deliveries[loop] = Delivery(self, loop)
        return self._deliveries[loop]

    def end_delivery(self, loop: Loop) -> None:
        """Owner of the loop, under the lock: it has no subscriber there any more."""
        self._deliveries.pop(loop, None)
        self._taken.notify_all()

    # Under the lock ---------------------------------------------------------------------------

    def cursor(self, position: int) -> str:
        """The id to go on from after this position."""
        return f"{self._epoch}-{position}"

    def taken(self) -> None:
        """A loop has taken what there was."""
        self._taken.notify_all()

    def put_behind(self, subscription: Subscription) -> None:
        """The subscriber is to be sent what comes after its position when that is possible."""
        self._behind.setdefault(subscription.position, set()).add(subscription)
        self._behind_count += 1

    def take_from_behind(self, subscription: Subscription) -> None:
        """The subscriber is not there any more."""
        # It may have been moved to the floor meanwhile.
        for position in (subscription.position, self.log.floor):
            waiting = self._behind.get(position)
            if waiting is not None and subscription in waiting:
                waiting.remove(subscription)
                self._behind_count -= 1
                if not waiting:
                    del self._behind[position]
                return

    def trim(self) -> int:
        """Forget what is past the bounds; return how many events or clients are lost by that."""
        log = self.log
        needed = min((delivery.base for delivery in self._deliveries.values()), default=log.head)
        floor = log.floor
        log.trim(
            lambda entry: (
                entry.position > needed
                or (self._behind_count > 0 and log.size <= log.bounds.max_bytes)
            )
        )
        if floor == log.floor or not self._behind:
            return 0
        passed = [position for position in self._behind if position < log.floor]
        return sum(map(self._pass_by, passed))

    def _pass_by(self, position: int) -> int:
        """What came after this position is gone; return how many have lost something by that."""
        waiting = self._behind.pop(position)
        if self._policy == "disconnect":
            self._behind_count -= len(waiting)
            for subscription in waiting:
                subscription.peer.loop.call_soon(subscription.too_slow)
        else:
            # All of them are moved at once, however many they are.
            others = self._behind.get(self.log.floor, set())
            small, large = sorted((waiting, others), key=len)
            large |= small
            self._behind[self.log.floor] = large
        self.lost(len(waiting))
        return len(waiting)

    def lost(self, events: int) -> None:
        """Subscribers have lost so many events, or their connections."""
        self._dropped += events
        self._topics.count(dropped=events)

    def _locate(self, after: str) -> tuple[int, bool]:
        """The position after an id, and whether something that came after it is gone."""
        log = self.log
        if not after:
            return log.begin(), False
        epoch, _, number = after.rpartition("-")
        position: int | None
        if epoch == self._epoch and number.isascii() and number.isdigit() and len(number) < 20:
            position = int(number)
        else:
            position = log.position_of(after)
        if position is None or not log.floor <= position <= log.head:
            return log.floor, True
        return position, False


_topics: WeakSet[Topic] = WeakSet()


def _begin_new_epochs() -> None:
    """After a fork parent and child go on with different events, and must have different ids."""
    for topic in _topics:
        topic._epoch = token_urlsafe(8)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_new_epochs)

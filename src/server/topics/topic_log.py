"""A topic's log: publishing, subscribing, and the replica of a shared log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from logging import WARNING
from typing import TYPE_CHECKING, Any, get_args

from wsframe import StateError

from ..forks import recreate_in_children
from .entry import Entry, as_entry
from .log import SPARE_BYTES, Bounds, LatestLog, Log
from .receipts import Published, Receipt
from .shared import SharedLog
from .state import Policy, Registry
from .subscribers import SubscribedLog
from .topic import Topic, TopicStats

if TYPE_CHECKING:
    from queue import Queue

# The weight of entries that a loop has not taken, above which a publishing thread waits for the
# loop. A loop never waits for clients, so the thread does not wait for them either.
AHEAD = 64 * 1024
# The maximum ratio of an encoding's size to its data's size. An event stream prefixes each line
# with "data: ".
LARGEST_GROWTH = 7


class TopicLog(SubscribedLog, Topic):
    """The implementation of a topic.

    Args:
        name: the name of the topic.
        registry: the topics of the app.
        shared: the broker, or the log of this process.
    """

    def __init__(self, name: str, registry: Registry, shared: SharedLog) -> None:
        super().__init__(name, registry, shared)
        recreate_in_children(self)

    @property
    def bounds(self) -> Bounds:
        """Any thread: the limits of the log."""
        return self.log.bounds

    @property
    def latest_only(self) -> bool:
        """Any thread: True if only the newest entry of each key is kept."""
        return isinstance(self.log, LatestLog)

    def share(self, shared: SharedLog) -> None:
        """Any thread: use another shared log, while this one is empty.

        Raises:
            RuntimeError: the topic has events or subscribers.
        """
        entered = self.entered()
        with self.lock:
            if entered or self._posted or self.log.head or self._subscribers:
                raise RuntimeError(f"the topic {self.name!r} is already in use")
            self._shared, self._ids = shared, shared.ids()

    def configure(
        self,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Any thread: change some settings; see :meth:`wsframe.server.App.topic`.

        Raises:
            ValueError: a value is invalid, or the policy changes to or from "latest" too late.
            StateError: a signal handler or a finalizer changes the policy to or from "latest" while
                its own thread is in a method of the topic.
        """
        if policy is not None and policy not in get_args(Policy):
            raise ValueError(f"invalid policy {policy!r}: expected one of {get_args(Policy)}")
        values = {"history": history, "max_bytes": max_bytes, "max_age": max_age}
        changes: dict[str, Any] = {
            name: value for name, value in values.items() if value is not None
        }
        entered = self.entered()
        with self.lock:
            if not entered:
                self._drain_posted()
            bounds = replace(self.log.bounds, **changes)
            latest = self._policy == "latest" if policy is None else policy == "latest"
            if latest != isinstance(self.log, LatestLog):
                if self.log.head:
                    raise ValueError(
                        f"cannot set the policy of the topic {self.name!r} to {policy!r}: it has "
                        "events already"
                    )
                if entered:
                    raise StateError(
                        f"cannot set the policy of the topic {self.name!r} to {policy!r}: the "
                        "calling thread is in a method of the topic"
                    )
                clock, spare = self.timing.clock, self.sizes.spare_positions
                self.log: LatestLog | Log = (
                    LatestLog(bounds, clock, spare_positions=spare)
                    if latest
                    else Log(bounds, clock)
                )
            self.log.bounds = bounds
            self._policy = policy or self._policy
            if not entered:  # if another method is running, the next event trims the log
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
        """Any thread: see :meth:`Topic.publish`."""
        return self.submit(as_entry(data, event, id, key))

    def submit(self, entry: Entry, receipt: Receipt | None = None) -> Published:
        """Any thread: publish an entry; its receipt is settled when the log has stored it."""
        self._check_size(entry)
        if self._closed:
            raise self._closed_error()
        published = self._shared.publish(self, entry, receipt)
        if published is None:  # the broker sends the entry to all processes, also to this one
            self._closed = self._closed or entry.last
            self._count(entry)
            if self._shared.is_crowded(self):
                self._slow_down()
            published = self._reach(0)
        elif not (self._subscribers or entry.last):
            self._registry.reaches_none(self.name)
        return published

    def _check_size(self, entry: Entry) -> None:
        if LARGEST_GROWTH * len(entry.payload) > SPARE_BYTES:
            largest, size = self.log.bounds.largest_event, entry.largest_encoding()
            if size > largest:
                raise ValueError(
                    f"event too large for the topic {self.name!r}: its {len(entry.payload)} bytes "
                    f"of data can take {size} bytes when encoded, and the limit is {largest} bytes "
                    f"(max_bytes + {SPARE_BYTES})"
                )

    def feed(self, source: Queue[Any] | Iterable[Any]) -> None:
        """Any thread: see :meth:`Topic.feed`."""
        self._registry.feed(source, self)

    def subscribe_pubsub(self, channel: str) -> None:
        """Any thread: see :meth:`Topic.subscribe_pubsub`."""
        self._shared.subscribe_pubsub(channel, self.name, self.publish)

    def close(self) -> None:
        """Any thread: see :meth:`Topic.close`."""
        with suppress(StateError):
            self.submit(Entry("", last=True))

    def append(self, entries: Sequence[Entry]) -> Published:
        """Any thread, also in a signal handler: append entries to the log, for the loops to send.

        The wait for the lock is limited, because another thread may hold it while foreign code
        waits for this thread. After ``publish_lock_timeout`` a loop appends the entries, or the
        next call of any method.
        """
        for entry in entries:
            if entry.is_large:
                self._prepare(entry)
        self._posted.extend(entries)
        reach = self._settle()
        if reach is None:
            self._registry.call_soon(partial(self._settle_later, entries))
            return Published()
        if entries and not entries[-1].position:
            raise self._closed_error()
        return reach

    def _prepare(self, entry: Entry) -> None:
        """The publisher: encode a large entry for the kinds of clients that are subscribed."""
        # The dictionary is copied in one step, because the owners of the loops may change it.
        for delivery in list(self._deliveries.values()):
            for encoding in delivery.encodings():
                encoding.prepare(self.name, entry)

    def _settle(self) -> Published | None:
        """Append the posted entries to the log; None if the lock cannot be acquired."""
        if self.entered():
            return None
        reach = self._append_posted()
        if reach is not None and not self._subscribers:
            self._registry.keep(self)
        return reach

    def _append_posted(self) -> Published | None:
        """Acquire the lock, and append the posted entries; None after ``publish_lock_timeout``."""
        try:
            if not self.lock.acquire(timeout=self.timing.publish_lock_timeout):
                return None
            reach = self._reach(self._drain_posted())
            if self._deliveries and self._is_ahead():
                self._taken.wait_for(lambda: not self._is_ahead(), self.timing.publish_send_timeout)
            return reach
        finally:
            # A KeyboardInterrupt, which may be raised between any two steps, must not leave the
            # lock held.
            if self.entered():
                self.lock.release()

    def _settle_later(self, entries: Sequence[Entry]) -> None:
        """The owner of a loop: append the entries of a publisher without the lock."""
        if self._settle() is None:
            self._registry.call_soon(partial(self._settle_later, entries))
            return
        dropped = sum(not entry.position for entry in entries)
        if dropped:
            self._registry.late.log(
                WARNING, "dropping %d events: the topic %r is closed", dropped, self.name
            )

    def _closed_error(self) -> StateError:
        return StateError(f"the topic {self.name!r} is closed")

    def _slow_down(self) -> None:
        """Any thread, also in a signal handler: delay the publisher, because the broker is slower.

        On a loop, the next turn of the publishing connection is delayed until the broker has room.
        Any other thread waits.
        """
        for loop in self._registry.loops:
            if loop.owned():
                loop.slow_down(self, partial(self._shared.when_room, self))
                return
        self._shared.wait_for_room(self, self.timing.publish_send_timeout)

    def _reach(self, dropped: int) -> Published:
        lagging = self._lagging.count + len(self._unplaced)
        return Published(self._subscribers - lagging, lagging, dropped)

    def _is_ahead(self) -> bool:
        """Return True if the calling thread must wait until a loop has delivered more events.

        The owner of a loop never waits, because loops that wait for each other would stop for ever.
        """
        return any(
            self.log.offset - delivery.offset > AHEAD for delivery in self._deliveries.values()
        ) and not any(loop.owned() for loop in self._registry.loops)

    # The replica of a shared log --------------------------------------------------------------

    def load(self, floor_id: str, entries: Sequence[Entry]) -> None:
        """The broker's thread: see :meth:`Replica.load`."""
        with self.lock:
            self._posted.clear()  # ``entries`` already contains the posted entries
            self._renew_log(floor_id)
            self._closed = False
            self._known = True
        self.append(entries)
        self.place()

    def lose(self, floor_id: str, oldest: str) -> None:
        """The broker's thread: report a gap to the subscribers; see :meth:`Replica.lose`."""
        self.append([Entry("", id=floor_id, stream_id=floor_id, oldest=oldest)])

    # Presence and numbers ---------------------------------------------------------------------

    def members(self) -> list[str]:
        """Any thread: see :meth:`Topic.members`."""
        return self._shared.members(self)

    def stats(self) -> TopicStats:
        """Any thread, also in a signal handler: see :meth:`Topic.stats`."""
        entered = self.entered()
        with self.lock:
            if not entered:
                self._drain_posted()
            return TopicStats(
                subscribers=self._subscribers,
                lagging=self._lagging.count + len(self._unplaced),
                published=self._published,
                dropped=self._dropped,
                history=len(self.log),
                history_bytes=self.log.size,
            )

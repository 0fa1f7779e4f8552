"""The interface between topics and a broker, which shares their logs with other processes.

An event is published by adding it to its topic's shared log. The broker orders and numbers the
entries, and every process that follows the topic appends them to its replica, in that order. So all
processes have the same order, ids and history.

docs/design.md ("Adding a broker other than Redis") explains how to write another implementation.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from ..forks import recreate_in_children
from .cursors import EpochIds, Ids, StreamIds
from .entry import Entry
from .log import Bounds
from .receipts import Fate, Published, Receipt


class Replica(Protocol):
    """One topic's log in this process, which the broker's thread fills.

    Attributes:
        name: the name of the topic.
        bounds: the limits of the log.
        latest_only: True if only the newest entry of each key is kept.
    """

    name: str

    @property
    def bounds(self) -> Bounds: ...

    @property
    def latest_only(self) -> bool: ...

    def load(self, floor_id: str, entries: Sequence[Entry]) -> None:
        """Any thread: replace the log's entries by the newest entries of the shared log.

        Args:
            floor_id: the id after which the entries follow without a gap.
            entries: the entries in order; each has a ``stream_id``.
        """

    def append(self, entries: Sequence[Entry]) -> Published:
        """Any thread: append the next entries to the log."""

    def lose(self, floor_id: str, oldest: str) -> None:
        """Any thread: report a gap to the subscribers.

        Args:
            floor_id: the id at which the log continues.
            oldest: the id of the next entry; "" if it has not been published yet.
        """

    def place(self) -> None:
        """Any thread, after appending: begin the subscriptions that waited for an entry."""


class SharedLog(ABC):
    """The logs of an app's topics, wherever they are kept.

    Methods are for any thread unless their description names one.
    """

    # Publishing -------------------------------------------------------------------------------

    @abstractmethod
    def publish(
        self, replica: Replica, entry: Entry, receipt: Receipt | None = None
    ) -> Published | None:
        """Any thread, also in a signal handler or a finalizer: add an entry to a topic's log.

        A broker queues the entry and returns at once.

        Args:
            replica: the replica of the topic.
            entry: the event.
            receipt: the receipt that is settled when the log has stored or rejected the entry.

        Returns:
            The clients that the entry reaches; None if the broker appends the entry later.

        Raises:
            BrokerUnavailable: too many entries wait for the broker.
            BrokerRefused: the broker rejects the topic.
            ValueError: the broker cannot store the entry.
        """

    def is_crowded(self, replica: Replica) -> bool:
        """Any thread: True if so many entries wait that publishers must slow down."""
        return False

    def when_room(self, replica: Replica, call: Callable[[], object]) -> None:
        """Any thread: call ``call``, from any thread, when fewer entries of the topic wait."""
        call()

    def wait_for_room(self, replica: Replica, timeout: float) -> None:
        """Any thread: wait until fewer entries of the topic wait."""
        room = threading.Event()
        self.when_room(replica, room.set)
        room.wait(timeout)

    # Following --------------------------------------------------------------------------------

    def ids(self) -> Ids:
        """Return the cursors of one log; the ids of its entries have the form TIME-NUMBER."""
        return StreamIds()

    @abstractmethod
    def follow(self, replica: Replica) -> bool:
        """Any thread, under the topic's lock: load a replica, then append each new entry to it.

        Returns:
            True if the replica is complete already; False if ``replica.load`` will be called.

        Raises:
            ValueError: the broker cannot store a topic of this name.
        """

    @abstractmethod
    def unfollow(self, replica: Replica) -> None:
        """Any thread, under the topic's lock: stop filling a replica."""

    # Presence ---------------------------------------------------------------------------------

    @abstractmethod
    def join(self, replica: Replica, member: str) -> None:
        """Any thread, under the topic's lock: add a member; it may be added several times.

        Raises:
            ValueError: the broker cannot store a name.
        """

    @abstractmethod
    def leave(self, replica: Replica, member: str) -> None:
        """Any thread, under the topic's lock: undo one call of :meth:`join`."""

    @abstractmethod
    def members(self, replica: Replica) -> list[str]:
        """Any thread: return the members of a topic in all processes, sorted.

        Raises:
            BrokerUnavailable: the broker does not answer.
            BrokerRefused: the broker rejects the request.
        """

    # Channels ---------------------------------------------------------------------------------

    def subscribe_pubsub(
        self, channel: str, topic: str, publish: Callable[[str | bytes], object]
    ) -> None:
        """Any thread: publish the messages that other programs send on a channel of the broker.

        Args:
            channel: the name of the channel.
            topic: the name of the topic.
            publish: a function that publishes a message to the topic.

        Raises:
            RuntimeError: the broker has no channels.
            ValueError: the broker cannot store a name.
        """
        raise RuntimeError(
            f"cannot subscribe the topic {topic!r} to a channel: it is not kept in Redis"
        )

    # Life -------------------------------------------------------------------------------------

    def check(self) -> None:  # noqa: B027 - a log without a broker does nothing
        """Any thread: connect once; an unreachable broker is no error.

        Raises:
            BrokerRefused: this broker does not support topics.
        """

    def begin(self) -> None:  # noqa: B027
        """Any thread: start the channels; called whenever a server starts."""

    def end(self, timeout: float) -> None:
        """Any thread: stop after flushing; called when the last server has stopped.

        Raises:
            EventsLost: as :meth:`close`.
        """
        self.close(timeout)

    def probe(self, answer: Callable[[bool], object]) -> None:
        """Any thread: call ``answer``, at once or in another thread; True if the broker answers."""
        answer(True)

    @property
    def trouble(self) -> str:
        """Any thread: the reason why the broker rejects all commands; "" if none is known."""
        return ""

    def flush(self, timeout: float) -> bool:
        """Any thread: wait until all entries published before are stored; False if not in time.

        Raises:
            EventsLost: the broker has rejected entries since the last call.
        """
        return True

    def close(self, timeout: float) -> None:  # noqa: B027
        """Any thread: flush, and end all threads; later calls begin again.

        Raises:
            EventsLost: entries were rejected, or not acknowledged in time.
        """


class LocalLog(SharedLog):
    """The logs of topics that only this process has: the replica is the log.

    The lock of each topic protects its members. One lock for all topics could cause a deadlock: its
    holder could run a finalizer that waits for a topic, whose thread waits for that lock.
    """

    def __init__(self) -> None:
        self._members: dict[Replica, dict[str, int]] = {}
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The child of a fork: remove all members, whose connections belong to the parent."""
        self._members = {}

    def publish(
        self, replica: Replica, entry: Entry, receipt: Receipt | None = None
    ) -> Published | None:
        """Any thread, also in a signal handler or a finalizer: append an entry."""
        published = replica.append((entry,))
        if receipt is not None:
            receipt.settle(Fate.ACCEPTED)
        return published

    def ids(self) -> Ids:
        """Return the cursors of one log."""
        return EpochIds()

    def follow(self, replica: Replica) -> bool:
        """Any thread: return True, because the replica is complete."""
        return True

    def unfollow(self, replica: Replica) -> None:
        """Any thread: do nothing."""

    def join(self, replica: Replica, member: str) -> None:
        """Any thread, under the topic's lock: add a member."""
        counts = self._members.setdefault(replica, {})
        counts[member] = counts.get(member, 0) + 1

    def leave(self, replica: Replica, member: str) -> None:
        """Any thread, under the topic's lock: undo one call of :meth:`join`."""
        counts = self._members[replica]
        counts[member] -= 1
        if not counts[member]:
            del counts[member]
        if not counts:
            del self._members[replica]

    def members(self, replica: Replica) -> list[str]:
        """Any thread: return the members of a topic, sorted."""
        return sorted(self._members.get(replica, ()))

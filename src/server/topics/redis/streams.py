"""Topics over Redis Streams: every process delivers the events of all processes.

An event is published by adding it to its topic's stream, and delivered when it is read from there:
so the order, the ids and the history are the same in all processes. Two threads with a connection
each do that. The *writer* (``writer.py``) adds published events, in order, and requests the topics
of new subscribers. The *reader* (``reader.py``) waits for new entries. Both continue from their
position after the connection or Redis itself was lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING

import redis

from ...forks import recreate_in_children
from ..errors import BrokerRefused, BrokerUnavailable, EventsLost
from ..receipts import Fate, Receipt
from ..shared import SharedLog
from ..sizes import DEFAULT_SIZES, Sizes
from . import at_exit, scripts
from .channels import Channels, Feed
from .connection import RedisConnection
from .faults import Fault, fault_of
from .interests import Interests
from .outbox import CROWDED, EVENT_WEIGHT, ClosedError, Event, Mark, Outbox
from .probe import Probe
from .reader import Reader, entries_kept, lifetime
from .wire import fields
from .writer import Losses, Writer
from .wrong_types import explained

if TYPE_CHECKING:
    from ...timing import Timing
    from ..entry import Entry
    from ..shared import Replica

# The maximum weight of a topic in Redis beyond 2 * max_bytes, and of one event beyond 3 *
# max_bytes. Redis uses up to twice the weight of small entries, and a quarter more than the size of
# a large one. So all keys of a topic use less than 4 * max_bytes + 64 KiB.
SPARE_WEIGHT = 24 * 1024
LARGEST_EVENT = 48 * 1024


@dataclass(eq=False)
class _Run:
    """The writer and reader threads from one start to the next stop, with their outbox."""

    outbox: Outbox
    writer: Writer
    reader: Reader
    stop: threading.Event
    threads: tuple[threading.Thread, ...]


class RedisStreams(SharedLog):
    """The connection of an app's topics to Redis.

    The threads start with the first command. A published event waits in this process until Redis
    has acknowledged it. Then the persistence of Redis protects the event:

    - with ``appendfsync always`` the event is on the disk, and survives a crash of the machine;
    - with ``appendfsync everysec`` it survives a crash of Redis, but a crash of the machine loses
      the last second; a failover loses the events that the replica has not received;
    - with snapshots all events after the last snapshot are lost, without persistence all events.

    In place of lost events that they have not received, subscribers receive a gap.

    Redis keeps a topic's newest entries: at most 10,000 more than the history, and none that is a
    minute older than ``max_age``. Their fields, and 64 bytes for each entry, are less than
    ``2 * max_bytes + 24 KiB``. With the default settings of Redis for streams, ``MEMORY USAGE key
    SAMPLES 0`` of all keys of a topic is at most ``4 * max_bytes + 64 KiB``.

    Args:
        url: "redis://user:password@host:6379/0", "rediss://..." for TLS (with
            ``?ssl_ca_certs=FILE`` for a private certificate authority), or "unix:///path".
        prefix: the prefix of all keys and channels.
        timing: the durations of the app.
        sizes: the sizes of the app's topics.

    Raises:
        ValueError: the URL has another form, or the prefix contains an invalid character.
    """

    def __init__(self, url: str, prefix: str, timing: Timing, sizes: Sizes = DEFAULT_SIZES) -> None:
        self._url, self._prefix, self._timing = url, prefix, timing
        self._sizes = sizes
        self._feeds: list[Feed] = []
        self._begin_anew()
        at_exit.close_at_exit(self)
        recreate_in_children(self)

    def _begin_anew(self) -> None:
        """Set the initial state: no events and no threads."""
        self.connection: RedisConnection = RedisConnection(self._url, self._prefix, self._timing)
        self.channels: Channels = Channels(self.connection, self._feeds)
        self._probe = Probe(self.connection)
        self._members_client = self.connection.client("members")
        self._interests = Interests(self._sizes.max_leaving)
        self._losses = Losses()
        self._lock = threading.RLock()  # protects _run
        self._run: _Run | None = None

    def after_fork(self) -> None:
        """The child of a fork: begin without events; the parent sends the earlier events."""
        self._begin_anew()

    # Any thread -------------------------------------------------------------------------------

    def check(self) -> None:
        """Any thread: connect once, within ``redis_timeout``; an unreachable Redis is no error.

        Raises:
            BrokerRefused: this Redis does not support topics.
        """
        self.connection.check()

    def publish(self, replica: Replica, entry: Entry, receipt: Receipt | None = None) -> None:
        """Any thread, also in a signal handler or a finalizer: queue an event for its stream.

        Args:
            replica: the replica of the topic.
            entry: the event.
            receipt: the receipt that is settled when Redis has replied.

        Raises:
            BrokerUnavailable: too many events wait for Redis.
            BrokerRefused: Redis rejects all commands, or has just rejected the topic.
            ValueError: a text contains a lone surrogate, which cannot be encoded as UTF-8; or the
                event is larger than the limit of Redis, or of the topic in Redis.
        """
        bounds, name = replica.bounds, _checked(replica.name)
        self._check_size(name, entry.size, bounds.max_bytes)
        kept = (
            entries_kept(replica),
            2 * bounds.max_bytes + SPARE_WEIGHT,
            lifetime(replica, self._timing),
        )
        event = Event(name, entry.size + EVENT_WEIGHT, entry.last, kept, fields(entry), receipt)
        while True:
            run = self._running()
            refusal = self.connection.refusal or (run and run.writer.refusal(name))
            if refusal:
                raise BrokerRefused(refusal)
            try:
                run.outbox.put(event)
            except ClosedError:  # another thread has closed this run; the next run sends the event
                continue
            run.writer.wake()
            return

    def is_crowded(self, replica: Replica) -> bool:
        """Any thread: True if so many events wait that publishers must slow down."""
        run = self._run
        return run is not None and run.outbox.load(replica.name) > CROWDED

    def when_room(self, replica: Replica, call: Callable[[], object]) -> None:
        """Any thread: call ``call``, from any thread, when fewer events of the topic wait."""
        run = self._run
        if run is None or run.outbox.is_closed:
            call()
        else:
            run.outbox.when_room(replica.name, call)
            run.writer.wake()

    def wait_for_room(self, replica: Replica, timeout: float) -> None:
        """Any thread: wait until fewer events of the topic wait, unless Redis is unreachable."""
        if not self.connection.unavailable:
            super().wait_for_room(replica, timeout)

    def follow(self, replica: Replica) -> bool:
        """Any thread, under the topic's lock: load a replica, and append new entries to it.

        Raises:
            ValueError: the name contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        _checked(replica.name)
        self._interests.follow(replica)
        self._running().writer.wake()
        return False

    def unfollow(self, replica: Replica) -> None:
        """Any thread, under the topic's lock: stop filling a replica."""
        self._interests.unfollow(replica)

    def join(self, replica: Replica, member: str) -> None:
        """Any thread, under the topic's lock: add a member.

        Raises:
            ValueError: a name contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        self._interests.join(_checked(replica.name), _checked(member))
        self._running().writer.wake()

    def leave(self, replica: Replica, member: str) -> None:
        """Any thread, under the topic's lock: undo one call of :meth:`join`."""
        run = self._run
        self._interests.leave(replica.name, member)
        if run is None:
            self._interests.forget_soon()
        else:
            run.writer.wake()

    def members(self, replica: Replica) -> list[str]:
        """Any thread: return the members of a topic in all processes, sorted.

        Changes in this process are included.

        Raises:
            BrokerUnavailable: Redis does not reply, or has not stored the changes in time.
            BrokerRefused: Redis rejects the command.
        """
        if self.connection.unavailable:
            self._read_members(replica)  # raises an error at once if Redis does not reply
        timeout = self._timing.redis_timeout
        if not self._interests.wait_for_presence(replica.name, timeout):
            raise BrokerUnavailable(
                f"cannot read the members of the topic {replica.name!r}, because Redis at "
                f"{self.connection.address} has not stored those of this process in {timeout:g} s"
            )
        return self._read_members(replica)

    def _read_members(self, replica: Replica) -> list[str]:
        """Any thread: return the members of a topic that Redis has stored."""
        keys = self.connection.members_key(replica.name)
        try:
            members = self._members_client.eval(scripts.MEMBERS, 1, *keys)
        except redis.RedisError as error:
            kind = BrokerUnavailable if fault_of(error) is Fault.OUTAGE else BrokerRefused
            raise kind(
                f"cannot read the members of the topic {replica.name!r}, because Redis at "
                f"{self.connection.address} has failed: "
                f"{explained(self._members_client, error, keys)}"
            ) from None
        # Another program may have added a member of another form, without a publisher.
        names = (member.partition(b"\0") for member in members)
        return sorted({name.decode(errors="replace") for _, separator, name in names if separator})

    def subscribe_pubsub(
        self, channel: str, topic: str, publish: Callable[[str | bytes], object]
    ) -> None:
        """Any thread: publish the messages that other programs send on a channel.

        Raises:
            ValueError: a name contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        self.channels.add(channel, topic, publish)

    def begin(self) -> None:
        """Any thread: start the channels, because a server starts."""
        self.channels.start()

    def end(self, timeout: float) -> None:
        """Any thread: stop, because the last server has stopped; a later call starts again.

        Raises:
            EventsLost: as :meth:`close`.
        """
        self.channels.stop()
        self.close(timeout)

    def probe(self, answer: Callable[[bool], object]) -> None:
        """Any thread: call ``answer``, at once or in another thread; True if Redis answers."""
        self._probe.request(answer)

    @property
    def trouble(self) -> str:
        """Any thread: the reason why Redis rejects all commands; "" if it does not."""
        return self.connection.refusal

    @property
    def exit_timeout(self) -> float:
        """Any thread: the seconds that :meth:`close` may take when the process exits."""
        return self._timing.redis_exit_timeout

    def flush(self, timeout: float) -> bool:
        """Any thread: wait until Redis has all events published before; False if not in time.

        Raises:
            EventsLost: Redis has rejected events since the last call.
        """
        run = self._run
        settled = run is None or self._wait(run, timeout)
        count, reason = self._losses.take()
        if count:
            raise EventsLost(count, reason)
        return settled

    def close(self, timeout: float) -> None:
        """Any thread: flush within the timeout, and end the threads; a later call starts them.

        Raises:
            EventsLost: Redis has rejected events, or has not acknowledged them in time.
        """
        self._members_client.close()
        with self._lock:
            run = self._run
        if run is not None:
            until = monotonic() + timeout
            self._interests.withdraw()
            self._wait(run, timeout)
            with self._lock:
                mine = self._run is run  # False if another thread has closed the run
                if mine:
                    self._run = None
                    run.outbox.close()
            if mine:
                self._end(run, until)
        count, reason = self._losses.take()
        if count:
            raise EventsLost(count, reason)

    def _end(self, run: _Run, until: float) -> None:
        # Waits for events that another thread has just published.
        self._wait(run, until - monotonic())
        while self._interests and not self.connection.unavailable and monotonic() < until:
            run.writer.wake()
            run.stop.wait(0.01)
        reason = self.connection.refusal or "Redis has not acknowledged them in time"
        run.stop.set()
        run.writer.wake()
        self.connection.join(*run.threads)
        self._interests.forget()
        for _ in range(run.outbox.clear()):
            self._losses.add(reason)

    def _wait(self, run: _Run, timeout: float) -> bool:
        """Wait for the writer, unless Redis rejects all commands."""
        until = monotonic() + timeout
        mark = Mark()
        run.outbox.put(mark)
        run.writer.wake()
        while not mark.wait(max(0.0, min(until - monotonic(), 0.1))):
            if monotonic() >= until or self.connection.refusal:
                return False
        return mark.fate is Fate.ACCEPTED

    def _check_size(self, name: str, size: int, max_bytes: int) -> None:
        most = 3 * max_bytes + LARGEST_EVENT
        if size > most:
            raise ValueError(
                f"event too large: {size} bytes for the topic {name[:100]!r}, whose limit in Redis "
                f"is {most} bytes (3 * max_bytes + 48 KiB, max_bytes={max_bytes})"
            )
        if self.connection.largest and size > self.connection.largest:
            raise ValueError(
                f"event too large: {size} bytes, and the proto-max-bulk-len of Redis is "
                f"{self.connection.largest}"
            )

    def _running(self) -> _Run:
        """Return the running threads and their outbox; start them if necessary."""
        run = self._run
        if run is not None:
            return run
        with self._lock:
            return self._run or self._begin_run()

    def _begin_run(self) -> _Run:
        """Under the lock: start the threads with a new outbox.

        Raises:
            BrokerUnavailable: the program exits. A new thread would never run, and waiting for its
                start would never end.
        """
        if at_exit.is_over:
            raise BrokerUnavailable("the program is exiting: events can no longer be sent to Redis")
        stop, publisher = threading.Event(), token_hex(8)
        outbox = Outbox(self._sizes.max_waiting_bytes)
        reader = Reader(
            self.connection, publisher, self._interests.followed, stop, self._sizes.read_batch
        )
        writer = Writer(
            self.connection, publisher, outbox, self._interests, reader, self._losses, stop
        )
        threads = tuple(
            threading.Thread(target=each.run, name=f"wsframe-redis-{name}", daemon=True)
            for name, each in (("writer", writer), ("reader", reader))
        )
        at_exit.register_in_process()
        self._interests.begin()
        # self._run is assigned before the threads start, because a signal handler may publish
        # an event meanwhile.
        self._run = run = _Run(outbox, writer, reader, stop, threads)
        try:
            for thread in threads:
                thread.start()
        except BaseException:
            # For example a RuntimeError, because the system allows no more threads.
            self._run = None
            stop.set()
            outbox.close()
            raise
        return run


def _checked(name: str) -> str:
    name.encode()  # a UnicodeEncodeError must be raised here and not in the writer

    return name

"""Topics over Redis Streams: what every process publishes, every process delivers.

An event is published by adding it to its topic's stream, and delivered when it comes back from
there: so the order, the ids and the history are the same for all. Two threads and two connections
do that: the *writer* (``writer.py``) adds what was published, in order, and asks for what a new
subscriber needs; the *reader* (``reader.py``) waits for what is new. Both begin again, from where
they were, when the connection or Redis itself is lost.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

import redis

from ...forks import recreate_in_children
from ..errors import BrokerRefused, BrokerUnavailable, EventsLost
from ..receipts import Fate, Receipt
from ..shared import SharedLog
from . import scripts
from .channels import Channels, Feed
from .connection import RedisConnection
from .interests import Interests
from .outbox import CROWDED, EVENT_WEIGHT, ClosedError, Event, Mark, Outbox
from .reader import Reader, entries_kept, lifetime
from .wire import fields
from .writer import Losses, Writer

if TYPE_CHECKING:
    from ...timing import Timing
    from ..entry import Entry
    from ..shared import Replica

# What a topic may weigh in Redis besides 2 * max_bytes, and one event besides 3 * max_bytes.
# Redis takes up to twice the weight of small entries, and a quarter more than the size of a large
# one, so all of a topic takes less than 4 * max_bytes + 64 KiB.
SPARE_WEIGHT = 24 * 1024
LARGEST_EVENT = 48 * 1024


@dataclass(eq=False)
class _Run:
    """The threads, from when they begin to when they are to stop."""

    outbox: Outbox
    writer: Writer
    reader: Reader
    stop: threading.Event
    threads: tuple[threading.Thread, ...]


class RedisStreams(SharedLog):
    """The connection of an app's topics to Redis.

    Its threads begin with the first thing to do. An event that was published waits here until Redis
    has acknowledged it. From then on Redis decides how safe it is:

    - with ``appendfsync always`` it is on the disk, and survives whatever happens to Redis;
    - with ``appendfsync everysec`` it survives the end of Redis, but if the machine fails the last
      second is lost; and so are events that a replica has not yet when it takes over;
    - with snapshots what came after the last of them is lost, and without persistence everything.

    Of what is lost in this way subscribers are sent a gap, unless they had it already.

    Redis keeps a topic's newest entries: those of the history and 10,000 more, as long as they
    weigh less than ``2 * max_bytes + 24 KiB`` (64 bytes for each besides its fields), none that is
    older than ``max_age`` and a minute. With its own settings for streams, ``MEMORY USAGE key
    SAMPLES 0`` of all keys of a topic is at most ``4 * max_bytes + 64 KiB``.

    Args:
        url: as in "redis://user:password@host:6379/0", "rediss://..." for TLS (with
            ``?ssl_ca_certs=FILE`` for an authority of one's own), "unix:///path".
        prefix: what all keys and channels begin with.
        timing: the app's.

    Raises:
        ValueError: the URL is none of these, or the prefix has a character that is not allowed.
    """

    def __init__(self, url: str, prefix: str, timing: Timing) -> None:
        self._url, self._prefix, self._timing = url, prefix, timing
        self._feeds: list[Feed] = []
        self._begin_anew()
        _all.add(self)
        recreate_in_children(self)

    def _begin_anew(self) -> None:
        """Be as one that has published nothing yet, and has no thread."""
        self.connection = RedisConnection(self._url, self._prefix, self._timing)
        self.channels = Channels(self.connection, self._feeds)
        self._members_client = self.connection.client("members")
        self._interests = Interests()
        self._losses = Losses()
        self._lock = threading.RLock()  # for _run
        self._run: _Run | None = None

    def after_fork(self) -> None:
        """The child of a fork: what was published before is its parent's to send."""
        self._begin_anew()

    # Any thread -------------------------------------------------------------------------------

    def check(self) -> None:
        """Any thread: connect once; for at most as long as Redis may take to answer.

        Raises:
            BrokerRefused: this Redis cannot be used. One that is away is no error.
        """
        self.connection.check()

    def publish(self, replica: Replica, entry: Entry, receipt: Receipt | None = None) -> None:
        """Any thread, also in a signal handler or a finalizer: have an event added to its stream.

        Never waits.

        Args:
            replica: of the topic to which it is published.
            entry: the event.
            receipt: is settled when Redis has answered.

        Raises:
            BrokerUnavailable: too much waits for Redis already.
            BrokerRefused: Redis cannot be used at all, or has refused the topic just now.
            ValueError: UTF-8 has no form for the topic's name, or what else is text; or the event
                is larger than what Redis takes, or is to keep of the topic.
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
            except ClosedError:  # another thread has closed it, so the next run takes the event
                continue
            run.writer.wake()
            return

    def is_crowded(self, replica: Replica) -> bool:
        """Any thread: whether so much of a topic waits that those who publish are to slow down."""
        run = self._run
        return run is not None and run.outbox.load(replica.name) > CROWDED

    def when_room(self, replica: Replica, call: Callable[[], object]) -> None:
        """Any thread: have this called, by any thread, when less of the topic waits."""
        run = self._run
        if run is None or run.outbox.is_closed:
            call()
        else:
            run.outbox.when_room(replica.name, call)
            run.writer.wake()

    def wait_for_room(self, replica: Replica, timeout: float) -> None:
        """Any thread: wait until less of the topic waits; not for a Redis that is away."""
        if not self.connection.away:
            super().wait_for_room(replica, timeout)

    def follow(self, replica: Replica) -> bool:
        """Any thread, under the topic's lock: have it loaded, and what comes appended.

        Raises:
            ValueError: UTF-8 has no form for its name.
        """
        _checked(replica.name)
        self._interests.follow(replica)
        self._running().writer.wake()
        return False

    def unfollow(self, replica: Replica) -> None:
        """Any thread, under the topic's lock: nobody is subscribed to it any more."""
        self._interests.unfollow(replica)

    def join(self, replica: Replica, member: str) -> None:
        """Any thread: a member of a topic is there.

        Raises:
            ValueError: UTF-8 has no form for its name.
        """
        self._interests.join(_checked(replica.name), _checked(member))
        self._running().writer.wake()

    def leave(self, replica: Replica, member: str) -> None:
        """Any thread: a member has left; it may be there more than once."""
        run = self._run
        self._interests.leave(replica.name, member)
        if run is None:
            self._interests.forget()
        else:
            run.writer.wake()

    def members(self, replica: Replica) -> list[str]:
        """Any thread: who is there, in all processes; of this one, as it is now.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        if not self.connection.away:
            self._interests.wait_for_presence(replica.name, self._timing.redis_timeout)
        try:
            found = self._members_client.eval(
                scripts.MEMBERS, 1, self.connection.key(replica.name, "members")
            )
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis does not tell who is there: {error}") from error
        return sorted({member.decode().partition("\0")[2] for member in found})

    def subscribe_pubsub(
        self, channel: str, topic: str, publish: Callable[[str | bytes], object]
    ) -> None:
        """Any thread: publish what other programs say on a channel.

        Raises:
            ValueError: UTF-8 has no form for a name.
        """
        self.channels.add(channel, topic, publish)

    def begin(self) -> None:
        """Any thread: a server starts."""
        self.channels.start()

    def end(self, timeout: float) -> None:
        """Any thread: the last server has stopped; it can begin again.

        Raises:
            EventsLost: as :meth:`close`.
        """
        self.channels.stop()
        self.close(timeout)

    @property
    def trouble(self) -> str:
        """Any thread: why this Redis cannot be used at all; "" if that is not so."""
        return self.connection.refusal

    def flush(self, timeout: float) -> bool:
        """Any thread: wait until Redis has all that was published before; False if not in time.

        Raises:
            EventsLost: Redis has refused events since the last call.
        """
        run = self._run
        settled = run is None or self._wait(run, timeout)
        count, reason = self._losses.take()
        if count:
            raise EventsLost(count, reason)
        return settled

    def close(self, timeout: float) -> None:
        """Any thread: flush, as far as the time allows, and end the threads; it can begin again.

        Raises:
            EventsLost: Redis has refused events, or has not acknowledged them in time.
        """
        self._members_client.close()
        with self._lock:
            run = self._run
        if run is not None:
            until = monotonic() + timeout
            self._interests.withdraw()
            self._wait(run, timeout)
            with self._lock:
                mine = self._run is run  # else another thread was faster
                if mine:
                    self._run = None
                    run.outbox.close()
            if mine:
                self._end(run, until)
        count, reason = self._losses.take()
        if count:
            raise EventsLost(count, reason)

    def _end(self, run: _Run, until: float) -> None:
        self._wait(run, until - monotonic())  # for what another thread has just published
        while self._interests and not self.connection.away and monotonic() < until:
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
        """Wait for the writer, unless Redis refuses everything."""
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
                f"an event of {size} bytes is too large for the topic {name[:100]!r}: of one with "
                f"max_bytes={max_bytes} Redis keeps at most {most} bytes"
            )
        if self.connection.largest and size > self.connection.largest:
            raise ValueError(
                f"an event of {size} bytes is too large for Redis, whose proto-max-bulk-len is "
                f"{self.connection.largest}"
            )

    def _running(self) -> _Run:
        """The run; it begins with the first thing to do."""
        run = self._run
        if run is not None:
            return run
        with self._lock:
            return self._run or self._begin_run()

    def _begin_run(self) -> _Run:
        """Under the lock: begin a run.

        Raises:
            BrokerUnavailable: the program is at its end. A thread would not run any more then, and
                to wait for its start would be to wait for ever.
        """
        if _is_over:
            raise BrokerUnavailable("the program is at its end, and sends nothing more to Redis")
        stop, publisher, outbox = threading.Event(), token_hex(8), Outbox()
        reader = Reader(self.connection, publisher, self._interests.followed, stop)
        writer = Writer(
            self.connection, publisher, outbox, self._interests, reader, self._losses, stop
        )
        threads = tuple(
            threading.Thread(target=each.run, name=f"wsframe-redis-{name}", daemon=True)
            for name, each in (("writer", writer), ("reader", reader))
        )
        _have_the_end_noticed()
        self._interests.begin()
        # A signal handler that publishes while the threads begin finds this run.
        self._run = run = _Run(outbox, writer, reader, stop, threads)
        try:
            for thread in threads:
                thread.start()
        except BaseException:  # such as that the system has no thread left for one of them
            self._run = None
            stop.set()
            outbox.close()
            raise
        return run


def _checked(name: str) -> str:
    name.encode()  # raises UnicodeEncodeError, here and not where it has to be sent
    return name


_all: WeakSet[RedisStreams] = WeakSet()


def _at_exit() -> None:
    """The end of the program: take nothing more for Redis."""
    global _is_over
    _is_over = True
    _close_all()


def _close_all() -> None:
    """The end of a process: send what was published, or tell what is lost."""
    lost, reason = 0, ""
    for streams in tuple(_all):
        try:
            streams.close(streams._timing.redis_exit_timeout)
        except EventsLost as error:
            lost, reason = lost + error.count, error.reason
    if lost:
        raise EventsLost(lost, reason)


def _have_the_end_noticed() -> None:
    """Any thread: see to it that :func:`_close_all` is called at the end of this process.

    A child that multiprocessing has forked does not call what is registered with atexit.
    """
    global _noticed_in
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing is not None and _noticed_in != os.getpid():
        _noticed_in = os.getpid()
        multiprocessing.Finalize(None, _close_all, exitpriority=0)


_is_over = False  # the program is at its end
_noticed_in = 0  # the process in which multiprocessing was told
atexit.register(_at_exit)

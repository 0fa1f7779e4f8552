"""Topics over Redis Streams: what every process publishes, every process delivers.

An event is published by adding it to its topic's stream, and delivered when it comes back from
there: so the order, the ids and the history are the same for all. Two threads and two connections
do that:

- the *writer* adds what was published, in order, and asks for what a new subscriber needs. What it
  has no answer to it sends again; numbers tell Redis what it has seen already (``scripts.py``).
- the *reader* (``reader.py``) waits for what is new.

Both begin again, from where they were, when the connection or Redis itself is lost.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from logging import ERROR, WARNING
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import redis

from ..reports.complaint import Complaint
from ..reports.loggers import log
from . import scripts
from .channels import Channels, Feed
from .link import ANSWER_TIME, Link, is_refusal
from .reader import SPARE, SPARE_BYTES, Opening, Reader, lifetime, opening_arguments, reach
from .topic import RedisUnavailable
from .wire import fields, opened

if TYPE_CHECKING:
    from .entry import Entry
    from .topic import Topic


# What may wait for Redis while it is away.
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 16 << 20
# How long a member is believed to be there without a word of its process; how often that speaks.
PRESENCE = 30.0
PRESENCE_INTERVAL = 10.0

BATCH = 100


@dataclass(eq=False)
class _Event:
    """An event on its way to Redis."""

    topic: str
    number: int
    before: int  # the number of the event before it in its topic; 0 if unknown
    size: int
    last: bool
    bounds: tuple[int, int, int]  # entries, bytes, ms
    fields: list[bytes]


@dataclass(eq=False)
class _Presence:
    """Members of a topic who are to be there, or not any more."""

    topic: str
    there: bool
    members: list[str]


@dataclass(eq=False)
class _Run:
    """The threads, from when they begin to when they are to stop."""

    publisher: str
    stop: threading.Event
    reader: Reader
    numbers: OrderedDict[str, int] = field(default_factory=OrderedDict)  # of topics' last events
    threads: list[threading.Thread] = field(default_factory=list)


class RedisStreams:
    """The connection of an app's topics to Redis.

    Its threads begin with the first thing to do. An event that was published waits here until Redis
    has acknowledged it; what happens to it then is Redis' to say:

    - with ``appendfsync always`` it is on the disk, and survives whatever happens to Redis;
    - with ``appendfsync everysec`` it survives the end of Redis, but if the machine fails the last
      second is lost; and so are events that a replica has not yet when it takes over;
    - with snapshots what came after the last of them is lost, and without persistence everything.

    What is lost in this way is told to subscribers as a gap, unless they had it already.

    Redis keeps a topic's newest entries: of the history and SPARE more, of ``max_bytes`` and
    SPARE_BYTES more, none that is older than ``max_age`` and SPARE_TIME more. What is more is for
    processes that come late; clients are given what the topic's own bounds say.

    Args:
        url: as in "redis://user:password@host:6379/0", "rediss://..." for TLS (with
            ``?ssl_ca_certs=FILE`` for an authority of one's own), "unix:///path".
        prefix: what all keys begin with.

    Raises:
        ValueError: the URL is none of these.
    """

    def __init__(self, url: str, prefix: str = "wsframe:") -> None:
        self._url, self._prefix = url, prefix
        self._refused, self._late = Complaint(), Complaint()
        self._present: Counter[tuple[str, str]] = Counter()
        self._followed: dict[str, Opening] = {}
        self._number = 0
        self._feeds: list[Feed] = []
        self._begin_anew()
        _all.add(self)

    def _begin_anew(self) -> None:
        """Be as one that has published nothing yet, and has no thread."""
        self.link = Link(self._url, self._prefix)
        self.channels = Channels(self.link, self._feeds)
        self._members_client = self.link.client("members")
        # All of it is under this lock, but for what is one thread's alone.
        self._news = threading.Condition()
        self._run: _Run | None = None
        self._queue: deque[_Event] = deque()
        self._bytes = 0
        self._openings: dict[str, Opening] = {}  # what is yet to be asked for
        self._presence: dict[tuple[str, str], bool] = {}  # what is yet to be told

    def after_fork(self) -> None:
        """The child of a fork: what was published before is its parent's to send."""
        self._present.clear()
        self._followed.clear()
        self._begin_anew()

    # Any thread -------------------------------------------------------------------------------

    def publish(self, topic: Topic, entry: Entry) -> None:
        """Any thread: add an event to its stream, soon; never waits.

        Raises:
            RedisUnavailable: too much waits for Redis already.
            ValueError: UTF-8 has no form for the topic's name, or what else is text.
        """
        bounds, name = topic.log.bounds, _checked(topic.name)
        kept = (bounds.history + SPARE, bounds.max_bytes + SPARE_BYTES, lifetime(topic))
        event = _Event(name, 0, 0, entry.size, entry.last, kept, fields(entry))
        with self._news:
            if len(self._queue) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
                raise RedisUnavailable(
                    f"{len(self._queue)} events ({self._bytes} bytes) wait for Redis"
                    " already, which is away or too slow"
                )
            numbers = self._running().numbers
            self._number += 1
            event.number, event.before = self._number, numbers.pop(name, 0)
            numbers[name] = self._number
            if len(numbers) > MAX_WAITING:
                numbers.popitem(last=False)
            self._queue.append(event)
            self._bytes += event.size
            self._news.notify_all()

    def follow(self, topic: Topic) -> None:
        """Any thread, under the topic's lock: have it loaded, and what comes appended.

        Raises:
            ValueError: UTF-8 has no form for its name.
        """
        name = _checked(topic.name)
        with self._news:
            self._running()
            self._followed[name] = self._openings[name] = Opening(topic)
            self._news.notify_all()

    def unfollow(self, topic: Topic) -> None:
        """Any thread, under the topic's lock: nobody is subscribed to it any more."""
        with self._news:
            opening = self._followed.get(topic.name)
            if opening is not None and opening.topic is topic:
                del self._followed[topic.name]
                self._openings.pop(topic.name, None)

    def join(self, topic: str, member: str) -> None:
        """Any thread: a member of a topic is there.

        Raises:
            ValueError: UTF-8 has no form for its name.
        """
        here = (_checked(topic), _checked(member))
        with self._news:
            self._running()
            self._present[here] += 1
            self._presence[here] = True
            self._news.notify_all()

    def leave(self, topic: str, member: str) -> None:
        """Any thread: a member has left; it may be there more than once."""
        here = (topic, member)
        with self._news:
            self._present[here] -= 1
            if self._present[here] > 0:
                return
            del self._present[here]
            self._presence.pop(here, None)
            # With no thread, or while Redis is away for long, it is left to expire.
            if self._run is not None and len(self._presence) < MAX_WAITING:
                self._presence[here] = False
                self._news.notify_all()

    def members(self, topic: Topic) -> list[str]:
        """Any thread: who is there, in all processes; of this one, as it is now.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        with self._news:
            self._news.wait_for(
                lambda: self.link.away or all(name != topic.name for name, _ in self._presence),
                ANSWER_TIME,
            )
        try:
            found = self._members_client.eval(
                scripts.MEMBERS, 1, self.link.key(topic.name, "members")
            )
        except redis.RedisError as error:
            raise RedisUnavailable(f"Redis does not tell who is there: {error}") from error
        return sorted({member.decode().partition("\0")[2] for member in found})

    def flush(self, timeout: float) -> bool:
        """Any thread: wait until all that was published is in Redis; False if it is not in time."""
        with self._news:
            return self._news.wait_for(lambda: not self._queue, timeout)

    def close(self, timeout: float) -> None:
        """Any thread: flush, as far as the time allows, and end the threads; it can begin again."""
        self._members_client.close()
        with self._news:
            run = self._run
            if run is None:
                return
            self._presence.update(dict.fromkeys(self._present, False))
            self._news.notify_all()
            until = monotonic() + timeout
            while self._queue or (self._presence and not self.link.away):
                left = until - monotonic()
                if left <= 0:
                    break
                self._news.wait(min(left, 0.1))  # nobody says that Redis is away
            if self._run is not run:  # another thread was faster
                return
            lost = len(self._queue)
            self._run = None
            self._queue.clear()
            self._bytes = 0
            self._presence.clear()
            run.stop.set()
            self._news.notify_all()
        if lost:
            log.error("%d events are lost: Redis has not acknowledged them", lost)
        self.link.join(*run.threads)

    # Under the lock ---------------------------------------------------------------------------

    def _running(self) -> _Run:
        if self._run is None:
            stop, publisher = threading.Event(), token_hex(8)
            run = _Run(publisher, stop, Reader(self.link, publisher, self._copy_of_followed, stop))
            write = partial(self._write_with, run=run)
            run.threads = [
                threading.Thread(
                    target=target, args=args, name=f"wsframe-redis-{name}", daemon=True
                )
                for name, target, args in (
                    ("writer", self.link.keep_on, ("writer", write, stop)),
                    ("reader", run.reader.run, ()),
                )
            ]
            with ExitStack() as undo:  # if the system has no thread left for one of them
                undo.callback(stop.set)
                for thread in run.threads:
                    thread.start()
                undo.pop_all()
            self._openings.update(self._followed)
            self._run = run
        return self._run

    def _batch(self) -> list[Opening | _Presence | _Event]:
        """What is to be done next, in this order; it is forgotten when it is done."""
        groups: dict[tuple[str, bool], list[str]] = {}
        for (topic, member), there in self._presence.items():
            groups.setdefault((topic, there), []).append(member)
        presence = [_Presence(topic, there, members) for (topic, there), members in groups.items()]
        events = islice(self._queue, BATCH)
        return [*self._openings.values(), *presence, *events]

    def _settle(self, item: Opening | _Presence | _Event, reply: Any, run: _Run) -> bool:
        """Forget what is done; False if it is to be done again, with all that is behind it."""
        if isinstance(item, Opening):
            if reply is not None:
                run.reader.begin(item, opened(reply))
            if self._openings.get(item.topic.name) is item:
                del self._openings[item.topic.name]
        elif isinstance(item, _Presence):
            for member in item.members:
                if self._presence.get((item.topic, member)) is item.there:
                    del self._presence[item.topic, member]
        elif reply == b"hole":
            log.error("Redis has lost events of %r that it had acknowledged", item.topic)
            item.before = 0
            return False
        else:
            if reply == b"closed" and not item.last:
                self._late.log(WARNING, "an event of %r is left out: it was closed", item.topic)
            self._queue.popleft()
            self._bytes -= item.size
        self._news.notify_all()
        return True

    # The reader's thread ----------------------------------------------------------------------

    def _copy_of_followed(self) -> dict[str, Opening]:
        with self._news:
            return dict(self._followed)

    # The writer's thread ----------------------------------------------------------------------

    def _write_with(self, client: Any, works: Callable[[], None], run: _Run) -> None:
        sender = _Sender(client, self.link, run.publisher)
        refresh = 0.0
        while True:
            with self._news:
                if monotonic() >= refresh:
                    refresh = monotonic() + PRESENCE_INTERVAL
                    self._presence.update(dict.fromkeys(self._present, True))
                batch = self._batch()
            if run.stop.is_set():
                run.reader.wake(client)
                return
            try:
                self._answered(batch, sender.send(batch), run)
            except redis.exceptions.NoScriptError:  # somebody made Redis forget them
                sender.load()
                continue
            if any(isinstance(item, Opening) for item in batch):
                run.reader.wake(client)
            works()
            with self._news:
                self._news.wait_for(
                    lambda: self._queue or self._openings or self._presence or run.stop.is_set(),
                    max(0.0, refresh - monotonic()),
                )

    def _answered(
        self, batch: Sequence[Opening | _Presence | _Event], replies: Sequence[Any], run: _Run
    ) -> None:
        for item, reply in zip(batch, replies, strict=True):
            refused = is_refusal(reply)
            if refused:
                self._refused.log(ERROR, "Redis refuses what topics ask of it: %s", reply)
            elif isinstance(reply, Exception):
                raise reply
            with self._news:
                # What a run has left undone is given up, or is the next one's.
                if run.stop.is_set() or not self._settle(item, None if refused else reply, run):
                    return


class _Sender:
    """Sends what the writer has to do, by one connection."""

    def __init__(self, client: Any, link: Link, publisher: str) -> None:
        self._client = client
        self._link = link
        self._publisher = publisher
        self.load()

    def load(self) -> None:
        """Have Redis know the scripts."""
        self._publish, self._open, self._join = (
            self._client.script_load(script)
            for script in (scripts.PUBLISH, scripts.OPEN, scripts.JOIN)
        )

    def send(self, batch: Iterable[Opening | _Presence | _Event]) -> list[Any]:
        """Send it all at once; the answers, errors among them."""
        pipe = self._client.pipeline(transaction=False)
        for item in batch:
            pipe.execute_command(*self._command(item))
        replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies

    def _command(self, item: Opening | _Presence | _Event) -> tuple[object, ...]:
        key = self._link.key
        if isinstance(item, Opening):
            topic = item.topic
            return "EVALSHA", self._open, *opening_arguments(self._link, topic, reach(topic) + 1)
        if isinstance(item, _Presence):
            here = key(item.topic, "members")
            # The members of a process that died are not those of the one in its place.
            members = [f"{self._publisher}\0{member}" for member in item.members]
            if item.there:
                return "EVALSHA", self._join, 1, here, round(PRESENCE * 1000), *members
            return "ZREM", here, *members
        keys = [key(item.topic, kind) for kind in ("", "meta", f"by:{self._publisher}")]
        numbers = (item.number, item.before, *item.bounds, int(item.last))
        return "EVALSHA", self._publish, len(keys), *keys, *numbers, *item.fields


def _checked(name: str) -> str:
    name.encode()  # raises UnicodeEncodeError, here and not where it has to be sent
    return name


_all: WeakSet[RedisStreams] = WeakSet()


def _after_fork() -> None:
    for streams in tuple(_all):
        streams.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

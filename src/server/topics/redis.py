"""Topics over Redis Streams: what every process publishes, every process delivers.

An event is published by adding it to its topic's stream, and delivered when it comes back from
there: so the order, the ids and the history are the same for all. Two threads and two connections
do that:

- the *writer* adds what was published, in order, and asks for what a new subscriber needs. What it
  has no answer to it sends again; numbers tell Redis what it has seen already (``scripts.py``).
- the *reader* waits for what is new in all streams that somebody here is subscribed to, each after
  the last id that has come. Entries are numbered, so a hole is seen, and told as a gap.

Both begin again, from where they were, when the connection or Redis itself is lost.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import random
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'topics over Redis need redis-py: pip install "wsframe[redis]"', name="redis"
    ) from error

from wsframe import StateError

from ..loggers import safe_logger
from . import scripts
from .entry import Entry
from .ids import place_of
from .topic import RedisUnavailable

if TYPE_CHECKING:
    from .topic import Topic

log = safe_logger("wsframe.server")

# What may wait for Redis while it is away.
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 16 << 20
# A stream keeps this many entries beyond the history, for processes that read a little late.
SPARE = 10_000
# All of a topic expires when it has not been used for its max_age and this long, in seconds.
SPARE_TIME = 60.0
LONGEST = 10 * 365 * 86400.0  # for max_age, which may be infinite
# How long a member is believed to be there without a word of its process; how often that speaks.
PRESENCE = 30.0
PRESENCE_INTERVAL = 10.0

BATCH = 100
BLOCK = 1.0  # how long the reader waits at once, in seconds
ANSWER_TIME = 5.0  # how long Redis may take for an answer
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

# What Redis answers when it is there, but not ready to write.
NOT_NOW = ("OOM", "READONLY", "MISCONF", "LOADING", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "BUSY")
AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)


@dataclass
class _Event:
    """An event on its way to Redis."""

    topic: str
    number: int
    before: int  # the number of the event before it in its topic; 0 if unknown
    entry: Entry
    bounds: tuple[int, int, int]  # entries, ms, ms
    lease: str | None


@dataclass
class _Opening:
    """A topic that is to be followed."""

    topic: Topic
    number: int  # unlike that of an earlier time at which it was followed


@dataclass
class _Presence:
    """Members of a topic who are to be there, or not any more."""

    topic: str
    members: list[str]
    there: bool


# An entry's id, its number, and itself.
_Numbered: TypeAlias = "tuple[str, int, Entry]"


@dataclass
class _Opened:
    """A topic as it was when it began to be followed: what came after its floor."""

    floor_id: str
    n: int
    entries: list[_Numbered]


@dataclass
class _Reading:
    """How far a topic has been read."""

    topic: Topic
    last_id: str
    n: int | None  # the number of the last entry; None if the next may have any


class RedisStreams:
    """The connection of an app's topics to Redis.

    Its threads begin with the first thing to do. What Redis has acknowledged survives its restart
    with ``appendfsync always``; with ``everysec`` the last second may be lost with the machine, and
    without persistence everything, which subscribers are told as a gap.

    Args:
        url: as in "redis://user:password@host:6379/0", "rediss://..." for TLS (with
            ``?ssl_ca_certs=FILE`` for an authority of one's own), "unix:///path".
        prefix: what all keys begin with.

    Raises:
        ValueError: the URL is none of these.
    """

    def __init__(self, url: str, prefix: str = "wsframe:") -> None:
        self._url = url
        self._prefix = prefix
        self._members_client = self._client()
        # All below is under this lock, but for what is one thread's alone.
        self._news = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._pid = 0
        self._publisher = ""
        self._number = 0
        self._numbers: OrderedDict[str, int] = OrderedDict()  # of the last event of each topic
        self._queue: deque[_Event | _Opening | _Presence] = deque()
        self._events = 0
        self._bytes = 0
        self._closing = False
        self._followed: dict[str, _Opening] = {}
        self._openings = 0
        self._present: Counter[tuple[str, str]] = Counter()
        self._opened: deque[tuple[_Opening, _Opened]] = deque()
        self._away = False
        self._stop = threading.Event()
        self._reading: dict[str, _Reading] = {}  # the reader's

    # Any thread -------------------------------------------------------------------------------

    def publish(self, topic: Topic, entry: Entry, lease: str | None = None) -> None:
        """Any thread: add an event to its stream, soon; never waits.

        Raises:
            RedisUnavailable: too much waits for Redis already.
        """
        bounds = topic.log.bounds
        with self._news:
            if self._events >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
                raise RedisUnavailable(
                    f"{self._events} events ({self._bytes} bytes) wait for Redis, which is away"
                )
            self._start()
            self._number += 1
            before = self._numbers.pop(topic.name, 0)
            self._numbers[topic.name] = self._number
            if len(self._numbers) > MAX_WAITING:
                self._numbers.popitem(last=False)
            age = round(min(bounds.max_age, LONGEST) * 1000)
            kept = (bounds.history + SPARE, age, expiry(topic))
            self._queue.append(_Event(topic.name, self._number, before, entry, kept, lease))
            self._events += 1
            self._bytes += entry.size
            self._news.notify_all()

    def follow(self, topic: Topic) -> None:
        """Any thread, under the topic's lock: have it loaded, and what comes appended."""
        with self._news:
            self._start()
            self._openings += 1
            opening = _Opening(topic, self._openings)
            self._followed[topic.name] = opening
            self._queue.append(opening)
            self._news.notify_all()

    def unfollow(self, topic: Topic) -> None:
        """Any thread, under the topic's lock: nobody is subscribed to it any more."""
        with self._news:
            opening = self._followed.get(topic.name)
            if opening is not None and opening.topic is topic:
                del self._followed[topic.name]

    def join(self, topic: str, member: str) -> None:
        """Any thread: a member of a topic is there."""
        with self._news:
            self._present[topic, member] += 1
            self._tell(_Presence(topic, [member], there=True))

    def leave(self, topic: str, member: str) -> None:
        """Any thread: a member has left; it may be there more than once."""
        with self._news:
            self._present[topic, member] -= 1
            if not self._present[topic, member]:
                del self._present[topic, member]
                self._tell(_Presence(topic, [member], there=False))

    def members(self, topic: Topic) -> list[str]:
        """Any thread: who is there, in all processes.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        key = self._key(topic.name, "members")
        try:
            found = self._members_client.eval(scripts.MEMBERS, 1, key)
        except redis.RedisError as error:
            raise RedisUnavailable(f"Redis does not tell who is there: {error}") from error
        return sorted({member.decode().partition("\0")[2] for member in found})

    def flush(self, timeout: float) -> bool:
        """Any thread: wait until all that was published is in Redis; False if it is not in time."""
        with self._news:
            return self._news.wait_for(lambda: not self._events, timeout)

    def close(self, timeout: float) -> None:
        """Any thread: flush, as far as the time allows, and end the threads; it can begin again."""
        with self._news:
            self._members_client.close()
            if not self._threads:
                return
            for topic, member in tuple(self._present):
                self._queue.append(_Presence(topic, [member], there=False))
            self._news.notify_all()
            self._news.wait_for(lambda: not self._queue, timeout)
            lost, self._events, self._bytes = self._events, 0, 0
            self._queue.clear()
            self._closing = True
            self._stop.set()
            self._news.notify_all()
            threads, self._threads = self._threads, []
        if lost:
            log.error("%d events could not be published, for Redis was away", lost)
        for thread in threads:
            thread.join()
        self._reading.clear()

    # Under the lock ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._threads and self._pid == os.getpid():
            return
        # A process that was forked off is another publisher.
        self._pid = os.getpid()
        self._publisher = token_hex(8)
        self._numbers.clear()
        self._closing = False
        self._stop.clear()
        self._threads = [
            threading.Thread(target=run, name=f"wsframe-redis-{name}", daemon=True)
            for name, run in (("writer", self._write), ("reader", self._read))
        ]
        for thread in self._threads:
            thread.start()

    def _tell(self, presence: _Presence) -> None:
        self._start()
        self._queue.append(presence)
        self._news.notify_all()

    # Either of the two threads ----------------------------------------------------------------

    def _client(self) -> Any:
        # What a lost connection means is ours to say, so redis-py is to try nothing again.
        return redis.Redis.from_url(
            self._url,
            protocol=2,
            socket_timeout=ANSWER_TIME,
            socket_connect_timeout=ANSWER_TIME,
            retry=Retry(NoBackoff(), 0),
        )

    def _key(self, topic: str, kind: str = "") -> str:
        # One place for all keys of a topic, in a cluster, too.
        return f"{self._prefix}{{{topic}}}" + (f":{kind}" if kind else "")

    def _keep_on(self, act: Callable[[Any], None]) -> None:
        """Do it with a connection, and again with a new one, until it is to stop."""
        pause = SHORTEST_PAUSE
        while not self._stop.is_set():
            client = self._client()
            try:
                client.ping()
                self._is_there()
                pause = SHORTEST_PAUSE
                act(client)
            except AWAY as error:
                self._is_away(error)
            except redis.ResponseError as error:
                if not str(error).startswith(NOT_NOW):
                    log.exception("Redis refuses what topics need")
                self._is_away(error)
            except Exception as error:
                log.exception("a defect in the topics over Redis")
                self._is_away(error)
            finally:
                with suppress(Exception):
                    client.close()
            # Processes that have lost it together do not come back together.
            self._stop.wait(pause * (0.5 + random()))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _is_away(self, error: Exception) -> None:
        with self._news:
            if not self._away and not self._closing:
                self._away = True
                log.warning("Redis is away: %s", error)

    def _is_there(self) -> None:
        with self._news:
            if self._away:
                self._away = False
                log.warning("Redis is back")

    # The writer's thread ----------------------------------------------------------------------

    def _write(self) -> None:
        self._keep_on(self._write_with)

    def _write_with(self, client: Any) -> None:
        shas = {
            script: client.script_load(script)
            for script in (scripts.PUBLISH, scripts.OPEN, scripts.JOIN)
        }
        refresh = 0.0
        while True:
            with self._news:
                self._news.wait_for(
                    lambda: self._queue or self._closing, max(0.0, refresh - monotonic())
                )
                closing = self._closing
                if monotonic() >= refresh:
                    refresh = monotonic() + PRESENCE_INTERVAL
                    self._refresh_presence()
                batch = [self._queue[number] for number in range(min(BATCH, len(self._queue)))]
            if closing:
                self._rouse_the_reader(client)
                return
            if batch:
                self._write_batch(client, shas, batch)

    def _refresh_presence(self) -> None:
        by_topic: dict[str, list[str]] = {}
        for topic, member in self._present:
            by_topic.setdefault(topic, []).append(member)
        for topic, members in by_topic.items():
            self._queue.append(_Presence(topic, members, there=True))

    def _write_batch(
        self,
        client: Any,
        shas: dict[str, str],
        batch: list[_Event | _Opening | _Presence],
    ) -> None:
        """Send a batch; what has no answer, and what is behind it, stays in the queue."""
        pipe = client.pipeline(transaction=False)
        for item in batch:
            if isinstance(item, _Event):
                pipe.execute_command("EVALSHA", shas[scripts.PUBLISH], *self._publishing(item))
            elif isinstance(item, _Opening):
                pipe.execute_command("EVALSHA", shas[scripts.OPEN], *self._opening(item.topic))
            else:
                members = [f"{self._publisher}\0{member}" for member in item.members]
                key = self._key(item.topic, "members")
                if item.there:
                    ttl = round(PRESENCE * 1000)
                    pipe.execute_command("EVALSHA", shas[scripts.JOIN], 1, key, ttl, *members)
                else:
                    pipe.execute_command("ZREM", key, *members)
        replies = pipe.execute(raise_on_error=False)
        opened = False
        for item, reply in zip(batch, replies, strict=True):
            if isinstance(reply, redis.exceptions.NoScriptError):
                raise redis.ConnectionError("Redis has begun anew") from reply
            if isinstance(reply, Exception) and str(reply).startswith(NOT_NOW):
                raise reply
            if reply == b"hole" and isinstance(item, _Event):
                log.error("Redis has lost events of %r that it had acknowledged", item.topic)
                item.before = 0
                break
            if isinstance(reply, Exception):
                log.error("Redis refuses %r", item, exc_info=reply)
            elif isinstance(item, _Opening):
                self._opened.append((item, _opened(reply)))
                opened = True
            with self._news:
                if self._closing:
                    return
                self._queue.popleft()
                if isinstance(item, _Event):
                    self._events -= 1
                    self._bytes -= item.entry.size
                self._news.notify_all()
        if opened:
            self._rouse_the_reader(client)

    def _rouse_the_reader(self, client: Any) -> None:
        client.xadd(self._wake(), {"w": 1}, maxlen=1, approximate=False)
        client.pexpire(self._wake(), 60_000)

    def _wake(self) -> str:
        """A stream that the reader reads, too, to be told that there is something else to do."""
        return f"{self._prefix}wake:{self._publisher}"

    def _publishing(self, event: _Event) -> Iterator[object]:
        keys = [self._key(event.topic, kind) for kind in ("", "meta", f"by:{self._publisher}")]
        if event.lease is not None:
            keys.append(event.lease)
        yield len(keys)
        yield from keys
        yield from (self._publisher, event.number, event.before, *event.bounds)
        yield from _fields(event.entry)

    def _opening(self, topic: Topic) -> tuple[object, ...]:
        history = topic.log.bounds.history + 1
        return 2, self._key(topic.name), self._key(topic.name, "meta"), history, expiry(topic)

    # The reader's thread ----------------------------------------------------------------------

    def _read(self) -> None:
        self._keep_on(self._read_with)

    def _read_with(self, client: Any) -> None:
        wake = self._wake()
        wake_id = "0-0"
        refreshed = monotonic()
        for reading in self._reading.values():
            self._catch_up(client, reading)
        while not self._stop.is_set():
            self._begin_reading()
            names = {self._key(name): reading for name, reading in self._reading.items()}
            ids = [wake_id, *(reading.last_id for reading in names.values())]
            block = ("COUNT", 1000, "BLOCK", round(BLOCK * 1000), "STREAMS")
            for key, entries in client.execute_command("XREAD", *block, wake, *names, *ids) or ():
                if key.decode() == wake:
                    wake_id = entries[-1][0].decode()
                else:
                    self._take(names[key.decode()], [_numbered(*entry) for entry in entries])
            for reading in self._reading.values():
                reading.topic.place()
            if monotonic() - refreshed > SPARE_TIME / 3:
                refreshed = monotonic()
                self._keep_alive(client)

    def _begin_reading(self) -> None:
        """Read what was opened since, and nothing that is not followed any more."""
        with self._news:
            followed = dict(self._followed)
        while self._opened:
            opening, opened = self._opened.popleft()
            topic, entries = opening.topic, opened.entries
            if followed.get(topic.name) is not opening:
                continue
            floor_id = opened.floor_id
            if len(entries) > topic.log.bounds.history:
                floor_id, _, _ = entries.pop(0)
            last_id = entries[-1][0] if entries else floor_id
            self._reading[topic.name] = _Reading(topic, last_id, opened.n)
            topic.load(floor_id, [entry for _, _, entry in entries])
        for name in tuple(self._reading):
            if name not in followed:
                del self._reading[name]

    def _take(self, reading: _Reading, entries: list[_Numbered]) -> None:
        """Put into the log what has come, and a gap where something is missing."""
        for stream_id, n, _ in entries[:1]:
            if reading.n is not None and n != reading.n + 1:
                reading.topic.lose(_before(stream_id), stream_id)
        reading.last_id, reading.n, _ = entries[-1]
        try:
            reading.topic.append([entry for _, _, entry in entries])
        except StateError as error:
            log.warning("an event is left out: %s", error)

    def _catch_up(self, client: Any, reading: _Reading) -> None:
        """See that what comes after the last id is still there; XREAD then begins behind it."""
        now = _opened(client.eval(scripts.OPEN, *self._opening(reading.topic)))
        gone = place_of(now.floor_id) > place_of(reading.last_id) or now.n < (reading.n or 0)
        if gone:
            first = next(iter(now.entries), None)
            reading.topic.lose(now.floor_id, first[0] if first else "")
            reading.last_id, reading.n = now.floor_id, None

    def _keep_alive(self, client: Any) -> None:
        """What is followed does not expire, however long nothing comes."""
        pipe = client.pipeline(transaction=False)
        for reading in self._reading.values():
            for kind in ("", "meta"):
                pipe.pexpire(self._key(reading.topic.name, kind), expiry(reading.topic))
        pipe.execute()


def expiry(topic: Topic) -> int:
    """For how many ms a topic is kept that nobody uses."""
    return round((min(topic.log.bounds.max_age, LONGEST) + SPARE_TIME) * 1000)


def _fields(entry: Entry) -> Iterator[object]:
    """An entry as fields of a stream's."""
    yield from ("b" if entry.is_binary else "d", entry.data)
    for name, value in (("e", entry.event), ("i", entry.id), ("k", entry.key), ("r", entry.retry)):
        if value is not None:
            yield from (name, value)
    if entry.last:
        yield from ("l", 1)


def _numbered(stream_id: bytes, fields: Mapping[bytes, bytes]) -> _Numbered:
    """An entry from the fields of a stream's."""

    def text(name: bytes) -> str | None:
        value = fields.get(name)
        return None if value is None else value.decode()

    binary, retry = fields.get(b"b"), text(b"r")
    name = stream_id.decode()
    entry = Entry(
        (text(b"d") or "") if binary is None else binary,
        text(b"e"),
        text(b"i") or name,
        key=text(b"k"),
        retry=None if retry is None else int(retry),
        last=b"l" in fields,
        stream_id=name,
    )
    return name, int(fields.get(b"n", 0)), entry


def _opened(reply: tuple[bytes, bytes, list[tuple[bytes, list[bytes]]]]) -> _Opened:
    """What the script has answered: the newest entries, one more than are to be kept."""
    floor_id, n, newest = reply
    entries = [
        _numbered(stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
        for stream_id, fields in reversed(newest)
    ]
    return _Opened(floor_id.decode(), int(n), entries)


def _before(stream_id: str) -> str:
    """The last id that comes before another."""
    time, number = place_of(stream_id)
    return f"{time}-{number - 1}" if number else f"{time - 1}-{(1 << 64) - 1}"

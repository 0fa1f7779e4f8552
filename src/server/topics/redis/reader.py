"""What reads the topics that are followed, out of their streams in Redis."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import ERROR
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis

from ...reports.throttled import ThrottledLog
from ..entry import Entry
from ..ids import place_of
from . import scripts
from .faults import Fault, fault_of
from .wire import StreamEntry, TopicSnapshot, age_of, read_entry, read_snapshot

if TYPE_CHECKING:
    from ...timing import Timing
    from ..shared import Replica
    from .connection import RedisConnection
    from .interests import FollowRequest

# How many entries Redis keeps beyond the history, for readers that are late.
SPARE = 10_000
LONGEST = 10 * 365 * 86400.0  # for max_age, which may be infinite

MESSAGES = 1000  # how many words to take before reading
CHUNK = 100  # how many streams to read at once, and how many entries of each


@dataclass
class _Reading:
    """How far a topic has been read.

    Attributes:
        key: of the stream.
        topic: what the entries are appended to.
        last_id: of the newest entry that was read.
        n: its number; None if the next may have any.
        life: of the topic in Redis.
        is_refused: Redis did not let it be read.
    """

    key: str
    topic: Replica
    last_id: str
    n: int | None
    life: bytes
    is_refused: bool = False


class Reader:
    """Reads what is new in all streams that somebody here is subscribed to, in one thread.

    It hears on a channel of each topic that there is something new, and then reads the stream after
    the last id that has come; so it matters little how many topics are followed and silent. That
    a message on a channel is lost with the connection does no harm: a stream is read whenever its
    channel begins to be heard. Entries are stream_entry, so a hole is seen, and becomes a gap.

    With a new connection, and now and then, each position is looked up in its stream. One that is
    not there any more, or not there yet, is one of before a failover or of an earlier life of the
    topic: it becomes a gap, too.

    Args:
        connection: to Redis.
        publisher: what the process is called there.
        followed: returns the topics that are followed.
        stop: is set when it is to stop.
    """

    def __init__(
        self,
        connection: RedisConnection,
        publisher: str,
        followed: Callable[[], Mapping[str, FollowRequest]],
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._stop = stop
        self._wake = connection.wake_channel(publisher)
        self._followed = followed
        self._snapshots: deque[tuple[FollowRequest, TopicSnapshot]] = deque()
        self._readings: dict[str, _Reading] = {}  # by key
        self._listening: set[str] = set()  # to the channels of these keys
        self._changed: set[str] = set()  # the keys of what is to be read
        self._doubtful: set[str] = set()  # the keys of positions that are to be looked up
        self._trouble, self._strange = ThrottledLog(), ThrottledLog()

    # The writer's thread ----------------------------------------------------------------------

    def begin(self, request: FollowRequest, snapshot: TopicSnapshot) -> None:
        """The writer: this is what the topic is by now; to be followed by :meth:`wake`."""
        self._snapshots.append((request, snapshot))

    def wake(self, client: Any) -> None:
        """The writer: have it look at what there is to do, at once; else it does so in a second."""
        client.publish(self._wake, "")

    # Its own thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Its thread: read until it is to stop."""
        self._connection.keep_on("reader", self._read, self._stop)

    def _read(self, client: Any, works: Callable[[], None]) -> None:
        timing = self._connection.timing
        with client.pubsub() as pubsub:
            self._listening.clear()
            pubsub.subscribe(self._wake)
            self._look_up(client, self._readings)
            self._listen(pubsub)
            tidied = looked_up = last_word = monotonic()
            while not self._stop.is_set():
                if self._snapshots:
                    self._load_snapshots(client)
                    self._listen(pubsub)
                self._look_up(client, self._doubtful)
                self._fetch(client)
                works()
                if self._hear(pubsub):
                    last_word = monotonic()
                now = monotonic()
                if now - last_word > timing.redis_timeout:
                    raise redis.TimeoutError("nothing is heard of topics")
                if now - looked_up > timing.redis_ttl_margin / 3:
                    self._look_up(client, self._readings)
                    looked_up = now
                if now - tidied > timing.redis_read_timeout:
                    self._tidy(pubsub)
                    tidied = now

    def _load_snapshots(self, client: Any) -> None:
        """Begin to read what was snapshot since."""
        followed = self._followed()
        while self._snapshots:
            request, snapshot = self._snapshots.popleft()
            if followed.get(request.topic.name) is request:
                self._load(client, request.topic, snapshot)

    def _listen(self, pubsub: Any) -> None:
        """Hear of all that is read; what was published before is read when it begins."""
        new = self._readings.keys() - self._listening
        if new:
            pubsub.subscribe(*map(self._connection.channel, new))
            self._listening |= new

    def _tidy(self, pubsub: Any) -> None:
        """Read nothing that is not followed any more; and do what is to be done now and then."""
        pubsub.ping()  # whose answer shows that there is still something to hear
        followed = self._followed()
        for key, reading in tuple(self._readings.items()):
            if reading.topic.name not in followed:
                del self._readings[key]
                continue
            reading.topic.place()
            if reading.is_refused:
                self._doubtful.add(key)
        old = self._listening - self._readings.keys()
        if old:
            pubsub.unsubscribe(*map(self._connection.channel, old))
            self._listening -= old

    def _hear(self, pubsub: Any) -> bool:
        """Wait for a message, and take those that there are; False if there is none."""
        busy = self._changed or self._doubtful
        first = message = pubsub.get_message(
            timeout=0 if busy else self._connection.timing.redis_read_timeout
        )
        for _ in range(MESSAGES):
            if message is None:
                break
            if message["type"] in ("message", "subscribe"):
                key = self._connection.key_of(message["channel"])
                self._changed.add(key)
                reading, life = self._readings.get(key), message["data"]
                if reading is not None and message["type"] == "message" and life != reading.life:
                    self._doubtful.add(key)
            message = pubsub.get_message(timeout=0)
        return first is not None

    # Entries ----------------------------------------------------------------------------------

    def _fetch(self, client: Any) -> None:
        """Read what there is news of, for as long as the others can wait."""
        news = [self._readings[key] for key in self._changed if key in self._readings]
        news = [reading for reading in news if not reading.is_refused]
        self._changed.clear()
        for begin in range(0, len(news), CHUNK):
            self._fetch_some(client, news[begin : begin + CHUNK])

    def _fetch_some(self, client: Any, readings: list[_Reading]) -> None:
        keys = [reading.key for reading in readings]
        ids = [reading.last_id for reading in readings]
        try:
            streams = client.execute_command("XREAD", "COUNT", CHUNK, "STREAMS", *keys, *ids)
        except redis.ResponseError as error:
            if fault_of(error) is not Fault.ITEM:
                raise
            if len(readings) == 1:
                self._refuse(readings[0], error)
                return
            for reading in readings:  # to find out which it concerns
                self._fetch_some(client, [reading])
            return
        for name, entries in streams or ():
            reading = self._readings[name.decode()]
            if len(entries) == CHUNK:  # there may be more
                self._changed.add(reading.key)
            self._take(client, reading, [read_entry(*entry) for entry in entries])
            reading.topic.place()

    def _take(self, client: Any, reading: _Reading, news: list[StreamEntry]) -> None:
        """Put into the log what has come, and a gap where something is missing."""
        closed_id = ""
        if any(item.entry is not None and item.entry.last for item in news):
            meta = self._connection.key(reading.topic.name, "meta")
            closed_id = (client.hget(meta, "closed") or b"").decode(errors="replace")
        entries, reading.n = self._entries(reading.topic, news, reading.n, closed_id)
        reading.last_id = news[-1].id
        reading.topic.append(entries)

    def _entries(
        self, topic: Replica, news: Iterable[StreamEntry], n: int | None, closed_id: str
    ) -> tuple[list[Entry], int | None]:
        """The entries of a log, with its gaps, and the number of the last; after the n-th."""
        entries: list[Entry] = []
        for item in news:
            entry, fault = item.entry, item.fault
            if item.n and n is not None and item.n != n + 1:
                entries.append(_gap(_before(item.id), item.id))
            if entry is not None and entry.last and item.id != closed_id:
                entry, fault = None, "it ends a topic that was not closed"
            if fault:
                text = "the entry %s of %.100r in Redis is no event: %s"
                self._strange.log(ERROR, text, item.id, topic.name, fault)
            entries.append(_gap(item.id) if entry is None else entry)
            n = item.n or n
        return entries, n

    def _load(self, client: Any, topic: Replica, snapshot: TopicSnapshot) -> None:
        floor_id, news = snapshot.floor_id, snapshot.entries
        if len(news) == reach(topic) + 1:  # there may be more, so the oldest is what is left out
            floor_id = news.pop(0).id
        entries, _ = self._entries(topic, news, None, snapshot.closed_id)
        now = self._connection.timing.clock()
        for entry in entries:  # they are as old here as they are there
            entry.published = now - age_of(entry.stream_id, snapshot.time)
        if snapshot.closed_id and not (entries and entries[-1].last):
            entries.append(Entry("", last=True, stream_id=snapshot.closed_id))
        last_id = news[-1].id if news else floor_id
        key = self._connection.key(topic.name)
        self._readings[key] = _Reading(key, topic, last_id, snapshot.n, snapshot.life)
        self._changed.add(key)  # of which it may have heard while it was not the reader's to read
        topic.load(floor_id, entries)

    # Positions --------------------------------------------------------------------------------

    def _look_up(self, client: Any, keys: Iterable[str]) -> None:
        """See that positions are still there, and that their topics do not expire."""
        readings = [self._readings[key] for key in keys if key in self._readings]
        self._doubtful.clear()
        if not readings:
            return
        script = client.script_load(scripts.OPEN)
        pipe = client.pipeline(transaction=False)
        for reading in readings:
            arguments = open_arguments(self._connection, reading.topic, 1, reading.last_id)
            pipe.execute_command("EVALSHA", script, *arguments)
        replies = pipe.execute(raise_on_error=False)
        for reading, reply in zip(readings, replies, strict=True):
            if not isinstance(reply, Exception):
                reading.is_refused = False
                self._compare(client, reading, read_snapshot(reply))
            elif fault_of(reply) is Fault.ITEM:
                self._refuse(reading, reply)
            else:
                raise reply

    def _compare(self, client: Any, reading: _Reading, now: TopicSnapshot) -> None:
        """Read on where the topic is now, behind a gap if that is not after the last position."""
        is_same = now.life == reading.life
        is_past = place_of(now.floor_id) >= place_of(reading.last_id)
        reading.life = now.life
        # An entry that is still there cannot be of before, even if the life was overwritten.
        if now.found and (is_same or not is_past):
            if now.n != reading.n:
                self._changed.add(reading.key)
            return
        self._changed.add(reading.key)
        if is_past:
            begin = f"({now.floor_id}"
            rest = client.execute_command("XRANGE", reading.key, begin, "+", "COUNT", 1)
            reading.last_id, reading.n = now.floor_id, None
            reading.topic.lose(now.floor_id, rest[0][0].decode() if rest else "")
            return
        # Its ids have gone back, so those that were handed out mean nothing any more.
        newest = now.entries[-1].id if is_same and now.entries else now.floor_id
        reading.last_id, reading.n = newest, now.n if is_same else None
        reading.topic.load(newest, [_gap(newest)])

    def _refuse(self, reading: _Reading, error: Exception) -> None:
        """Leave a topic alone that Redis does not let be read; it is tried again now and then."""
        reading.is_refused = True
        self._trouble.log(
            ERROR, "Redis refuses the topic %.100r to its reader: %s", reading.topic.name, error
        )


def _gap(stream_id: str, oldest: str = "") -> Entry:
    return Entry("", id=stream_id, stream_id=stream_id, oldest=oldest)


def _before(stream_id: str) -> str:
    """The last id that comes before another."""
    time, number = place_of(stream_id)
    return f"{time}-{number - 1}" if number else f"{time - 1}-{(1 << 64) - 1}"


def entries_kept(topic: Replica) -> int:
    """How many of a topic's entries Redis keeps at most."""
    return topic.bounds.history + SPARE


def reach(topic: Replica) -> int:
    """How many of a topic's newest entries a process that begins to follow it wants."""
    # Of those that replace each other it may be few that are left.
    return entries_kept(topic) if topic.latest_only else topic.bounds.history


def lifetime(topic: Replica, timing: Timing) -> int:
    """For how many ms Redis keeps an entry, and all of a topic that nobody uses."""
    return round((min(topic.bounds.max_age, LONGEST) + timing.redis_ttl_margin) * 1000)


def open_arguments(
    connection: RedisConnection, topic: Replica, count: int, position: str = ""
) -> tuple[object, ...]:
    """The arguments of the script OPEN."""
    keys = connection.key(topic.name), connection.key(topic.name, "meta")
    return 2, *keys, count, lifetime(topic, connection.timing), position

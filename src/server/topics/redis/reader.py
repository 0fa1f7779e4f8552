"""The thread that reads the streams of followed topics in Redis."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from .wrong_types import explained

if TYPE_CHECKING:
    from ...timing import Timing
    from ..shared import Replica
    from .connection import RedisConnection
    from .interests import FollowRequest

# The number of entries that Redis keeps beyond the history, for slow readers.
SPARE = 10_000
# The maximum lifetime of entries in seconds, because max_age may be infinite.
LONGEST = 10 * 365 * 86400.0

MESSAGES = 1000  # the maximum number of messages that are processed before streams are read


@dataclass
class _Reading:
    """The position of the reader in a topic.

    Attributes:
        key: the key of the stream.
        topic: the replica that the entries are appended to.
        last_id: the id of the newest entry that was read.
        n: the number of that entry; None if the next entry may have any number.
        life: the life of the topic in Redis.
        is_refused: True if Redis has rejected reading it.
    """

    key: str
    topic: Replica
    last_id: str
    n: int | None
    life: bytes
    is_refused: bool = False


class Reader:
    """The thread that reads the new entries of all topics with subscribers in this process.

    A message on the topic's channel announces new entries, and the reader then reads the stream
    after the last id that it has. So idle topics cost little. A message can be lost with the
    connection, so a stream is read again after each subscription to its channel. Entries are
    numbered, so missing ones are detected and reported as a gap.

    After each reconnect, and periodically, each position is looked up in its stream. A missing
    position belongs to the time before a failover, or to an earlier life of the topic. It is
    reported as a gap, too.

    Args:
        connection: the connection to Redis.
        publisher: the name of this process in Redis.
        followed: a function that returns the followed topics by name.
        stop: the event that is set when the thread must stop.
        batch: the number of streams read at once, and of entries read of each.
    """

    def __init__(
        self,
        connection: RedisConnection,
        publisher: str,
        followed: Callable[[], Mapping[str, FollowRequest]],
        stop: threading.Event,
        batch: int,
    ) -> None:
        self._connection = connection
        self._stop = stop
        self._batch = batch
        self._wake = connection.wake_channel(publisher)
        self._followed = followed
        self._snapshots: deque[tuple[FollowRequest, TopicSnapshot]] = deque()
        self._readings: dict[str, _Reading] = {}  # the positions by key
        self._listening: set[str] = set()  # the keys whose channels are subscribed
        self._changed: set[str] = set()  # the keys of streams that must be read
        self._doubtful: set[str] = set()  # the keys of positions that must be looked up
        self._trouble, self._strange = ThrottledLog(), ThrottledLog()

    # The writer's thread ----------------------------------------------------------------------

    def begin(self, request: FollowRequest, snapshot: TopicSnapshot) -> None:
        """The writer: start reading a topic after this snapshot; :meth:`wake` must follow."""
        self._snapshots.append((request, snapshot))

    def wake(self, client: Any) -> None:
        """The writer: wake the reader, which otherwise checks for snapshots once a second."""
        client.publish(self._wake, "")

    # The reader's thread
    # ---------------------------------------------------------------------------

    def run(self) -> None:
        """The reader's thread: read until ``stop`` is set."""
        self._connection.run_until_stopped("reader", self._read, self._stop)

    def _read(self, client: Any, succeeded: Callable[[], None]) -> None:
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
                succeeded()
                if self._receive(pubsub):
                    last_word = monotonic()
                now = monotonic()
                if now - last_word > timing.redis_timeout:
                    raise redis.TimeoutError(
                        f"Redis sent no message and no ping reply for {timing.redis_timeout} s"
                    )
                if now - looked_up > timing.redis_ttl_margin / 3:
                    self._look_up(client, self._readings)
                    looked_up = now
                if now - tidied > timing.redis_read_timeout:
                    self._tidy(pubsub)
                    tidied = now

    def _load_snapshots(self, client: Any) -> None:
        """Begin to read the topics of new snapshots."""
        followed = self._followed()
        while self._snapshots:
            request, snapshot = self._snapshots.popleft()
            if followed.get(request.topic.name) is request:
                self._load(client, request.topic, snapshot)

    def _listen(self, pubsub: Any) -> None:
        """Subscribe to the channels of all topics; after each confirmation, read its stream."""
        new = self._readings.keys() - self._listening
        if new:
            pubsub.subscribe(*map(self._connection.channel, new))
            self._listening |= new

    def _tidy(self, pubsub: Any) -> None:
        """Drop the topics that are no longer followed, and do other periodic work."""
        pubsub.ping()  # the reply shows that the connection is alive
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

    def _receive(self, pubsub: Any) -> bool:
        """Wait for a message, and process all that have arrived; return False if none has."""
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
        """Read the streams with new entries, in batches."""
        news = [self._readings[key] for key in self._changed if key in self._readings]
        news = [reading for reading in news if not reading.is_refused]
        self._changed.clear()
        for begin in range(0, len(news), self._batch):
            self._fetch_some(client, news[begin : begin + self._batch])

    def _fetch_some(self, client: Any, readings: list[_Reading]) -> None:
        keys = [reading.key for reading in readings]
        ids = [reading.last_id for reading in readings]
        try:
            streams = client.execute_command("XREAD", "COUNT", self._batch, "STREAMS", *keys, *ids)
        except redis.ResponseError as error:
            if fault_of(error) is not Fault.ITEM:
                raise
            if len(readings) == 1:
                self._refuse(client, readings[0], error)
                return
            # Reads each stream alone, to find the stream that causes the error.
            for reading in readings:
                self._fetch_some(client, [reading])
            return
        for name, entries in streams or ():
            reading = self._readings[name.decode()]
            if len(entries) == self._batch:  # the stream may have more entries
                self._changed.add(reading.key)
            with self._refusing(client, reading):
                self._take(client, reading, [read_entry(*entry) for entry in entries])
            reading.topic.place()

    def _take(self, client: Any, reading: _Reading, news: list[StreamEntry]) -> None:
        """Append entries to the replica, and a gap where entries are missing."""
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
        """Convert the entries after number ``n``, with gaps; return them and the last number."""
        entries: list[Entry] = []
        for item in news:
            entry, fault = item.entry, item.fault
            if item.n and n is not None and item.n != n + 1:
                entries.append(_gap(_before(item.id), item.id))
            if entry is not None and entry.last and item.id != closed_id:
                entry, fault = None, "it ends a topic that is not closed"
            if fault:
                text = "dropping invalid entry %s of the topic %.100r in Redis: %s"
                self._strange.log(ERROR, text, item.id, topic.name, fault)
            entries.append(_gap(item.id) if entry is None else entry)
            n = item.n or n
        return entries, n

    def _load(self, client: Any, topic: Replica, snapshot: TopicSnapshot) -> None:
        floor_id, news = snapshot.floor_id, snapshot.entries
        # Older entries may exist, so the oldest one becomes the floor.
        if len(news) == reach(topic) + 1:
            floor_id = news.pop(0).id
        entries, _ = self._entries(topic, news, None, snapshot.closed_id)
        now = self._connection.timing.clock()
        for entry in entries:  # each entry keeps its age in Redis
            entry.published = now - age_of(entry.stream_id, snapshot.time)
        if snapshot.closed_id and not (entries and entries[-1].last):
            entries.append(Entry("", last=True, stream_id=snapshot.closed_id))
        last_id = news[-1].id if news else floor_id
        key = self._connection.key(topic.name)
        self._readings[key] = _Reading(key, topic, last_id, snapshot.n, snapshot.life)
        self._changed.add(key)  # entries may have been announced before the topic was loaded
        topic.load(floor_id, entries)

    # Positions --------------------------------------------------------------------------------

    def _look_up(self, client: Any, keys: Iterable[str]) -> None:
        """Check that the positions still exist, and renew the expiry of their topics."""
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
                with self._refusing(client, reading):
                    self._compare(client, reading, read_snapshot(reply))
            elif fault_of(reply) is Fault.ITEM:
                self._refuse(client, reading, reply)
            else:
                raise reply

    def _compare(self, client: Any, reading: _Reading, now: TopicSnapshot) -> None:
        """Compare a position with the topic in Redis; report a gap if it is missing there."""
        is_same = now.life == reading.life
        is_past = place_of(now.floor_id) >= place_of(reading.last_id)
        # An existing entry is valid, even if the life was overwritten.
        if now.has_position and (is_same or not is_past):
            reading.life = now.life
            if now.n != reading.n:
                self._changed.add(reading.key)
            return
        self._changed.add(reading.key)
        if is_past:
            begin = f"({now.floor_id}"
            rest = client.execute_command("XRANGE", reading.key, begin, "+", "COUNT", 1)
            reading.life = now.life
            reading.last_id, reading.n = now.floor_id, None
            reading.topic.lose(now.floor_id, rest[0][0].decode() if rest else "")
            return
        # The newest id in Redis has decreased, so the ids that clients have are invalid.
        reading.life = now.life
        newest = now.entries[-1].id if is_same and now.entries else now.floor_id
        reading.last_id, reading.n = newest, now.n if is_same else None
        reading.topic.load(newest, [_gap(newest)])

    @contextmanager
    def _refusing(self, client: Any, reading: _Reading) -> Iterator[None]:
        """Refuse a topic if Redis rejects a command of the block; raise other errors."""
        try:
            yield
        except redis.ResponseError as error:
            if fault_of(error) is not Fault.ITEM:
                raise
            self._refuse(client, reading, error)

    def _refuse(self, client: Any, reading: _Reading, error: Exception) -> None:
        """Stop reading a topic that Redis rejects; the reader retries periodically."""
        reading.is_refused = True
        name = reading.topic.name
        reason = explained(client, error, self._connection.log_keys(name))
        self._trouble.log(ERROR, "Redis rejected reading the topic %.100r: %s", name, reason)


def _gap(stream_id: str, oldest: str = "") -> Entry:
    return Entry("", id=stream_id, stream_id=stream_id, oldest=oldest)


def _before(stream_id: str) -> str:
    """Return the largest id before another."""
    time, number = place_of(stream_id)
    return f"{time}-{number - 1}" if number else f"{time - 1}-{(1 << 64) - 1}"


def entries_kept(topic: Replica) -> int:
    """Return the maximum number of a topic's entries in Redis."""
    return topic.bounds.history + SPARE


def reach(topic: Replica) -> int:
    """Return the number of newest entries that a process loads when it follows a topic."""
    # All entries are loaded, because the newest ones may have only a few different keys.
    return entries_kept(topic) if topic.latest_only else topic.bounds.history


def lifetime(topic: Replica, timing: Timing) -> int:
    """Return the lifetime of an entry, and of an unused topic's keys, in milliseconds."""
    return round((min(topic.bounds.max_age, LONGEST) + timing.redis_ttl_margin) * 1000)


def open_arguments(
    connection: RedisConnection, topic: Replica, count: int, position: str = ""
) -> tuple[object, ...]:
    """Return the arguments of the script OPEN."""
    keys = connection.log_keys(topic.name)
    return len(keys), *keys, count, lifetime(topic, connection.timing), position

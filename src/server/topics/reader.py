"""What reads the topics that are followed, out of their streams in Redis."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis

from ..reports.loggers import log
from . import scripts
from .entry import Entry
from .ids import place_of
from .link import ANSWER_TIME, Link, is_refusal
from .log import LatestLog
from .wire import Numbered, Opened, numbered, opened

if TYPE_CHECKING:
    from .topic import Topic


# How long what Redis keeps of a topic outlives its max_age, in seconds: for readers that are late.
SPARE_TIME = 60.0
LONGEST = 10 * 365 * 86400.0  # for max_age, which may be infinite
# And how many entries it keeps beyond the history, and how many bytes of them.
SPARE = 10_000
SPARE_BYTES = 16 << 20

LISTEN = 1.0  # how long to listen before looking whether there is something else to do, in seconds
MESSAGES = 1000  # how many words to take before reading
CHUNK = 100  # how many streams to read at once, and how many entries of each


@dataclass(eq=False)
class Opening:
    """A topic that is to be followed, from this call of ``follow`` on."""

    topic: Topic


@dataclass
class _Reading:
    """How far a topic has been read."""

    topic: Topic
    last_id: str
    n: int | None  # the number of the last entry; None if the next may have any


class Reader:
    """Reads what is new in all streams that somebody here is subscribed to, in one thread.

    It hears on a channel of each topic that there is something new, and then reads the stream after
    the last id that has come; so it matters little how many topics are followed and silent. That
    a word on a channel is lost with the connection does no harm: a stream is read whenever its
    channel begins to be heard. Entries are numbered, so a hole is seen, and told as a gap.

    Args:
        link: to Redis.
        publisher: what the process is called there.
        followed: returns the topics that are followed.
        stop: is set when it is to stop.
    """

    def __init__(
        self,
        link: Link,
        publisher: str,
        followed: Callable[[], Mapping[str, Opening]],
        stop: threading.Event,
    ) -> None:
        self._link = link
        self._stop = stop
        self._wake = link.wake_channel(publisher)
        self._followed = followed
        self._opened: deque[tuple[Opening, Opened]] = deque()
        self._readings: dict[str, _Reading] = {}  # by keys, which are names of channels, too
        self._listening: set[str] = set()  # to these channels
        self._news: set[str] = set()  # the keys of what is to be read

    # The writer's thread ----------------------------------------------------------------------

    def begin(self, opening: Opening, opened: Opened) -> None:
        """The writer: this is what the topic is by now; to be followed by :meth:`wake`."""
        self._opened.append((opening, opened))

    def wake(self, client: Any) -> None:
        """The writer: have it look at what there is to do, at once; else it does so in a second."""
        client.publish(self._wake, "")

    # Its own thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Its thread: read until it is to stop."""
        self._link.keep_on("reader", self._read, self._stop)

    def _read(self, client: Any, works: Callable[[], None]) -> None:
        with client.pubsub() as pubsub:
            self._listening.clear()
            pubsub.subscribe(self._wake)
            self._look_after(client)
            self._listen(pubsub)
            tidied = looked_after = last_word = monotonic()
            while not self._stop.is_set():
                if self._opened:
                    self._load_opened()
                    self._listen(pubsub)
                self._fetch(client)
                works()
                if self._hear(pubsub):
                    last_word = monotonic()
                now = monotonic()
                if now - last_word > ANSWER_TIME:
                    raise redis.TimeoutError("nothing is heard of topics")
                if now - looked_after > SPARE_TIME / 3:
                    self._look_after(client)
                    looked_after = now
                if now - tidied > LISTEN:
                    self._tidy(pubsub)
                    tidied = now

    def _load_opened(self) -> None:
        """Begin to read what was opened since."""
        followed = self._followed()
        while self._opened:
            opening, opened = self._opened.popleft()
            if followed.get(opening.topic.name) is opening:
                self._load(opening.topic, opened)

    def _listen(self, pubsub: Any) -> None:
        """Hear of all that is read; what was said before that is read when it begins."""
        new = self._readings.keys() - self._listening
        if new:
            pubsub.subscribe(*new)
            self._listening |= new

    def _tidy(self, pubsub: Any) -> None:
        """Read nothing that is not followed any more; and do what is to be done now and then."""
        pubsub.ping()  # whose answer shows that there is still something to hear
        followed = self._followed()
        for key, reading in tuple(self._readings.items()):
            if reading.topic.name in followed:
                reading.topic.place()
            else:
                del self._readings[key]
        old = self._listening - self._readings.keys()
        if old:
            pubsub.unsubscribe(*old)
            self._listening -= old

    def _hear(self, pubsub: Any) -> bool:
        """Wait for a word, and take those that there are; False if there is none."""
        first = message = pubsub.get_message(timeout=0 if self._news else LISTEN)
        for _ in range(MESSAGES):
            if message is None:
                break
            if message["type"] in ("message", "subscribe"):
                self._news.add(message["channel"].decode())
            message = pubsub.get_message(timeout=0)
        return first is not None

    def _fetch(self, client: Any) -> None:
        """Read what there is news of, for as long as the others can wait."""
        news = [key for key in self._news if key in self._readings]
        self._news.clear()
        for begin in range(0, len(news), CHUNK):
            keys = news[begin : begin + CHUNK]
            ids = [self._readings[key].last_id for key in keys]
            streams = client.execute_command("XREAD", "COUNT", CHUNK, "STREAMS", *keys, *ids)
            for name, entries in streams or ():
                key = name.decode()
                if len(entries) == CHUNK:  # there may be more
                    self._news.add(key)
                self._take(self._readings[key], [numbered(*entry) for entry in entries])
                self._readings[key].topic.place()

    def _load(self, topic: Topic, opened: Opened) -> None:
        floor_id, news = opened.floor_id, opened.numbered
        if len(news) == reach(topic) + 1:  # there may be more, so the oldest is what is left out
            floor_id = news.pop(0).id
        entries = _entries(news)
        if opened.closed_id and not (entries and entries[-1].last):
            entries.append(Entry("", last=True, stream_id=opened.closed_id))
        last_id = news[-1].id if news else floor_id
        key = self._link.key(topic.name)
        self._readings[key] = _Reading(topic, last_id, opened.n)
        self._news.add(key)  # of which it may have heard while it was not the reader's to read
        topic.load(floor_id, entries)

    def _take(self, reading: _Reading, news: list[Numbered]) -> None:
        """Put into the log what has come, and a gap where something is missing."""
        if reading.n is not None and news[0].n != reading.n + 1:
            reading.topic.lose(_before(news[0].id), news[0].id)
        reading.last_id, reading.n = news[-1].id, news[-1].n
        reading.topic.append(_entries(news))

    def _look_after(self, client: Any) -> None:
        """See that what is next to be read is still there, and that it does not expire."""
        readings = tuple(self._readings.items())
        if not readings:
            return
        script = client.script_load(scripts.OPEN)
        pipe = client.pipeline(transaction=False)
        for _, reading in readings:
            pipe.execute_command(
                "EVALSHA", script, *opening_arguments(self._link, reading.topic, 1)
            )
        replies = pipe.execute(raise_on_error=False)
        for (key, reading), reply in zip(readings, replies, strict=True):
            topic = reading.topic
            if is_refusal(reply):
                log.error("Redis refuses the topic %r: %s", topic.name, reply)
                del self._readings[key]
            elif isinstance(reply, Exception):
                raise reply
            else:
                now = opened(reply)
                floor_id = now.floor_id
                if now.n != reading.n:
                    self._news.add(key)
                if place_of(floor_id) > place_of(reading.last_id):
                    rest = client.execute_command("XRANGE", key, f"({floor_id}", "+", "COUNT", 1)
                    topic.lose(floor_id, rest[0][0].decode() if rest else "")
                    reading.last_id, reading.n = floor_id, None


def _entries(news: Iterable[Numbered]) -> list[Entry]:
    return [item.entry for item in news if item.entry is not None]


def _before(stream_id: str) -> str:
    """The last id that comes before another."""
    time, number = place_of(stream_id)
    return f"{time}-{number - 1}" if number else f"{time - 1}-{(1 << 64) - 1}"


def reach(topic: Topic) -> int:
    """How many of a topic's newest entries a process that begins to follow it wants."""
    # Of those that replace each other it may be few that are left.
    log = topic.log
    return log.bounds.history + (SPARE if isinstance(log, LatestLog) else 0)


def lifetime(topic: Topic) -> int:
    """For how many ms Redis keeps an entry, and all of a topic that nobody uses."""
    return round((min(topic.log.bounds.max_age, LONGEST) + SPARE_TIME) * 1000)


def opening_arguments(link: Link, topic: Topic, count: int) -> tuple[object, ...]:
    """The arguments of the script OPEN."""
    return 2, link.key(topic.name), link.key(topic.name, "meta"), count, lifetime(topic)

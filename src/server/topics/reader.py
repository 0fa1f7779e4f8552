"""What reads the topics that are followed, out of their streams in Redis."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..loggers import safe_logger
from . import scripts
from .entry import Entry
from .ids import place_of
from .link import Link, is_refusal
from .log import LatestLog
from .wire import Numbered, Opened, numbered, opened

if TYPE_CHECKING:
    from .topic import Topic

log = safe_logger("wsframe.server")

# How long what Redis keeps of a topic outlives its max_age, in seconds: for readers that are late.
SPARE_TIME = 60.0
LONGEST = 10 * 365 * 86400.0  # for max_age, which may be infinite
# And how many entries it keeps beyond the history, and how many bytes of them.
SPARE = 10_000
SPARE_BYTES = 16 << 20

BLOCK = 1.0  # how long to wait at once, in seconds
COUNT = 100  # how many entries of a stream to take at once


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

    Each is read after the last id that has come, so what was missed while Redis was away comes
    when it is back. Entries are numbered, so a hole is seen, and told as a gap.

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
        self._wake_key = link.wake_key(publisher)
        self._followed = followed
        self._opened: deque[tuple[Opening, Opened]] = deque()
        self._readings: dict[str, _Reading] = {}

    # The writer's thread ----------------------------------------------------------------------

    def begin(self, opening: Opening, opened: Opened) -> None:
        """The writer: this is what the topic is by now; to be followed by :meth:`wake`."""
        self._opened.append((opening, opened))

    def wake(self, client: Any) -> None:
        """The writer: have it look at what there is to do, at once; else it does so in a second."""
        pipe = client.pipeline(transaction=False)
        pipe.execute_command("XADD", self._wake_key, "MAXLEN", 1, "*", "w", 1)
        pipe.execute_command("PEXPIRE", self._wake_key, round(SPARE_TIME * 1000))
        pipe.execute()

    # Its own thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Its thread: read until it is to stop."""
        self._link.keep_on("reader", self._read, self._stop)

    def _read(self, client: Any, works: Callable[[], None]) -> None:
        wake_id = "0-0"
        self._look_after(client)
        looked_after = monotonic()
        while not self._stop.is_set():
            self._update()
            by_key = {self._link.key(name): reading for name, reading in self._readings.items()}
            ids = [wake_id, *(reading.last_id for reading in by_key.values())]
            block = ("COUNT", COUNT, "BLOCK", round(BLOCK * 1000), "STREAMS")
            streams = client.execute_command("XREAD", *block, self._wake_key, *by_key, *ids)
            works()
            for key, entries in streams or ():
                if key.decode() == self._wake_key:
                    wake_id = entries[-1][0].decode()
                else:
                    self._take(by_key[key.decode()], [numbered(*entry) for entry in entries])
            for reading in self._readings.values():
                reading.topic.place()
            if monotonic() - looked_after > SPARE_TIME / 3:
                self._look_after(client)
                looked_after = monotonic()

    def _update(self) -> None:
        """Begin to read what was opened since, and read nothing that is not followed any more."""
        followed = self._followed()
        while self._opened:
            opening, opened = self._opened.popleft()
            if followed.get(opening.topic.name) is opening:
                self._load(opening.topic, opened)
        for name in tuple(self._readings):
            if name not in followed:
                del self._readings[name]

    def _load(self, topic: Topic, opened: Opened) -> None:
        floor_id, news = opened.floor_id, opened.numbered
        if len(news) == reach(topic) + 1:  # there may be more, so the oldest is what is left out
            floor_id = news.pop(0).id
        entries = _entries(news)
        if opened.closed_id and not (entries and entries[-1].last):
            entries.append(Entry("", last=True, stream_id=opened.closed_id))
        last_id = news[-1].id if news else floor_id
        self._readings[topic.name] = _Reading(topic, last_id, opened.n)
        topic.load(floor_id, entries)

    def _take(self, reading: _Reading, news: list[Numbered]) -> None:
        """Put into the log what has come, and a gap where something is missing."""
        if reading.n is not None and news[0].n != reading.n + 1:
            reading.topic.lose(_before(news[0].id), news[0].id)
        reading.last_id, reading.n = news[-1].id, news[-1].n
        reading.topic.append(_entries(news))

    def _look_after(self, client: Any) -> None:
        """See that what is next to be read is still there, and that it does not expire."""
        readings = tuple(self._readings.values())
        if not readings:
            return
        script = client.script_load(scripts.OPEN)
        pipe = client.pipeline(transaction=False)
        for reading in readings:
            pipe.execute_command(
                "EVALSHA", script, *opening_arguments(self._link, reading.topic, 1)
            )
        for reading, reply in zip(readings, pipe.execute(raise_on_error=False), strict=True):
            topic = reading.topic
            if is_refusal(reply):
                log.error("Redis refuses the topic %r: %s", topic.name, reply)
                del self._readings[topic.name]
            elif isinstance(reply, Exception):
                raise reply
            else:
                floor_id = opened(reply).floor_id
                if place_of(floor_id) > place_of(reading.last_id):
                    key = self._link.key(topic.name)
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

"""Topics in a Redis, without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from wsframe.server import BrokerRefused
from wsframe.server.timing import Timing
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.sizes import Sizes
from wsframe.server.topics.topic_log import TopicLog

from .waiting import TIMEOUT


class RecordingTopic(TopicLog):
    """A topic that records all entries of its stream."""

    def __init__(self, streams: RedisStreams, name: str = "news", **bounds: Any) -> None:
        super().__init__(name, Topics(Timing()), streams)
        self.configure(**bounds)
        self.streams = streams
        self.entries: list[Entry] = []
        self.floors: list[str] = []
        self._arrived = threading.Condition()

    def load(self, floor_id: str, entries: Sequence[Entry]) -> None:
        super().load(floor_id, entries)
        with self._arrived:
            self.floors.append(floor_id)
            self._arrived.notify_all()

    def append(self, entries: Iterable[Entry]) -> Any:
        entries = list(entries)
        published = super().append(entries)
        with self._arrived:
            self.entries += entries
            self._arrived.notify_all()
        return published

    def publish_all(self, *items: object) -> None:
        """Publish the items, one after the other."""
        for item in items:
            self.publish(item)

    def wait_for_entries(self, count: int) -> list[Entry]:
        """Wait until this number of entries has arrived; return all entries."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.entries) >= count, TIMEOUT)
            assert came, f"there are not {count} entries but {len(self.entries)}"
            return list(self.entries)

    def expect(self, *items: str | bytes) -> list[Entry]:
        """Wait for exactly these entries since the beginning."""
        entries = self.wait_for_entries(len(items))
        assert [entry.data for entry in entries] == list(items)
        return entries

    def kept_entries(self) -> list[Entry]:
        """Return the entries in its log."""
        with self.lock:
            self.trim()
            return self.log.after(0, self.log.head)[0]

    def follow(self) -> RecordingTopic:
        """Follow the topic, and wait until it is loaded."""
        self.streams.follow(self)
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.floors, TIMEOUT), "the topic is not loaded"
        return self


def numbers(count: int, who: str = "") -> list[str]:
    return [f"{who}{number}" for number in range(count)]


def data_of(entries: Iterable[Entry]) -> list[str | bytes]:
    return [entry.data for entry in entries]


def publishes(topic: RecordingTopic, item: str) -> bool:
    """Publish an item; return False if Redis rejects the topic."""
    with suppress(BrokerRefused):
        topic.publish(item)
        return True
    return False


class Connect(Protocol):
    """Create the Redis streams of one process."""

    def __call__(
        self, url: str, prefix: str = ..., sizes: Sizes = ..., **timing: float
    ) -> RedisStreams: ...

"""The memory of a topic in Redis is bounded by its max_bytes, with any events."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.support.recording import Connect, RecordingTopic
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT
from wsframe.server.timing import Timing
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.redis import scripts
from wsframe.server.topics.redis.reader import SPARE, entries_kept, lifetime
from wsframe.server.topics.redis.streams import LARGEST_EVENT, SPARE_WEIGHT
from wsframe.server.topics.redis.wire import fields


def memory_of(client: Any, topic: str) -> int:
    """Return the memory of all keys of a topic."""
    keys = client.keys(f"wsframe:{{{topic}}}*")
    return sum(client.memory_usage(key, samples=0) for key in keys)


class Topic:
    """A topic that the script fills, as fast as Redis runs it."""

    def __init__(self, client: Any, max_bytes: int, history: int = 256) -> None:
        self._client, self._max_bytes, self._history = client, max_bytes, history
        self._script = client.script_load(scripts.PUBLISH)
        self._number = 0

    def publish(self, *entries: Entry) -> None:
        """Publish entries, and check the bound after each chunk."""
        for begin in range(0, len(entries), 400):
            pipe = self._client.pipeline(transaction=False)
            for entry in entries[begin : begin + 400]:
                self._number += 1
                keys = [f"wsframe:{{room}}{kind}" for kind in ("", ":meta", ":by:p")]
                bounds = (self._history + SPARE, 2 * self._max_bytes + SPARE_WEIGHT, 360_000)
                arguments = (self._number, self._number - 1, *bounds, 0, "wsframe:{room}@0", 0)
                pipe.execute_command("EVALSHA", self._script, 3, *keys, *arguments, *fields(entry))
            pipe.execute()
            used = memory_of(self._client, "room")
            assert used <= 4 * self._max_bytes + (64 << 10), (used, self._number)


WHAT = {
    "empty": [Entry("")] * 6000,
    "one byte": [Entry("x")] * 6000,
    "middling": [Entry("x" * 500)] * 3000,
    "as large as a node": [Entry("x" * 4000)] * 1000,
    "larger than a node": [Entry("x" * 4200)] * 1000,
    "large": [Entry("x" * 60_000)] * 200,
    "of every kind": [
        Entry("x" * (n % 7), *(f"e{n}" * (n % 2) or None, f"i{n}" * (n % 3) or None), key=f"k{n}")
        for n in range(3000)
    ],
    "small and large in turn": [Entry("x" * (40_000 if n % 50 == 0 else 3)) for n in range(3000)],
    "small ones, then a large one": [*[Entry("x")] * 6000, Entry("x" * 45_000)],
}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("kind", "max_bytes"),
    [*product(WHAT, [0, 1 << 20]), ("of every kind", 1 << 16), ("large", 1 << 16)],
)
def test_the_memory_in_redis_is_limited(
    redis_server: RedisServer, kind: str, max_bytes: int
) -> None:
    largest = 3 * max_bytes + LARGEST_EVENT
    entries = [entry for entry in WHAT[kind] if entry.size <= largest]
    with redis_server.client() as client:
        client.config_set("appendonly", "no")
        Topic(client, max_bytes).publish(*entries)


def test_the_largest_event_fits(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        for max_bytes in (0, 1 << 20):
            topic = Topic(client, max_bytes)
            topic.publish(*[Entry("x")] * 1000)
            topic.publish(Entry("x" * (3 * max_bytes + LARGEST_EVENT)))
            client.flushall()


def test_the_history_is_kept(redis_server: RedisServer, connect: Connect) -> None:
    """With the default bounds, 256 events of 4 KiB."""
    streams = connect(redis_server.url)
    here = RecordingTopic(streams)
    assert entries_kept(here) == 256 + SPARE
    assert lifetime(here, Timing()) == 360_000
    for number in range(600):
        here.publish(f"{number:04}" * 1024)
    assert streams.flush(TIMEOUT)
    there = RecordingTopic(connect(redis_server.url)).follow()
    wait = [f"{number:04}" * 1024 for number in range(344, 600)]
    assert [entry.data for entry in there.wait_for_entries(256)] == wait

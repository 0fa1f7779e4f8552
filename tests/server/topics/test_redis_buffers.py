"""Events that wait for Redis, and the bounds of a topic in Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.server.topics.redis_streams import (
    Publishing,
    check_that_all_came,
    kept,
    publish_by_script,
)
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from tests.support.topics import replica
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, BrokerUnavailable, EventsLost
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis import outbox, scripts
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.sizes import Sizes


def test_publish_raises_when_the_outbox_is_full_and_other_events_arrive(
    redis_server: RedisServer, connect: Connect, others: RedisStreams
) -> None:
    sizes = Sizes(max_waiting_bytes=10 * (outbox.EVENT_WEIGHT + 2))
    streams = connect(redis_server.url, sizes=sizes)
    here, quiet = RecordingTopic(streams), RecordingTopic(streams, "quiet")
    redis_server.kill()
    here.publish_all(*numbers(5, "x"))
    with pytest.raises(
        BrokerUnavailable, match=r"too many events wait .*; \d+ bytes wait for the topic 'news'"
    ):
        here.publish("too much")
    assert here.stats().published == 5
    # Other topics have room, each as much as is free.
    quiet.publish_all("y1", "y2")
    redis_server.start()
    assert streams.flush(TIMEOUT)
    here.publish_all("more")
    RecordingTopic(others).follow().expect(*numbers(5, "x"), "more")
    RecordingTopic(others, "quiet").follow().expect("y1", "y2")


def test_close_raises_for_lost_events(redis_server: RedisServer, streams: RedisStreams) -> None:
    redis_server.kill()
    RecordingTopic(streams).publish_all(*numbers(3))
    with pytest.raises(EventsLost, match="3 published events are lost") as raised:
        streams.close(0.1)
    assert raised.value.count == 3
    streams.close(0.1)  # and not a second time


def test_close_sends_the_last_events(streams: RedisStreams, others: RedisStreams) -> None:
    here = RecordingTopic(streams)
    here.publish_all(*numbers(200))
    streams.close(TIMEOUT)
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-redis")]
    here.publish_all("again")
    assert streams.flush(TIMEOUT)
    RecordingTopic(others).follow().expect(*numbers(200), "again")


@pytest.mark.slow
def test_publishing_continues_during_close(streams: RedisStreams, others: RedisStreams) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    with Publishing(here) as publishing:
        for count in range(1, 6):
            there.wait_for_entries(30 * count)
            streams.close(TIMEOUT)
    check_that_all_came(publishing, there)
    # Each run loads the followed topics again.
    here.publish_all("one more")
    there.wait_for_entries(publishing.count + 1)
    wait_until(
        lambda: here.log.head_id == there.log.head_id, "both processes have the same last event"
    )


def put_late(monkeypatch: pytest.MonkeyPatch, kind: type, call: Callable[[], object]) -> None:
    """Run ``call`` before the next event, or after the next mark, is put into an outbox."""
    put = outbox.Outbox.put

    def late(self: outbox.Outbox, item: outbox.Event | outbox.Mark) -> None:
        if not isinstance(item, kind):
            put(self, item)
        elif kind is outbox.Event:
            monkeypatch.undo()
            call()
            put(self, item)
        else:
            monkeypatch.undo()
            put(self, item)
            call()

    monkeypatch.setattr(outbox.Outbox, "put", late)


def test_an_event_published_during_a_close_is_sent_by_new_threads(
    streams: RedisStreams, others: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = RecordingTopic(streams), RecordingTopic(others).follow()
    here.publish("1")
    put_late(monkeypatch, outbox.Event, lambda: streams.close(TIMEOUT))
    here.publish("2")
    there.expect("1", "2")


def test_two_threads_close_at_once(
    streams: RedisStreams, others: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = RecordingTopic(others).follow()
    RecordingTopic(streams).publish("1")
    put_late(monkeypatch, outbox.Mark, lambda: streams.close(TIMEOUT))
    streams.close(TIMEOUT)
    there.expect("1")


def test_close_ends_the_wait_for_room(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(
        redis_server.url, sizes=Sizes(max_waiting_bytes=10 * (outbox.EVENT_WEIGHT + 2))
    )
    here, calls = RecordingTopic(streams), list[str]()
    redis_server.kill()
    here.publish_all(*numbers(5, "x"))
    assert streams.is_crowded(here)
    streams.when_room(here, lambda: calls.append("closed"))
    assert not calls
    with pytest.raises(EventsLost):
        streams.close(0.1)
    assert calls == ["closed"]
    streams.when_room(here, lambda: calls.append("at once"))
    assert calls == ["closed", "at once"]


def test_publish_raises_if_the_system_allows_no_more_threads(
    streams: RedisStreams, others: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = RecordingTopic(streams), RecordingTopic(others).follow()
    start = threading.Thread.start

    def fail(self: threading.Thread) -> None:
        if self.name == "wsframe-redis-reader":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        here.publish("1")
    monkeypatch.undo()
    here.publish("2")
    there.expect("2")
    streams.close(TIMEOUT)
    others.close(TIMEOUT)
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("wsframe-redis")],
        "the first writer has ended",
    )


def test_a_server_that_stops_logs_lost_events(
    redis_server: RedisServer, serve: Serve, log: ServerLog
) -> None:
    app = App(redis=redis_server.url)
    server = serve(app)
    redis_server.kill()
    app.topic("news").publish("lost")
    server.stop(0.1)
    log.expect("the server has stopped, and 1 published event is lost: Redis has not")


def test_a_member_that_leaves_after_close_starts_no_thread(streams: RedisStreams) -> None:
    streams.join(replica("news"), "ann")
    streams.close(TIMEOUT)
    streams.leave(replica("news"), "ann")
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-redis")]


def test_a_program_without_a_server_publishes(
    redis_server: RedisServer, others: RedisStreams
) -> None:
    app = App(redis=redis_server.url)
    app.topic("news").publish("hello")
    app.close()
    RecordingTopic(others).follow().expect("hello")


FORK = """
import os, sys, time, warnings
from wsframe.server import App

warnings.simplefilter("ignore")  # of forks beside threads
app = App(redis=sys.argv[1])
topic = app.topic("news")
topic.publish("before")
while not app._topics.shared.connection.unavailable:
    time.sleep(0.01)
child = os.fork()
topic.publish("after" if child else "child")
print("ready", flush=True)
app.close(30)
if child:
    os.waitpid(child, 0)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_publishes_no_event_twice(redis_server: RedisServer, others: RedisStreams) -> None:
    redis_server.kill()
    with subprocess.Popen(
        [sys.executable, "-c", FORK, redis_server.url], stdout=subprocess.PIPE
    ) as program:
        try:
            assert program.stdout is not None
            assert [program.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
            redis_server.start()
            assert program.wait(TIMEOUT) == 0
        finally:
            program.kill()
    there = RecordingTopic(others).follow()
    assert sorted(map(str, data_of(there.wait_for_entries(3)))) == ["after", "before", "child"]
    assert len(there.entries) == 3


def test_a_topic_with_a_source_is_shared(
    redis_server: RedisServer, others: RedisStreams, serve: Serve
) -> None:
    app, source = App(redis=redis_server.url), Queue[str]()
    app.topic("news").feed(source)
    serve(app)
    there = RecordingTopic(others).follow()
    source.put("hello")
    there.expect("hello")


def test_the_oldest_entries_are_removed_beyond_the_maximum_number(
    redis_server: RedisServer,
) -> None:
    with redis_server.client() as client:
        ids = [publish_by_script(client, n, n - 1, str(n), entries=3) for n in range(1, 6)]
        assert kept(client) == ([b"3", b"4", b"5"], ids[1], 3 * (scripts.ENTRY_WEIGHT + 2))


def test_the_oldest_entries_are_removed_beyond_the_maximum_weight(
    redis_server: RedisServer,
) -> None:
    each = scripts.ENTRY_WEIGHT + 10
    with redis_server.client() as client:
        ids = [
            publish_by_script(client, n, n - 1, 9 * str(n), weight=3 * each) for n in range(1, 6)
        ]
        assert kept(client) == ([9 * b"3", 9 * b"4", 9 * b"5"], ids[1], 3 * each)
        # A single entry is kept, however large it is.
        last = publish_by_script(client, 6, 5, 1000 * "6", weight=3 * each)
        assert kept(client) == ([1000 * b"6"], ids[4], scripts.ENTRY_WEIGHT + 1001)
        assert place_of(last.decode()) > place_of(ids[4].decode())


@pytest.mark.slow
def test_very_many_entries_are_removed_at_once(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        with client.pipeline() as pipe:
            for n in range(1, 3001):
                publish_by_script(pipe, n, n - 1, "x", entries=3000)
            *_, newest = pipe.execute()
        publish_by_script(client, 3001, 3000, "large", weight=100)
        assert kept(client) == ([b"large"], newest, scripts.ENTRY_WEIGHT + 6)


def old_topic(client: Any, *ages: float) -> list[str]:
    """Make a topic whose entries are so many seconds old; return their ids."""
    seconds, _ = client.time()
    ids = [f"{(seconds - round(age)) * 1000}-0" for age in ages]
    for n, id_ in enumerate(ids, 1):
        client.xadd("wsframe:{news}", {"n": n, "d": str(n)}, id=id_)
    before = f"{place_of(ids[0])[0] - 1}-0"
    size = (scripts.ENTRY_WEIGHT + 2) * len(ids)
    meta = {"floor": before, "last": ids[-1], "n": len(ids), "bytes": size, "life": "1"}
    client.hset("wsframe:{news}:meta", mapping=meta)
    return ids


def test_entries_beyond_the_maximum_age_are_removed(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        ids = old_topic(client, 300, 200, 100, 10)
        publish_by_script(client, 1, 0, "new", ms=150_000)
        size = 3 * (scripts.ENTRY_WEIGHT + 2) + 2
        assert kept(client) == ([b"3", b"4", b"new"], ids[1].encode(), size)


def test_redis_keeps_more_than_the_history_for_slow_readers(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    here = RecordingTopic(streams, history=0, max_bytes=0, max_age=0).follow()
    here.publish_all(*numbers(50))
    here.expect(*numbers(50))
    with redis_server.client() as client:
        assert len(kept(client)[0]) == 50


def test_history_is_as_old_as_the_events_are(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    with redis_server.client() as client:
        ids = old_topic(client, 300, 200, 100, 10)
    here = RecordingTopic(streams, max_age=150).follow()
    assert here.floors == [f"{place_of(ids[0])[0] - 1}-0"]
    assert data_of(here.kept_entries()) == ["3", "4"]
    assert (here.log.floor_id, here.log.head_id) == (ids[1], ids[3])


def test_all_keys_of_a_topic_expire(redis_server: RedisServer, streams: RedisStreams) -> None:
    here = RecordingTopic(streams, max_age=1).follow()
    here.publish_all("hello")
    here.expect("hello")
    with redis_server.client() as client:
        times = {key: client.pttl(key) for key in client.scan_iter()}
        assert len(times) == 3  # the stream, its meta, and its publisher
        assert all(0 < left <= 61_000 for left in times.values()), times


@pytest.mark.slow
def test_a_followed_topic_does_not_expire(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(redis_server.url, redis_ttl_margin=3.0, redis_read_timeout=0.1)
    RecordingTopic(streams, max_age=0).follow()
    meta = "wsframe:{news}:meta"
    with redis_server.client() as client:
        wait_until(lambda: client.pttl(meta) < 2700, "the key expires")
        wait_until(lambda: client.pttl(meta) > 2800, "the expiry is renewed")
        client.flushall()
        wait_until(lambda: client.exists(meta), "the key exists again")

"""What keeps topics in a Redis: without the server around it, whatever happens to the Redis."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.server.conftest import Connect, Serve, ServerLog, wait_until
from tests.support.certificates import Certificates
from tests.support.clients import TIMEOUT
from tests.support.redis_server import RedisServer, Relay
from tests.support.streams import Heard, data_of, numbers, publishes
from wsframe.server import App, EventsLost, RedisRefused, RedisUnavailable
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis import interests, outbox, reader, scripts
from wsframe.server.topics.redis.streams import RedisStreams

THREADS = ("wsframe-writer", "wsframe-reader")


# Order ----------------------------------------------------------------------------------------


def test_all_processes_hear_the_same(streams: RedisStreams, others: RedisStreams) -> None:
    here, there = Heard(streams).follow(), Heard(others).follow()
    publishing = [
        threading.Thread(target=topic.say, args=numbers(300, who))
        for topic, who in ((here, "a"), (there, "b"), (here, "c"))
    ]
    for thread in publishing:
        thread.start()
    for thread in publishing:
        thread.join()
    entries = here.wait(900)
    assert data_of(entries) == data_of(there.wait(900))
    assert sorted(data_of(entries)) == sorted(
        [*numbers(300, "a"), *numbers(300, "b"), *numbers(300, "c")]
    )
    for who in "abc":
        assert [d for d in data_of(entries) if str(d).startswith(who)] == numbers(300, who)
    places = [place_of(entry.stream_id) for entry in entries]
    assert places == sorted(set(places))
    assert [entry.id for entry in entries] == [entry.stream_id for entry in entries]


def test_an_event_comes_as_it_was_published(streams: RedisStreams, others: RedisStreams) -> None:
    here, there = Heard(streams).follow(), Heard(others).follow()
    here.publish("héllo\n", event="greeting", id="mine", key="k")
    here.publish(b"\x00\xff")
    here.publish("")
    here.publish({"a": 1})
    here.streams.publish(here, Entry("wait", retry=250))
    text, binary, empty, json, wait = there.wait(5)
    assert (text.data, text.event, text.id, text.key) == ("héllo\n", "greeting", "mine", "k")
    assert (binary.data, binary.event, binary.key, binary.retry) == (b"\x00\xff", None, None, None)
    assert data_of([empty, json]) == ["", '{"a": 1}']
    assert wait.retry == 250
    assert len(here.wait(5)) == 5


def test_what_follows_later_has_the_history(streams: RedisStreams, others: RedisStreams) -> None:
    here = Heard(streams, history=3).follow()
    here.say(*numbers(5))
    entries = here.wait(5)
    there = Heard(others, history=3).follow()
    there.hear("2", "3", "4")
    assert there.floors == [entries[1].stream_id]
    assert streams.flush(TIMEOUT)


def test_a_topic_that_is_followed_again_is_loaded_again(
    streams: RedisStreams, others: RedisStreams
) -> None:
    here, there = Heard(streams), Heard(others).follow()
    for round_ in range(20):
        here.floors.clear()
        here.follow()
        there.say(str(round_))
        streams.unfollow(here)
    there.hear(*numbers(20))
    here.floors.clear()
    here.follow()
    assert data_of(here.left()) == numbers(20)


def test_what_comes_while_a_topic_is_loaded_is_there(
    streams: RedisStreams, others: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Heard(streams).follow(), Heard(others)
    begin = reader.Reader.begin

    def begin_late(self: reader.Reader, *opened: Any) -> None:
        there.say("hello")
        here.wait(1)  # it was heard of, and read to what is followed no more
        begin(self, *opened)

    monkeypatch.setattr(reader.Reader, "begin", begin_late)
    streams.unfollow(here)
    here.floors.clear()
    here.follow()
    wait_until(lambda: data_of(here.left()) == ["hello"], "it is not there")


def test_what_comes_before_it_is_listened_to_again_is_there(
    redis_server: RedisServer,
    streams: RedisStreams,
    others: RedisStreams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = Heard(streams).follow(), Heard(others)
    with redis_server.client() as client:
        wait_until(lambda: client.pubsub_channels("wsframe:{news}@0"), "it is not listened to")
    listen = reader.Reader._listen

    def listen_late(self: reader.Reader, pubsub: Any) -> None:
        monkeypatch.undo()
        there.say("hello")
        assert others.flush(TIMEOUT)
        listen(self, pubsub)

    monkeypatch.setattr(reader.Reader, "_listen", listen_late)
    assert redis_server.cut("wsframe-reader")
    here.hear("hello")


# What may happen to Redis ----------------------------------------------------------------------


class Publishing:
    """Publishes numbers in a thread, never too many ahead; a context manager that stops it."""

    def __init__(self, topic: Heard) -> None:
        self.count = 0
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(RedisUnavailable):
                self._topic.publish(str(self.count))
                self.count += 1
            self._stop.wait(0.0005)

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def check_that_all_came(publishing: Publishing, *topics: Heard) -> None:
    for topic in topics:
        topic.hear(*numbers(publishing.count))


def test_a_killed_redis_loses_and_doubles_nothing(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams
) -> None:
    here, there = Heard(streams).follow(), Heard(others).follow()
    with Publishing(here) as publishing:
        for _ in range(4):
            there.wait(len(there.entries) + 50)
            redis_server.kill()
            wait_until(
                lambda: streams.connection.away and others.connection.away, "nobody misses it"
            )
            redis_server.start()
            wait_until(
                lambda: not (streams.connection.away or others.connection.away), "it is not found"
            )
    check_that_all_came(publishing, here, there)


@pytest.mark.parametrize("thread", THREADS)
def test_a_cut_connection_loses_and_doubles_nothing(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams, thread: str
) -> None:
    here, there = Heard(streams).follow(), Heard(others).follow()
    cuts = 0
    with Publishing(here) as publishing:
        while cuts < 10:
            there.wait(len(there.entries) + 20)
            cuts += redis_server.cut(thread)
    check_that_all_came(publishing, here, there)


def test_an_event_whose_answer_is_lost_is_not_doubled(
    redis_server: RedisServer, connect: Connect, others: RedisStreams
) -> None:
    there = Heard(others).follow()
    with Relay(redis_server) as relay:
        streams = connect(relay.url)
        here = Heard(streams)
        for round_ in range(3):
            relay.lose_the_answer_to(b"the last")
            here.say(*numbers(20, f"{round_}-"), f"the last of {round_}")
            assert relay.lost.wait(TIMEOUT)
            assert streams.flush(TIMEOUT)
        streams.close(TIMEOUT)
    there.hear(*(d for n in range(3) for d in [*numbers(20, f"{n}-"), f"the last of {n}"]))


def publish_by_script(client: Any, number: int, before: int, data: str = "x", **bounds: int) -> Any:
    """As the publisher "p" does it, by whatever connection."""
    kept = {"entries": 1000, "weight": 1 << 20, "ms": 60_000, "last": 0, **bounds}
    keys = [f"wsframe:{{news}}{kind}" for kind in ("", ":meta", ":by:p")]
    arguments = (number, before, *kept.values(), "wsframe:{news}@0", 0, "d", data)
    return client.eval(scripts.PUBLISH, 3, *keys, *arguments)


def test_redis_knows_what_it_was_sent_before(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        first = publish_by_script(client, 3, 0)
        assert place_of(first.decode())
        assert publish_by_script(client, 3, 0) == b"known"
        # What an old connection has left in the network comes late, or what is before it is lost.
        assert publish_by_script(client, 2, 0) == b"known"
        assert publish_by_script(client, 9, 8) == b"hole"
        second = publish_by_script(client, 8, 3)
        assert place_of(second.decode()) > place_of(first.decode())
        assert client.xlen("wsframe:{news}") == 2
        assert client.hget("wsframe:{news}:meta", "n") == b"2"


def test_it_is_logged_once_that_redis_is_away_and_once_that_it_is_back(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = Heard(streams).follow()
    for _ in range(2):
        redis_server.kill()
        here.say("while it is away")
        log.expect("Redis is away or not ready: ", logging.WARNING)
        wait_until(lambda: len(streams.connection._lost) == 2, "one has not noticed")
        redis_server.start()
        log.expect("Redis is back", logging.WARNING)
    here.hear("while it is away", "while it is away")
    assert not [record for record in log.records if "Redis" in record.getMessage()]


def test_a_redis_that_does_not_answer_is_away(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, redis_timeout=0.5, redis_read_timeout=0.1)
    here = Heard(streams).follow()
    redis_server.signal(signal.SIGSTOP)
    here.say("hello")
    log.expect("Redis is away or not ready: ", logging.WARNING)
    assert not streams.flush(0)
    redis_server.signal(signal.SIGCONT)
    here.hear("hello")
    assert streams.flush(TIMEOUT)


def test_a_connection_that_falls_silent_is_made_anew(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    """Such as one whose other end is gone without a goodbye: nothing fails, and nothing comes."""
    with Relay(redis_server) as relay:
        streams = connect(relay.url, redis_timeout=1.0, redis_read_timeout=0.1)
        here = Heard(streams).follow()
        here.say("hello")
        here.hear("hello")
        relay.fall_silent()
        here.say("world")
        log.expect("Redis is away or not ready: nothing is heard of topics", logging.WARNING)
        here.hear("hello", "world")
        log.expect("Redis is back", logging.WARNING)
        streams.close(TIMEOUT)


def test_a_redis_that_hangs_does_not_hold_up_the_end(
    redis_server: RedisServer, connect: Connect
) -> None:
    streams = connect(redis_server.url, redis_timeout=10 * TIMEOUT, redis_stop_timeout=0.1)
    here = Heard(streams).follow()

    def close() -> None:
        here.say("hello")
        with pytest.raises(EventsLost, match="1 published events are lost"):
            streams.close(0.1)

    assert redis_server.ends_while_hanging(close)


@pytest.mark.parametrize(
    ("command", "back"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["OOM", "READONLY"],
)
def test_a_redis_that_cannot_write_now_is_waited_for(
    redis_server: RedisServer,
    streams: RedisStreams,
    log: ServerLog,
    command: tuple[str, ...],
    back: tuple[str, ...],
) -> None:
    here = Heard(streams).follow()
    with redis_server.client() as client:
        client.execute_command(*command)
        here.say("hello", "world")
        log.expect("Redis is away or not ready: ", logging.WARNING)
        assert not streams.flush(0)
        client.execute_command(*back)
        here.hear("hello", "world")
    log.expect("Redis is back", logging.WARNING)
    assert streams.flush(TIMEOUT)


def test_scripts_that_redis_has_forgotten_are_loaded_again(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = Heard(streams).follow()
    with redis_server.client() as client:
        client.script_flush()
    here.say("hello")
    here.hear("hello")
    assert not log.records


# Buffers ---------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_and_the_rest_comes(
    redis_server: RedisServer,
    streams: RedisStreams,
    others: RedisStreams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 10 * (outbox.EVENT_WEIGHT + 2))
    here, quiet = Heard(streams), Heard(streams, "quiet")
    redis_server.kill()
    here.say(*numbers(5, "x"))
    with pytest.raises(
        RedisUnavailable, match=r"bytes of the topic 'news' and \d+ bytes in all wait"
    ):
        here.publish("too much")
    assert here.stats().published == 5
    # There is room for other topics, of each as much as is free.
    quiet.say("y1", "y2")
    redis_server.start()
    assert streams.flush(TIMEOUT)
    here.say("more")
    Heard(others).follow().hear(*numbers(5, "x"), "more")
    Heard(others, "quiet").follow().hear("y1", "y2")


def test_what_is_lost_at_the_end_is_raised(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    redis_server.kill()
    Heard(streams).say(*numbers(3))
    with pytest.raises(EventsLost, match="3 published events are lost") as raised:
        streams.close(0.1)
    assert raised.value.count == 3
    streams.close(0.1)  # and not again


def test_what_was_published_last_is_there_after_the_end(
    streams: RedisStreams, others: RedisStreams
) -> None:
    here = Heard(streams)
    here.say(*numbers(200))
    streams.close(TIMEOUT)
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-redis")]
    here.say("again")
    assert streams.flush(TIMEOUT)
    Heard(others).follow().hear(*numbers(200), "again")


def test_publishing_goes_on_while_it_is_closed(streams: RedisStreams, others: RedisStreams) -> None:
    here, there = Heard(streams).follow(), Heard(others).follow()
    with Publishing(here) as publishing:
        for count in range(1, 6):
            there.wait(30 * count)
            streams.close(TIMEOUT)
    check_that_all_came(publishing, there)
    # Each run loads again what is followed.
    here.say("one more")
    there.wait(publishing.count + 1)
    wait_until(lambda: here.log.head_id == there.log.head_id, "it is not followed any more")


def test_who_leaves_after_the_end_starts_nothing(streams: RedisStreams) -> None:
    streams.join("news", "ann")
    streams.close(TIMEOUT)
    streams.leave("news", "ann")
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-redis")]


def test_a_program_that_only_publishes(redis_server: RedisServer, others: RedisStreams) -> None:
    app = App(redis=redis_server.url)
    app.topic("news").publish("hello")
    app.close()
    Heard(others).follow().hear("hello")


FORK = """
import os, sys, time, warnings
from wsframe.server import App

warnings.simplefilter("ignore")  # of Pythons that warn of forks beside threads
app = App(redis=sys.argv[1])
topic = app.topic("news")
topic.publish("before")
while not app._topics.shared.connection.away:
    time.sleep(0.01)
child = os.fork()
topic.publish("after" if child else "child")
print("ready", flush=True)
app.close(30)
if child:
    os.waitpid(child, 0)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_publishes_nothing_twice(redis_server: RedisServer, others: RedisStreams) -> None:
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
    there = Heard(others).follow()
    assert sorted(map(str, data_of(there.wait(3)))) == ["after", "before", "child"]
    assert len(there.entries) == 3


def test_a_fed_topic_is_shared(
    redis_server: RedisServer, others: RedisStreams, serve: Serve
) -> None:
    app, source = App(redis=redis_server.url), Queue[str]()
    app.topic("news").feed(source)
    serve(app)
    there = Heard(others).follow()
    source.put("hello")
    there.hear("hello")


# Bounds ----------------------------------------------------------------------------------------


def kept(client: Any) -> tuple[list[bytes], bytes, int]:
    """What the stream has, the id after which nothing is gone, and how many bytes it counts."""
    entries = client.execute_command("XRANGE", "wsframe:{news}", "-", "+")
    floor, size = client.hmget("wsframe:{news}:meta", "floor", "bytes")
    return [fields[b"d"] for _, fields in entries], floor, int(size)


def test_the_oldest_are_forgotten_where_there_are_too_many(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        ids = [publish_by_script(client, n, n - 1, str(n), entries=3) for n in range(1, 6)]
        assert kept(client) == ([b"3", b"4", b"5"], ids[1], 3 * (scripts.ENTRY_WEIGHT + 2))


def test_the_oldest_are_forgotten_where_they_weigh_too_much(redis_server: RedisServer) -> None:
    each = scripts.ENTRY_WEIGHT + 10
    with redis_server.client() as client:
        ids = [
            publish_by_script(client, n, n - 1, 9 * str(n), weight=3 * each) for n in range(1, 6)
        ]
        assert kept(client) == ([9 * b"3", 9 * b"4", 9 * b"5"], ids[1], 3 * each)
        # One that is alone is kept, whatever it has.
        last = publish_by_script(client, 6, 5, 1000 * "6", weight=3 * each)
        assert kept(client) == ([1000 * b"6"], ids[4], scripts.ENTRY_WEIGHT + 1001)
        assert place_of(last.decode()) > place_of(ids[4].decode())


def test_very_many_are_forgotten_at_once(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        with client.pipeline() as pipe:
            for n in range(1, 3001):
                publish_by_script(pipe, n, n - 1, "x", entries=3000)
            *_, newest = pipe.execute()
        publish_by_script(client, 3001, 3000, "large", weight=100)
        assert kept(client) == ([b"large"], newest, scripts.ENTRY_WEIGHT + 6)


def old_topic(client: Any, *ages: float) -> list[str]:
    """A topic whose entries are so many seconds old; their ids."""
    seconds, _ = client.time()
    ids = [f"{(seconds - round(age)) * 1000}-0" for age in ages]
    for n, id_ in enumerate(ids, 1):
        client.xadd("wsframe:{news}", {"n": n, "d": str(n)}, id=id_)
    before = f"{place_of(ids[0])[0] - 1}-0"
    size = (scripts.ENTRY_WEIGHT + 2) * len(ids)
    meta = {"floor": before, "last": ids[-1], "n": len(ids), "bytes": size, "life": "1"}
    client.hset("wsframe:{news}:meta", mapping=meta)
    return ids


def test_the_oldest_are_forgotten_where_they_are_too_old(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        ids = old_topic(client, 300, 200, 100, 10)
        publish_by_script(client, 1, 0, "new", ms=150_000)
        size = 3 * (scripts.ENTRY_WEIGHT + 2) + 2
        assert kept(client) == ([b"3", b"4", b"new"], ids[1].encode(), size)


def test_a_topic_keeps_more_than_its_bounds_for_those_who_are_late(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    here = Heard(streams, history=0, max_bytes=0, max_age=0).follow()
    here.say(*numbers(50))
    here.hear(*numbers(50))
    with redis_server.client() as client:
        assert len(kept(client)[0]) == 50


def test_history_is_as_old_as_the_events_are(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    with redis_server.client() as client:
        ids = old_topic(client, 300, 200, 100, 10)
    here = Heard(streams, max_age=150).follow()
    assert here.floors == [f"{place_of(ids[0])[0] - 1}-0"]
    assert data_of(here.left()) == ["3", "4"]
    assert (here.log.floor_id, here.log.head_id) == (ids[1], ids[3])


def test_all_that_redis_has_of_a_topic_expires(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    here = Heard(streams, max_age=1).follow()
    here.say("hello")
    here.hear("hello")
    with redis_server.client() as client:
        times = {key: client.pttl(key) for key in client.scan_iter()}
        assert len(times) == 3  # the stream, its meta, and its publisher
        assert all(0 < left <= 61_000 for left in times.values()), times


def test_what_is_followed_does_not_expire(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(redis_server.url, redis_ttl_margin=3.0, redis_read_timeout=0.1)
    Heard(streams, max_age=0).follow()
    meta = "wsframe:{news}:meta"
    with redis_server.client() as client:
        wait_until(lambda: client.pttl(meta) < 2700, "it is not to expire at all")
        wait_until(lambda: client.pttl(meta) > 2800, "it is let expire")
        client.flushall()
        wait_until(lambda: client.exists(meta), "it is not there again")


# Gaps ------------------------------------------------------------------------------------------


def test_a_wiped_redis_is_told_as_a_gap(redis_server: RedisServer, streams: RedisStreams) -> None:
    here = Heard(streams).follow()
    here.say(*numbers(3))
    here.hear(*numbers(3))
    assert streams.flush(TIMEOUT)
    with redis_server.client() as client:
        client.flushall()
    here.say("new")
    *_, gap, new = here.wait(5)
    assert (gap.data, gap.oldest) == ("", new.stream_id)
    assert place_of(here.entries[2].stream_id) <= place_of(gap.stream_id) < place_of(new.stream_id)
    here.say("next")
    assert data_of(here.wait(6))[5:] == ["next"]


def test_a_redis_that_begins_anew_is_told_as_a_gap(tmp_path: Path, connect: Connect) -> None:
    with RedisServer(tmp_path, persistent=False) as redis_server:
        here = Heard(connect(redis_server.url)).follow()
        here.say(*numbers(3))
        here.hear(*numbers(3))
        assert here.streams.flush(TIMEOUT)
        redis_server.restart()
        gap = here.wait(4)[3]
        assert (gap.data, gap.oldest) == ("", "")
        assert place_of(gap.stream_id) > place_of(here.entries[2].stream_id)
        here.say("new")
        assert data_of(here.wait(5))[4:] == ["new"]
        assert here.streams.flush(TIMEOUT)


def test_what_was_removed_before_it_was_read_is_told_as_a_gap(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    here = Heard(streams).follow()
    here.say("first")
    here.hear("first")
    with redis_server.client() as client, client.pipeline() as pipe:
        pipe.multi()
        for number in range(1, 6):
            publish_by_script(pipe, number, number - 1, str(number), entries=2)
        *_, oldest, newest = pipe.execute()
    entries = here.wait(4)
    assert data_of(entries) == ["first", "", "4", "5"]
    assert [entries[1].oldest, entries[2].stream_id, entries[3].stream_id] == [
        oldest.decode(),
        oldest.decode(),
        newest.decode(),
    ]


def test_redis_that_has_lost_what_it_acknowledged_goes_on(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = Heard(streams).follow()
    here.say("first", "second")
    here.hear("first", "second")
    assert streams.flush(TIMEOUT)
    with redis_server.client() as client:
        (publisher,) = client.keys("*:by:*")
        client.set(publisher, 1)  # as after the end of one that writes to its disk now and then
    here.say("third", "fourth")
    assert data_of(here.wait(4)) == ["first", "second", "third", "fourth"]
    log.expect("Redis has lost events of 'news' that it had acknowledged")


# What somebody else has done to Redis ------------------------------------------------------------


def test_a_key_that_is_no_stream_concerns_its_topic_alone(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = Heard(streams).follow()
    with redis_server.client() as client:
        client.set("wsframe:{bad}", "taken")
    bad = Heard(streams, "bad")
    bad.say("lost")
    log.expect("an event is lost: Redis refuses the topic 'bad': ")
    with pytest.raises(RedisRefused, match=r"Redis refuses the topic 'bad': .*WRONGTYPE"):
        bad.publish("refused")
    here.say("hello")
    here.hear("hello")
    with redis_server.client() as client:
        client.set("wsframe:{worse}", "taken")
        client.delete("wsframe:{bad}", "wsframe:{bad}:meta")
    wait_until(lambda: publishes(bad, "good"), "it is still refused")
    lost, good = bad.follow().wait(2)
    assert (lost.oldest, good.data) == ("", "good")
    with redis_server.client() as client:
        client.set("wsframe:{bad}", "taken")  # while it is read
        client.publish("wsframe:{bad}@0", "")
    log.expect("Redis refuses the topic 'bad' to its reader: ")
    here.say("world")
    here.hear("hello", "world")
    wait_until(lambda: publishes(bad, "lost, too"), "it is still refused")
    with pytest.raises(EventsLost, match="2 published events are lost: Redis refuses the topic"):
        streams.flush(TIMEOUT)
    log.expect("an event is lost: Redis refuses the topic 'bad': ")
    # When the key is free again, subscribers see a gap and what comes behind it.
    with redis_server.client() as client:
        client.delete("wsframe:{bad}")
    wait_until(lambda: publishes(bad, "again"), "it is still refused")
    *_, lost, again = bad.wait(4)
    assert (lost.oldest, again.data) == ("", "again")
    log.records.clear()


def test_an_entry_that_is_no_event_is_left_out(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = Heard(streams).follow()
    with redis_server.client() as client:
        client.xadd("wsframe:{news}", {"d": b"\xff"})
    here.say("hello")
    log.expect("of 'news' in Redis is no event: it has no number")
    assert data_of(here.wait(2)) == ["", "hello"]


@pytest.mark.parametrize("what", ["publish", "follow", "join", "key"])
def test_text_that_cannot_be_sent_is_refused(streams: RedisStreams, what: str) -> None:
    topic, bad = Heard(streams), Heard(streams, "\ud800")
    attempts: dict[str, Callable[[], object]] = {
        "publish": lambda: bad.publish("x"),
        "follow": lambda: streams.follow(bad),
        "join": lambda: streams.join("news", "\ud800"),
        "key": lambda: topic.publish("x", key="\ud800"),
    }
    with pytest.raises(ValueError, match="surrogates not allowed"):
        attempts[what]()


def test_what_comes_at_once_is_read_piece_by_piece(
    redis_server: RedisServer, streams: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK", 3)
    topics = [Heard(streams, name).follow() for name in ("news", *numbers(7))]
    for topic in topics[1:]:
        topic.say("hello")
    with redis_server.client() as client, client.pipeline() as pipe:
        for number in range(1, 21):
            publish_by_script(pipe, number, number - 1, str(number - 1))
        pipe.execute()
    topics[0].hear(*numbers(20))
    for topic in topics[1:]:
        topic.hear("hello")


def test_nobody_listens_to_what_nobody_follows(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(redis_server.url, redis_read_timeout=0.1)
    here, there = Heard(streams).follow(), Heard(streams, "other").follow()
    streams.unfollow(here)
    with redis_server.client() as client:

        def channels() -> list[bytes]:
            return [name for name in client.pubsub_channels() if b"wake" not in name]

        wait_until(lambda: channels() == [b"wsframe:{other}@0"], "it is listened to")
    there.say("hello")
    there.hear("hello")


# The end of a topic ------------------------------------------------------------------------------


def test_nothing_comes_after_the_end(
    streams: RedisStreams, others: RedisStreams, log: ServerLog
) -> None:
    here, there = Heard(streams).follow(), Heard(others)
    there.say("hello")
    here.wait(1)
    here.close()
    here.wait(2)
    there.say("too late", "and this")
    assert others.flush(TIMEOUT)
    hello, end = here.wait(2)
    assert (hello.data, hello.last, end.last) == ("hello", False, True)
    log.expect("an event of 'news' is left out: the topic was closed", logging.WARNING)
    there.close()
    assert others.flush(TIMEOUT)
    assert there.follow().wait(2)[1].last
    assert len(here.entries) == 2


def test_the_end_is_known_to_those_who_come_later(
    streams: RedisStreams, others: RedisStreams
) -> None:
    Heard(streams).say("hello")
    Heard(streams).close()
    assert streams.flush(TIMEOUT)
    there = Heard(others, history=0).follow()
    (end,) = there.wait(1)
    assert end.last
    assert end.stream_id == there.floors[0]


# Presence ----------------------------------------------------------------------------------------


def members(streams: RedisStreams, *expected: str) -> None:
    topic = Heard(streams)
    wait_until(lambda: topic.members() == list(expected), f"not {expected}")


def test_who_is_there_is_known_to_all(streams: RedisStreams, others: RedisStreams) -> None:
    streams.join("news", "ann")
    streams.join("news", "ann")
    others.join("news", "ann")
    others.join("news", "bob")
    others.join("other", "eve")
    for each in (streams, others):
        members(each, "ann", "bob")
    others.leave("news", "ann")
    streams.leave("news", "ann")
    others.leave("news", "bob")
    members(others, "ann")
    streams.leave("news", "ann")
    for each in (streams, others):
        members(each)


def test_who_is_there_is_there_no_more_after_the_end(
    streams: RedisStreams, others: RedisStreams
) -> None:
    streams.join("news", "ann")
    members(others, "ann")
    streams.close(TIMEOUT)
    members(others)


def test_members_of_a_process_that_is_silent_expire(
    redis_server: RedisServer, connect: Connect
) -> None:
    silent = connect(redis_server.url, presence_ttl=0.5)
    others = connect(redis_server.url, presence_ttl=0.5, presence_renewal=0.05)
    silent.join("news", "ann")
    members(others, "ann")
    members(others)
    others.join("news", "bob")
    until = time.monotonic() + 1.0
    wait_until(lambda: Heard(others).members() == ["bob"] and time.monotonic() > until, "not kept")


def test_members_are_there_again_when_redis_has_forgotten_them(
    redis_server: RedisServer, connect: Connect, others: RedisStreams
) -> None:
    streams = connect(redis_server.url, presence_renewal=0.05)
    streams.join("news", "ann")
    members(others, "ann")
    with redis_server.client() as client:
        client.flushall()
    members(others, "ann")


def test_who_is_there_is_not_known_while_redis_is_away(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    topic = Heard(streams)
    assert topic.members() == []
    redis_server.kill()
    with pytest.raises(RedisUnavailable, match="Redis does not tell who is there"):
        topic.members()
    redis_server.start()
    assert topic.members() == []


def test_coming_and_going_takes_no_memory_while_redis_is_away(
    redis_server: RedisServer, streams: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interests, "MAX_LEAVING", 10)
    here = Heard(streams).follow()
    redis_server.kill()
    for number in range(100):
        streams.join("news", f"member {number}")
        streams.unfollow(here)
        streams.follow(here)
        streams.leave("news", f"member {number}")
    assert len(streams._interests.tasks()) <= 3


# Ways to a Redis ---------------------------------------------------------------------------------


def check_that_it_works(url: str, connect: Connect) -> None:
    here = Heard(connect(url)).follow()
    here.say("hello")
    here.hear("hello")
    here.streams.join("news", "ann")
    others = connect(url)
    members(others, "ann")
    for streams in (here.streams, others):
        streams.close(TIMEOUT)  # before the Redis ends


def test_a_password(tmp_path: Path, connect: Connect, log: ServerLog) -> None:
    with RedisServer(tmp_path, password="p@ss/w:rd") as redis_server:
        check_that_it_works(redis_server.url, connect)
        wrong = connect(f"redis://:wrong@127.0.0.1:{redis_server.port}")
        wrong.join("news", "ann")
        log.expect("topics cannot be kept in this Redis: invalid username-password pair")
        with pytest.raises(RedisRefused, match="invalid username-password pair"):
            Heard(wrong).publish("refused")
        wrong.close(TIMEOUT)
        log.records.clear()


def test_tls(tmp_path: Path, connect: Connect, certificates: Certificates) -> None:
    with RedisServer(tmp_path, certificates=certificates) as redis_server:
        check_that_it_works(redis_server.url, connect)


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_a_unix_socket(tmp_path: Path, connect: Connect) -> None:
    with RedisServer(tmp_path, unix="s", password="secret") as redis_server:
        check_that_it_works(redis_server.url, connect)


def test_a_url_that_is_none() -> None:
    with pytest.raises(ValueError, match="must specify one of"):
        App(redis="http://localhost")

"""Another Redis takes over, with fewer events, or with a late clock."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import ResponseError

from tests.support.clients import Clients
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers
from tests.support.redis_server import RedisServer, Relay
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App
from wsframe.server.topics.ids import place_of

STREAM, META = "wsframe:{news}", "wsframe:{news}:meta"


class Pair:
    """A primary, its replica, and the address at which clients reach the current primary."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        for name in ("a", "b"):
            (directory / name).mkdir()
        at_once = ("--repl-diskless-sync-delay", "0")  # otherwise replicas wait for five seconds
        self.primary = stack.enter_context(RedisServer(directory / "a", *at_once))
        replicate = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = stack.enter_context(RedisServer(directory / "b", *at_once, *replicate))
        self.relay = stack.enter_context(Relay(self.primary))
        self.url = self.relay.url
        self.sync()

    def sync(self) -> None:
        """Wait until the replica has all data of the primary."""
        with self.primary.client() as client:
            client.set("sync", time.monotonic())
            wait_until(lambda: client.wait(1, 100) == 1, "the replica follows")

    def detach(self) -> None:
        """Have the replica miss further data."""
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")

    def switch(self) -> None:
        """Route new connections to the replica, which is the primary now."""
        self.detach()
        self.relay.redirect(self.replica)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path, stack)


def demote(pair: Pair) -> None:
    """Make the old primary a replica of the new one, and keep its connections."""
    with pair.primary.client() as client:
        client.replicaof("127.0.0.1", pair.replica.port)


def test_every_thread_follows_a_primary_that_becomes_a_replica(
    pair: Pair, connect: Connect, log: ServerLog
) -> None:
    """Their connections stay open: the first rejected thread makes all of them reconnect."""
    streams = connect(pair.url)
    here = RecordingTopic(streams).follow()
    here.subscribe_pubsub("prices")
    streams.channels.start()
    with pair.replica.client() as program:
        wait_until(lambda: program.get("wsframe:{news}:from:prices"), "a process holds the lease")
        here.publish_all("1")
        here.expect("1")
        pair.sync()
        pair.switch()
        demote(pair)
        here.publish_all("2")
        here.expect("1", "2")
        log.expect("until it answers, and events wait: ", logging.WARNING)
        wait_until(
            lambda: not streams.connection.unavailable, "all threads have followed the failover"
        )
        channel = "wsframe:{news}:from:prices@0"
        wait_until(lambda: program.pubsub_numsub(channel)[0][1] == 1, "the channel is subscribed")
        wait_until(
            lambda: program.publish("prices", "3") and data_of(here.entries)[-1] == "3",
            "the channel is subscribed",
        )
    streams.channels.stop()
    streams.close(TIMEOUT)


def behind(client: Any, hours: int) -> None:
    """Make all ids of the topic older, as if the clock had been late from the beginning."""
    entries = client.xrange(STREAM)
    ids = [f"{place_of(id_.decode())[0] + hours * 3_600_000}-0" for id_, _ in entries]
    with client.pipeline(transaction=True) as together:  # so that no reader sees a part of it
        together.delete(STREAM)
        for id_, (_, fields) in zip(ids, entries, strict=True):
            together.xadd(STREAM, fields, id=id_)
        together.hset(META, "last", ids[-1])
        together.execute()


def test_a_new_primary_with_a_late_clock_continues(
    pair: Pair, connect: Connect, log: ServerLog
) -> None:
    """The new primary lacks the last events of the old one, and its clock is late."""
    streams = connect(pair.url)
    first = RecordingTopic(streams)
    first.publish_all("1")
    assert streams.flush(TIMEOUT)
    pair.sync()
    pair.detach()
    with pair.primary.client() as client:
        behind(client, hours=1)
    here = RecordingTopic(streams).follow()
    here.publish_all("2", "3")
    assert data_of(here.wait_for_entries(3)) == ["1", "2", "3"]
    assert streams.flush(TIMEOUT)
    pair.switch()
    pair.primary.kill()
    # The gap comes at once, not only with the next event.
    assert here.wait_for_entries(4)[3].oldest is not None
    here.publish_all("4")
    assert data_of(here.wait_for_entries(5))[4:] == ["4"]
    assert place_of(here.entries[4].stream_id) < place_of(here.entries[2].stream_id)
    log.expect("Redis has lost acknowledged events of the topic 'news'")


def test_events_lost_in_a_failover_are_a_gap(
    pair: Pair, connect: Connect, others: Any, log: ServerLog
) -> None:
    """Even if the new primary has as many new events as were lost."""
    streams = connect(pair.url)
    here = RecordingTopic(streams).follow()
    here.publish_all("1")
    here.expect("1")
    assert streams.flush(TIMEOUT)
    pair.sync()
    pair.detach()
    with pair.primary.client() as client:
        behind(client, hours=1)
        client.publish(f"{STREAM}@0", "another life, so look")
    here.wait_for_entries(2)
    here.publish_all("2", "3")
    assert data_of(here.wait_for_entries(4)) == ["1", "", "2", "3"]
    assert streams.flush(TIMEOUT)
    other = connect(pair.replica.url)
    RecordingTopic(other).publish_all("4", "5", "6")
    assert other.flush(TIMEOUT)
    count = len(here.entries)
    pair.switch()
    pair.primary.kill()
    assert here.wait_for_entries(count + 1)[count].oldest is not None
    here.publish_all("7")
    wait_until(lambda: data_of(here.entries)[-1] == "7", "the event has arrived")
    log.records.clear()


def test_a_client_whose_last_event_was_lost_receives_a_gap(
    redis_server: RedisServer, serve: Serve, clients: Clients
) -> None:
    app = App(redis=redis_server.url)
    topic = app.topic("news")
    app.sse("/events", source=topic)
    server = serve(app)
    stream = clients.stream(server, "/events")
    wait_until(
        lambda: topic.stats().lagging < topic.stats().subscribers, "the client is subscribed"
    )
    ids = []
    for item in numbers(3):
        topic.publish(item)
        assert stream.expect(1) == [item]
        ids.append(stream.last_event_id)
        time.sleep(0.01)  # so that ids exist between theirs
    time_, number = place_of(ids[0])
    between = clients.stream(server, "/events", ("Last-Event-ID", f"{time_}-{number + 1}"))
    (gap,) = between.expect(1)
    assert json.loads(str(gap))["topic"] == "news"
    topic.publish("after it")
    assert between.expect(1) == ["after it"]


@pytest.mark.slow
def test_a_pause_of_redis_loses_no_event(
    redis_server: RedisServer, connect: Connect, others: Any
) -> None:
    streams = connect(redis_server.url, redis_timeout=0.3)
    there = RecordingTopic(others).follow()
    here = RecordingTopic(streams).follow()
    here.publish_all("1")
    here.expect("1")
    with redis_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", "1500", "WRITE")
    here.publish_all(*numbers(50))
    for topic in (here, there):
        topic.expect("1", *numbers(50))


def test_an_eviction_is_a_gap_for_clients_that_reconnect(
    redis_server: RedisServer, streams: Any, others: Any
) -> None:
    here = RecordingTopic(streams).follow()
    here.publish_all(*(str(n) * 1000 for n in range(5)))
    entries = here.wait_for_entries(5)
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", 1)
        while client.exists(STREAM):
            with suppress(ResponseError):
                client.set("x", "y")
        client.config_set("maxmemory", 0)
    here.publish_all("after")
    wait_until(lambda: data_of(here.entries)[-1] == "after", "the event has arrived")
    late = RecordingTopic(others).follow()
    assert data_of(late.kept_entries()) == ["after"]
    assert place_of(late.floors[0]) >= place_of(entries[4].stream_id)

"""Redis streams as the store of topics: order, presence, the end of a topic, and URLs."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.certificates import Certificates
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers
from tests.support.redis_server import RedisServer
from tests.support.topics import replica
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, BrokerRefused, BrokerUnavailable
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis import reader
from wsframe.server.topics.redis.streams import RedisStreams


def test_all_processes_receive_the_same_events(streams: RedisStreams, others: RedisStreams) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    publishing = [
        threading.Thread(target=topic.publish_all, args=numbers(300, who))
        for topic, who in ((here, "a"), (there, "b"), (here, "c"))
    ]
    for thread in publishing:
        thread.start()
    for thread in publishing:
        thread.join()
    entries = here.wait_for_entries(900)
    assert data_of(entries) == data_of(there.wait_for_entries(900))
    assert sorted(data_of(entries)) == sorted(
        [*numbers(300, "a"), *numbers(300, "b"), *numbers(300, "c")]
    )
    for who in "abc":
        assert [d for d in data_of(entries) if str(d).startswith(who)] == numbers(300, who)
    places = [place_of(entry.stream_id) for entry in entries]
    assert places == sorted(set(places))
    assert [entry.id for entry in entries] == [entry.stream_id for entry in entries]


def test_an_event_is_unchanged_by_redis(streams: RedisStreams, others: RedisStreams) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    here.publish("héllo\n", event="greeting", id="mine", key="k")
    here.publish(b"\x00\xff")
    here.publish("")
    here.publish({"a": 1})
    here.streams.publish(here, Entry("wait", retry=250))
    text, binary, empty, json, wait = there.wait_for_entries(5)
    assert (text.data, text.event, text.id, text.key) == ("héllo\n", "greeting", "mine", "k")
    assert (binary.data, binary.event, binary.key, binary.retry) == (b"\x00\xff", None, None, None)
    assert data_of([empty, json]) == ["", '{"a": 1}']
    assert wait.retry == 250
    assert len(here.wait_for_entries(5)) == 5


def test_a_later_follower_loads_the_history(streams: RedisStreams, others: RedisStreams) -> None:
    here = RecordingTopic(streams, history=3).follow()
    here.publish_all(*numbers(5))
    entries = here.wait_for_entries(5)
    there = RecordingTopic(others, history=3).follow()
    there.expect("2", "3", "4")
    assert there.floors == [entries[1].stream_id]
    assert streams.flush(TIMEOUT)


def test_following_a_topic_again_loads_it_again(
    streams: RedisStreams, others: RedisStreams
) -> None:
    here, there = RecordingTopic(streams), RecordingTopic(others).follow()
    for round_ in range(20):
        here.floors.clear()
        here.follow()
        there.publish_all(str(round_))
        streams.unfollow(here)
    there.expect(*numbers(20))
    here.floors.clear()
    here.follow()
    assert data_of(here.kept_entries()) == numbers(20)


def test_entries_added_while_a_topic_is_loaded_are_read(
    streams: RedisStreams, others: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others)
    begin = reader.Reader.begin

    def begin_late(self: reader.Reader, *opened: Any) -> None:
        there.publish_all("hello")
        here.wait_for_entries(
            1
        )  # its message came, and was read for the topic that is not followed any more
        begin(self, *opened)

    monkeypatch.setattr(reader.Reader, "begin", begin_late)
    streams.unfollow(here)
    here.floors.clear()
    here.follow()
    wait_until(lambda: data_of(here.kept_entries()) == ["hello"], "the event has arrived")


def test_a_topic_that_is_unfollowed_while_redis_replies_is_not_loaded(
    streams: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = RecordingTopic(streams), RecordingTopic(streams, "other")
    begin = reader.Reader.begin

    def begin_late(self: reader.Reader, request: Any, snapshot: Any) -> None:
        if request.topic is here:
            streams.unfollow(here)
        begin(self, request, snapshot)

    monkeypatch.setattr(reader.Reader, "begin", begin_late)
    streams.follow(here)
    assert streams.flush(TIMEOUT)
    other.follow()  # its snapshot comes later
    assert not here.floors


def test_entries_added_before_a_channel_is_subscribed_again_are_read(
    redis_server: RedisServer,
    streams: RedisStreams,
    others: RedisStreams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others)
    with redis_server.client() as client:
        wait_until(lambda: client.pubsub_channels("wsframe:{news}@0"), "the channel is subscribed")
    subscribe = redis.client.PubSub.subscribe

    def subscribe_late(self: redis.client.PubSub, *channels: str) -> Any:
        if "wsframe:{news}@0" in channels:
            monkeypatch.undo()
            there.publish_all("hello")
            assert others.flush(TIMEOUT)
        return subscribe(self, *channels)

    monkeypatch.setattr(redis.client.PubSub, "subscribe", subscribe_late)
    assert redis_server.cut("wsframe-reader")
    here.expect("hello")


def test_a_closed_topic_accepts_no_events(
    streams: RedisStreams, others: RedisStreams, log: ServerLog
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others)
    there.publish_all("hello")
    here.wait_for_entries(1)
    here.close()
    here.wait_for_entries(2)
    there.publish_all("too late", "and this")
    assert others.flush(TIMEOUT)
    hello, end = here.wait_for_entries(2)
    assert (hello.data, hello.last, end.last) == ("hello", False, True)
    log.expect("dropping event: the topic 'news' is closed", logging.WARNING)
    there.close()
    assert others.flush(TIMEOUT)
    assert there.follow().wait_for_entries(2)[1].last
    assert len(here.entries) == 2


def test_a_later_follower_finds_the_topic_closed(
    streams: RedisStreams, others: RedisStreams
) -> None:
    RecordingTopic(streams).publish_all("hello")
    RecordingTopic(streams).close()
    assert streams.flush(TIMEOUT)
    there = RecordingTopic(others, history=0).follow()
    (end,) = there.wait_for_entries(1)
    assert end.last
    assert end.stream_id == there.floors[0]


def members(streams: RedisStreams, *expected: str) -> None:
    topic = RecordingTopic(streams)
    wait_until(lambda: topic.members() == list(expected), f"the members are {expected}")


def test_all_processes_know_the_members(streams: RedisStreams, others: RedisStreams) -> None:
    streams.join(replica("news"), "ann")
    streams.join(replica("news"), "ann")
    others.join(replica("news"), "ann")
    others.join(replica("news"), "bob")
    others.join(replica("other"), "eve")
    for each in (streams, others):
        members(each, "ann", "bob")
    others.leave(replica("news"), "ann")
    streams.leave(replica("news"), "ann")
    others.leave(replica("news"), "bob")
    members(others, "ann")
    streams.leave(replica("news"), "ann")
    for each in (streams, others):
        members(each)


def test_close_removes_the_members(streams: RedisStreams, others: RedisStreams) -> None:
    streams.join(replica("news"), "ann")
    members(others, "ann")
    streams.close(TIMEOUT)
    members(others)


@pytest.mark.slow
def test_members_of_a_silent_process_expire(redis_server: RedisServer, connect: Connect) -> None:
    silent = connect(redis_server.url, presence_ttl=2)
    others = connect(redis_server.url, presence_ttl=0.5, presence_renewal=0.05)
    silent.join(replica("news"), "ann")
    members(others, "ann")
    members(others)
    others.join(replica("news"), "bob")
    until = time.monotonic() + 1.0
    wait_until(
        lambda: RecordingTopic(others).members() == ["bob"] and time.monotonic() > until,
        "only the member bob is kept",
    )


def test_members_return_after_redis_was_wiped(
    redis_server: RedisServer, connect: Connect, others: RedisStreams
) -> None:
    streams = connect(redis_server.url, presence_renewal=0.05)
    streams.join(replica("news"), "ann")
    members(others, "ann")
    with redis_server.client() as client:
        client.flushall()
    members(others, "ann")


def test_members_raises_while_redis_is_unavailable(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    topic = RecordingTopic(streams)
    assert topic.members() == []
    topic.follow()
    redis_server.kill()
    with pytest.raises(BrokerUnavailable, match="cannot read the members of the topic"):
        topic.members()
    wait_until(lambda: streams.connection.unavailable, "the outage is noticed")
    with pytest.raises(BrokerUnavailable, match="cannot read the members of the topic"):
        topic.members()
    redis_server.start()
    assert topic.members() == []


def test_members_include_this_process_as_soon_as_redis_returns(
    redis_server: RedisServer, connect: Connect
) -> None:
    streams = connect(redis_server.url, redis_min_backoff=0.5, redis_max_backoff=0.5)
    topic = RecordingTopic(streams).follow()
    redis_server.kill()
    wait_until(lambda: streams.connection.unavailable, "the outage is noticed")
    streams.join(replica(topic.name), "ann")
    redis_server.start()
    assert topic.members() == ["ann"]


def test_members_raises_if_redis_does_not_store_those_of_this_process(
    redis_server: RedisServer, connect: Connect
) -> None:
    streams = connect(
        redis_server.url, redis_min_backoff=60, redis_max_backoff=60, redis_timeout=0.2
    )
    topic = RecordingTopic(streams).follow()
    redis_server.kill()
    wait_until(lambda: streams.connection.unavailable, "the outage is noticed")
    streams.join(replica(topic.name), "ann")
    redis_server.start()
    with pytest.raises(BrokerUnavailable, match=r"of this process in 0\.2 s"):
        topic.members()


def check_that_it_works(url: str, connect: Connect) -> None:
    here = RecordingTopic(connect(url)).follow()
    here.publish_all("hello")
    here.expect("hello")
    here.streams.join(replica("news"), "ann")
    others = connect(url)
    members(others, "ann")
    for streams in (here.streams, others):
        streams.close(TIMEOUT)  # before Redis ends


def test_a_redis_with_a_password(tmp_path: Path, connect: Connect, log: ServerLog) -> None:
    with RedisServer(tmp_path, password="p@ss/w:rd") as redis_server:
        check_that_it_works(redis_server.url, connect)
        wrong = connect(f"redis://:wrong@127.0.0.1:{redis_server.port}")
        wrong.join(replica("news"), "ann")
        log.expect("does not support topics: invalid username-password pair")
        with pytest.raises(BrokerRefused, match="invalid username-password pair"):
            RecordingTopic(wrong).publish("refused")
        wrong.close(TIMEOUT)
        log.records.clear()


def test_redis_over_tls(tmp_path: Path, connect: Connect, certificates: Certificates) -> None:
    with RedisServer(tmp_path, certificates=certificates) as redis_server:
        check_that_it_works(redis_server.url, connect)


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_redis_over_a_unix_socket(tmp_path: Path, connect: Connect) -> None:
    with RedisServer(tmp_path, unix="s", password="secret") as redis_server:
        check_that_it_works(redis_server.url, connect)


def test_an_invalid_url_is_rejected() -> None:
    with pytest.raises(ValueError, match="must specify one of"):
        App(redis="http://localhost")

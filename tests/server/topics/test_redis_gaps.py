"""Events that are missing in Redis, and keys that other programs have changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.topics.redis_streams import publish_by_script
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers, publishes
from tests.support.redis_server import RedisServer
from tests.support.topics import replica
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import BrokerRefused, EventsLost
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.sizes import Sizes


def test_a_wiped_redis_is_a_gap(redis_server: RedisServer, streams: RedisStreams) -> None:
    here = RecordingTopic(streams).follow()
    here.publish_all(*numbers(3))
    here.expect(*numbers(3))
    assert streams.flush(TIMEOUT)
    with redis_server.client() as client:
        client.flushall()
    here.publish_all("new")
    *_, gap, new = here.wait_for_entries(5)
    assert (gap.data, gap.oldest) == ("", new.stream_id)
    assert place_of(here.entries[2].stream_id) <= place_of(gap.stream_id) < place_of(new.stream_id)
    here.publish_all("next")
    assert data_of(here.wait_for_entries(6))[5:] == ["next"]


def test_a_restarted_empty_redis_is_a_gap(tmp_path: Path, connect: Connect) -> None:
    with RedisServer(tmp_path, persistent=False) as redis_server:
        here = RecordingTopic(connect(redis_server.url)).follow()
        here.publish_all(*numbers(3))
        here.expect(*numbers(3))
        assert here.streams.flush(TIMEOUT)
        redis_server.restart()
        gap = here.wait_for_entries(4)[3]
        assert (gap.data, gap.oldest) == ("", "")
        assert place_of(gap.stream_id) > place_of(here.entries[2].stream_id)
        here.publish_all("new")
        assert data_of(here.wait_for_entries(5))[4:] == ["new"]
        assert here.streams.flush(TIMEOUT)


def test_entries_removed_before_they_were_read_are_a_gap(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    here = RecordingTopic(streams).follow()
    here.publish_all("first")
    here.expect("first")
    with redis_server.client() as client, client.pipeline() as pipe:
        pipe.multi()
        for number in range(1, 6):
            publish_by_script(pipe, number, number - 1, str(number), entries=2)
        *_, oldest, newest = pipe.execute()
    entries = here.wait_for_entries(4)
    assert data_of(entries) == ["first", "", "4", "5"]
    assert [entries[1].oldest, entries[2].stream_id, entries[3].stream_id] == [
        oldest.decode(),
        oldest.decode(),
        newest.decode(),
    ]


def test_publishing_continues_after_redis_lost_acknowledged_events(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = RecordingTopic(streams).follow()
    here.publish_all("first", "second")
    here.expect("first", "second")
    assert streams.flush(TIMEOUT)
    with redis_server.client() as client:
        (publisher,) = client.keys("*:by:*")
        client.set(publisher, 1)  # as after a crash of a Redis that syncs its disk periodically
    here.publish_all("third", "fourth")
    assert data_of(here.wait_for_entries(4)) == ["first", "second", "third", "fourth"]
    log.expect("Redis has lost acknowledged events of the topic 'news'")


@pytest.mark.slow
def test_a_key_that_is_not_a_stream_affects_only_its_topic(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = RecordingTopic(streams).follow()
    with redis_server.client() as client:
        client.set("wsframe:{bad}", "taken")
    bad = RecordingTopic(streams, "bad")
    bad.publish_all("lost")
    log.expect("dropping event: Redis rejected the topic 'bad': ")
    with pytest.raises(BrokerRefused, match="Redis rejected the topic 'bad': the key"):
        bad.publish("refused")
    here.publish_all("hello")
    here.expect("hello")
    with redis_server.client() as client:
        client.set("wsframe:{worse}", "taken")
        client.delete("wsframe:{bad}", "wsframe:{bad}:meta")
    wait_until(lambda: publishes(bad, "good"), "the topic is accepted again")
    lost, good = bad.follow().wait_for_entries(2)
    assert (lost.oldest, good.data) == ("", "good")
    with redis_server.client() as client:
        client.set("wsframe:{bad}", "taken")  # while the topic is read
        client.publish("wsframe:{bad}@0", "")
    log.expect("Redis rejected reading the topic 'bad': ")
    here.publish_all("world")
    here.expect("hello", "world")
    wait_until(lambda: publishes(bad, "lost, too"), "the topic is accepted again")
    with pytest.raises(EventsLost, match="2 published events are lost: Redis rejected the topic"):
        streams.flush(TIMEOUT)
    log.expect("dropping event: Redis rejected the topic 'bad': ")
    # When the key is free again, subscribers receive a gap and the next events.
    with redis_server.client() as client:
        client.delete("wsframe:{bad}")
    wait_until(lambda: publishes(bad, "again"), "the topic is accepted again")
    *_, lost, again = bad.wait_for_entries(4)
    assert (lost.oldest, again.data) == ("", "again")
    log.records.clear()


def test_an_invalid_entry_is_dropped(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = RecordingTopic(streams).follow()
    with redis_server.client() as client:
        client.xadd("wsframe:{news}", {"d": b"\xff"})
    here.publish_all("hello")
    log.expect("of the topic 'news' in Redis: it has no number")
    assert data_of(here.wait_for_entries(2)) == ["", "hello"]


@pytest.mark.parametrize("what", ["publish", "follow", "join", "key"])
def test_text_with_a_lone_surrogate_is_rejected(streams: RedisStreams, what: str) -> None:
    topic, bad = RecordingTopic(streams), RecordingTopic(streams, "\ud800")
    attempts: dict[str, Callable[[], object]] = {
        "publish": lambda: bad.publish("x"),
        "follow": lambda: streams.follow(bad),
        "join": lambda: streams.join(replica("news"), "\ud800"),
        "key": lambda: topic.publish("x", key="\ud800"),
    }
    with pytest.raises(ValueError, match="surrogates not allowed"):
        attempts[what]()


def test_many_new_entries_are_read_in_batches(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(redis_server.url, sizes=Sizes(read_batch=3))
    topics = [RecordingTopic(streams, name).follow() for name in ("news", *numbers(7))]
    for topic in topics[1:]:
        topic.publish_all("hello")
    with redis_server.client() as client, client.pipeline() as pipe:
        for number in range(1, 21):
            publish_by_script(pipe, number, number - 1, str(number - 1))
        pipe.execute()
    topics[0].expect(*numbers(20))
    for topic in topics[1:]:
        topic.expect("hello")


def test_channels_of_unfollowed_topics_are_unsubscribed(
    redis_server: RedisServer, connect: Connect
) -> None:
    streams = connect(redis_server.url, redis_read_timeout=0.1)
    here, there = RecordingTopic(streams).follow(), RecordingTopic(streams, "other").follow()
    streams.unfollow(here)
    with redis_server.client() as client:

        def channels() -> list[bytes]:
            return [name for name in client.pubsub_channels() if b"wake" not in name]

        wait_until(
            lambda: channels() == [b"wsframe:{other}@0"], "only the other channel is subscribed"
        )
    there.publish_all("hello")
    there.expect("hello")

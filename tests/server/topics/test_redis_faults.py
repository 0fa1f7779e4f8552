"""An error of one topic or one event in Redis affects no other, and loses no event."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions

from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers, publishes
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import EventsLost
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis.faults import Fault, fault_of
from wsframe.server.topics.redis.streams import RedisStreams

STREAM, META = "wsframe:{news}", "wsframe:{news}:meta"


def check_that_others_continue(*processes: RedisStreams) -> None:
    """Publish to another topic, and receive the event in every process."""
    topics = [RecordingTopic(streams, "quiet").follow() for streams in processes]
    for topic in topics:
        topic.publish_all("hello")
    for topic in topics:
        topic.expect(*["hello"] * len(topics))


# Keys changed by other programs -------------------------------------------------------------------


DAMAGE = {
    "meta without its fields": ("DEL", META, "HSET", META, "x", "1"),
    "an invalid number": ("HSET", META, "n", "many"),
    "a number that is huge": ("HSET", META, "n", 30 * "9"),
    "an invalid byte count": ("HSET", META, "bytes", "nan"),
    "a floor that is not an id": ("HSET", META, "floor", "here"),
    "an invalid last id": ("HDEL", META, "last"),
    "an end that is not an id": ("HSET", META, "closed", "yes"),
    "no life": ("HDEL", META, "life"),
    "no meta": ("DEL", META),
    "no stream": ("DEL", STREAM),
    "neither": ("DEL", META, STREAM),
}


def damage(client: Any, kind: str) -> None:
    words = DAMAGE[kind]
    if words[0] == "DEL" and "HSET" in words:
        client.execute_command(*words[:2])
        words = words[2:]
    client.execute_command(*words)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_topic_with_damaged_keys_continues_after_a_gap(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams, kind: str
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    here.publish_all(*numbers(3))
    for topic in (here, there):
        topic.expect(*numbers(3))
    seen = here.entries[1].stream_id  # by a client that lags by one entry
    with redis_server.client() as client:
        damage(client, kind)
    here.publish_all("new")
    for topic in (here, there):
        wait_until(lambda: data_of(topic.entries)[-1] == "new", "the event has not arrived")  # noqa: B023
    check_that_others_continue(streams, others)
    # A later client is sent a gap, because other events are lost, too.
    late = RecordingTopic(others).follow()
    floor = place_of(late.floors[0])
    assert floor > place_of(seen)
    assert data_of(late.kept_entries()) == ["new"]


def test_an_overwritten_life_doubles_no_event(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    here.publish_all(*numbers(3))
    there.expect(*numbers(3))
    with redis_server.client() as client:
        client.hset(META, "life", "another")
    here.publish_all("new", "newer")
    there.expect(*numbers(3), "new", "newer")
    check_that_others_continue(streams, others)


@pytest.mark.parametrize("key", [STREAM, META])
@pytest.mark.parametrize("wrong", ["APPEND", "SADD", "LPUSH"])
def test_a_key_of_another_type_affects_only_its_topic(
    redis_server: RedisServer,
    connect: Connect,
    others: RedisStreams,
    log: ServerLog,
    key: str,
    wrong: str,
) -> None:
    streams = connect(redis_server.url, redis_retry_delay=0.1, redis_read_timeout=0.1)
    here = RecordingTopic(streams).follow()
    here.publish_all("1")
    here.expect("1")
    with redis_server.client() as client:
        client.delete(key)
        client.execute_command(wrong, key, "x")
        here.publish_all("lost")
        log.expect("dropping event: Redis rejected the topic 'news': ")
        check_that_others_continue(streams, others)
        client.delete(key)
    wait_until(lambda: publishes(here, "2"), "the topic is still rejected")
    wait_until(lambda: data_of(here.entries)[-1] == "2", "the event has not arrived")
    assert here.entries[1].oldest is not None  # the gap
    with pytest.raises(EventsLost):
        streams.flush(TIMEOUT)
    log.records.clear()


GARBAGE: dict[str, dict[str, Any]] = {
    "no number": {"d": "x"},
    "an invalid number": {"n": "two", "d": "x"},
    "no data": {"n": "2"},
    "no text": {"n": "2", "d": b"\xff"},
    "an id that ends streams": {"n": "2", "d": "x", "i": ":end"},
    "an id of several topics": {"n": "2", "d": "x", "i": "?a=b"},
    "an id with a line break": {"n": "2", "d": "x", "i": "a\nb"},
    "an event type with a line break": {"n": "2", "d": "x", "e": "a\rb"},
    "an event type that is too long": {"n": "2", "d": "x", "e": "a" * 1025},
    "a key that is too long": {"n": "2", "d": "x", "k": "a" * 1025},
    "an invalid retry time": {"n": "2", "d": "x", "r": "soon"},
    "an invalid end": {"n": "2", "d": "", "l": "1"},
    "nothing": {"x": "y"},
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_an_invalid_entry_is_a_gap(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog, kind: str
) -> None:
    here = RecordingTopic(streams).follow()
    here.publish_all("1")
    here.expect("1")
    with redis_server.client() as client:
        client.xadd(STREAM, GARBAGE[kind])
        if GARBAGE[kind].get("n") == "2":
            client.hincrby(META, "n", 1)
        client.publish(f"{STREAM}@0", client.hget(META, "life"))
    here.publish_all("2")
    assert data_of(here.wait_for_entries(3)) == ["1", "", "2"]
    assert here.entries[1].oldest is not None
    assert not any(entry.last for entry in here.entries)
    log.expect("of the topic 'news' in Redis: ")
    # Later followers do not accept it either.
    late = RecordingTopic(streams).follow()
    assert data_of(late.kept_entries()) == ["1", "", "2"]
    log.expect("of the topic 'news' in Redis: ")


def test_missing_entries_are_a_gap(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams
) -> None:
    here = RecordingTopic(streams).follow()
    here.publish_all(*numbers(5))
    middle = here.expect(*numbers(5))[2].stream_id
    with redis_server.client() as client:
        client.xdel(STREAM, middle)
    there = RecordingTopic(others).follow()
    assert data_of(there.kept_entries()) == ["0", "1", "", "3", "4"]


# Events that Redis rejects ------------------------------------------------------------------------


LIMITS = [("proto-max-bulk-len", 1 << 20), ("client-query-buffer-limit", 1 << 20)]


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "value"), LIMITS)
def test_an_event_beyond_a_limit_of_redis_affects_no_other(
    redis_server: RedisServer,
    streams: RedisStreams,
    others: RedisStreams,
    log: ServerLog,
    limit: str,
    value: int,
) -> None:
    here = RecordingTopic(streams, max_bytes=8 << 20).follow()
    here.publish_all("1")
    here.expect("1")
    with redis_server.client() as client:
        client.config_set(limit, value)
    assert streams.connection.largest > 4 << 20  # the limit known to the writer is outdated
    here.publish_all("2", "x" * (4 << 20), "3")
    assert data_of(here.wait_for_entries(4)) == ["1", "2", "", "3"]
    assert here.entries[2].oldest is not None
    log.expect("dropping event: Redis rejected an event of ")
    with pytest.raises(EventsLost, match="1 published events are lost: Redis rejected"):
        streams.flush(TIMEOUT)
    check_that_others_continue(streams, others)


def test_publish_rejects_an_event_beyond_a_known_limit_of_redis(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    with redis_server.client() as client:
        client.config_set("proto-max-bulk-len", 1 << 20)
    here = RecordingTopic(streams, max_bytes=8 << 20).follow()
    with pytest.raises(ValueError, match="proto-max-bulk-len of Redis is 1048576"):
        here.publish("x" * (2 << 20))
    here.publish_all("hello")
    here.expect("hello")


def test_publish_rejects_an_event_beyond_the_limit_of_its_topic(
    streams: RedisStreams,
) -> None:
    here = RecordingTopic(streams, max_bytes=1000)
    with pytest.raises(ValueError, match="whose limit in Redis is 52152 bytes"):
        here.publish("x" * 52_153)
    here.publish("x" * 52_152)
    assert streams.flush(TIMEOUT)


# Errors of a script of Redis 6.2, with the code of the failed command in the text.
SCRIPT_ERROR = "ERR Error running script (call to f_0123): @user_script:7: -"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (exceptions.ResponseError(f"{SCRIPT_ERROR}OOM command not allowed"), Fault.OUTAGE),
        (exceptions.ResponseError(f"{SCRIPT_ERROR}READONLY You can't write"), Fault.OUTAGE),
        (exceptions.ResponseError("ERR max number of clients reached"), Fault.OUTAGE),
        (exceptions.ResponseError(f"{SCRIPT_ERROR}CROSSSLOT Keys in request"), Fault.REFUSAL),
        (exceptions.ResponseError("ERR unknown command 'XADD'"), Fault.REFUSAL),
        (exceptions.ResponseError("ERR Protocol error: invalid bulk length"), Fault.POISON),
        (exceptions.ResponseError(f"{SCRIPT_ERROR}NOPERM this user has no"), Fault.ITEM),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), Fault.ITEM),
        (exceptions.NoPermissionError("this user has no permissions"), Fault.ITEM),
        (exceptions.AuthenticationError("invalid password"), Fault.REFUSAL),
        (exceptions.OutOfMemoryError("command not allowed"), Fault.OUTAGE),
        (ConnectionResetError(), Fault.OUTAGE),
    ],
)
def test_the_scope_of_an_error_is_its_class_or_the_code_in_its_text(
    error: Exception, fault: Fault
) -> None:
    assert fault_of(error) is fault

"""An error of one topic or one event in Redis affects no other, and loses no event."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from typing import Any

import pytest
import redis
from redis import exceptions

from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers, publishes
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import BrokerRefused, EventsLost
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis import reader, writer
from wsframe.server.topics.redis.faults import Fault, fault_of
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.redis.wrong_types import explained

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
        wait_until(lambda: data_of(topic.entries)[-1] == "new", "the event has arrived")  # noqa: B023
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
        line = log.expect("dropping event: Redis rejected the topic 'news': ").getMessage()
        found, wanted = client.type(key).decode(), {STREAM: "stream", META: "hash"}[key]
        assert f"the key {key!r} has the type {found} instead of {wanted}, because " in line
        check_that_others_continue(streams, others)
        client.delete(key)
    wait_until(lambda: publishes(here, "2"), "the topic is accepted again")
    wait_until(lambda: data_of(here.entries)[-1] == "2", "the event has arrived")
    assert here.entries[1].oldest is not None  # the gap
    with pytest.raises(EventsLost):
        streams.flush(TIMEOUT)
    log.discard()


def test_members_under_a_key_of_another_type_affect_only_the_members_of_their_topic(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, presence_renewal=0.1)
    with redis_server.client() as client:
        for name in ("", "news"):
            client.set(f"wsframe:{{{name}}}:members", "of another program")
        streams.check()
        here, empty, quiet = (RecordingTopic(streams, name) for name in ("news", "", "quiet"))
        for topic in (here, empty, quiet):
            streams.join(topic, "ann")
            topic.follow().publish("1")
            topic.expect("1")
        reason = "the key 'wsframe:{news}:members' has the type string instead of zset, because "
        log.expect(f"Redis rejected the members of the topic 'news': {reason}")
        with pytest.raises(BrokerRefused, match=f"cannot read the members .*{reason}"):
            streams.members(here)
        assert streams.members(quiet) == ["ann"]
        for name in ("", "news"):
            client.delete(f"wsframe:{{{name}}}:members")
    for topic in (here, empty):
        wait_until(lambda: streams.members(topic) == ["ann"], "the member is renewed")  # noqa: B023
    assert not [each for each in log.records if each.levelno == logging.WARNING]
    log.discard()


def test_members_that_another_program_has_added_do_no_harm(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    topic = RecordingTopic(streams)
    streams.join(topic, "ann")
    with redis_server.client() as client:
        members: dict[bytes, float] = {b"eve": math.inf, b"x\0\xff": math.inf}
        client.zadd("wsframe:{news}:members", members)
    assert streams.members(topic) == ["ann", "\N{REPLACEMENT CHARACTER}"]
    streams.leave(topic, "ann")


def test_a_topic_without_its_hash_at_its_end_affects_no_other(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, redis_read_timeout=0.1)
    here = RecordingTopic(streams).follow()
    here.publish_all("1")
    here.expect("1")
    with redis_server.client() as client, client.pipeline() as pipe:
        life = client.hget(META, "life")
        kept = client.hgetall(META)
        pipe.set(META, "taken").xadd(STREAM, {"n": "2", "d": "", "l": "1"})
        pipe.publish(f"{STREAM}@0", life).execute()
        line = log.expect("Redis rejected reading the topic 'news': ").getMessage()
        assert f"the key {META!r} has the type string instead of hash" in line
        check_that_others_continue(streams)
        client.delete(META)
        client.hset(META, mapping={**kept, "n": 2})
    assert here.wait_for_entries(2)[1].oldest is not None
    assert not [each for each in log.records if each.levelno == logging.WARNING]
    log.discard()


def test_a_stream_that_is_overwritten_between_two_commands_affects_no_other(
    redis_server: RedisServer,
    connect: Connect,
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = connect(redis_server.url, redis_read_timeout=0.1)
    here = RecordingTopic(streams).follow()
    here.publish_all("1")
    here.expect("1")
    execute: Any = redis.Redis.execute_command
    errors = ["BUSY Redis is busy", "WRONGTYPE Operation against a key"]

    def reject(self: Any, *words: Any, **options: Any) -> Any:
        if words[0] == "XRANGE" and errors:
            raise redis.ResponseError(errors.pop())
        return execute(self, *words, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", reject)
    with redis_server.client() as client:
        client.delete(STREAM, META)
        client.publish(f"{STREAM}@0", "another life")
    log.expect("Redis rejected reading the topic 'news': WRONGTYPE Operation against a key")
    log.expect("until it answers, and events wait: BUSY", logging.WARNING)
    assert here.wait_for_entries(2)[1].oldest is not None
    check_that_others_continue(streams)


def test_the_reason_of_redis_remains_if_no_key_has_a_wrong_type(redis_server: RedisServer) -> None:
    error = redis.ResponseError("WRONGTYPE Operation against a key")
    with redis_server.client() as client:
        assert explained(client, error, {"missing": "hash"}) == str(error)
        redis_server.kill()
        assert explained(client, error, {"missing": "hash"}) == str(error)


def test_a_check_that_fails_is_logged(connect: Connect, log: ServerLog) -> None:
    connect("redis://an..invalid.host").check()
    log.expect("the check of Redis at an..invalid.host:6379 has failed: ", logging.WARNING)


class Held(RecordingTopic):
    """A topic that keeps the reader waiting at its first entry."""

    def __init__(self, streams: RedisStreams) -> None:
        super().__init__(streams, "held")
        self.has_entry, self.go_on = threading.Event(), threading.Event()

    def append(self, entries: Iterable[Entry]) -> Any:
        entries = list(entries)
        if entries:
            self.has_entry.set()
            assert self.go_on.wait(TIMEOUT)
        return super().append(entries)


def test_topics_that_are_read_together_are_rejected_one_by_one(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    # No topic is tried again in this test.
    streams = connect(redis_server.url, redis_read_timeout=10 * TIMEOUT)
    RecordingTopic(streams).follow()
    good = RecordingTopic(streams, "good").follow()
    held = Held(streams)
    held.follow()
    held.publish("1")
    assert held.has_entry.wait(TIMEOUT)
    good.publish("hello")
    assert streams.flush(TIMEOUT)
    with redis_server.client() as client:
        life = client.hget(META, "life")
        client.execute_command("SET", STREAM, "taken")
        client.publish(f"{STREAM}@0", life)
        held.go_on.set()
        log.expect("Redis rejected reading the topic 'news': ")
        good.expect("hello")
    log.discard()


def test_many_announcements_do_not_delay_the_entries(
    redis_server: RedisServer, streams: RedisStreams
) -> None:
    here, held = RecordingTopic(streams).follow(), Held(streams)
    held.follow()
    held.publish("1")
    assert held.has_entry.wait(TIMEOUT)
    with redis_server.client() as client, client.pipeline() as pipe:
        life = client.hget(META, "life")
        for _ in range(2 * reader.MESSAGES):
            pipe.publish(f"{STREAM}@0", life)
        pipe.execute()
    here.publish("hello")
    held.go_on.set()
    here.expect("hello")
    held.expect("1")


def test_a_topic_that_redis_rejects_at_first_is_followed_later(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, redis_retry_delay=0.1)
    here = RecordingTopic(streams)
    with redis_server.client() as client:
        client.set(META, "taken")
        streams.follow(here)
        log.expect("Redis rejected the topic 'news': ")
        check_that_others_continue(streams)
        assert not here.floors
        client.delete(META)
    wait_until(lambda: here.floors, "the topic is loaded")
    here.publish("hello")
    here.expect("hello")
    log.discard()


def test_a_busy_redis_is_waited_for(
    streams: RedisStreams, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = RecordingTopic(streams).follow()
    execute: Any = redis.Redis.execute_command
    rejected = threading.Event()

    def reject_once(self: Any, *words: Any, **options: Any) -> Any:
        if words[0] == "XREAD" and not rejected.is_set():
            rejected.set()
            raise redis.ResponseError("BUSY Redis is busy running a script")
        return execute(self, *words, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", reject_once)
    here.publish("hello")  # a call of XREAD that has begun before may return it
    here.expect("hello")
    assert rejected.wait(TIMEOUT)
    log.expect("until it answers, and events wait: BUSY", logging.WARNING)
    here.publish("again")
    here.expect("hello", "again")


def test_the_number_of_remembered_rejections_is_limited(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, redis_retry_delay=100 * TIMEOUT)
    topics = [RecordingTopic(streams, f"{number}") for number in range(writer.MAX_REFUSED + 1)]
    with redis_server.client() as client:
        client.mset({f"wsframe:{{{topic.name}}}": "taken" for topic in topics})
    for topic in topics:
        topic.publish("lost")
    with pytest.raises(EventsLost, match=f"{len(topics)} published events are lost"):
        streams.flush(TIMEOUT)
    assert publishes(topics[0], "2")
    assert not publishes(topics[-1], "2")
    with pytest.raises(EventsLost, match="1 published event is lost"):
        streams.flush(TIMEOUT)
    log.discard()


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
    with pytest.raises(EventsLost, match="1 published event is lost: Redis rejected"):
        streams.flush(TIMEOUT)
    check_that_others_continue(streams, others)


def test_an_event_that_redis_cannot_parse_is_a_gap(
    streams: RedisStreams, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the error reply arrives before the connection is closed."""
    here = RecordingTopic(streams).follow()
    here.publish("1")
    assert streams.flush(TIMEOUT)
    execute = redis.client.Pipeline.execute

    def reject(self: Any, *arguments: Any, **options: Any) -> Any:
        if any(b"too large" in words for words, _ in self.command_stack):
            self.reset()
            return [redis.ResponseError("Protocol error: invalid bulk length")]
        return execute(self, *arguments, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", reject)
    here.publish("too large")
    here.wait_for_entries(2)
    here.publish("3")
    assert data_of(here.wait_for_entries(3)) == ["1", "", "3"]
    log.expect("dropping event: Redis rejected an event of ")
    with pytest.raises(EventsLost, match="1 published event is lost: Redis rejected"):
        streams.flush(TIMEOUT)


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
        (exceptions.NoScriptError("No matching script"), Fault.OUTAGE),
        (ConnectionResetError(), Fault.OUTAGE),
    ],
)
def test_the_scope_of_an_error_is_its_class_or_the_code_in_its_text(
    error: Exception, fault: Fault
) -> None:
    assert fault_of(error) is fault

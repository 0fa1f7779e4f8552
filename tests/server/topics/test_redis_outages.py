"""Redis is slow, restarts, or is unreachable."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.server.topics.redis_streams import Publishing, check_that_all_came, publish_by_script
from tests.support.clients import Clients, upgrade
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, numbers
from tests.support.redis_server import RedisServer, Relay
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, BrokerRefused, BrokerUnavailable, EventsLost, Request, WebSocket
from wsframe.server.reports.loggers import background
from wsframe.server.reports.throttled import ThrottledLog
from wsframe.server.timing import Timing
from wsframe.server.topics import failures
from wsframe.server.topics.failures import log_failure
from wsframe.server.topics.ids import place_of
from wsframe.server.topics.redis.connection import RedisConnection
from wsframe.server.topics.redis.streams import RedisStreams

THREADS = ("wsframe-writer", "wsframe-reader")


@pytest.mark.slow
def test_killing_redis_loses_and_doubles_no_event(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    with Publishing(here) as publishing:
        for _ in range(4):
            there.wait_for_entries(len(there.entries) + 50)
            redis_server.kill()
            wait_until(
                lambda: streams.connection.unavailable and others.connection.unavailable,
                "the outage is noticed",
            )
            redis_server.start()
            wait_until(
                lambda: not (streams.connection.unavailable or others.connection.unavailable),
                "Redis is found again",
            )
    check_that_all_came(publishing, here, there)


@pytest.mark.slow
@pytest.mark.parametrize("thread", THREADS)
def test_cutting_a_connection_loses_and_doubles_no_event(
    redis_server: RedisServer, streams: RedisStreams, others: RedisStreams, thread: str
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    cuts = 0
    with Publishing(here) as publishing:
        while cuts < 10:
            there.wait_for_entries(len(there.entries) + 20)
            cuts += redis_server.cut(thread)
    check_that_all_came(publishing, here, there)


def test_an_event_with_a_lost_reply_is_not_doubled(
    redis_server: RedisServer, connect: Connect, others: RedisStreams
) -> None:
    there = RecordingTopic(others).follow()
    with Relay(redis_server) as relay:
        streams = connect(relay.url)
        here = RecordingTopic(streams)
        for round_ in range(3):
            relay.lose_the_answer_to(b"the last")
            here.publish_all(*numbers(20, f"{round_}-"), f"the last of {round_}")
            assert relay.lost.wait(TIMEOUT)
            assert streams.flush(TIMEOUT)
        streams.close(TIMEOUT)
    there.expect(*(d for n in range(3) for d in [*numbers(20, f"{n}-"), f"the last of {n}"]))


def test_redis_recognizes_events_that_are_sent_again(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        first = publish_by_script(client, 3, 0)
        assert place_of(first.decode())
        assert publish_by_script(client, 3, 0) == b"known"
        # Commands of an old connection may arrive late, or earlier ones may be lost.
        assert publish_by_script(client, 2, 0) == b"known"
        assert publish_by_script(client, 9, 8) == b"hole"
        second = publish_by_script(client, 8, 3)
        assert place_of(second.decode()) > place_of(first.decode())
        assert client.xlen("wsframe:{news}") == 2
        assert client.hget("wsframe:{news}:meta", "n") == b"2"


def test_an_outage_and_its_end_are_logged_once(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = RecordingTopic(streams).follow()
    for _ in range(2):
        redis_server.kill()
        here.publish_all("during the outage")
        log.expect("until it answers, and events wait: ", logging.WARNING)
        wait_until(
            lambda: len(streams.connection.failing) == 2, "both threads have noticed the outage"
        )
        redis_server.start()
        log.expect("reconnected to Redis", logging.WARNING)
    here.expect("during the outage", "during the outage")
    assert not [record for record in log.records if "Redis" in record.getMessage()]


def test_a_long_outage_is_logged_repeatedly(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, redis_report_interval=0.1)
    RecordingTopic(streams).follow()
    redis_server.kill()
    for _ in range(2):
        line = log.expect(": Error 111 ", logging.WARNING).getMessage()
        assert line.startswith(f"Redis at 127.0.0.1:{redis_server.port} is unavailable; ")


def test_a_connection_that_is_lost_again_and_again_is_logged_once_per_interval(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    url, interval = redis_server.url, 100 * TIMEOUT
    connection = connect(url, redis_min_backoff=0.001, log_throttle=interval).connection
    stop = threading.Event()
    rounds = []

    def act(client: Any, succeeded: Callable[[], None]) -> None:
        succeeded()
        rounds.append(client)
        if len(rounds) == 5:
            stop.set()
        raise redis.ConnectionError("closed by a proxy")

    connection.run_until_stopped("test", act, stop)
    log.expect(" is unavailable; ", logging.WARNING)
    assert not log.records
    log.discard()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://ann:secret@localhost", "localhost:6379"),
        ("rediss://[::1]:7/3", "[::1]:7"),
        ("unix://:secret@/run/redis.sock?db=3", "/run/redis.sock"),
    ],
)
def test_log_lines_have_the_address_without_the_password(url: str, address: str) -> None:
    assert RedisConnection(url, "wsframe:", Timing()).address == address


@pytest.mark.parametrize("kind", ["websocket", "stream", "authorize"])
def test_functions_that_fail_in_an_outage_are_logged_without_a_traceback(
    serve: Serve, clients: Clients, redis_server: RedisServer, log: ServerLog, kind: str
) -> None:
    app = App(redis=redis_server.url)
    topic = app.topic("news")

    def chat(ws: WebSocket) -> None:
        ws.receive()
        topic.members()

    def authorize(request: Request) -> bool:
        return kind != "authorize" or bool(topic.members())

    app.websocket("/websocket", authorize=authorize)(chat)
    app.sse("/stream")(lambda stream: topic.members())
    server = serve(app)
    redis_server.kill()
    if kind == "websocket":
        ws = clients.websocket(server, "/websocket")
        ws.send_messages("members")
        assert ws.expect_close().code == 1011
    elif kind == "stream":
        clients.stream(server, "/stream")
    else:
        client = clients.connect(server)
        client.send(upgrade("/websocket"))
        assert client.answer().status == 500
    line = log.expect(" (it may catch BrokerUnavailable): cannot read the members of the topic ")
    assert f"because Redis at 127.0.0.1:{redis_server.port} has failed: " in line.getMessage()
    assert line.exc_info is None


@pytest.mark.parametrize("error", [BrokerUnavailable("x"), BrokerRefused("x"), EventsLost(1, "x")])
def test_a_flood_of_broker_errors_is_one_line(
    log: ServerLog, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(failures, "broker_errors", ThrottledLog(3 * TIMEOUT))
    for _ in range(100):
        log_failure(error, "the handler of %s failed", "/")
    log.expect("the handler of / failed (it may catch ")
    assert log.records == []
    assert background.close(TIMEOUT)  # logs the summary that is scheduled
    log.expect(" (the last of 99 similar messages)")


def test_a_redis_that_does_not_run_yet_is_logged_at_the_start(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    redis_server.kill()
    streams = connect(redis_server.url)
    streams.check()
    log.expect("; topics connect when they are used", logging.WARNING)
    here = RecordingTopic(streams)
    here.publish("hello")
    wait_until(lambda: len(streams.connection.failing) == 2, "both threads have noticed the outage")
    redis_server.start()
    log.expect("reconnected to Redis at ", logging.WARNING)
    here.follow().expect("hello")
    redis_server.kill()
    log.expect("until it answers, and events wait: ", logging.WARNING)
    redis_server.start()
    log.expect("reconnected to Redis at ", logging.WARNING)
    assert not [record for record in log.records if "Redis" in record.getMessage()]


def test_a_redis_that_does_not_reply_is_unavailable(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    streams = connect(redis_server.url, redis_timeout=0.5, redis_read_timeout=0.1)
    here = RecordingTopic(streams).follow()
    redis_server.signal(signal.SIGSTOP)
    here.publish_all("hello")
    log.expect("until it answers, and events wait: ", logging.WARNING)
    assert not streams.flush(0)
    redis_server.signal(signal.SIGCONT)
    here.expect("hello")
    assert streams.flush(TIMEOUT)


def test_a_silent_connection_is_replaced(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    """As when the other end has vanished: no call fails, and no data arrives."""
    with Relay(redis_server) as relay:
        streams = connect(relay.url, redis_timeout=1.0, redis_read_timeout=0.1)
        here = RecordingTopic(streams).follow()
        here.publish_all("hello")
        here.expect("hello")
        relay.fall_silent()
        here.publish_all("world")
        log.expect("until it answers, and events wait: Redis sent no message", logging.WARNING)
        here.expect("hello", "world")
        log.expect("reconnected to Redis", logging.WARNING)
        streams.close(TIMEOUT)


def test_a_hanging_redis_does_not_delay_close(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(redis_server.url, redis_timeout=10 * TIMEOUT, redis_stop_timeout=0.1)
    here = RecordingTopic(streams).follow()

    def close() -> None:
        here.publish_all("hello")
        with pytest.raises(EventsLost, match="1 published event is lost"):
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
def test_a_temporarily_read_only_redis_is_waited_for(
    redis_server: RedisServer,
    streams: RedisStreams,
    log: ServerLog,
    command: tuple[str, ...],
    back: tuple[str, ...],
) -> None:
    here = RecordingTopic(streams).follow()
    with redis_server.client() as client:
        client.execute_command(*command)
        here.publish_all("hello", "world")
        log.expect("until it answers, and events wait: ", logging.WARNING)
        assert not streams.flush(0)
        client.execute_command(*back)
        here.expect("hello", "world")
    log.expect("reconnected to Redis", logging.WARNING)
    assert streams.flush(TIMEOUT)


def test_flushed_scripts_are_loaded_again(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = RecordingTopic(streams).follow()
    with redis_server.client() as client:
        client.script_flush()
    here.publish_all("hello")
    here.expect("hello")
    assert not log.records


def test_a_replica_is_waited_for(
    redis_server: RedisServer, connect: Connect, log: ServerLog
) -> None:
    with redis_server.client() as client:
        client.replicaof("127.0.0.1", "1")
        here = RecordingTopic(connect(redis_server.url))
        here.publish("hello")
        log.expect("until it answers, and events wait: this Redis is a replica", logging.WARNING)
        client.replicaof("NO", "ONE")
        here.follow().expect("hello")


def test_a_primary_that_becomes_a_replica_is_noticed_without_an_event(
    redis_server: RedisServer, streams: RedisStreams, log: ServerLog
) -> None:
    here = RecordingTopic(streams).follow()
    with redis_server.client() as client:
        client.replicaof("127.0.0.1", "1")
        client.publish("wsframe:{news}@0", "another life, so look")
        log.expect("until it answers, and events wait: ", logging.WARNING)
        client.replicaof("NO", "ONE")
    log.expect("reconnected to Redis", logging.WARNING)
    here.publish("hello")
    here.expect("hello")


def test_an_internal_error_is_logged_and_the_thread_continues(
    streams: RedisStreams, log: ServerLog
) -> None:
    stop = threading.Event()
    clients = []

    def act(client: Any, succeeded: Callable[[], None]) -> None:
        clients.append(client)
        if len(clients) == 1:
            raise KeyError("a defect")
        succeeded()
        stop.set()

    streams.connection.run_until_stopped("test", act, stop)
    record = log.expect("internal error in topics over Redis (please report this)")
    assert record.exc_info is not None
    log.expect("reconnected to Redis", logging.WARNING)
    assert len(clients) == 2
    assert not streams.connection.unavailable

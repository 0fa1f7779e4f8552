"""A message that another program sends with PUBLISH is published to a topic, once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.clients import Clients
from tests.support.inspection import channel_listener
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic, data_of, numbers
from tests.support.redis_server import RedisServer, Relay
from tests.support.serving import Serve
from tests.support.topics import replica
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App
from wsframe.server.topics.redis.channels import MAX_KEPT, Feed
from wsframe.server.topics.redis.streams import RedisStreams

LEASE = "wsframe:{news}:from:prices"
CHANGES = f"{LEASE}@0"  # the channel of changes of the lease


@pytest.fixture
def program(redis_server: RedisServer) -> Iterator[Any]:
    """Return another program's connection to Redis."""
    with redis_server.client() as client:
        yield client


def listen(program: Any, *processes: RedisStreams) -> None:
    """Subscribe these processes, and wait until one of them holds the lease."""
    for streams in processes:
        RecordingTopic(streams).subscribe_pubsub("prices")
        streams.channels.start()
    wait_until(
        lambda: subscribers_of(program, CHANGES) == len(processes),
        "all processes have subscribed",
    )
    wait_until(lambda: program.get(LEASE), "a process holds the lease")


def subscribers_of(program: Any, channel: str) -> int:
    ((_, count),) = program.pubsub_numsub(channel)
    return int(count)


def test_a_message_of_another_program_is_published_once(
    program: Any, streams: RedisStreams, others: RedisStreams
) -> None:
    here, there = RecordingTopic(streams).follow(), RecordingTopic(others).follow()
    listen(program, streams, others)
    messages: list[str | bytes] = [*numbers(100), "héllo", b"\xff"]
    for each in messages:
        program.publish("prices", each)
        program.publish("other", each)
    for topic in (here, there):
        topic.expect(*messages)
    # No further event follows.
    here.publish_all("the end")
    for topic in (here, there):
        topic.expect(*messages, "the end")


def test_clients_receive_messages_of_another_program(
    redis_server: RedisServer, program: Any, serve: Serve, clients: Clients
) -> None:
    app = App(redis=redis_server.url)
    topic = app.topic("news")
    app.sse("/events", source=topic)
    topic.subscribe_pubsub("prices")  # before the server starts
    assert not subscribers_of(program, "prices")
    server = serve(app)
    topic.subscribe_pubsub("more")  # and after it has started
    topic.subscribe_pubsub("more")
    client = clients.stream(server, "/events")
    wait_until(
        lambda: topic.stats().lagging < topic.stats().subscribers, "the client is subscribed"
    )
    wait_until(lambda: program.get(LEASE), "a process holds the lease")
    wait_until(lambda: program.get("wsframe:{news}:from:more"), "a process holds the other lease")
    program.publish("prices", "9.50")
    assert client.expect(1) == ["9.50"]
    program.publish("more", "news")
    assert client.expect(1) == ["news"]
    client.close()
    server.stop()
    assert not subscribers_of(program, "prices")
    assert not program.get(LEASE)


def test_a_sufficient_access_control_list(
    redis_server: RedisServer, program: Any, connect: Connect
) -> None:
    allowed = ["~wsframe:*", "resetchannels", "&wsframe:*", "&prices", "+@all"]
    program.execute_command("ACL", "SETUSER", "ann", "on", ">secret", *allowed)
    streams = connect(redis_server.url.replace("redis://", "redis://ann:secret@"))
    here = RecordingTopic(streams).follow()
    listen(program, streams)
    here.publish_all("1")
    here.expect("1")
    program.publish("prices", "2")
    here.expect("1", "2")
    streams.join(replica("news"), "ann")
    assert here.members() == ["ann"]


def test_a_holder_that_stops_loses_no_message(
    program: Any, streams: RedisStreams, others: RedisStreams
) -> None:
    there = RecordingTopic(others).follow()
    listen(program, streams, others)
    count = 0
    stopping = [streams, others] * 3
    for holder in stopping:
        done = threading.Event()

        def stop(holder: RedisStreams = holder, done: threading.Event = done) -> None:
            holder.channels.stop()
            done.set()

        thread = threading.Thread(target=stop)
        thread.start()
        until = count + 20
        while not done.is_set() or count < until:
            program.publish("prices", str(count))
            count += 1
        thread.join()
        there.wait_for_entries(count)  # from the remaining process
        holder.channels.start()
        wait_until(lambda: subscribers_of(program, CHANGES) == 2, "the channel is subscribed again")
    assert sorted(data_of(there.wait_for_entries(count)), key=lambda data: int(data)) == numbers(
        count
    )


def test_a_holder_that_stops_before_it_knows_of_its_lease_loses_no_message(
    program: Any, streams: RedisStreams
) -> None:
    published: list[str | bytes] = []
    with streams.connection.client("test") as client, client.pubsub() as pubsub:
        listener = channel_listener(streams, client, pubsub)
        listener.listen_to([Feed("prices", "news", published.append)])
        for _ in ("prices", CHANGES):
            listener.receive(TIMEOUT)
        listener.hold_leases()  # the message about it is not received yet
        assert program.get(LEASE) == b"holder"
        program.publish("prices", "1")
        listener.release_leases()
        program.publish("prices", "2")
        assert published == ["1"]
    assert program.get(LEASE) is None


def test_a_lease_of_an_earlier_connection_does_not_delay_a_stop(
    program: Any, streams: RedisStreams
) -> None:
    program.set(LEASE, "holder")
    with streams.connection.client("test") as client, client.pubsub() as pubsub:
        listener = channel_listener(streams, client, pubsub)
        listener.listen_to([Feed("prices", "news", list[str | bytes]().append)])
        for _ in ("prices", CHANGES):
            listener.receive(TIMEOUT)
        begin = time.monotonic()
        listener.release_leases()  # this connection will receive no message about its lease
        assert time.monotonic() - begin < streams.connection.timing.redis_timeout
    assert program.get(LEASE) is None


def test_a_lease_that_another_program_deletes_delays_a_stop_for_a_limited_time(
    redis_server: RedisServer, program: Any, connect: Connect
) -> None:
    streams = connect(redis_server.url, redis_timeout=0.5)
    published: list[str | bytes] = []
    with streams.connection.client("test") as client, client.pubsub() as pubsub:
        listener = channel_listener(streams, client, pubsub)
        listener.listen_to([Feed("prices", "news", published.append)])
        for _ in ("prices", CHANGES):
            listener.receive(TIMEOUT)
        listener.hold_leases()
        while not published:  # until it knows of its lease
            program.publish("prices", "1")
            listener.receive(TIMEOUT)
        program.delete(LEASE)
        listener.release_leases()  # the message that it waits for never comes
    assert set(published) == {"1"}


def test_a_limited_number_of_messages_is_kept_until_a_process_holds_the_lease(
    program: Any, streams: RedisStreams, log: ServerLog
) -> None:
    published: list[str | bytes] = []
    with streams.connection.client("test") as client, client.pubsub() as pubsub:
        listener = channel_listener(streams, client, pubsub)
        listener.listen_to([Feed("prices", "news", published.append)])
        for _ in ("prices", CHANGES):
            listener.receive(TIMEOUT)
        messages = numbers(MAX_KEPT + 1)
        program.publish(CHANGES, "")  # the lease was released
        with program.pipeline() as pipe:
            for message in messages:
                pipe.publish("prices", message)
            pipe.execute()
        program.publish(CHANGES, "holder")
        for _ in range(MAX_KEPT + 3):
            listener.receive(TIMEOUT)
    assert published == messages[:MAX_KEPT]
    log.expect("dropping message from Redis channel 'prices': no process has held the lease for")


def test_a_lease_is_not_taken_from_a_replica(program: Any, streams: RedisStreams) -> None:
    with streams.connection.client("test") as client, client.pubsub() as pubsub:
        listener = channel_listener(streams, client, pubsub)
        listener.listen_to([Feed("prices", "news", list[str | bytes]().append)])
        for _ in ("prices", CHANGES):
            listener.receive(TIMEOUT)
        program.replicaof("127.0.0.1", "1")
        with pytest.raises(redis.RedisError, match="read only replica"):
            listener.hold_leases()


def test_changes_of_the_lease_are_messages(
    program: Any, streams: RedisStreams, others: RedisStreams
) -> None:
    with program.pubsub(ignore_subscribe_messages=True) as pubsub:

        def hear() -> bytes:
            until = time.monotonic() + TIMEOUT
            while (message := pubsub.get_message(timeout=1)) is None:
                assert time.monotonic() < until, "no message has been sent"
            return bytes(message["data"])

        listen(program, streams)
        pubsub.subscribe(CHANGES)
        holder = program.get(LEASE)
        RecordingTopic(others).subscribe_pubsub("prices")
        others.channels.start()
        wait_until(lambda: subscribers_of(program, CHANGES) == 3, "all processes have subscribed")
        others.channels.stop()  # which does not take the lease
        assert program.get(LEASE) == holder
        streams.channels.stop()
        assert program.get(LEASE) is None
        assert hear() == b""
        others.channels.start()
        assert hear() == program.get(LEASE) != holder


def test_a_hanging_redis_does_not_delay_close(
    redis_server: RedisServer, program: Any, connect: Connect
) -> None:
    streams = connect(redis_server.url, redis_timeout=10 * TIMEOUT, redis_stop_timeout=0.1)
    listen(program, streams)
    assert redis_server.ends_while_hanging(streams.channels.stop)


def test_a_silent_connection_is_replaced(
    redis_server: RedisServer,
    program: Any,
    connect: Connect,
    others: RedisStreams,
    log: ServerLog,
) -> None:
    there = RecordingTopic(others).follow()
    with Relay(redis_server) as relay:
        streams = connect(relay.url, redis_timeout=1.0, lease_renewal=0.1)
        listen(program, streams)
        program.publish("prices", "1")
        there.expect("1")
        relay.fall_silent()
        log.expect("until it answers, and events wait: Redis sent no message", logging.WARNING)
        log.expect("reconnected to Redis", logging.WARNING)
        # It publishes again after it has received the lease on the new connection.
        wait_until(
            lambda: program.publish("prices", "2") and len(there.entries) > 1,
            "the message has arrived",
        )
        streams.channels.stop()
        streams.close(TIMEOUT)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_holder_that_dies_is_replaced(
    program: Any,
    redis_server: RedisServer,
    connect: Connect,
) -> None:
    streams = connect(redis_server.url, lease_renewal=0.1)
    with Listening(redis_server) as process:
        wait_until(lambda: program.get(LEASE), "a process holds the lease")
        dead = program.get(LEASE)
        here = RecordingTopic(streams).follow()
        here.subscribe_pubsub("prices")
        streams.channels.start()
        wait_until(lambda: subscribers_of(program, CHANGES) == 2, "all processes have subscribed")
        process.kill()
        wait_until(
            lambda: program.get(LEASE) not in (None, dead), "another process holds the lease"
        )
        program.publish("prices", "hello")
        here.expect("hello")


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_suspended_holder_loses_and_doubles_no_message(
    program: Any,
    redis_server: RedisServer,
    connect: Connect,
) -> None:
    streams = connect(redis_server.url, lease_renewal=0.1)
    here = RecordingTopic(streams).follow()
    with Listening(redis_server) as process:
        wait_until(lambda: program.get(LEASE), "a process holds the lease")
        first = program.get(LEASE)
        here.subscribe_pubsub("prices")
        streams.channels.start()
        wait_until(lambda: subscribers_of(program, CHANGES) == 2, "all processes have subscribed")
        program.publish("prices", "a")
        here.expect("a")
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        for data in numbers(10, "b"):
            program.publish("prices", data)
        wait_until(
            lambda: program.get(LEASE) not in (None, first), "another process holds the lease"
        )
        for data in numbers(10, "c"):
            program.publish("prices", data)
        here.expect("a", *numbers(10, "c"))
        process.send_signal(signal.SIGCONT)
        # It publishes the messages sent while it held the lease, however late.
        here.expect("a", *numbers(10, "c"), *numbers(10, "b"))
        program.publish("prices", "d")
        here.expect("a", *numbers(10, "c"), *numbers(10, "b"), "d")


LISTENER = """
import sys, threading
from wsframe.server import App

app = App(redis=sys.argv[1])
app.topic("news").subscribe_pubsub("prices")
with app.start(port=0):
    threading.Event().wait()
"""


class Listening(subprocess.Popen[bytes]):
    """A process that listens to a channel; a context manager that kills it."""

    def __init__(self, redis_server: RedisServer) -> None:
        super().__init__([sys.executable, "-c", LISTENER, redis_server.url])

    def __exit__(self, *error: Any) -> None:
        self.kill()
        super().__exit__(*error)


def test_a_cut_connection_is_replaced(
    program: Any, redis_server: RedisServer, streams: RedisStreams, others: RedisStreams
) -> None:
    here = RecordingTopic(streams).follow()
    listen(program, streams, others)
    program.publish("prices", "before")
    here.expect("before")
    assert redis_server.cut("wsframe-channels") == 4
    wait_until(lambda: subscribers_of(program, CHANGES) == 2, "the channel is subscribed again")
    # The time at which the holder begins again is unknown; later messages come once each.
    count, until = 0, time.monotonic() + TIMEOUT
    while len(here.entries) < 20:
        program.publish("prices", str(count))
        count += 1
        assert time.monotonic() < until, "the channel is not read again"
    program.publish("prices", "the end")
    wait_until(lambda: "the end" in data_of(here.entries), "the last event has arrived")
    _, *after, _ = data_of(here.entries)
    assert after == numbers(count)[-len(after) :]


def test_a_message_that_cannot_be_published_is_logged(
    program: Any, streams: RedisStreams, others: RedisStreams, log: ServerLog
) -> None:
    listen(program, streams)
    topic = RecordingTopic(streams)
    topic.subscribe_pubsub("closed")
    lease = "wsframe:{news}:from:closed"
    wait_until(lambda: program.get(lease), "a process holds the lease")
    topic.close()
    program.publish("closed", "too late")
    log.expect("dropping message from Redis channel 'closed': ")
    assert streams.flush(TIMEOUT)


def test_a_rejected_lease_is_logged(
    program: Any, streams: RedisStreams, others: RedisStreams, log: ServerLog
) -> None:
    program.hset(LEASE, "taken", "by something else")
    RecordingTopic(streams).subscribe_pubsub("prices")
    streams.channels.start()
    line = log.expect("Redis rejected a command for the lease of channel 'prices': ").getMessage()
    assert f"the key {LEASE!r} has the type hash instead of string, because another " in line
    program.delete(LEASE)
    wait_until(lambda: program.get(LEASE), "a process holds the lease")
    log.records.clear()


def test_channels_require_redis() -> None:
    with pytest.raises(
        RuntimeError, match="the topic 'news' to a channel: it is not kept in Redis"
    ):
        App().topic("news").subscribe_pubsub("prices")


@pytest.mark.parametrize("apart", ["database", "prefix"])
def test_deployments_in_one_redis_are_separate(
    redis_server: RedisServer, program: Any, connect: Connect, apart: str
) -> None:
    """Only the channels of other programs are shared, because they belong to no database."""
    if apart == "database":
        each = [connect(redis_server.url.replace("/0", f"/{number}")) for number in range(2)]
        changes = [f"{LEASE}@{number}" for number in range(2)]
    else:
        each = [connect(redis_server.url, f"{name}:") for name in ("first", "second")]
        changes = [f"{name}:{{news}}:from:prices@0" for name in ("first", "second")]
    topics = [RecordingTopic(streams).follow() for streams in each]
    for streams in each:
        RecordingTopic(streams).subscribe_pubsub("prices")
        streams.channels.start()
    for name in changes:
        wait_until(lambda: subscribers_of(program, name) == 1, "the channel is subscribed")  # noqa: B023
    for topic in topics:
        wait_until(
            lambda: program.publish("prices", "hello") and topic.entries,  # noqa: B023
            "the holder of the lease publishes the message",
        )
    counts = [len(topic.entries) for topic in topics]
    for data in numbers(100):
        program.publish("prices", data)
    for topic in topics:
        wait_until(
            lambda: data_of(topic.entries)[-100:] == numbers(100),  # noqa: B023
            "the last 100 events have arrived",
        )
    assert [len(topic.entries) for topic in topics] >= counts
    topics[0].publish_all("mine")
    wait_until(lambda: data_of(topics[0].entries)[-1] == "mine", "the event has arrived")
    assert each[0].flush(TIMEOUT)
    assert data_of(topics[1].entries)[-100:] == numbers(100)
    for streams in each:
        streams.channels.stop()


def test_a_rejected_channel_does_not_affect_others(
    redis_server: RedisServer, program: Any, connect: Connect, log: ServerLog
) -> None:
    allowed = ["~wsframe:*", "resetchannels", "&wsframe:*", "&prices", "+@all"]
    program.execute_command("ACL", "SETUSER", "ann", "on", ">secret", *allowed)
    streams = connect(redis_server.url.replace("redis://", "redis://ann:secret@"))
    here = RecordingTopic(streams).follow()
    here.subscribe_pubsub("secrets")
    here.subscribe_pubsub("prices")
    streams.channels.start()
    log.expect("Redis rejected the subscription to channel 'secrets': ")
    wait_until(lambda: program.get(LEASE), "a process holds the lease")
    wait_until(lambda: program.publish("prices", "1") and here.entries, "the message has arrived")
    assert not program.get("wsframe:{news}:from:secrets")
    streams.channels.stop()


def test_a_withdrawn_permission_is_logged_until_it_is_returned(
    redis_server: RedisServer, program: Any, connect: Connect, log: ServerLog
) -> None:
    program.execute_command("ACL", "SETUSER", "ann", "on", ">secret", "~*", "&*", "+@all")
    url = redis_server.url.replace("redis://", "redis://ann:secret@")
    streams = connect(url, lease_renewal=0.1, redis_timeout=10 * TIMEOUT)
    listen(program, streams)
    program.execute_command("ACL", "SETUSER", "ann", "-ping")
    log.expect("unexpected error of Redis at ")
    program.execute_command("ACL", "SETUSER", "ann", "+ping")
    log.expect("reconnected to Redis", logging.WARNING)
    wait_until(lambda: subscribers_of(program, CHANGES), "the channel is subscribed again")
    streams.channels.stop()


@pytest.mark.parametrize("prefix", ["", "a{b", "a}", "a b", "ä", "x" * 65, "a*"])
def test_an_invalid_prefix_is_rejected(redis_server: RedisServer, prefix: str) -> None:
    with pytest.raises(ValueError, match="invalid prefix of Redis keys: expected 1 to 64"):
        App(redis=redis_server.url, redis_prefix=prefix)

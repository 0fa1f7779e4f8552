"""Clients that read slowly, not at all, or that disconnect."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

import pytest

from tests.support.log import ServerLog
from tests.support.uvicorn_fixtures import StartUvicorn
from tests.support.waiting import wait_until
from wsframe.asgi import Topics

from .conftest import Open
from .test_eventstream import stream_of

LARGE = "x" * 20_000


def test_a_slow_client_receives_everything_within_the_limits(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news", history=10, max_bytes=8 << 20)
    slow = connect(serve(stream_of(topic)), receive_buffer=4096)
    slow.opening()
    for number in range(300):
        topic.publish(f"{number} {LARGE}")
    wait_until(lambda: topic.stats().lagging, "the client is slow")
    assert [event.split()[0] for event in slow.expect(300)] == [str(n) for n in range(300)]
    wait_until(lambda: not topic.stats().lagging, "no client is lagging")
    topic.publish("more")
    assert slow.expect(1) == ["more"]


def test_a_slow_client_delays_no_other(topics: Topics, serve: StartUvicorn, connect: Open) -> None:
    topic = topics.topic("news", max_bytes=8 << 20)
    server = serve(stream_of(topic))
    slow, quick = connect(server, receive_buffer=4096), connect(server)
    slow.opening()
    quick.opening()
    for number in range(300):
        topic.publish(f"{number} {LARGE}")
        assert quick.expect(1)[0].startswith(f"{number} ")
    assert topic.stats().lagging == 1


@pytest.mark.parametrize("policy", ["disconnect", "drop-oldest", "latest"])
def test_a_client_that_is_too_slow_is_treated_by_the_policy(
    topics: Topics,
    serve: StartUvicorn,
    connect: Open,
    policy: Literal["disconnect", "drop-oldest", "latest"],
) -> None:
    topic = topics.topic("news", history=4, max_bytes=200_000, policy=policy)
    server = serve(stream_of(topic))
    slow = connect(server, receive_buffer=4096)
    slow.opening()
    for number in range(600):
        topic.publish(f"{number} {LARGE}", key=str(number % 2))
    if policy == "disconnect":
        events = slow.read_rest()
        assert 0 < len(events) < 600
        wait_until(lambda: not server.tasks, "the request has ended")
        slow = connect(server, "/", ("Last-Event-ID", slow.last_event_id))
        assert slow.next_event().event == "gap"
        assert slow.expect(4)[-1].startswith("599 ")
        return
    kinds = set()
    while True:
        event = slow.next_event()
        kinds.add(event.event)
        if event.data.startswith("599 "):
            break
    assert kinds == ({None, "gap"} if policy == "drop-oldest" else {None})
    assert topic.stats().dropped


def test_a_client_that_accepts_no_data_is_disconnected(
    topics: Topics, serve: StartUvicorn, connect: Open, log: ServerLog
) -> None:
    topic = topics.topic("news", max_bytes=8 << 20)
    server = serve(stream_of(topic, send_timeout=0.1))
    stuck = connect(server, receive_buffer=4096)
    stuck.opening()
    for _ in range(300):
        topic.publish(LARGE)
    log.expect("accepted no data for 0.1 s (send_timeout)", logging.WARNING)
    wait_until(lambda: topics.stats().event_streams == 0, "the stream has ended")
    server.log.expect("without completing response")  # the only way to end it
    assert topic.stats().subscribers == 0
    stuck.close()


def test_a_stream_ends_in_order_for_a_client_that_reads_slowly(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news", max_bytes=16 << 20)
    server = serve(stream_of(topic))
    slow = connect(server, receive_buffer=4096)
    slow.opening()
    for _ in range(400):
        topic.publish(LARGE)
    topic.close()
    assert len(slow.read_rest()) == 400
    assert slow.last_event_id == ":end"
    wait_until(lambda: not server.tasks, "the request has ended")


@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_disconnects_leaves_nothing_behind(
    topics: Topics, serve: StartUvicorn, connect: Open, reset: bool
) -> None:
    topic = topics.topic("news", max_bytes=8 << 20)
    server = serve(stream_of(topic))
    slow, other = connect(server, receive_buffer=4096), connect(server)
    slow.opening()
    other.opening()
    for _ in range(300):
        topic.publish(LARGE)
    for client in (slow, other):
        if reset:
            client.reset()
        else:
            client.close()
    topic.publish("not received")
    wait_until(lambda: not server.tasks, "all requests have ended")
    assert topics.stats().event_streams == topics.stats().loops == 0
    assert topic.stats().subscribers == 0


@pytest.mark.slow
def test_a_thousand_clients_are_served_and_leave_nothing_behind(
    topics: Topics, serve: StartUvicorn, connect: Open, high_file_limit: None
) -> None:
    topic = topics.topic("news")
    server = serve(stream_of(topic), backlog=1024)
    clients = [connect(server) for _ in range(1000)]
    for client in clients:
        client.opening()
    server.call(lambda: [topic.publish(number) for number in range(8)])
    for client in clients:
        assert client.expect(8) == [str(number) for number in range(8)]
    # No task for each client besides the request's own: the others are those of the server.
    assert server.call(lambda: len(asyncio.all_tasks(server.loop))) < 1010
    for number, client in enumerate(clients):
        if number % 2:
            client.reset()
        else:
            client.close()
    wait_until(lambda: not server.tasks, "all requests have ended")
    assert topic.stats().subscribers == 0

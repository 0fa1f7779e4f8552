"""Topics with slow clients."""

from __future__ import annotations

import json
from logging import WARNING

import pytest

from tests.server.topics.topics import subscribed, topics_app
from tests.support.clients import Clients, StreamClient
from tests.support.inspection import peers_of, queued_bytes
from tests.support.log import ServerLog
from tests.support.serving import Serve
from wsframe import (
    Close,
)
from wsframe.server import Published, Topic

CHUNK = "x" * (1 << 16)


def fill_the_socket(topic: Topic, others: list[StreamClient]) -> Published:
    """Publish until a client has lost an event; the other clients read everything."""
    for _ in range(1000):
        published = topic.publish(CHUNK)
        for other in others:
            assert other.expect(1) == [CHUNK]
        if published.dropped:
            return published
    raise AssertionError("no client is too slow")


def test_the_policy_disconnect_closes_slow_clients(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    app, topic = topics_app()
    server = serve(app)
    slow_stream = clients.stream(server, "/events", receive_buffer=1 << 14)
    slow_socket = clients.websocket(server, "/messages", receive_buffer=1 << 14)
    fast = clients.stream(server, "/events")
    subscribed(topic, 3)
    lost = sum(fill_the_socket(topic, [fast]).dropped for _ in range(1))
    while lost < 2:
        lost += fill_the_socket(topic, [fast]).dropped
    log.expect("too slow for its event stream", WARNING)
    log.expect("too slow for topic 'news'", WARNING)
    received = []
    while not isinstance(event := slow_socket.next_event(), Close):
        received.append(event)
    assert event == Close(1013, "too slow for its topic")
    assert set(received) == {CHUNK}
    with pytest.raises((EOFError, ConnectionResetError)):  # noqa: PT012
        while True:
            slow_stream.next_event()
    assert topic.publish("next").reached == 1
    assert fast.expect(1) == ["next"]
    assert app.stats().dropped_events == 2
    assert app.stats().slow_clients == 2
    again = clients.stream(server, "/events", ("Last-Event-ID", slow_stream.last_event_id))
    while again.next_event().data != "next":
        pass


def test_the_policy_drop_oldest_skips_events_of_slow_clients(
    serve: Serve, clients: Clients
) -> None:
    app, topic = topics_app(policy="drop-oldest")
    server = serve(app)
    slow = clients.stream(server, "/events", receive_buffer=1 << 14)
    fast = clients.stream(server, "/events")
    subscribed(topic, 2)
    number = dropped = 0
    while dropped < 10:
        published = topic.publish(f"{number} {CHUNK}")
        dropped += published.dropped
        number += 1
        assert fast.expect(1)[0].startswith(f"{number - 1} ")
    assert published == Published(reached=1, queued=1, dropped=1)
    topic.publish("last")
    received, gaps = [], 0
    while (event := slow.next_event()).data != "last":
        if event.event == "gap":
            gaps += 1
            oldest = json.loads(event.data)["oldest"]
        else:
            received.append(int(event.data.split()[0]))
            if gaps == 1 and oldest:
                assert event.id == oldest
                oldest = ""
    assert gaps == 1
    assert received == sorted(received)
    assert topic.stats().dropped == app.stats().dropped_events
    assert number - len(received) == topic.stats().dropped


def test_the_policy_latest_sends_the_newest_event_of_each_key(
    serve: Serve, clients: Clients
) -> None:
    app, topic = topics_app(policy="latest")
    server = serve(app)
    slow = clients.stream(server, "/events", receive_buffer=1 << 14)
    subscribed(topic, 1)
    for number in range(500):
        topic.publish(f"{number} {CHUNK}", key="a")
        topic.publish(f"{number} b", key="b")
    received: list[str] = []
    while len(received) < 2 or received[-2:] != ["499", "499"]:
        received.append(slow.next_event().data.split()[0])
    assert len(received) < 500
    assert topic.stats().history == 2
    assert topic.stats().dropped == 1000 - len(received)
    new = clients.websocket(server, "/envelopes?after=")
    _, a, b = (json.loads(str(event)) for event in new.expect(3))
    assert (a["data"][:4], b["data"]) == ("499 ", "499 b")


def test_a_stuck_client_uses_no_more_memory_than_others(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app(policy="drop-oldest", max_bytes=1 << 20)
    server = serve(app)
    stuck = [clients.stream(server, "/events", receive_buffer=1 << 14) for _ in range(20)]
    subscribed(topic, 20)
    for _ in range(200):
        topic.publish(CHUNK)
    assert topic.stats().history_bytes <= 1 << 20
    for peer in peers_of(server):
        assert queued_bytes(peer) <= 1 << 18
    assert len(stuck) == topic.stats().subscribers

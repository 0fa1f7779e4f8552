"""Positions in a topic's log."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.server.topics.topics import subscribed, topics_app
from tests.support.clients import Clients
from tests.support.handlers import MessageGenerator
from tests.support.inspection import peers_of, queued_bytes
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe import (
    ServerSentEvent,
)
from wsframe.server import App, WebSocket


def join(app: App, path: str, **options: Any) -> None:
    """Return a WebSocket that is subscribed to the topic of its path."""

    @app.websocket(path)
    def handler(ws: WebSocket) -> MessageGenerator:
        ws.subscribe(path.strip("/"), **options)
        while True:
            yield


def test_the_history_comes_before_new_events(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("room", history=3)
    join(app, "/room", after="")
    server = serve(app)
    for data in "abcde":
        topic.publish(data)
    client = clients.websocket(server, "/room")
    assert client.expect(3) == ["c", "d", "e"]
    topic.publish("f")
    assert client.next_event() == "f"


def test_a_websocket_resumes_after_an_id(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app()
    server = serve(app)
    first = clients.websocket(server, "/envelopes")
    opening = json.loads(str(first.next_event()))
    first.close()
    topic.publish({"a": 1})
    topic.publish(b"\x00\xff", event="binary")
    again = clients.websocket(server, f"/envelopes?after={opening['id']}")
    opened, one, two = (json.loads(str(event)) for event in again.expect(3))
    assert opened == {"topic": "news", "id": opening["id"], "event": "open"}
    assert (one["event"], json.loads(one["data"])) == (None, {"a": 1})
    assert (two["event"], two["data"], two["binary"]) == ("binary", "AP8=", True)
    again.close()
    third = clients.websocket(server, f"/envelopes?after={one['id']}")
    assert [json.loads(str(event))["id"] for event in third.expect(2)] == [one["id"], two["id"]]
    lost = clients.websocket(server, "/envelopes?after=unknown-1")
    gap = json.loads(str(lost.next_event()))
    assert gap == {"topic": "news", "id": two["id"], "event": "gap", "oldest": one["id"]}
    lost = clients.websocket(server, "/envelopes?after=unknown-1&otherwise=")
    gap = json.loads(str(lost.next_event()))
    assert gap == {"topic": "news", "id": gap["id"], "event": "gap", "oldest": one["id"]}
    assert json.loads(str(lost.next_event())) == one


def test_a_client_resumes_after_ids_chosen_by_the_publisher(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app()
    server = serve(app)
    for number in range(5):
        topic.publish(str(number), id=f"mine-{number}")
    stream = clients.stream(server, "/events", ("Last-Event-ID", "mine-2"))
    assert stream.next_event() == ServerSentEvent("3", id="mine-3")
    assert stream.next_event() == ServerSentEvent("4", id="mine-4")


@pytest.mark.parametrize("bound", ["history", "max_bytes", "max_age"])
def test_events_beyond_the_bounds_are_a_gap(serve: Serve, clients: Clients, bound: str) -> None:
    app, topic = topics_app(**{bound: {"history": 2, "max_bytes": 200, "max_age": 0.0}[bound]})
    server = serve(app)
    first = clients.stream(server, "/events")
    first.read_opening()
    first.close()
    wait_until(lambda: not topic.stats().subscribers, "the client is unsubscribed")
    for data in "abc":
        topic.publish(data * 100)
    again = clients.stream(server, "/events", ("Last-Event-ID", first.last_event_id))
    assert again.next_event().event == "gap"
    if bound != "max_age":
        assert again.expect(2) == ["b" * 100, "c" * 100]
    topic.publish("d")
    assert again.expect(1) == ["d"]


def test_a_topic_without_a_history(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app(history=0)
    server = serve(app)
    stream = clients.stream(server, "/events")
    subscribed(topic, 1)
    for number in range(1000):
        topic.publish(str(number))
    assert stream.expect(1000) == list(map(str, range(1000)))
    wait_until(lambda: topic.stats().history == 0, "the history is empty")


def test_an_id_of_an_earlier_topic_with_this_name_is_a_gap(serve: Serve, clients: Clients) -> None:
    ids: list[str] = []
    for _ in range(2):
        app, topic = topics_app()
        server = serve(app)
        topic.publish("1")
        stream = clients.stream(server, "/events", ("Last-Event-ID", ids[0] if ids else "x-0"))
        assert stream.next_event().event == "gap"
        topic.publish("2")
        assert stream.next_event().event is None
        ids.append(stream.last_event_id)
    assert ids[0] != ids[1]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_large_history_is_sent_in_pieces(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app(history=10_000, max_bytes=64 << 20)
    server = serve(app)
    first = clients.stream(server, "/events")
    first.read_opening()
    first.close()
    texts = [f"{number}" * 1000 for number in range(10_000)]
    for text in texts:
        topic.publish(text)
    again = clients.stream(
        server, "/events", ("Last-Event-ID", first.last_event_id), receive_buffer=1 << 14
    )
    (peer,) = peers_of(server)
    assert queued_bytes(peer) < 1 << 18
    assert again.expect(10_000) == texts


@pytest.mark.slow
@pytest.mark.unmeasured
def test_no_event_is_lost_or_doubled_while_clients_reconnect(
    high_file_limit: None, serve: Serve, clients: Clients
) -> None:
    """Events are published at full speed while hundreds of clients reconnect repeatedly."""
    count = 600
    texts = list(map(str, range(count)))
    app, topic = topics_app(history=count)
    server = serve(app)
    opened = [clients.stream(server, "/events") for _ in range(200)]
    received: list[list[str]] = [[] for _ in opened]
    for stream in opened:
        stream.read_opening()

    def publish() -> None:
        for text in texts:
            topic.publish(text)

    publishing = threading.Thread(target=publish)
    publishing.start()
    turn = 0
    while any(len(data) < count for data in received):
        turn += 1
        for number, data in enumerate(received):
            wanted = min(count - len(data), 150 + (turn * number) % 150)
            if wanted:
                events = [opened[number].next_event() for _ in range(wanted)]
                data += [event.data for event in events]
                opened[number].close()
                last_id = str(events[-1].id)
                opened[number] = clients.stream(server, "/events", ("Last-Event-ID", last_id))
    publishing.join()
    assert all(data == texts for data in received)

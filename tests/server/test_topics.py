"""Topics: one publish for WebSockets and event streams."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from wsframe.server import App, EventStream, Published, Topic, WebSocket

from .clients import StreamClient, WebSocketClient
from .conftest import Clients, Serve, wait_until
from .handlers import Waits


def topics_app(**options: Any) -> tuple[App, Topic]:
    """An app with a topic that both kinds of clients subscribe to."""
    app = App()
    topic = app.topic("news", **options)
    app.sse("/events", source=topic)

    @app.websocket("/messages")
    def messages(ws: WebSocket) -> Waits:
        with ws.subscribe("news"):
            while True:
                yield

    @app.websocket("/envelopes")
    def envelopes(ws: WebSocket) -> Waits:
        after = ws.request.query.get("after", [None])[0]
        ws.subscribe("news", after=after, envelope=True)
        while True:
            yield

    return app, topic


def subscribed(topic: Topic, count: int) -> None:
    wait_until(
        lambda: (topic.stats().subscribers, topic.stats().behind) == (count, 0),
        f"there are not {count} subscribers: {topic.stats()}",
    )


def test_one_publish_reaches_both_kinds(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app()
    server = serve(app)
    stream = clients.stream(server, "/events")
    message = clients.websocket(server, "/messages")
    envelope = clients.websocket(server, "/envelopes")
    subscribed(topic, 3)
    assert topic.publish("hello", event="greeting") == Published(reached=3)
    received = stream.next_event()
    assert (received.data, received.event) == ("hello", "greeting")
    assert message.next_event() == "hello"
    opening, told = (json.loads(str(event)) for event in envelope.hear(2))
    assert opening["event"] == "open"
    assert told == {"topic": "news", "id": received.id, "event": "greeting", "data": "hello"}


def test_the_order_is_the_same_for_all(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app(history=10_000)
    server = serve(app)
    streams = [clients.stream(server, "/events") for _ in range(3)]
    sockets = [clients.websocket(server, "/messages") for _ in range(3)]
    subscribed(topic, 6)

    def publish(name: str) -> None:
        for number in range(500):
            topic.publish(f"{name}{number}")

    threads = [threading.Thread(target=publish, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    clients_of_all: list[StreamClient | WebSocketClient] = [*streams, *sockets]
    received = [client.hear(1500) for client in clients_of_all]
    for thread in threads:
        thread.join()
    assert all(other == received[0] for other in received)
    for name in "abc":
        assert [data for data in received[0] if str(data)[0] == name] == [
            f"{name}{number}" for number in range(500)
        ]


def test_a_stream_that_comes_back_gets_just_what_it_missed(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app()
    server = serve(app)
    first = clients.stream(server, "/events")
    subscribed(topic, 1)
    topic.publish("1")
    assert first.hear(1) == ["1"]
    first.close()
    for data in "234":
        topic.publish(data)
    again = clients.stream(server, "/events", ("Last-Event-ID", first.last_event_id))
    assert again.hear(3) == ["2", "3", "4"]
    topic.publish("5")
    assert again.hear(1) == ["5"]


def test_a_stream_that_was_cut_before_its_first_event_misses_none(
    serve: Serve, clients: Clients
) -> None:
    app, topic = topics_app()
    server = serve(app)
    first = clients.stream(server, "/events")
    first.read_opening()
    first.close()
    topic.publish("1")
    again = clients.stream(server, "/events", ("Last-Event-ID", first.last_event_id))
    assert again.hear(1) == ["1"]


@pytest.mark.parametrize(
    "last_event_id", ["7", "abc-1", "?news=abc-1", "epoch-99999999999999999999"]
)
def test_an_unknown_id_is_a_gap(serve: Serve, clients: Clients, last_event_id: str) -> None:
    app, topic = topics_app()
    server = serve(app)
    topic.publish("1")
    topic.publish("2")
    stream = clients.stream(server, "/events", ("Last-Event-ID", last_event_id))
    gap = stream.next_event()
    assert gap.event == "gap"
    first = stream.next_event()
    assert json.loads(gap.data) == {"topic": "news", "oldest": first.id}
    assert first.data == "1"
    assert stream.hear(1) == ["2"]
    # Who is cut off right behind the gap is not told of it again.
    again = clients.stream(server, "/events", ("Last-Event-ID", str(gap.id)))
    assert again.hear(2) == ["1", "2"]


def test_two_topics_on_one_stream(serve: Serve, clients: Clients) -> None:
    app = App()

    @app.sse("/both")
    def both(stream: EventStream) -> None:
        stream.subscribe("a")
        stream.subscribe("b")

    server = serve(app)
    a, b = app.topic("a"), app.topic("b")
    first = clients.stream(server, "/both")
    subscribed(a, 1)
    subscribed(b, 1)
    a.publish("a1")
    assert first.hear(1) == ["a1"]
    b.publish("b1")
    assert first.hear(1) == ["b1"]
    first.close()
    for topic, data in ((a, "a2"), (b, "b2"), (a, "a3")):
        topic.publish(data)
    again = clients.stream(server, "/both", ("Last-Event-ID", first.last_event_id))
    assert sorted(again.hear(3)) == ["a2", "a3", "b2"]
    b.publish("b3")
    assert again.hear(1) == ["b3"]
    again.close()
    third = clients.stream(server, "/both", ("Last-Event-ID", again.last_event_id))
    a.publish("a4")
    assert third.hear(1) == ["a4"]

"""Topics: one publish for WebSockets and event streams."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from tests.server.topics.topics import subscribed, topics_app
from tests.support.clients import Clients, StreamClient, WebSocketClient
from tests.support.handlers import MessageGenerator, two_topics_app
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.topics import log_of
from wsframe import (
    Connection,
    PerMessageDeflate,
    Role,
    UpgradeRequest,
    accept_key,
)
from wsframe.server import App, EventStream, Published, WebSocket


def test_publish_reaches_websockets_and_event_streams(serve: Serve, clients: Clients) -> None:
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
    opening, event = (json.loads(str(event)) for event in envelope.expect(2))
    assert opening["event"] == "open"
    assert event == {
        "topic": "news",
        "id": received.id,
        "event": "greeting",
        "data": "hello",
    }


def test_all_clients_receive_the_same_order(serve: Serve, clients: Clients) -> None:
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
    received = [client.expect(1500) for client in clients_of_all]
    for thread in threads:
        thread.join()
    assert all(other == received[0] for other in received)
    for name in "abc":
        assert [data for data in received[0] if str(data)[0] == name] == [
            f"{name}{number}" for number in range(500)
        ]


def test_a_stream_that_reconnects_receives_exactly_the_missed_events(
    serve: Serve, clients: Clients
) -> None:
    app, topic = topics_app()
    server = serve(app)
    first = clients.stream(server, "/events")
    subscribed(topic, 1)
    topic.publish("1")
    assert first.expect(1) == ["1"]
    first.close()
    for data in "234":
        topic.publish(data)
    again = clients.stream(server, "/events", ("Last-Event-ID", first.last_event_id))
    assert again.expect(3) == ["2", "3", "4"]
    topic.publish("5")
    assert again.expect(1) == ["5"]


def test_a_stream_disconnected_before_its_first_event_misses_no_event(
    serve: Serve, clients: Clients
) -> None:
    app, topic = topics_app()
    server = serve(app)
    first = clients.stream(server, "/events")
    first.read_opening()
    first.close()
    topic.publish("1")
    again = clients.stream(server, "/events", ("Last-Event-ID", first.last_event_id))
    assert again.expect(1) == ["1"]


@pytest.mark.parametrize(
    "last_event_id", ["7", "abc-1", "?news=abc-1", "epoch-99999999999999999999"]
)
def test_an_unknown_id_is_a_gap(serve: Serve, clients: Clients, last_event_id: str) -> None:
    """The client is sent no more than a new client."""
    app, topic = topics_app()

    @app.sse("/all")
    def history(stream: EventStream) -> None:
        stream.subscribe(topic, after="")

    server = serve(app)
    topic.publish("1")
    topic.publish("2")
    new = clients.stream(server, "/events", ("Last-Event-ID", last_event_id))
    assert new.next_event().event == "gap"
    assert topic.publish("3").reached == 1
    assert new.expect(1) == ["3"]
    stream = clients.stream(server, "/all", ("Last-Event-ID", last_event_id))
    gap = stream.next_event()
    assert gap.event == "gap"
    first = stream.next_event()
    assert json.loads(gap.data) == {"topic": "news", "oldest": first.id}
    assert first.data == "1"
    assert stream.expect(2) == ["2", "3"]
    # A client disconnected right after the gap is not sent it again.
    again = clients.stream(server, "/events", ("Last-Event-ID", str(gap.id)))
    assert again.expect(3) == ["1", "2", "3"]


def test_a_stream_subscribes_to_two_topics(serve: Serve, clients: Clients) -> None:
    app = two_topics_app()
    server = serve(app)
    a, b = app.topic("a"), app.topic("b")
    first = clients.stream(server, "/both")
    subscribed(a, 1)
    subscribed(b, 1)
    a.publish("a1")
    assert first.expect(1) == ["a1"]
    b.publish("b1")
    assert first.expect(1) == ["b1"]
    first.close()
    for topic, data in ((a, "a2"), (b, "b2"), (a, "a3")):
        topic.publish(data)
    again = clients.stream(server, "/both", ("Last-Event-ID", first.last_event_id))
    assert sorted(again.expect(3)) == ["a2", "a3", "b2"]
    b.publish("b3")
    assert again.expect(1) == ["b3"]
    again.close()
    third = clients.stream(server, "/both", ("Last-Event-ID", again.last_event_id))
    a.publish("a4")
    assert third.expect(1) == ["a4"]


def test_a_closed_subscription_receives_no_more_events(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("room")

    @app.websocket("/room")
    def room(ws: WebSocket) -> MessageGenerator:
        with ws.subscribe("room", member="me"):
            assert (yield) == "leave"
        ws.send("left")
        while True:
            yield

    server = serve(app)
    client = clients.websocket(server, "/room")
    subscribed(topic, 1)
    assert topic.members() == ["me"]
    topic.publish("1")
    assert client.next_event() == "1"
    client.send_messages("leave")
    assert client.next_event() == "left"
    subscribed(topic, 0)
    assert topic.members() == []
    assert topic.publish("2") == Published()
    client.leave()
    assert server.stats().subscriptions == 0


def test_a_member_stays_until_its_last_connection_ends(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("room")

    @app.websocket("/room/{name}")
    def room(ws: WebSocket, name: str) -> MessageGenerator:
        ws.subscribe("room", member=name)
        while True:
            yield

    server = serve(app)
    one, two, other = (clients.websocket(server, f"/room/{name}") for name in ("b", "b", "a"))
    subscribed(topic, 3)
    assert topic.members() == ["a", "b"]
    one.leave()
    subscribed(topic, 2)
    assert topic.members() == ["a", "b"]
    two.reset()
    subscribed(topic, 1)
    assert topic.members() == ["a"]
    other.leave()


@pytest.mark.parametrize("loops", [1, 2])
def test_compressed_clients_on_several_loops(serve: Serve, clients: Clients, loops: int) -> None:
    app = App()
    topic = app.topic("t")
    settings: dict[str, PerMessageDeflate | bool] = {
        "/plain": False,
        "/shared": True,
        "/context": PerMessageDeflate(),
        "/small": PerMessageDeflate(server_no_context_takeover=True, server_max_window_bits=9),
    }
    for path, deflate in settings.items():

        @app.websocket(path, deflate=deflate)
        def handler(ws: WebSocket) -> MessageGenerator:
            ws.subscribe(topic)
            while True:
                message = yield
                ws.send(message)

    server = serve(app, loops=loops)
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    all_clients = [clients.websocket(server, path, offer) for path in settings for _ in range(2)]
    for client in all_clients:
        client.codec = confirmed(client)
    subscribed(topic, 8)
    for number in range(100):
        topic.publish(f"{number} {'text ' * 100}")
    for client in all_clients:
        assert client.expect(100) == [f"{number} {'text ' * 100}" for number in range(100)]
        client.send_messages("echo " * 100)
        assert client.next_event() == "echo " * 100


def confirmed(client: WebSocketClient) -> Connection:
    """Return a codec for the negotiated extensions."""
    request = UpgradeRequest("localhost", "/", deflate=PerMessageDeflate())
    sent = dict(line.split(": ") for line in request.encode().decode().splitlines() if ": " in line)
    headers = {
        **dict(client.headers),
        "Sec-WebSocket-Accept": accept_key(sent["Sec-WebSocket-Key"]),
    }
    return Connection(Role.CLIENT, deflate=request.confirm(101, [*headers.items()]).deflate)


def test_a_handler_publishes_a_burst(serve: Serve, clients: Clients) -> None:
    app, topic = topics_app(history=0)

    @app.websocket("/burst")
    def burst(ws: WebSocket) -> MessageGenerator:
        yield
        for number in range(5000):
            topic.publish(str(number))
        yield

    server = serve(app)
    streams = [clients.stream(server, "/events") for _ in range(3)]
    subscribed(topic, 3)
    clients.websocket(server, "/burst").send_messages("go")
    for stream in streams:
        assert stream.expect(5000) == list(map(str, range(5000)))


def test_invalid_events_are_rejected_by_publish() -> None:
    _, topic = topics_app()
    for wrong in (object(), {1, 2}):
        with pytest.raises(TypeError):
            topic.publish(wrong)
    for wrong in (float("nan"), "\ud800"):
        with pytest.raises(ValueError, match=r".+"):
            topic.publish(wrong)
    for name, error in (("event", "an event's event"), ("id", "invalid event id")):
        with pytest.raises(ValueError, match=error):
            topic.publish("x", **{name: "a\nb"})
    assert topic.stats().published == 0


def test_topics_are_configured_by_name() -> None:
    app = App()
    assert app.topic("a") is app.topic("a")
    topic = app.topic("a", history=5)
    app.topic("a", max_bytes=100)
    for number in range(10):
        topic.publish(str(number))
    assert topic.stats().history == 5
    with pytest.raises(ValueError, match="invalid policy 'best'"):
        app.topic("a", policy="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="history must not be negative"):
        app.topic("a", history=-1)
    with pytest.raises(ValueError, match="cannot set the policy of the topic 'a' to 'latest'"):
        app.topic("a", policy="latest")


@pytest.mark.parametrize("kind", ["queue", "iterable"])
def test_a_topic_is_fed(serve: Serve, clients: Clients, log: ServerLog, kind: str) -> None:
    app, topic = topics_app()
    source: Queue[object] = Queue()

    def items() -> Iterator[object]:
        while (item := source.get()) is not None:
            yield item
        raise RuntimeError("the source is broken")

    topic.feed(source if kind == "queue" else items())
    server = serve(app)
    stream = clients.stream(server, "/events")
    subscribed(topic, 1)
    source.put("a")
    source.put(object())
    source.put({"b": 1})
    assert stream.expect(2) == ["a", '{"b": 1}']
    log.expect("dropping item from event source of the topic 'news': not a valid event")
    if kind == "iterable":
        source.put(None)
        log.expect("event source of the topic 'news' failed")


def test_invalid_sources_are_rejected() -> None:
    app, topic = topics_app()
    queue: Queue[str] = Queue()
    topic.feed(queue)
    with pytest.raises(ValueError, match="feeds a topic already"):
        topic.feed(queue)
    for wrong in (1, "text", None):
        with pytest.raises(TypeError, match="invalid source"):
            topic.feed(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="invalid source"):
        app.sse("/wrong", source=1)  # type: ignore[call-overload]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_makes_new_ids() -> None:
    _, topic = topics_app()
    topic.publish("before")
    mine = log_of(topic).cursor(1)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, log_of(topic).cursor(1).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        theirs = pipe.read().decode()
    os.waitpid(pid, 0)
    assert theirs.endswith("-1")
    assert theirs != mine


def test_a_gap_is_not_sent_without_an_envelope(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news")
    topic.publish("1")

    @app.websocket("/news")
    def news(ws: WebSocket) -> MessageGenerator:
        ws.subscribe(topic, after="unknown")
        while True:
            yield

    client = clients.websocket(serve(app), "/news")
    subscribed(topic, 1)
    topic.publish("2")
    assert client.next_event() == "2"


def test_only_a_topic_or_its_name_can_be_subscribed_to(serve: Serve, clients: Clients) -> None:
    app = App()

    @app.websocket("/news")
    def news(ws: Any) -> None:
        with pytest.raises(TypeError, match="expected the name of a topic or a Topic, got 5"):
            ws.subscribe(5)
        ws.send("rejected")

    assert clients.websocket(serve(app), "/news").next_event() == "rejected"

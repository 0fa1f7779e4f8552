"""Races between topics, their clients and their loops."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import Clients
from tests.support.handlers import NO_HANDOFFS, MessageGenerator
from tests.support.log import ServerLog
from tests.support.receivers import ManualReceiver, manual_loops
from tests.support.serving import Serve
from tests.support.topics import position_of
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close, StateError
from wsframe.server import App, EventStream, Subscription, WebSocket
from wsframe.server.timing import Timing
from wsframe.server.topics.encodings import EventStreamEncoding
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.shared import LocalLog
from wsframe.server.topics.sizes import DEFAULT_SIZES
from wsframe.server.topics.topic_log import AHEAD

from .topics import subscribed


@pytest.mark.unmeasured
@pytest.mark.parametrize("kind", ["streams", "sockets"])
def test_events_before_a_stop_reach_all_clients(serve: Serve, clients: Clients, kind: str) -> None:
    """Clients that receive events in batches are shut down in batches, too."""
    app = App()
    topic = app.topic("news")
    app.sse("/streams", source=topic)

    @app.websocket("/sockets")
    def sockets(ws: WebSocket) -> MessageGenerator:
        ws.subscribe(topic)
        while True:
            yield

    server = serve(app)
    open_one: Any = clients.stream if kind == "streams" else clients.websocket
    all_clients = [open_one(server, f"/{kind}") for _ in range(2 * DEFAULT_SIZES.fanout_batch + 10)]
    subscribed(topic, len(all_clients))
    topic.publish("one")
    topic.publish("two")
    threading.Thread(target=server.stop).start()
    for client in all_clients:
        assert client.expect(2) == ["one", "two"]
        client.close()


def test_a_new_subscriber_is_not_too_slow(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news", max_bytes=100, history=1)

    @app.websocket("/news")
    def news(ws: WebSocket) -> MessageGenerator:
        ws.subscribe(topic)
        topic.publish("x" * 200)
        topic.publish("y" * 200)
        yield

    server = serve(app)
    assert clients.websocket(server, "/news").expect(2) == ["x" * 200, "y" * 200]


def test_the_owner_begins_a_subscription_of_another_connection(
    serve: Serve, clients: Clients
) -> None:
    """A turn may lose the loop at any time, so it must not do the owner's work."""
    app = App(timing=NO_HANDOFFS)
    topic = app.topic("news")
    others: list[WebSocket] = []
    begun: list[bool] = []

    @app.websocket("/other")
    def other(ws: WebSocket) -> MessageGenerator:
        others.append(ws)
        while True:
            yield

    @app.websocket("/news")
    def news(ws: WebSocket) -> MessageGenerator:
        subscription = others[0].subscribe(topic)
        begun.append(position_of(subscription).begun)
        yield

    server = serve(app)
    first = clients.websocket(server, "/other")
    wait_until(lambda: others, "the other client is connected")
    clients.websocket(server, "/news")
    subscribed(topic, 1)
    topic.publish("1")
    assert first.expect(1) == ["1"]
    assert begun == [False]


def test_a_closed_topic_does_not_end_a_stream_of_others(serve: Serve, clients: Clients) -> None:
    app = App()
    over, other = app.topic("over"), app.topic("next")

    @app.sse("/both")
    def both(stream: EventStream) -> None:
        stream.subscribe(over, after="")
        stream.subscribe(other)

    server = serve(app)
    over.publish("1")
    over.close()
    stream = clients.stream(server, "/both")
    assert stream.expect(1) == ["1"]
    subscribed(other, 1)
    other.publish("2")
    assert stream.expect(1) == ["2"]
    # Nor when it reconnects.
    stream.close()
    other.publish("3")
    again = clients.stream(server, "/both", ("Last-Event-ID", stream.last_event_id))
    assert again.expect(1) == ["3"]
    other.close()
    again.expect_end()
    assert again.last_event_id == ":end"


def all_over(subscriptions: list[Subscription], count: int) -> bool:
    """Return True if there are so many subscriptions, and all are over."""
    return len(subscriptions) == count and all(position_of(one).over for one in subscriptions)


@pytest.mark.parametrize("after", [None, ""])
def test_a_client_that_subscribes_to_a_closed_topic_receives_the_history_and_the_end(
    serve: Serve, clients: Clients, after: str | None
) -> None:
    """It receives the requested events, however short the history is, and then the end."""
    app = App()
    topic = app.topic("news", history=1)
    ended: list[Subscription] = []

    @app.sse("/stream")
    def stream(stream: EventStream) -> None:
        stream.subscribe(topic, after=after)

    @app.websocket("/socket")
    def socket(ws: WebSocket) -> MessageGenerator:
        ended.append(ws.subscribe(topic, after=after))
        while True:
            yield

    server = serve(app)
    topic.publish("1")
    topic.publish("2")
    topic.close()
    assert topic.stats().history == 1
    for count in (1, 2):
        client = clients.stream(server, "/stream")
        if after == "":
            assert client.expect(1) == ["2"]
        client.expect_end()
        assert client.last_event_id == ":end"
        listener = clients.websocket(server, "/socket")
        if after == "":
            assert listener.expect(1) == ["2"]
        wait_until(partial(all_over, ended, count), "the subscription is over")
        listener.leave()
    assert topic.stats().subscribers == 0


def test_last_id_of_a_subscription(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news")
    subscriptions: list[Subscription] = []

    @app.websocket("/news")
    def news(ws: WebSocket) -> MessageGenerator:
        with ws.subscribe(topic) as subscription:
            subscriptions.append(subscription)
            yield
        ws.send("over")
        yield
        ws.subscribe(topic, after=subscription.last_id)
        while True:
            yield

    server = serve(app)
    client = clients.websocket(server, "/news")
    subscribed(topic, 1)
    topic.publish("1")
    topic.publish("2")
    assert client.expect(2) == ["1", "2"]
    client.send_messages("end it")
    assert client.expect(1) == ["over"]
    topic.publish("3")
    client.send_messages("next")
    assert client.expect(1) == ["3"]


@pytest.mark.parametrize("path", ["/now", "/all"])
def test_an_encoding_error_ends_the_connections_concerned(
    serve: Serve,
    clients: Clients,
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """After an internal error no client waits forever, and no client misses an event."""
    app = App()
    topic = app.topic("news", history=1)
    encode = EventStreamEncoding.encode

    def fail(self: EventStreamEncoding, topic: str, entry: Entry) -> bytes:
        if entry.data == "poison":
            raise RuntimeError("poison")
        return encode(self, topic, entry)

    monkeypatch.setattr(EventStreamEncoding, "encode", fail)

    @app.sse("/now")
    def now(stream: EventStream) -> None:
        stream.subscribe(topic)

    @app.sse("/all")
    def history(stream: EventStream) -> None:
        stream.subscribe(topic, after="")

    server = serve(app)
    if path == "/all":
        topic.publish("poison")
        stream = clients.stream(server, path)
    else:
        stream = clients.stream(server, path)
        subscribed(topic, 1)
        topic.publish("poison")
    log.expect("internal error")
    with pytest.raises((EOFError, ConnectionResetError)):
        stream.next_event()
    subscribed(topic, 0)
    again = clients.stream(server, "/now")
    subscribed(topic, 1)
    topic.publish("1")
    assert again.expect(1) == ["1"]


@pytest.mark.parametrize("thread", ["a loop", "another"])
def test_a_loop_waits_for_no_other_loop(thread: str) -> None:
    """Two loops that waited for each other would wait forever."""
    topics = Topics(Timing(publish_send_timeout=TIMEOUT))
    mine, other = manual_loops(topics, 2)
    topic = topics.get("news")
    ManualReceiver(other).subscribe(topic)
    other.is_owner = False
    mine.is_owner = thread == "a loop"
    publishing = threading.Thread(target=topic.publish, args=("x" * (AHEAD + 1),))
    publishing.start()
    wait_until(lambda: topic.stats().published, "the event is published")
    if mine.is_owner:
        publishing.join(TIMEOUT)
        assert not publishing.is_alive()
    assert publishing.is_alive() is not mine.is_owner
    other.is_owner = True
    other.run()
    publishing.join(TIMEOUT)
    assert not publishing.is_alive()


def test_a_publisher_waits_for_a_loop_with_a_timeout() -> None:
    """The loop may wait for the publisher, for example for the lock of a logging handler."""
    topics = Topics(Timing(publish_send_timeout=0.01))
    (loop,) = manual_loops(topics, 1)
    topic = topics.get("news")
    ManualReceiver(loop).subscribe(topic)
    loop.is_owner = False
    publishing = threading.Thread(target=topic.publish, args=("x" * (AHEAD + 1),))
    publishing.start()
    publishing.join(TIMEOUT)
    assert not publishing.is_alive()


def test_nothing_follows_a_close_frame(serve: Serve, clients: Clients) -> None:
    """Either end closes, with both kinds of handlers, while events come at full speed."""
    app = App()
    topic = app.topic("news", policy="drop-oldest")

    @app.websocket("/waits")
    def waits(ws: WebSocket) -> MessageGenerator:
        with ws.subscribe(topic):
            yield

    @app.websocket("/blocks")
    def blocks(ws: WebSocket) -> None:
        with ws.subscribe(topic):
            ws.receive()

    server = serve(app)
    over = threading.Event()

    def publish() -> None:
        while not over.is_set():
            topic.publish("x" * 1000)

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        for path in ["/waits", "/blocks"] * 10:
            client = clients.websocket(server, path)
            assert client.expect(10) == ["x" * 1000] * 10
            client.send_messages("that is enough")  # the handler returns here
            while not isinstance(event := client.next_event(), Close):
                pass
            assert event.code == 1000
            client.send(client.codec.close(1000))
            client.expect_end()
    finally:
        over.set()
        publishing.join()
    wait_until(lambda: not topic.stats().subscribers, "all clients have left")


@pytest.mark.slow
def test_a_slow_client_over_tls(serve: Serve, clients: Clients, certificates: Certificates) -> None:
    app = App()
    topic = app.topic("news", history=5000, max_bytes=64 << 20)
    app.sse("/news", source=topic)
    server = serve(app, ssl_context=certificates.server)
    stream = clients.stream(server, "/news", tls=certificates.client, receive_buffer=1 << 14)
    subscribed(topic, 1)
    texts = [f"{number} ".ljust(10_000, "x") for number in range(2000)]
    for text in texts:
        topic.publish(text)
    assert topic.stats().lagging == 1
    assert stream.expect(2000) == texts
    subscribed(topic, 1)


def test_a_stream_subscribes_to_a_topic_twice(serve: Serve, clients: Clients) -> None:
    """Events are sent twice until one subscription is closed; the ids always contain the topic."""
    app = App()
    subscriptions: list[Subscription] = []

    @app.sse("/twice")
    def twice(stream: EventStream) -> None:
        subscriptions.extend(stream.subscribe(name) for name in ("a", "a", "b"))

    server = serve(app)
    a, b = app.topic("a"), app.topic("b")
    stream = clients.stream(server, "/twice")
    wait_until(lambda: server.stats().subscriptions == 3, "all subscriptions have begun")
    a.publish("1")
    assert stream.expect(2) == ["1", "1"]
    subscriptions[0].close()
    b.publish("2")
    assert stream.expect(1) == ["2"]
    stream.close()
    a.publish("3")
    again = clients.stream(server, "/twice", ("Last-Event-ID", stream.last_event_id))
    assert again.expect(2) == ["3", "3"]


def test_a_closed_topic_stays_closed_while_it_is_kept(serve: Serve) -> None:
    app = App()
    serve(app)
    app.topic("soon forgotten", max_age=0.0).close()
    app.topic("soon forgotten").publish("1")
    for _ in range(2):
        app.topic("news").close()
    with pytest.raises(StateError, match="the topic 'news' is closed"):
        app.topic("news").publish("1")


def test_an_event_that_loses_a_race_with_the_end_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics = Topics(Timing())
    (loop,) = manual_loops(topics, 1)
    topic = topics.get("news")
    client, slow = ManualReceiver(loop), ManualReceiver(loop, room=100)
    for receiver in (client, slow):
        receiver.subscribe(topic)
    loop.run()
    topic.publish("x" * 200)
    append = LocalLog.publish

    def close_first(*arguments: Any) -> Any:
        """Publish after another thread has closed the topic, and a loop has sent the end."""
        monkeypatch.setattr(LocalLog, "publish", append)
        topic.close()
        loop.run()
        return append(*arguments)

    monkeypatch.setattr(LocalLog, "publish", close_first)
    with pytest.raises(StateError, match="the topic 'news' is closed"):
        topic.publish("too late")
    loop.run()
    for receiver in (client, slow):
        assert receiver.texts() == ["x" * 200]
        assert receiver.ended == ["news"]
    assert topic.stats().published == 1


def test_publishing_from_all_places_of_user_code(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news", history=10)
    app.sse("/news", source=topic, authorize=lambda request: topic.publish("authorize"))

    @app.on_start
    def start() -> None:
        topic.publish("start")

    @app.sse("/all")
    def history(stream: EventStream) -> None:
        stream.subscribe(topic, after="")
        topic.publish("handler")

    server = serve(app)
    clients.stream(server, "/news").read_opening()
    assert clients.stream(server, "/all").expect(3) == ["start", "authorize", "handler"]

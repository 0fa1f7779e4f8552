"""The subscriptions of a connection, from their begin to their end."""

from __future__ import annotations

from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients
from tests.support.handlers import SHORT_GRACE, Checkpoint, MessageGenerator, websocket_app
from tests.support.inspection import topics_of
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, EventStream, Subscription, WebSocket
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.shared import LocalLog, Replica


class RefusingLog(LocalLog):
    """A broker that cannot store the names of members."""

    def join(self, replica: Replica, member: str) -> None:
        raise ValueError("cannot store a name")


def test_a_subscription_that_the_broker_refuses_does_not_count(
    serve: Serve, clients: Clients
) -> None:
    def subscribe(ws: WebSocket) -> MessageGenerator:
        try:
            ws.subscribe("news", member="ann")
        except ValueError as error:
            ws.send(str(error))
        yield
        ws.subscribe("news", after="")
        yield

    app = websocket_app(subscribe)
    topics_of(app).share(RefusingLog())
    topic = app.topic("news")
    server = serve(app, max_subscriptions=1)
    client = clients.websocket(server, "/echo")
    assert client.next_event() == "cannot store a name"
    assert topic.stats().subscribers == 0
    client.send_messages("again")
    topic.publish("1")
    assert client.next_event() == "1"
    assert server.stats().subscriptions == topic.stats().subscribers == 1


def test_a_handler_that_subscribes_after_the_stop_leaves_no_subscriber(
    serve: Serve, clients: Clients, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops between the check of the connection and the subscription."""
    held = Checkpoint()
    subscriptions: Queue[Subscription] = Queue()
    find = Topics.find

    def find_late(*arguments: Any) -> Any:
        held.wait()
        return find(*arguments)

    def subscribe(ws: WebSocket) -> None:
        subscriptions.put(ws.subscribe("news"))

    monkeypatch.setattr(Topics, "find", find_late)
    app = websocket_app(subscribe, timing=SHORT_GRACE)
    topic = app.topic("news")
    server = serve(app, drain=0.1)
    clients.websocket(server, "/echo")
    held.wait_until_reached()
    stop_within(server, TIMEOUT)
    log.expect("wsframe-handler /echo did not stop in time")
    held.release()
    assert subscriptions.get(timeout=TIMEOUT).topic == "news"
    assert topic.stats().subscribers == 0


def test_a_client_that_reads_its_last_events_after_its_subscription_has_ended(
    serve: Serve, clients: Clients
) -> None:
    opened: Queue[tuple[WebSocket, Subscription]] = Queue()

    def subscribe(ws: WebSocket) -> MessageGenerator:
        opened.put((ws, ws.subscribe(topic)))
        while True:
            yield

    app = App()
    topic = app.topic("news", max_bytes=64 << 20)
    app.websocket("/news")(subscribe)
    server = serve(app)
    client = clients.websocket(server, "/news", receive_buffer=1 << 14)
    ws, subscription = opened.get(timeout=TIMEOUT)
    wait_until(lambda: topic.stats().lagging == 0, "the subscription has begun")
    for _ in range(64):
        topic.publish("x" * (1 << 18))
    assert topic.stats().lagging == 1
    subscription.close()
    wait_until(lambda: server.stats().subscriptions == 0, "the subscription has ended")
    ws.send("after the events", timeout=0)
    while (event := client.next_event()) != "after the events":
        assert event == "x" * (1 << 18)
    client.leave()


def test_a_stream_that_later_subscribes_to_another_topic_resumes_both(
    serve: Serve, clients: Clients
) -> None:
    """The ids contain both positions from then on, also if only the second topic has events."""
    app, opened = App(), Queue[EventStream]()

    @app.sse("/streams")
    def streams(stream: EventStream) -> None:
        stream.subscribe("a")
        if stream.last_event_id:
            stream.subscribe("b")
        opened.put(stream)

    server = serve(app)
    a, b = app.topic("a"), app.topic("b")
    client = clients.stream(server, "/streams")
    stream = opened.get(timeout=TIMEOUT)
    wait_until(lambda: server.stats().subscriptions == 1, "the first subscription has begun")
    a.publish("1")
    assert client.expect(1) == ["1"]
    stream.subscribe("b")
    wait_until(lambda: server.stats().subscriptions == 2, "the second subscription has begun")
    b.publish("2")
    assert client.expect(1) == ["2"]
    client.close()
    a.publish("3")
    b.publish("4")
    again = clients.stream(server, "/streams", ("Last-Event-ID", client.last_event_id))
    assert sorted(again.expect(2)) == ["3", "4"]

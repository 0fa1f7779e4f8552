"""Topics over a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Clients, StreamClient, WebSocketClient
from tests.support.handlers import NO_HANDOFFS, MessageGenerator
from tests.support.inspection import loops_of
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, WebSocket
from wsframe.server.topics.redis.outbox import EVENT_WEIGHT
from wsframe.server.topics.sizes import Sizes

from .topics import subscribed


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis of the test's own."""
    with RedisServer(tmp_path) as server:
        yield server


def shared_app(redis: RedisServer, **options: float) -> App:
    app = App(redis=redis.url)
    app.sse("/events", source=app.topic("news", **options))  # type: ignore[arg-type]

    @app.websocket("/messages")
    def messages(ws: WebSocket) -> MessageGenerator:
        ws.subscribe("news", member=ws.request.query.get("name", [None])[0])
        while True:
            message = yield
            app.topic("news").publish(message)

    return app


def test_two_servers_share_topics(redis: RedisServer, serve: Serve, clients: Clients) -> None:
    apps = [shared_app(redis) for _ in range(2)]
    servers = [serve(app) for app in apps]
    streams = [clients.stream(server, "/events") for server in servers]
    sockets = [clients.websocket(server, "/messages") for server in servers]
    for app in apps:
        subscribed(app.topic("news"), 2)
    sockets[0].send_messages("from the first")
    all_clients: list[StreamClient | WebSocketClient] = [*streams, *sockets]
    for client in all_clients:
        assert client.expect(1) == ["from the first"]
    apps[1].topic("news").publish("from the second", event="x")
    for client in all_clients:
        assert client.expect(1) == ["from the second"]
    # A client reconnects to the other server.
    again = clients.stream(servers[1], "/events", ("Last-Event-ID", streams[0].last_event_id))
    subscribed(apps[1].topic("news"), 3)
    apps[0].topic("news").publish("after")
    assert again.expect(1) == ["after"]


def test_members_of_all_processes(redis: RedisServer, serve: Serve, clients: Clients) -> None:
    apps = [shared_app(redis) for _ in range(2)]
    servers = [serve(app) for app in apps]
    ann = clients.websocket(servers[0], "/messages?name=Ann")
    subscribed(apps[0].topic("news"), 1)
    assert apps[0].topic("news").members() == ["Ann"]  # a new member is included
    bob = clients.websocket(servers[1], "/messages?name=Bob")
    subscribed(apps[1].topic("news"), 1)
    assert apps[1].topic("news").members() == ["Ann", "Bob"]
    ann.leave()
    subscribed(apps[0].topic("news"), 0)
    assert apps[0].topic("news").members() == ["Bob"]  # a member that left is not
    bob.leave()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generator", "function", "blocking"])
def test_a_client_that_floods_its_topic_is_slowed_down_and_loses_nothing(
    redis: RedisServer,
    serve: Serve,
    clients: Clients,
    kind: str,
) -> None:
    """Redis is too slow: the client is read more slowly, and other topics continue."""
    sizes = Sizes(max_waiting_bytes=40 * (EVENT_WEIGHT + 1000))
    app = App(redis=redis.url, topic_sizes=sizes)
    flooded = app.topic("flooded", history=2000, max_bytes=8 << 20)

    def generator(ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            app.topic(ws.request.query["to"][0]).publish(message)

    def function(ws: WebSocket) -> None:
        for message in ws:
            app.topic(ws.request.query["to"][0]).publish(message)

    handler = function if kind == "function" else generator
    app.websocket("/say", blocking=kind == "blocking")(handler)
    app.sse("/flooded", source=flooded)
    app.sse("/quiet", source=app.topic("quiet"))
    server = serve(app)
    streams = [clients.stream(server, f"/{name}") for name in ("flooded", "quiet")]
    for topic in (flooded, app.topic("quiet")):
        subscribed(topic, 1)
    flooding, quiet = (
        clients.websocket(server, f"/say?to={name}") for name in ("flooded", "quiet")
    )
    messages = [f"{number:04}" * 250 for number in range(1000)]
    with redis.client() as client:
        client.execute_command("CLIENT", "PAUSE", "1000", "WRITE")
    sending = threading.Thread(target=flooding.send_messages, args=messages)
    sending.start()
    wait_until(lambda: flooded.stats().published >= 10, "ten events are published")
    quiet.send_messages("hello")
    assert streams[1].expect(1) == ["hello"]
    assert streams[0].expect(1000) == messages
    sending.join(TIMEOUT)
    assert not sending.is_alive()


def test_a_disconnect_of_a_slowed_down_client_is_noticed(
    redis: RedisServer, serve: Serve, clients: Clients
) -> None:
    sizes = Sizes(max_waiting_bytes=10 * EVENT_WEIGHT)
    # A turn that lost the loop would wait in its thread instead.
    app = App(redis=redis.url, topic_sizes=sizes, timing=NO_HANDOFFS)
    ended = threading.Event()

    @app.websocket("/say")
    def say(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                app.topic("news").publish((yield))
        finally:
            ended.set()

    server = serve(app)
    client = clients.websocket(server, "/say")
    with redis.client() as commands:
        commands.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
        try:
            for number in range(5):
                client.send_messages(str(number))
            (loop,) = loops_of(server)
            wait_until(lambda: loop.slowdowns, "the client is slowed down")
            client.reset()
            assert ended.wait(TIMEOUT)
        finally:
            commands.execute_command("CLIENT", "UNPAUSE")

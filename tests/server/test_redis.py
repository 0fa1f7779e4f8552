"""Topics over a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wsframe.server import App, Topic, WebSocket

from ..redis_server import RedisServer
from .clients import StreamClient, WebSocketClient
from .conftest import Clients, Serve, wait_until
from .handlers import Waits


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with RedisServer(tmp_path) as server:
        yield server


def shared_app(redis: RedisServer, **options: float) -> App:
    app = App(redis=redis.url)
    app.sse("/events", source=app.topic("news", **options))  # type: ignore[arg-type]

    @app.websocket("/messages")
    def messages(ws: WebSocket) -> Waits:
        ws.subscribe("news", member=ws.request.query.get("name", [None])[0])
        while True:
            message = yield
            app.topic("news").publish(message)

    return app


def subscribed(topic: Topic, count: int) -> None:
    wait_until(
        lambda: (topic.stats().subscribers, topic.stats().behind) == (count, 0),
        f"there are not {count} subscribers: {topic.stats()}",
    )


def test_two_servers_share_everything(redis: RedisServer, serve: Serve, clients: Clients) -> None:
    apps = [shared_app(redis) for _ in range(2)]
    servers = [serve(app) for app in apps]
    streams = [clients.stream(server, "/events") for server in servers]
    sockets = [clients.websocket(server, "/messages") for server in servers]
    for app in apps:
        subscribed(app.topic("news"), 2)
    sockets[0].say("from the first")
    everybody: list[StreamClient | WebSocketClient] = [*streams, *sockets]
    for client in everybody:
        assert client.hear(1) == ["from the first"]
    apps[1].topic("news").publish("from the second", event="x")
    for client in everybody:
        assert client.hear(1) == ["from the second"]
    # A client comes back to the other server.
    again = clients.stream(servers[1], "/events", ("Last-Event-ID", streams[0].last_event_id))
    subscribed(apps[1].topic("news"), 3)
    apps[0].topic("news").publish("after")
    assert again.hear(1) == ["after"]


def test_members_of_all_processes(redis: RedisServer, serve: Serve, clients: Clients) -> None:
    apps = [shared_app(redis) for _ in range(2)]
    servers = [serve(app) for app in apps]
    ann = clients.websocket(servers[0], "/messages?name=Ann")
    subscribed(apps[0].topic("news"), 1)
    assert apps[0].topic("news").members() == ["Ann"]  # who has just come is there
    bob = clients.websocket(servers[1], "/messages?name=Bob")
    subscribed(apps[1].topic("news"), 1)
    assert apps[1].topic("news").members() == ["Ann", "Bob"]
    ann.leave()
    subscribed(apps[0].topic("news"), 0)
    assert apps[0].topic("news").members() == ["Bob"]  # who has just left is not
    bob.leave()

"""The list of open connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import FrozenInstanceError

import pytest

from tests.support.clients import Clients, get
from tests.support.handlers import generator_echo, websocket_app
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, ConnectionInfo, Request, WebSocket
from wsframe.server.sockets import snapshot
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock


def user(request: Request) -> str | None:
    return request.query.get("user", [""])[0] or None


def make_app(timing: Timing | None = None) -> App:
    app = websocket_app(generator_echo, timing=timing, authorize=user)
    app.sse("/news", app.topic("news"))
    app.page("/", "a page")
    return app


def test_the_list_has_each_websocket_and_event_stream(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = make_app(Timing(clock=clock))
    server = serve(app, loops=2)
    assert app.connections() == []
    clients.websocket(server, "/echo?user=ann")
    clock.pass_time(server, 5)
    clients.stream(server, "/news")
    clients.connect(server).send(b"GET /")  # an incomplete request
    page = clients.connect(server)
    page.send(get("/"))
    assert page.response().status == 200
    clock.pass_time(server, 1)
    found = sorted(app.connections(), key=lambda info: -info.seconds)
    assert [(info.kind, info.path, info.client, info.identity) for info in found] == [
        ("websocket", "/echo", "127.0.0.1", "ann"),
        ("event_stream", "/news", "127.0.0.1", None),
    ]
    assert [round(info.seconds) for info in found] == [6, 1]
    assert sorted(server.connections(), key=lambda info: -info.seconds) == found


def test_a_record_cannot_be_changed(serve: Serve, clients: Clients) -> None:
    app = make_app()
    clients.stream(serve(app), "/news")
    [info] = app.connections()
    with pytest.raises(FrozenInstanceError):
        info.path = "/"  # type: ignore[misc]


def test_ended_connections_and_stopped_servers_are_left_out(serve: Serve, clients: Clients) -> None:
    app = make_app()
    server = serve(app)
    ann = clients.websocket(server, "/echo?user=ann")
    clients.websocket(server, "/echo?user=bob")
    ann.leave()
    wait_until(lambda: len(app.connections()) == 1, "the connection has ended")
    assert app.connections()[0].identity == "bob"
    server.stop(drain=0)
    assert app.connections() == server.connections() == []


def test_unsent_bytes_are_counted(serve: Serve, clients: Clients) -> None:
    app = App()
    opened: list[WebSocket] = []

    @app.websocket("/")
    def collect(ws: WebSocket) -> Iterator[None]:
        opened.append(ws)
        yield

    server = serve(app, socket_buffer=4096)
    clients.websocket(server, "/", receive_buffer=4096)
    wait_until(lambda: bool(opened), "the handler runs")
    for _ in range(40):
        with suppress(TimeoutError):
            opened[0].send(b"x" * 65536, timeout=0)
    assert 256 * 1024 < app.connections()[0].unsent < 10 * 1024 * 1024


def test_the_list_is_available_while_a_handler_blocks_and_the_server_stops(
    serve: Serve, clients: Clients
) -> None:
    app, blocked, release = App(), threading.Event(), threading.Event()

    @app.websocket("/")
    def block(ws: WebSocket) -> Iterator[None]:
        blocked.set()
        release.wait(TIMEOUT)
        yield

    server = serve(app)
    clients.websocket(server, "/")
    assert blocked.wait(TIMEOUT)
    assert [info.path for info in app.connections()] == ["/"]
    stopping = threading.Thread(target=server.stop, args=(TIMEOUT,))
    stopping.start()
    wait_until(lambda: server.stopping, "the server stops")
    assert [info.path for info in app.connections()] == ["/"]
    release.set()
    clients.close()
    stopping.join()


def test_the_thread_pauses_between_batches(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    app = make_app()
    server = serve(app)
    monkeypatch.setattr(snapshot, "sleep", pauses.append)
    for _ in range(130):
        clients.stream(server, "/news")
    assert len(app.connections()) == 130
    assert pauses == [snapshot.PAUSE] * 2


def test_connections_may_open_and_end_meanwhile(serve: Serve, clients: Clients) -> None:
    app = make_app()
    server = serve(app, loops=2)
    ended, failures = threading.Event(), []

    def look() -> None:
        while not ended.is_set():
            try:
                found = app.connections()
                assert all(isinstance(info, ConnectionInfo) for info in found)
            except BaseException as error:
                failures.append(error)
                raise
            time.sleep(0)

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(30):
        clients.websocket(server, "/echo?user=ann").leave()
        clients.stream(server, "/news").close()
    ended.set()
    watcher.join()
    assert not failures

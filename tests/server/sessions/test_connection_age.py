"""The maximum age of a connection (``max_connection_age``)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.clients import Clients, get, masked
from tests.support.handlers import generator_echo, websocket_app
from tests.support.inspection import peers_of
from tests.support.serving import Serve
from wsframe import Close, Opcode
from wsframe.server import App, EventStream, WebSocket
from wsframe.server.sockets.peer import AGE_SPREAD
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

AGE = 20.0
YOUNGEST, OLDEST = (1 - AGE_SPREAD) * AGE, (1 + AGE_SPREAD) * AGE
FOREVER: dict[str, Any] = {
    "ping_interval": 0,
    "message_timeout": 0,
    "heartbeat": 0,
    "close_timeout": 1e6,
}


@pytest.mark.parametrize("send_timeout", [30.0, 1e9])
def test_a_websocket_is_closed_with_the_setting_as_reason(
    serve: Serve, clients: Clients, send_timeout: float
) -> None:
    clock = ManualClock()
    app = websocket_app(generator_echo, timing=Timing(clock=clock))
    settings = {**FOREVER, "send_timeout": send_timeout}
    server = serve(app, max_connection_age=AGE, **settings)
    client = clients.websocket(server, "/echo")
    clock.pass_time(server, YOUNGEST - 1)
    client.send_messages("young")
    assert client.next_event() == "young"
    clock.pass_time(server, OLDEST - YOUNGEST + 5)
    assert client.expect_close() == Close(1001, "open for about 20 s (max_connection_age)")


def test_a_websocket_that_is_closing_is_not_closed_again(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))

    @app.websocket("/")
    def leave(ws: WebSocket) -> None:
        ws.close(4000, "bye")

    server = serve(app, max_connection_age=AGE, **FOREVER)
    client = clients.websocket(server, "/")
    assert client.next_event() == Close(4000, "bye")
    clock.pass_time(server, OLDEST + 1)
    client.send(masked(Opcode.CLOSE, (4000).to_bytes(2, "big")))
    assert client.read_to_end() == b""


@pytest.mark.parametrize("compress", [False, True])
def test_an_event_stream_ends_and_its_client_resumes(
    serve: Serve, clients: Clients, compress: bool
) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))
    news = app.topic("news", max_age=1e6)
    app.sse("/news", news, compress=compress)
    server = serve(app, max_connection_age=AGE, **FOREVER)
    stream = clients.stream(server, "/news")
    news.publish("first")
    assert stream.next_event().data == "first"
    clock.pass_time(server, OLDEST + 1)
    stream.expect_end()
    news.publish("second")
    again = clients.stream(server, "/news", ("Last-Event-ID", stream.last_event_id))
    assert again.next_event().data == "second"


def test_an_idle_stream_of_a_handler_ends(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))

    @app.sse("/")
    def greet(stream: EventStream) -> None:
        stream.send("hello")

    server = serve(app, max_connection_age=AGE, **FOREVER)
    stream = clients.stream(server, "/")
    assert stream.next_event().data == "hello"
    clock.pass_time(server, OLDEST + 1)
    stream.expect_end()


def test_connections_reach_their_age_at_different_times(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))
    app.sse("/", app.topic("news"))
    server = serve(app, max_connection_age=AGE, **FOREVER)
    streams = [clients.stream(server, "/") for _ in range(40)]
    opened = clock()
    ages = [peer.expires - opened for peer in peers_of(server)]
    assert all(YOUNGEST <= age <= OLDEST for age in ages)
    quarters = Counter(int((age - YOUNGEST) / (OLDEST - YOUNGEST) * 4) for age in ages)
    assert set(quarters) == {0, 1, 2, 3}  # fails once in 20,000 runs
    clock.pass_time(server, OLDEST + 1)
    for stream in streams:
        stream.expect_end()


def test_a_request_has_no_age(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))
    app.page("/", "a page")
    server = serve(app, max_connection_age=AGE, handshake_timeout=1e6, **FOREVER)
    client = clients.connect(server)
    clock.pass_time(server, OLDEST + 1)
    client.send(get("/"))
    assert client.response().status == 200


def test_without_the_setting_a_connection_has_no_age(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))
    news = app.topic("news")
    app.sse("/", news)
    server = serve(app, **FOREVER)
    stream = clients.stream(server, "/")
    clock.pass_time(server, 2 * OLDEST)
    news.publish("hello")
    assert stream.next_event().data == "hello"

"""Applications that are served in the test's process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import wsframe.flask
from tests.support.certificates import Certificates
from tests.support.handlers import Checkpoint, generator_echo, websocket_app
from wsframe import Close, Ping
from wsframe.server import App, WebSocket
from wsframe.server.timing import Timing
from wsframe.testing import (
    TIMEOUT,
    AppServer,
    ManualClock,
    ServeApp,
    ServeWSGI,
    SlowReader,
    WSGIAppServer,
    leak_check,
    stop_within,
    wait_until,
)
from wsframe.testing.requests import get
from wsframe.wsgi import Live


def news_app() -> App:
    app = websocket_app(generator_echo)
    app.sse("/news", app.topic("news", max_age=60))
    return app


def test_clients_are_served_until_the_end() -> None:
    with leak_check(), AppServer(news_app()) as server:
        client = server.websocket("/echo")
        client.send_messages("hello")
        assert client.expect(1) == ["hello"]
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.connections == 1
        with leak_check(server):
            server.websocket("/echo").leave()


def test_a_server_restarts_on_its_port(serve_app: ServeApp) -> None:
    app = news_app()
    server = serve_app(app)
    client, events = server.websocket("/echo"), server.stream("/news")
    events.read_opening()
    app.topic("news").publish("one")
    assert events.expect(1) == ["one"]
    port, first = server.port, server.server
    server.restart()
    assert client.expect_close() == Close(1001, "the server is shutting down")
    events.expect_end()
    assert server.port == port == server.server.port
    assert not first.running
    app.topic("news").publish("two")
    again = server.stream("/news", ("Last-Event-ID", events.last_event_id))
    assert again.expect(1) == ["two"]


def test_clients_keep_what_arrives_before_a_stop(serve_app: ServeApp) -> None:
    app = news_app()
    server = serve_app(app)
    client, events = server.websocket("/echo"), server.stream("/news")
    events.read_opening()
    client.send_messages("one", "two")
    wait_until(lambda: server.server.stats().messages_out >= 2, "both are answered")
    app.topic("news").publish("three")
    server.stop()
    assert client.expect(3) == ["one", "two", Close(1001, "the server is shutting down")]
    assert events.expect(1) == ["three"]
    for ended in (client, events):
        ended.expect_end()
        ended.receive_available()  # nothing, because it is closed


def test_clients_connect_in_every_way(
    serve_app: ServeApp, certificates: Certificates, tmp_path: Path
) -> None:
    app = news_app()
    secured = serve_app(app, ssl_context=certificates.server)
    client = secured.websocket("/echo", tls=certificates.client)
    secured.stop()
    assert client.expect_close().code == 1001
    path = str(tmp_path / "socket")
    on_unix = serve_app(app, unix=path)
    for way in on_unix.connect(unix=path), serve_app(app).connect(source="127.0.0.1"):
        way.send(get("/"))
        assert way.response().status == 404


def test_clients_are_refused_while_the_server_is_stopped(serve_app: ServeApp) -> None:
    server = serve_app(news_app())
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    server.start()
    server.websocket("/echo").leave()
    with pytest.raises(OSError, match="in use"):
        server.start()


def test_a_handler_sees_that_its_client_has_reset_the_connection(serve_app: ServeApp) -> None:
    ended = threading.Event()

    def handler(ws: WebSocket) -> None:
        for _ in ws:
            pass
        ended.set()

    server = serve_app(websocket_app(handler))
    server.websocket("/echo").reset()
    assert ended.wait(TIMEOUT)
    wait_until(lambda: not server.connections, "the connection is over")


def test_a_stop_that_takes_too_long_is_an_error(serve_app: ServeApp) -> None:
    held = Checkpoint()

    def handler(ws: WebSocket) -> None:
        held.wait()

    server = serve_app(websocket_app(handler), drain=60)
    server.websocket("/echo")
    held.wait_until_reached()
    with pytest.raises(AssertionError, match=r"did not stop within 0\.01 s"):
        stop_within(server.server, 0.01)
    held.release()


def test_a_clock_passes_the_time_of_pings_and_deadlines(
    serve_app: ServeApp, manual_clock: ManualClock
) -> None:
    options = {"ping_interval": 20, "ping_timeout": 20}
    server = serve_app(news_app(), clock=manual_clock, **options)  # type: ignore[arg-type]
    silent, lively = server.websocket("/echo", answer_pings=False), server.websocket("/echo")
    server.pass_time(30)
    assert silent.expect(1) == [Ping(b"")]
    lively.send_messages("still here")
    assert lively.expect(1) == ["still here"]
    server.pass_time(25)
    assert silent.expect(1) == [Close(1011, "no pong within 20 s (ping_timeout)")]
    lively.leave()


def test_a_clock_applies_to_topics_that_exist_until_the_server_stops() -> None:
    app, clock = news_app(), ManualClock()
    news = app.topic("news")
    with AppServer(app, clock=clock) as server:
        start = server.stream("/news")
        start.read_opening()
        news.publish("old")
        start.expect(1)
        clock.jump(server.server, 61)
        news.publish("new")
        late = server.stream("/news", ("Last-Event-ID", start.last_event_id[:-1] + "0"))
        assert late.next_event().event == "gap"
        with pytest.raises(RuntimeError, match="stop the server first"):
            app.use_clock(clock)
    assert app.use_clock(clock) is Timing.clock


def test_time_passes_only_with_a_clock(serve_app: ServeApp) -> None:
    with pytest.raises(RuntimeError, match=r"clock=ManualClock\(\)"):
        serve_app(App()).pass_time(1)


def test_a_blocked_loop_does_not_stop_the_test_for_good() -> None:
    class Blocked:
        def call_when_each_loop_turns(self, function: Callable[[], object]) -> None:
            """Call nothing."""

    with pytest.raises(TimeoutError, match=r"a handler has blocked it for 0\.01 s"):
        ManualClock.let_loops_look(Blocked(), 0.01)  # type: ignore[arg-type]


def test_a_slow_reader_gets_everything_in_virtual_time(
    serve_app: ServeApp, manual_clock: ManualClock
) -> None:
    size = 2_000_000

    def handler(ws: WebSocket) -> Any:
        yield
        ws.send(bytes(size))
        yield

    server = serve_app(websocket_app(handler, timing=Timing(turn_slice=60)), clock=manual_clock)
    client = server.websocket("/echo", receive_buffer=1 << 14)
    client.send_messages("go")
    reader = SlowReader(client, size // 10, lambda: server.pass_time(4))
    assert len(reader.read(size)) == size


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def test_a_wsgi_application_has_pages_and_websockets(serve_wsgi: ServeWSGI) -> None:
    live = Live(loops=1)
    echo = live.websocket(generator_echo)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return (page if environ["PATH_INFO"] == "/" else echo)(environ, start_response)

    server = serve_wsgi(application, live)
    client = server.websocket("/echo")
    client.send_messages("hello")
    assert client.expect(1) == ["hello"]
    browser = server.connect()
    browser.send(get("/"))
    assert browser.response().body == b"hello"
    assert server.url == f"http://127.0.0.1:{server.port}"


def test_tests_may_use_the_same_live_one_after_the_other() -> None:
    live = Live(loops=1)
    echo = live.websocket(generator_echo)
    live.topic("news").publish("one")
    for _ in range(2):
        with leak_check(), WSGIAppServer(echo, live) as server:
            client = server.websocket("/")
            client.send_messages("hello")
            assert client.expect(1) == ["hello"]
    assert live.topic("news").stats().history == 1


def test_the_live_of_a_flask_application_is_found() -> None:
    app = Flask("app")
    live = wsframe.flask.Live(app)
    app.add_url_rule("/", "echo", lambda: live.websocket(generator_echo), websocket=True)
    for _ in range(2):
        with leak_check(), WSGIAppServer(app) as server:
            client = server.websocket("/")
            client.send_messages("hello")
            assert client.expect(1) == ["hello"]


def test_a_wsgi_application_needs_no_live(serve_wsgi: ServeWSGI) -> None:
    browser = serve_wsgi(page).connect()
    browser.send(get("/"))
    assert browser.response().status == 200

"""Warnings about surprises, each once per process."""

from __future__ import annotations

import sys
from collections.abc import Generator
from types import SimpleNamespace

import pytest

from tests.support.log import ServerLog
from wsframe.wsgi import Live, WebSocket

from .arrived import UPGRADE, Arrived, without_socket
from .conftest import MakeLive

WARNING = 30


def greet(ws: WebSocket) -> Generator[None, str, None]:
    ws.send("hello")
    yield


def test_topics_in_several_processes_without_redis(live: Live, log: ServerLog) -> None:
    news = live.topic("news")
    for _ in range(2):
        with Arrived(**{"wsgi.multiprocess": True, "SERVER_SOFTWARE": "x"}) as arrived:
            arrived.environ["gunicorn.socket"] = arrived.environ.pop("werkzeug.socket")
            arrived.serve(live.events(news))
            arrived.receive_until()
    log.expect("topics are used in several processes without Redis", WARNING)
    assert log.records == []
    live.stop()


def test_a_test_client_is_one_process(live: Live, log: ServerLog) -> None:
    with without_socket(**{"wsgi.multiprocess": True}) as arrived:
        del arrived.environ["SERVER_SOFTWARE"]
        live.topic("news").close()
        arrived.serve(live.events(live.topic("news")))
    log.expect(
        "each event stream holds a thread of the WSGI server, because the request has no", WARNING
    )
    assert log.records == []


def test_one_process_may_use_topics_without_redis(live: Live, log: ServerLog) -> None:
    news = live.topic("news")
    with Arrived() as arrived:
        arrived.serve(live.events(news))
        arrived.receive_until()
    assert log.records == []


def test_websockets_in_several_processes_need_no_redis(live: Live, log: ServerLog) -> None:
    with Arrived(**{**UPGRADE, "wsgi.multiprocess": True}) as arrived:
        arrived.environ["gunicorn.socket"] = arrived.environ.pop("werkzeug.socket")
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
    assert log.records == []
    live.stop()


def test_a_limit_of_connections_that_is_nearly_reached(make_live: MakeLive, log: ServerLog) -> None:
    live = make_live(max_connections=5)
    arrived = [Arrived(**UPGRADE) for _ in range(5)]
    for one in arrived:
        assert log.records == []
        one.serve(live.websocket(greet))
        one.receive_until(b"hello")
    log.expect("4 connections are open, and at most 5 may be: raise max_connections", WARNING)
    for one in arrived:
        one.__exit__(None, None, None)


def test_a_quarter_of_the_files_is_left_to_the_server(live: Live) -> None:
    resource = pytest.importorskip("resource")
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        server = live.server({})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    assert server.capacity() == (0, 750)


def test_limits_of_uwsgi_that_end_processes(
    live: Live, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(opt={"max-requests": b"4", "harakiri": b"30"})
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    arrived = [Arrived(**UPGRADE, **{"uwsgi.version": b"2"}) for _ in range(3)]
    for one in arrived:
        module.connection_fd = one.sock.fileno
        one.serve(live.websocket(greet))
        one.receive_until(b"hello")
    log.expect("one request takes longer than 30 s (harakiri)", WARNING)
    log.expect("2 clients are connected, and uWSGI replaces this worker after 4 requests", WARNING)
    assert log.records == []
    for one in arrived:
        one.__exit__(None, None, None)


def test_uwsgi_without_such_limits(
    live: Live, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Arrived(**UPGRADE, **{"uwsgi.version": b"2"}) as arrived:
        options = {"max-requests": [b"1", b"2"], "harakiri": True}
        module = SimpleNamespace(opt=options, connection_fd=arrived.sock.fileno)
        monkeypatch.setitem(sys.modules, "uwsgi", module)
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
    assert log.records == []

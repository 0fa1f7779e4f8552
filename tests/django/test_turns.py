"""Turns: the connections, errors and surroundings of handlers."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.signals import got_request_exception
from django.db import connections, transaction
from django.http import HttpRequest
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import get_language, gettext, override

from tests.support.clients import StreamClient, WebSocketClient
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.django import ConnectionClosed, EventStream, Live, WebSocket
from wsframe.server.timing import Timing

from .conftest import MakeLive, Serve

Waits = Generator[None, str, None]


@pytest.fixture(autouse=True)
def persistent(monkeypatch: pytest.MonkeyPatch, database: object) -> None:
    """Let views keep their connections to the database."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, database: object) -> Callable[[], int]:
    """Return a function that returns the number of open connections to the database."""
    from django.db.backends.sqlite3.base import DatabaseWrapper

    alive: list[Any] = []
    connect = DatabaseWrapper.get_new_connection

    def noting(self: Any, parameters: Any) -> Any:
        connection = connect(self, parameters)
        alive.append((self, connection))
        return connection

    monkeypatch.setattr(DatabaseWrapper, "get_new_connection", noting)
    return lambda: sum(wrapper.connection is connection for wrapper, connection in alive)


def users() -> int:
    """Return the number of users in the database."""
    return get_user_model()._default_manager.count()


def add_user() -> None:
    """Add a user to the database."""
    get_user_model()._default_manager.create(username="lost")


@pytest.fixture
def reported(database: object) -> Iterator[list[tuple[str, BaseException | None]]]:
    """The paths and exceptions that Django reports to error trackers."""
    import sys

    reports: list[tuple[str, BaseException | None]] = []

    def note(request: HttpRequest, **_: object) -> None:
        reports.append((request.path, sys.exc_info()[1]))

    got_request_exception.connect(note)
    yield reports
    got_request_exception.disconnect(note)


# Connections to databases -------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [None, True])
def test_a_generator_holds_no_connection_while_it_waits(
    live: Live, serve: Serve, opened: Callable[[], int], blocking: bool | None
) -> None:
    ended = threading.Semaphore(0)

    @live.websocket
    @live.handler(blocking=blocking)
    def handler(request: HttpRequest, ws: WebSocket) -> Waits:
        try:
            while True:
                ws.send(f"{users()} {opened()}")
                yield
        finally:
            users()
            ended.release()

    port = serve([path("", handler)])
    clients = []
    for _ in range(3):
        clients.append(WebSocketClient(port, "/"))
        assert clients[-1].expect(1) == ["0 1"]
        wait_until(lambda: opened() == 0, "the connection is closed")
    for client in clients:
        client.send_messages("a")
        assert client.expect(1) == ["0 1"]
        wait_until(lambda: opened() == 0, "the connection is closed")
        client.leave()
        assert ended.acquire(timeout=TIMEOUT)
        wait_until(lambda: opened() == 0, "the connection is closed")


def test_a_plain_function_holds_no_connection_while_it_waits(
    live: Live, serve: Serve, opened: Callable[[], int]
) -> None:
    @live.websocket
    def handler(request: HttpRequest, ws: WebSocket) -> None:
        ws.send(f"{users()} {opened()}")
        for _ in ws:
            ws.send(f"{users()} {opened()}")
        users()

    client = WebSocketClient(serve([path("", handler)]), "/")
    for _ in range(3):
        assert client.expect(1) == ["0 1"]
        wait_until(lambda: opened() == 0, "the connection is closed")
        client.send_messages("a")
    client.close()
    wait_until(lambda: opened() == 0, "the connection is closed")


def test_an_event_stream_holds_no_connection_while_it_waits(
    live: Live, serve: Serve, opened: Callable[[], int]
) -> None:
    items: queue.Queue[str] = queue.Queue()
    resume = threading.Semaphore(0)

    @live.events
    def handler(request: HttpRequest, stream: EventStream) -> Iterator[str]:
        yield f"{users()} {opened()}"
        yield f"{users()} {stream.get(items)}"
        yield f"{users()} {stream.get(items)}"
        assert resume.acquire(timeout=TIMEOUT)

    stream = StreamClient(serve([path("", handler)]), "/")
    assert stream.expect(1) == ["0 1"]
    for item in ("a", "b"):
        wait_until(lambda: opened() == 0, "the connection is closed")
        items.put(item)
        assert stream.expect(1) == [f"0 {item}"]
    wait_until(lambda: opened() == 0, "the connection is closed")
    resume.release()
    stream.close()


def test_an_event_stream_that_is_interrupted_leaves_no_connection(
    live: Live, serve: Serve, opened: Callable[[], int]
) -> None:
    ended = threading.Semaphore(0)

    @live.events
    def handler(request: HttpRequest, stream: EventStream) -> Iterator[str]:
        try:
            while True:
                yield "x" * 10_000
        finally:
            users()
            ended.release()

    stream = StreamClient(serve([path("", handler)]), "/")
    stream.expect(1)
    stream.close()
    assert ended.acquire(timeout=TIMEOUT)
    wait_until(lambda: opened() == 0, "the connection is closed")


def test_a_plain_function_for_events_leaves_no_connection(
    live: Live, serve: Serve, opened: Callable[[], int]
) -> None:
    @live.events
    def handler(request: HttpRequest, stream: EventStream) -> None:
        stream.send(users())

    stream = StreamClient(serve([path("", handler)]), "/")
    assert stream.expect(1) == ["0"]
    wait_until(lambda: opened() == 0, "the connection is closed")
    stream.close()


def add_and_wait(request: HttpRequest, ws: WebSocket) -> Waits:
    with transaction.atomic():
        add_user()
        yield


def add_and_receive(request: HttpRequest, ws: WebSocket) -> None:
    with transaction.atomic():
        add_user()
        ws.receive()


def add_and_hide(request: HttpRequest, ws: WebSocket) -> Waits:
    transaction.atomic().__enter__()
    add_user()
    try:
        yield
    except transaction.TransactionManagementError:
        yield


@pytest.mark.parametrize("handler", [add_and_wait, add_and_receive])
def test_a_handler_must_not_wait_in_a_transaction(
    live: Live,
    serve: Serve,
    opened: Callable[[], int],
    reported: list[Any],
    log: ServerLog,
    handler: Callable[..., Any],
) -> None:
    client = WebSocketClient(serve([path("here/", live.websocket(handler))]), "/here/")
    event = client.next_event()
    assert isinstance(event, Close)
    assert event.code == 1011
    client.close()
    log.expect("the handler of /here/ failed")
    assert [(where, type(error)) for where, error in reported] == [
        ("/here/", transaction.TransactionManagementError)
    ]
    wait_until(lambda: opened() == 0, "the connection is closed")
    assert users() == 0


def test_a_transaction_that_is_left_open_does_not_reach_other_turns(
    live: Live, serve: Serve, opened: Callable[[], int], log: ServerLog
) -> None:
    @live.websocket
    def count(request: HttpRequest, ws: WebSocket) -> Waits:
        ws.send(f"{users()} {connections['default'].in_atomic_block}")
        yield

    port = serve([path("hide/", live.websocket(add_and_hide)), path("count/", count)])
    hiding = WebSocketClient(port, "/hide/")
    log.expect("the handler of /hide/ failed")
    counting = WebSocketClient(port, "/count/")
    assert counting.expect(1) == ["0 False"]
    hiding.close()
    counting.close()


# Caches -------------------------------------------------------------------------------------------


def test_turns_share_the_clients_of_caches(live: Live, serve: Serve) -> None:
    used = []

    @live.websocket
    def handler(request: HttpRequest, ws: WebSocket) -> Waits:
        while True:
            cache = caches["default"]
            used.append(cache)
            ws.send(str(cache.get_or_set("key", "value")))
            yield

    port = serve([path("", handler)])
    clients = [WebSocketClient(port, "/") for _ in range(3)]
    for client in clients:
        client.send_messages("a")
        assert client.expect(2) == ["value", "value"]
        client.leave()
    assert len(used) == 6
    assert len({id(cache) for cache in used}) == 1


def test_a_turn_creates_no_clients_of_caches_that_it_does_not_use(live: Live, serve: Serve) -> None:
    @live.websocket
    def handler(request: HttpRequest, ws: WebSocket) -> Waits:
        caches["default"].set("key", "value")
        yield
        ws.send(str(len(caches.all(initialized_only=True))))

    memory = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    client = WebSocketClient(
        serve([path("", handler)], CACHES=dict.fromkeys(("default", "b"), memory)), "/"
    )
    client.send_messages("a")
    assert client.expect(1) == ["1"]
    client.close()


# Errors -------------------------------------------------------------------------------------------


def fail_at_once(request: HttpRequest, connection: Any) -> Iterator[None]:
    raise LookupError("a mistake")
    yield


def fail_plainly(request: HttpRequest, connection: Any) -> None:
    raise LookupError("a mistake")


def fail_at_the_end(request: HttpRequest, ws: WebSocket) -> Waits:
    try:
        yield
    finally:
        raise LookupError("a mistake")


@pytest.mark.parametrize("handler", [fail_at_once, fail_plainly, fail_at_the_end])
def test_an_error_of_a_handler_is_reported_and_logged(
    live: Live, serve: Serve, reported: list[Any], log: ServerLog, handler: Callable[..., Any]
) -> None:
    client = WebSocketClient(serve([path("ws/", live.websocket(handler))]), "/ws/")
    if handler is fail_at_the_end:
        client.leave()
    client.close()
    log.expect("the handler of /ws/ failed")
    assert [(where, str(error)) for where, error in reported] == [("/ws/", "a mistake")]


def test_an_error_of_an_event_stream_is_reported(
    live: Live, serve: Serve, reported: list[Any], log: ServerLog
) -> None:
    stream = StreamClient(serve([path("sse/", live.events(fail_at_once))]), "/sse/")
    log.expect("the handler of /sse/ failed")
    assert [where for where, _ in reported] == ["/sse/"]
    stream.close()


def test_the_end_of_a_connection_is_not_reported(
    make_live: MakeLive, serve: Serve, reported: list[Any]
) -> None:
    live = make_live(timing=Timing(queue_check_interval=0.02))
    ended = threading.Semaphore(0)
    items: queue.SimpleQueue[str] = queue.SimpleQueue()

    @live.websocket
    def generator(request: HttpRequest, ws: WebSocket) -> Waits:
        try:
            yield
        finally:
            ended.release()

    @live.websocket
    def plain(request: HttpRequest, ws: WebSocket) -> None:
        try:
            ws.receive()
        finally:
            ended.release()

    @live.events
    def stream(request: HttpRequest, stream: EventStream) -> Iterator[str]:
        try:
            yield "begin"
            stream.get(items)
        finally:
            ended.release()

    port = serve([path("g/", generator), path("p/", plain), path("s/", stream)])
    WebSocketClient(port, "/g/").leave()
    WebSocketClient(port, "/p/").leave()
    events = StreamClient(port, "/s/")
    events.expect(1)
    events.close()
    for _ in range(3):
        assert ended.acquire(timeout=TIMEOUT)
    live.stop()
    assert reported == []


def test_the_end_of_another_connection_is_reported(
    live: Live, serve: Serve, reported: list[Any], log: ServerLog
) -> None:
    @live.events
    def stream(request: HttpRequest, stream: EventStream) -> Iterator[str]:
        raise ConnectionClosed(1000)
        yield

    client = StreamClient(serve([path("", stream)]), "/")
    log.expect("the handler of / failed")
    assert len(reported) == 1
    client.close()


# Surroundings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["de", None])
def test_each_turn_has_the_language_time_zone_and_prefix_of_the_view(
    live: Live, serve: Serve, language: str | None
) -> None:
    def surroundings(ws: WebSocket) -> None:
        name = timezone.get_current_timezone_name()
        ws.send(f"{reverse('here')} {get_language()} {name} {gettext('Monday')}")

    @live.websocket
    @live.handler(blocking=True)
    def handler(request: HttpRequest, ws: WebSocket) -> Waits:
        while True:
            surroundings(ws)
            yield

    def view(request: HttpRequest) -> Any:
        with override(language), timezone.override("Asia/Tokyo"):
            return handler(request)

    port = serve([path("here/", view, name="here")], FORCE_SCRIPT_NAME="/mounted")
    client = WebSocketClient(port, "/here/")
    client.send_messages("a")
    day = "Montag" if language else "Monday"
    assert client.expect(2) == [f"/mounted/here/ {language} Asia/Tokyo {day}"] * 2
    client.close()


def test_the_objects_of_an_ended_connection_are_freed_without_the_garbage_collector(
    live: Live, serve: Serve
) -> None:
    requests: list[weakref.ref[HttpRequest]] = []

    @live.websocket
    def generator(request: HttpRequest, ws: WebSocket) -> Waits:
        requests.append(weakref.ref(request))
        yield

    @live.websocket
    def plain(request: HttpRequest, ws: WebSocket) -> None:
        requests.append(weakref.ref(request))
        ws.receive()

    port = serve([path("g/", generator), path("p/", plain)])
    gc.disable()
    try:
        for target in ("/g/", "/p/"):
            WebSocketClient(port, target).leave()
        wait_until(
            lambda: len(requests) == 2 and all(request() is None for request in requests),
            "the requests are freed",
        )
    finally:
        gc.enable()

"""Exceptions of handlers: the log, the signal of Flask, and the close frame."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, Response, current_app, got_request_exception, request

from tests.support.clients import StreamClient, WebSocketClient
from tests.support.handlers import MessageGenerator
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT
from wsframe import Close
from wsframe.flask import ConnectionClosed, EventStream, Live, WebSocket

from .conftest import Run

Reports = queue.Queue[tuple[object, str, str]]


def generator(ws: WebSocket) -> MessageGenerator:
    yield
    raise LookupError("failed")


def function(ws: WebSocket) -> None:
    ws.receive()
    raise LookupError("failed")


def foreign_end(ws: WebSocket) -> MessageGenerator:
    yield
    raise ConnectionClosed(1001, "another connection")


def exit_program(ws: WebSocket) -> MessageGenerator:
    yield
    raise SystemExit


def wrong_yield(ws: WebSocket) -> MessageGenerator:
    yield
    yield "text"  # type: ignore[misc]


def at_the_end(ws: WebSocket) -> MessageGenerator:
    try:
        yield
    finally:
        raise LookupError("failed")


def stream_generator(stream: EventStream) -> Iterator[str]:
    yield "one"
    raise LookupError("failed")


def ended_stream(stream: EventStream) -> Iterator[str]:
    stream.close()
    stream.send("late")
    yield "never"


HANDLERS: dict[str, Callable[..., Any]] = {
    handler.__name__: handler
    for handler in (
        *(generator, function, foreign_end, exit_program, wrong_yield, at_the_end),
        *(stream_generator, ended_stream),
    )
}


@contextmanager
def reports(app: Flask) -> Iterator[Reports]:
    """The senders, exceptions and paths of the signal, as an error tracker receives them."""
    received: Reports = queue.Queue()

    def receive(sender: object, exception: Exception, **_: object) -> None:
        received.put((sender, repr(exception), request.path))

    with got_request_exception.connected_to(receive, app):
        yield received


@pytest.fixture
def port(app: Flask, live: Live, run: Run) -> int:
    @app.get("/ws/<name>", websocket=True)
    def websocket(name: str) -> Response:
        return live.websocket(HANDLERS[name])

    @app.get("/events/<name>")
    def events(name: str) -> Response:
        return live.events(HANDLERS[name])

    return run()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("generator", "LookupError('failed')"),
        ("function", "LookupError('failed')"),
        ("foreign_end", "ConnectionClosed(1001, 'another connection')"),
    ],
)
def test_an_exception_is_logged_and_sent_to_error_trackers(
    app: Flask, port: int, log: ServerLog, name: str, error: str
) -> None:
    with reports(app) as received:
        client = WebSocketClient(port, f"/ws/{name}")
        client.send_messages("a")
        assert client.expect_close() == Close(1011, "the handler failed")
        assert received.get(timeout=TIMEOUT) == (app, error, f"/ws/{name}")
        log.expect(f"the handler of /ws/{name} failed")
    assert received.empty()


def test_an_exception_in_a_stream_is_logged_and_sent(app: Flask, port: int, log: ServerLog) -> None:
    with reports(app) as received:
        client = StreamClient(port, "/events/stream_generator")
        assert client.expect(1) == ["one"]
        client.expect_end()
        path = "/events/stream_generator"
        assert received.get(timeout=TIMEOUT) == (app, "LookupError('failed')", path)
        log.expect(f"the handler of {path} failed")


def test_an_exception_after_the_end_is_sent(app: Flask, port: int, log: ServerLog) -> None:
    with reports(app) as received:
        WebSocketClient(port, "/ws/at_the_end").leave()
        assert received.get(timeout=TIMEOUT)[1] == "LookupError('failed')"
        log.expect("the handler of /ws/at_the_end failed")


@pytest.mark.parametrize("name", ["exit_program", "wrong_yield"])
def test_only_exceptions_of_a_program_are_sent(
    app: Flask, port: int, log: ServerLog, name: str
) -> None:
    with reports(app) as received:
        client = WebSocketClient(port, f"/ws/{name}")
        client.send_messages("a")
        assert client.expect_close().code == 1011
        log.expect(f"the handler of /ws/{name} failed")
        assert received.empty()


def test_the_end_of_a_connection_is_not_sent(app: Flask, port: int) -> None:
    with reports(app) as received:
        for name in ("generator", "function"):
            WebSocketClient(port, f"/ws/{name}").leave()
        StreamClient(port, "/events/ended_stream").expect_end()
        assert received.empty()


def test_teardown_functions_get_the_exception(app: Flask, port: int, log: ServerLog) -> None:
    errors: queue.Queue[str] = queue.Queue()
    app.teardown_request_funcs[None] = [lambda error: errors.put(repr(error))]
    for name in ("function", "generator"):
        client = WebSocketClient(port, f"/ws/{name}")
        assert errors.get(timeout=TIMEOUT) == "None"
        client.send_messages("a")
        client.expect_close()
        assert errors.get(timeout=TIMEOUT) == "LookupError('failed')"
        log.expect(f"the handler of /ws/{name} failed")


@pytest.mark.parametrize("name", ["function", "generator"])
def test_a_failing_teardown_function_ends_the_handler(
    app: Flask, port: int, log: ServerLog, name: str
) -> None:
    failing: list[None] = []

    def end(error: BaseException | None) -> None:
        if failing:
            raise LookupError("teardown")

    app.teardown_appcontext_funcs = [end]
    client = WebSocketClient(port, f"/ws/{name}")
    failing.append(None)
    client.send_messages("a")
    assert client.expect_close().code == 1011
    log.expect(f"the handler of /ws/{name} failed")


def test_a_handler_ends_in_its_context_after_a_failing_teardown_function(
    app: Flask, live: Live, run: Run, log: ServerLog
) -> None:
    ended: queue.Queue[str] = queue.Queue()

    def handler(ws: WebSocket) -> MessageGenerator:
        try:
            yield
        finally:
            ended.put(current_app.name)

    @app.get("/ws", websocket=True)
    def view() -> Response:
        return live.websocket(handler)

    @app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        if ended.empty() and threading.current_thread().name.startswith("wsframe"):
            raise LookupError("teardown")

    client = WebSocketClient(run(), "/ws")
    assert client.expect_close().code == 1011
    assert ended.get(timeout=TIMEOUT) == "app"
    log.expect("the handler of /ws failed")


@pytest.mark.parametrize("name", ["websocket", "events"])
def test_a_method_of_live_in_the_place_of_a_view_is_an_error(name: str) -> None:
    app = Flask(__name__)
    live = Live(app)
    with pytest.raises(AttributeError, match="are not decorators of a view: call them in a view"):
        app.get("/")(getattr(live, name)(function))

"""The contexts of Flask in handlers, and their ends."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, current_app, g, request, session, url_for
from flask.globals import app_ctx

from tests.support.clients import (
    Client,
    StreamClient,
    WebSocketClient,
    get,
    parse_response,
    upgrade,
)
from tests.support.handlers import MessageGenerator
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.flask import EventStream, Live, WebSocket

from .conftest import Run

HALL = "ws://localhost/rooms/hall"


def describe(number: int) -> str:
    """Return what the contexts of Flask have."""
    g.calls = g.get("calls", 0) + 1
    where = url_for("room", room="hall")
    return (
        f"{number} {request.args['q']} {session['name']} {g.user} {g.calls} {where} {request.path}"
    )


def generator(ws: WebSocket, room: str) -> MessageGenerator:
    assert current_app.name == room
    ws.send(describe(0))
    for number in (1, 2):
        yield
        ws.send(describe(number))


def function(ws: WebSocket, room: str) -> None:
    assert current_app.name == room
    ws.send(describe(0))
    for number in (1, 2):
        ws.receive()
        ws.send(describe(number))


def stream_generator(stream: EventStream) -> Iterator[str]:
    yield describe(0)
    for number in (1, 2):
        assert stream.get(items) == number
        yield describe(number)


def stream_function(stream: EventStream) -> None:
    stream.send(describe(0))


items: queue.Queue[int] = queue.Queue()


@pytest.fixture
def calls() -> list[str]:
    """The functions that Flask has called at the ends of contexts."""
    return []


@pytest.fixture
def site(app: Flask, live: Live, calls: list[str]) -> Flask:
    """Views whose handlers use the contexts."""

    @app.before_request
    def load() -> None:
        g.user = "user"
        session["name"] = "name"

    @app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        calls.append("context" if error is None else f"context {error!r}")

    @app.teardown_request
    def end_request(error: BaseException | None) -> None:
        assert g.user == "user"
        calls.append("request" if error is None else f"request {error!r}")

    @app.get("/rooms/<room>", websocket=True)
    def room(room: str) -> Response:
        handlers: dict[str, Callable[..., Any]] = {"generator": generator, "function": function}
        return live.websocket(handlers[room], room="app")

    @app.get("/streams/<kind>")
    def stream(kind: str) -> Response:
        kinds: dict[str, Callable[..., Any]] = {
            "generator": stream_generator,
            "function": stream_function,
        }
        return live.events(kinds[kind])

    return app


def wait_for(calls: list[str], expected: list[str]) -> None:
    """Wait until these functions were called."""
    wait_until(lambda: len(calls) >= len(expected), f"{calls} become {expected}")
    assert calls == expected


@pytest.mark.parametrize("kind", ["generator", "function"])
def test_a_websocket_handler_has_contexts_that_end_at_each_wait(
    site: Flask, run: Run, calls: list[str], kind: str
) -> None:
    client = WebSocketClient(run(), f"/rooms/{kind}?q=query")
    path = f"/rooms/{kind}"
    assert client.expect(1) == [f"0 query name user 1 {HALL} {path}"]
    wait_for(calls, ["request", "context", "context"])
    client.send_messages("a")
    assert client.expect(1) == [f"1 query name user 2 {HALL} {path}"]
    wait_for(calls, ["request", "context", "context", "context"])
    client.send_messages("b")
    assert client.expect(1) == [f"2 query name user 3 {HALL} {path}"]
    assert client.expect_close() == Close(1000)
    wait_for(calls[4:], ["request", "context"])


def test_a_generator_of_events_has_contexts_that_end_at_each_wait(
    site: Flask, run: Run, calls: list[str]
) -> None:
    client = StreamClient(run(), "/streams/generator?q=query")
    path = "/streams/generator"
    assert client.expect(1) == [f"0 query name user 1 {HALL} {path}"]
    wait_until(lambda: len(calls) == 4, "the handler waits")
    for number in (1, 2):
        items.put(number)
        assert client.expect(1) == [f"{number} query name user {number + 1} {HALL} {path}"]
    client.expect_end()
    ends = calls.index("request", 1)
    assert set(calls[1:ends]) == {"context"}
    assert calls[ends:] == ["request", "context"]


def test_a_plain_function_of_events_has_contexts(site: Flask, run: Run, calls: list[str]) -> None:
    client = StreamClient(run(), "/streams/function?q=query")
    assert client.expect(1) == [f"0 query name user 1 {HALL} /streams/function"]
    wait_for(calls, ["request", "context", "request", "context"])
    client.close()


@pytest.mark.parametrize("kind", ["generator", "function"])
def test_a_handler_that_keeps_its_context_ends_it_once(
    site: Flask, live: Live, run: Run, calls: list[str], kind: str
) -> None:
    for handler in (generator, function):
        live.handler(keep_context=True)(handler)
    client = WebSocketClient(run(), f"/rooms/{kind}?q=query")
    client.send_messages("a", "b")
    assert [str(text)[:2] for text in client.expect(3)] == ["0 ", "1 ", "2 "]
    client.expect_close()
    wait_for(calls, ["request", "context", "request", "context"])


@pytest.mark.parametrize("keep", [False, True])
def test_the_session_is_read_only_unless_the_context_is_kept(
    app: Flask, live: Live, run: Run, keep: bool
) -> None:
    @live.handler(keep_context=keep)
    def handler(ws: WebSocket) -> None:
        assert session["name"] == "name"
        assert not session.permanent
        try:
            session["more"] = 1
        except TypeError as error:
            ws.send(str(error))
        else:
            ws.send("changed")

    @app.get("/ws", websocket=True)
    def view() -> Response:
        session["name"] = "name"
        return live.websocket(handler)

    client = WebSocketClient(run(), "/ws")
    expected = "changed" if keep else "'ReadOnlySession' objects are immutable"
    assert client.expect(1) == [expected]
    client.expect_close()


def test_a_context_of_the_handler_itself_remains_during_a_wait(
    app: Flask, live: Live, run: Run
) -> None:
    def handler(ws: WebSocket) -> MessageGenerator:
        with current_app.app_context():
            g.own = "own"
            yield
            ws.send(g.own)
        yield
        ws.send(str("own" in g))

    @app.get("/ws", websocket=True)
    def view() -> Response:
        return live.websocket(handler)

    client = WebSocketClient(run(), "/ws")
    client.send_messages("a")
    assert client.expect(1) == ["own"]
    client.send_messages("b")
    assert client.expect(1) == ["False"]
    client.expect_close()


def test_the_end_of_a_connection_reaches_the_handler_in_its_contexts(
    app: Flask, live: Live, run: Run
) -> None:
    ended: queue.Queue[tuple[str, bool]] = queue.Queue()

    def generator(ws: WebSocket) -> MessageGenerator:
        ws.send("ready")
        try:
            yield
        finally:
            ended.put((request.path, current_app.debug))

    def function(ws: WebSocket) -> None:
        ws.send("ready")
        for _ in ws:
            pass
        ended.put((request.path, current_app.debug))

    @app.get("/<kind>", websocket=True)
    def view(kind: str) -> Response:
        handler = generator if kind == "generator" else function
        return live.websocket(handler)

    port = run()
    for kind in ("generator", "function"):
        client = WebSocketClient(port, f"/{kind}")
        client.expect(1)
        client.leave()
        assert ended.get(timeout=TIMEOUT) == (f"/{kind}", False)


def test_the_contexts_of_connections_are_separate(app: Flask, live: Live, run: Run) -> None:
    def handler(ws: WebSocket) -> MessageGenerator:
        number = 0
        while True:
            yield
            number += 1
            assert g.number == number - 1
            g.number = number
            ws.send(f"{request.args['name']} {g.number} {session['name']}")

    @app.get("/ws", websocket=True)
    def view() -> Response:
        session["name"] = request.args["name"]
        g.number = 0
        return live.websocket(handler)

    port = run()
    clients = {name: WebSocketClient(port, f"/ws?name={name}") for name in "abc"}
    for number in (1, 2):
        for name, client in clients.items():
            client.send_messages("x")
            assert client.expect(1) == [f"{name} {number} {name}"]
    for client in clients.values():
        client.leave()


def test_a_thread_of_the_handler_has_no_context(app: Flask, live: Live, run: Run) -> None:
    def handler(ws: WebSocket) -> None:
        thread = threading.Thread(target=lambda: ws.send(str(bool(app_ctx))))
        thread.start()
        thread.join()

    @app.get("/ws", websocket=True)
    def view() -> Response:
        return live.websocket(handler)

    client = WebSocketClient(run(), "/ws")
    assert client.expect(1) == ["False"]
    client.expect_close()


def test_a_handler_has_headers_which_a_view_replaces(app: Flask, live: Live, run: Run) -> None:
    @live.handler(headers={"X-A": "handler", "X-B": "handler"})
    def greet(ws: WebSocket) -> None:
        ws.receive()

    @app.get("/", websocket=True)
    def view() -> Response:
        response = live.websocket(greet)
        response.headers["X-A"] = "view"
        return response

    client = WebSocketClient(run(), "/")
    assert (client.headers.get_all("X-A"), client.headers["X-B"]) == (["view"], "handler")
    client.close()


def test_views_of_blueprints_and_relative_urls(app: Flask, live: Live, run: Run) -> None:
    blueprint = Blueprint("rooms", __name__, url_prefix="/rooms")

    def handler(ws: WebSocket) -> None:
        ws.send(f"{request.blueprint} {url_for('.view', name='b')}")

    @blueprint.get("/<name>", websocket=True)
    def view(name: str) -> Response:
        if name == "closed":
            abort(403)
        return live.websocket(handler)

    app.register_blueprint(blueprint)
    port = run()
    client = WebSocketClient(port, "/rooms/a")
    (text,) = client.expect(1)
    assert str(text).startswith("rooms ")
    assert str(text).endswith("/rooms/b")
    client.expect_close()
    refused = Client(port)
    refused.send(upgrade("/rooms/closed"))
    assert parse_response(refused.read_to_end()).status == 403
    refused.close()


def test_an_application_outside_of_a_view_has_no_contexts(app: Flask, live: Live, run: Run) -> None:
    def handler(stream: EventStream) -> Iterator[str]:
        yield str(bool(app_ctx))

    inner, outer = app.wsgi_app, live.events(handler)
    app.wsgi_app = lambda environ, start: (  # type: ignore[assignment, method-assign]
        outer if environ["PATH_INFO"] == "/outside" else inner
    )(environ, start)
    client = StreamClient(run(), "/outside")
    assert client.expect(1) == ["False"]
    client.expect_end()


@pytest.mark.parametrize("kind", ["generator", "function"])
def test_an_ended_handler_is_freed_without_the_garbage_collector(
    app: Flask, live: Live, run: Run, kind: str
) -> None:
    class Held:
        """An object of a handler."""

    references: list[weakref.ref[Held]] = []

    def generator(ws: WebSocket) -> MessageGenerator:
        held = Held()
        references.append(weakref.ref(held))
        ws.send("ready")
        yield

    def function(ws: WebSocket) -> None:
        held = Held()
        references.append(weakref.ref(held))
        ws.send("ready")
        ws.receive()

    @app.get("/ws", websocket=True)
    def view() -> Response:
        handlers: dict[str, Callable[..., Any]] = {"generator": generator, "function": function}
        return live.websocket(handlers[kind])

    port = run()
    gc.disable()
    try:
        client = WebSocketClient(port, "/ws")
        client.expect(1)
        client.send_messages("end")
        client.expect_close()
        client = WebSocketClient(port, "/ws")
        client.expect(1)
        client.leave()
        wait_until(lambda: not any(held() for held in references), "the handlers are freed")
        assert len(references) == 2
    finally:
        gc.enable()


def test_hooks_and_cookies_of_the_view_reach_the_client(site: Flask, run: Run) -> None:
    @site.after_request
    def hook(response: Any) -> Any:
        response.headers["X-Hook"] = "hook"
        return response

    port = run()
    for head in (upgrade("/rooms/function?q="), get("/streams/function?q=")):
        client = Client(port)
        client.send(head)
        answer = parse_response(client.read_until(b"\r\n\r\n"))
        assert answer.headers["X-Hook"] == "hook"
        assert answer.headers["Set-Cookie"].startswith("session=")
        client.close()


def test_the_connections_of_a_user_are_closed(app: Flask, live: Live, run: Run) -> None:
    def wait(ws: WebSocket) -> MessageGenerator:
        ws.send(str(ws.request.identity))
        yield

    @app.get("/talk", websocket=True)
    def talking() -> Response:
        return live.websocket(wait, identity=42)

    @app.get("/other", websocket=True)
    def others() -> Response:
        return live.websocket(wait)

    @app.get("/news")
    def news() -> Response:
        return live.events(live.topic("news"), identity=42)

    port = run()
    talk, other = WebSocketClient(port, "/talk"), WebSocketClient(port, "/other")
    stream = StreamClient(port, "/news")
    assert talk.expect(1) == ["42"]
    assert other.expect(1) == ["None"]
    assert sorted(info.identity or "" for info in live.connections()) == ["", "42", "42"]
    live.close_identity("42", code=4001)
    assert talk.expect_close() == Close(4001, "")
    stream.expect_end()
    assert stream.last_event_id == ":end"
    other.leave()
    for client in (talk, stream):
        client.close()

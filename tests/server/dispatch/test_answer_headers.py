"""Headers of the application in answers: of routes, of requests and of the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.message import Message
from queue import Queue
from typing import Any

import pytest

from tests.server.apps import ask
from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import MessageGenerator
from tests.support.log import ServerLog
from tests.support.serving import Serve
from wsframe import HandshakeError
from wsframe.server import App, EventStream, Request, Settings, WebSocket
from wsframe.server.headers import ON_STREAMS
from wsframe.server.sessions.eventstream_session import STREAM_HEADERS

COOKIES = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
DEFAULTS = {
    "Strict-Transport-Security": "max-age=60",
    "Cache-Control": "no-cache",
    "X-From": "settings",
    "Vary": "Cookie",
}
PATHS = ("/plain", "/generator", "/stream", "/stream-generator", "/topic")


def everything(**options: Any) -> App:
    """An app with a route of each kind that opens connections, all with these options."""
    app = App()

    @app.websocket("/plain", **options)
    def plain(ws: WebSocket) -> None:
        ws.receive()

    @app.websocket("/generator", **options)
    def generator(ws: WebSocket) -> MessageGenerator:
        yield

    def stream(stream: EventStream) -> None:
        stream.send("hello")

    def stream_generator(stream: EventStream) -> Iterator[str]:
        yield "hello"

    app.sse("/stream", **options)(stream)
    app.sse("/stream-generator", **options)(stream_generator)
    app.sse("/topic", app.topic("news"), **options)
    return app


def headers_of(clients: Clients, server: Any, path: str, *headers: tuple[str, str]) -> Message:
    """Return the headers of the 101 or 200 that opens a connection."""
    if path in ("/plain", "/generator"):
        return clients.websocket(server, path, *headers).headers
    return clients.stream(server, path, *headers).headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [COOKIES, tuple(COOKIES), {b"Set-Cookie": b"a=1"}])
def test_headers_of_a_route_are_part_of_its_101_or_200(
    serve: Serve, clients: Clients, path: str, headers: Any
) -> None:
    found = headers_of(clients, serve(everything(headers=headers)), path)
    assert found.get_all("Set-Cookie") == ["a=1", "b=2"][: len(headers)]


def test_headers_of_a_page_are_part_of_its_answers(serve: Serve) -> None:
    app = App()
    app.page("/", "hello", headers={"Cache-Control": "max-age=60", "Content-Encoding": "identity"})
    server = serve(app)
    for method in ("GET", "HEAD"):
        answer = ask(server, get("/", method=method))
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "max-age=60")
        assert answer.headers["Content-Encoding"] == "identity"
    assert ask(server, get("/", method="POST")).headers["Cache-Control"] is None


@pytest.mark.parametrize("path", PATHS)
def test_authorize_adds_headers_to_one_answer(serve: Serve, clients: Clients, path: str) -> None:
    def authorize(request: Request) -> bool:
        for cookie in request.query.get("set", ()):
            request.add_header("Set-Cookie", cookie)
        return True

    server = serve(everything(authorize=authorize))

    def ask_for(query: str) -> Any:
        if "stream" in path or path == "/topic":
            return clients.stream(server, path + query).headers.get_all("Set-Cookie")
        return clients.websocket(server, path + query).headers.get_all("Set-Cookie")

    assert ask_for("?set=a&set=b") == ["a", "b"]
    assert ask_for("") is None


def test_headers_of_authorize_are_part_of_the_answer_to_head(serve: Serve) -> None:
    def authorize(request: Request) -> bool:
        request.add_header("X-User", "ann")
        return True

    answer = ask(serve(everything(authorize=authorize)), get("/stream", method="HEAD"))
    assert (answer.status, answer.headers["X-User"]) == (200, "ann")


def test_a_refusal_has_no_headers_of_the_route_and_of_the_request(serve: Serve) -> None:
    def authorize(request: Request) -> bool:
        request.add_header("X-User", "ann")
        return False

    server = serve(everything(authorize=authorize, headers={"X-Route": "1"}))
    for request in (upgrade("/plain"), get("/stream"), get("/plain")):
        answer = ask(server, request)
        assert answer.status in (403, 426)
        assert not {"X-User", "X-Route"} & set(answer.headers.keys())


@pytest.mark.parametrize("path", PATHS)
def test_the_most_specific_header_is_sent_and_cookies_add_up(
    serve: Serve, clients: Clients, path: str
) -> None:
    def authorize(request: Request) -> bool:
        request.add_header("x-a", "request")
        request.add_header("Set-Cookie", "a=request")
        return True

    route = {"X-A": "route", "X-B": "route", "Set-Cookie": "a=route", "Vary": "Origin"}
    settings = {"X-A": "settings", "X-B": "settings", "X-C": "settings", "Vary": "Cookie"}
    server = serve(everything(authorize=authorize, headers=route), headers=settings)
    found = headers_of(clients, server, path)
    expected = {"X-A": ["request"], "X-B": ["route"], "X-C": ["settings"]}
    expected |= {"Set-Cookie": ["a=request", "a=route"], "Vary": ["Origin", "Cookie"]}
    assert {name: found.get_all(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 200),
        (get("/health"), 200),
        (get("/nothing"), 404),
        (get("/", method="POST"), 405),
        (get("/stream", ("Last-Event-ID", ":end")), 204),
        (
            get(
                "/stream",
                ("Origin", "https://a.example"),
                ("Access-Control-Request-Method", "GET"),
                method="OPTIONS",
            ),
            204,
        ),
        (get("/stream", ("Origin", "https://b.example")), 403),
        (get("/stream", method="HEAD"), 200),
        (get("/plain"), 426),
        (b"GET / HTTP/1.1\r\nbad\r\n\r\n", 400),
    ],
)
def test_every_answer_has_the_headers_of_the_settings(
    serve: Serve, request_: bytes, status: int
) -> None:
    app = everything(origins=["https://a.example"])
    app.page("/", "hello")
    app.health()
    answer = ask(serve(app, headers=DEFAULTS), request_)
    assert answer.status == status
    assert answer.headers["Strict-Transport-Security"] == "max-age=60"
    assert answer.headers.get_all("X-From") == ["settings"]


@pytest.mark.parametrize("path", PATHS)
def test_open_connections_have_the_headers_of_the_settings(
    serve: Serve, clients: Clients, path: str
) -> None:
    server = serve(everything(), headers=DEFAULTS)
    found = headers_of(clients, server, path)
    assert found["Strict-Transport-Security"] == "max-age=60"
    stream = "stream" in path or path == "/topic"
    assert found.get_all("Cache-Control") == ["no-store, no-transform" if stream else "no-cache"]


def test_a_full_server_answers_with_the_headers_of_the_settings(
    serve: Serve, clients: Clients
) -> None:
    server = serve(everything(), headers=DEFAULTS, max_connections=1)
    clients.websocket(server, "/plain")
    answer = ask(server, get("/"))
    assert (answer.status, answer.headers["X-From"]) == (503, "settings")


def as_page(app: App, headers: Any) -> None:
    app.page("/", "hello", headers=headers)


def as_websocket(app: App, headers: Any) -> None:
    app.websocket("/", headers=headers)


def as_stream(app: App, headers: Any) -> None:
    app.sse("/", headers=headers)


def as_fed_stream(app: App, headers: Any) -> None:
    app.sse("/", Queue[str](), headers=headers)


def as_setting(app: App, headers: Any) -> None:
    Settings(headers=headers)


REGISTRATIONS = (as_page, as_websocket, as_stream, as_fed_stream, as_setting)
Register = Callable[[App, Any], None]


@pytest.mark.parametrize("register", REGISTRATIONS)
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("connection", "close", "header connection is set by the server"),
        ("Upgrade", "websocket", "header Upgrade is set by the server"),
        ("Sec-WebSocket-Protocol", "chat", "header Sec-WebSocket-Protocol is set by the server"),
        ("Content-Length", "1", "header Content-Length is set by the server"),
        ("Transfer-Encoding", "chunked", "header Transfer-Encoding is set by the server"),
        ("Date", "now", "header Date is set by the server"),
        ("Content-Type", "text/css", "header Content-Type is set by the server"),
        ("X A", "1", "a header name must be a token: 'X A'"),
        ("", "1", "a header name must be a token: ''"),
        ("X-A", "a\r\nX-B: 1", r"control characters: X-A: 'a\r\nX-B: 1'"),
        ("X-A", "a\n", r"control characters: X-A: 'a\n'"),
        ("X-A", "\u20ac", "a header must be in Latin-1: X-A"),
    ],
)
def test_an_invalid_header_is_refused_at_the_registration(
    register: Register, name: str, value: str, error: str
) -> None:
    app = App()
    with pytest.raises(ValueError, match=re.escape(error)):
        register(app, {name: value})
    app.page("/", "")  # nothing was registered


@pytest.mark.parametrize(
    ("register", "name"),
    [
        (as_page, "X-Content-Type-Options"),
        (as_setting, "X-Content-Type-Options"),
        (as_setting, "Content-Encoding"),
        (as_stream, "Content-Encoding"),
        (as_stream, "Cache-Control"),
        (as_stream, "X-Accel-Buffering"),
        (as_stream, "Access-Control-Allow-Origin"),
        (as_websocket, "Access-Control-Allow-Credentials"),
    ],
)
def test_headers_that_the_server_sets_in_some_answers_are_refused_for_these(
    register: Register, name: str
) -> None:
    with pytest.raises(ValueError, match=f"header {name} is set by the server"):
        register(App(), [(name, "1")])


@pytest.mark.parametrize("register", REGISTRATIONS)
def test_headers_must_be_pairs_or_a_mapping(register: Register) -> None:
    with pytest.raises(TypeError, match="headers must be a mapping or"):
        register(App(), "X-A: b")


def test_the_headers_of_every_stream_are_refused_from_applications() -> None:
    assert {name.lower() for name, _ in STREAM_HEADERS} <= ON_STREAMS


def test_the_setting_accepts_what_can_be_read_only_once() -> None:
    settings = Settings(headers=iter([("X-A", "b")]))  # type: ignore[arg-type]
    assert settings.headers == (("X-A", "b"),)


def test_an_invalid_header_of_authorize_is_an_error_of_the_hook(
    serve: Serve, log: ServerLog
) -> None:
    def authorize(request: Request) -> bool:
        request.add_header("Set-Cookie", "a=b\r\nX-A: 1")
        return True

    assert ask(serve(everything(authorize=authorize)), upgrade("/plain")).status == 500
    log.expect("the authorize function of /plain failed")


def test_a_refusal_by_authorize_cannot_set_the_headers_of_the_server(
    serve: Serve, log: ServerLog
) -> None:
    def authorize(request: Request) -> bool:
        raise HandshakeError(401, "log in", [("Content-Length", "0")])

    answer = ask(serve(everything(authorize=authorize)), upgrade("/plain"))
    assert (answer.status, answer.headers.get_all("Content-Length")) == (500, ["27"])
    log.expect("the authorize function of /plain raised an answer that cannot be sent")


def test_a_handler_cannot_add_headers_because_the_answer_was_sent(
    serve: Serve, clients: Clients
) -> None:
    app = App()

    @app.websocket("/plain")
    def plain(ws: WebSocket) -> None:
        try:
            ws.request.add_header("X-A", "1")
        except RuntimeError as error:
            ws.send(str(error))

    message = clients.websocket(serve(app), "/plain").next_event()
    assert message == (
        "cannot add the header X-A, because the request was answered: add it in the authorize "
        "function of the route"
    )

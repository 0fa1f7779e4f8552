"""Routes: paths, parameters and pages."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import Queue
from typing import Any

import pytest

from tests.server.apps import ask, pages, parameters_app
from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import generator_echo, websocket_app
from tests.support.serving import Serve
from wsframe.server import App, Server
from wsframe.testing import ReservedPort


def heard(clients: Clients, server: Server, target: str) -> Any:
    client = clients.websocket(server, target)
    message = client.next_event()
    client.expect_close()
    assert isinstance(message, str)
    return eval(message)


@pytest.mark.parametrize(
    ("path", "target", "parameters"),
    [
        ("/rooms/{room}", "/rooms/blue", {"room": "blue"}),
        ("/rooms/{room}", "/rooms/blue?a=b", {"room": "blue"}),
        ("/rooms/{room}", "/rooms/a%20b%C3%A9", {"room": "a bé"}),
        ("/rooms/{room}", "/rooms/a%2Fb", {"room": "a/b"}),
        ("/rooms/{room}", "/rooms/a+b", {"room": "a+b"}),
        ("/rooms/{room}", "/rooms/%252F", {"room": "%2F"}),
        ("/{a}/x/{b}", "/1/x/2", {"a": "1", "b": "2"}),
        ("/{year}-{month}.txt", "/2024-12.txt", {"year": "2024", "month": "12"}),
        ("/a.b/{c}", "/a.b/c", {"c": "c"}),
        ("/{a}.{b}", "/x.y.z", {"a": "x.y", "b": "z"}),
        ("/{a}.{b}", "/...", {"a": ".", "b": "."}),
        ("/v{a}--{b}-{c}!", "/v1---2-3-4!", {"a": "1-", "b": "2-3", "c": "4"}),
        ("/{a}2{b}", "/x2%2Fy", {"a": "x", "b": "/y"}),
        ("/{a}F{b}", "/1F%2F", {"a": "1", "b": "/"}),
        ("/{a}/{b}", "/%2F/;", {"a": "/", "b": ";"}),
        ("/a%2Fb/{c}", "/a%2fb/c", {"c": "c"}),
        ("/50%/{c}", "/50%25/%zz", {"c": "%zz"}),
        ("/plain", "/plain?room=none", {}),
    ],
)
def test_parameters_are_decoded(
    serve: Serve, clients: Clients, path: str, target: str, parameters: dict[str, str]
) -> None:
    server = serve(parameters_app(path))
    assert heard(clients, server, target) == (path, parameters)


@pytest.mark.parametrize(
    "target", ["/rooms/", "/rooms", "/rooms/a/b", "/rooms/a/", "/roomsXa", "/x/rooms/a", "/", "//"]
)
def test_a_parameter_is_one_segment_and_never_empty(serve: Serve, target: str) -> None:
    server = serve(parameters_app("/rooms/{room}"))
    assert ask(server, upgrade(target)).status == 404


@pytest.mark.parametrize("target", ["/202412.txt", "/-12.txt", "/2024-.txt", "/2024-12.csv"])
def test_the_text_between_parameters_is_required(serve: Serve, target: str) -> None:
    server = serve(parameters_app("/{year}-{month}.txt"))
    assert ask(server, upgrade(target)).status == 404


def test_a_dot_in_a_pattern_matches_only_a_dot(serve: Serve) -> None:
    server = serve(parameters_app("/a.b/{c}"))
    assert ask(server, upgrade("/aXb/c")).status == 404


def test_a_path_without_parameters_takes_precedence(serve: Serve, clients: Clients) -> None:
    server = serve(parameters_app("/rooms/{room}", "/rooms/main", "/{any}/{thing}"))
    assert heard(clients, server, "/rooms/main") == ("/rooms/main", {})
    assert heard(clients, server, "/rooms/other") == ("/rooms/{room}", {"room": "other"})
    assert heard(clients, server, "/x/y") == ("/{any}/{thing}", {"any": "x", "thing": "y"})


@pytest.mark.parametrize(
    "path", ["", "echo", "{a}", "/{", "/}", "/{}", "/{a", "/a}", "/{1a}", "/{a b}", "/{a}/{a}"]
)
def test_a_malformed_path_is_refused(path: str) -> None:
    app = App()
    with pytest.raises(ValueError, match=r"path|parameter"):
        app.page(path, "")
    with pytest.raises(ValueError, match=r"path|parameter"):
        app.websocket(path)(lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"path|parameter"):
        app.sse(path, source=Queue())


def add_page(app: App, path: str) -> None:
    app.page(path, "")


def add_source(app: App, path: str) -> None:
    app.sse(path, source=Queue())


def add_stream_handler(app: App, path: str) -> None:
    app.sse(path)(lambda *_, **__: None)


def add_websocket(app: App, path: str) -> None:
    app.websocket(path)(lambda *_, **__: None)


READABLE = [add_page, add_source, add_stream_handler]


@pytest.mark.parametrize("path", ["/", "/rooms/{room}"])
@pytest.mark.parametrize(
    ("first", "second"),
    [(add_websocket, add_websocket), *((one, other) for one in READABLE for other in READABLE)],
)
def test_a_path_can_have_only_one_route(
    first: Callable[[App, str], None], second: Callable[[App, str], None], path: str
) -> None:
    app = App()
    first(app, path)
    with pytest.raises(ValueError, match="already has a route"):
        second(app, path)
    add_page(app, "/another")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/rooms/{room}", "/rooms/{name}"),
        ("/{year}-{month}.txt", "/{a}-{b}.txt"),
        ("/r%6Foms/{room}", "/rooms/{room}"),
        ("/rooms", "/%72ooms"),
    ],
)
@pytest.mark.parametrize("add", [add_websocket, add_page])
def test_two_patterns_for_the_same_paths_are_refused(
    add: Callable[[App, str], None], one: str, other: str
) -> None:
    app = App()
    add(app, one)
    with pytest.raises(ValueError, match="already has a route"):
        add(app, other)


@pytest.mark.parametrize("page_first", [True, False])
@pytest.mark.parametrize(
    ("websocket", "page", "target"),
    [
        ("/rooms/{room}", "/rooms/{name}", "/rooms/main"),
        ("/rooms/{room}", "/rooms/main", "/rooms/main"),
        ("/rooms/main", "/rooms/{name}", "/rooms/main"),
        ("/{any}/main", "/rooms/{name}", "/rooms/main"),
    ],
)
def test_an_upgrade_request_finds_the_websocket_and_other_requests_the_page(
    serve: Serve, clients: Clients, websocket: str, page: str, target: str, page_first: bool
) -> None:
    app = parameters_app() if page_first else parameters_app(websocket)
    app.page(page, "read me")
    if page_first:
        app.websocket(websocket)(lambda ws, **names: ws.send(repr((websocket, names))))
    server = serve(app)
    assert ask(server, get(target)).body == b"read me"
    name = {"room": "main", "any": "rooms"}
    expected = {key: value for key, value in name.items() if f"{{{key}}}" in websocket}
    assert heard(clients, server, target) == (websocket, expected)


@pytest.mark.parametrize("path", ["/live", "/live/{name}"])
def test_a_page_and_a_websocket_can_share_a_path(serve: Serve, clients: Clients, path: str) -> None:
    app = parameters_app(path)
    app.page(path, "read me")
    server = serve(app)
    target = path.format(name="x")
    assert ask(server, get(target)).body == b"read me"
    assert heard(clients, server, target)[0] == path
    assert ask(server, get(target, ("Upgrade", "h2c"), ("Connection", "Upgrade"))).status == 200


def test_routes_are_fixed_when_the_app_is_started(serve: Serve) -> None:
    app = App()
    serve(app)
    for add in (*READABLE, add_websocket):
        with pytest.raises(RuntimeError, match="routes cannot be added after the app has started"):
            add(app, "/late")


def test_on_start_runs_before_the_first_connection(serve: Serve) -> None:
    app = App()
    called: list[object] = []

    @app.on_start
    def first() -> None:
        called.append(("first", threading.current_thread()))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with pytest.raises(RuntimeError, match="routes cannot be added"):
            app.page("/late", "")

    @app.on_start
    def second() -> None:
        called.append(("second", threading.current_thread()))

    once = [("first", threading.current_thread()), ("second", threading.current_thread())]
    with ReservedPort() as port:
        serve(app, port=port).stop()
    assert called == once
    serve(app)
    assert called == once * 2
    with pytest.raises(RuntimeError, match="routes cannot be added"):
        app.on_start(second)


def test_an_error_in_on_start_ends_the_start(serve: Serve) -> None:
    app = App()
    problems = [LookupError("no database"), None]

    @app.on_start
    def fail() -> None:
        if (problem := problems.pop(0)) is not None:
            raise problem

    with pytest.raises(LookupError, match="no database"):
        serve(app)
    assert ask(serve(app), get("/")).status == 404


def test_on_start_refuses_a_coroutine_function() -> None:
    async def start() -> None: ...

    with pytest.raises(TypeError, match="must not be a coroutine function"):
        App().on_start(start)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"subprotocols": "chat"}, TypeError),
        ({"origins": "https://example.com"}, TypeError),
        *(({"subprotocols": ["chat", bad]}, ValueError) for bad in ("", "a b", "a\r\nX-A: b", "é")),
        ({"max_message_size": 0}, ValueError),
        ({"max_message_size": -1}, ValueError),
    ],
)
def test_invalid_options_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    app = App()
    with pytest.raises(error, match=r"subprotocol|origins|max_message_size"):
        app.websocket("/echo", **options)(generator_echo)
    app.websocket("/echo")(generator_echo)


@pytest.mark.parametrize("content_type", ["text/html\r\nX-A: b", "text/html\0", "\u20ac"])
def test_a_content_type_that_would_forge_a_header_is_refused_at_once(content_type: str) -> None:
    app = App()
    with pytest.raises(ValueError, match=r"Content-Type|latin-1"):
        app.page("/", "", content_type=content_type)


@pytest.mark.parametrize(
    ("target", "body", "content_type"),
    [
        ("/", "<p>é".encode(), "text/html; charset=utf-8"),
        ("/?query", "<p>é".encode(), "text/html; charset=utf-8"),
        ("http://localhost/", "<p>é".encode(), "text/html; charset=utf-8"),
        ("/style", b"p { }", "text/css"),
        ("/empty", b"", "text/html; charset=utf-8"),
    ],
)
def test_a_page_is_served_for_get_and_head(
    serve: Serve, target: str, body: bytes, content_type: str
) -> None:
    server = serve(pages())
    for method in ("GET", "HEAD"):
        answer = ask(server, get(target, method=method))
        assert answer.status == 200
        assert answer.headers["Content-Type"] == content_type
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["Connection"] == "close"
        age = datetime.now(UTC) - parsedate_to_datetime(answer.headers["Date"])
        assert abs(age.total_seconds()) < 60
        assert answer.body == (body if method == "GET" else b"")


def test_a_slow_client_receives_a_large_page_completely(serve: Serve, clients: Clients) -> None:
    body = bytes(range(256)) * 40_000
    app = App()
    app.page("/", body)
    client = clients.connect(serve(app), receive_buffer=1 << 16)
    client.send(get("/"))
    assert client.answer().body == body


@pytest.mark.parametrize("target", ["/nothing", "/style/", "/STYLE", "//style", "/%2Fstyle"])
def test_a_path_without_a_route_is_not_found(serve: Serve, target: str) -> None:
    server = serve(pages())
    answer = ask(server, get(target))
    assert answer.status == 404
    assert answer.body == b"no route matches this path\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_another_method_than_get_and_head_is_refused(serve: Serve, method: str) -> None:
    app = pages()
    app.sse("/time", source=Queue())
    server = serve(app)
    for target in ("/", "/time"):
        answer = ask(server, get(target, method=method))
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"


def test_an_answer_to_head_has_no_body(serve: Serve) -> None:
    app = websocket_app(generator_echo)
    app.sse("/time", source=Queue())
    app.sse("/job")(lambda stream: stream.send("never"))
    server = serve(app)
    for target, status in {"/none": 404, "/echo": 426, "/time": 200, "/job": 200}.items():
        answer = ask(server, get(target, method="HEAD"))
        assert (answer.status, answer.body) == (status, b""), target

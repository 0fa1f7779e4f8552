"""Event streams for pages of other origins."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import Queue

import pytest

from tests.server.sessions.eventstream_http import (
    FRIEND,
    FRIENDS,
    STRANGER,
    allowed,
    ask,
    shared_app,
)
from tests.support.clients import Clients, Response, get, head, parse_response
from tests.support.serving import Serve
from wsframe import HandshakeError
from wsframe.server import App, EventStream, Request, Server

HERE = ("Origin", "http://localhost")


SANDBOX = ("Origin", "null")


ASKS = ("Access-Control-Request-Method", "GET")


ALL = "*"


def head_of(clients: Clients, server: Server, request: bytes) -> Response:
    """Return the head of the answer, with or without a stream after it."""
    client = clients.connect(server)
    client.send(request)
    return parse_response(client.read_until(b"\r\n\r\n"))


@pytest.mark.parametrize("target", ["/topic", "/handler"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("origins", "origin", "expected"),
    [
        ((), None, {}),
        ((), HERE, {}),
        (FRIENDS, None, {"Vary": "Origin"}),
        (FRIENDS, HERE, {"Vary": "Origin"}),
        (
            FRIENDS,
            FRIEND,
            {"Allow-Origin": FRIEND[1], "Allow-Credentials": "true", "Vary": "Origin"},
        ),
        (
            ["null"],
            SANDBOX,
            {"Allow-Origin": "null", "Allow-Credentials": "true", "Vary": "Origin"},
        ),
        (ALL, None, {"Vary": "Origin"}),
        (ALL, FRIEND, {"Allow-Origin": "*", "Vary": "Origin"}),
        (ALL, SANDBOX, {"Allow-Origin": "*", "Vary": "Origin"}),
    ],
)
def test_pages_of_allowed_sites_may_read_a_stream(
    serve: Serve,
    clients: Clients,
    target: str,
    method: str,
    origins: Sequence[str],
    origin: tuple[str, str] | None,
    expected: dict[str, str],
) -> None:
    headers = () if origin is None else (origin,)
    request = get(target, *headers, method=method)
    answer = head_of(clients, serve(shared_app(origins)), request)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert allowed(answer) == expected


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
@pytest.mark.parametrize("origins", [(), FRIENDS])
@pytest.mark.parametrize("origin", [STRANGER, SANDBOX])
def test_pages_of_other_sites_are_refused_without_cors_headers(
    serve: Serve, clients: Clients, method: str, origins: Sequence[str], origin: tuple[str, str]
) -> None:
    request = get("/topic", origin, ASKS, method=method)
    answer = ask(clients, serve(shared_app(origins)), request)
    assert answer.status == 403
    assert allowed(answer) == {}


def test_without_a_host_every_page_is_of_another_site(serve: Serve, clients: Clients) -> None:
    request = head("GET /topic HTTP/1.0", [("Origin", "http://[")])
    assert ask(clients, serve(shared_app(())), request).status == 403


@pytest.mark.parametrize("origins", [FRIENDS, ALL])
def test_a_preflight_request_for_headers_is_answered(
    serve: Serve, clients: Clients, origins: Sequence[str]
) -> None:
    def never(request: Request) -> bool:
        raise AssertionError("a preflight comes without cookies")

    app = App()
    app.sse("/topic", source=app.topic("silent"), origins=origins, authorize=never)
    wanted = ("Access-Control-Request-Headers", "authorization,last-event-id")
    answer = ask(clients, serve(app), get("/topic", FRIEND, ASKS, wanted, method="OPTIONS"))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Content-Length"] is None
    assert answer.headers["Content-Type"] is None
    said = allowed(answer)
    assert said.pop("Allow-Origin") == ("*" if origins == ALL else FRIEND[1])
    assert said.pop("Allow-Credentials", None) == (None if origins == ALL else "true")
    assert said == {
        "Allow-Methods": "GET, HEAD",
        "Allow-Headers": "authorization, last-event-id",
        "Max-Age": "600",
        "Vary": "Origin",
    }


def test_a_preflight_request_without_headers_is_answered(serve: Serve, clients: Clients) -> None:
    server = serve(shared_app(FRIENDS))
    answer = ask(clients, server, get("/topic", FRIEND, ASKS, method="OPTIONS"))
    assert answer.status == 204
    assert "Allow-Headers" not in allowed(answer)


def test_an_invalid_preflight_request_is_refused(serve: Serve, clients: Clients) -> None:
    wanted = ("Access-Control-Request-Headers", "a b")
    request = get("/topic", FRIEND, ASKS, wanted, method="OPTIONS")
    assert ask(clients, serve(shared_app(FRIENDS)), request).status == 400


@pytest.mark.parametrize(
    ("method", "origins", "headers"),
    [
        ("OPTIONS", FRIENDS, ()),
        ("OPTIONS", FRIENDS, (FRIEND,)),
        ("OPTIONS", FRIENDS, (ASKS,)),
        ("OPTIONS", (), (HERE, ASKS)),
        ("POST", FRIENDS, (FRIEND, ASKS)),
        ("PUT", ALL, (FRIEND,)),
    ],
)
def test_a_stream_allows_only_get_and_head(
    serve: Serve,
    clients: Clients,
    method: str,
    origins: Sequence[str],
    headers: Sequence[tuple[str, str]],
) -> None:
    request = get("/topic", *headers, method=method)
    answer = ask(clients, serve(shared_app(origins)), request)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert ("Allow-Origin" in allowed(answer)) == (FRIEND in headers)


def test_an_allowed_page_may_read_a_refusal(serve: Serve, clients: Clients) -> None:
    def authorize(request: Request) -> bool:
        raise HandshakeError(401, "log in first", [("WWW-Authenticate", "Basic")])

    app = App()
    app.sse("/topic", source=app.topic("silent"), origins=FRIENDS, authorize=authorize)
    answer = ask(clients, serve(app), get("/topic", FRIEND))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Basic")
    assert allowed(answer) == {
        "Allow-Origin": FRIEND[1],
        "Allow-Credentials": "true",
        "Vary": "Origin",
    }


def test_an_allowed_page_may_read_the_refusal_of_a_server_out_of_threads(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App()

    @app.sse("/job", origins=FRIENDS)
    def job(stream: EventStream) -> Iterator[str]:
        yield "never"

    server = serve(app)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    answer = ask(clients, server, get("/job", FRIEND))
    assert answer.status == 503
    assert allowed(answer)["Allow-Origin"] == FRIEND[1]


def test_origins_must_be_a_sequence() -> None:
    app = App()
    with pytest.raises(TypeError, match="origins"):
        app.sse("/queue", source=Queue(), origins="https://friend.example")
    app.sse("/queue", source=Queue())

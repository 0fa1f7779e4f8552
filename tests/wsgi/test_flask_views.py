"""Views of Flask that return what a plain Live returns."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from logging import WARNING

import pytest
from flask import Flask, Response, request, session
from flask.typing import ResponseReturnValue

from tests.support.clients import Client, StreamClient, WebSocketClient, get, upgrade
from tests.support.log import ServerLog
from tests.support.waiting import wait_until
from wsframe.wsgi import EventStream, Live, WebSocket

from . import running


def greet(ws: WebSocket, room: str) -> Generator[None, str, None]:
    ws.send(f"hello {room}")
    while True:
        ws.send((yield))


def count(stream: EventStream, to: int) -> Iterator[int]:
    yield from range(to)


class OwnResponse(Response):
    """A class of responses of an application."""


@pytest.fixture
def app(live: Live) -> Flask:
    app = Flask("app")
    app.secret_key = "secret"
    app.response_class = OwnResponse

    @app.get("/rooms/<room>", websocket=True)
    def room(room: str) -> ResponseReturnValue:
        session["room"] = room
        result: ResponseReturnValue = live.websocket(greet, room=room)
        assert isinstance(result, OwnResponse)
        return result

    @app.route("/count", methods=["GET", "POST"])
    def counting() -> ResponseReturnValue:
        session["counted"] = True
        to = request.get_json()["to"] if request.is_json else 3
        result: ResponseReturnValue = live.events(count, to=to)
        return result

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return live.metrics

    @app.get("/")
    def index() -> str:
        return "index"

    @app.after_request
    def hook(response: Response) -> Response:
        response.headers["X-Hook"] = str(response.status_code)
        response.get_data()
        return response

    return app


@pytest.fixture(params=["werkzeug", "wsgiref"])
def port(request: pytest.FixtureRequest, app: Flask) -> Iterator[int]:
    run = {"werkzeug": running.werkzeug_server, "wsgiref": running.wsgiref}[request.param]
    with run(app) as port:
        yield port


def test_a_view_returns_a_websocket(port: int) -> None:
    client = WebSocketClient(port, "/rooms/hall")
    assert client.expect(1) == ["hello hall"]
    client.send_messages("a")
    assert client.expect(1) == ["a"]
    assert client.leave().code == 1000


def test_hooks_and_the_session_add_headers_to_the_101(port: int) -> None:
    client = Client(port)
    client.send(upgrade("/rooms/hall"))
    head = client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"X-Hook: 101\r\n" in head
    assert b"Set-Cookie: session=" in head
    assert b"Content-Type" not in head
    client.close()


def test_hooks_and_the_session_add_headers_to_an_event_stream(port: int) -> None:
    client = Client(port)
    client.send(get("/count"))
    head = client.read_until(b"\r\n\r\n")
    assert b"X-Hook: 200\r\n" in head
    assert b"Set-Cookie: session=" in head
    assert head.count(b"Content-Type: ") == 1
    client.read_until(b"data: 2\n\n")
    client.close()


def test_a_post_whose_body_was_read_is_answered_by_a_stream(port: int) -> None:
    body = b'{"to": 5}' + b" " * 100_000
    headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    client = Client(port)
    client.send(get("/count", *headers, method="POST") + body)
    client.read_until(b"data: 4\n\n")
    client.close()


def test_a_long_unread_body_is_refused(port: int) -> None:
    client = Client(port)
    size = 64 * 1024 + 1
    client.send(get("/count", ("Content-Length", str(size)), method="POST") + b"x" * size)
    assert client.read_until(b"\r\n").split()[1] == b"413"
    client.read_to_end()
    client.close()


def test_a_refusal_passes_the_hooks(port: int) -> None:
    client = Client(port)
    client.send(upgrade("/rooms/hall", ("Origin", "http://evil.example")))
    answer = client.read_to_end() if port else b""
    assert answer.split()[1] == b"403"
    assert b"X-Hook: 403\r\n" in answer
    assert answer.endswith(b"this Origin is not allowed\n")
    client.close()


def test_the_metrics_are_a_view(port: int) -> None:
    stream = StreamClient(port, "/count")
    client = Client(port)
    client.send(get("/metrics", ("Connection", "close")))
    assert b"wsframe_accepted_connections_total 1\n" in client.read_to_end()
    stream.close()
    client.close()


def test_the_test_client_of_flask_gets_event_streams(app: Flask) -> None:
    with app.test_client() as client:
        response = client.get("/count")
        assert response.status_code == 200
        assert response.headers["X-Hook"] == "200"
        assert response.data.endswith(b"data: 2\n\nevent: end\nid: :end\n\n")
        refused = client.get("/rooms/hall", headers=[("Upgrade", "websocket")], base_url="ws://x")
        assert refused.status_code in (400, 426)
        response.close()


def test_a_hook_that_changes_the_status_refuses_the_request(app: Flask, log: ServerLog) -> None:
    @app.after_request
    def hook(response: Response) -> Response:
        response.status_code = 403
        response.set_data("not today")
        return response

    with running.werkzeug_server(app) as port:
        for request in (upgrade("/rooms/hall"), get("/count")):
            client = Client(port)
            client.send(request)
            answer = client.read_to_end()
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert answer.endswith(b"not today")
            client.close()
            log.expect("the response was closed without being sent", WARNING)
    with app.test_client() as test_client:
        response = test_client.get("/count")
        assert (response.status_code, response.text) == (403, "not today")


def test_functions_that_wait_for_the_end_of_the_response_are_called(app: Flask) -> None:
    called: list[int] = []

    @app.after_request
    def hook(response: Response) -> Response:
        response.call_on_close(lambda: called.append(response.status_code))
        return response

    with running.wsgiref(app) as port:
        client = WebSocketClient(port, "/rooms/hall")
        client.expect(1)
        wait_until(lambda: called == [101], "the function is called")
        client.close()


def test_outside_of_a_view_the_application_is_returned(app: Flask, live: Live) -> None:
    with app.app_context():
        assert not isinstance(live.events(count, to=1), Response)

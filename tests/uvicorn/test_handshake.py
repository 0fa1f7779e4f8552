"""The opening handshake: the scope, the 101, and answers in place of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import Client, Clients, Response, get, parse_response, upgrade
from tests.support.uvicorn_server import Message, Receive, Send, UvicornServer
from tests.support.waiting import wait_until

from .apps import Gate, echo
from .conftest import Serve


def answer_of(client: Client) -> Response:
    """Return the answer of a server that closes the connection."""
    answer = parse_response(client.read_to_end())
    client.close()
    return answer


def scope_of(serve: Serve, clients: Clients, request: bytes, **settings: Any) -> Message:
    """Return the scope of a request."""
    scopes: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({"type": "websocket.close"})

    client = clients.connect(serve(app, **settings))
    client.send(request)
    assert answer_of(client).status == 403
    return scopes[0]


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_the_scope_describes_the_request(serve: Serve, clients: Clients, http: str) -> None:
    request = upgrade("/a%2Fb/%C3%BC?q=%20", ("X-Raw", "ü"), ("x-raw", "2"))
    scope = scope_of(serve, clients, request, http=http)
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/a/b/ü"
    assert scope["raw_path"] == b"/a%2Fb/%C3%BC"
    assert scope["query_string"] == b"q=%20"
    assert scope["root_path"] == ""
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"
    raw = [value for name, value in scope["headers"] if name == b"x-raw"]
    assert raw == ["ü".encode("latin-1"), b"2"]
    assert scope["subprotocols"] == []
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert scope["state"] == {}


def test_the_root_path_precedes_the_path(serve: Serve, clients: Clients) -> None:
    scope = scope_of(serve, clients, upgrade("/a"), root_path="/root")
    assert (scope["root_path"], scope["path"]) == ("/root", "/root/a")
    assert scope["raw_path"] == b"/root/a"


def test_a_target_in_absolute_form_is_accepted(serve: Serve, clients: Clients) -> None:
    scope = scope_of(serve, clients, upgrade("http://localhost/a?b"))
    assert (scope["path"], scope["query_string"]) == ("/a", b"b")
    scope = scope_of(serve, clients, upgrade("http://localhost"))
    assert (scope["path"], scope["query_string"]) == ("/", b"")


@pytest.mark.parametrize("target", ["http://[/", "http://user@localhost/", "*", "a"])
def test_a_malformed_target_is_a_bad_request(serve: Serve, clients: Clients, target: str) -> None:
    server = serve(echo, http="h11")  # httptools refuses these by itself
    client = clients.connect(server)
    client.send(upgrade(target))
    assert answer_of(client).status == 400
    server.log.expect("rejecting a WebSocket handshake", level=30)


def test_the_state_of_the_lifespan_is_copied(serve: Serve, clients: Clients) -> None:
    scopes: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        if scope["type"] == "lifespan":
            scope["state"]["name"] = "value"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scopes.append(dict(scope["state"]))
        scope["state"]["name"] = "changed"
        await send({"type": "websocket.close"})

    server = serve(app, lifespan="on")
    for _ in range(2):
        client = clients.connect(server)
        client.send(upgrade("/"))
        assert answer_of(client).status == 403
    assert scopes == [{"name": "value"}] * 2


def test_context_variables_can_be_reset(serve: Serve, clients: Clients) -> None:
    client = clients.websocket(serve(echo, reset_contextvars=True), "/")
    client.send_messages("a")
    assert client.next_event() == "a"


def test_a_websocket_over_tls_has_the_scheme_wss(
    serve: Serve, clients: Clients, certificates: Certificates, tmp_path: Path
) -> None:
    schemes = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    certificates.write(tmp_path)
    server = serve(app, ssl_certfile=tmp_path / "cert.pem", ssl_keyfile=tmp_path / "key.pem")
    client = clients.websocket(server, "/", tls=certificates.client_context())
    client.send_messages("secret", b"x" * 100_000)
    assert client.expect(2) == ["secret", b"x" * 100_000]
    assert client.leave().code == 1000
    assert schemes == ["wss"]


def test_the_application_chooses_subprotocol_and_headers(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["subprotocols"] == ["a", "b"]
        headers = [(b"x-extra", b"1"), (b"X-Extra", b"2")]
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": headers})
        await receive()

    server = serve(app, headers=[("X-Default", "yes")])
    client = clients.websocket(server, "/", ("Sec-WebSocket-Protocol", "a, b"))
    assert client.headers["Sec-WebSocket-Protocol"] == "b"
    assert client.headers.get_all("x-extra") == ["1", "2"]
    assert client.headers["x-default"] == "yes"
    assert client.headers["server"] == "uvicorn"
    assert client.headers["date"]


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nSet-Cookie: stolen"), (b"x y", b""), (b"x", b"a\x00")]
)
@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start"])
def test_a_header_that_would_forge_another_is_an_error(
    serve: Serve, clients: Clients, header: tuple[bytes, bytes], kind: str
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": kind, "status": 400, "headers": [header]})

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/"))
    answer = client.answer()
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    server.log.expect("exception in the ASGI application")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Extensions": ";"}, 400),
        ({"Sec-WebSocket-Protocol": ",".join("a" * 101)}, 400),
    ],
)
def test_a_malformed_handshake_is_refused(
    serve: Serve, clients: Clients, changes: dict[str, str | None], status: int
) -> None:
    server = serve(echo)
    client = clients.connect(server)
    client.send(upgrade("/", changes=changes))
    answer = client.answer()
    assert answer.status == status
    assert answer.headers["Server"] == "uvicorn"
    if status == 426:
        assert answer.headers["Sec-WebSocket-Version"] == "13"
    server.log.expect("rejecting a WebSocket handshake", level=30)


def test_another_method_than_get_is_refused(serve: Serve, clients: Clients) -> None:
    server = serve(echo)
    client = clients.connect(server)
    client.send(upgrade("/", method="POST"))
    assert client.answer().status == 405
    server.log.expect("a WebSocket handshake must use GET (405)", level=30)


def test_the_application_refuses_with_403(serve: Serve, clients: Clients) -> None:
    events = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        events.append(await receive())
        with pytest.raises(OSError):  # noqa: PT011 - as after any end
            await send({"type": "websocket.send", "text": ""})

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/"))
    answer = client.answer()
    assert (answer.status, answer.body) == (403, b"Forbidden")
    wait_until(lambda: not server.tasks, "the application has ended")
    assert events == [{"type": "websocket.disconnect", "code": 1006}]


def deny(serve: Serve, clients: Clients, *messages: Message) -> tuple[UvicornServer, Response]:
    """Return the answer to a request that the application denies with these messages."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send({**message, "type": f"websocket.http.response.{message['type']}"})

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/"))
    return server, client.answer()


def test_the_application_answers_with_a_response(serve: Serve, clients: Clients) -> None:
    headers = [(b"Content-Type", b"text/plain"), (b"connection", b"keep-alive")]
    _, answer = deny(
        serve,
        clients,
        {"type": "start", "status": 418, "headers": headers},
        {"type": "body", "body": b"a teapot"},
    )
    assert (answer.status, answer.body) == (418, b"a teapot")
    assert answer.headers["Content-Length"] == "8"
    assert answer.headers.get_all("Connection") == ["close"]
    assert answer.headers.get_all("Content-Type") == ["text/plain"]


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_has_no_length(
    serve: Serve, clients: Clients, status: int
) -> None:
    _, answer = deny(serve, clients, {"type": "start", "status": status}, {"type": "body"})
    assert (answer.status, answer.body) == (status, b"")
    assert "Content-Length" not in answer.headers


def test_a_response_in_parts_ends_with_the_connection(serve: Serve, clients: Clients) -> None:
    _, answer = deny(
        serve,
        clients,
        {"type": "start", "status": 503, "headers": [(b"Transfer-Encoding", b"chunked")]},
        {"type": "body", "body": b"one ", "more_body": True},
        {"type": "body", "body": b"two"},
    )
    assert (answer.status, answer.body) == (503, b"one two")
    assert "Content-Length" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers


def test_a_response_without_a_body_is_completed(serve: Serve, clients: Clients) -> None:
    _, answer = deny(serve, clients, {"type": "start", "status": 404})
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["Content-Length"] == "0"


def test_a_status_without_a_name_is_sent(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 599})
        await send({"type": "websocket.http.response.body", "body": b"odd"})

    client = clients.connect(serve(app))
    client.send(upgrade("/"))
    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 599 \r\n")
    assert answer.endswith(b"\r\n\r\nodd")


def test_a_second_start_of_a_response_is_an_error(serve: Serve, clients: Clients) -> None:
    start = {"type": "start", "status": 404}
    server, answer = deny(serve, clients, start, start)
    assert answer.status == 404
    record = server.log.expect("exception in the ASGI application")
    assert "'websocket.http.response.start' in the state DENYING" in str(record.exc_info)


@pytest.mark.parametrize("status", [101, 199, 600, 700])
def test_an_invalid_status_is_an_error(serve: Serve, clients: Clients, status: int) -> None:
    server, answer = deny(serve, clients, {"type": "start", "status": status})
    assert answer.status == 500
    server.log.expect("exception in the ASGI application")


def test_an_application_that_does_not_answer_is_an_error(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/"))
    assert client.answer().status == 500
    server.log.expect(
        "sending 500, because the ASGI application has not answered the WebSocket request"
    )


@pytest.mark.parametrize("early", [b"", b"\x81"])
def test_a_client_that_leaves_before_the_answer_is_an_event(
    serve: Serve, clients: Clients, early: bytes
) -> None:
    connected = Gate()
    events = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        connected.open()
        events.append(await receive())
        await send({"type": "websocket.accept"})

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/"))
    connected.wait()
    client.send(early)
    client.close()
    wait_until(lambda: not server.tasks, "the application has ended")
    assert events == [{"type": "websocket.disconnect", "code": 1006}]


def test_other_requests_reach_the_application(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    client = clients.connect(serve(app))
    client.send(get("/"))
    assert client.read_until(b"\r\n") == b"HTTP/1.1 204 No Content\r\n"


def test_the_trace_names_the_client(serve: Serve, clients: Clients) -> None:
    server = serve(echo, log_level="trace")
    client = clients.websocket(server, "/")
    client.send_messages("a")
    assert client.next_event() == "a"
    client.leave()
    server.stop()
    records = [record for record in server.log.records if record.levelno < 30]
    lines = [record.getMessage() for record in records]
    assert any(line.endswith(" - WebSocket connection made") for line in lines)
    assert any(line.endswith(" - WebSocket connection lost") for line in lines)
    assert any('"WebSocket /" [accepted]' in line for line in lines)
    for record in records:
        server.log.records.remove(record)

"""Sock: the programs of Flask-Sock, with another import."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, url_for

from tests.support.clients import Client, WebSocketClient, get, parse_response
from tests.support.handlers import MessageGenerator
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT
from tests.wsgi import running
from wsframe import Close, Ping
from wsframe.flask import ConnectionClosed, Live, Sock, SockWebSocket
from wsframe.wsgi.handlers import Handlers

from .conftest import NewLive, Run

PROGRAM = Path(__file__).with_name("sock_program.py").read_text()


def page(port: int, path: str) -> tuple[str, str]:
    """Return a page, and its cookie."""
    client = Client(port)
    client.send(get(path, ("Connection", "close")))
    answer = parse_response(client.read_to_end())
    client.close()
    return answer.body.decode(), answer.headers.get("Set-Cookie", "").partition(";")[0]


def leave(client: WebSocketClient, code: int = 1000, reason: str = "") -> None:
    """Close the connection, and wait for its end.

    Flask-Sock may end the connection before it has sent its close frame.
    """
    client.send(client.codec.close(code, reason))
    with suppress(EOFError, ConnectionResetError):
        client.next_event()
    client.close()


def converse(port: int) -> Iterator[object]:
    """Yield the answers of the program."""
    cookie = ("Cookie", page(port, "/login/ann")[1])
    client = WebSocketClient(port, "/echo")
    client.send_messages("text", b"bytes", "", "ü" * 1000)
    yield client.expect(4)
    leave(client)
    client = WebSocketClient(port, "/count/3")
    yield client.expect(4)
    client.close()
    client = WebSocketClient(port, "/timeout")
    yield client.expect(1)
    client.send_messages("late")
    yield client.expect(2)
    client.close()
    client = WebSocketClient(port, "/close")
    yield client.expect(1)
    yield page(port, "/end")
    client.close()
    for code, reason in ((1000, ""), (4001, "bye"), (1001, "")):
        client = WebSocketClient(port, "/wait")
        yield client.expect(1)
        leave(client, code, reason)
        yield page(port, "/end")
    client = WebSocketClient(port, "/contexts?q=1", cookie, ("Sec-WebSocket-Protocol", "c, a, b"))
    yield client.headers["Sec-WebSocket-Protocol"]
    client.send_messages("x", "x")
    yield client.expect(2)
    leave(client)
    client = WebSocketClient(port, "/pages/one")
    yield client.expect(2)
    client.close()


def answers_with(directory: Path, module: str) -> list[object]:
    """Return the answers of the program with this module."""
    directory.mkdir()
    program = PROGRAM.replace("from flask_sock import", f"from {module} import")
    options = ("--worker-class", "gthread", "--threads", "8")
    with running.gunicorn(directory, program, *options) as server:
        return list(converse(server.port))


@pytest.mark.slow
def test_a_program_gives_the_same_answers_as_with_flask_sock(tmp_path: Path) -> None:
    theirs = answers_with(tmp_path / "theirs", "flask_sock")
    ours = answers_with(tmp_path / "ours", "wsframe.flask")
    assert ours == theirs
    assert len(ours) == 15


@pytest.mark.slow
def test_idle_connections_hold_no_thread_of_the_server(tmp_path: Path) -> None:
    options = ("--worker-class", "gthread", "--threads", "1")
    program = PROGRAM.replace("from flask_sock import", "from wsframe.flask import")
    with running.gunicorn(tmp_path, program, *options) as server:
        clients = [WebSocketClient(server.port, "/echo") for _ in range(5)]
        assert page(server.port, "/login/bob")[0] == "bob"
        for client in clients:
            client.send_messages("a")
            assert client.expect(1) == ["a"]
            client.close()


@pytest.fixture
def sock(app: Flask, live: Live) -> Sock:
    """A Sock of the application, which has a Live already."""
    sock = Sock(app)
    assert app.extensions["wsframe"] is live
    return sock


def test_a_handler_receives_sends_and_closes(app: Flask, sock: Sock, run: Run) -> None:
    answers: list[object] = []

    @sock.route("/<name>")
    def handler(ws: SockWebSocket, name: str) -> None:
        assert ws.connected
        ws.send(b"bytes")
        ws.send([name, ws.receive(timeout=0), ws.environ["PATH_INFO"], ws.subprotocol])
        ws.send(ws.receive())
        ws.close(4000, "so long")
        assert not ws.connected
        for call in (lambda: ws.send("late"), ws.close, lambda: ws.websocket.ping()):
            with pytest.raises(ConnectionClosed) as caught:
                call()
            answers.append((caught.value.code, caught.value.reason, str(caught.value)))

    client = WebSocketClient(run(), "/name")
    assert client.expect(2) == [b"bytes", "['name', None, '/name', None]"]
    client.send_messages("last")
    assert client.expect(1) == ["last"]
    assert client.expect_close() == Close(4000, "so long")
    closed = (4000, 4000, "Connection closed: 4000 so long")
    assert answers == [closed, closed, (4000, "so long", "4000 so long")]


@pytest.mark.parametrize(("reason", "message"), [("bye", "bye"), ("", "")])
def test_the_end_has_the_attributes_of_flask_sock(
    app: Flask, sock: Sock, run: Run, reason: str, message: str
) -> None:
    ends: queue.Queue[object] = queue.Queue()

    @sock.route("/")
    def handler(ws: SockWebSocket) -> None:
        try:
            ws.receive()
        except ConnectionClosed as closed:
            ends.put((closed.reason, closed.message))  # type: ignore[attr-defined]
            raise

    assert WebSocketClient(run(), "/").leave(4001, reason).code == 4001
    assert ends.get(timeout=TIMEOUT) == (4001, message)


def test_a_generator_receives_without_a_thread(app: Flask, sock: Sock, run: Run) -> None:
    @sock.route("/<name>")
    def handler(ws: SockWebSocket, name: str) -> MessageGenerator:
        while True:
            message = yield
            ws.send(f"{name} {message!r} {threading.current_thread().name}")

    client = WebSocketClient(run(), "/a")
    client.send_messages("b")
    (answer,) = client.expect(1)
    assert str(answer).startswith("a 'b' wsframe-")
    client.leave()


def test_a_coroutine_function_is_refused(app: Flask, sock: Sock) -> None:
    async def handler(ws: SockWebSocket) -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="must be a plain or a generator function"):
        sock.route("/")(handler)


def test_a_route_without_a_path_is_refused(sock: Sock) -> None:
    def handler(ws: SockWebSocket) -> None:
        """Do nothing."""

    route: Any = sock.route
    with pytest.raises(TypeError, match=r'use @sock.route\("/path"\)'):
        route(handler)


@pytest.mark.parametrize("subprotocols", ["chat", ["other", "chat"], None])
def test_options_are_those_of_the_configuration(
    app: Flask, sock: Sock, run: Run, subprotocols: object
) -> None:
    @sock.route("/")
    def handler(ws: SockWebSocket) -> None:
        ws.send(ws.subprotocol)
        ws.receive()

    options = {"subprotocols": subprotocols, "max_message_size": 3, "receive_bytes": 1}
    app.config["SOCK_SERVER_OPTIONS"] = options  # after Sock(app), as Flask-Sock permits
    client = WebSocketClient(run(), "/", ("Sec-WebSocket-Protocol", "chat"))
    assert client.expect(1) == ["chat" if subprotocols else "None"]
    client.send_messages("long")
    assert client.expect_close().code == 1009


def an_application(live: Live, options: dict[str, object]) -> Flask:
    """Return an application with these options, and a handler that is the same in all of them."""
    app = Flask("app")
    app.config["SOCK_SERVER_OPTIONS"] = options
    live.init_app(app)
    sock = Sock(app)

    @sock.route("/")
    def handler(ws: SockWebSocket) -> None:
        ws.send(ws.subprotocol)
        ws.receive()

    return app


def test_applications_of_one_live_have_options_of_their_own(
    new_live: NewLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = new_live()
    first = an_application(live, {"subprotocols": "a", "max_message_size": 3})
    second = an_application(live, {"subprotocols": "b"})

    route_of, interrupted = Handlers.websocket, threading.Event()

    def interrupt(handlers: Handlers, *arguments: Any) -> Any:
        """Answer a request of the second application within the first one of the other."""
        if not interrupted.is_set():
            interrupted.set()
            with second.test_request_context("/", base_url="ws://localhost"):
                second.full_dispatch_request()
        return route_of(handlers, *arguments)

    monkeypatch.setattr(Handlers, "websocket", interrupt)
    with running.werkzeug_server(first) as one, running.werkzeug_server(second) as two:
        for port, name, size in ((one, "a", 3), (two, "b", 1 << 20), (one, "a", 3)):
            client = WebSocketClient(port, "/", ("Sec-WebSocket-Protocol", "a, b"))
            assert client.expect(1) == [name]
            client.send_messages("x" * (size + 1))
            assert client.expect_close().code == 1009
        live.stop(0)
    assert interrupted.is_set()


def test_applications_of_one_live_must_have_one_interval_of_pings(new_live: NewLive) -> None:
    live = new_live(ping_interval=5.0)
    an_application(live, {"ping_interval": 5})
    an_application(live, {"ping_interval": None})
    with pytest.raises(ValueError, match=r"ping_interval=7 .*no effect.* ping_interval=5\.0, for"):
        an_application(live, {"ping_interval": 7})


def test_an_interval_of_pings_that_is_set_too_late_is_an_error(app: Flask, sock: Sock) -> None:
    @sock.route("/")
    def handler(ws: SockWebSocket) -> None:
        """Do nothing."""

    app.testing = True
    app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 7}
    with pytest.raises(ValueError, match=r"ping_interval=7 .*no effect"):
        app.test_client().get("/", base_url="ws://localhost")


def test_unknown_options_are_refused(app: Flask) -> None:
    app.config["SOCK_SERVER_OPTIONS"] = {"ping": 1}
    with pytest.raises(TypeError, match=r"SOCK_SERVER_OPTIONS.*unknown options: ping"):
        Sock(app)


def test_routes_may_precede_the_application(run: Run, app: Flask) -> None:
    app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 0.05}
    sock, pages = Sock(), Blueprint("pages", __name__, url_prefix="/pages")

    @sock.route("/first")
    def first(ws: SockWebSocket) -> None:
        ws.send(url_for("__flask_sock.first"))
        ws.receive()

    @sock.route("/<name>", bp=pages)
    def page(ws: SockWebSocket, name: str) -> None:
        ws.send(name)

    @sock.route("/second")
    def second(ws: SockWebSocket) -> None:
        ws.send(url_for("__flask_sock.second"))

    sock.init_app(app)
    app.register_blueprint(pages)

    @sock.route("/third")
    def third(ws: SockWebSocket) -> None:
        ws.send(url_for("third"))

    port = run()
    for path, answer in (
        ("/second", "ws://localhost/second"),
        ("/third", "ws://localhost/third"),
        ("/pages/one", "one"),
    ):
        client = WebSocketClient(port, path)
        assert client.expect(1) == [answer]
        client.expect_close()
    client = WebSocketClient(port, "/first", answer_pings=False)
    assert client.expect(1) == ["ws://localhost/first"]
    assert isinstance(client.expect(1)[0], Ping)
    client.close()
    app.extensions["wsframe"].stop(0)


def test_a_failing_handler_closes_with_1011(
    app: Flask, sock: Sock, run: Run, log: ServerLog
) -> None:
    @sock.route("/")
    def handler(ws: SockWebSocket) -> None:
        raise LookupError("failed")

    assert WebSocketClient(run(), "/").expect_close() == Close(1011, "the handler failed")
    log.expect("the handler of / failed")

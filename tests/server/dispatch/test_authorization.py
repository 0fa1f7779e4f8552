"""``authorize``: the decision of the application before the 101 or the head of a stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients, Response, get, masked, upgrade
from tests.support.handlers import Checkpoint, MessageGenerator, generator_echo, websocket_app
from tests.support.inspection import wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import HandshakeError, Opcode
from wsframe.server import App, EventStream, Request, WebSocket
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

COOKIE = ("Cookie", "session=anna")


def whose(request: Request) -> str | None:
    """Return the user of the request, by its cookie; None without one."""
    return request.headers.get("Cookie", "").removeprefix("session=") or None


def protected(authorize: Callable[[Request], object] = whose) -> App:
    """An app that sends each client its identity."""
    app = App()

    @app.websocket("/ws", authorize=authorize)
    def talk(ws: WebSocket) -> MessageGenerator:
        ws.send(f"hello {ws.request.identity}")
        yield

    @app.sse("/stream", authorize=authorize)
    def stream(stream: EventStream) -> None:
        stream.send(f"hello {stream.request.identity}")

    return app


def ask(clients: Clients, server: Any, request: bytes) -> Response:
    client = clients.connect(server)
    client.send(request)
    return client.answer()


def test_the_handler_receives_the_identity(serve: Serve, clients: Clients) -> None:
    server = serve(protected())
    assert clients.websocket(server, "/ws", COOKIE).next_event() == "hello anna"
    assert clients.stream(server, "/stream", COOKIE).expect(1) == ["hello anna"]


@pytest.mark.parametrize(
    "request_", [upgrade("/ws"), get("/stream"), get("/stream", method="HEAD")]
)
def test_refused_clients_get_403(serve: Serve, clients: Clients, request_: bytes) -> None:
    assert ask(clients, serve(protected()), request_).status == 403


def test_the_hook_can_choose_the_answer(serve: Serve, clients: Clients) -> None:
    def authorize(request: Request) -> bool:
        raise HandshakeError(401, "log in first", [("WWW-Authenticate", "Basic")])

    answer = ask(clients, serve(protected(authorize)), upgrade("/ws"))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Basic")
    assert answer.body == b"log in first\n"


def test_the_hook_may_be_unhashable(serve: Serve, clients: Clients) -> None:
    @dataclass
    class Sessions:
        known: set[str]

        def __call__(self, request: Request) -> bool:
            return whose(request) in self.known

    server = serve(protected(Sessions({"anna"})))
    assert clients.websocket(server, "/ws", COOKIE).next_event() == "hello True"
    assert ask(clients, server, upgrade("/ws")).status == 403


@pytest.mark.parametrize("error", [LookupError("no such user"), SystemExit(3)])
def test_a_hook_that_fails_is_logged_and_answered_500(
    serve: Serve, clients: Clients, log: ServerLog, error: BaseException
) -> None:
    def authorize(request: Request) -> bool:
        raise error

    server = serve(protected(authorize))
    answer = ask(clients, server, upgrade("/ws"))
    assert answer.status == 500
    assert str(error).encode() not in answer.body
    assert log.expect("the authorize function of /ws failed").exc_info


@pytest.mark.parametrize(
    "error",
    [
        HandshakeError(401, "no", [("X-User", "anna\r\nSet-Cookie: session=anna")]),
        HandshakeError(401, "no", [("X User", "anna")]),
        HandshakeError(999, "no"),
    ],
    ids=["value", "name", "status"],
)
def test_an_answer_that_cannot_be_sent_is_logged_and_500(
    serve: Serve, clients: Clients, log: ServerLog, error: HandshakeError
) -> None:
    def authorize(request: Request) -> bool:
        raise error

    answer = ask(clients, serve(protected(authorize)), upgrade("/ws"))
    assert (answer.status, answer.body) == (500, b"authorization check failed\n")
    assert answer.headers["X-User"] is answer.headers["Set-Cookie"] is None
    assert log.expect("the authorize function of /ws raised an answer that cannot be sent").exc_info


def test_an_invalid_request_is_refused_without_calling_the_hook(
    serve: Serve, clients: Clients
) -> None:
    asked: Queue[Request] = Queue()
    server = serve(protected(asked.put))
    assert (
        ask(clients, server, upgrade("/ws", ("Origin", "https://elsewhere.example"))).status == 403
    )
    assert ask(clients, server, get("/ws")).status == 426
    assert asked.empty()


def hold(held: Checkpoint) -> Callable[[Request], object]:
    """A hook that blocks, and then accepts every client."""

    def authorize(request: Request) -> bool:
        held.wait()
        return True

    return authorize


def test_a_hook_that_blocks_delays_no_other_client(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()
    app = protected(hold(held))
    app.websocket("/echo")(generator_echo)
    server = serve(app)
    waiting = clients.connect(server)
    waiting.send(upgrade("/ws"))
    held.wait_until_reached()
    echo = clients.websocket(server, "/echo")
    echo.send_messages("through")
    assert echo.next_event() == "through"
    held.release()
    assert b" 101 " in waiting.read_until(b"\r\n\r\n")


def test_data_received_meanwhile_is_handled_afterwards(serve: Serve, clients: Clients) -> None:
    held, clock = Checkpoint(), ManualClock()
    app = websocket_app(generator_echo, timing=Timing(clock=clock), authorize=hold(held))
    server = serve(app, handshake_timeout=0.1)
    client = clients.connect(server)
    client.send(upgrade("/echo") + masked(Opcode.TEXT, "with the head"))
    held.wait_until_reached()
    client.send(masked(Opcode.TEXT, "behind it"))
    # Longer than handshake_timeout, which ends with the request.
    clock.pass_time(server, 1.0)
    held.release()
    assert b" 101 " in client.read_until(b"\r\n\r\n")
    assert client.read_until(b"behind it") == b"\x81\x0dwith the head\x81\x09behind it"


def test_a_client_that_disconnects_during_the_hook_is_removed(
    serve: Serve, clients: Clients
) -> None:
    held = Checkpoint()
    server = serve(websocket_app(generator_echo, authorize=hold(held)))
    client = clients.connect(server)
    client.send(upgrade("/echo"))
    held.wait_until_reached()
    client.reset()
    held.release()
    wait_for_disconnects(server)


def test_a_stop_does_not_wait_for_the_answer_to_a_lost_client(
    serve: Serve, clients: Clients
) -> None:
    held = Checkpoint()
    server = serve(websocket_app(generator_echo, authorize=hold(held)), drain=60)
    client = clients.connect(server)
    client.send(upgrade("/echo"))
    held.wait_until_reached()
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.receive() == b""
    held.release()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()

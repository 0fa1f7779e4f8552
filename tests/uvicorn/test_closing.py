"""The closing handshake, faults of the client, and the end of the application."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clients import Clients, masked, upgrade
from tests.support.uvicorn_server import Message, Receive, Send
from tests.support.waiting import wait_until
from wsframe import Close, Opcode
from wsframe.uvicorn import Timing

from .apps import Ending, Gate, echo, echo_all, flood
from .conftest import Serve


def test_the_application_closes_with_a_code_and_a_reason(serve: Serve, clients: Clients) -> None:
    events: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001, "reason": "so long"})
        events.extend([await receive(), await receive()])

    server = serve(app)
    assert clients.websocket(server, "/").expect_close() == Close(4001, "so long")
    wait_until(lambda: not server.tasks, "the application has ended")
    event = {"type": "websocket.disconnect", "code": 4001, "reason": "so long"}
    assert events == [event, event]


def test_a_message_of_the_client_after_a_close_frame_is_ignored(
    serve: Serve, clients: Clients
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    client = clients.websocket(serve(app), "/")
    assert client.next_event() == Close(1000)
    client.send_messages("late", b"late" * 5000)
    client.send(client.codec.close(1000))
    client.expect_end()


def test_nothing_can_be_sent_after_the_close_frame(serve: Serve, clients: Clients) -> None:
    errors: list[Exception] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        for kind in ("websocket.send", "websocket.close", "websocket.accept"):
            try:
                await send({"type": kind, "text": ""})
            except RuntimeError as error:
                errors.append(error)

    server = serve(app)
    assert clients.websocket(server, "/").expect_close() == Close(1000)
    wait_until(lambda: not server.tasks, "the application has ended")
    assert len(errors) == 3


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (999, ""), (1000, "x" * 124)])
def test_an_invalid_close_is_an_error_of_the_application(
    serve: Serve, clients: Clients, code: int, reason: str
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except ValueError:
            await send({"type": "websocket.close", "code": 1011, "reason": None})

    assert clients.websocket(serve(app), "/").expect_close() == Close(1011)


@pytest.mark.parametrize(("code", "reason"), [(1001, "bye"), (3000, ""), (1005, "")])
def test_the_client_closes(serve: Serve, clients: Clients, code: int, reason: str) -> None:
    app = Ending()
    client = clients.websocket(serve(app), "/")
    assert client.leave(code, reason) == Close(code)
    assert app.end() == {"type": "websocket.disconnect", "code": code, "reason": reason}


def test_messages_before_the_clients_close_frame_are_answered(
    serve: Serve, clients: Clients
) -> None:
    client = clients.websocket(serve(echo), "/")
    client.send_messages("prepare")
    client.next_event()
    frames = [client.codec.encode(f"{number}") for number in range(50)]
    client.send(b"".join(frames) + client.codec.close(1001))
    assert client.expect(50) == [f"{number}" for number in range(50)]
    assert client.next_event() == Close(1001)
    client.expect_end()


def test_messages_for_a_busy_application_are_answered_before_the_close_frame(
    serve: Serve, clients: Clients
) -> None:
    busy, gate = Gate(), Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        busy.open()
        await gate.passed()
        await echo_all(receive, send)

    client = clients.websocket(serve(app), "/")
    client.send_messages("first")
    busy.wait()
    client.send(client.codec.encode("second") + client.codec.close(1001))
    gate.open()
    assert client.expect(2) == ["second", Close(1001)]
    client.expect_end()


def test_the_application_closes_after_the_client(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 4000})

    client = clients.websocket(serve(app), "/")
    client.send(client.codec.encode("a") + client.codec.encode("b") + client.codec.close(1000))
    assert client.next_event() == Close(4000)
    client.expect_end()


def test_the_application_ends_after_the_client_has_closed(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    client = clients.websocket(serve(app), "/")
    client.send(client.codec.encode("a") + client.codec.encode("b") + client.codec.close(1001))
    assert client.next_event() == Close(1001)
    client.expect_end()


def test_a_busy_application_delays_the_reply_to_a_close_frame_only_for_a_time(
    serve: Serve, clients: Clients
) -> None:
    gate, errors = Gate(), list[Exception]()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await gate.passed()
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            errors.append(error)

    server = serve(app, Timing(close_timeout=0.1))
    client = clients.websocket(server, "/")
    client.send(client.codec.encode("a") + client.codec.encode("b") + client.codec.close(1001))
    assert client.next_event() == Close(1001)
    client.expect_end()
    gate.open()
    wait_until(lambda: not server.tasks, "the application has ended")
    assert errors


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # a reserved bit
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # a reserved opcode
        (b"\x81\x01a", 1002),  # not masked
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.CLOSE, b"\x03"), 1002),
        (masked(Opcode.BINARY, bytes(1001)), 1009),
    ],
)
def test_a_fault_is_answered_with_its_code(
    serve: Serve, clients: Clients, data: bytes, code: int
) -> None:
    app = Ending()
    client = clients.websocket(serve(app, Timing(linger=0.01), ws_max_size=1000), "/")
    client.send(client.codec.encode("before") + data)
    assert client.next_event() == "before"
    close = client.next_event()
    assert isinstance(close, Close)
    assert close.code == code
    assert app.end() == {"type": "websocket.disconnect", "code": code, "reason": close.reason}
    client.expect_end()


@pytest.mark.slow
def test_a_client_that_sends_a_big_message_receives_the_close_frame(
    serve: Serve, clients: Clients
) -> None:
    client = clients.websocket(serve(echo, ws_max_size=1000), "/")
    client.send(masked(Opcode.BINARY, bytes(10 << 20)))
    close = client.next_event()
    assert isinstance(close, Close)
    assert close.code == 1009
    client.expect_end()


def test_a_client_that_never_stops_after_a_fault_is_cut_off(serve: Serve, clients: Clients) -> None:
    client = clients.websocket(serve(echo, Timing(linger=0.01, close_timeout=0.05)), "/")
    client.send(b"\xff")
    assert isinstance(flood(client, bytes(1 << 16)), ConnectionError)


def test_a_client_that_does_not_answer_a_close_frame_is_disconnected(
    serve: Serve, clients: Clients
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    client = clients.websocket(serve(app, Timing(close_timeout=0.05)), "/")
    assert client.next_event() == Close(1000)
    client.expect_end()


@pytest.mark.parametrize("half", [True, False])
def test_a_lost_connection_is_an_event(serve: Serve, clients: Clients, half: bool) -> None:
    app = Ending()
    server = serve(app)
    client = clients.websocket(server, "/")
    client.send_messages("a")
    assert client.next_event() == "a"
    if half:
        client.half_close()
    else:
        client.reset()
    assert app.end() == {"type": "websocket.disconnect", "code": 1006}
    wait_until(lambda: not server.connections, "the connection has ended")


def test_sending_on_a_lost_connection_is_an_oserror(serve: Serve, clients: Clients) -> None:
    errors: list[Exception] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        for kind in ("websocket.send", "websocket.close"):
            try:
                await send({"type": kind, "text": ""})
            except OSError as error:
                errors.append(error)
        await send({"type": "websocket.send", "text": ""})  # ends the application, without a log

    server = serve(app)
    clients.websocket(server, "/").reset()
    wait_until(lambda: not server.tasks, "the application has ended")
    assert len(errors) == 2


@pytest.mark.parametrize("result", [None, 5])
def test_an_application_that_returns_ends_the_connection(
    serve: Serve, clients: Clients, result: Any
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> Any:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "last"})
        return result

    server = serve(app)
    client = clients.websocket(server, "/")
    assert client.next_event() == "last"
    client.expect_end()
    if result is not None:
        server.log.expect("the ASGI application must return None, but has returned 5")


def test_an_exception_of_the_application_is_logged(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError("lost")

    server = serve(app)
    client = clients.websocket(server, "/")
    client.send_messages("a")
    client.expect_end()
    record = server.log.expect("exception in the ASGI application")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_a_stop_closes_connections_with_1012(serve: Serve, clients: Clients) -> None:
    app = Ending()
    server = serve(app)
    client = clients.websocket(server, "/")
    client.send_messages("a")
    assert client.next_event() == "a"
    server.begin_stop()
    assert client.expect_close() == Close(1012)
    assert app.end() == {"type": "websocket.disconnect", "code": 1012}


def test_a_stop_does_not_wait_long_for_silent_clients(serve: Serve, clients: Clients) -> None:
    server = serve(echo, Timing(shutdown_timeout=0.05))
    client = clients.websocket(server, "/")
    server.stop()
    assert client.next_event() == Close(1012)
    client.expect_end()


def test_a_stop_ends_connections_in_every_state(serve: Serve, clients: Clients) -> None:
    gate = Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/closing":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        elif scope["path"] == "/denying":
            await send({"type": "websocket.http.response.start", "status": 402})
            await send({"type": "websocket.http.response.body", "body": b"1", "more_body": True})
        elif scope["path"] == "/answering":
            await send({"type": "websocket.accept"})
            await receive()
        await gate.passed()

    server = serve(app)
    waiting, denied = clients.connect(server), clients.connect(server)
    waiting.send(upgrade("/"))
    denied.send(upgrade("/denying"))
    closing = clients.websocket(server, "/closing")
    answering = clients.websocket(server, "/answering")
    codec = answering.codec
    answering.send(codec.encode("a") + codec.encode("b") + codec.close(1000))
    wait_until(lambda: server.tasks == 4, "the applications have started")
    assert denied.read_until(b"\r\n\r\n1").startswith(b"HTTP/1.1 402 Payment Required\r\n")
    assert closing.next_event() == Close(1000)
    wait_until(
        lambda: any(connection.close_timer is not None for connection in server.connections),
        "a close is awaited",
    )
    server.begin_stop()
    assert waiting.answer().status == 503
    assert denied.read_to_end() == b""
    closing.expect_end()
    assert answering.next_event() == Close(1012)
    answering.expect_end()
    gate.open()


def test_cancelled_applications_end_their_connections(serve: Serve, clients: Clients) -> None:
    started = Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        last = await echo_all(receive, send)
        assert last["code"] == 1012
        started.open()
        await Gate().passed()  # the stop cancels it

    server = serve(app, timeout_graceful_shutdown=0)
    client = clients.websocket(server, "/")
    server.begin_stop()
    assert client.expect_close() == Close(1012)
    server.log.expect("Cancel 1 running task(s)")
    server.stop()


def test_a_ping_after_the_close_frame_is_not_answered(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    client = clients.websocket(serve(app), "/")
    assert client.next_event() == Close(1000)
    client.send(masked(Opcode.PING, "") + client.codec.close(1000))
    client.expect_end()

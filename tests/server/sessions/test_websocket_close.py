"""``WebSocket.close``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.server.sessions.websocket import Handler
from tests.support.clients import Clients, masked
from tests.support.handlers import (
    BOTH_KINDS,
    Checkpoint,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.inspection import peers_of
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close, Connection, Ping
from wsframe.frames import Opcode
from wsframe.server import ConnectionClosed, WebSocket


def close_and_wait(ws: WebSocket) -> None:
    ws.send("last")
    ws.close(4000, "ünd Schluß")
    ws.close(4001, "twice does nothing")
    assert ws.close_code == 4000
    assert list(ws) == []


def close_and_return(ws: WebSocket) -> None:
    ws.send("last")
    ws.close(4000, "ünd Schluß")


def close_and_yield(ws: WebSocket) -> MessageGenerator:
    ws.send("last")
    ws.close(4000, "ünd Schluß")
    ws.close(4001, "twice does nothing")
    assert ws.close_code == 4000
    yield


def close_and_end(ws: WebSocket) -> MessageGenerator:
    ws.send("last")
    ws.close(4000, "ünd Schluß")
    return
    yield


@pytest.mark.parametrize("handler", [close_and_wait, close_and_yield])
def test_a_ping_after_the_close_frame_is_not_answered(
    serve: Serve, clients: Clients, handler: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    assert client.expect(2) == ["last", Close(4000, "ünd Schluß")]
    client.send(masked(Opcode.PING, b"late") + masked(Opcode.CLOSE, (4000).to_bytes(2, "big")))
    assert client.read_to_end() == b""


@pytest.mark.parametrize(
    "handler", [close_and_wait, close_and_return, close_and_yield, close_and_end]
)
def test_a_handler_may_close_with_a_code_and_a_reason(
    serve: Serve, clients: Clients, handler: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    assert client.next_event() == "last"
    assert client.expect_close() == Close(4000, "ünd Schluß")


def test_an_error_after_close_is_logged_and_the_close_code_remains(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def fail(ws: WebSocket) -> MessageGenerator:
        ws.close(4000)
        raise RuntimeError
        yield

    client = clients.websocket(serve(websocket_app(fail)), "/echo")
    assert client.expect_close() == Close(4000)
    log.expect("the handler of /echo failed")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1013, 3000, 4999, 1005])
def test_valid_close_codes(serve: Serve, clients: Clients, code: int) -> None:
    def close(ws: WebSocket) -> None:
        ws.close(code, "" if code == 1005 else "x" * 123)

    client = clients.websocket(serve(websocket_app(close)), "/echo")
    assert client.expect_close() == Close(code, "" if code == 1005 else "x" * 123)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "") for code in (0, 999, 1004, 1006, 1015, 2999, 5000, -1, 70000)),
        (1005, "reason"),
        (1000, "x" * 124),
        (1000, "é" * 62),
        (1000, "\ud800"),
    ],
)
def test_invalid_close_codes_and_reasons(
    serve: Serve, clients: Clients, code: int, reason: str
) -> None:
    def close(ws: WebSocket) -> MessageGenerator:
        try:
            ws.close(code, reason)
        except ValueError:
            ws.send(f"refused, {ws.close_code}")
        yield from generator_echo(ws)

    client = clients.websocket(serve(websocket_app(close)), "/echo")
    assert client.next_event() == "refused, None"
    client.send_messages("still open")
    assert client.next_event() == "still open"


@BOTH_KINDS
def test_another_thread_may_send_and_close(serve: Serve, clients: Clients, echo: Handler) -> None:
    opened: Queue[WebSocket] = Queue()
    ended: Queue[int] = Queue()

    def plain(ws: WebSocket) -> None:
        opened.put(ws)
        try:
            while True:
                ws.send(ws.receive())
        except ConnectionClosed as end:
            ended.put(end.code)

    def generator(ws: WebSocket) -> MessageGenerator:
        opened.put(ws)
        try:
            yield from generator_echo(ws)
        except ConnectionClosed as end:
            ended.put(end.code)

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo", answer_pings=False)
    ws = opened.get(timeout=TIMEOUT)
    ws.send("pushed")
    ws.ping(b"too")
    assert client.expect(2) == ["pushed", Ping(b"too")]
    client.send_messages("echoed")
    assert client.next_event() == "echoed"
    ws.send("last")
    ws.close(4000)
    ws.close(4001)
    with pytest.raises(ConnectionClosed, match="4000"):
        ws.send("too late")
    with pytest.raises(ConnectionClosed, match="4000"):
        ws.ping()
    with pytest.raises(ConnectionClosed, match="4000"):
        ws.subscribe("too late")
    assert client.next_event() == "last"
    assert client.expect_close() == Close(4000)
    assert ended.get(timeout=TIMEOUT) == 4000
    assert ws.close_code == 4000


@BOTH_KINDS
@pytest.mark.parametrize(
    ("bad", "close"),
    [
        (masked(Opcode.CLOSE, b"\x0f\xa0"), Close(4000)),
        (masked(Opcode.TEXT, b"\xff"), Close(1007, "a text message is not valid UTF-8")),
        (b"\x83\x80\0\0\0\0", Close(1002, "opcode 3 is reserved")),
        (b"\x81\x01x", Close(1002, "a client's frame must be masked")),
    ],
    ids=["close", "utf-8", "opcode", "mask"],
)
def test_messages_before_the_end_in_one_segment_are_answered_first(
    serve: Serve, clients: Clients, echo: Handler, bad: bytes, close: Close
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    good = [masked(Opcode.TEXT, str(number)) for number in range(50)]
    client.send(b"".join(good) + bad + masked(Opcode.TEXT, "ignored"))
    assert client.expect(50) == [str(number) for number in range(50)]
    assert client.next_event() == close
    client.expect_end()


def test_after_a_close_request_no_message_is_delivered(serve: Serve, clients: Clients) -> None:
    seen: Queue[str | bytes] = Queue()

    def close_at_once(ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            seen.put(message)
            ws.close()

    server = serve(websocket_app(close_at_once))
    client = clients.websocket(server, "/echo")
    client.send_messages("one", "two")
    assert client.next_event() == Close(1000)
    client.send(masked(Opcode.TEXT, "three") + client.codec.close())
    client.expect_end()
    stop_within(server, TIMEOUT)
    assert seen.get_nowait() == "one"
    assert seen.empty()


@BOTH_KINDS
def test_a_message_after_the_close_frame_of_a_stop_is_not_delivered(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    held = Checkpoint()
    seen: Queue[str | bytes | int] = Queue()

    def plain(ws: WebSocket) -> None:
        try:
            while True:
                seen.put(ws.receive())
                held.wait()
        except ConnectionClosed as end:
            seen.put(end.code)

    def generator(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                seen.put((yield))
                held.wait()
        except ConnectionClosed as end:
            seen.put(end.code)

    server = serve(websocket_app(plain if echo is plain_echo else generator))
    client = clients.websocket(server, "/echo")
    client.send_messages("in time")
    held.wait_until_reached()
    (peer,) = peers_of(server)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.next_event() == Close(1001, "the server is shutting down")
    client.send(masked(Opcode.TEXT, "too late"))
    wait_until(lambda: peer.messages_in == 2, "the message is read")
    held.release()
    client.send(client.codec.close(1001))
    client.expect_end()
    stopping.join(TIMEOUT)
    assert [seen.get_nowait(), seen.get_nowait()] == ["in time", 1001]
    assert seen.empty()


@pytest.mark.parametrize("name", ["encode", "ping"])
def test_a_thread_that_loses_a_race_with_the_close_raises(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened: Queue[WebSocket] = Queue()

    def wait(ws: WebSocket) -> None:
        opened.put(ws)
        assert list(ws) == []

    server = serve(websocket_app(wait, deflate=True))
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate")
    client = clients.websocket(server, "/echo", offer)
    ws = opened.get(timeout=TIMEOUT)
    encode: Callable[..., bytes] = getattr(Connection, name)

    def close_first(codec: Connection, *arguments: Any, **options: Any) -> bytes:
        """Encode a frame after the loop has sent the close frame of another thread."""
        monkeypatch.setattr(Connection, name, encode)
        ws.close(4000)
        wait_until(lambda: codec.close_sent, "the close frame is sent")
        return encode(codec, *arguments, **options)

    monkeypatch.setattr(Connection, name, close_first)
    with pytest.raises(ConnectionClosed, match="4000"):
        ws.send("too late") if name == "encode" else ws.ping()
    assert client.expect_close() == Close(4000)

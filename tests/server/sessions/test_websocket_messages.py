"""WebSocket messages, the handshake and pings, for plain functions and generators."""

from __future__ import annotations

import math
from queue import Queue

import pytest

from tests.server.sessions.websocket import MIB, Handler, assert_traceback
from tests.support.clients import Clients, masked
from tests.support.handlers import (
    BOTH_KINDS,
    Checkpoint,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import Close, Ping, Pong
from wsframe.frames import Opcode
from wsframe.server import ConnectionClosed, WebSocket


@BOTH_KINDS
@pytest.mark.parametrize(
    "message",
    [
        "text",
        "",
        "ünïcödé 🎈",
        b"binary",
        b"",
        bytes(range(256)) * 300,
        "x" * 125,
        "x" * 126,
        b"x" * 65535,
        b"x" * 65536,
        "é" * (MIB // 2),
        b"\xff" * MIB,
    ],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_a_message_is_echoed_unchanged(
    serve: Serve, clients: Clients, echo: Handler, message: str | bytes
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    client.send_messages(message)
    assert client.next_event() == message
    client.send_messages(message, message)
    assert client.expect(2) == [message, message]
    assert client.leave() == Close(1000)


@pytest.mark.parametrize("deflate", [False, True])
def test_values_are_sent_as_json_and_are_no_messages(
    serve: Serve, clients: Clients, deflate: bool
) -> None:
    errors: Queue[str] = Queue()

    def handler(ws: WebSocket) -> None:
        ws.send_json({"name": "ä", "values": [1, None]})
        ws.send_json("text", timeout=TIMEOUT)
        for message in ({"a": 1}, None, memoryview(b"abcd")[::2]):
            for timeout in (None, 0):
                with pytest.raises(TypeError) as raised:
                    ws.send(message, timeout=timeout)  # type: ignore[arg-type]
                errors.put(str(raised.value))
        with pytest.raises(ValueError, match="not JSON compliant"):
            ws.send_json(math.nan)

    offer = (("Sec-WebSocket-Extensions", "permessage-deflate"),) if deflate else ()
    client = clients.websocket(serve(websocket_app(handler, deflate=deflate)), "/echo", *offer)
    first, second, close = client.expect(3)
    assert (first, second) == (r'{"name": "\u00e4", "values": [1, null]}', '"text"')
    assert close == Close(1000)
    found = [errors.get(timeout=TIMEOUT) for _ in range(6)]
    hint = "a message must be str or bytes-like, not {}; send_json sends a value as JSON"
    assert found[:4] == [hint.format("dict")] * 2 + [hint.format("NoneType")] * 2
    assert all("C-contiguous" in text for text in found[4:])


@BOTH_KINDS
def test_a_message_in_fragments_is_one_message(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    client.send(
        masked(Opcode.TEXT, "é".encode()[:1], fin=False)
        + masked(Opcode.PING, b"between")
        + masked(Opcode.CONTINUATION, "é".encode()[1:], fin=False)
        + masked(Opcode.CONTINUATION, b"")
    )
    assert client.expect(2) == [Pong(b"between"), "é"]


@BOTH_KINDS
def test_messages_may_arrive_in_the_segment_of_the_request(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    first = masked(Opcode.TEXT, "one") + masked(Opcode.PING, b"two") + masked(Opcode.BINARY, b"3")
    client = clients.websocket(serve(websocket_app(echo)), "/echo", first=first[:-1])
    client.send(first[-1:])
    events = client.expect(3)
    assert [event for event in events if not isinstance(event, Pong)] == ["one", b"3"]
    assert Pong(b"two") in events


@BOTH_KINDS
def test_a_whole_conversation_may_arrive_in_one_segment(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    first = masked(Opcode.TEXT, "one") + masked(Opcode.CLOSE, b"\x0f\xa0bye")
    client = clients.websocket(serve(websocket_app(echo)), "/echo", first=first)
    assert client.expect(2) == ["one", Close(4000)]
    client.expect_end()


@BOTH_KINDS
def test_a_whole_conversation_may_arrive_bytewise(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo", bytewise=True)
    client.send_bytewise(
        masked(Opcode.TEXT, "häl", fin=False)
        + masked(Opcode.PING, b"ping")
        + masked(Opcode.CONTINUATION, "lo")
        + masked(Opcode.BINARY, b"x" * 126)
        + masked(Opcode.CLOSE, b"\x0f\xa0bye")
    )
    assert client.expect(4) == [Pong(b"ping"), "hällo", b"x" * 126, Close(4000)]
    client.expect_end()


def test_a_message_may_be_any_bytes_like_object(serve: Serve, clients: Clients) -> None:
    def send(ws: WebSocket) -> None:
        for message in (b"bytes", bytearray(b"array"), memoryview(b"view")[1:]):
            ws.send(message)

    client = clients.websocket(serve(websocket_app(send)), "/echo")
    assert client.expect(3) == [b"bytes", b"array", b"iew"]


def test_sending_an_invalid_message_raises_in_the_handler(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def send(ws: WebSocket) -> None:
        ws.send(42)  # type: ignore[arg-type]

    client = clients.websocket(serve(websocket_app(send)), "/echo")
    assert client.expect_close().code == 1011
    assert_traceback(log.expect("the handler of /echo failed"), TypeError, "send")


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ([], None),
        (["v2.chat"], "v2.chat"),
        (["v1.chat, v2.chat"], "v1.chat"),
        (["v9.chat", "v2.chat"], "v2.chat"),
        (["v9.chat"], None),
    ],
)
def test_a_subprotocol_is_negotiated(
    serve: Serve, clients: Clients, offered: list[str], agreed: str | None
) -> None:
    def tell(ws: WebSocket) -> MessageGenerator:
        ws.send(repr(ws.subprotocol))
        yield

    server = serve(websocket_app(tell, subprotocols=["v2.chat", "v1.chat"]))
    headers = [("Sec-WebSocket-Protocol", item) for item in offered]
    client = clients.websocket(server, "/echo", *headers)
    assert client.headers["Sec-WebSocket-Protocol"] == agreed
    assert client.next_event() == repr(agreed)


def test_an_offered_extension_is_declined_by_default(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.websocket(
        server, "/echo", ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    )
    assert client.headers["Sec-WebSocket-Extensions"] is None
    client.send_messages("plain")
    assert client.next_event() == "plain"


@BOTH_KINDS
def test_pings_are_answered_in_order(serve: Serve, clients: Clients, echo: Handler) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    client.send(b"".join(client.codec.ping(bytes([number])) for number in range(100)))
    assert client.expect(100) == [Pong(bytes([number])) for number in range(100)]
    client.send(client.codec.pong(b"unsolicited"))
    client.send_messages("next")
    assert client.next_event() == "next"


def test_a_ping_is_answered_while_the_handler_is_blocked(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()

    def hold(ws: WebSocket) -> None:
        held.wait()
        plain_echo(ws)

    client = clients.websocket(serve(websocket_app(hold)), "/echo")
    client.send_messages("waits")
    client.send(client.codec.ping(b"does not"))
    assert client.next_event() == Pong(b"does not")
    held.release()
    assert client.next_event() == "waits"


def test_a_handler_may_ping(serve: Serve, clients: Clients) -> None:
    refused: Queue[Exception] = Queue()

    def ping(ws: WebSocket) -> MessageGenerator:
        ws.ping()
        ws.ping(b"x" * 125)
        for size in (126, 125):
            try:
                ws.ping(b"x" * size)
            except Exception as error:
                refused.put(error)
            ws.close()
        yield

    client = clients.websocket(serve(websocket_app(ping)), "/echo", answer_pings=False)
    assert client.expect(2) == [Ping(b""), Ping(b"x" * 125)]
    assert isinstance(refused.get(timeout=TIMEOUT), ValueError)
    assert isinstance(refused.get(timeout=TIMEOUT), ConnectionClosed)
    client.expect_close()

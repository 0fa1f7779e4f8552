"""Compressed connections."""

from __future__ import annotations

import random

import pytest

from tests.support.clients import Clients, WebSocketClient, upgrade
from tests.support.inspection import waiting_messages
from tests.support.uvicorn_server import Message, Receive, Send, UvicornServer
from tests.support.waiting import wait_until
from wsframe import Close, Connection, Event, PerMessageDeflate, Role
from wsframe.uvicorn import Timing

from .apps import Gate, echo
from .conftest import Serve

OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")


def compressed(clients: Clients, server: UvicornServer) -> WebSocketClient:
    """Open a compressed connection."""
    client = clients.websocket(server, "/", OFFER)
    assert client.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate; ")
    deflate = PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True)
    client.codec = Connection(Role.CLIENT, deflate=deflate, max_message_size=1 << 26)
    return client


def test_messages_are_compressed_in_both_directions(serve: Serve, clients: Clients) -> None:
    client = compressed(clients, serve(echo))
    messages: list[str | bytes] = ["x" * 100_000, b"\x00" * 50_000, "short", ""]
    client.send_messages(*messages)
    assert client.expect(4) == messages
    frames = b"".join(client.codec.encode("y" * 1000) for _ in range(100))
    for size in (1, 7, 4096, len(frames)):
        for begin in range(0, len(frames), size):
            client.send(frames[begin : begin + size])
            if size == 1 and begin > 50:
                break
        else:
            assert client.expect(100) == ["y" * 1000] * 100
            continue
        client.send(frames[begin + 1 :])
        assert client.expect(100) == ["y" * 1000] * 100
    assert client.leave() == Close(1000)


def test_the_application_closes_before_more_data_is_decoded(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["bytes"] == first
        await send({"type": "websocket.close", "code": 4000})

    first, *others = (random.Random(0).randbytes(5000) for _ in range(8))
    client = compressed(clients, serve(app, Timing(close_timeout=3600.0)))
    client.send_messages(first, *others)
    assert client.next_event() == Close(4000)
    client.send(client.codec.close(4000))
    client.expect_end()


def test_compression_can_be_disabled(serve: Serve, clients: Clients) -> None:
    server = serve(echo, ws_per_message_deflate=False)
    assert "Sec-WebSocket-Extensions" not in clients.websocket(server, "/", OFFER).headers
    assert "Sec-WebSocket-Extensions" not in clients.websocket(serve(echo), "/").headers


def test_a_bomb_is_closed_with_1009(serve: Serve, clients: Clients) -> None:
    client = compressed(clients, serve(echo, ws_max_size=100_000))
    client.send_messages(bytes(100_001))
    close = client.next_event()
    assert isinstance(close, Close)
    assert close.code == 1009


def test_data_is_inflated_only_as_the_application_takes_it(serve: Serve, clients: Clients) -> None:
    busy, gate = Gate(), Gate()
    sizes = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        busy.open()
        await gate.passed()
        while (message := await receive())["type"] == "websocket.receive":
            sizes.append(len(message["bytes"]))

    server = serve(app)
    client = compressed(clients, server)
    client.send_messages("first")
    busy.wait()
    frame = client.codec.encode(bytes(1 << 20))
    client.send(frame * 40)  # 40 MiB in 40 KiB
    (connection,) = server.connections
    wait_until(lambda: connection.read_paused, "the connection is not read")
    assert sum(map(len, waiting_messages(connection))) <= 5 << 20
    client.send(client.codec.close(1000))
    gate.open()
    assert client.next_event() == Close(1000)
    client.expect_end()
    assert sizes == [1 << 20] * 40


def test_messages_after_our_close_frame_are_not_kept(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    client = compressed(clients, serve(app))
    assert client.next_event() == Close(1000)
    client.send(client.codec.encode(bytes(1 << 20)) * 10 + client.codec.close(1000))
    client.expect_end()


def test_the_application_closes_while_compressed_data_waits(serve: Serve, clients: Clients) -> None:
    closing = Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await closing.passed()
        await send({"type": "websocket.close"})

    server = serve(app, Timing(close_timeout=3600.0))
    client = compressed(clients, server)
    client.send(client.codec.encode(bytes(1 << 20)) * 40)
    (connection,) = server.connections
    wait_until(lambda: connection.read_paused, "the connection is not read")
    closing.open()
    assert client.next_event() == Close(1000)
    client.send(client.codec.close(1000))
    client.expect_end()


@pytest.mark.parametrize("early", [True, False])
def test_compressed_messages_may_arrive_before_the_101(
    serve: Serve, clients: Clients, early: bool
) -> None:
    connected, gate = Gate(), Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        connected.open()
        await gate.passed()
        await echo(scope, receive, send)

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/", OFFER))
    connected.wait()
    deflate = PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True)
    codec = Connection(Role.CLIENT, deflate=deflate)
    frame = codec.encode("z" * 1000)
    if early:
        client.send(frame)
    gate.open()
    client.read_until(b"\r\n\r\n")
    if not early:
        client.send(frame)
    events: list[Event] = []
    while not events:
        events = codec.receive(client.receive())
    assert events == ["z" * 1000]

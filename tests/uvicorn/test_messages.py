"""Messages in both directions, and when the replies leave."""

from __future__ import annotations

from itertools import groupby

import pytest

from tests.support.clients import Clients, get, masked, upgrade
from tests.support.uvicorn_server import Message, Receive, Send, UvicornServer
from tests.support.waiting import wait_until
from wsframe import Close, Connection, Event, Opcode, Pong, Role, encode_frame

from .apps import Gate, echo, flood
from .conftest import Serve


def count_writes(server: UvicornServer) -> list[int]:
    """Record the size of each write to the only connection."""
    sizes: list[int] = []

    def begin() -> None:
        (connection,) = server.connections
        write = connection.transport.write

        def record(data: bytes) -> None:
            sizes.append(len(data))
            write(data)

        connection.transport.write = record

    server.call(begin)
    return sizes


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_messages_are_echoed_in_order(serve: Serve, clients: Clients, http: str, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    client = clients.websocket(serve(echo, http=http, loop=loop), "/")
    messages: list[str | bytes] = [
        "",
        "text",
        b"bytes",
        "ünicode 🎈",
        "x" * 70_000,
        b"\x00" * 300_000,
        b"",
    ]
    client.send_messages(*messages)
    assert client.expect(len(messages)) == messages
    assert client.leave().code == 1000


def test_a_message_that_arrives_byte_by_byte_is_echoed(serve: Serve, clients: Clients) -> None:
    client = clients.websocket(serve(echo), "/")
    client.send_bytewise(client.codec.encode("split ü") + client.codec.encode(b"\x00" * 130))
    assert client.expect(2) == ["split ü", b"\x00" * 130]


def test_fragments_with_a_ping_in_between_make_one_message(serve: Serve, clients: Clients) -> None:
    client = clients.websocket(serve(echo), "/")
    client.send(masked(Opcode.TEXT, "one ", fin=False) + masked(Opcode.PING, "p"))
    assert client.next_event() == Pong(b"p")
    client.send(masked(Opcode.CONTINUATION, "two"))
    assert client.next_event() == "one two"


def test_the_replies_to_one_read_are_sent_in_one_write(serve: Serve, clients: Clients) -> None:
    server = serve(echo)
    client = clients.websocket(server, "/")
    client.send_messages("first")
    assert client.next_event() == "first"
    sizes = count_writes(server)
    messages = [f"message {number}" for number in range(100)]
    client.send_messages(*messages)
    assert client.expect(100) == messages
    assert len(sizes) == 1


def test_many_replies_are_sent_before_all_messages_were_taken(
    serve: Serve, clients: Clients
) -> None:
    server = serve(echo)
    client = clients.websocket(server, "/")
    sizes = count_writes(server)
    messages = ["x" * 30_000] * 5
    client.send_messages(*messages)
    assert client.expect(5) == messages
    assert len(sizes) > 1


def test_a_reply_leaves_while_the_application_waits_for_something_else(
    serve: Serve, clients: Clients
) -> None:
    gate = Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        first = await receive()
        await send({**first, "type": "websocket.send"})
        await gate.passed()
        await send({"type": "websocket.send", "text": "later"})
        await receive()

    client = clients.websocket(serve(app), "/")
    client.send_messages("now", "unused")
    assert client.next_event() == "now"
    gate.open()
    assert client.next_event() == "later"


def test_a_flood_of_messages_leaves_others_their_turn(serve: Serve, clients: Clients) -> None:
    order: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            order.append(message["text"])

    server = serve(app)
    one, other = clients.websocket(server, "/"), clients.websocket(server, "/")

    def receive_both() -> None:
        for connection, name in zip(server.connections, "ab", strict=True):
            connection.data_received(masked(Opcode.TEXT, name) * 600)

    server.call(receive_both)
    assert one.leave().code == other.leave().code == 1000
    assert sorted(order) == ["a"] * 600 + ["b"] * 600
    turns = [(name, len(list(group))) for name, group in groupby(order)]
    assert [count for _, count in turns] == [600 - 512, 600 - 512, 256, 256, 256, 256]


def test_messages_before_the_101_are_delivered_after_it(serve: Serve, clients: Clients) -> None:
    connected, gate = Gate(), Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        connected.open()
        await gate.passed()
        await echo(scope, receive, send)

    client = clients.connect(serve(app))
    client.send(upgrade("/"))
    connected.wait()
    messages = [masked(Opcode.BINARY, bytes(1000))] * 20
    client.send(b"".join(messages))
    gate.open()
    client.read_until(b"\r\n\r\n")
    for _ in messages:
        assert client.read_until(bytes(1000)) == b"\x82\x7e\x03\xe8" + bytes(1000)


def test_a_client_that_floods_before_the_101_is_not_read(serve: Serve, clients: Clients) -> None:
    connected, gate = Gate(), Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        connected.open()
        await gate.passed()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(message["bytes"]))})

    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/"))
    connected.wait()
    with client.timeout(0.2):
        assert isinstance(flood(client, masked(Opcode.BINARY, bytes(1 << 20))), TimeoutError)
    (connection,) = server.connections
    assert connection.read_paused
    gate.open()
    client.read_until(b"\r\n\r\n")
    assert client.read_until(b"1048576")


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_bytes_in_the_segment_of_the_upgrade_do_no_harm(
    serve: Serve, clients: Clients, http: str
) -> None:
    # uvicorn drops them: a client must wait for the 101 (RFC 6455 section 4.1).
    server = serve(echo, http=http)
    client = clients.websocket(server, "/", first=masked(Opcode.BINARY, bytes(20_000)))
    client.send_messages("after")
    assert client.next_event() in ("after", bytes(20_000))
    page = clients.connect(server)
    page.send(get("/"))
    assert page.read_until(b"\r\n").startswith(b"HTTP/1.1 500")  # the application fails
    server.log.expect("Exception in ASGI application")


def test_a_client_that_reads_and_writes_at_once_is_served(serve: Serve, clients: Clients) -> None:
    client = clients.websocket(serve(echo), "/")
    for number in range(200):
        client.send_messages(f"{number}", b"x" * number)
        assert client.expect(2) == [f"{number}", b"x" * number]
    assert isinstance(client.leave(), Close)


def test_a_frame_that_begins_before_the_101_is_decoded_as_a_whole(
    serve: Serve, clients: Clients
) -> None:
    connected, gate = Gate(), Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        connected.open()
        await gate.passed()
        await send({"type": "websocket.accept"})  # before it receives websocket.connect
        await receive()
        message = await receive()
        await send({"type": "websocket.send", "bytes": message["bytes"]})

    server = serve(app)
    client = clients.connect(server)
    inner = encode_frame(Opcode.BINARY, b"from within a payload", masking_key=bytes(4))
    payload = bytes(100_000) + inner  # more than the server reads before the 101
    outer = encode_frame(Opcode.BINARY, payload, masking_key=bytes(4))
    client.send(upgrade("/"))
    connected.wait()
    client.send(outer[: -len(inner)])
    (connection,) = server.connections
    wait_until(lambda: connection.read_paused, "the server has received the beginning")
    gate.open()
    client.read_until(b"\r\n\r\n")
    client.send(outer[-len(inner) :])
    codec = Connection(Role.CLIENT)
    events: list[Event] = []
    while not events:
        events = codec.receive(client.receive())
    assert events == [payload]

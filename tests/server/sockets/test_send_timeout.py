"""``send(timeout=)``: a thread that serves several clients does not wait for the slowest."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Client, Clients
from tests.support.handlers import MessageGenerator
from tests.support.inspection import websocket_session
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Connection, ConnectionClosed, PerMessageDeflate, Role
from wsframe.server import App, EventStream, WebSocket

# Longer than any test.
LONG = 3 * TIMEOUT
SIZE = 1 << 16
BUFFER = 1 << 16

# The headers of clients that support compression.
HEADERS = {
    "gzip": [("Accept-Encoding", "gzip")],
    "deflate": [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")],
}


class Kind:
    """Clients of one kind, to which the test's own thread sends."""

    def __init__(self, name: str) -> None:
        self.streams = name in ("stream", "gzip")
        self.opened: Queue[Any] = Queue()
        self.app = App()
        if self.streams:
            self.app.sse("/stream", compress=name == "gzip")(self._stream)
        else:
            self.app.websocket("/socket", deflate=name == "deflate")(self._socket)
        self._headers = HEADERS.get(name, ())

    def _stream(self, stream: EventStream) -> None:
        self.opened.put(stream)

    def _socket(self, ws: WebSocket) -> MessageGenerator:
        self.opened.put(ws)
        yield

    def connect(self, clients: Clients, server: Any) -> tuple[Client, Any]:
        if self.streams:
            client: Client = clients.stream(
                server, "/stream", *self._headers, receive_buffer=BUFFER
            )
        else:
            client = clients.websocket(server, "/socket", *self._headers, receive_buffer=BUFFER)
        return client, self.opened.get(timeout=TIMEOUT)


@pytest.fixture(params=["websocket", "stream"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


def text(number: int) -> str:
    return str(number).rjust(SIZE, ".")


def fill(connection: Any) -> int:
    """Send until both sockets accept no more; return the number of queued messages."""
    count = 0
    while not websocket_session(connection).peer.congested:
        with suppress(TimeoutError):
            while True:
                connection.send(text(count), timeout=0.3)
                count += 1
    return count


def hear(client: Any, count: int) -> list[str]:
    return [getattr(event, "data", event) for event in (client.next_event() for _ in range(count))]


def test_a_message_without_room_is_not_queued_and_all_others_arrive(
    serve: Serve, clients: Clients, kind: Kind
) -> None:
    client, connection = kind.connect(clients, serve(kind.app))
    count = fill(connection)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="256 KiB were unsent"):
            connection.send("never queued", timeout=0)
    assert hear(client, count) == [text(number) for number in range(count)]
    connection.send("last", timeout=LONG)
    assert hear(client, 1) == ["last"]


def test_a_message_with_a_timeout_is_compressed(serve: Serve, clients: Clients) -> None:
    kind = Kind("deflate")
    client, connection = kind.connect(clients, serve(kind.app))
    connection.send(text(1), timeout=LONG)
    connection.send("uncompressed", timeout=LONG, compress=False)
    data = client.read_until(b"uncompressed")
    assert len(data) < SIZE
    codec = Connection(Role.CLIENT, deflate=PerMessageDeflate())
    assert codec.receive(data) == [text(1), "uncompressed"]


def test_one_thread_serves_others_while_a_client_reads_nothing(
    serve: Serve, clients: Clients, kind: Kind
) -> None:
    server = serve(kind.app)
    _, stuck = kind.connect(clients, server)
    others = [kind.connect(clients, server) for _ in range(3)]
    fill(stuck)
    for number in range(50):
        with pytest.raises(TimeoutError):
            stuck.send("x", timeout=0)
        for client, connection in others:
            connection.send(str(number), timeout=LONG)
            assert hear(client, 1) == [str(number)]
    assert not websocket_session(stuck).over


@pytest.mark.parametrize("timeout", [LONG, 1e12, float("inf")])
def test_a_message_is_queued_as_soon_as_there_is_room(
    serve: Serve, clients: Clients, kind: Kind, timeout: float
) -> None:
    client, connection = kind.connect(clients, serve(kind.app))
    count = fill(connection)
    sent: Queue[int] = Queue()

    def send_on() -> None:
        connection.send("now", timeout=timeout)
        sent.put(1)

    sending = threading.Thread(target=send_on)
    sending.start()
    wait_until(lambda: websocket_session(connection).peer.waiting_senders, "it waits")
    assert sent.empty()
    assert hear(client, count + 1)[-1] == "now"
    sending.join(TIMEOUT)
    assert sent.get(timeout=TIMEOUT)


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_sender_that_waits_for_room_is_woken_by_the_end(
    serve: Serve, clients: Clients, kind: Kind, how: str
) -> None:
    client, connection = kind.connect(clients, serve(kind.app))
    fill(connection)
    ended: Queue[BaseException] = Queue()

    def send_on() -> None:
        try:
            connection.send("x", timeout=LONG)
        except ConnectionClosed as end:
            ended.put(end)

    sending = threading.Thread(target=send_on)
    sending.start()
    wait_until(lambda: websocket_session(connection).peer.waiting_senders, "it waits")
    if how == "close":
        connection.close()
    else:
        client.reset()
    assert ended.get(timeout=TIMEOUT)
    sending.join(TIMEOUT)
    client.close()
    with pytest.raises(ConnectionClosed):
        connection.send("x", timeout=0)


def test_a_timed_send_on_the_loop_disconnects_no_client(
    serve: Serve, clients: Clients, kind: Kind
) -> None:
    """Without a timeout, a client with so much unsent data would be disconnected."""

    @kind.app.websocket("/all")
    def send_to_all(ws: WebSocket) -> MessageGenerator:
        while True:
            timeout = float((yield))
            missed = 0
            for connection in connections:
                try:
                    connection.send("from the loop", timeout=timeout)
                except TimeoutError:
                    missed += 1
            ws.send(str(missed))

    server = serve(kind.app)
    opened = [kind.connect(clients, server) for _ in range(3)]
    connections = [connection for _, connection in opened]
    count = fill(connections[0])
    asking = clients.websocket(server, "/all")
    asking.send_messages("0", "0", "0.02")  # the last one waits, and loses the loop
    assert asking.expect(3) == ["1", "1", "1"]
    for client, _ in opened[1:]:
        assert hear(client, 3) == ["from the loop"] * 3
    assert hear(opened[0][0], count) == [text(number) for number in range(count)]
    asking.send_messages("0")
    assert asking.expect(1) == ["0"]
    assert hear(opened[0][0], 1) == ["from the loop"]


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_compressed_message_without_room_is_not_queued(
    serve: Serve, clients: Clients, name: str
) -> None:
    """Random text, which does not get shorter when compressed."""
    kind = Kind(name)
    client, connection = kind.connect(clients, serve(kind.app))
    noise = random.Random(1).randbytes(SIZE).hex()
    with suppress(TimeoutError):
        while True:
            connection.send(noise, timeout=0)
    client.close()
    with suppress(ConnectionClosed):
        while True:
            connection.send(noise, timeout=LONG)

"""Shutdown: clients are closed gracefully, within a bounded time, and all threads end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Queue
from typing import Any

import pytest

from tests.server.stopping import AGES, GOING_AWAY, stopping
from tests.support.clients import Clients, StreamClient, WebSocketClient, get
from tests.support.handlers import (
    BOTH_KINDS,
    NO_HANDOFFS,
    SHORT_GRACE,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.inspection import peers_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import STOP_TIMEOUT, Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import (
    App,
    ConnectionClosed,
    EventStream,
    WebSocket,
)

# More than the kernel's own buffers hold of a connection.
MUCH = 1 << 24


@BOTH_KINDS
def test_websockets_are_closed_with_1001(
    serve: Serve, clients: Clients, echo: Callable[..., Any]
) -> None:
    server = serve(websocket_app(echo), drain=60)
    open_ones = [clients.websocket(server, "/echo") for _ in range(20)]
    with stopping(server):
        for client in open_ones:
            assert client.expect_close() == GOING_AWAY


@BOTH_KINDS
def test_handlers_receive_the_close(
    serve: Serve, clients: Clients, echo: Callable[..., Any]
) -> None:
    told: Queue[object] = Queue()

    def plain(ws: WebSocket) -> None:
        try:
            while True:
                ws.receive()
        except ConnectionClosed as end:
            told.put((end.code, end.reason, ws.close_code))
            raise
        finally:
            told.put("finally")

    def generator(ws: WebSocket) -> MessageGenerator:
        try:
            yield
        except ConnectionClosed as end:
            told.put((end.code, end.reason, ws.close_code))
            raise
        finally:
            told.put("finally")

    server = serve(websocket_app(plain if echo is plain_echo else generator), drain=60)
    client = clients.websocket(server, "/echo")
    with stopping(server):
        # Before the client has answered.
        assert told.get(timeout=TIMEOUT) == (1001, "the server is shutting down", 1001)
        assert told.get(timeout=TIMEOUT) == "finally"
        assert client.expect_close() == GOING_AWAY
    assert told.empty()


def test_messages_sent_before_the_stop_arrive(serve: Serve, clients: Clients) -> None:
    def send(ws: WebSocket) -> MessageGenerator:
        ws.send(bytes(MUCH))
        ws.send("last")
        yield

    # A handler without the loop would wait in send.
    server = serve(websocket_app(send, timing=NO_HANDOFFS), drain=60)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    with stopping(server):
        assert client.expect(2) == [bytes(MUCH), "last"]
        assert client.expect_close() == GOING_AWAY


def test_event_streams_end(serve: Serve, clients: Clients) -> None:
    opened: Queue[EventStream] = Queue()
    app = App()
    app.sse("/time", source=Queue())
    app.sse("/job")(opened.put)
    server = serve(app, drain=60)
    streams: list[StreamClient] = [clients.stream(server, path) for path in ("/time", "/job")]
    stream = opened.get(timeout=TIMEOUT)
    with stopping(server):
        for client in streams:
            client.expect_end()
    assert stream.closed
    with pytest.raises(ConnectionClosed):
        stream.send("too late")


@pytest.mark.parametrize("spread", [0, AGES])
def test_new_connections_are_refused_while_old_ones_drain(
    serve: Serve, clients: Clients, spread: float
) -> None:
    server = serve(websocket_app(generator_echo), drain=60)
    client = clients.websocket(server, "/echo")
    silent = clients.connect(server)
    begun = clients.connect(server)
    begun.send(get("/")[:10])
    wait_for_disconnects(server, 3)
    with stopping(server, spread):
        assert client.next_event() == GOING_AWAY
        for other in (silent, begun):
            with suppress(ConnectionResetError):  # if the server has not read all of its data
                assert other.read_to_end() == b""
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            clients.connect(server).read_to_end()
        client.send(client.codec.close(1001))
        client.expect_end()


def test_an_unfinished_answer_arrives(serve: Serve, clients: Clients) -> None:
    app = App()
    body = bytes(MUCH)
    app.page("/", body)
    server = serve(app, drain=60)
    client = clients.connect(server, receive_buffer=1 << 16)
    client.send(get("/"))
    wait_until(lambda: any(peer.congested for peer in tuple(peers_of(server))), "it is on its way")
    with stopping(server):
        assert client.answer().body == body


def test_a_stop_waits_for_running_handlers(serve: Serve, clients: Clients) -> None:
    release, done = threading.Event(), threading.Event()

    def finish(ws: WebSocket) -> None:
        for _ in ws:
            pass
        assert release.wait(TIMEOUT)
        done.set()

    server = serve(websocket_app(finish), drain=60)
    client = clients.websocket(server, "/echo")
    with stopping(server):
        client.expect_close()
        wait_for_disconnects(server)
        release.set()
    assert done.is_set()


@pytest.mark.parametrize("kind", ["websocket", "stream"])
def test_a_stop_does_not_wait_for_handlers_longer_than_drain(
    serve: Serve, clients: Clients, log: ServerLog, kind: str
) -> None:
    release = threading.Event()
    entered = threading.Event()

    def stick(connection: object) -> None:
        entered.set()
        release.wait(TIMEOUT)

    app = websocket_app(stick, timing=SHORT_GRACE)
    app.sse("/echo")(stick)
    server = serve(app, drain=0.3)
    client = (
        clients.websocket(server, "/echo")
        if kind == "websocket"
        else clients.stream(server, "/echo")
    )
    assert entered.wait(TIMEOUT)
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin >= 0.3
    log.expect("wsframe-handler /echo did not stop in time; leaving it running")
    release.set()
    client.close()


def test_a_client_that_does_not_answer_is_disconnected_after_drain(
    serve: Serve, clients: Clients
) -> None:
    server = serve(websocket_app(plain_echo), drain=0.3, close_timeout=2 * STOP_TIMEOUT)
    client = clients.websocket(server, "/echo")
    begin = time.monotonic()
    stop_within(server, STOP_TIMEOUT)
    assert time.monotonic() - begin >= 0.3
    assert client.next_event() == GOING_AWAY
    assert client.read_to_end() == b""


def test_the_argument_drain_replaces_the_setting(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo), drain=2 * TIMEOUT)
    clients.websocket(server, "/echo")
    begin = time.monotonic()
    server.stop(drain=0)
    assert time.monotonic() - begin < TIMEOUT


def test_a_blocked_handler_is_logged_and_abandoned(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    entered, release = threading.Event(), threading.Event()

    def block(ws: WebSocket) -> MessageGenerator:
        yield
        entered.set()
        release.wait(TIMEOUT)

    server = serve(websocket_app(block, timing=SHORT_GRACE), drain=0.2)
    client = clients.websocket(server, "/echo")
    client.send_messages("block")
    assert entered.wait(TIMEOUT)
    stop_within(server, STOP_TIMEOUT)
    record = log.expect("wsframe-handler /echo did not stop in time; leaving it running")
    assert "release.wait(TIMEOUT)" in str(record.stack_info)
    release.set()


def push_without_end(ws: WebSocket) -> None:
    while True:
        ws.send(bytes(1 << 16))


def stream_without_end(stream: EventStream) -> Iterator[str]:
    while True:
        yield "x" * (1 << 16)


def test_a_stop_ends_senders_that_wait_for_their_clients(serve: Serve, clients: Clients) -> None:
    app = websocket_app(push_without_end, "/push")
    app.sse("/stream")(stream_without_end)
    server = serve(app, drain=0.5)
    clients.websocket(server, "/push", receive_buffer=1 << 16)
    clients.stream(server, "/stream", receive_buffer=1 << 16)
    wait_until(
        lambda: [peer.congested for peer in tuple(peers_of(server))] == [True, True],
        "both wait to send",
    )
    begin = time.monotonic()
    stop_within(server, STOP_TIMEOUT)
    assert time.monotonic() - begin >= 0.5
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-")]


def test_no_thread_remains_after_many_clients(serve: Serve, clients: Clients) -> None:
    ticks: Queue[str] = Queue()
    app = websocket_app(generator_echo)
    app.websocket("/thread")(plain_echo)
    app.sse("/time", source=ticks)
    server = serve(app, drain=60)
    talking: list[WebSocketClient] = [
        clients.websocket(server, path) for path in ("/echo", "/thread") * 10
    ]
    streams = [clients.stream(server, "/time") for _ in range(5)]
    for client in talking:
        client.send_messages("x")
    ticks.put("x")
    for client in talking:
        assert client.next_event() == "x"
    for stream in streams:
        assert stream.expect(1) == ["x"]
    with stopping(server):
        for client in talking:
            client.expect_close()
        for stream in streams:
            stream.expect_end()
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-")]

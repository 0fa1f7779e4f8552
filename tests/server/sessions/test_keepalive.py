"""Silent clients: pings, their timeouts, and the heartbeat of event streams."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients, WebSocketClient
from tests.support.handlers import (
    BOTH_KINDS,
    Checkpoint,
    MessageGenerator,
    generator_echo,
    websocket_app,
)
from tests.support.inspection import peers_of, session_of, socket_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close, Ping
from wsframe.progress import unacknowledged
from wsframe.server import App, ConnectionClosed, WebSocket
from wsframe.server.sessions.websocket_session import WebSocketSession
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

SHORT, LONG = 0.1, 60.0
CHECKS = 4  # of the deadlines


def answer_pings(client: WebSocketClient, count: int) -> None:
    for _ in range(count):
        assert client.next_event() == Ping(b"")
        client.send(client.codec.pong(b""))


@pytest.mark.slow
@BOTH_KINDS
def test_a_silent_client_that_answers_pings_stays_connected(
    serve: Serve, clients: Clients, echo: Callable[..., Any]
) -> None:
    server = serve(websocket_app(echo), ping_interval=SHORT, ping_timeout=LONG)
    client = clients.websocket(server, "/echo", answer_pings=False)
    answer_pings(client, 3)
    client.send_messages("still here")
    assert client.next_event() == "still here"


@pytest.mark.slow
def test_a_client_without_a_pong_is_closed_with_the_setting_as_reason(
    serve: Serve, clients: Clients
) -> None:
    ends: Queue[ConnectionClosed] = Queue()

    def wait(ws: WebSocket) -> MessageGenerator:
        try:
            yield
        except ConnectionClosed as end:
            ends.put(end)

    server = serve(websocket_app(wait), ping_interval=SHORT, ping_timeout=0.2, close_timeout=0.2)
    client = clients.websocket(server, "/echo", answer_pings=False)
    assert client.next_event() == Ping(b"")
    assert client.next_event() == Close(1011, "no pong within 0.2 s (ping_timeout)")
    assert ends.get(timeout=TIMEOUT).code == 1011
    # The client does not answer the close frame, either.
    wait_for_disconnects(server)


def test_any_byte_counts_as_life(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = websocket_app(generator_echo, timing=Timing(clock=clock))
    server = serve(app, ping_interval=LONG, ping_timeout=0.0, message_timeout=0)
    client = clients.websocket(server, "/echo", answer_pings=False)
    (peer,) = peers_of(server)
    frame = client.codec.encode("whole")
    for byte in frame[:-1]:
        before = peer.bytes_in
        client.send(bytes([byte]))
        wait_until(lambda: peer.bytes_in > before, "the byte was read")  # noqa: B023
        clock.pass_time(server, LONG / 2)
    client.send(frame[-1:])
    assert client.next_event() == "whole"


def websocket_of(peer: Peer) -> WebSocketSession:
    session = session_of(peer)
    assert isinstance(session, WebSocketSession)
    return session


def look(peer: Peer) -> None:
    """Have the owner act on the deadline of a peer, and wait until it has."""
    done: Queue[None] = Queue()
    peer.loop.call_soon(peer.deadline_passed)
    peer.loop.call_soon(lambda: done.put(None))
    done.get(timeout=TIMEOUT)


@pytest.mark.slow
def test_pings_do_not_wait_for_a_handler_that_blocks(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()

    def block(ws: WebSocket) -> MessageGenerator:
        yield
        held.wait()
        ws.send("done")
        yield

    client = clients.websocket(
        serve(websocket_app(block), ping_interval=SHORT, ping_timeout=LONG),
        "/echo",
        answer_pings=False,
    )
    client.send_messages("block")
    answer_pings(client, 3)
    held.release()
    while (event := client.next_event()) != "done":
        assert event == Ping(b"")


def test_a_client_that_is_not_read_does_not_count_as_silent(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()

    def block(ws: WebSocket) -> MessageGenerator:
        count = 0
        while True:
            message = yield
            held.wait()
            count += len(message)
            ws.send(str(count))

    clock = ManualClock()
    app = websocket_app(block, timing=Timing(clock=clock))
    server = serve(app, ping_interval=LONG, ping_timeout=0.0, message_timeout=LONG)
    client = clients.websocket(server, "/echo", answer_pings=False)
    (peer,) = peers_of(server)
    sending = threading.Thread(target=client.send_messages, args=[bytes(1 << 16)] * 16)
    sending.start()
    wait_until(lambda: not peer.reading, "the client is not read")
    clock.pass_time(server, CHECKS * LONG)
    held.release()
    assert client.expect(16) == [str(number << 16) for number in range(1, 17)]
    sending.join(TIMEOUT)


@pytest.mark.parametrize("option", ["ping_interval", "heartbeat"])
def test_the_limits_can_be_disabled(serve: Serve, clients: Clients, option: str) -> None:
    app = websocket_app(generator_echo)
    app.sse("/stream", source=Queue())
    options: dict[str, Any] = {option: 0, "message_timeout": 0}
    server = serve(app, **options)
    if option == "heartbeat":
        clients.stream(server, "/stream")
    else:
        clients.websocket(server, "/echo", answer_pings=False)
    (peer,) = peers_of(server)
    assert peer.deadline == float("inf")


def test_a_message_has_a_limit_without_pings(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    app = websocket_app(generator_echo, timing=Timing(clock=clock))
    server = serve(app, ping_interval=0, message_timeout=LONG)
    client = clients.websocket(server, "/echo", answer_pings=False)
    (peer,) = peers_of(server)
    before = peer.bytes_in
    client.send(client.codec.encode("incomplete")[:-1])
    wait_until(lambda: peer.bytes_in > before, "the data was read")
    clock.pass_time(server, 2 * LONG)
    close = client.next_event()
    assert isinstance(close, Close)
    assert close.code == 1008
    assert "message_timeout" in close.reason


def test_a_ping_that_finds_the_connection_lost_ends_it(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    ends: Queue[ConnectionClosed] = Queue()

    def wait(ws: WebSocket) -> MessageGenerator:
        try:
            yield
        except ConnectionClosed as end:
            ends.put(end)

    clock = ManualClock()
    app = websocket_app(wait, timing=Timing(clock=clock))
    server = serve(app, ping_interval=LONG)
    clients.websocket(server, "/echo", answer_pings=False)
    (peer,) = peers_of(server)
    sock = socket_of(peer)
    sock.shutdown(socket.SHUT_WR)  # sending the ping fails
    wait_until(lambda: not unacknowledged(sock), "the client has acknowledged everything")
    clock.pass_time(server, 2 * LONG)
    assert ends.get(timeout=TIMEOUT).code == 1006
    assert peer.closed
    assert peer.deadline == float("inf")
    assert not log.records


@pytest.mark.slow
def test_a_silent_stream_gets_comments(serve: Serve, clients: Clients) -> None:
    app = App()
    source: Queue[str] = Queue()
    app.sse("/stream", source=source)
    client = clients.stream(serve(app, heartbeat=0.2), "/stream")
    client.read_opening()
    assert client.receive() == b":\n\n"
    source.put("an event")
    client.read_until(b"data: an event\n\n")
    client.read_until(b":\n\n:\n\n")


def test_a_stream_with_events_gets_no_comments(serve: Serve, clients: Clients) -> None:
    app = App()
    source: Queue[str] = Queue()
    app.sse("/stream", source=source)
    server = serve(app, heartbeat=LONG)
    client = clients.stream(server, "/stream")
    client.read_opening()
    (peer,) = peers_of(server)
    for number in range(CHECKS):
        source.put(str(number))
        assert client.receive().endswith(f"data: {number}\n\n".encode())
        look(peer)
    look(peer)
    assert client.receive() == b":\n\n"

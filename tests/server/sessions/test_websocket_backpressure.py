"""Back-pressure on WebSocket handlers."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from queue import Queue
from select import select

import pytest

from tests.server.sessions.websocket import MIB, Handler
from tests.support.clients import Clients, WebSocketClient, masked
from tests.support.handlers import (
    BOTH_KINDS,
    NO_HANDOFFS,
    Checkpoint,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.inspection import (
    peers_of,
    queued_bytes,
    session_of,
    socket_of,
    wait_for_disconnects,
)
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until, wait_until_stable
from wsframe import Close
from wsframe.frames import Opcode
from wsframe.server import App, ConnectionClosed, Server, WebSocket
from wsframe.server.handoff.loop import READ
from wsframe.server.handoff.task import State
from wsframe.server.sessions.closing import ClosingState
from wsframe.server.sockets.output import HIGH_WATER
from wsframe.testing import ManualClock


def numbered(number: int, size: int = 1 << 14) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


# The maximum that the kernel buffers for one connection; more would be in our memory.
KERNEL = 16 * MIB


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_thread_does_not_wait_for_bytes_that_were_sent(serve: Serve, clients: Clients) -> None:
    """Each message exceeds the limit for waiting, but most are sent before the wait."""
    size, count = 300_000, 500

    def push(ws: WebSocket) -> None:
        for number in range(count):
            ws.send(number.to_bytes(4, "big") + bytes(size))

    client = clients.websocket(serve(websocket_app(push)), "/echo")
    for number in range(count):
        message = client.next_event()
        assert isinstance(message, bytes)
        assert message[:4] == number.to_bytes(4, "big")
        assert len(message) == 4 + size
    assert client.expect_close() == Close(1000)


def test_a_thread_waits_while_its_client_does_not_read(serve: Serve, clients: Clients) -> None:
    sent = 0
    count = 4 * KERNEL >> 14
    done = threading.Event()

    def push(ws: WebSocket) -> None:
        nonlocal sent
        for number in range(count):
            ws.send(numbered(number))
            sent += 1
        done.set()

    server = serve(websocket_app(push))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    wait_until_stable(lambda: sent)
    assert not done.is_set()
    assert 0 < sent < KERNEL >> 14
    assert queued(server) <= 2 * HIGH_WATER
    for number in range(count):
        assert client.next_event() == numbered(number)
    assert done.wait(TIMEOUT)
    assert client.expect_close() == Close(1000)


def leave_in_order(client: WebSocketClient) -> None:
    client.close()


@pytest.mark.parametrize("leave", [WebSocketClient.reset, leave_in_order])
def test_a_blocked_send_raises_when_the_client_leaves(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None]
) -> None:
    ended: Queue[ConnectionClosed] = Queue()
    sent = 0

    def push(ws: WebSocket) -> None:
        nonlocal sent
        try:
            while True:
                ws.send(bytes(1 << 16))
                sent += 1
        except ConnectionClosed as end:
            ended.put(end)

    client = clients.websocket(serve(websocket_app(push)), "/echo", receive_buffer=1 << 16)
    wait_until_stable(lambda: sent)
    leave(client)
    assert ended.get(timeout=TIMEOUT).code == 1006


def queued(server: Server) -> int:
    """Return the unsent bytes in our memory for the only client."""
    (peer,) = peers_of(server)
    return queued_bytes(peer)


@pytest.mark.parametrize("code", [4000, None])
def test_a_blocked_send_raises_when_the_connection_is_closed(
    serve: Serve, clients: Clients, code: int | None
) -> None:
    """It ends by ws.close or a stop, long before the client reads or is disconnected."""
    ended: Queue[ConnectionClosed] = Queue()
    opened: Queue[WebSocket] = Queue()
    sent = 0

    def push(ws: WebSocket) -> None:
        nonlocal sent
        opened.put(ws)
        try:
            while True:
                ws.send(bytes(1 << 16))
                sent += 1
        except ConnectionClosed as end:
            ended.put(end)

    server = serve(websocket_app(push), drain=60, send_timeout=60)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    wait_until_stable(lambda: sent)
    stopping = threading.Thread(target=server.stop)
    if code is None:
        stopping.start()
    else:
        opened.get(timeout=TIMEOUT).close(code)
    assert ended.get(timeout=TIMEOUT).code == (code or 1001)
    # The earlier messages arrive, and then the close frame.
    events = client.expect(sent)
    assert set(events) == {bytes(1 << 16)}
    while (event := client.next_event()) == bytes(1 << 16):
        pass
    assert isinstance(event, Close)
    assert event.code == (code or 1001)
    client.close()
    if code is None:
        stopping.join(TIMEOUT)


def flood(client: WebSocketClient) -> tuple[int, bytes]:
    """Send numbered messages until the socket accepts no more.

    Returns:
        The number of messages that were started, and the unsent rest of the last.
    """
    client.sock.setblocking(False)
    number, rest = 0, b""
    while select([], [client.sock], [], 1.0)[1]:
        if not rest:
            rest = client.codec.encode(numbered(number))
            number += 1
            assert number << 14 < 2 * KERNEL, "the server reads without bound"
        try:
            rest = rest[client.sock.send(rest) :]
        except BlockingIOError:
            continue
    client.sock.settimeout(TIMEOUT)
    return number, rest


def test_a_client_that_floods_a_handler_is_not_read_and_loses_nothing(
    serve: Serve, clients: Clients
) -> None:
    held = Checkpoint()
    received: list[str | bytes] = []

    def hold(ws: WebSocket) -> None:
        held.wait()
        for message in ws:
            if message == "end":
                ws.send(str(len(received)))
            else:
                received.append(message)

    client = clients.websocket(serve(websocket_app(hold)), "/echo")
    client.send_messages("first")
    held.wait_until_reached()
    count, rest = flood(client)
    held.release()
    client.send(rest)
    client.send_messages("end")
    assert client.next_event() == str(count + 1)
    assert received == ["first", *map(numbered, range(count))]
    assert client.leave() == Close(1000)


def test_all_messages_of_a_flood_are_delivered_after_its_client_has_left(
    serve: Serve, clients: Clients
) -> None:
    held = Checkpoint()
    received: Queue[object] = Queue()

    def hold(ws: WebSocket) -> None:
        held.wait()
        for message in ws:
            received.put(message)
        received.put(ws.close_code)

    client = clients.websocket(serve(websocket_app(hold)), "/echo")
    count, rest = flood(client)
    sending = threading.Thread(target=client.send, args=(rest + client.codec.close(4000),))
    sending.start()
    held.release()
    sending.join(TIMEOUT)
    assert [received.get(timeout=TIMEOUT) for _ in range(count)] == [*map(numbered, range(count))]
    assert received.get(timeout=TIMEOUT) == 4000
    assert client.next_event() == Close(4000)
    client.expect_end()


def test_the_answer_to_a_close_is_read_after_a_flood(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()
    opened: Queue[WebSocket] = Queue()

    def hold(ws: WebSocket) -> None:
        opened.put(ws)
        held.wait()

    server = serve(websocket_app(hold), close_timeout=2 * TIMEOUT)
    client = clients.websocket(server, "/echo")
    _, rest = flood(client)
    opened.get(timeout=TIMEOUT).close(4000)
    assert client.next_event() == Close(4000)
    client.send(rest + client.codec.close(4000))
    client.expect_end()  # within TIMEOUT
    held.release()


@BOTH_KINDS
def test_a_client_that_reads_nothing_of_its_echo_is_not_read_and_loses_nothing(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    server = serve(websocket_app(echo))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    count, rest = flood(client)
    assert queued(server) <= 3 * HIGH_WATER
    finishing = threading.Thread(target=client.send, args=(rest,))
    finishing.start()
    for number in range(count):
        assert client.next_event() == numbered(number)
    finishing.join(TIMEOUT)
    client.send_messages("end")
    assert client.next_event() == "end"
    client.leave()


def test_a_close_frame_that_arrives_during_back_pressure_does_not_end_it(
    serve: Serve, clients: Clients
) -> None:
    """The poller can report the close frame in the round of the turn that exceeds the limit."""
    count = 2 * KERNEL >> 15
    handled = 0

    def answer(ws: WebSocket) -> MessageGenerator:
        nonlocal handled
        while True:
            yield
            ws.send(numbered(handled, 1 << 15))
            handled += 1

    server = serve(websocket_app(answer, timing=NO_HANDOFFS), close_timeout=60)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send_messages(*["answer"] * count)
    (peer,) = peers_of(server)
    session = session_of(peer)
    wait_until(lambda: session.state is State.HELD, "the messages wait for the client")
    client.send(client.codec.close(1000))
    before = handled
    peer.loop.call_soon(lambda: peer.ready(READ))
    wait_until(lambda: session.closing is ClosingState.CLIENT_CLOSING, "the close frame is read")
    ManualClock.let_loops_look(server)  # a turn would run meanwhile
    assert (session.state, handled) == (State.HELD, before)
    assert client.expect(count) == [numbered(number, 1 << 15) for number in range(count)]
    assert client.next_event() == Close(1000)
    client.expect_end()


def test_the_flood_of_one_client_does_not_delay_another(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()

    def hold(ws: WebSocket) -> None:
        held.wait()

    app = websocket_app(generator_echo)
    app.websocket("/hold")(hold)
    server = serve(app)
    flooding = clients.websocket(server, "/hold")
    flood(flooding)
    client = clients.websocket(server, "/echo")
    client.send_messages("through")
    assert client.next_event() == "through"
    held.release()


def test_a_visitor_that_does_not_read_is_disconnected(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    visitors: set[WebSocket] = set()
    ends: Queue[int] = Queue()

    def chat(ws: WebSocket) -> MessageGenerator:
        visitors.add(ws)
        try:
            while True:
                message = yield
                for visitor in tuple(visitors):
                    visitor.send(message)
        except ConnectionClosed as end:
            ends.put(end.code)
        finally:
            visitors.remove(ws)

    server = serve(websocket_app(chat))
    slow = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    wait_until(lambda: len(visitors) == 1, "the slow visitor is connected")
    client = clients.websocket(server, "/echo")
    for number in range(KERNEL >> 14):
        client.send_messages(numbered(number))
        assert client.next_event() == numbered(number)
        if not ends.empty():
            break
    assert ends.get(timeout=TIMEOUT) == 1006
    log.expect("too slow", level=30)
    client.send_messages("still here")
    assert client.next_event() == "still here"
    with pytest.raises((ConnectionResetError, EOFError)):
        slow.expect(2 * KERNEL >> 14)


def test_a_client_that_does_not_answer_the_close_frame_is_disconnected(
    serve: Serve, clients: Clients
) -> None:
    def leave(ws: WebSocket) -> None:
        ws.close()

    server = serve(websocket_app(leave), close_timeout=0.2)
    client = clients.websocket(server, "/echo")
    assert client.next_event() == Close(1000)
    assert client.sock.recv(1) == b""
    wait_for_disconnects(server)


def test_a_slow_handler_does_not_delay_the_reply_to_a_close_frame(
    serve: Serve, clients: Clients
) -> None:
    held = Checkpoint()
    ended: Queue[int] = Queue()

    def hold(ws: WebSocket) -> None:
        held.wait()
        try:
            ws.send("too late")
        except ConnectionClosed as end:
            ended.put(end.code)

    client = clients.websocket(serve(websocket_app(hold), close_timeout=0.2), "/echo")
    assert client.leave(4000) == Close(4000)
    held.release()
    assert ended.get(timeout=TIMEOUT) == 4000


@BOTH_KINDS
def test_a_client_that_closes_and_leaves_at_once_ends_with_its_code(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    held = Checkpoint()
    ended: Queue[int] = Queue()

    def plain(ws: WebSocket) -> None:
        held.wait()
        assert list(ws) == ["last words"]
        ended.put(ws.close_code or 0)

    def generator(ws: WebSocket) -> MessageGenerator:
        try:
            assert (yield) == "last words"
            yield
        except ConnectionClosed as end:
            ended.put(end.code)

    server = serve(websocket_app(plain if echo is plain_echo else generator))
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, "last words") + masked(Opcode.CLOSE, b"\x0f\xa0"))
    client.close()
    wait_for_disconnects(server)
    held.release()
    assert ended.get(timeout=TIMEOUT) == 4000


def test_a_client_that_half_closes_still_gets_the_messages_sent_before(
    serve: Serve, clients: Clients
) -> None:
    client = clients.websocket(serve(websocket_app(generator_echo)), "/echo")
    client.send_messages(bytes(MIB), bytes(MIB))
    client.half_close()
    assert client.expect(2) == [bytes(MIB), bytes(MIB)]
    client.expect_end()


def test_sockets_send_at_once(serve: Serve, clients: Clients) -> None:
    """With Nagle's algorithm a second small message would wait for an acknowledgement."""
    server = serve(websocket_app(generator_echo))
    clients.websocket(server, "/echo")
    peers = tuple(peers_of(server))
    assert len(peers) == 1
    assert isinstance(socket_of(peers[0]), socket.socket)
    assert socket_of(peers[0]).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_app_may_have_many_kinds_of_handlers(serve: Serve, clients: Clients) -> None:
    app = App()
    app.websocket("/plain")(plain_echo)
    app.websocket("/generator")(generator_echo)
    server = serve(app)
    both = [clients.websocket(server, path) for path in ("/plain", "/generator")]
    for number in range(20):
        for client in both:
            client.send_messages(str(number))
    for client in both:
        assert client.expect(20) == list(map(str, range(20)))


@BOTH_KINDS
def test_a_client_that_reads_nothing_is_disconnected_in_time(
    serve: Serve, clients: Clients, log: ServerLog, echo: Handler
) -> None:
    ended: Queue[int] = Queue()

    def plain(ws: WebSocket) -> None:
        try:
            while True:
                ws.send(bytes(1 << 16))
        except ConnectionClosed as end:
            ended.put(end.code)

    def generator(ws: WebSocket) -> MessageGenerator:
        ws.send(bytes(1 << 24))
        try:
            yield from generator_echo(ws)
        except ConnectionClosed as end:
            ended.put(end.code)

    app = websocket_app(plain if echo is plain_echo else generator, "/push")
    app.websocket("/echo")(echo)
    server = serve(app, send_timeout=0.2)
    clients.websocket(server, "/push", receive_buffer=1 << 16)
    other = clients.websocket(server, "/echo")
    assert ended.get(timeout=TIMEOUT) == 1006
    log.expect("for 0.2 s (send_timeout)", logging.WARNING)
    other.send_messages("still here")
    assert other.next_event() == "still here"

"""Back-pressure on handlers that block."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from queue import Queue

import pytest

from tests.server.handoff.blocking import KERNEL, MIB, sessions
from tests.support.clients import Clients, masked
from tests.support.handlers import (
    NO_HANDOFFS,
    Checkpoint,
    MessageGenerator,
    generator_echo,
    websocket_app,
)
from tests.support.inspection import queued_bytes, websocket_session
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until, wait_until_stable
from wsframe import Close, ConnectionClosed
from wsframe.frames import Opcode
from wsframe.server import WebSocket
from wsframe.server.handoff.task import BUSY, HELD
from wsframe.server.sockets.output import HIGH_WATER
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing


def queued(peer: Peer) -> int:
    """Return the number of bytes that wait for a client in our own memory."""
    return queued_bytes(peer)


def test_a_sender_without_the_loop_waits_for_a_client_that_does_not_read(
    serve: Serve, clients: Clients
) -> None:
    count, sent, held = 2 * KERNEL >> 16, 0, Checkpoint()

    def push(ws: WebSocket) -> MessageGenerator:
        nonlocal sent
        yield
        held.wait()
        for number in range(count):
            ws.send(number.to_bytes(4, "big") * (1 << 14))
            sent += 1
        yield from generator_echo(ws)

    server = serve(websocket_app(push))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send_messages("block")
    held.wait_until_reached()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.send_messages("answered at last")
    held.release()
    wait_until_stable(lambda: sent)
    assert 0 < sent < count
    assert queued(session.peer) <= 2 * HIGH_WATER
    for number in range(count):
        assert client.next_event() == number.to_bytes(4, "big") * (1 << 14)
    assert client.next_event() == "answered at last"


def test_a_sender_on_the_loop_does_not_wait_but_receives_no_more_until_the_client_reads(
    serve: Serve, clients: Clients
) -> None:
    seen: Queue[str | bytes] = Queue()

    def push(ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            seen.put(message)
            ws.send(bytes(KERNEL))
            ws.send("end")

    server = serve(websocket_app(push, timing=NO_HANDOFFS))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send_messages("one", "two")
    assert seen.get(timeout=TIMEOUT) == "one"
    wait_until(lambda: sessions(server, HELD), "the second one has to wait")
    (session,) = sessions(server)
    assert session.work == ["two"]
    assert not session.peer.reading
    client.send_messages("three")
    assert seen.empty()
    for message in ("two", "three", None):
        assert client.expect(2) == [bytes(KERNEL), "end"]
        if message is not None:
            assert seen.get(timeout=TIMEOUT) == message
    wait_until(lambda: not session.peer.stop_turn, "the next turn may be as long as any")
    assert client.leave() == Close(1000)


def test_messages_that_wait_for_the_client_are_dropped_when_another_thread_closes(
    serve: Serve, clients: Clients
) -> None:
    seen: Queue[object] = Queue()

    def push(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                seen.put((yield))
                ws.send(bytes(KERNEL))
        except ConnectionClosed as end:
            seen.put(end.code)

    server = serve(websocket_app(push, timing=NO_HANDOFFS))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send_messages("one", "two")
    wait_until(lambda: sessions(server, HELD), "the second one has to wait")
    session = sessions(server)[0]
    WebSocket(session, session.request).close(4000)
    assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["one", 4000]
    assert client.expect(2) == [bytes(KERNEL), Close(4000)]


def test_many_answers_to_one_read_take_little_memory_and_a_stuck_client_is_disconnected(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    answered, ends = 0, Queue[int]()
    most = 0

    def answer(ws: WebSocket) -> MessageGenerator:
        nonlocal answered, most
        try:
            while True:
                yield
                answered += 1
                ws.send(bytes(1 << 12))
                most = max(most, queued(websocket_session(ws).peer))
        except ConnectionClosed as end:
            ends.put(end.code)
        finally:
            ends.put(0)

    server = serve(websocket_app(answer, timing=Timing(sweep_interval=0.01)), send_timeout=0.2)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send(masked(Opcode.TEXT, "x") * 30_000)
    assert ends.get(timeout=TIMEOUT) == 1006
    assert ends.get(timeout=TIMEOUT) == 0
    log.expect("acknowledged no data", logging.WARNING)
    assert answered << 12 < KERNEL
    assert most <= 3 * HIGH_WATER
    stop_within(server, TIMEOUT)
    assert ends.empty()


def test_many_answers_and_the_end_of_one_read_all_arrive(serve: Serve, clients: Clients) -> None:
    """The turn ends early because it sends so much; the end follows the remaining messages."""
    ended = threading.Event()

    def answer(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                message = yield
                ws.send(str(message) * 5_000)
        finally:
            ended.set()

    client = clients.websocket(serve(websocket_app(answer)), "/echo")
    numbers = [str(number % 10) for number in range(100)]
    frames = [masked(Opcode.TEXT, number) for number in numbers]
    client.send(b"".join(frames) + masked(Opcode.CLOSE, b"\x0f\xa0"))
    assert client.expect(100) == [number * 5_000 for number in numbers]
    assert client.next_event() == Close(4000)
    client.expect_end()
    assert ended.wait(TIMEOUT)


def test_a_turn_that_loses_the_loop_leaves_its_messages_in_order(
    serve: Serve, clients: Clients
) -> None:
    """It ends early for the data sent on the loop; its remaining messages precede later ones."""
    held = Checkpoint()
    # Much for a turn, but little enough that the client is still read.
    much = bytes(HIGH_WATER + 1024)

    def handler(ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            if message == "block":
                ws.send(much)
                held.wait()
            ws.send(message)

    server = serve(websocket_app(handler))
    client = clients.websocket(server, "/echo")
    client.send_messages("block", "left", "too")
    held.wait_until_reached()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.send_messages("came", "since")
    wait_until(lambda: session.work == ["came", "since"], "they are read")
    held.release()
    assert client.expect(6) == [much, "block", "left", "too", "came", "since"]
    wait_until(lambda: not session.peer.stop_turn, "the next turn may be as long as any")


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "reads nothing"])
def test_a_client_that_closed_is_sent_no_more_until_it_reads(
    serve: Serve, clients: Clients, reads: bool
) -> None:
    seen: Queue[str | int | bytes] = Queue()

    def push(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                seen.put((yield))
                ws.send(bytes(KERNEL))
        except ConnectionClosed as end:
            seen.put(end.code)

    server = serve(
        websocket_app(push, timing=replace(NO_HANDOFFS, sweep_interval=0.01)),
        close_timeout=60 if reads else 0.2,
    )
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send(masked(Opcode.TEXT, "x") * 3 + masked(Opcode.CLOSE, b"\x0f\xa0"))
    assert seen.get(timeout=TIMEOUT) == "x"
    if reads:
        wait_until(lambda: sessions(server, HELD), "the second one has to wait")
        assert seen.empty()
        assert client.expect(3) == [bytes(KERNEL)] * 3
        assert client.next_event() == Close(4000)
        client.expect_end()
        assert [seen.get(timeout=TIMEOUT) for _ in range(3)] == ["x", "x", 4000]
    else:
        # The second answer is refused.
        assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["x", 4000]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["loop", "thread"])
def test_one_answer_can_have_any_size(serve: Serve, clients: Clients, where: str) -> None:
    answer = bytes(range(256)) * (64 * MIB // 256)

    def send(ws: WebSocket) -> MessageGenerator:
        yield
        ws.send(answer)
        ws.send("end")
        yield

    server = serve(websocket_app(send, timing=NO_HANDOFFS, blocking=where == "thread"))
    client = clients.websocket(server, "/echo")
    client.send_messages("x")
    assert client.next_event() == answer
    assert client.next_event() == "end"

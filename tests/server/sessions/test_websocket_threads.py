"""WebSockets that several threads use."""

from __future__ import annotations

import threading

import pytest

from tests.server.sessions.websocket import Handler
from tests.support.clients import Clients, masked
from tests.support.handlers import (
    BOTH_KINDS,
    NO_HANDOFFS,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.serving import Serve
from tests.support.threads import NewThreads
from tests.support.waiting import TIMEOUT
from wsframe.frames import Opcode
from wsframe.server import ConnectionClosed, WebSocket


@pytest.mark.unmeasured
@pytest.mark.parametrize("size", [10, 5_000])
@BOTH_KINDS
def test_frames_of_many_threads_never_mix_and_keep_each_threads_order(
    serve: Serve, clients: Clients, echo: Handler, size: int
) -> None:
    senders, count = 6, 300

    def push(ws: WebSocket, name: int) -> None:
        for number in range(count):
            ws.send(bytes([name]) * (size + number) + number.to_bytes(2, "big"))

    def begin(ws: WebSocket) -> list[threading.Thread]:
        threads = [threading.Thread(target=push, args=(ws, name)) for name in range(senders)]
        for thread in threads:
            thread.start()
        return threads

    def plain(ws: WebSocket) -> None:
        for thread in begin(ws):
            thread.join()
        plain_echo(ws)

    def generator(ws: WebSocket) -> MessageGenerator:
        begin(ws)
        yield from generator_echo(ws)

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    client.send_messages("in between")
    numbers = dict.fromkeys(range(senders), 0)
    for message in client.expect(senders * count + 1):
        if message == "in between":
            continue
        assert isinstance(message, bytes)
        name, number = message[0], int.from_bytes(message[-2:], "big")
        assert message == bytes([name]) * (size + number) + number.to_bytes(2, "big")
        assert numbers[name] == number
        numbers[name] += 1
    assert set(numbers.values()) == {count}
    client.leave()


@pytest.mark.slow
@pytest.mark.unmeasured
def test_nothing_follows_the_close_frame_while_many_threads_send(
    serve: Serve, clients: Clients
) -> None:
    threads: list[threading.Thread] = []

    def push(ws: WebSocket) -> None:
        while True:
            try:
                ws.send("x")
            except ConnectionClosed:
                return

    def pushed(ws: WebSocket) -> MessageGenerator:
        for _ in range(2):
            threads.append(threading.Thread(target=push, args=(ws,)))
            threads[-1].start()
        yield
        ws.close()
        yield

    server = serve(websocket_app(pushed))
    for _ in range(10):
        client = clients.websocket(server, "/echo", first=masked(Opcode.TEXT, "close"))
        stream = client.receive()
        while data := client.sock.recv(1 << 16):
            stream += data
            if b"\x88\x02\x03\xe8" in stream[-len(data) - 3 :]:
                break
        # All are b"\x81\x01x" but the last.
        end = stream.index(b"\x88")
        assert stream[:end] == b"\x81\x01x" * (end // 3)
        client.send(client.codec.close())
        assert stream[end:] + client.read_to_end() == b"\x88\x02\x03\xe8"
        client.close()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_a_connection_that_waits_holds_no_thread(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo, timing=NO_HANDOFFS))
    threads = NewThreads()
    idle = [clients.websocket(server, "/echo") for _ in range(200)]
    for client in idle:
        client.send_messages("one")
    for client in idle:
        assert client.next_event() == "one"
    assert not threads
    for client in idle[::2]:
        client.leave()
    for client in idle[1::2]:
        client.send_messages("two")
        assert client.next_event() == "two"
    assert not threads

"""Slow clients, busy applications, and clients that disconnect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.clients import Clients, masked
from tests.support.inspection import (
    is_ending,
    late_pong,
    pong_timer,
    reads_ahead,
    waiting_messages,
)
from tests.support.uvicorn_server import Message, Receive, Send, UvicornServer
from tests.support.waiting import wait_until, wait_until_stable
from wsframe import Close, Opcode, Ping, Pong
from wsframe.uvicorn import Timing

from .apps import Ending, Gate, echo, flood
from .conftest import Serve

# Read ahead at once.
SOON = Timing(read_ahead_after=0.0)


class Busy:
    """An application that is busy with its first message until the test opens its gate."""

    def __init__(self) -> None:
        self.busy, self.gate = Gate(), Gate()
        self.received: list[str] = []
        self.last: Message = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        self.busy.open()
        await self.gate.passed()
        while (message := await receive())["type"] == "websocket.receive":
            self.received.append(message.get("text") or str(len(message["bytes"])))
            await send({"type": "websocket.send", "text": self.received[-1]})
        self.last = message


def connection_of(server: UvicornServer) -> Any:
    """Return the only connection."""
    (connection,) = server.connections
    return connection


def test_the_application_waits_while_the_client_reads_nothing(
    serve: Serve, clients: Clients
) -> None:
    sent = 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(1000):
            await send({"type": "websocket.send", "bytes": bytes(1 << 16)})
            sent += 1
        await send({"type": "websocket.close"})

    client = clients.websocket(serve(app), "/", receive_buffer=8192)
    wait_until(lambda: sent, "data was sent")
    wait_until_stable(lambda: sent)
    assert sent < 200
    for _ in range(1000):
        assert client.next_event() == bytes(1 << 16)
    assert client.expect_close() == Close(1000)


def test_a_reset_ends_a_send_that_waits(serve: Serve, clients: Clients) -> None:
    ended = Gate()
    sent = 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(1 << 16)})
                sent += 1
        except OSError:
            ended.open()

    client = clients.websocket(serve(app), "/", receive_buffer=8192)
    wait_until_stable(lambda: sent)
    client.reset()
    ended.wait()


def test_a_client_that_reads_nothing_is_aborted_after_the_close_frame(
    serve: Serve, clients: Clients
) -> None:
    connected = Gate()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connected.open()
        await send({"type": "websocket.send", "bytes": bytes(8 << 20)})
        await send({"type": "websocket.close"})  # waits

    server = serve(app, Timing(flush_timeout=0.3), ws_ping_interval=0.05, ws_ping_timeout=0.05)
    clients.websocket(server, "/", receive_buffer=8192)
    connected.wait()
    connection = connection_of(server)
    wait_until(lambda: is_ending(connection), "the client is found dead")
    server.stop()  # it waits for the end of the connection
    assert not server.connections
    assert not server.tasks


@pytest.mark.parametrize("stopped", [False, True])
def test_pings_of_a_client_that_reads_nothing_are_answered_later_and_once(
    serve: Serve, clients: Clients, stopped: bool
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "bytes": bytes(8 << 20)})
        await receive()

    server = serve(app)
    client = clients.websocket(server, "/", receive_buffer=8192)
    client.send_messages("begin")
    connection = connection_of(server)
    wait_until(
        lambda: server.call(lambda: connection.transport.get_write_buffer_size() > 1 << 20),
        "more than 1 MiB is unsent",
    )
    for number in range(100):
        client.send(client.codec.ping(b"%d" % number))
    # The pings have been received when the pong of the last one is remembered.
    wait_until(lambda: late_pong(connection) == b"99", "all pings were received")
    if stopped:
        server.begin_stop()
        wait_until(lambda: connection.close_timer is not None, "the server stops")
    assert client.next_event() == bytes(8 << 20)
    if stopped:
        assert client.expect_close() == Close(1012)
    else:
        assert client.next_event() == Pong(b"99")
        client.send_messages("end")
        client.expect_end()


def test_a_client_is_not_read_while_a_message_waits(serve: Serve, clients: Clients) -> None:
    app = Busy()
    server = serve(app)
    client = clients.websocket(server, "/")
    client.send_messages("first")
    app.busy.wait()
    with client.timeout(0.3):
        assert isinstance(flood(client, masked(Opcode.BINARY, bytes(100_000))), TimeoutError)
    connection = connection_of(server)
    wait_until(lambda: connection.read_paused, "the connection is not read")
    app.gate.open()
    client.half_close()
    for _ in range(10):
        assert client.next_event() == "100000"


def test_a_busy_application_that_has_taken_all_messages_notices_the_end(
    serve: Serve, clients: Clients
) -> None:
    errors: list[OSError] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await receive()
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.005)
        except OSError as error:
            errors.append(error)

    server = serve(app)
    client = clients.websocket(server, "/")
    client.send_messages("a", "b")
    assert client.next_event() == "tick"
    client.reset()
    wait_until(lambda: errors, "the application has noticed the end")


def test_pings_are_answered_while_the_application_is_busy_for_long(
    serve: Serve, clients: Clients
) -> None:
    app = Busy()
    client = clients.websocket(serve(app, SOON), "/")
    client.send_messages("first")
    app.busy.wait()
    client.send_messages("second", "third")
    client.send(client.codec.ping(b"alive?"))
    assert client.next_event() == Pong(b"alive?")
    app.gate.open()
    assert client.expect(2) == ["second", "third"]
    client.send_messages("fourth")
    assert client.next_event() == "fourth"


def test_a_client_that_disconnects_is_noticed_while_the_application_is_busy(
    serve: Serve, clients: Clients
) -> None:
    app = Busy()
    server = serve(app, SOON)
    client = clients.websocket(server, "/")
    client.send_messages("first")
    app.busy.wait()
    client.send_messages("second")
    client.half_close()
    wait_until(lambda: not server.connections, "the end was noticed")
    app.gate.open()
    wait_until(lambda: not server.tasks, "the application has ended")


def test_only_so_many_messages_are_read_ahead(serve: Serve, clients: Clients) -> None:
    app = Busy()
    server = serve(app, SOON, ws_max_queue=3)
    client = clients.websocket(server, "/")
    client.send_messages("first")
    app.busy.wait()
    connection = connection_of(server)
    for number, paused in enumerate((False, False, True)):
        client.send_messages(f"{number}")
        wait_until(
            lambda: len(waiting_messages(connection)) == number + 1,  # noqa: B023
            "the message was received",
        )
        wait_until(lambda: connection.read_paused is paused, f"read_paused is {paused}")  # noqa: B023
    app.gate.open()
    assert client.expect(3) == ["0", "1", "2"]
    assert not connection.read_paused


def test_only_so_many_bytes_are_read_ahead(serve: Serve, clients: Clients) -> None:
    app = Busy()
    server = serve(app, SOON)
    client = clients.websocket(server, "/")
    client.send_messages("first")
    app.busy.wait()
    client.send_messages(bytes(300_000))
    connection = connection_of(server)
    wait_until(lambda: len(waiting_messages(connection)) == 1, "the message was received")
    wait_until(lambda: reads_ahead(connection), "the connection reads ahead")
    assert connection.read_paused
    app.gate.open()
    assert client.next_event() == "300000"


def test_two_tasks_may_receive(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        tasks = [asyncio.create_task(receive()) for _ in range(5)]
        await asyncio.sleep(0)
        tasks.pop(2).cancel()
        tasks.pop(0).cancel()  # the others wait for what wakes this one
        await send({"type": "websocket.send", "text": "ready"})
        results = await asyncio.gather(*tasks)
        kinds = sorted(result.get("text", "the end") for result in results)
        await send({"type": "websocket.send", "text": " ".join(kinds)})

    client = clients.websocket(serve(app), "/")
    assert client.next_event() == "ready"
    client.send_messages("a")
    client.send_messages("b")
    client.send_messages("c")
    assert client.next_event() == "a b c"


def test_a_receive_that_times_out_loses_no_message(serve: Serve, clients: Clients) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.001)
        await send({"type": "websocket.send", "text": "ready"})
        message = await receive()
        await send({**message, "type": "websocket.send"})

    client = clients.websocket(serve(app), "/")
    assert client.next_event() == "ready"
    client.send_messages("a")
    assert client.next_event() == "a"


@pytest.mark.slow
def test_a_thousand_clients_leave_nothing_behind(
    serve: Serve, clients: Clients, high_file_limit: None
) -> None:
    server = serve(echo, backlog=1024)
    opened = [clients.websocket(server, "/") for _ in range(1000)]
    for number, client in enumerate(opened):
        client.send_messages(f"{number}")
    for number, client in enumerate(opened):
        assert client.next_event() == f"{number}"
    assert len(server.connections) == server.tasks == 1000
    for number, client in enumerate(opened):
        if number % 2:
            client.reset()
        else:
            assert client.leave().code == 1000
    wait_until(lambda: not server.connections, "no connection remains")
    wait_until(lambda: not server.tasks, "no task remains")


def test_a_ping_is_answered_and_the_connection_stays(serve: Serve, clients: Clients) -> None:
    server = serve(echo, ws_ping_interval=0.01, ws_ping_timeout=5.0)
    client = clients.websocket(server, "/", answer_pings=False)
    payloads = set()
    for _ in range(5):
        ping = client.next_event()
        assert isinstance(ping, Ping)
        client.send(client.codec.pong(b"unasked") + client.codec.pong(ping.payload))
        payloads.add(ping.payload)
    assert len(payloads) == 5
    assert client.leave() == Close(1000)


def test_a_client_without_a_pong_is_closed_with_1011(serve: Serve, clients: Clients) -> None:
    app = Ending()
    server = serve(app, ws_ping_interval=0.01, ws_ping_timeout=0.01)
    client = clients.websocket(server, "/", answer_pings=False)
    assert isinstance(client.next_event(), Ping)
    assert client.next_event() == Close(1011, "keepalive ping timeout")
    client.expect_end()
    assert app.end() == {"type": "websocket.disconnect", "code": 1006}


def test_without_an_interval_there_are_no_pings(serve: Serve, clients: Clients) -> None:
    server = serve(echo, ws_ping_interval=None)
    client = clients.websocket(server, "/")
    client.send_messages("a")
    assert client.next_event() == "a"
    assert connection_of(server).ping_timer is None


def test_pings_without_a_timeout_are_only_sent(serve: Serve, clients: Clients) -> None:
    server = serve(echo, ws_ping_interval=0.01, ws_ping_timeout=None)
    client = clients.websocket(server, "/", answer_pings=False)
    assert all(isinstance(event, Ping) for event in client.expect(5))
    assert client.leave() == Close(1000)


def test_a_client_that_is_not_read_is_not_found_dead(serve: Serve, clients: Clients) -> None:
    app = Busy()
    server = serve(app, ws_ping_interval=0.02, ws_ping_timeout=0.02)
    client = clients.websocket(server, "/", answer_pings=False)
    client.send_messages("first")
    app.busy.wait()
    client.send_messages("second")
    connection = connection_of(server)
    wait_until(lambda: connection.read_paused, "the connection is not read")
    ping = client.next_event()
    assert isinstance(ping, Ping)
    first = pong_timer(connection)
    wait_until(lambda: pong_timer(connection) is not first, "the time has passed")
    second = pong_timer(connection)
    assert second is not None
    wait_until(lambda: pong_timer(connection) is not second, "the time has passed")
    client.send(client.codec.pong(ping.payload))
    app.gate.open()
    assert client.next_event() == "second"

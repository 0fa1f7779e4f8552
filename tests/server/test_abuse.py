"""Valid but excessive traffic: slow or silent clients, and far too many of them.

The memory and the files of the server process are measured; it must release them.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import Client, WebSocketClient, get, masked, upgrade
from tests.support.memory import Growth, at_most
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until
from wsframe import Close, Opcode

pytestmark = [
    pytest.mark.unmeasured,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="no other process's peak is known"),
]

PROGRAM = """
from threading import Event
from wsframe.server import App

app, released = App(), Event()
app.page("/", "the page")

@app.websocket("/plain")
def plain(ws):
    for message in ws:
        ws.send(message)

@app.websocket("/generator")
@app.websocket("/deflate", deflate=True)
def generator(ws):
    while True:
        ws.send((yield))

@app.websocket("/stuck/plain")
def stick(ws):
    released.wait()
    ws.send(f"{sum(1 for _ in iter(ws.receive, 'enough'))}")

@app.websocket("/stuck/generator")
def stick_at_yield(ws):
    count = 0
    while (yield) != "enough":
        released.wait()
        count += 1
    ws.send(f"{count}")

@app.websocket("/free")
def free(ws):
    released.set()
    yield from generator(ws)
"""

MIB = 1 << 20
# The memory of a connection: 256 KiB of data that wait for the handler and the same for the client,
# the objects made of one read of the same size, and a copy.
BOUND = 3 * MIB
MANY = 100_000
CROWD = 500

Start: TypeAlias = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path, high_file_limit: None) -> Iterator[Start]:
    """Return a function that starts the program with options and a high limit of files."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = ("-m", "wsframe.server", "program:app", "--port", "0")
    more = ("--max-connections", f"{2 * CROWD}", "--max-handshakes-per-address", f"{2 * CROWD}")
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(
            ServerProcess(*command, *more, *options, directory=tmp_path)
        )


@pytest.fixture
def stack(start: Start) -> Iterator[ExitStack]:
    """A stack that closes the clients before the server is killed."""
    with ExitStack() as stack:
        yield stack


def talker(stack: ExitStack, server: ServerProcess, path: str = "/generator") -> WebSocketClient:
    """Return a client that has received an answer."""
    client = WebSocketClient(server.port, path)
    stack.callback(client.close)
    talk(client)
    return client


def talk(client: WebSocketClient) -> None:
    """Exchange a message, after which the server could read earlier data of other clients."""
    client.send_messages("hello")
    assert client.next_event() == "hello"


def files(server: ServerProcess) -> int:
    """Return the number of open files of the server."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def assert_given_back(server: ServerProcess, crowd: Callable[[], None], size: int) -> None:
    """Check that a crowd's memory and files are released: four need little more than one."""
    before = files(server)
    with Growth(server.pid) as growth:
        for _ in range(4):
            crowd()
            wait_until(lambda: files(server) <= before, "the files of ended connections are closed")
    assert growth.size < at_most(size)


# Slow and silent ----------------------------------------------------------------------------------


def test_thousands_of_silent_connections_do_not_stop_others(start: Start) -> None:
    server = start("--handshake-timeout", "1")
    begun = (b"", b"G", get("/")[:-1], upgrade("/plain")[:-1])

    def crowd() -> None:
        with ExitStack() as stack:
            visitor = talker(stack, server)
            silent = []
            for number in range(CROWD):
                silent.append(Client(server.port))
                stack.callback(silent[-1].close)
                silent[-1].send(begun[number % len(begun)])
                if number % 100 == 0:
                    talk(visitor)
            talker(stack, server)
            for client in silent:
                assert client.read_to_end() == b""
            talk(visitor)

    # Seen: 2.6 KiB, however often.
    assert_given_back(server, crowd, CROWD * 8 << 10)


def test_stalled_and_dripping_tls_handshakes_do_not_stop_others(
    start: Start, stack: ExitStack, tmp_path: Path, certificates: Certificates
) -> None:
    certificates.write(tmp_path)
    server = start("--cert", "both.pem", "--handshake-timeout", "1")
    hello = ssl.MemoryBIO()
    handshake = certificates.client.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    flight = hello.read()

    def crowd() -> None:
        with ExitStack() as stack:
            stopped = []
            for number in range(CROWD // 4):
                stopped.append(Client(server.port))
                stack.callback(stopped[-1].close)
                stopped[-1].send(flight[: number % len(flight)])
            for client in stopped:
                assert client.read_to_end() == b""

    assert_given_back(server, crowd, CROWD // 4 * 96 << 10)  # seen: 36 KiB for one
    client = Client(server.port)
    stack.callback(client.close)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for byte in flight:
            client.send(bytes([byte]))
            time.sleep(0.01)
    visitor = WebSocketClient(server.port, "/generator", tls=certificates.client)
    stack.callback(visitor.close)
    talk(visitor)


def test_frames_sent_byte_by_byte_take_little_memory(start: Start, stack: ExitStack) -> None:
    """No time limit ends the connections, and other clients are not delayed."""
    server = start("--handshake-timeout", "1", "--send-timeout", "1", "--close-timeout", "1")
    visitor = talker(stack, server)
    slow = [talker(stack, server, ("/plain", "/generator")[number % 2]) for number in range(100)]
    large = masked(Opcode.BINARY, bytes(MIB))
    small = masked(Opcode.TEXT, "slowly")
    for client in slow[:50]:
        client.send(large[:14])  # its head
    with Growth(server.pid) as growth:
        for place in range(len(small) - 1):
            for client in slow[:50]:
                client.send(b"\0")
            for client in slow[50:]:
                client.send(small[place : place + 1])
            talk(visitor)
    assert growth.size < at_most(MIB)
    late = Client(server.port)
    stack.callback(late.close)
    assert late.read_to_end() == b""  # the clocks of the others have run out, too
    for client in slow[50:]:
        client.send(small[-1:])
        assert client.next_event() == "slowly"


# Floods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.TEXT])
@pytest.mark.parametrize("path", ["/plain", "/generator"])
def test_a_client_that_floods_and_reads_nothing_is_disconnected(
    start: Start, stack: ExitStack, path: str, opcode: Opcode
) -> None:
    server = start("--send-timeout", "0.5")
    visitor = talker(stack, server)
    before = files(server)
    block = masked(opcode, b"x" * 125) * 100_000
    with Growth(server.pid) as growth:
        client = WebSocketClient(server.port, path, receive_buffer=1 << 16)
        stack.callback(client.close)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            for _ in range(10):
                client.send(block)
        talk(visitor)
    assert growth.size < at_most(BOUND)
    wait_until(lambda: files(server) <= before, "the file of the connection is closed")


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
def test_thousands_of_short_connections_leave_nothing_behind(
    start: Start, leave: Callable[[Client], None]
) -> None:
    server = start()
    said = (b"", b"GET / HT", get("/"), upgrade("/plain"), upgrade("/generator") + b"\x81")

    def crowd() -> None:
        with ExitStack() as stack:
            visitor = talker(stack, server)
            for number in range(CROWD):
                client = Client(server.port)
                stack.callback(client.close)
                client.send(said[number % len(said)])
                leave(client)
                if number % 100 == 0:
                    talk(visitor)

    assert_given_back(server, crowd, 10 * MIB)  # seen: 6 MiB, most of it for 64 threads


def test_messages_in_fragments_of_a_byte_take_little_memory(start: Start, stack: ExitStack) -> None:
    server = start()
    visitor = talker(stack, server)
    clients = [talker(stack, server) for _ in range(5)]
    allowed = MIB // 16
    fragments = masked(Opcode.CONTINUATION, b"x", fin=False) * (allowed - 1)
    with Growth(server.pid) as growth:
        for client in clients:
            client.send(masked(Opcode.BINARY, b"x", fin=False) + fragments)
            talk(visitor)
        for client in clients[1:]:
            client.send(masked(Opcode.CONTINUATION, b"x"))
            close = client.next_event()
            assert close == Close(1009, f"a message in more fragments than the limit of {allowed}")
    assert growth.size < at_most(len(clients) * MIB + BOUND)
    clients[0].close()
    talk(visitor)


@pytest.mark.parametrize("path", ["/plain", "/generator", "/deflate"])
def test_empty_messages_take_little_memory(start: Start, stack: ExitStack, path: str) -> None:
    server = start()
    visitor = talker(stack, server)
    client = talker(stack, server, path)
    with Growth(server.pid) as growth:
        for _ in range(2):
            client.send(masked(Opcode.TEXT, b"") * 20_000)
            talk(visitor)
            assert client.expect(20_000) == [""] * 20_000
    assert growth.size < at_most(BOUND)


@pytest.mark.parametrize("path", ["/stuck/plain", "/stuck/generator"])
def test_empty_messages_for_a_blocked_handler_take_little_memory(
    start: Start, stack: ExitStack, path: str
) -> None:
    server = start()
    visitor = talker(stack, server)
    client = WebSocketClient(server.port, path)
    stack.callback(client.close)
    with Growth(server.pid) as growth:
        client.send(masked(Opcode.TEXT, b"") * MANY)
        for _ in range(200):  # in each of these turns the server reads the first one, if it may
            talk(visitor)
        talker(stack, server, "/free")
        client.send_messages("enough")
        assert client.next_event() == f"{MANY}"
    assert growth.size < at_most(BOUND)

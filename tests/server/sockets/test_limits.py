"""Limits on connections: of the server, of one address, and of open files."""

from __future__ import annotations

import errno
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from logging import WARNING
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, WebSocketClient, get, upgrade
from tests.support.handlers import generator_echo, websocket_app
from tests.support.inspection import peers_of
from tests.support.log import ServerLog
from tests.support.processes import ServerProcess
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe import HandshakeError
from wsframe.server import App, Server
from wsframe.server.sockets import admission
from wsframe.server.sockets.admission import LINGERING
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock


def page_app(timing: Timing | None = None) -> App:
    app = websocket_app(generator_echo, timing=timing)
    app.page("/", "hello")
    return app


def assert_no_room(client: Client) -> None:
    """Check that the server answers 503 before a request, and closes."""
    answer = client.answer()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


def count(server: Server) -> int:
    """Return the number of connections, including refused ones."""
    return len(peers_of(server))


def echoes(client: WebSocketClient) -> None:
    client.send_messages("hello")
    assert client.next_event() == "hello"


# Of the server ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loops", [1, 3])
def test_a_connection_beyond_max_connections_is_answered_with_503(
    serve: Serve, clients: Clients, log: ServerLog, loops: int
) -> None:
    server = serve(page_app(), max_connections=4, loops=loops)
    inside = [clients.websocket(server, "/echo") for _ in range(4)]
    for _ in range(3):
        assert_no_room(clients.connect(server))
    log.expect("4 connections are open (max_connections)", WARNING)
    for client in inside:
        echoes(client)
    inside.pop().leave()
    wait_until(lambda: count(server) == 3, "three connections remain")
    inside.append(clients.websocket(server, "/echo"))
    assert_no_room(clients.connect(server))
    for client in inside:
        echoes(client)


def test_requests_to_a_full_server_are_answered(serve: Serve, clients: Clients) -> None:
    server = serve(page_app(), max_connections=1)
    echoes(inside := clients.websocket(server, "/echo"))
    for request in (get("/"), upgrade("/echo"), get("/", method="HEAD")):
        client = clients.connect(server)
        client.send(request)
        assert_no_room(client)
    echoes(inside)


def test_many_connections_can_be_refused_at_once(serve: Serve, clients: Clients) -> None:
    server = serve(page_app(), max_connections=1)
    echoes(inside := clients.websocket(server, "/echo"))
    outside = [clients.connect(server) for _ in range(3 * LINGERING)]
    for client in outside:
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    assert count(server) <= 1 + LINGERING  # while none of them leaves
    for client in outside:
        client.close()
    wait_until(lambda: count(server) == 1, "one connection remains")
    inside.leave()
    wait_until(lambda: count(server) == 0, "no connection remains")
    echoes(clients.websocket(server, "/echo"))


def test_a_refused_tls_connection_is_closed_before_the_handshake(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), max_connections=1, ssl_context=certificates.server)
    inside = clients.websocket(server, "/echo", tls=certificates.client)
    assert clients.connect(server).read_to_end() == b""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        clients.connect(server, tls=certificates.client)
    echoes(inside)


def ask_and_leave(client: Client, request: bytes) -> None:
    client.send(request)
    client.read_to_end()


WAYS: dict[str, Callable[[Client], object]] = {
    "page": partial(ask_and_leave, request=get("/")),
    "404": partial(ask_and_leave, request=get("/nothing")),
    "400": partial(ask_and_leave, request=b"nonsense\r\n\r\n"),
    "silence": Client.read_to_end,
    "close": Client.close,
    "reset": Client.reset,
    "half a head": partial(Client.send, data=b"GET / HT"),
    "websocket": partial(Client.send, data=upgrade("/echo")),
    "garbage": partial(Client.send, data=upgrade("/echo") + b"\xff" * 100),
}


@pytest.mark.slow
@resets_under_tls
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secured", [False, True])
def test_a_slot_is_free_again_after_every_kind_of_disconnect(
    serve: Serve, clients: Clients, certificates: Certificates, way: str, secured: bool
) -> None:
    clock = ManualClock()
    server = serve(
        page_app(Timing(clock=clock)),
        max_connections=4,
        max_handshakes_per_address=4,
        ssl_context=certificates.server if secured else None,
    )

    def is_empty() -> bool:
        clock.pass_time(server, 1)
        return count(server) == 0

    tls = certificates.client if secured else None
    for _ in range(3):
        going = [clients.connect(server, tls=tls) for _ in range(2)]
        going.append(clients.connect(server))  # a client without TLS
        for client in going:
            if way == "silence":
                clock.pass_time(server, 2 * server.settings.handshake_timeout)
            with suppress(ConnectionError, ssl.SSLError):
                WAYS[way](client)
            client.close()
        last = clients.websocket(server, "/echo", tls=tls)  # the others have been let in before
        echoes(last)
        last.leave()
        wait_until(is_empty, "no connection remains")
    for client in [clients.websocket(server, "/echo", tls=tls) for _ in range(4)]:
        echoes(client)


# Of one address -----------------------------------------------------------------------------------


def test_the_connections_of_an_address_without_a_request_are_limited(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    server = serve(page_app(), max_handshakes_per_address=2)
    echoes(clients.websocket(server, "/echo"))  # one that has asked does not count
    first, second = clients.connect(server), clients.connect(server)
    second.send(upgrade("/echo")[:-1])
    assert_no_room(clients.connect(server))
    log.expect("have not sent a request yet (max_handshakes_per_address)", WARNING)
    second.send(b"\n")
    second.read_until(b"\r\n\r\n")
    echoes(clients.websocket(server, "/echo"))
    third = clients.connect(server)
    assert_no_room(clients.connect(server))
    for client in (first, third):
        client.close()
    wait_until(lambda: count(server) == 3, "three connections remain")
    echoes(clients.websocket(server, "/echo"))


def test_a_tls_handshake_counts_as_a_connection_without_a_request(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), max_handshakes_per_address=1, ssl_context=certificates.server)
    waits = clients.connect(server, tls=certificates.client)
    assert clients.connect(server).read_to_end() == b""
    waits.send(get("/"))
    assert waits.answer().body == b"hello"


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.1 is the only loopback address")
def test_each_address_has_its_own_limit(serve: Serve, clients: Clients) -> None:
    server = serve(page_app(), max_handshakes_per_address=1)
    clients.connect(server)
    assert_no_room(clients.connect(server))
    other = clients.connect(server, source="127.0.0.2")
    assert_no_room(clients.connect(server, source="127.0.0.2"))
    other.send(get("/"))
    assert other.answer().body == b"hello"


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_clients_of_a_unix_socket_have_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        page_app().start(unix="s", max_handshakes_per_address=1) as server,
        ExitStack() as silent,
    ):
        for number in range(5):
            sock = silent.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect("s")
            wait_until(lambda: count(server) == number + 1, "the client is let in")  # noqa: B023
        sock.sendall(get("/"))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


# Of open files ------------------------------------------------------------------------------------

FILES = 100
PROGRAM = f"""
import logging, resource, sys
from wsframe.server import App

resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES // 2}, {FILES}))
app = App()

@app.websocket("/echo")
def echo(ws):
    while True:
        ws.send((yield))

@app.websocket("/fail")
def fail(ws):
    raise ValueError
    yield

if "full-disk" in sys.argv:
    logging.basicConfig(stream=open("/dev/full", "w"), level=logging.DEBUG)
    sys.stderr = sys.__stderr__ = open("/dev/full", "w")
app.run("127.0.0.1", 0, max_connections=int(sys.argv[1]))
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what runs out differs elsewhere")


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return str(path)


def opened(stack: ExitStack, process: ServerProcess) -> WebSocketClient:
    client = WebSocketClient(process.port, "/echo")
    stack.callback(client.close)
    return client


def fill(stack: ExitStack, process: ServerProcess) -> list[WebSocketClient]:
    """Open WebSockets until one is refused."""
    inside: list[WebSocketClient] = []
    with suppress(HandshakeError, EOFError, ConnectionError):  # a refusal, or no answer
        while len(inside) < 2 * FILES:
            inside.append(opened(stack, process))
    assert len(inside) < 2 * FILES
    return inside


@on_linux
def test_by_default_some_file_descriptors_are_spared(stack: ExitStack, program: str) -> None:
    with ServerProcess(program, "0") as process:
        inside = fill(stack, process)
        assert len(inside) == FILES - 32
        assert_no_room(Client(process.port))
        for client in inside:
            echoes(client)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("log_to", ["standard-error", "full-disk"])
def test_open_connections_are_served_when_no_file_descriptor_is_left(
    stack: ExitStack, program: str, log_to: str
) -> None:
    with ServerProcess(program, "10000", log_to) as process:
        inside = fill(stack, process)
        assert FILES - 32 < len(inside) < FILES
        for _ in range(200):
            refused = Client(process.port)
            with suppress(ConnectionError):
                assert refused.read_to_end() == b""
            refused.close()
        for client in inside:
            echoes(client)
        for client in inside[10:]:
            client.leave()
        for _ in range(10):  # their files are free again
            echoes(opened(stack, process))
        for client in inside[:10]:
            echoes(client)
        stack.close()
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        assert code == 0, output
        if log_to == "standard-error":
            # There is not a line for each of them.
            assert 1 <= output.count("failed to accept a connection: ") < 100


@on_linux
def test_a_log_that_cannot_be_written_ends_no_connection(stack: ExitStack, program: str) -> None:
    with ServerProcess(program, "0", "full-disk") as process:
        client = opened(stack, process)
        for _ in range(20):
            failing = WebSocketClient(process.port, "/fail")
            assert failing.expect_close().code == 1011
            echoes(client)


@pytest.mark.parametrize("recovers", [True, False])
def test_without_the_spare_file_descriptor_the_server_does_not_spin(
    serve: Serve,
    clients: Clients,
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
    recovers: bool,
) -> None:
    server = serve(page_app())
    client = clients.websocket(server, "/echo")
    attempts = 0

    def fail(sock: socket.socket) -> Any:
        nonlocal attempts
        attempts += 1
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", fail)
    begin = time.monotonic()
    waiting = clients.connect(server)
    log.expect("failed to accept a connection: [Errno 24]")
    for _ in range(200):
        echoes(client)
    # Once, once more with the spare file, and again after every half second.
    asked = attempts
    assert asked <= 8 + 4 * (time.monotonic() - begin)
    client.close()  # without a client, nothing else is waited for
    # The second call of an attempt, with the spare file, would close the waiting connection.
    wait_until(lambda: attempts > asked and attempts % 2 == 0, "the listener has tried again")
    if recovers:
        monkeypatch.undo()
        waiting.send(get("/"))
        assert waiting.answer().body == b"hello"
    server.stop()  # after which there are nothing more to log
    log.records.clear()


def test_a_failed_accept_costs_no_waiting_client_its_connection(
    serve: Serve, clients: Clients, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reports errors of the network and of a firewall in accept(2)."""
    server = serve(page_app())

    def fail_once(sock: socket.socket) -> Any:
        monkeypatch.undo()
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    client = clients.connect(server)
    log.expect("failed to accept a connection: [Errno 1]")
    client.send(get("/"))
    assert client.answer().body == b"hello"


def test_a_system_without_an_open_file_limit_has_a_limit_on_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows has no module resource."""
    monkeypatch.setattr(admission, "resource", None)
    admission.allow_all_files()
    assert admission.Admission(0, 0).max_connections == 512 - 32

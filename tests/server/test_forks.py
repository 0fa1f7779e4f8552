"""Child processes with copies of the server's sockets."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, StreamClient, WebSocketClient, get, upgrade
from tests.support.handlers import generator_echo, websocket_app
from tests.support.inspection import clients_of, listening_sockets
from tests.support.processes import ServerProcess
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, Server
from wsframe.server.sockets.admission import LINGERING
from wsframe.server.sockets.peer import Peer

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="open files are found in /proc")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Copies of all accepted connections, like those of a child that C code has forked."""
    held: list[socket.socket] = []
    accept = socket.socket.accept

    def accept_and_copy(sock: socket.socket) -> tuple[socket.socket, Any]:
        accepted, address = accept(sock)
        held.append(accepted.dup())
        return accepted, address

    monkeypatch.setattr(socket.socket, "accept", accept_and_copy)
    yield held
    for copy in held:
        copy.close()


def sees_the_end(client: Client) -> None:
    """Read until the connection has ended; with TLS that may raise an error."""
    with suppress(ConnectionResetError, ssl.SSLError):
        while client.sock.recv(1 << 16):
            pass


def abort_all(server: Server) -> None:
    (clients,) = clients_of(server)
    clients.loop.call_soon(partial(clients.for_each_peer, Peer.abort))


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("request_head", [b"", b"GET / HT", upgrade("/echo")])
def test_a_disconnected_client_sees_the_end_although_a_child_holds_its_socket(
    serve: Serve,
    clients: Clients,
    copies: list[socket.socket],
    certificates: Certificates,
    request_head: bytes,
    secured: bool,
) -> None:
    context = certificates.server if secured else None
    server = serve(websocket_app(generator_echo), ssl_context=context)
    client = clients.connect(server, tls=certificates.client if secured else None)
    client.send(request_head)
    wait_until(
        lambda: server.stats().requests + server.stats().websockets, "the client is connected"
    )
    abort_all(server)
    sees_the_end(client)
    assert len(copies) == 1


@resets_under_tls
@pytest.mark.parametrize("secured", [False, True])
def test_a_refused_client_sees_the_end_although_a_child_holds_its_socket(
    serve: Serve,
    clients: Clients,
    copies: list[socket.socket],
    certificates: Certificates,
    secured: bool,
) -> None:
    context = certificates.server if secured else None
    server = serve(websocket_app(generator_echo), max_connections=1, ssl_context=context)
    clients.connect(server)
    for _ in range(LINGERING):
        clients.connect(server)  # without TLS it stays open, because the client does not close
    for _ in range(2):
        sees_the_end(clients.connect(server))
    assert len(copies) == 1 + LINGERING + 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a listener has no shutdown")
@pytest.mark.parametrize("unix", [False, True])
def test_no_client_is_accepted_after_a_stop_although_a_child_holds_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unix: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    server = App().start("127.0.0.1", unix="s" if unix else None)
    family = socket.AF_UNIX if unix else socket.AF_INET
    with ExitStack() as stack:
        (listener,) = listening_sockets(server)
        stack.enter_context(listener.dup())
        address = listener.getsockname()
        os.link("s", "kept") if unix else None
        server.stop()
        client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        with pytest.raises(ConnectionRefusedError):
            client.connect("kept" if unix else address)
        if not unix:
            with socket.create_server(address):
                pass


# Forks that Python makes --------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time, warnings
from wsframe.server import App, app as module

warnings.simplefilter("ignore")  # of a fork with several threads
app = App()
servers, first = [], 0
start_server = module.serve

def child_of(job):
    # Like a forking ProcessPoolExecutor: the child continues to run.
    child = os.fork()
    if child:
        return child
    try:
        job()
    finally:
        os._exit(1)

def said_by_child(job):
    reading, writing = os.pipe()
    child_of(lambda: os.write(writing, job().encode()))
    os.close(writing)
    with open(reading) as said:
        return said.read()

def outcome(use):
    try:
        return str(use())
    except Exception as error:
        return type(error).__name__

def serve(*arguments, **options):
    servers.append(start_server(*arguments, **options))
    return servers[0]

module.serve = serve

@app.on_start
def start():
    global first
    if "on_start" in sys.argv:
        first = child_of(lambda: time.sleep(60))

@app.websocket("/echo")
def echo(ws):
    while True:
        ws.send((yield))

@app.websocket("/fork/plain")
def fork_in_a_thread(ws):
    child = child_of(lambda: time.sleep(60))
    ws.send(f"{os.getpid()} {child}")
    for message in ws:
        if message == "wait":
            status = os.waitpid(child, 0)[1]
        elif message == "how":
            message = str(os.waitstatus_to_exitcode(status))
        ws.send(message)

@app.websocket("/fork/generator")
def fork_on_the_loop(ws):
    ws.send(f"{os.getpid()} {child_of(lambda: time.sleep(60))}")
    while True:
        message = yield
        ws.send(str(first) if message == "first" else message)

@app.websocket("/return")
def let_the_child_return(ws):
    reading, writing = os.pipe()
    if os.fork() == 0:
        return  # which ends the thread, and with it the process
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    while True:
        ws.send((yield))

@app.websocket("/use")
def use_in_the_child(ws):
    def use():
        said = [outcome(one) for one in (lambda: ws.send("the child"), ws.receive, ws.ping)]
        ws.close()
        servers[0].stop()
        return f"{said} {servers[0].running}"

    for message in ws:
        ws.send(said_by_child(use))

@app.sse("/stream")
def stream(stream):
    stream.send(said_by_child(lambda: outcome(lambda: stream.send("the child"))))

if __name__ == "__main__":
    app.run("127.0.0.1", 0, workers=int(sys.argv[1]), drain=5)
    os.write(1, b"run returned\\n")
"""


class Program:
    """The running program and its clients."""

    def __init__(self, process: ServerProcess, stack: ExitStack) -> None:
        self.process = process
        self._stack = stack

    def websocket(self, target: str) -> WebSocketClient:
        """Return a WebSocket that is closed at the end of the test."""
        client = WebSocketClient(self.process.port, target)
        self._stack.callback(client.close)
        return client

    def stream(self, target: str) -> StreamClient:
        """Return an event stream that is closed at the end of the test."""
        client = StreamClient(self.process.port, target)
        self._stack.callback(client.close)
        return client

    def kill_later(self, pid: int) -> None:
        """Kill a process at the end of the test."""
        self._stack.callback(os.kill, pid, signal.SIGKILL)


class Run(Protocol):
    """Run the program with these arguments."""

    def __call__(self, *arguments: str) -> Program: ...


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Run]:
    """Return a function that starts the program."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    with ExitStack() as stack:

        def run(*arguments: str) -> Program:
            process = ServerProcess("program.py", *arguments, directory=tmp_path)
            return Program(stack.enter_context(process), stack)

        yield run


def sockets_of(pid: int) -> set[str]:
    """Return the open sockets of a process."""
    found = set()
    with suppress(FileNotFoundError):  # it has just ended or closed a file
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(os.readlink(file))
    return {file for file in found if file.startswith("socket:")}


def shares_no_socket(child: int, parent: int) -> None:
    """Wait until a new child, which may already run, has closed its copies."""
    wait_until(
        lambda: not sockets_of(child) & sockets_of(parent),
        "the child has closed all sockets of its parent",
    )


@pytest.mark.slow
@pytest.mark.unmeasured
@needs_proc
@pytest.mark.parametrize("kind", ["plain", "generator"])
def test_a_child_keeps_no_socket_and_the_parent_continues_to_serve(program: Run, kind: str) -> None:
    server = program("0")
    others = [server.websocket("/echo") for _ in range(2)]
    client = server.websocket(f"/fork/{kind}")
    _, child = map(int, str(client.next_event()).split())
    server.kill_later(child)
    shares_no_socket(child, server.process.pid)
    for each in (client, *others):
        each.send_messages("x")
        assert each.next_event() == "x"
    server.process.signal(signal.SIGTERM)
    for each in (client, *others):
        each.expect_close()
    server.process.expect(re.compile("run returned"))


@needs_fork
def test_a_child_that_returns_from_its_handler_serves_no_client(program: Run) -> None:
    client = program("0").websocket("/return")
    client.send_messages("one", "two")
    assert client.expect(2) == ["one", "two"]


@needs_fork
def test_connections_and_server_are_closed_in_a_child(program: Run) -> None:
    server = program("0")
    client = server.websocket("/use")
    for _ in range(3):
        client.send_messages("now")
        assert client.next_event() == f"{['ConnectionClosed'] * 3} False"
    assert server.stream("/stream").expect(1) == ["ConnectionClosed"]


@needs_fork
def test_a_child_does_not_inherit_the_signal_handling(program: Run) -> None:
    server = program("0")
    client = server.websocket("/fork/plain")
    _, child = map(int, str(client.next_event()).split())
    os.kill(child, signal.SIGTERM)
    client.send_messages("wait")
    assert client.next_event() == "wait"
    client.send_messages("how")
    assert client.next_event() == f"-{int(signal.SIGTERM)}"


@pytest.mark.slow
@needs_proc
def test_a_child_of_a_killed_worker_holds_no_listener(program: Run) -> None:
    server = program("2")
    client = server.websocket("/fork/plain")
    worker, child = map(int, str(client.next_event()).split())
    server.kill_later(child)
    shares_no_socket(child, worker)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.next_event()
    server.process.expect(re.compile(f"replacing worker {worker}, which ended"))
    for _ in range(40):
        other = server.websocket("/echo")
        other.send_messages("x")
        assert other.next_event() == "x"


@pytest.mark.slow
@pytest.mark.unmeasured
@needs_proc
@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_port_is_free_after_a_stop_although_children_live(program: Run, workers: str) -> None:
    server = program(workers, "on_start")
    client = server.websocket("/fork/generator")
    pid, child = map(int, str(client.next_event()).split())
    client.send_messages("first")
    children = child, int(str(client.next_event()))
    for each in children:
        server.kill_later(each)
        shares_no_socket(each, pid)
    server.process.signal(signal.SIGTERM)
    client.expect_close()
    server.process.expect(re.compile("run returned"))
    with socket.create_server(("127.0.0.1", server.process.port)):
        assert all(Path(f"/proc/{each}").exists() for each in children)


POOLS = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from wsframe.server import App

app = App()
forked = multiprocessing.get_context("fork")

@app.websocket("/pools")
def pools(ws):
    threads = ThreadPoolExecutor(2)
    threads.submit(os.getpid).result()
    processes = ProcessPoolExecutor(2, mp_context=forked)
    pids = {processes.submit(os.getpid).result() for _ in range(10)}
    daemon = forked.Process(target=time.sleep, args=(600,), daemon=True)
    daemon.start()
    ws.send(" ".join(map(str, {*pids, daemon.pid})))
    for message in ws:
        pass

if __name__ == "__main__":
    app.run("127.0.0.1", 0, workers=int(sys.argv[1]), drain=1)
"""


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.unmeasured), "2"])
@pytest.mark.parametrize("imported", [False, True])
def test_process_pools_end_with_the_server(tmp_path: Path, workers: str, imported: bool) -> None:
    (tmp_path / "program.py").write_text(POOLS, encoding="utf-8")
    command = ["-W", "ignore", "program.py", workers]
    if imported:
        options = ["--port", "0", "--drain", "1", "--workers", workers]
        command = ["-W", "ignore", "-m", "wsframe.server", "program:app", *options]
    with ServerProcess(*command, directory=tmp_path) as process:
        client = WebSocketClient(process.port, "/pools")
        pids = [int(pid) for pid in str(client.next_event()).split()]
        process.signal(signal.SIGTERM)
        client.expect_close()
        assert process.wait() == (0, "Shutting down; press Ctrl-C again to force.\n")
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.unmeasured
@needs_fork
def test_a_child_of_the_main_thread_ends_without_stopping_the_server(
    serve: Serve, clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = serve(websocket_app(generator_echo), unix="s")
    child = os.fork()
    if not child:
        code = 1
        try:
            server.stop()
            code = int(server.running)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect("s")
        client.sendall(get("/"))
        assert select.select([client], [], [], TIMEOUT)[0]

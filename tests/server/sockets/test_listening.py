"""Listening sockets that a server has inherited."""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import Client, WebSocketClient, get, parse_response
from tests.support.handlers import generator_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.serving import serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, Settings
from wsframe.server.sockets import listening
from wsframe.server.sockets.listener import ListenError, bind
from wsframe.server.sockets.listening import activated

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are POSIX's")


@pytest.fixture
def listener(stack: ExitStack) -> socket.socket:
    """A socket that another program keeps open."""
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def page_app() -> App:
    app = App()
    app.page("/", "hello")
    return app


def ask(sock: socket.socket) -> bytes:
    """Return the body of a page that a connected socket requests."""
    sock.settimeout(TIMEOUT)
    sock.sendall(get("/"))
    answer = b""
    while data := sock.recv(1 << 16):
        answer += data
    return parse_response(answer).body


def test_a_server_that_stops_leaves_an_inherited_socket_open(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for _ in range(2):
        with serve(page_app(), fds=[os.dup(listener.fileno())]) as server:
            assert server.url == f"http://127.0.0.1:{port}"
            assert (server.host, server.port) == ("127.0.0.1", port)
            with socket.create_connection(listener.getsockname()) as client:
                assert ask(client) == b"hello"
        assert server.url == f"http://127.0.0.1:{port}"
        # A client that connects between two servers waits for the next one.
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()


def test_sockets_of_several_families_are_served(listener: socket.socket, stack: ExitStack) -> None:
    name = f"\0wsframe-{os.getpid()}-{listener.getsockname()[1]}"
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(name)
    unix.listen()
    with serve(page_app(), fds=[os.dup(unix.fileno()), os.dup(listener.fileno())]) as server:
        assert server.url == f"http+unix://%40{name[1:]}"
        assert (server.host, server.port) == ("", 0)
        with socket.create_connection(listener.getsockname()) as client:
            assert ask(client) == b"hello"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
            assert ask(client) == b"hello"


def test_a_unix_socket_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.chdir(tmp_path)
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind("s")
    unix.listen()
    with serve(page_app(), fds=[os.dup(unix.fileno())]) as server:
        assert server.url.endswith("%2Fs")
    assert (tmp_path / "s").exists()


def test_a_server_survives_a_listener_that_another_process_shuts_down(
    listener: socket.socket, log: ServerLog
) -> None:
    with serve(websocket_app(generator_echo), fds=[os.dup(listener.fileno())]) as server:
        client = WebSocketClient(server.port, "/echo")
        listener.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: refuses(server.port), "the port refuses clients")
        client.send_messages("x")
        assert client.next_event() == "x"
        client.leave()
    assert not log.records


def refuses(port: int) -> bool:
    try:
        Client(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_descriptor_of_another_kind_is_an_error(
    listener: socket.socket, stack: ExitStack
) -> None:
    reading, writing = os.pipe()
    stack.callback(os.close, writing)
    unbound = stack.enter_context(socket.socket())
    closed = os.dup(reading)
    os.close(closed)
    stack.callback(os.close, reading)
    for fd, message in {
        reading: f"file descriptor {reading}: Socket operation on non-socket",
        closed: f"file descriptor {closed}: Bad file descriptor",
        unbound.fileno(): f"file descriptor {unbound.fileno()} is not a listening socket",
    }.items():
        with pytest.raises(OSError, match=re.escape(message)):
            App().start(fds=[listener.fileno(), fd])
    # The server has closed nothing that it was given.
    with socket.create_connection(listener.getsockname()):
        pass
    os.fstat(reading)


@pytest.mark.parametrize(
    ("variables", "fds"),
    [
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, [3, 4]),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}, []),
        ({"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}, []),  # those of another process
        ({}, []),
    ],
)
def test_a_service_manager_names_the_sockets_of_this_process(
    variables: dict[str, str], fds: list[int]
) -> None:
    environment = {"HOME": "/", **variables}
    assert list(activated(environment)) == fds
    assert environment == {"HOME": "/"}


def test_no_socket_stays_open_if_a_worker_cannot_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []

    def fail_late(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
        if len(opened) == 2:
            raise ListenError(98, "the port was taken in the meantime")
        opened.extend(bind(host, port, shared=shared))
        return opened[-1:]

    monkeypatch.setattr(listening, "bind", fail_late)
    with pytest.raises(ListenError, match="in the meantime"):
        listening.listen_for_workers("127.0.0.1", 0, Settings(), 2)
    assert [sock.fileno() for sock in opened] == [-1, -1]


def test_invalid_descriptors_are_an_error() -> None:
    with pytest.raises(ValueError, match="fds must differ"):
        Settings(fds=[3, 4, 3])
    with pytest.raises(ValueError, match="fds must not be negative"):
        Settings(fds=[3, -1])
    with pytest.raises(ValueError, match="fds and unix cannot be combined"):
        Settings(fds=[3], unix="s")

"""Progress at the end of a connection, of unfinished messages, and with the kernel's buffers."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import pytest

from tests.server.sockets.slow_clients import (
    BUFFERS,
    DEFAULT,
    KINDS,
    LARGE,
    MUCH,
    SMALL,
    Scene,
    connect,
    everything,
)
from tests.support.certificates import Certificates
from tests.support.clients import Clients, get, masked, upgrade
from tests.support.inspection import socket_of
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe import Close, Connection, Opcode, Role
from wsframe.progress import SLOWEST_READER
from wsframe.server.sockets.peer import Peer

SO_MEMINFO = 55  # the numbers of "ss -m"; Linux has this option, but Python does not define it


@BUFFERS
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("path", ["/page", "/ends", "/closes"])
def test_the_close_reaches_a_slow_client_that_keeps_sending(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    path: str,
    secured: bool,
    receive_buffer: int,
    size: int,
) -> None:
    scene = Scene(serve, size, ssl_context=certificates.server if secured else None)
    tls = certificates.client if secured else None
    request = upgrade(path) + masked(Opcode.TEXT, "go") if path == "/closes" else get(path)
    client = connect(clients, scene, request, tls=tls, receive_buffer=receive_buffer)
    if receive_buffer == LARGE:
        scene.until_all_is_acknowledged()
    scene.read_slowly(client, size // 2)
    client.send(b"\0")  # a socket that was closed would answer with a reset
    rest = scene.read_slowly(client, size - size // 2)
    assert scene.peers
    with suppress(TimeoutError):
        client.sock.settimeout(0.1)
        rest += client.sock.recv(1 << 16)
    if path == "/closes":
        assert rest.endswith(b"\x88\x02\x0f\xa0")
    client.close()
    wait_until(scene.is_over, "the connection is over")


def test_a_slow_client_that_closed_receives_the_answers_to_its_messages(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve, size=500_000)
    request = upgrade("/answers") + masked(Opcode.TEXT, "x") * 3 + masked(Opcode.CLOSE, b"")
    client = connect(clients, scene, request, receive_buffer=SMALL)
    codec = Connection(Role.CLIENT)
    events = codec.receive(scene.read_slowly(client, 1_500_000))
    events += codec.receive(client.read_to_end())
    assert events == [bytes(500_000)] * 3 + [Close(1005)]


@pytest.mark.parametrize("path", ["/page", "/ends", "/closes"])
def test_a_client_that_stops_reading_before_the_close_is_disconnected_in_time(
    serve: Serve, clients: Clients, path: str
) -> None:
    scene = Scene(serve)
    request = upgrade(path) + masked(Opcode.TEXT, "go") if path == "/closes" else get(path)
    client = connect(clients, scene, request, receive_buffer=SMALL)
    scene.read_slowly(client, MUCH // 5)
    scene.until_nothing_moves()
    scene.pass_time(DEFAULT.close_timeout - 2)
    assert not scene.is_over()
    # It could still be reading the data that its kernel has acknowledged.
    scene.expect_end(DEFAULT.close_timeout + LARGE / SLOWEST_READER)
    with pytest.raises(ConnectionResetError):
        everything(client)


def test_a_client_that_reads_all_and_stays_is_disconnected(serve: Serve, clients: Clients) -> None:
    scene = Scene(serve, size=10)
    client = clients.connect(scene.server)
    client.send(get("/page"))
    assert everything(client)
    scene.until_acknowledged()  # each acknowledgement begins the time limit again
    scene.pass_time(DEFAULT.close_timeout + 2)
    assert scene.is_over()


def test_the_server_waits_until_a_half_closed_client_has_acknowledged_all(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve, size=MUCH)
    client = connect(clients, scene, get("/page"), receive_buffer=SMALL)
    client.half_close()
    received = len(scene.read_slowly(client, MUCH - 100_000))
    assert not scene.is_over()
    assert received + everything(client) == MUCH
    scene.pass_time(DEFAULT.close_timeout / 4 + 1)
    assert scene.is_over()


@pytest.mark.parametrize("kind", ["frame", "fragments", "head"])
def test_a_trickling_message_has_a_time_limit(serve: Serve, clients: Clients, kind: str) -> None:
    begin, more = {
        "frame": (masked(Opcode.BINARY, bytes(5000))[:-1000], b"x"),
        "fragments": (
            masked(Opcode.TEXT, "x", fin=False),
            masked(Opcode.CONTINUATION, "", fin=False),
        ),
        "head": (b"\x81", b"\xfe"),
    }[kind]
    scene = Scene(serve)
    client = clients.websocket(scene.server, "/echo")
    (peer,) = scene.peers
    client.send(begin)
    pieces = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        while peer.record.end is None and pieces < 200 and not peer.send_closed:
            before = peer.bytes_in
            if kind != "head" or not pieces:
                client.send(more)
                wait_until(lambda: peer.bytes_in > before, "it is read")  # noqa: B023
            pieces += 1
            scene.pass_time(1)
    assert DEFAULT.message_timeout - 1 < pieces <= DEFAULT.message_timeout * 1.5
    events = [client.next_event()]
    while not isinstance(events[-1], Close):
        events.append(client.next_event())
    assert events[-1].code == 1008
    assert "message_timeout" in events[-1].reason


def test_a_message_of_a_slow_but_steady_sender_has_no_time_limit(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve)
    client = clients.websocket(scene.server, "/echo")
    (peer,) = scene.peers
    frame = client.codec.encode(bytes(400_000))
    pace = 2 * 1024
    for begin in range(0, len(frame), pace):
        before = peer.bytes_in
        piece = frame[begin : begin + pace]
        client.send(piece)
        wait_until(lambda: peer.bytes_in == before + len(piece), "it is read")  # noqa: B023
        scene.pass_time(1)
    assert client.next_event() == bytes(400_000)


def kernel_memory(peer: Peer) -> int:
    """Return the kernel's memory for a socket, in bytes: "ss -m" without its limits."""
    numbers = struct.unpack("9I", socket_of(peer).getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    received, _, sent, _, reserved, queued, options, backlog, _ = numbers
    return int(received + max(sent, queued) + reserved + options + backlog)


@pytest.mark.skipif(
    not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system has no SO_MEMINFO"
)
@pytest.mark.parametrize("kind", ["websocket", "stream", "flood"])
def test_clients_that_read_nothing_take_little_kernel_memory(
    serve: Serve, clients: Clients, log: ServerLog, kind: str
) -> None:
    scene = Scene(serve)
    for receive_buffer in (SMALL, LARGE, None) * 4:
        if kind == "flood":
            client = clients.websocket(scene.server, "/echo", receive_buffer=receive_buffer)
            client.sock.setblocking(False)
            frame = masked(Opcode.BINARY, bytes(1 << 16))
            with suppress(BlockingIOError):
                while True:
                    client.sock.send(frame)
        else:
            connect(clients, scene, KINDS[kind], receive_buffer=receive_buffer)
    wait_until(lambda: all(peer.bytes_out > SMALL for peer in scene.peers), "they are sent much")
    assert max(map(kernel_memory, scene.peers)) < 256 << 10


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system lacks an option")
@pytest.mark.parametrize("size", [0, 1 << 15])
def test_connections_have_the_kernel_buffers_that_the_settings_name(
    serve: Serve, clients: Clients, size: int
) -> None:
    scene = Scene(serve, socket_buffer=size)
    clients.websocket(scene.server, "/echo")
    (peer,) = scene.peers
    names = socket.SO_SNDBUF, socket.SO_RCVBUF
    buffers = [socket_of(peer).getsockopt(socket.SOL_SOCKET, name) for name in names]
    lowat = socket_of(peer).getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    if size:
        assert (buffers, lowat) == ([2 * size] * 2, size // 4)
    else:
        assert lowat == 0


def test_all_clients_that_read_nothing_are_disconnected(
    serve: Serve, clients: Clients, log: ServerLog, high_file_limit: None
) -> None:
    scene = Scene(serve, size=500_000, send_timeout=5)
    for _ in range(300):
        connect(clients, scene, KINDS["stream"], receive_buffer=SMALL)
    wait_until(lambda: all(peer.has_unsent for peer in scene.peers), "they are sent too much")
    scene.until_nothing_moves()
    scene.expect_end(12)
    assert scene.server.stats().slow_clients == 300

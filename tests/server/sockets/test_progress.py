"""Progress: a client that takes what it is sent is served on, however slowly; any other is cut off.

The tests advance the server's clock, and read at that clock's pace, so they wait for no time-out.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.server.conftest import Clients, Serve, ServerLog, until_it_stands_still, wait_until
from tests.support.certificates import Certificates
from tests.support.clients import END_OF_HEAD, Client, WebSocketClient, get, masked, upgrade
from tests.support.clock import STEP, ManualClock
from tests.support.handlers import Waits, generator_echo
from wsframe import Close, Connection, Opcode, Ping, Role
from wsframe.progress import ACKNOWLEDGED_INTERVALS, SLOWEST_READER, unacknowledged
from wsframe.server import App, EventStream, Server, WebSocket
from wsframe.server.settings import Settings
from wsframe.server.sockets import peer as peer_module
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing

SLOWLY = 30_000  # bytes a second
SMALL, LARGE = 1 << 14, 1 << 22  # receive buffers of clients
MUCH = 5_000_000  # more than a small receive buffer and the server's kernel buffer hold
DEFAULT = Settings()
SO_MEMINFO = 55  # the numbers that "ss -m" shows; Linux has the option, Python has no name for it

BUFFERS = pytest.mark.parametrize(
    ("receive_buffer", "size"), [(SMALL, MUCH), (LARGE, 3_000_000)], ids=["small", "large"]
)
KINDS = {"websocket": upgrade("/websocket"), "stream": get("/stream")}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


class Scene:
    """A server that sends much at once, whose clock a test advances."""

    def __init__(self, serve: Serve, size: int = MUCH, **options: Any) -> None:
        self.clock = ManualClock()
        self.size = size
        app = App(timing=Timing(clock=self.clock, turn_slice=60))
        app.websocket("/websocket")(self.websocket)
        app.websocket("/closes")(self.closes)
        app.websocket("/answers")(self.answers)
        app.sse("/stream")(self.stream)
        app.sse("/ends")(self.ends)
        app.sse("/silent", source=Queue())
        app.websocket("/echo")(generator_echo)
        self.news = app.topic("news")
        app.websocket("/topic")(self.topic)
        app.page("/page", "x" * size)
        self.server: Server = serve(app, **options)

    def websocket(self, ws: WebSocket) -> Waits:
        ws.send(bytes(self.size))
        yield from generator_echo(ws)

    def topic(self, ws: WebSocket) -> Waits:
        ws.subscribe(self.news)
        yield from generator_echo(ws)

    def closes(self, ws: WebSocket) -> Waits:
        yield
        ws.send(bytes(self.size))
        ws.close(4000)

    def answers(self, ws: WebSocket) -> Waits:
        while True:
            yield
            ws.send(bytes(self.size))

    def stream(self, stream: EventStream) -> None:
        stream.send("x" * self.size)

    def ends(self, stream: EventStream) -> None:
        stream.send("x" * self.size)
        stream.close()

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(self.server.clients[0].peers)

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(self.server, seconds)

    def until_nothing_moves(self) -> None:
        """Wait until the clients' systems have taken what they can (TCP probes in real time)."""
        until_it_stands_still(lambda: sum(unacknowledged(peer._sock) for peer in self.peers))

    def until_all_is_acknowledged(self) -> None:
        """Wait until the client's system has taken everything."""
        (peer,) = self.peers
        wait_until(
            lambda: peer.bytes_out > self.size and not unacknowledged(peer._sock),
            "its system has taken everything",
        )

    def until_acknowledged(self) -> None:
        """Wait for what is delayed in real time: acknowledgements of what is short, such as pings.

        An acknowledgement of more, where the client's window is closed, is not waited for.
        """
        for peer in self.peers:
            with suppress(ValueError):  # it is closed meanwhile
                wait_until(lambda: not 0 < unacknowledged(peer._sock) < 1000, "it is acknowledged")  # noqa: B023

    def expect_end(self, seconds: float) -> None:
        """The server ends every connection within this time."""
        end = self.clock.now + seconds
        while not self.is_over():
            assert self.clock.now < end, "a connection is still there"
            self.pass_time(STEP)

    def is_over(self) -> bool:
        return not self.server.clients[0].peers

    def read_slowly(self, client: Client, size: int) -> bytearray:
        """Have the client read that many bytes at a slow but steady pace."""
        received = bytearray()
        while len(received) < size:
            step = min(len(received) + int(SLOWLY * STEP), size)
            while len(received) < step:
                data = client.receive(step - len(received))
                assert data, f"the end came after {len(received)} bytes"
                received += data
            self.pass_time(STEP)
            self.until_acknowledged()
        return received


def connect(clients: Clients, scene: Scene, request: bytes, **options: Any) -> Client:
    client = clients.connect(scene.server, **options)
    client.send(request)
    client.read_until(END_OF_HEAD)
    return client


@BUFFERS
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@EVERY_KIND
def test_a_slow_but_steady_client_is_sent_everything(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    kind: str,
    secured: bool,
    receive_buffer: int,
    size: int,
) -> None:
    """With the default settings, and also where the client's system takes it all at once."""
    scene = Scene(serve, size, ssl_context=certificates.server if secured else None)
    tls = certificates.client if secured else None
    client = connect(clients, scene, KINDS[kind], tls=tls, receive_buffer=receive_buffer)
    if receive_buffer == LARGE:
        scene.until_all_is_acknowledged()
    scene.read_slowly(client, size)
    assert scene.peers
    if kind == "websocket":
        client.send(masked(Opcode.TEXT, "still there?"))
        client.read_until(b"still there?")


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@EVERY_KIND
def test_a_client_that_reads_nothing_is_cut_off_in_time(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    log: ServerLog,
    kind: str,
    secured: bool,
) -> None:
    scene = Scene(serve, ssl_context=certificates.server if secured else None)
    tls = certificates.client if secured else None
    client = connect(clients, scene, KINDS[kind], tls=tls, receive_buffer=SMALL)
    wait_until(lambda: scene.peers[0].has_unsent, "the socket takes no more")
    scene.until_nothing_moves()
    scene.pass_time(DEFAULT.send_timeout - 1)
    assert not scene.is_over()
    scene.expect_end(DEFAULT.send_timeout / 2)
    log.expect("30 s (send_timeout) and is cut off", logging.WARNING)
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):  # the system keeps nothing of it
        everything(client)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_client_that_stops_after_a_while_is_cut_off_in_time(
    serve: Serve, clients: Clients, certificates: Certificates, log: ServerLog, secured: bool
) -> None:
    scene = Scene(serve, ssl_context=certificates.server if secured else None)
    tls = certificates.client if secured else None
    client = connect(clients, scene, KINDS["stream"], tls=tls, receive_buffer=SMALL)
    scene.read_slowly(client, MUCH // 5)
    scene.until_nothing_moves()
    scene.pass_time(DEFAULT.send_timeout - 5)
    assert not scene.is_over()
    scene.expect_end(DEFAULT.send_timeout / 2)
    log.expect("(send_timeout) and is cut off", logging.WARNING)


@pytest.mark.parametrize("reads", [True, False], ids=["reads slowly", "stops"])
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")
def test_a_client_of_a_unix_socket_is_served_as_long_as_it_reads(
    serve: Serve, clients: Clients, log: ServerLog, tmp_path: Path, reads: bool
) -> None:
    path = str(tmp_path / "socket")
    scene = Scene(serve, unix=path)
    client = connect(clients, scene, KINDS["stream"], unix=path)
    scene.read_slowly(client, MUCH // 4)
    if reads:
        scene.read_slowly(client, MUCH - MUCH // 4)
        assert scene.peers
    else:
        scene.until_nothing_moves()
        scene.expect_end(DEFAULT.send_timeout * 1.5)
        log.expect("(send_timeout) and is cut off", logging.WARNING)


class Network:
    """Between the server and its clients; it can be cut, so that nothing is acknowledged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cut_at: int | None = None
        self._peer: Peer | None = None
        monkeypatch.setattr(peer_module, "unacknowledged", self._unacknowledged_now)

    def cut(self, peer: Peer) -> None:
        """From here on the peer's client acknowledges nothing."""
        self._peer, self._cut_at = peer, peer.bytes_out

    def _unacknowledged_now(self, sock: Any) -> int:
        if self._peer is None or self._cut_at is None:
            return unacknowledged(sock)
        return self._peer.bytes_out - self._cut_at


@pytest.mark.parametrize("path", ["/echo", "/silent"])
def test_a_client_that_has_vanished_is_cut_off_in_time(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch, log: ServerLog, path: str
) -> None:
    """It does not acknowledge the ping, or the comment, that it is sent in its silence."""
    network = Network(monkeypatch)
    scene = Scene(serve)
    if path == "/echo":
        clients.websocket(scene.server, path)
    else:
        clients.stream(scene.server, path).read_opening()
    scene.pass_time(1)
    network.cut(scene.peers[0])
    scene.expect_end(60)
    if path == "/silent":
        log.expect("(send_timeout) and is cut off", logging.WARNING)


def test_while_data_are_acknowledged_no_ping_is_due(serve: Serve, clients: Clients) -> None:
    scene = Scene(serve, send_timeout=600)
    client = WebSocketClient(scene.server.port, "/websocket", receive_buffer=SMALL)
    with client.sock:
        received = scene.read_slowly(client, MUCH // 2)
        scene.pass_time(
            DEFAULT.ping_interval * ACKNOWLEDGED_INTERVALS * 2
        )  # nothing is acknowledged now
        received += scene.read_slowly(client, MUCH - len(received))
        assert not any(isinstance(event, Ping) for event in client.codec.receive(received))


def test_a_client_that_only_acknowledges_is_pinged_now_and_then(
    serve: Serve, clients: Clients
) -> None:
    """Its program may have stopped: the system acknowledges for it."""
    scene = Scene(serve)
    client = clients.websocket(scene.server, "/topic")
    count = 0

    def publish_for(seconds: float) -> None:
        nonlocal count
        for _ in range(int(seconds)):
            scene.news.publish(str(count))
            count += 1
            scene.pass_time(1)
            scene.until_acknowledged()

    publish_for(DEFAULT.ping_interval * (ACKNOWLEDGED_INTERVALS - 1))
    assert client.hear(count) == list(map(str, range(count)))
    publish_for(DEFAULT.ping_interval * 2 + DEFAULT.ping_timeout)
    events = [client.next_event()]
    while not isinstance(events[-1], Close):
        events.append(client.next_event())
    assert events.count(Ping(b"")) == 1
    assert events[-1].code == 1011


def test_the_time_of_a_pong_counts_from_the_acknowledgement_of_its_ping(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(monkeypatch)
    scene = Scene(serve, ping_timeout=10, send_timeout=600)
    client = clients.websocket(scene.server, "/echo")
    (peer,) = scene.peers
    scene.pass_time(DEFAULT.ping_interval - 1)
    network.cut(peer)
    before = peer.bytes_out
    while peer.bytes_out == before:
        scene.pass_time(STEP)
    scene.pass_time(8)
    network.cut(peer)  # the ping arrives after all
    scene.pass_time(8)
    assert client.next_event() == Ping(b"")
    assert not scene.is_over()
    scene.pass_time(8)
    assert client.next_event() == Close(1011, "no pong within 10 s (ping_timeout)")


def test_after_a_standstill_of_the_process_nobody_is_taken_for_dead(
    serve: Serve, clients: Clients
) -> None:
    """Neither who was pinged before and has answered meanwhile, nor any other."""
    scene = Scene(serve)
    pinged = clients.websocket(scene.server, "/echo")
    scene.pass_time(DEFAULT.ping_interval * 1.5)
    assert pinged.next_event() == Ping(b"")
    idle = clients.websocket(scene.server, "/echo")
    request = clients.connect(scene.server)
    request.send(get("/silent")[:-1])
    wait_until(lambda: len(scene.peers) == 3, "all are there")
    scene.clock.jump(scene.server, 3600)
    scene.pass_time(STEP)
    pinged.send(pinged.codec.pong(b""))
    request.send(b"\n")
    request.read_until(END_OF_HEAD)
    scene.pass_time(DEFAULT.ping_timeout / 2)
    for client in pinged, idle:
        client.say("still there")
        assert client.next_event() == "still there"


def test_after_a_standstill_a_silent_client_has_its_time_to_answer_a_ping(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve)
    client = clients.websocket(scene.server, "/echo")
    scene.clock.jump(scene.server, 3600)
    scene.pass_time(DEFAULT.ping_interval * 1.5 + 1)
    assert client.next_event() == Ping(b"")
    scene.until_acknowledged()
    scene.pass_time(DEFAULT.ping_timeout / 2)
    client.send(client.codec.pong(b""))
    client.say("still there")
    assert client.next_event() == "still there"


# The end --------------------------------------------------------------------------------------


def everything(client: Client) -> int:
    count = 0
    while data := client.receive():
        count += len(data)
    return count


@BUFFERS
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("path", ["/page", "/ends", "/closes"])
def test_the_last_words_reach_a_slow_client_whatever_it_sends_meanwhile(
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


def test_a_slow_client_that_has_closed_is_sent_the_answers_to_what_it_sent_before(
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
def test_a_client_that_stops_before_the_last_words_is_cut_off_in_time(
    serve: Serve, clients: Clients, path: str
) -> None:
    scene = Scene(serve)
    request = upgrade(path) + masked(Opcode.TEXT, "go") if path == "/closes" else get(path)
    client = connect(clients, scene, request, receive_buffer=SMALL)
    scene.read_slowly(client, MUCH // 5)
    scene.until_nothing_moves()
    scene.pass_time(DEFAULT.close_timeout - 2)
    assert not scene.is_over()
    # What its system has acknowledged, it could still be reading.
    scene.expect_end(DEFAULT.close_timeout + LARGE / SLOWEST_READER)
    with pytest.raises(ConnectionResetError):
        everything(client)


def test_a_client_that_takes_all_and_does_not_leave_is_left(serve: Serve, clients: Clients) -> None:
    scene = Scene(serve, size=10)
    client = clients.connect(scene.server)
    client.send(get("/page"))
    assert everything(client)
    scene.pass_time(DEFAULT.close_timeout + 2)
    assert scene.is_over()


def test_a_client_that_closes_its_side_is_waited_for_until_it_has_acknowledged_all(
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


# Unfinished messages --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frame", "fragments", "head"])
def test_a_message_that_trickles_in_has_a_time_limit(
    serve: Serve, clients: Clients, kind: str
) -> None:
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
        while peer.record.end is None and pieces < 200 and not peer.sealed:
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


# The kernel's memory --------------------------------------------------------------------------


def kernel_memory(peer: Peer) -> int:
    """What the kernel keeps for a socket, in bytes: all that "ss -m" counts but the limits."""
    numbers = struct.unpack("9I", peer._sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))  # type: ignore[call-arg, arg-type]
    received, _, sent, _, reserved, queued, options, backlog, _ = numbers
    return int(received + max(sent, queued) + reserved + options + backlog)


@pytest.mark.skipif(
    not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system has no SO_MEMINFO"
)
@pytest.mark.parametrize("kind", ["websocket", "stream", "flood"])
def test_clients_that_read_nothing_occupy_little_of_the_kernels_memory(
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
    buffers = [peer._sock.getsockopt(socket.SOL_SOCKET, name) for name in names]
    lowat = peer._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    if size:
        assert (buffers, lowat) == ([2 * size] * 2, size // 4)
    else:
        assert lowat == 0


def test_clients_that_read_nothing_are_cut_off_all_of_them(
    serve: Serve, clients: Clients, log: ServerLog, many_files: None
) -> None:
    scene = Scene(serve, size=500_000, send_timeout=5)
    for _ in range(300):
        connect(clients, scene, KINDS["stream"], receive_buffer=SMALL)
    wait_until(lambda: all(peer.has_unsent for peer in scene.peers), "they are sent too much")
    scene.until_nothing_moves()
    scene.expect_end(12)
    assert scene.server.stats().slow_clients == 300

"""The system calls of one round: the compiled functions and those in Python, over real sockets.

Each test runs on both. The random tests run the same steps on both, and compare the results.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tools import missing_tool
from wsframe import Connection, Role, encode_frame
from wsframe.frames import BINARY, PING, TEXT
from wsframe.server import pure_rounds
from wsframe.server.handoff.poller import READ, WRITE
from wsframe.server.pure_rounds import BROKEN, Item, pieces_of, size_of

LIMIT = 1000  # the largest message
MASK = b"mask"
BUFFER_SIZE = 1 << 17
RESET = struct.pack("ii", 1, 0)  # the value of SO_LINGER for a close that resets

KERNELS = ("compiled", "python")


def functions(kernel: str) -> Any:
    """Return the module with the functions of a kernel."""
    if kernel == "python":
        return pure_rounds
    try:
        return importlib.import_module("wsframe.server._rounds")
    except ImportError:
        missing_tool("wsframe.server._rounds (compiled with gcc and python3-dev)")


@pytest.fixture(params=KERNELS)
def io(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = functions(request.param)
    return module


class Round:
    """Connections that one set of functions serves, with the client's end of each.

    Attributes:
        wires: the connections, by descriptor.
        clients: the clients' ends, in the order in which they were opened.
    """

    def __init__(self, io: Any) -> None:
        self.io = io
        self.epoll = select.epoll()
        self.wires: list[Any] = []
        self.buffer = bytearray(BUFFER_SIZE)
        self.scratch = bytearray(1 << 16)
        self.clients: list[socket.socket] = []
        self.servers: list[Any] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    def connect(self) -> socket.socket:
        """Return the client's end of a new connection."""
        return socket.create_connection(self._listener.getsockname())

    def open(
        self, *, limit: int = LIMIT, client: socket.socket | None = None
    ) -> tuple[Any, socket.socket]:
        """Return a connection, and the client's end of it."""
        client = client or self.connect()
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        client.settimeout(10)
        wire = self.io.Wire()
        wire.sock, wire.fd, wire.session, wire.limit = sock, sock.fileno(), len(self.servers), limit
        self.epoll.register(sock, READ)
        self.wires += [None] * (wire.fd + 1 - len(self.wires))
        self.wires[wire.fd] = wire
        self.clients.append(client)
        self.servers.append(wire)
        return wire, client

    def close_server(self, wire: Any) -> None:
        """Close a connection, as its loop does."""
        self.epoll.unregister(wire.sock)
        self.wires[wire.fd] = None
        wire.fd = -1
        wire.clear = False
        wire.sock.close()

    def receive(self, timeout: float | None = 10.0) -> tuple[list[Any], list[Any]]:
        """Run one round; return the received messages with copies of the rest, and the others."""
        received, ready = self.io.receive(self.epoll, self.wires, self.buffer, timeout)
        return [
            (session, messages, None if rest is None else bytes(rest))
            for session, messages, rest in received
        ], ready

    def send(self, *wires: Any) -> list[Any]:
        """Send what is queued for these connections."""
        incomplete: list[Any] = self.io.send(list(wires), self.scratch)
        return incomplete

    def close(self) -> None:
        """Close everything."""
        for wire in self.servers:
            wire.sock.close()
        for client in self.clients:
            client.close()
        self._listener.close()
        self.epoll.close()


@pytest.fixture
def round_(io: ModuleType) -> Iterator[Round]:
    found = Round(io)
    yield found
    found.close()


def frame(message: str | bytes) -> bytes:
    """Return the frame of a client's message."""
    return encode_frame(TEXT if isinstance(message, str) else BINARY, message, masking_key=MASK)


def receive_exactly(client: socket.socket, size: int) -> bytes:
    """Receive this many bytes."""
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


def drain(client: socket.socket) -> bytes:
    """Receive everything that has arrived."""
    client.setblocking(False)
    data = b""
    try:
        while piece := client.recv(1 << 20):
            data += piece
    except BlockingIOError:
        pass
    client.settimeout(10)
    return data


def test_a_task_begins_alike_on_both_kernels() -> None:
    tasks = [functions(kernel).Resumable() for kernel in KERNELS]
    first, second = [
        {name: getattr(task, name) for name in pure_rounds.Resumable.__slots__} for task in tasks
    ]
    assert first == second


# Receiving ----------------------------------------------------------------------------------------


def test_messages_are_taken_from_every_ready_socket(round_: Round) -> None:
    wires = [round_.open() for _ in range(3)]
    for number, (_, client) in enumerate(wires[:2]):
        client.sendall(frame("é" * number) + frame(b"\0" * number))
    found: list[Any] = []
    while len(found) < 2:
        received, ready = round_.receive()
        found += received
        assert ready == []
    assert sorted(found) == [(0, ["", b""], None), (1, ["é", b"\0"], None)]
    assert [wire.messages_in for wire, _ in wires] == [2, 2, 0]
    assert wires[0][0].bytes_in == 2 * 6
    assert round_.receive(0) == ([], [])


@pytest.mark.parametrize(
    "rest",
    [
        frame("whole")[:-1],
        encode_frame(PING, b"", masking_key=MASK),
        encode_frame(TEXT, b"\xff", masking_key=MASK),
        encode_frame(TEXT, "a", fin=False, masking_key=MASK),
        encode_frame(TEXT, "unmasked"),
        frame(b"x" * (LIMIT + 1)),
        b"\x81",
    ],
    ids=["incomplete", "ping", "no text", "fragment", "unmasked", "too big", "one byte"],
)
def test_data_after_the_messages_is_the_rest(round_: Round, rest: bytes) -> None:
    wire, client = round_.open()
    client.sendall(frame("first") + rest)
    data = b""
    while len(data) < len(rest):
        received, ready = round_.receive()
        assert ready == []
        (session, messages, more) = received[0]
        assert session == 0
        assert messages in (["first"], [])
        data += more or b""
    assert data == rest
    assert wire.messages_in == 1


@pytest.mark.parametrize("limit", [-1, 0])
def test_a_connection_without_a_limit_is_not_received(round_: Round, limit: int) -> None:
    wire, client = round_.open(limit=limit)
    client.sendall(frame(b""))
    received, ready = round_.receive()
    assert (len(received), ready) == ((0, [(wire.fd, READ)]) if limit < 0 else (1, []))


def test_other_files_are_returned_with_their_events(round_: Round) -> None:
    wire, _ = round_.open()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        round_.epoll.register(ours, READ | WRITE)
        round_.epoll.modify(wire.fd, READ | WRITE)
        theirs.send(b"x")
        received, ready = round_.receive()
        assert received == []
        assert sorted(ready) == sorted([(ours.fileno(), READ | WRITE), (wire.fd, WRITE)])
        round_.epoll.unregister(ours)


def test_the_end_of_the_data_is_returned_as_readable(round_: Round) -> None:
    wire, client = round_.open()
    client.shutdown(socket.SHUT_WR)
    assert round_.receive() == ([], [(wire.fd, READ)])
    assert wire.sock.recv(1) == b""


def test_a_failed_receive_call_is_returned_as_broken(round_: Round) -> None:
    # An epoll event of a socket that is only readable, whose receive call fails, is rare. This
    # descriptor is readable, and no socket.
    readable, writable = os.pipe()
    try:
        other = round_.io.Wire()
        other.fd, other.limit, other.session = readable, LIMIT, "pipe"
        other.sock = _NoSocket()
        round_.epoll.register(readable, READ)
        round_.wires += [None] * (readable + 1 - len(round_.wires))
        round_.wires[readable] = other
        os.write(writable, b"x")
        assert round_.receive() == ([], [(readable, BROKEN)])
        round_.epoll.unregister(readable)
    finally:
        os.close(readable)
        os.close(writable)


class _NoSocket:
    """A file whose receive call fails."""

    def recv_into(self, buffer: memoryview) -> int:
        raise OSError("not a socket")


def test_a_descriptor_that_is_closed_and_used_again_gets_only_its_own_data(round_: Round) -> None:
    wire, client = round_.open()
    client.sendall(frame("old"))
    select.select([wire.sock], [], [], 10)
    fd, second_client = wire.fd, round_.connect()
    round_.close_server(wire)
    second, _ = round_.open(client=second_client)
    assert second.fd == fd
    assert round_.receive(0) == ([], [])
    second_client.sendall(frame("new"))
    assert round_.receive() == ([(second.session, ["new"], None)], [])


def fill(wire: Any, client: socket.socket, data: bytes) -> None:
    """Send data to a connection, and wait until all has arrived."""
    client.sendall(data)
    while len(wire.sock.recv(BUFFER_SIZE, socket.MSG_PEEK)) < len(data):
        pass


def test_a_round_ends_when_half_of_the_buffer_is_kept(round_: Round) -> None:
    incomplete = frame(bytes(BUFFER_SIZE // 2 - 100))[:-1]
    for _ in range(3):
        fill(*round_.open(limit=BUFFER_SIZE), incomplete)
    received, ready = round_.receive()
    assert [(messages, rest) for _, messages, rest in received] == [([], incomplete)] * 2
    assert [events for _, events in ready] == [READ]


def test_a_round_receives_a_limited_number_of_bytes(round_: Round) -> None:
    size = BUFFER_SIZE // 2 - 100
    count = pure_rounds.MAX_BYTES // size + 1
    for _ in range(count + 2):
        fill(*round_.open(limit=BUFFER_SIZE), frame(bytes(size - 8)))
    received, ready = round_.receive()
    assert [len(messages) for _, messages, _ in received] == [1] * count
    assert [events for _, events in ready] == [READ] * 2


@pytest.mark.parametrize("timeout", [0, 0.0, 0.001])
def test_a_round_without_ready_files_ends_in_time(round_: Round, timeout: float) -> None:
    round_.open()
    assert round_.receive(timeout) == ([], [])


class _Late:
    """A poller that reports a file as ready although its data has been read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def poll(self, timeout: float | None, at_most: int) -> list[tuple[int, int]]:
        return [(self._fd, READ)]


def test_a_socket_without_data_is_left_out() -> None:
    found = Round(pure_rounds)
    try:
        wire, _ = found.open()
        files = _Late(wire.fd)
        assert pure_rounds.receive(files, found.wires, found.buffer, 0) == ([], [])
    finally:
        found.close()


# Sending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("text", 6),
        ("", 2),
        (b"bytes", 7),
        (bytes(126), 130),
        ("é", -1),
        (bytearray(b"x"), -1),
        (memoryview(b"x"), -1),
        ("\ud800", -1),
        (7, -1),
    ],
)
def test_only_immutable_messages_are_queued(io: Any, message: Any, size: int) -> None:
    wire = io.Wire()
    assert wire.queue_message(message) == size
    assert len(wire.out) == (size >= 0)


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize(("size", "reported"), [(0, 0), (4092, 0), (4093, 4097)])
def test_the_end_of_a_turn_sends_short_messages(
    io: Any, kind: type, size: int, reported: int
) -> None:
    wire = io.Wire()
    wire.in_turn = True
    message: Any = "x" * size if kind is str else b"x" * size
    assert wire.queue_message(message) == reported
    assert len(wire.out) == 1


@pytest.mark.parametrize("size", [0, 125, 126, 4096, 4097, 65535, 65536, 200_000])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_queued_message_gets_its_header(round_: Round, size: int, kind: type) -> None:
    wire, client = round_.open()
    message: Any = "x" * size if kind is str else b"x" * size
    expected = encode_frame(TEXT if kind is str else BINARY, message)
    assert wire.queue_message(message) == len(expected)
    codec = Connection(Role.CLIENT)
    data = b""
    incomplete = round_.send(wire)
    while True:
        data += drain(client)
        if not incomplete:
            break
        ((found, items, sent),) = incomplete
        assert found is wire
        assert items == [message if kind is str else (message,)]
        wire.out[:0] = [b"".join(pieces_of(items))[sent:]]
        wire.frames_out -= 1
        incomplete = round_.send(wire)
    data += receive_exactly(client, len(expected) - len(data))
    assert codec.receive(data) == [message]
    assert wire.bytes_out == len(expected)
    assert (wire.frames_out, wire.out) == (1, [])


def test_messages_and_data_are_sent_in_order(round_: Round) -> None:
    wire, client = round_.open()
    items: list[Item] = ["a", (b"b",), b"raw", "c" * 5000, b"d" * 5000, (b"e" * 5000,), "f"]
    wire.out.extend(items)
    expected = b"".join(pieces_of(items))
    assert sum(map(size_of, items)) == len(expected)
    assert round_.send(wire, wire) == []
    assert receive_exactly(client, len(expected)) == expected
    assert (wire.frames_out, wire.bytes_out) == (len(items), len(expected))


def test_more_items_than_one_call_accepts_are_sent_by_the_caller(io: Any, round_: Round) -> None:
    wire, client = round_.open()
    wire.out.extend([b"x" * 5000] * 300)
    incomplete = round_.send(wire)
    assert len(incomplete) == 1
    _, items, sent = incomplete[0]
    if io is pure_rounds:
        assert 0 < sent < 300 * 5000
        assert len(items) == 300
    else:
        assert (items, sent, len(wire.out)) == (None, 0, 300)
    assert wire.bytes_out == sent
    assert len(drain(client)) == sent


class WithoutSendmsg:
    """A socket that has no ``sendmsg``, as on Windows."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.calls = 0

    def send(self, data: bytes) -> int:
        self.calls += 1
        return self._sock.send(data)


def test_a_system_without_sendmsg_sends_the_pieces_in_one_call() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sock = WithoutSendmsg(ours)
        pieces = pieces_of(["a", b"b" * 5000, (b"c" * 5000,), "d"])
        assert len(pieces) > 1
        size = sum(map(len, pieces))
        assert pure_rounds.send_pieces(sock, pieces) == size
        assert sock.calls == 1
        assert receive_exactly(theirs, size) == b"".join(pieces)


def test_a_full_socket_accepts_a_part(round_: Round) -> None:
    wire, _ = round_.open()
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    wire.out.append("x" * (1 << 22))
    ((found, items, sent),) = round_.send(wire)
    assert found is wire
    assert items == ["x" * (1 << 22)]
    assert 0 < sent < 1 << 22
    assert wire.bytes_out == sent
    with suppress(BlockingIOError):
        while True:
            wire.sock.send(bytes(1000))
    wire.out.append(b"more")
    assert round_.send(wire) == [(wire, [b"more"], 0)]
    assert wire.bytes_out == sent


def test_a_lost_connection_leaves_its_items_to_the_caller(round_: Round) -> None:
    (lost, client), (other, other_client) = round_.open(), round_.open()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    select.select([lost.sock], [], [], 10)
    lost.out.append("lost")
    other.out.append("kept")
    assert round_.send(lost, other) == [(lost, ["lost"], 0)]
    assert receive_exactly(other_client, 6) == b"\x81\x04kept"
    assert lost.bytes_out == 0


def test_a_connection_that_is_not_clear_is_left_to_the_caller(round_: Round) -> None:
    wire, _ = round_.open()
    wire.clear = False
    assert round_.send(wire) == []  # nothing is queued
    wire.out.append("x")
    assert round_.send(wire) == [(wire, None, 0)]
    assert wire.out == ["x"]


def test_a_waiting_thread_is_reported_after_all_was_sent(round_: Round) -> None:
    wire, client = round_.open()
    wire.waiting = 1
    wire.out.append("x")
    assert round_.send(wire) == [(wire, (), 0)]
    assert receive_exactly(client, 3) == b"\x81\x01x"


def test_a_block_is_sent_to_all_that_have_nothing_else_to_send(round_: Round) -> None:
    wires = [round_.open() for _ in range(140)]  # more than one batch
    wires[1][0].out.append("queued")
    wires[2][0].clear = False
    wires[3][0].waiting = 1
    wires[139][0].out.append("queued")
    found = round_.io.send_block([wire for wire, _ in wires], b"block", 2)
    assert found == [(1, None, 0), (2, None, 0), (3, (), 0), (139, None, 0)]
    for number, (wire, client) in enumerate(wires):
        if number in (1, 2, 139):
            assert (wire.frames_out, wire.bytes_out) == (0, 0)
        else:
            assert receive_exactly(client, 5) == b"block"
            assert (wire.frames_out, wire.bytes_out) == (2, 5)


def test_a_block_that_does_not_fit_is_returned(round_: Round) -> None:
    wires = [round_.open()[0] for _ in range(2)]
    block = bytes(1 << 23)
    found = round_.io.send_block(wires, block, 1)
    assert [number for number, _, _ in found] == [0, 1]
    for number, items, sent in found:
        assert items == [block]
        assert 0 < sent < len(block)
        assert wires[number].bytes_out == sent


# Both on the same random traffic ----------------------------------------------------------------

messages = st.one_of(
    st.text(max_size=50), st.binary(max_size=50), st.binary(min_size=LIMIT + 1, max_size=LIMIT + 9)
)
steps = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 3), messages),
    st.tuples(st.just("bytes"), st.integers(0, 3), st.binary(max_size=20)),
    st.tuples(st.just("answer"), st.integers(0, 3), st.one_of(messages, st.text(max_size=9000))),
    st.tuples(st.just("end"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("replace"), st.integers(0, 3), st.none()),
    st.tuples(st.just("round"), st.integers(0, 3), st.none()),
)


class Twin:
    """One of two sets of connections that receive the same steps."""

    def __init__(self, kernel: str) -> None:
        self.round = Round(functions(kernel))
        self.pairs = [self.round.open() for _ in range(4)]
        self.seen: list[Any] = []
        self.ended: set[int] = set()

    def step(self, what: str, number: int, value: Any) -> None:
        """Take a step; record what is seen."""
        wire, client = self.pairs[number]
        if what == "replace":
            if wire.fd >= 0:
                self.round.close_server(wire)
            client.close()
            self.ended.discard(number)
            self.pairs[number] = self.round.open()
        elif what == "answer" and wire.fd >= 0:
            if wire.queue_message(value) < 0:
                wire.out.append(encode_frame(TEXT, value))
            found = self.round.send(wire)
            self.seen.append([(items, sent) for _, items, sent in found])
        elif what == "round":
            self._receive()
        elif number not in self.ended:
            if what == "end":
                self.ended.add(number)
                if value:
                    client.shutdown(socket.SHUT_WR)
            else:
                client.sendall(frame(value) if what == "send" else value)

    def _receive(self) -> None:
        """Receive until nothing is ready; record everything, by connection."""
        by_session: dict[Any, Any] = {}
        for _ in range(3):
            received, ready = self.round.receive(0)
            for session, taken, rest in received:
                by_session.setdefault(session, []).append((taken, rest))
            for fd, events in ready:
                wire = self.round.wires[fd]
                by_session.setdefault(wire.session, []).append(events)
                self.round.close_server(wire)
        self.seen.append(sorted(by_session.items()))

    def state(self) -> Any:
        """Return everything that must agree."""
        return self.seen, [
            (wire.bytes_in, wire.messages_in, wire.bytes_out, wire.frames_out, drain(client))
            for wire, client in self.pairs
        ]


def test_a_signal_ends_one_wait(io: ModuleType) -> None:
    signal = io.Signal()
    assert not signal.is_set
    assert not signal.wait(0)
    signal.set()
    signal.set()
    assert signal.is_set
    assert signal.wait(None)
    assert not signal.is_set
    assert not signal.wait(0.001)


def test_a_wait_sets_the_signal_of_another_thread(io: ModuleType) -> None:
    first, second = io.Signal(), io.Signal()

    def answer() -> None:
        for _ in range(100):
            assert second.wait(10)
            first.set()

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(100):
        assert first.wait(10, second)
    thread.join()
    second.set()
    assert not first.wait(0, second)  # it is set already
    assert second.wait(0)
    assert not second.wait(0)


@given(st.lists(steps, max_size=25))
def test_both_kernels_do_the_same(taken: list[tuple[str, int, Any]]) -> None:
    with ExitStack() as stack:
        twins = [Twin(kernel) for kernel in KERNELS]
        for twin in twins:
            stack.callback(twin.round.close)
        for step in [*taken, ("round", 0, None)]:
            for twin in twins:
                twin.step(*step)
        assert twins[0].state() == twins[1].state()

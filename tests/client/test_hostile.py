"""The memory that hostile servers cost a client at most, measured in a new process."""

from __future__ import annotations

import re
import socket
import sys
import threading
from contextlib import suppress
from select import select
from types import ModuleType

import pytest

from tests.client.visitor import Visited, visit
from tests.support.deflated import bomb
from tests.support.memory import Growth, at_most, in_fresh_process
from tests.support.scripted import Script, Visit
from tests.support.waiting import TIMEOUT
from wsframe import (
    Close,
    Connection,
    Event,
    Opcode,
    PerMessageDeflate,
    Ping,
    Pong,
    Role,
    encode_frame,
)

from .conftest import Connect, Play

pytestmark = [
    pytest.mark.unmeasured,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="no peak to be read"),
]

MIB = 1 << 20
MESSAGE_LIMIT = MIB
# The memory of a client besides its messages: one read, 64 pongs, and caches of the interpreter.
# Observed: 0.5 MiB.
SLACK = MIB
# Twice the socket buffers of both ends, for one direction.
KERNEL = 64 * MIB
PINGS = encode_frame(Opcode.PING, bytes(125)) * 1000


def visited(codec: ModuleType, play: Play, script: Script, message: bytes = b"") -> Visited:
    """Return the most memory, and the end, of a client of this server."""
    return in_fresh_process(not codec.ACCELERATED, visit, play(script).url(), message)


def read_to_close(server: Visit) -> tuple[list[Event], Close]:
    """Return the client's events up to its close frame, and that."""
    events: list[Event] = []
    while not isinstance(event := server.next_event(), Close):
        events.append(event)
    return events, event


def flood(server: Visit, block: bytes, times: int) -> list[Event]:
    """Send the block this number of times, and read the client's data meanwhile.

    Otherwise both ends might wait long after their buffers were emptied: a system that drops
    packets for lack of memory also drops window updates.
    """
    events: list[Event] = []
    view = memoryview(block)
    sent = 0
    while sent < times * len(block):
        readable, writable, _ = select([server.sock], [server.sock], [], TIMEOUT)
        assert readable or writable
        if readable:
            events += server.codec.receive(server.sock.recv(1 << 16))
        if writable:
            begin = sent % len(block)
            sent += server.sock.send(view[begin : begin + 16384])
    return events


@pytest.mark.parametrize("size", [0, 8 * MIB], ids=["receiving", "sending"])
def test_many_pings(codec: ModuleType, play: Play, size: int) -> None:
    def script(server: Visit) -> None:
        server.upgrade()
        events = flood(server, PINGS, 50)
        server.send(server.codec.ping(b"the last"))
        server.send_messages("that is all")
        server.send(server.codec.close())
        events += read_to_close(server)[0]
        assert [event for event in events if isinstance(event, Pong)][-1] == Pong(b"the last")
        assert bytes(size) in events

    client = visited(codec, play, script, bytes(size))
    assert (client.received, client.code) == (["that is all"], 1000)
    assert client.growth < at_most(
        2 * size + SLACK
    )  # the frame, and the parts that the pure kernels join


def test_unsent_pongs_are_limited(codec: ModuleType) -> None:
    """Only the last pings need an answer (RFC 6455 section 5.5.3)."""
    ours, theirs = socket.socketpair()
    with theirs:
        transport = codec.client.transport.Transport(ours)
        exchange = codec.client.exchange.Exchange(
            transport,
            codec.Connection(codec.Role.CLIENT),
            1 << 20,
            send_timeout=TIMEOUT,
            ping_interval=TIMEOUT,
            ping_timeout=TIMEOUT,
        )
        with exchange.state:
            with Growth() as growth:
                for _ in range(30):
                    exchange.feed(PINGS)
            exchange.feed(encode_frame(Opcode.PING, b"the last"))
            exchange.push(exchange.codec.ping(b"pushed"))
            exchange.abort("enough")
        received = Connection(Role.SERVER).receive(theirs.recv(1 << 16))
    assert received == [*[Pong(bytes(125))] * 63, Pong(b"the last"), Ping(b"pushed")]
    assert growth.size < at_most(SLACK)


def test_pings_while_no_thread_uses_the_client(connect: Connect, play: Play) -> None:
    stuck = threading.Event()

    def script(server: Visit) -> None:
        server.upgrade()
        server.sock.setblocking(False)
        sent = 0
        while sent < 2 * KERNEL and select([], [server.sock], [], 1.0)[1]:
            with suppress(BlockingIOError):
                sent += server.sock.send(memoryview(PINGS)[sent % len(PINGS) :])
        server.sock.settimeout(TIMEOUT)
        stuck.set()
        assert sent < KERNEL
        server.send(PINGS[sent % len(PINGS) :])
        server.send_messages("that is all")
        read_to_close(server)

    ws = connect(play(script).url())
    with Growth() as growth:
        assert stuck.wait(3 * TIMEOUT)
    assert growth.size < at_most(SLACK)
    assert ws.receive(TIMEOUT) == "that is all"


def test_a_compression_bomb(codec: ModuleType, play: Play) -> None:
    closes = []

    def script(server: Visit) -> None:
        server.upgrade(deflate=PerMessageDeflate())
        server.send(encode_frame(Opcode.BINARY, bomb(40 * MIB), rsv=4))
        closes.append(read_to_close(server)[1])

    client = visited(codec, play, script)
    reason = rf"a message that inflates to \d+ bytes or more is over the limit of {MESSAGE_LIMIT}"
    assert client.code == 1009
    assert re.fullmatch(reason, client.reason or "")
    assert closes == [Close(1009, client.reason or "")]
    assert client.received == []
    assert client.growth < at_most(MESSAGE_LIMIT + SLACK)


@pytest.mark.parametrize(
    ("length", "code", "reason"),
    [
        (
            (1 << 63) - 1,
            1009,
            f"a message of {(1 << 63) - 1} bytes or more is over the limit of {MESSAGE_LIMIT}",
        ),
        (1 << 63, 1002, "the highest bit of a payload length must be 0"),
    ],
)
def test_a_header_with_a_length_over_the_limit(
    codec: ModuleType, play: Play, length: int, code: int, reason: str
) -> None:
    def script(server: Visit) -> None:
        server.upgrade()
        server.send(b"\x82\x7f" + length.to_bytes(8, "big"))
        assert server.expect(2) == [b"", Close(code, reason)]

    client = visited(codec, play, script)
    assert (client.code, client.reason, client.received) == (code, reason, [])
    assert client.growth < at_most(SLACK)


def test_a_million_empty_fragments_are_refused(codec: ModuleType, play: Play) -> None:
    def script(server: Visit) -> None:
        server.upgrade()
        server.send(encode_frame(Opcode.TEXT, b"", fin=False))
        for _ in range(1000):
            server.send(encode_frame(Opcode.CONTINUATION, b"", fin=False) * 1000)
        read_to_close(server)

    client = visited(codec, play, script)
    reason = f"a message in more fragments than the limit of {MESSAGE_LIMIT // 16}"
    assert (client.code, client.reason, client.received) == (1009, reason, [])
    assert client.growth < at_most(SLACK)

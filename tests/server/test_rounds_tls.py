"""TLS in a round: the compiled functions and those in Python, over real sockets."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from tests.server.test_rounds import BUFFER_SIZE, KERNELS, LIMIT, Round, frame, functions
from tests.support.certificates import Certificates
from wsframe.server.handoff.poller import READ
from wsframe.server.pure_rounds import GAP, SEAL_AT_ONCE
from wsframe.server.sockets.records import Records


@pytest.fixture(params=KERNELS)
def io(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = functions(request.param)
    return module


class Secured:
    """A connection with TLS after its handshake, and its client.

    Attributes:
        wire: the connection, in a round of its own.
        client: the client's socket.
    """

    def __init__(self, io: Any, certificates: Certificates, limit: int = LIMIT) -> None:
        self.round = Round(io)
        self.wire, self.client = self.round.open(limit=limit)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = certificates.client.wrap_bio(
            self._incoming, self._outgoing, server_hostname="127.0.0.1"
        )
        records = Records(certificates.server)
        memory = memoryview(bytearray(BUFFER_SIZE))
        done = False
        while not done:
            with suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
            flight = self._outgoing.read()
            memory[GAP : GAP + len(flight)] = flight
            assert records.feed(memory, len(flight))
            done = records.shake_hands()
            self._incoming.write(records.answer())
        records.secure()
        self.wire.tls = records

    def records(self, *pieces: bytes) -> bytes:
        """Return a record of the client for each of these pieces of data."""
        for piece in pieces:
            self._tls.write(piece)
        return self._outgoing.read()

    def end(self) -> bytes:
        """Return the client's close_notify."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    def read(self, size: int) -> bytes:
        """Return this many bytes of the data that the client receives."""
        data = b""
        while len(data) < size:
            try:
                data += self._tls.read(size - len(data))
            except ssl.SSLWantReadError:
                self._incoming.write(self.client.recv(1 << 16))
        return data

    def receive(self) -> tuple[list[Any], list[Any]]:
        """Run rounds until something was received."""
        for _ in range(1000):
            received, ready = self.round.receive()
            if received or ready:
                return received, ready
        pytest.fail("nothing was received")


@pytest.fixture
def secured(io: ModuleType, certificates: Certificates) -> Iterator[Secured]:
    found = Secured(io, certificates)
    yield found
    found.round.close()


def test_messages_are_taken_from_records(secured: Secured) -> None:
    data = secured.records(frame("one") + frame("two"), frame(b"three"))
    secured.client.sendall(data)
    messages: list[Any] = []
    while len(messages) < 3:
        received, ready = secured.receive()
        assert ready == []
        messages += received[0][1]
        assert received[0][2] is None
    assert messages == ["one", "two", b"three"]
    assert secured.wire.bytes_in == len(data)
    assert secured.wire.messages_in == 3


@pytest.mark.parametrize("size", [1, 3, 5, 6, 7, 100])
def test_records_may_arrive_in_parts(secured: Secured, size: int) -> None:
    expected = [str(number) for number in range(5)]
    data = secured.records(*(frame(message) for message in expected))
    messages: list[Any] = []
    for begin in range(0, len(data), size):
        secured.client.sendall(data[begin : begin + size])
        received, ready = secured.round.receive()
        assert ready == []
        for _, taken, rest in received:
            messages += taken
            assert rest is None
    assert messages == expected


def test_data_of_an_earlier_record_overwrites_no_later_one(
    io: ModuleType, certificates: Certificates
) -> None:
    secured = Secured(io, certificates, limit=1 << 20)
    try:
        payloads = [os.urandom(16000) for _ in range(4)]
        data = secured.records(*map(frame, payloads))
        secured.client.sendall(data[:16000])  # the first record, except its end
        assert secured.round.receive() == ([], [])
        secured.client.sendall(data[16000:])
        messages: list[Any] = []
        while len(messages) < len(payloads):
            received, ready = secured.receive()
            assert ready == []
            messages += received[0][1]
        assert messages == payloads
    finally:
        secured.round.close()


def test_data_beyond_a_limit_is_decrypted_later(certificates: Certificates) -> None:
    secured = Secured(functions("python"), certificates)
    tls, data = secured.wire.tls, secured.records(bytes(5000), b"more", b"and more")
    secured.round.close()
    memory = memoryview(bytearray(BUFFER_SIZE))
    memory[GAP : GAP + len(data)] = data
    assert tls.decrypt(memory, GAP, GAP + len(data), 0, 4096) == 4096
    sizes = []
    while tls.more:
        sizes.append(tls.take(memory, 4096))
    assert sizes == [904, 4, 8]
    assert bytes(memory[:8]) == b"and more"


def test_the_end_of_tls_is_returned_as_readable_after_the_messages(secured: Secured) -> None:
    secured.client.sendall(secured.records(frame("last")) + secured.end())
    received: list[Any] = []
    ready: list[Any] = []
    while not ready:
        more, ready = secured.receive()
        received += more
    assert [messages for _, messages, _ in received] == [["last"]]
    assert ready == [(secured.wire.fd, READ)]
    assert secured.wire.tls.ended


@pytest.mark.parametrize(
    "damage",
    [b"GET / HTTP/1.1\r\n", b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\x00\x20" + bytes(32)],
    ids=["no record", "too long", "not authentic"],
)
def test_a_violation_of_tls_is_returned_as_readable(secured: Secured, damage: bytes) -> None:
    secured.client.sendall(damage)
    assert secured.receive() == ([], [(secured.wire.fd, READ)])
    assert secured.wire.tls.ended
    assert secured.wire.tls.output()[:1] in (b"\x15", b"\x17")  # an alert


def test_queued_items_are_sent_as_records(secured: Secured) -> None:
    wire = secured.wire
    wire.out.extend([b"raw", "text", (b"bytes",)])
    assert secured.round.send(wire) == []
    plain = b"raw" + b"\x81\x04text" + b"\x82\x05bytes"
    assert secured.read(len(plain)) == plain
    assert (wire.out, wire.frames_out) == ([], 3)
    assert wire.bytes_out > len(plain)


def test_a_long_item_is_sent_in_several_records(io: ModuleType, certificates: Certificates) -> None:
    secured = Secured(io, certificates)
    try:
        secured.round.scratch = bytearray(2 * SEAL_AT_ONCE)
        payload = os.urandom(50_000)
        secured.wire.out.append((payload,))
        assert secured.round.send(secured.wire) == []
        assert secured.read(4 + len(payload))[4:] == payload
    finally:
        secured.round.close()


def test_records_that_the_socket_does_not_accept_are_returned(secured: Secured) -> None:
    wire = secured.wire
    secured.round.scratch = bytearray(2 * SEAL_AT_ONCE)
    sent: list[bytes] = []
    while True:
        wire.out.append(bytes([len(sent) % 256]) * 60_000)
        sent.append(wire.out[-1])
        incomplete = secured.round.send(wire)
        if incomplete:
            break
    [(name, records, size)] = incomplete
    assert name is wire
    assert isinstance(records, bytes)
    assert 0 <= size < len(records)
    assert wire.out == []
    # The rest completes the stream of records.
    wire.sock.setblocking(True)
    expected = b"".join(sent)
    half = len(expected) // 2
    assert secured.read(half) == expected[:half]
    wire.sock.sendall(memoryview(records)[size:])
    assert secured.read(len(expected) - half) == expected[half:]


def test_items_that_cannot_be_encrypted_here_stay_queued(secured: Secured) -> None:
    wire = secured.wire
    secured.round.scratch = bytearray(2 * SEAL_AT_ONCE)
    wire.out.append(bytes(SEAL_AT_ONCE + 1))
    assert secured.round.send(wire) == [(wire, None, 0)]
    wire.out[:] = ["first", "second"]
    wire.tls.secured = False
    assert secured.round.send(wire) == [(wire, None, 0)]
    assert wire.out == ["first", "second"]
    assert wire.frames_out == 0
    wire.clear = True
    wire.out.clear()
    assert secured.round.io.send_block([wire], b"block", 1) == [(0, None, 0)]

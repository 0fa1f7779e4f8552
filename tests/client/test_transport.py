"""A socket that never blocks, and the want errors of TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from time import monotonic
from types import ModuleType
from typing import Any

import pytest

READ, WRITE = 1, 2


class Rekeying(socket.socket):
    """A socket that must read to send, or send to read, as TLS does for key updates.

    Attributes:
        wants: the error that it raises while this is set.
    """

    wants: ssl.SSLError | None = None

    def recv_into(self, *arguments: Any) -> int:
        """Receive, or raise the error."""
        if self.wants is not None:
            raise self.wants
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        """Send, or raise the error."""
        if self.wants is not None:
            raise self.wants
        return super().send(*arguments)


class Ends:
    """A transport, and the socket at its other end."""

    def __init__(self, codec: ModuleType) -> None:
        ours, self.there = socket.socketpair()
        self.here = Rekeying(fileno=ours.detach())
        self.transport = codec.client.transport.Transport(self.here)
        self.buffer = memoryview(bytearray(16))

    def receive(self) -> bytes | None:
        """Return the bytes that the transport receives."""
        size = self.transport.receive(self.buffer)
        return None if size is None else self.buffer[:size].tobytes()


@pytest.fixture
def ends(codec: ModuleType) -> Iterator[Ends]:
    """Both ends of a connection."""
    ends = Ends(codec)
    with ends.there:
        yield ends
        ends.transport.close()


def test_available_bytes_are_received_at_once(ends: Ends) -> None:
    assert ends.receive() is None
    ends.there.send(b"x" * 17)
    assert ends.receive() == b"x" * 16
    assert ends.receive() == b"x"
    ends.there.close()
    assert ends.receive() == b""


def test_bytes_that_the_socket_accepts_are_sent_at_once(ends: Ends) -> None:
    sent = 0
    while size := ends.transport.send(memoryview(bytes(1 << 16))):
        sent += size
    assert not ends.transport.poll(WRITE, 0)
    while sent:
        sent -= len(ends.there.recv(sent))
    assert ends.transport.poll(WRITE, 10)


def test_the_socket_is_polled_for_the_given_events(ends: Ends) -> None:
    poll = ends.transport.poll
    assert not poll(0, 0)
    assert not poll(READ, 0)
    assert poll(READ | WRITE, 10)
    ends.there.send(b"x")
    assert not poll(0, 0)
    assert poll(READ, 10)


def test_a_wake_up_ends_one_poll(ends: Ends) -> None:
    for _ in range(100_000):  # more than fit
        ends.transport.wake()
    ends.there.send(b"x")
    while not ends.transport.poll(READ, 10):
        pass
    ends.transport.wake()
    assert not ends.transport.poll(0, 10)
    began = monotonic()
    assert not ends.transport.poll(0, 0.05)
    assert monotonic() - began >= 0.05


@pytest.mark.parametrize(
    ("wants", "event"), [(ssl.SSLWantReadError(), READ), (ssl.SSLWantWriteError(), WRITE)]
)
def test_tls_may_have_to_send_to_receive_and_to_receive_to_send(
    ends: Ends, wants: ssl.SSLError, event: int
) -> None:
    ends.here.wants = wants
    assert ends.receive() is None
    assert ends.transport.send(memoryview(b"x")) == 0
    assert ends.transport.receives_on == ends.transport.sends_on == event
    ends.here.wants = None
    ends.there.send(b"x")
    assert ends.transport.send(memoryview(b"x")) == 1
    assert ends.receive() == b"x"

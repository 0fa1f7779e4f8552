"""A socket that never makes a thread wait; and what TLS asks of it at the oddest times."""

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
    """A socket that wants another thing than it was asked for, as TLS does for keys of its own.

    Attributes:
        wants: what it raises, as long as it is set.
    """

    wants: ssl.SSLError | None = None

    def recv_into(self, *arguments: Any) -> int:
        """Receive, or want."""
        if self.wants is not None:
            raise self.wants
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        """Send, or want."""
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
        """What the transport receives."""
        size = self.transport.receive(self.buffer)
        return None if size is None else self.buffer[:size].tobytes()


@pytest.fixture
def ends(codec: ModuleType) -> Iterator[Ends]:
    """Both ends of a connection."""
    ends = Ends(codec)
    with ends.there:
        yield ends
        ends.transport.close()


def test_what_is_there_is_received_at_once(ends: Ends) -> None:
    assert ends.receive() is None
    ends.there.send(b"x" * 17)
    assert ends.receive() == b"x" * 16
    assert ends.receive() == b"x"
    ends.there.close()
    assert ends.receive() == b""


def test_what_the_socket_takes_is_sent_at_once(ends: Ends) -> None:
    sent = 0
    while size := ends.transport.send(memoryview(bytes(1 << 16))):
        sent += size
    assert not ends.transport.poll(WRITE, 0)
    while sent:
        sent -= len(ends.there.recv(sent))
    assert ends.transport.poll(WRITE, 10)


def test_the_socket_is_polled_for_what_is_wanted(ends: Ends) -> None:
    poll = ends.transport.poll
    assert not poll(0, 0)
    assert not poll(READ, 0)
    assert poll(READ | WRITE, 10)
    ends.there.send(b"x")
    assert not poll(0, 0)
    assert poll(READ, 10)


def test_a_wake_ends_one_wait(ends: Ends) -> None:
    for _ in range(100_000):  # more than have a place
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

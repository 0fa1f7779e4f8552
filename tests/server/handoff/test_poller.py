"""The poller without epoll, which has the same events."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from wsframe.server.handoff.poller import HANGUP, READ, WRITE, Poller
from wsframe.server.rounds import Wire


@pytest.fixture
def poller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    """A poller in a process that has no epoll."""
    monkeypatch.delattr(select, "epoll", raising=False)
    poller = Poller()
    yield poller
    poller.close()


def test_files_are_ready_for_the_events_that_they_wait_for(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        poller.register(fd, READ)
        assert poller.receive(0) == ([], [])
        theirs.send(b"x")
        assert poller.receive(10) == ([], [(fd, READ)])
        poller.modify(fd, READ | WRITE)
        assert poller.receive(10) == ([], [(fd, READ | WRITE)])
        poller.modify(fd, WRITE)
        assert poller.receive(10) == ([], [(fd, WRITE)])
        poller.unregister(fd)
        assert poller.receive(0) == ([], [])


def test_a_file_that_waits_only_for_a_hang_up_is_never_ready(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.register(ours.fileno(), HANGUP)
        theirs.send(b"x")
        assert poller.receive(0) == ([], [])
        poller.modify(ours.fileno(), READ)
        assert poller.receive(10) == ([], [(ours.fileno(), READ)])
        poller.modify(ours.fileno(), HANGUP)
        poller.unregister(ours.fileno())


def test_connections_are_received_without_epoll(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        wire = Wire()
        wire.fd, wire.sock, wire.session, wire.limit = ours.fileno(), ours, "session", 100
        poller.register(wire.fd, READ, wire)
        theirs.send(b"\x81\x82\x00\x00\x00\x00hi")
        assert poller.receive(10) == ([("session", ["hi"], None)], [])
        wire.out.append("hi")
        assert poller.send([wire]) == []
        assert theirs.recv(10) == b"\x81\x02hi"
        assert poller.send_block([wire], b"block", 1) == []
        assert theirs.recv(10) == b"block"
        poller.unregister(wire.fd)

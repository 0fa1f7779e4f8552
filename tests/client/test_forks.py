"""Connections with a copy in a child process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.certificates import Certificates
from tests.support.scripted import Visit

from .conftest import Connect, Play


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Copy each connected socket, as a fork at that time does."""
    held: list[socket.socket] = []
    connect = socket.socket.connect

    def connect_and_copy(sock: socket.socket, address: object) -> None:
        connect(sock, address)  # type: ignore[arg-type]
        held.append(sock.dup())

    monkeypatch.setattr(socket.socket, "connect", connect_and_copy)
    yield held
    for copy in held:
        copy.close()


@pytest.mark.parametrize("secured", [False, True])
def test_the_server_sees_a_closed_websocket_despite_a_copy(
    connect: Connect,
    play: Play,
    copies: list[socket.socket],
    certificates: Certificates,
    secured: bool,
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()
        visit.wait_for_end()

    server = play(script, tls=certificates.server if secured else None)
    ws = connect(server.url(), close_timeout=0.05, ssl=certificates.client)
    ws.close()
    server.stop()
    assert len(copies) == 1


def test_the_server_sees_a_closed_event_stream_despite_a_copy(
    events: Connect, play: Play, copies: list[socket.socket]
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    server = play(script)
    source = events(server.http_url())
    assert next(source).data == "one"
    source.close()
    server.stop()
    assert len(copies) == 1


def test_the_server_sees_a_rejected_connection_despite_a_copy(
    codec: ModuleType, play: Play, copies: list[socket.socket]
) -> None:
    def script(visit: Visit) -> None:
        visit.answer(403, ("Content-Length", "0"))
        visit.wait_for_end()

    server = play(script)
    with pytest.raises(codec.HandshakeError, match="403"):
        codec.client.connect(server.url())
    server.stop()
    assert len(copies) == 1


def test_a_child_that_closes_its_copy_does_not_disconnect_its_parent(
    connect: Connect,
    events: Connect,
    play: Play,
    copies: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def websocket(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()
        assert visit.sock.recv(1) == b"x"

    def stream(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        assert visit.sock.recv(1) == b"x"

    server = play(websocket, stream)
    ws = connect(server.url(), close_timeout=0.05)
    source = None
    with monkeypatch.context() as child:
        pid = os.getpid() + 1
        child.setattr(os, "getpid", lambda: pid)
        ws.close()
    copies[0].send(b"x")
    source = events(server.http_url())
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: pid)
        source.close()
    copies[1].send(b"x")
    server.stop()

"""Slow clients are served as long as they make progress; others are disconnected."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path

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
from tests.support.clients import END_OF_HEAD, Clients, WebSocketClient, can_vanish, get, masked
from tests.support.handlers import STEP
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe import Close, Opcode, Ping
from wsframe.progress import ACKNOWLEDGED_INTERVALS

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.unmeasured
@BUFFERS
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@EVERY_KIND
def test_a_slow_but_steady_client_receives_everything(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    kind: str,
    secured: bool,
    receive_buffer: int,
    size: int,
) -> None:
    """With the default settings, also when the client's kernel accepts everything at once."""
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
def test_a_client_that_reads_nothing_is_disconnected_in_time(
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
    log.expect("30 s (send_timeout)", logging.WARNING)
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):  # the system keeps nothing of it
        everything(client)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_client_that_stops_reading_is_disconnected_in_time(
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
    log.expect("(send_timeout)", logging.WARNING)


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
        log.expect("(send_timeout)", logging.WARNING)


@can_vanish
@pytest.mark.parametrize("path", ["/echo", "/silent"])
def test_a_vanished_client_is_disconnected_in_time(
    serve: Serve, clients: Clients, log: ServerLog, path: str
) -> None:
    """It does not acknowledge the ping or the comment that it is sent while it is silent."""
    scene = Scene(serve)
    if path == "/echo":
        clients.websocket(scene.server, path).vanish()
    else:
        stream = clients.stream(scene.server, path)
        stream.read_opening()
        stream.vanish()
    scene.expect_end(60)
    if path == "/silent":
        log.expect("(send_timeout)", logging.WARNING)


def test_no_ping_is_sent_while_data_is_acknowledged(serve: Serve, clients: Clients) -> None:
    scene = Scene(serve, send_timeout=600)
    client = WebSocketClient(
        scene.server.port, "/websocket", receive_buffer=SMALL, answer_pings=False
    )
    with client.sock:
        received = scene.read_slowly(client, MUCH // 2)
        scene.pass_time(
            DEFAULT.ping_interval * ACKNOWLEDGED_INTERVALS * 2
        )  # nothing is acknowledged now
        received += scene.read_slowly(client, MUCH - len(received))
        assert not any(isinstance(event, Ping) for event in client.codec.receive(received))


@pytest.mark.slow
def test_a_client_that_only_acknowledges_is_pinged_at_intervals(
    serve: Serve, clients: Clients
) -> None:
    """Its program may be suspended while its kernel acknowledges."""
    scene = Scene(serve)
    client = clients.websocket(scene.server, "/topic", answer_pings=False)
    count = 0

    def publish_for(seconds: float) -> None:
        nonlocal count
        for _ in range(int(seconds)):
            scene.news.publish(str(count))
            count += 1
            scene.pass_time(1)
            scene.until_acknowledged()

    publish_for(DEFAULT.ping_interval * (ACKNOWLEDGED_INTERVALS - 1))
    assert client.expect(count) == list(map(str, range(count)))
    publish_for(DEFAULT.ping_interval * 2 + DEFAULT.ping_timeout)
    events = [client.next_event()]
    while not isinstance(events[-1], Close):
        events.append(client.next_event())
    assert events.count(Ping(b"")) == 1
    assert events[-1].code == 1011


@can_vanish
def test_the_ping_timeout_starts_when_the_ping_is_acknowledged(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve, ping_timeout=10, send_timeout=600)
    client = clients.websocket(scene.server, "/echo", answer_pings=False)
    (peer,) = scene.peers
    scene.pass_time(DEFAULT.ping_interval - 1)
    client.vanish()
    before = peer.bytes_out
    while peer.bytes_out == before:
        scene.pass_time(STEP)
    scene.pass_time(8)
    client.reappear()
    assert client.next_event() == Ping(b"")
    scene.until_acknowledged()
    scene.pass_time(8)
    assert not scene.is_over()
    scene.pass_time(8)
    assert client.next_event() == Close(1011, "no pong within 10 s (ping_timeout)")


def test_no_client_times_out_after_a_suspension_of_the_process(
    serve: Serve, clients: Clients
) -> None:
    """Neither a client that has answered an earlier ping meanwhile, nor any other."""
    scene = Scene(serve)
    pinged = clients.websocket(scene.server, "/echo", answer_pings=False)
    scene.pass_time(DEFAULT.ping_interval * 1.5)
    assert pinged.next_event() == Ping(b"")
    idle = clients.websocket(scene.server, "/echo", answer_pings=False)
    request = clients.connect(scene.server)
    request.send(get("/silent")[:-1])
    wait_until(lambda: len(scene.peers) == 3, "all are connected")
    scene.clock.jump(scene.server, 3600)
    scene.pass_time(STEP)
    pinged.send(pinged.codec.pong(b""))
    request.send(b"\n")
    request.read_until(END_OF_HEAD)
    scene.pass_time(DEFAULT.ping_timeout / 2)
    for client in pinged, idle:
        client.send_messages("still there")
        assert client.next_event() == "still there"


def test_after_a_suspension_a_client_has_its_full_time_to_answer_a_ping(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve)
    client = clients.websocket(scene.server, "/echo", answer_pings=False)
    scene.clock.jump(scene.server, 3600)
    scene.pass_time(DEFAULT.ping_interval * 1.5 + 1)
    assert client.next_event() == Ping(b"")
    scene.until_acknowledged()
    scene.pass_time(DEFAULT.ping_timeout / 2)
    client.send(client.codec.pong(b""))
    client.send_messages("still there")
    assert client.next_event() == "still there"

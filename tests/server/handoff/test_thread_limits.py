"""Clients that hold threads: other clients still get threads."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from logging import WARNING
from pathlib import Path

import pytest

from tests.server.handoff.thread_limits import (
    ATTACKS,
    LIMITS,
    NO_ADDRESS,
    OF_RESERVE,
    SHARE,
    Attacked,
    assert_no_thread,
    assert_others_are_served,
    attack,
    status_of,
)
from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import Checkpoint
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, EventStream, WebSocket

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.1 is the only address")


PART = SHARE // 2


BATCH = 400  # clients that ask at once, for the sake of the open files of this process


@pytest.mark.slow
@pytest.mark.unmeasured
@on_linux
@pytest.mark.parametrize("path", ATTACKS)
@pytest.mark.parametrize("attackers", [64, 500])
def test_silent_clients_of_one_route_leave_threads_to_the_others(
    serve: Serve,
    clients: Clients,
    log: ServerLog,
    attacked: Attacked,
    path: str,
    attackers: int,
) -> None:
    share, message = ATTACKS[path]
    server = serve(attacked.app, **NO_ADDRESS)
    silent = attack(clients, server, path, share)
    attacked.until_entered(share)
    for number in range(0, attackers - share, BATCH):
        for client in attack(clients, server, path, min(BATCH, attackers - share - number)):
            assert_no_thread(client)
    log.expect(message, WARNING)
    assert attacked.entered.empty()
    for source in (None, "127.0.0.2"):
        assert_others_are_served(clients, server, source)
    wait_until(lambda: server.stats().handlers_in_threads == share, "the others have ended")
    attacked.held.release()
    wait_until(lambda: server.stats().handlers_in_threads == 0, "all have ended")
    silent[0].close()
    (late,) = attack(clients, server, path, 1)
    assert status_of(late) in (101, 200)


@on_linux
@pytest.mark.parametrize("path", ATTACKS)
def test_silent_clients_of_one_address_leave_the_route_and_other_routes_to_others(
    serve: Serve, clients: Clients, attacked: Attacked, path: str
) -> None:
    part = PART if path in ("/plain", "/events") else PART + OF_RESERVE
    server = serve(attacked.app, **LIMITS)
    attack(clients, server, path, part)
    attacked.until_entered(part)
    for client in attack(clients, server, path, 64):
        assert_no_thread(client)
    assert_others_are_served(clients, server)
    attack(clients, server, path, 1, source="127.0.0.2")
    attacked.until_entered(1)


@on_linux
@pytest.mark.parametrize("kind", ["plain", "events"])
def test_one_address_leaves_threads_to_other_addresses(
    serve: Serve, clients: Clients, log: ServerLog, kind: str
) -> None:
    held = Checkpoint()
    app = App()
    for number in range(8):

        def plain(ws: WebSocket) -> None:
            held.wait()

        def events(stream: EventStream) -> Iterator[str]:
            yield "first"
            held.wait()

        if kind == "plain":
            app.websocket(f"/{number}")(plain)
        else:
            app.sse(f"/{number}")(events)
    server = serve(app, **LIMITS)
    ask = upgrade if kind == "plain" else get

    def status(number: int, source: str | None = None) -> int:
        client = clients.connect(server, source=source)
        client.send(ask(f"/{number}"))
        return status_of(client)

    granted = 101 if kind == "plain" else 200
    assert [status(number) for number in (0, 0, 0)] == [granted] * PART + [503]
    log.expect("because the client's network uses its share of the route's threads", WARNING)
    assert [status(number) for number in range(1, 5)] == [granted] * (SHARE - PART) + [503] * 2
    assert [status(number, "127.0.0.2") for number in range(5)] == [granted] * SHARE + [503]
    held.release()


def plain_app(held: Checkpoint, routes: int = 8) -> App:
    app = App()
    for number in range(routes):

        @app.websocket(f"/{number}")
        def plain(ws: WebSocket) -> None:
            held.wait()

    return app


@pytest.mark.parametrize(
    ("trusted", "forwarded", "granted"),
    [
        ((), "203.0.113.{}", SHARE),  # every client can send this header
        (("127.0.0.1",), "203.0.113.{}", 2 * SHARE),
        (("127.0.0.1",), "203.0.113.1", SHARE),
        (("127.0.0.1",), "2001:db8::{}", SHARE),  # one network
        (("127.0.0.1",), "2001:db8:{}::1", 2 * SHARE),
        (("127.0.0.1",), None, 2 * SHARE),  # the client is unknown
    ],
)
def test_behind_a_trusted_proxy_the_forwarded_address_counts(
    serve: Serve,
    clients: Clients,
    trusted: tuple[str, ...],
    forwarded: str | None,
    granted: int,
) -> None:
    held = Checkpoint()
    server = serve(plain_app(held, 2 * SHARE + 1), **LIMITS, trusted_proxies=trusted)
    statuses = []
    for number in range(2 * SHARE + 1):
        headers = [] if forwarded is None else [("X-Forwarded-For", forwarded.format(number + 1))]
        client = clients.connect(server)
        client.send(upgrade(f"/{number}", *headers))
        statuses.append(status_of(client))
    assert statuses == [101] * granted + [503] * (2 * SHARE + 1 - granted)
    held.release()


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_clients_of_a_unix_socket_have_no_address(tmp_path: Path) -> None:
    held = Checkpoint()
    with (
        plain_app(held).start(unix=tmp_path / "socket", **LIMITS),
        ExitStack() as stack,
    ):
        statuses = []
        for number in range(8):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(TIMEOUT)
            sock.connect(str(tmp_path / "socket"))
            sock.sendall(upgrade(f"/{number}"))
            statuses.append(sock.recv(1 << 16)[9:12])
        assert statuses == [b"101"] * 8
        held.release()

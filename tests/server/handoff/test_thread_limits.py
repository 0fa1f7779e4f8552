"""Clients that hold threads: others find some all the same, and who finds none is told at once."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from logging import WARNING
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.server.conftest import Clients, Serve, ServerLog, wait_until
from tests.support.clients import TIMEOUT, Client, get, masked, upgrade
from tests.support.handlers import Held, Waits, generator_echo
from wsframe import ConnectionClosed, Opcode
from wsframe.server import App, EventStream, Request, Server, WebSocket
from wsframe.server.handoff.turns import WAITING
from wsframe.server.sessions.websocket import WebSocketSession
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.1 is the only address")
# How many threads one route, or one address, may use in these tests, and one address of a route.
SHARE = 4
PART = SHARE // 2
LIMITS: dict[str, Any] = {
    "max_threads": 2 * SHARE,
    "max_handler_threads": 2 * SHARE,
    "reserve_threads": 2,
    "thread_timeout": 0.0,
}
BATCH = 400  # clients that ask at once, for the sake of the open files of this process
# Clients that come straight from a trusted proxy are limited by route alone.
NO_ADDRESS = {**LIMITS, "trusted_proxies": ["127.0.0.1"]}
OF_RESERVE = 1  # of turns that have lost the loop, beyond that


class Attacked:
    """An app whose handlers, of every kind, are held until the test lets them go.

    Attributes:
        entered: the paths of the requests whose user code has begun.
    """

    def __init__(self) -> None:
        self.held = Held()
        self.entered: Queue[str] = Queue()
        # Whatever the machine is busy with, a route is suspected after three hand-offs.
        app = self.app = App(timing=Timing(handoff_window=60))
        app.metrics()
        app.page("/page", "page")
        app.websocket("/echo")(generator_echo)
        app.websocket("/plain")(self.plain)
        # These begin on the loop every time, and lose it.
        app.websocket("/turns", blocking=False)(self.turns)
        app.websocket("/other-turns", blocking=False)(self.turns)
        app.websocket("/authorize", authorize=self.authorize)(generator_echo)
        app.sse("/events")(self.events)
        app.sse("/function")(self.function)
        for path in ("/free-plain", "/free-authorize"):
            app.websocket(path, authorize=lambda request: "anna")(self.free_plain)
        app.sse("/free-events")(self.free_events)

    def hold(self, request: Request) -> None:
        self.entered.put(request.path)
        self.held.wait()

    def plain(self, ws: WebSocket) -> None:
        self.hold(ws.request)

    def turns(self, ws: WebSocket) -> Waits:
        self.hold(ws.request)
        try:
            while True:
                ws.send((yield))
        except ConnectionClosed as end:
            self.entered.put(f"end {end.code}")
            raise

    def authorize(self, request: Request) -> bool:
        self.hold(request)
        return True

    def events(self, stream: EventStream) -> Iterator[str]:
        self.hold(stream.request)
        yield "held"

    def function(self, stream: EventStream) -> None:
        self.hold(stream.request)

    def free_plain(self, ws: WebSocket) -> None:
        ws.send("free")

    def free_events(self, stream: EventStream) -> Iterator[str]:
        yield "free"

    def until_entered(self, count: int) -> None:
        for _ in range(count):
            self.entered.get(timeout=TIMEOUT)


def request_to(path: str) -> bytes:
    return get(path) if path in ("/events", "/function", "/page") else upgrade(path)


@pytest.fixture
def attacked() -> Iterator[Attacked]:
    attacked = Attacked()
    yield attacked
    attacked.held.release()


def attack(
    clients: Clients, server: Server, path: str, count: int, source: str | None = None
) -> list[Client]:
    """So many clients that ask, and are silent from then on."""
    attackers = []
    for _ in range(count):
        client = clients.connect(server, source=source)
        client.send(request_to(path))
        attackers.append(client)
    return attackers


def assert_no_thread(client: Client) -> None:
    answer = client.answer()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert answer.body == b"no thread is left for this\n"


def status_of(client: Client) -> int:
    head = client.read_until(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


def assert_others_are_served(clients: Clients, server: Server, source: str | None = None) -> None:
    """Routes of every kind that nobody attacks answer."""
    for path in ("/free-plain", "/free-authorize"):
        client = clients.connect(server, source=source)
        client.send(upgrade(path))
        assert status_of(client) == 101
        assert client.read_until(b"free")
    stream = clients.connect(server, source=source)
    stream.send(get("/free-events"))
    assert stream.read_until(b"data: free\n\n")
    echo = clients.connect(server, source=source)
    echo.send(upgrade("/echo"))
    assert status_of(echo) == 101
    echo.send(masked(Opcode.TEXT, "hello"))
    assert echo.read_until(b"hello")
    metrics = clients.connect(server, source=source)
    metrics.send(get("/metrics"))
    assert metrics.answer().status == 200


# The attack --------------------------------------------------------------------------------------

ATTACKS = {
    "/plain": (SHARE, "/plain: a request is refused with 503, because the route uses its share"),
    "/events": (SHARE, "/events: a request is refused with 503, because the route uses its share"),
    "/authorize": (SHARE, "/authorize: a request is refused with 503"),
    "/turns": (SHARE + OF_RESERVE, "/turns: a request is refused with 503"),
    "/function": (SHARE, "/function: a request is refused with 503"),
}


@on_linux
@pytest.mark.parametrize("path", ATTACKS)
@pytest.mark.parametrize("attackers", [64, 500, 2000])
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
    assert server.stats().handlers_in_threads == share
    attacked.held.release()
    wait_until(lambda: server.stats().handlers_in_threads == 0, "all have ended")
    silent[0].close()
    (late,) = attack(clients, server, path, 1)
    assert status_of(late) in (101, 200)


@on_linux
@pytest.mark.parametrize("path", ATTACKS)
def test_silent_clients_of_one_address_leave_the_route_to_others_and_other_routes_to_them(
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
def test_one_address_leaves_threads_to_the_others(
    serve: Serve, clients: Clients, log: ServerLog, kind: str
) -> None:
    held = Held()
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
    log.expect("because the client's address uses its share of the route's threads", WARNING)
    assert [status(number) for number in range(1, 5)] == [granted] * (SHARE - PART) + [503] * 2
    assert [status(number, "127.0.0.2") for number in range(5)] == [granted] * SHARE + [503]
    held.release()


def plain_app(held: Held, routes: int = 8) -> App:
    app = App()
    for number in range(routes):

        @app.websocket(f"/{number}")
        def plain(ws: WebSocket) -> None:
            held.wait()

    return app


@pytest.mark.parametrize(
    ("trusted", "forwarded", "granted"),
    [
        ((), "203.0.113.{}", SHARE),  # anybody may send this header
        (("127.0.0.1",), "203.0.113.{}", 2 * SHARE),
        (("127.0.0.1",), "203.0.113.1", SHARE),
        (("127.0.0.1",), "2001:db8::{}", SHARE),  # one network
        (("127.0.0.1",), "2001:db8:{}::1", 2 * SHARE),
        (("127.0.0.1",), None, 2 * SHARE),  # nobody knows who it is
    ],
)
def test_behind_a_trusted_proxy_the_address_that_it_reports_counts(
    serve: Serve,
    clients: Clients,
    trusted: tuple[str, ...],
    forwarded: str | None,
    granted: int,
) -> None:
    held = Held()
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
    held = Held()
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


# Who waits ---------------------------------------------------------------------------------------


def test_a_request_whose_client_leaves_before_its_hook_begins_is_dropped(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60})
    attack(clients, server, "/authorize", SHARE)
    attacked.until_entered(SHARE)
    (loop,) = server.loops
    waiting = attack(clients, server, "/authorize", 100)
    wait_until(lambda: server.stats().handlers_waiting == 100, "they wait")
    for number, client in enumerate(waiting):
        if number % 3 == 0:
            client.reset()
        elif number % 3 == 1:
            client.send(masked(Opcode.TEXT, "never read" * 1000))
            client.close()
        else:
            client.half_close()
    wait_until(lambda: len(server.clients[0].peers) == SHARE, "those that have left are forgotten")
    assert server.stats().handlers_waiting == 0
    assert len(loop.unfinished) == SHARE
    attacked.held.release()
    wait_until(lambda: server.stats().handlers_in_threads == 0, "the others have been let in")
    assert attacked.entered.empty()


def test_a_client_that_leaves_while_its_hook_runs_is_forgotten_at_once(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    server = serve(attacked.app)
    clients_ = attack(clients, server, "/authorize", 3)
    attacked.until_entered(3)
    clients_[0].reset()
    clients_[1].send(b"x" * 100_000)
    clients_[1].close()
    clients_[2].close()
    wait_until(lambda: not server.clients[0].peers, "they are forgotten")
    assert server.stats().handlers_in_threads == 3  # nobody can end these


def test_a_request_waits_for_a_thread_in_vain_no_longer_than_it_may(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 0.2})
    for path in ("/authorize", "/turns"):
        share, _ = ATTACKS[path]
        attack(clients, server, path, share)
        attacked.until_entered(share)
        (late,) = attack(clients, server, path, 1)
        assert_no_thread(late)
        attacked.held.release()
        wait_until(lambda: server.stats().handlers_in_threads == 0, "all have ended")
        attacked.held = Held()


@pytest.mark.parametrize("path", ["/authorize", "/turns"])
def test_requests_that_wait_are_answered_when_threads_are_free(
    serve: Serve, clients: Clients, attacked: Attacked, path: str
) -> None:
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60})
    share, _ = ATTACKS[path]
    attack(clients, server, path, share)
    attacked.until_entered(share)
    waiting = attack(clients, server, path, 20)
    for client in waiting:
        client.send(masked(Opcode.TEXT, "sent while it waits"))
    wait_until(lambda: server.stats().handlers_waiting == 20, "they wait")
    attacked.held.release()
    for client in waiting:
        assert status_of(client) == 101
        assert client.read_until(b"sent while it waits")


def test_the_turns_of_open_connections_wait_and_other_routes_go_on(
    serve: Serve, clients: Clients, log: ServerLog, attacked: Attacked
) -> None:
    """However many handlers of a route block, the loop stays free."""
    held = Held()
    blocked: Queue[str] = Queue()

    @attacked.app.websocket("/block")
    def block(ws: WebSocket) -> Waits:
        try:
            while True:
                message = yield
                blocked.put(str(message))
                held.wait()
                if ws.close_code is None:
                    ws.send(message)
        except ConnectionClosed as end:
            blocked.put(f"end {end.code}")

    server = serve(attacked.app, **NO_ADDRESS)
    opened = [clients.websocket(server, "/block") for _ in range(20)]
    for number, client in enumerate(opened):
        client.say(str(number), "second")
    for _ in range(3):
        blocked.get(timeout=TIMEOUT)  # then the route is suspect
    wait_until(lambda: server.stats().handlers_waiting == 20 - SHARE, "they wait")
    log.expect("/block waits for a thread: the route uses its share", WARNING)
    assert_others_are_served(clients, server)
    # What such a client sends stays with it; one that leaves is forgotten.
    read = sum(peer.bytes_in for peer in server.clients[0].peers)
    for client in opened:
        client.say("x" * 10_000)
    assert_others_are_served(clients, server)
    assert sum(peer.bytes_in for peer in server.clients[0].peers) < read + 20_000 + SHARE * 11_000
    peers = len(server.clients[0].peers)
    opened[-1].close()
    wait_until(lambda: len(server.clients[0].peers) < peers, "it is forgotten")
    held.release()
    for number, client in enumerate(opened[:-1]):
        assert client.hear(3) == [str(number), "second", "x" * 10_000]
        client.leave()
    seen = [blocked.get(timeout=TIMEOUT) for _ in range(20 * 4 - 3)]
    assert "end 1006" in seen  # what it had sent was delivered, and its end
    assert seen.count("x" * 10_000) == 20


@pytest.mark.parametrize("loops", [1, 3])
def test_turns_of_one_route_wait_on_several_loops(
    serve: Serve, clients: Clients, attacked: Attacked, loops: int
) -> None:
    """A thread that comes free on one loop is for what waits on another."""
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60}, loops=loops)
    share = SHARE + OF_RESERVE * loops
    waiting = attack(clients, server, "/turns", share + 20)
    for client in waiting:
        client.send(masked(Opcode.TEXT, "hello"))
    attacked.until_entered(share)
    # Each of the other loops may have begun one more at the same time.
    wait_until(lambda: server.stats().handlers_waiting > 20 - loops, "the others wait")
    attacked.held.release()
    for client in waiting:
        assert status_of(client) == 101
        assert client.read_until(b"hello")


def test_two_routes_that_block_leave_the_loop_free(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    """All threads for turns are in use, those of the reserve as well."""
    server = serve(attacked.app, **NO_ADDRESS)
    for path in ("/turns", "/other-turns"):
        attack(clients, server, path, SHARE + OF_RESERVE)
        attacked.until_entered(SHARE + OF_RESERVE)
    page = clients.connect(server)
    page.send(get("/page"))
    assert page.answer().body == b"page"
    metrics = clients.connect(server)
    metrics.send(get("/metrics"))
    assert b'wsframe_handlers{state="running"} 10' in metrics.answer().body
    plain = clients.connect(server)
    plain.send(upgrade("/plain"))
    assert status_of(plain) == 101
    (late,) = attack(clients, server, "/echo", 1)
    assert_no_thread(late)
    attacked.held.release()
    wait_until(lambda: server.stats().handlers_in_threads <= 1, "all but the plain one have ended")
    assert_others_are_served(clients, server)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_handler_that_cannot_begin_is_not_entered_once_its_client_has_left(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    held, entered = Held(), Queue[str]()
    app = App()

    @app.websocket("/block", blocking=True)
    def block(ws: WebSocket) -> Waits:
        entered.put("entered")
        held.wait()
        ws.send("hello")
        yield

    server = serve(app, max_threads=2)
    (loop,) = server.loops
    # As if another turn had taken the last thread after the request found it free.
    monkeypatch.setattr(loop, "wait_for_thread", lambda *_: False)
    first, second = attack(clients, server, "/block", 2)
    for client in (first, second):
        assert status_of(client) == 101
    entered.get(timeout=TIMEOUT)
    wait_until(lambda: server.stats().handlers_waiting == 1, "the second one waits")
    (waiting,) = (turns for turns in loop.unfinished if turns.state is WAITING)
    assert isinstance(waiting.peer, Peer)
    late = second if waiting.peer.address == second.sock.getsockname() else first
    if leaves:
        late.close()
        wait_until(lambda: waiting not in loop.unfinished, "it is dropped")
        held.release()
        wait_until(lambda: server.stats().handlers_in_threads == 0, "the first one has ended")
        assert entered.empty()
    else:
        held.release()
        assert late.read_until(b"hello")


def test_a_defect_in_an_answer_that_had_to_wait_ends_its_connection(
    serve: Serve, clients: Clients, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked = Attacked()
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60})
    attack(clients, server, "/turns", SHARE + OF_RESERVE)
    attacked.until_entered(SHARE + OF_RESERVE)
    attack(clients, server, "/turns", 1)
    wait_until(lambda: server.stats().handlers_waiting == 1, "it waits")

    def fail(*arguments: object) -> None:
        raise LookupError

    monkeypatch.setattr(WebSocketSession, "begin", fail)
    attacked.held.release()
    log.expect("a defect in the server")
    wait_until(lambda: len(server.clients[0].peers) == SHARE + OF_RESERVE, "it is over")


def test_a_stop_ends_requests_that_wait(serve: Serve, clients: Clients, attacked: Attacked) -> None:
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60})
    running = attack(clients, server, "/turns", SHARE + OF_RESERVE)
    attacked.until_entered(SHARE + OF_RESERVE)
    waiting = attack(clients, server, "/turns", 3)
    wait_until(lambda: server.stats().handlers_waiting == 3, "they wait")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    for client in waiting:
        assert client.receive() == b""
    attacked.held.release()
    for client in running:
        client.close()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()

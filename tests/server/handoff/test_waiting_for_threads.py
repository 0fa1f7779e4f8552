"""Clients that wait for a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from logging import WARNING
from queue import Queue

import pytest

from tests.server.handoff.thread_limits import (
    ATTACKS,
    NO_ADDRESS,
    OF_RESERVE,
    SHARE,
    Attacked,
    assert_no_thread,
    assert_others_are_served,
    attack,
    status_of,
)
from tests.support.clients import Clients, get, masked, upgrade
from tests.support.handlers import STEP, Checkpoint, MessageGenerator
from tests.support.inspection import loops_of, peers_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import ConnectionClosed, Opcode
from wsframe.server import App, WebSocket
from wsframe.server.handoff.task import WAITING
from wsframe.server.sessions.websocket_session import INBOX_SIZE, WebSocketSession
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock


def test_a_request_whose_client_disconnects_before_its_hook_is_dropped(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60})
    attack(clients, server, "/authorize", SHARE)
    attacked.until_entered(SHARE)
    (loop,) = loops_of(server)
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
    wait_for_disconnects(server, SHARE)
    assert server.stats().handlers_waiting == 0
    assert len(loop.unfinished) == SHARE
    attacked.held.release()
    wait_until(lambda: server.stats().handlers_in_threads == 0, "the others have been let in")
    assert attacked.entered.empty()


def test_a_client_that_disconnects_while_its_hook_runs_is_removed_at_once(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    server = serve(attacked.app)
    clients_ = attack(clients, server, "/authorize", 3)
    attacked.until_entered(3)
    clients_[0].reset()
    clients_[1].send(b"x" * 100_000)
    clients_[1].close()
    clients_[2].close()
    wait_for_disconnects(server)
    assert server.stats().handlers_in_threads == 3  # these cannot be ended


def test_a_request_waits_for_a_thread_only_for_a_limited_time(
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
        attacked.held = Checkpoint()


def test_a_thread_that_becomes_free_at_the_last_moment_is_logged_as_too_late(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    """One request gets the thread when the time of two is over."""
    clock, held = ManualClock(), Checkpoint()
    app = App(timing=Timing(clock=clock))

    @app.websocket("/block", blocking=True)
    def block(ws: WebSocket) -> MessageGenerator:
        held.wait()
        yield

    server = serve(app, max_threads=1, thread_timeout=STEP / 2)
    attack(clients, server, "/block", 1)
    held.wait_until_reached()
    first, second = attack(clients, server, "/block", 2)
    wait_until(lambda: server.stats().handlers_waiting == 2, "they wait")

    def free_the_thread() -> None:
        """Run on the loop, which checks the deadlines before it makes a call that is queued now."""
        held.release()
        wait_until(lambda: server.stats().handlers_in_threads == 0, "the thread is free")
        clock.now += STEP

    loops_of(server)[0].call_soon(free_the_thread)
    statuses = [status_of(client) for client in (first, second)]
    assert sorted(statuses) == [101, 503]
    log.expect("503, because a thread became free too late for 0.25 s (thread_timeout)", WARNING)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(clock: ManualClock) -> Iterator[Attacked]:
    """An app with this clock."""
    timed = Attacked(clock)
    yield timed
    timed.held.release()


def test_a_hook_that_got_a_thread_may_run_beyond_the_limit_of_the_wait(
    serve: Serve, clients: Clients, clock: ManualClock, timed: Attacked
) -> None:
    server = serve(timed.app, **{**NO_ADDRESS, "thread_timeout": 1})
    attack(clients, server, "/authorize", SHARE)
    timed.until_entered(SHARE)
    (late,) = attack(clients, server, "/authorize", 1)
    wait_until(lambda: server.stats().handlers_waiting == 1, "it waits")
    first, timed.held = timed.held, Checkpoint()
    first.release()
    timed.until_entered(1)
    clock.pass_time(server, 3)
    timed.held.release()
    assert status_of(late) == 101


def test_a_request_that_waits_again_has_only_the_rest_of_its_time(
    serve: Serve, clients: Clients, clock: ManualClock, timed: Attacked
) -> None:
    server = serve(timed.app, **{**NO_ADDRESS, "thread_timeout": 4})
    attack(clients, server, "/authorize", SHARE)
    timed.until_entered(SHARE)
    (late,) = attack(clients, server, "/authorize", 1)
    wait_until(lambda: server.stats().handlers_waiting == 1, "it waits")
    (loop,) = loops_of(server)
    (waiting,) = (task for task in loop.unfinished if task.state is WAITING)
    clock.pass_time(server, 3)

    def resume() -> None:
        """Resume it, as if another loop had then taken the free thread."""
        loop.waiting.discard(waiting)
        waiting.resume()

    loop.call_soon(resume)
    clock.let_loops_look(server)
    assert server.stats().handlers_waiting == 1
    clock.pass_time(server, 2)
    assert_no_thread(late)
    assert server.stats().handlers_waiting == 0
    timed.held.release()
    wait_until(lambda: server.stats().handlers_in_threads == 0, "the others have been let in")
    assert timed.entered.empty()


def test_a_request_is_refused_if_no_thread_is_free_after_its_hook(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    attacked.app.websocket("/both", authorize=lambda request: "anna")(attacked.plain)
    server = serve(attacked.app, **NO_ADDRESS)
    attack(clients, server, "/both", SHARE)
    attacked.until_entered(SHARE)
    (late,) = attack(clients, server, "/both", 1)
    assert_no_thread(late)


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


def test_turns_of_open_connections_wait_while_other_routes_continue(
    serve: Serve, clients: Clients, log: ServerLog, attacked: Attacked
) -> None:
    """The loop stays free for any number of blocking handlers of a route."""
    held = Checkpoint()
    blocked: Queue[str] = Queue()

    @attacked.app.websocket("/block")
    def block(ws: WebSocket) -> MessageGenerator:
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
        client.send_messages(str(number), "second")
    for _ in range(3):
        blocked.get(timeout=TIMEOUT)  # then the route is suspect
    wait_until(lambda: server.stats().handlers_waiting == 20 - SHARE, "they wait")
    log.expect("/block waits for a thread: the route uses its share", WARNING)
    assert_others_are_served(clients, server)
    # Data of such a client stays in its kernel buffer; a client that disconnects is removed.
    read = sum(peer.bytes_in for peer in peers_of(server))
    for client in opened:
        client.send_messages("x" * 10_000)
    assert_others_are_served(clients, server)
    assert sum(peer.bytes_in for peer in peers_of(server)) < read + 20_000 + SHARE * 11_000
    peers = len(peers_of(server))
    opened[-1].close()
    wait_until(lambda: len(peers_of(server)) < peers, "it is forgotten")
    held.release()
    for number, client in enumerate(opened[:-1]):
        assert client.expect(3) == [str(number), "second", "x" * 10_000]
        client.leave()
    seen = [blocked.get(timeout=TIMEOUT) for _ in range(20 * 4 - 3)]
    assert "end 1006" in seen  # what it had sent was delivered, and its end
    assert seen.count("x" * 10_000) == 20


def test_a_turn_waits_while_its_client_is_not_read(serve: Serve, clients: Clients) -> None:
    """The handler has more messages than its inbox may hold, and no thread."""
    held = {"a": Checkpoint(), "b": Checkpoint()}
    app = App()

    @app.websocket("/{name}", blocking=True)
    def count(ws: WebSocket, name: str) -> MessageGenerator:
        size = 0
        while True:
            message = yield
            if message == "hold":
                held[name].wait()
            else:
                size += len(message)
                ws.send(str(size))

    server = serve(app, max_threads=1, reserve_threads=1, max_thread_share=1.0)
    first, second = clients.websocket(server, "/a"), clients.websocket(server, "/b")
    first.send_messages("hold")
    held["a"].wait_until_reached()
    first.send_messages(*["x" * 1000] * 600)
    wait_until(lambda: max(peer.bytes_in for peer in peers_of(server)) > INBOX_SIZE, "it is full")
    second.send_messages("hold")
    wait_until(lambda: server.stats().handlers_waiting == 1, "it waits for the thread")
    held["a"].release()
    held["b"].wait_until_reached()
    wait_until(lambda: server.stats().handlers_waiting == 1, "the first one waits in turn")
    held["b"].release()
    assert first.expect(600)[-1] == "600000"


@pytest.mark.parametrize("loops", [1, 3])
def test_turns_of_one_route_wait_on_several_loops(
    serve: Serve, clients: Clients, attacked: Attacked, loops: int
) -> None:
    """A thread that becomes free on one loop serves a job that waits on another."""
    server = serve(attacked.app, **{**NO_ADDRESS, "thread_timeout": 60}, loops=loops)
    share = SHARE + OF_RESERVE * loops
    waiting = attack(clients, server, "/turns", share + 20)
    for client in waiting:
        client.send(masked(Opcode.TEXT, "hello"))
    attacked.until_entered(share)
    # Each of the other loops may have started one more at the same time.
    wait_until(lambda: server.stats().handlers_waiting > 20 - loops, "the others wait")
    attacked.held.release()
    for client in waiting:
        assert status_of(client) == 101
        assert client.read_until(b"hello")


def test_two_routes_that_block_leave_the_loop_free(
    serve: Serve, clients: Clients, attacked: Attacked
) -> None:
    """All threads for turns are in use, including the spare ones."""
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
def test_a_waiting_handler_is_not_called_after_its_client_disconnected(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    held, entered = Checkpoint(), Queue[str]()
    app = App()

    @app.websocket("/block", blocking=True)
    def block(ws: WebSocket) -> MessageGenerator:
        entered.put("entered")
        held.wait()
        ws.send("hello")
        yield

    server = serve(app, max_threads=2)
    (loop,) = loops_of(server)
    # As if another turn had taken the last thread after the request found it free.
    monkeypatch.setattr(loop.waiting, "wait_if_needed", lambda *_: False)
    first, second = attack(clients, server, "/block", 2)
    for client in (first, second):
        assert status_of(client) == 101
    entered.get(timeout=TIMEOUT)
    wait_until(lambda: server.stats().handlers_waiting == 1, "the second one waits")
    (waiting,) = (task for task in loop.unfinished if task.state is WAITING)
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


def test_an_internal_error_in_a_delayed_answer_ends_its_connection(
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

    monkeypatch.setattr(WebSocketSession, "start", fail)
    attacked.held.release()
    log.expect("internal error")
    wait_for_disconnects(server, SHARE + OF_RESERVE)


def test_a_stop_ends_waiting_requests(serve: Serve, clients: Clients, attacked: Attacked) -> None:
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

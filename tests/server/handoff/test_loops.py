"""Several loops, as on a Python without a GIL: they share all work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients, get
from tests.support.handlers import BOTH_KINDS, STEP, MessageGenerator, websocket_app
from tests.support.inspection import clients_of, loops_of, wait_for_disconnects
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.server import App, Server, WebSocket
from wsframe.server.handoff.threads import Threads, WorkerThread
from wsframe.server.timing import Timing
from wsframe.server.topics.source_threads import QueueThread
from wsframe.testing import ManualClock

LOOPS = 3


def sizes(server: Server) -> list[int]:
    """Return the number of connections of each loop."""
    return [len(clients.peers) for clients in clients_of(server)]


@BOTH_KINDS
def test_connections_are_distributed_evenly(
    serve: Serve, clients: Clients, echo: Callable[..., Any]
) -> None:
    server = serve(websocket_app(echo), loops=LOOPS)
    open_ones = [clients.websocket(server, "/echo") for _ in range(4 * LOOPS)]
    assert sizes(server) == [4] * LOOPS
    for number, client in enumerate(open_ones):
        client.send_messages(str(number), b"x" * 100_000)
    for number, client in enumerate(open_ones):
        assert client.expect(2) == [str(number), b"x" * 100_000]
        client.leave()
    wait_until(lambda: sizes(server) == [0] * LOOPS, "all have left")


@pytest.mark.slow
def test_a_queue_reaches_the_streams_of_all_loops(serve: Serve, clients: Clients) -> None:
    source: Queue[str] = Queue()
    app = App()
    app.sse("/time", source=source)
    server = serve(app, loops=LOOPS, drain=1)
    streams = [clients.stream(server, "/time") for _ in range(2 * LOOPS)]
    expected = [str(number) for number in range(100)]
    for item in expected:
        source.put(item)
    stop_within(server, TIMEOUT)
    for stream in streams:
        assert stream.expect(100) == expected
        stream.expect_end()


def test_a_handler_can_send_to_clients_of_other_loops(serve: Serve, clients: Clients) -> None:
    present: list[WebSocket] = []

    def chat(ws: WebSocket) -> MessageGenerator:
        present.append(ws)
        while True:
            message = yield
            for other in tuple(present):
                other.send(message)

    server = serve(websocket_app(chat), loops=LOOPS)
    open_ones = [clients.websocket(server, "/echo") for _ in range(LOOPS)]
    wait_until(lambda: len(present) == LOOPS, "all are connected")
    for number, client in enumerate(open_ones):
        client.send_messages(str(number))
        for each in open_ones:
            assert each.next_event() == str(number)


def test_a_blocked_loop_does_not_delay_the_others(serve: Serve, clients: Clients) -> None:
    release = threading.Event()

    def block(ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            if message == "block":
                release.wait(TIMEOUT)
            ws.send(message)

    server = serve(websocket_app(block), loops=LOOPS)
    blocked = [clients.websocket(server, "/echo") for _ in range(LOOPS)]
    others = [clients.websocket(server, "/echo") for _ in range(LOOPS)]
    for client in blocked:
        client.send_messages("block", "continue")
    for client in others:
        client.send_messages("x")
        assert client.next_event() == "x"
    release.set()
    for client in blocked:
        assert client.expect(2) == ["block", "continue"]


@BOTH_KINDS
def test_all_loops_stop(serve: Serve, clients: Clients, echo: Callable[..., Any]) -> None:
    server = serve(websocket_app(echo), loops=LOOPS)
    open_ones = [clients.websocket(server, "/echo") for _ in range(2 * LOOPS)]
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    for client in open_ones:
        assert client.expect_close() == Close(1001, "the server is shutting down")
    stopping.join(TIMEOUT)
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-")]


@pytest.mark.parametrize("loops", range(3))
def test_a_failed_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, loops: int) -> None:
    app = App()
    app.sse("/time", source=Queue())
    started = 0
    start_loop = Threads.start_loop

    def start(threads: Threads) -> WorkerThread:
        nonlocal started
        if started == loops:
            raise RuntimeError("the system cannot start a thread for the I/O loop")
        started += 1
        return start_loop(threads)

    with monkeypatch.context() as patch:
        patch.setattr(Threads, "start_loop", start)
        with pytest.raises(RuntimeError, match="cannot start a thread"):
            app.start("127.0.0.1", loops=3)
    with app.start("127.0.0.1", loops=3):  # as if nothing had been
        pass


def test_a_feed_that_gets_no_thread_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    app.sse("/time", source=Queue())
    app.sse("/date", source=Queue())
    start = QueueThread.start

    def start_one(thread: QueueThread) -> None:
        if thread.topic.name == "/date":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(QueueThread, "start", start_one)
    with pytest.raises(RuntimeError, match="new thread"):
        app.start("127.0.0.1", loops=2)


def test_short_connections_one_after_another_delay_no_sweep(serve: Serve, clients: Clients) -> None:
    clock, called = ManualClock(), threading.Event()
    app = App(timing=Timing(clock=clock))
    app.page("/", "hello")
    server = serve(app)
    (loop,) = loops_of(server)

    def visit() -> None:
        client = clients.connect(server)
        client.send(get("/"))
        assert client.answer().status == 200
        client.close()
        wait_for_disconnects(server)

    visit()
    loop.call_soon(lambda: loop.at_next_tick(called.set))
    clock.let_loops_look(server)
    for _ in range(3):
        clock.now += 0.4 * STEP
        visit()
    clock.let_loops_look(server)
    assert called.is_set()

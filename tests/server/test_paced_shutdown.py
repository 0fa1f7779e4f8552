"""The pace at which clients are closed at shutdown."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Queue
from typing import Any, NamedTuple

import pytest

from tests.server.stopping import AGES, GOING_AWAY, next_closed, stopping
from tests.support.clients import Clients, upgrade
from tests.support.handlers import (
    generator_echo,
    websocket_app,
)
from tests.support.inspection import loops_of
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe.server import (
    App,
    Request,
    Server,
)
from wsframe.server.sockets.shutdown import PacedShutdown
from wsframe.server.timing import Timing


def let_all_loops_turn(server: Server) -> None:
    """Wait until every loop has run its calls and has checked the clock."""
    for each in loops_of(server) * 2:
        turned = threading.Event()
        each.call_soon(turned.set)
        assert turned.wait(TIMEOUT)


@pytest.mark.parametrize("loops", [1, 3])
def test_a_client_is_served_until_its_turn_to_be_closed(
    serve: Serve, clients: Clients, loops: int
) -> None:
    server = serve(websocket_app(generator_echo), drain=60, loops=loops)
    open_ones = [clients.websocket(server, "/echo") for _ in range(12)]
    with stopping(server, spread=AGES):
        assert next_closed(open_ones).expect_close() == GOING_AWAY
        let_all_loops_turn(server)
        for client in open_ones:
            client.send_messages("x")
            assert client.next_event() == "x"
            client.leave()


def test_a_request_in_authorization_waits_for_its_turn_to_be_closed(
    serve: Serve, clients: Clients
) -> None:
    judging: Queue[object] = Queue()
    release = threading.Event()

    def judge(request: Request) -> bool:
        judging.put(request)
        return release.wait(TIMEOUT)

    server = serve(websocket_app(generator_echo, authorize=judge), drain=60)
    waiting = [clients.connect(server) for _ in range(2)]
    for client in waiting:
        client.send(upgrade("/echo"))
        judging.get(timeout=TIMEOUT)
    with stopping(server, spread=AGES):
        with suppress(ConnectionResetError):
            assert next_closed(waiting).read_to_end() == b""
        release.set()
        assert waiting[0].read_until(b"\r\n").startswith(b"HTTP/1.1 101 ")
        waiting[0].close()


def test_a_queue_reaches_the_streams_that_are_not_closed_yet(
    serve: Serve, clients: Clients
) -> None:
    ticks: Queue[str] = Queue()
    app = App()
    app.sse("/time", source=ticks)
    server = serve(app, drain=60)
    streams = [clients.stream(server, "/time") for _ in range(3)]
    with stopping(server, spread=AGES):
        next_closed(streams).expect_end()
        ticks.put("x")
        for stream in streams:
            assert stream.expect(1) == ["x"]
            stream.close()


def test_all_clients_are_closed_in_the_end(serve: Serve, clients: Clients) -> None:
    timing = Timing(sweep_interval=AGES)  # a shutdown has its own interval
    server = serve(websocket_app(generator_echo, timing=timing), drain=60, loops=2)
    open_ones = [clients.websocket(server, "/echo") for _ in range(20)]
    with stopping(server, spread=0.3):
        for client in open_ones:
            assert client.expect_close() == GOING_AWAY


def test_clients_that_are_not_closed_yet_are_disconnected_after_drain(
    serve: Serve, clients: Clients
) -> None:
    server = serve(websocket_app(generator_echo), drain=0.3)
    open_ones = [clients.websocket(server, "/echo") for _ in range(2)]
    with stopping(server, spread=AGES):
        assert next_closed(open_ones).expect_close() == GOING_AWAY
        assert open_ones[0].read_to_end() == b""


class Numbered(NamedTuple):
    """A connection that was assigned to a loop as the one with this number."""

    loop: int
    number: int
    awaiting_request: bool = False


def test_closes_are_spread_evenly_over_all_loops() -> None:
    loops = [
        PacedShutdown([Numbered(k, n) for n in range(50)], 8, k / 4, 100.0)  # type: ignore[misc]
        for k in range(4)
    ]
    told: list[Any] = []
    for step in range(200):
        now = 100.0 + step * 8 / 200
        told += [peer for each in loops for peer in each.due(now + 0.001)]
        assert len(told) == step + 1
    assert len(set(told)) == 200
    of_one_loop = told[::4]
    numbers = [each.number for each in of_one_loop]
    assert list(range(50)) not in (numbers, numbers[::-1])


def test_a_negative_spread_is_refused(serve: Serve) -> None:
    server = serve(App())
    with pytest.raises(ValueError, match="spread must not be negative"):
        server.stop(spread=-1)


@pytest.mark.parametrize("drain", [1e12, float("inf")])
def test_an_infinite_drain_waits_for_all_clients(
    serve: Serve, clients: Clients, drain: float
) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.websocket(server, "/echo")
    stopping = threading.Thread(target=server.stop, args=(drain,))
    stopping.start()
    client.expect_close()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()


@pytest.mark.parametrize("setting", ["drain", "send_timeout", "ping_interval"])
def test_a_duration_must_be_a_number(setting: str) -> None:
    options: dict[str, Any] = {setting: float("nan")}
    with pytest.raises(ValueError, match=f"{setting} must be"):
        App().start(**options)

"""The connections of one loop: deadlines, shutdown and totals, without a loop or sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from wsframe.server.handoff.loop import Loop
from wsframe.server.settings import Settings
from wsframe.server.sockets.clients import SWEEP_BATCH, Clients
from wsframe.server.sockets.peer import Peer
from wsframe.server.sockets.record import ConnectionRecord
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

INTERVAL = Timing().sweep_interval


class StubLoop:
    """A loop that the test calls: it records whether ticks were requested."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timing = Timing(clock=self.clock)
        self.tick: Callable[[float], float | None] = lambda now: None
        self.on_task_end: Callable[[], object] = lambda: None
        self.unfinished: set[object] = set()
        self.waiting: list[object] = []
        self.overdue: list[object] = []
        self.handoffs = 0
        self.ticks: list[str] = []

    def owned(self) -> bool:
        return True

    def start_ticks(self) -> None:
        self.ticks.append("start")

    def tick_soon(self) -> None:
        self.ticks.append("soon")

    def call_safely(self, function: Callable[..., Any], *arguments: object) -> None:
        try:
            function(*arguments)
        except ValueError:
            self.ticks.append("error")


class StubPeer:
    """A connection that records what is called."""

    messages_in, messages_out, bytes_in, bytes_out = 1, 2, 30, 40

    def __init__(self, deadline: float = 0, *, awaiting_request: bool = False) -> None:
        self.deadline = deadline
        self.next_check = float("inf")
        self.awaiting_request = awaiting_request
        self.record = ConnectionRecord()
        self.identity: str | None = None
        self.calls: list[str] = []

    def deadline_passed(self) -> None:
        self.calls.append("deadline")
        self.deadline = float("inf")

    def check(self, now: float) -> None:
        self.calls.append("check")

    def shut_down(self) -> None:
        self.calls.append("shut down")

    def fail(self) -> None:
        raise ValueError


class Case:
    """The connections under test."""

    def __init__(self) -> None:
        self.loop = StubLoop()
        self.disconnected: list[Peer] = []
        self.clients = Clients(cast(Loop, self.loop), Settings(), self.disconnected.append)

    def add(self, *peers: StubPeer) -> None:
        for peer in peers:
            self.clients.add(cast(Peer, peer))

    def remove(self, peer: StubPeer) -> None:
        self.clients.remove(cast(Peer, peer))

    def tick(self) -> float | None:
        return self.loop.tick(self.loop.clock())


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_new_connection_starts_the_ticks_of_the_loop(case: Case) -> None:
    case.add(StubPeer())
    assert case.loop.ticks == ["start"]


def test_without_a_connection_the_ticks_end(case: Case) -> None:
    assert case.tick() is None
    peer = StubPeer(float("inf"))
    case.add(peer)
    assert case.tick() == INTERVAL
    case.remove(peer)
    assert case.tick() is None


def test_a_tick_checks_every_deadline_and_every_progress_that_is_due(case: Case) -> None:
    now = case.loop.clock()
    due, later, stalled = StubPeer(now), StubPeer(now + 1), StubPeer(now + 1)
    stalled.next_check = now
    case.add(due, later, stalled)
    case.tick()
    assert (due.calls, later.calls, stalled.calls) == (["deadline"], [], ["check"])
    case.loop.clock.now += 1
    case.tick()
    assert (due.calls, later.calls) == (["deadline"], ["deadline"])


def test_a_tick_checks_a_batch_and_continues_at_once(case: Case) -> None:
    peers = [StubPeer() for _ in range(2 * SWEEP_BATCH + 1)]
    case.add(*peers)
    counts = []
    while (pause := case.tick()) == 0:
        counts.append(sum(len(peer.calls) for peer in peers))
    assert counts == [SWEEP_BATCH, 2 * SWEEP_BATCH]
    assert pause == INTERVAL
    assert all(peer.calls == ["deadline"] for peer in peers)


def test_an_error_of_one_connection_does_not_affect_the_others(case: Case) -> None:
    peers = [StubPeer(), StubPeer()]
    case.add(*peers)
    case.clients.for_each_peer(lambda peer: cast(Any, peer).fail())
    assert case.loop.ticks.count("error") == 2


def test_a_paced_shutdown_closes_connections_evenly_over_the_spread(case: Case) -> None:
    peers = [StubPeer(float("inf")) for _ in range(4)]
    case.add(*peers)
    case.clients.shut_down_paced(spread=8, phase=0)
    assert case.loop.ticks[-1] == "soon"
    closed = []
    for _ in range(5):
        assert case.tick() == case.loop.timing.paced_shutdown_interval
        closed.append(sum(peer.calls == ["shut down"] for peer in peers))
        case.loop.clock.now += 2
    assert closed == [1, 2, 3, 4, 4]


def test_a_paced_shutdown_waits_for_requests_that_arrive_soon(case: Case) -> None:
    silent, late = (StubPeer(float("inf"), awaiting_request=True) for _ in range(2))
    case.add(silent, late)
    case.clients.shut_down_paced(spread=100, phase=0.5)
    case.tick()
    assert (silent.calls, late.calls) == ([], [])
    late.awaiting_request = False
    case.loop.clock.now += case.loop.timing.request_grace
    case.tick()
    assert (silent.calls, late.calls) == (["shut down"], [])
    case.loop.clock.now += 25
    case.tick()
    assert late.calls == ["shut down"]


def test_a_shutdown_without_a_spread_closes_all_connections_at_once(case: Case) -> None:
    silent, served = StubPeer(float("inf"), awaiting_request=True), StubPeer(float("inf"))
    case.add(silent, served)
    case.clients.shut_down_paced(spread=0, phase=0)
    case.tick()
    assert (silent.calls, served.calls) == (["shut down"], ["shut down"])


def test_the_end_is_reported_when_no_connection_and_no_task_is_left(case: Case) -> None:
    peer, calls = StubPeer(), list[str]()
    case.add(peer)
    case.loop.unfinished.add("task")
    case.clients.when_empty(lambda: calls.append("empty"))
    case.remove(peer)
    assert not calls
    case.loop.unfinished.clear()
    case.loop.on_task_end()
    assert calls == ["empty"]


def test_a_removed_connection_is_reported_and_stays_in_the_totals(case: Case) -> None:
    peer, other = StubPeer(), StubPeer()
    case.add(peer, other)
    before = case.clients.stats()
    case.remove(peer)
    assert [cast(object, one) for one in case.disconnected] == [peer]
    after = case.clients.stats()
    assert (before.requests, after.requests, after.accepted) == (2, 1, 2)
    assert after.messages_in == before.messages_in == 2
    assert after.bytes_out == before.bytes_out == 80

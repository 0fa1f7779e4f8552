"""Handlers that have blocked run in threads for a while."""

from __future__ import annotations

import socket
import threading
from math import inf

import pytest

from tests.server.handoff.stepping import Blocks, Conversation, Rig, block, echo, receive
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.blocking import BlockingProfile
from wsframe.server.handoff.task import IDLE
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

PROBATION = Timing().probation_turns
ROUTE_PROBATION = Timing().route_probation_turns


def where(task: Conversation, client: socket.socket, rig: Rig) -> str:
    """Return where the next turn of a connection runs."""
    client.sendall(b"x")
    assert receive(client, 4) == b"x<x>"
    wait_until(lambda: rig.ask(lambda: task.state) is IDLE, "the owner has received its end")
    return "loop" if task.ran[-1] is rig.owner() else "thread"


def test_a_task_that_blocked_runs_in_threads_until_it_was_fast_for_long(rig: Rig) -> None:
    rig.set_timing(turn_slice=inf, probation_turns=3)
    act = Blocks()
    task, client = rig.connect(act)
    assert where(task, client, rig) == "loop"
    block(rig, client, act.held[b"A"])
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    found = [where(task, client, rig) for _ in range(5)]
    assert found == ["thread", "thread", "thread", "loop", "loop"]


def test_a_slow_turn_in_a_thread_restarts_the_probation(rig: Rig) -> None:
    rig.set_timing(turn_slice=inf, probation_turns=2)
    task, client = rig.connect(Blocks())
    task.set_probation(2)
    assert where(task, client, rig) == "thread"
    rig.set_timing(turn_slice=0)
    assert where(task, client, rig) == "thread"
    rig.set_timing(turn_slice=inf)
    assert [where(task, client, rig) for _ in range(3)] == ["thread", "thread", "loop"]


def test_a_route_is_suspected_after_three_blocking_turns_in_a_second() -> None:
    clock = ManualClock()
    timing = Timing(clock=clock)
    profile = BlockingProfile("/", None, timing)
    for after, suspect in [(0, False), (0.5, False), (0.51, False), (0.48, True)]:
        clock.now += after
        assert profile.has_blocked() == suspect
        assert profile.probation() == (ROUTE_PROBATION if suspect else 0)
    clock.now += timing.route_memory - 0.01
    assert profile.probation() == ROUTE_PROBATION
    clock.now += 0.02
    assert profile.probation() == 0
    assert not profile.has_blocked()


def test_all_connections_of_a_suspected_route_are_on_probation(rig: Rig) -> None:
    clock = ManualClock()
    rig.set_timing(clock=clock)
    act = Blocks()
    blocking = [rig.connect(act) for _ in act.held]
    quick, client = rig.connect(act)
    other, others_client = rig.connect(act, route="/other")
    for (_, their_client), (item, held) in zip(blocking, act.held.items(), strict=True):
        assert rig.ask(lambda: quick.probation) == 0
        block(rig, their_client, held, item)
    assert rig.ask(lambda: quick.probation) == ROUTE_PROBATION
    new, news_client = rig.connect(act)
    assert new.probation == ROUTE_PROBATION
    assert where(quick, client, rig) == where(new, news_client, rig) == "thread"
    assert where(other, others_client, rig) == "loop"
    for held in act.held.values():
        held.release()
    for task, _ in blocking:
        assert task.settled.get(timeout=TIMEOUT)
        assert task.probation == PROBATION
    clock.now += rig.loop.timing.route_memory
    assert not rig.connect(act)[0].needs_thread


def test_a_handler_declared_as_blocking_never_has_the_loop(rig: Rig) -> None:
    rig.set_timing(turn_slice=inf)
    task, client = rig.connect(Blocks(), blocking=True)
    assert {where(task, client, rig) for _ in range(20)} == {"thread"}
    assert task.needs_thread


def test_a_handler_declared_as_not_blocking_starts_on_the_loop_and_can_lose_it(
    rig: Rig,
) -> None:
    act = Blocks()
    task, client = rig.connect(act, blocking=False)
    for item, held in act.held.items():
        block(rig, client, held, item)
        assert task.ran[-1] is not rig.owner()
        held.release()
        assert receive(client, 4) == item + b"<" + item + b">"
        assert where(task, client, rig) == "loop"
    assert rig.loop.handoffs == 3
    assert not rig.connect(act)[0].needs_thread


def no_more(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("blocking", [None, True])
def test_without_threads_a_suspected_task_starts_on_the_loop_and_loses_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, blocking: bool | None
) -> None:
    act = Blocks()
    task, client = rig.connect(act, blocking=blocking)
    task.set_probation(5)
    _, others_client = rig.connect(echo, route="/other")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        block(rig, client, act.held[b"A"])
        # No spare thread is left, so no task starts on the loop until a thread is free again.
        others_client.sendall(b"x")
        wait_until(lambda: len(rig.loop.waiting) == 1, "the other one waits")
        act.held[b"A"].release()
        assert receive(client, 4) == b"A<A>"
        assert receive(others_client, 1) == b"x"


def test_waiting_tasks_continue_when_threads_can_be_started_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    _, client = rig.connect(act)
    _, others_client = rig.connect(echo, route="/other")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        block(rig, client, act.held[b"A"])
        others_client.sendall(b"x")
        wait_until(lambda: len(rig.loop.waiting) == 1, "the other one waits")
    assert receive(others_client, 1) == b"x"
    act.held[b"A"].release()

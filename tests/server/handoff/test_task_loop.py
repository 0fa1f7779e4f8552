"""The loop and the monitor, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue

import pytest

from tests.server.handoff.stepping import Blocks, Conversation, Rig, block, echo, exchange, receive
from tests.support.clock import ManualClock
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff import monitor as monitor_module
from wsframe.server.handoff.loop import Loop
from wsframe.server.timing import Timing


def test_queued_turns_and_their_followers_run_before_the_loop_ends(rig: Rig) -> None:
    called: Queue[bytes] = Queue()

    def act(task: Conversation, item: bytes) -> None:
        echo(task, item)
        rig.loop.call_soon(lambda: called.put(item))

    connections = [rig.connect(act) for _ in range(3)]

    def ask_and_end() -> None:
        for task, _ in connections:
            task.work = [b"x"]
            task.schedule()
        rig.loop._end()

    rig.loop.call_soon(ask_and_end)
    for _, client in connections:
        assert receive(client, 1) == b"x"
    assert [called.get(timeout=TIMEOUT) for _ in connections] == [b"x"] * 3


def test_a_loop_can_end_while_a_turn_continues_without_it(rig: Rig) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    block(rig, client, act.held[b"A"])
    rig.loop.stop(TIMEOUT)
    act.held[b"A"].release()
    wait_until(lambda: task.ran[0].name == "wsframe-idle", "the thread is free")


def test_a_call_wakes_a_sleeping_loop(rig: Rig) -> None:
    for _ in range(3):
        wait_until(rig.loop.sleeps, "it has nothing to do")
        rig.owner()  # without a connection it would sleep for ever


def test_a_call_costs_no_wake_up_while_the_loop_is_awake(rig: Rig) -> None:
    act = Blocks()
    _, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    assert not rig.loop.sleeps()
    called: Queue[int] = Queue()
    for number in range(3):
        rig.loop.call_soon(lambda number=number: called.put(number))  # type: ignore[misc]
    assert not rig.loop._waker.drain()
    act.held[b"A"].release()
    assert [called.get(timeout=TIMEOUT) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("moment", ["before it is announced", "after it was announced"])
def test_a_call_is_not_lost_when_the_loop_falls_asleep(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    called = threading.Event()
    poll, look = rig.loop._poller.poll, rig.loop._tick_if_due
    calls: list[Callable[[], None]] = []

    def call() -> None:
        while calls:
            rig.loop.call_soon(calls.pop())

    def poll_late(timeout: float | None) -> list[tuple[int, int]]:
        if moment == "after it was announced":
            call()
        return poll(timeout)

    def look_late() -> None:
        look()
        if moment == "before it is announced":
            call()

    monkeypatch.setattr(rig.loop._poller, "poll", poll_late)
    monkeypatch.setattr(rig.loop, "_tick_if_due", look_late)
    monkeypatch.setattr(rig.loop, "_poll_timeout", lambda: None)
    rig.loop.start()
    _, client = rig.connect(echo)
    calls.append(called.set)
    exchange(client, b"x")
    assert called.wait(TIMEOUT)
    rig.close()


def test_the_monitor_parks_while_idle_and_work_wakes_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "QUIET_CHECKS", 2)
    rig.monitor._timing = Timing(turn_slice=0.001, monitor_interval=60)
    act = Blocks()
    _, client = rig.connect(act, blocking=False)
    _, others_client = rig.connect(echo, route="/other")
    rig.monitor.start([rig.loop])
    for item, held in act.held.items():
        wait_until(lambda: rig.monitor.parked, "it is parked")
        client.sendall(item)
        held.wait_until_reached()
        exchange(others_client, b"x")  # on the loop that it has taken
        held.release()
        assert receive(client, 4) == item + b"<" + item + b">"
    assert rig.loop.handoffs == 3


def test_the_monitor_does_not_park_while_a_loop_is_awake(rig: Rig) -> None:
    """The loop may have checked just before whether a monitor must be woken."""
    act = Blocks()
    _, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    rig.monitor._loops = [rig.loop]
    rig.monitor._park()
    assert not rig.monitor.parked
    act.held[b"A"].release()


def test_a_parked_monitor_that_checks_by_itself_stays_parked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.monitor._timing = Timing(monitor_interval=0.001)
    looks = iter([True, True, True, False])
    monkeypatch.setattr(rig.loop, "sleeps", lambda: next(looks))
    rig.monitor._loops = [rig.loop]
    rig.monitor._park()
    assert not list(looks)


def test_the_pause_between_ticks_counts_from_the_first_of_successive_ones() -> None:
    clock = ManualClock()
    interval = Timing().sweep_interval
    rig = Rig()
    loop = Loop(Timing(clock=clock), rig.threads, rig.monitor)
    pauses = [0.0, 0.0, interval, interval]
    ticks = []

    def tick(now: float) -> float:
        ticks.append(now - start)
        return pauses.pop(0)

    loop.tick = tick
    start = clock.now
    loop.start_ticks()
    for _ in range(20):
        clock.now += interval / 8
        loop._tick_if_due()
    assert [8 * time / interval for time in ticks] == [8, 9, 10, 16]
    loop.discard()
    rig.loop.discard()

"""The loop and the monitor, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from queue import Queue

import pytest

from tests.server.handoff.stepping import Blocks, Conversation, Rig, block, echo, exchange, receive
from tests.support.handlers import Checkpoint
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.monitor import Monitor
from wsframe.server.handoff.poller import Poller
from wsframe.server.pure_rounds import Received
from wsframe.server.timing import Timing
from wsframe.waker import Waker


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
        rig.loop.end()

    rig.loop.call_soon(ask_and_end)
    for _, client in connections:
        assert receive(client, 1) == b"x"
    assert [called.get(timeout=TIMEOUT) for _ in connections] == [b"x"] * 3


@pytest.mark.parametrize("blocking", [None, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_queued_turn_without_work_does_not_run(
    rig: Rig, blocking: bool | None, ended: bool
) -> None:
    task, _ = rig.connect(echo, blocking=blocking)

    def queue_and_remove() -> None:
        task.work = [b"x"]
        task.schedule()
        if ended:
            task.end()
        else:
            task.work = None

    rig.ask(queue_and_remove)
    other, other_client = rig.connect(echo, blocking=blocking)
    exchange(other_client, b"y")  # its turn runs after the queued one
    assert other.ran
    assert not task.ran


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


def test_a_stop_logs_the_stack_of_a_handler_that_blocks_the_loop(rig: Rig, log: ServerLog) -> None:
    act = Blocks()
    _, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    rig.loop.stop(0.01)
    record = log.expect("the loop did not stop within 0.01 s because a handler blocks it")
    assert "self.held[item].wait()" in str(record.stack_info)
    act.held[b"A"].release()


def test_only_a_turn_is_slowed_down(rig: Rig) -> None:
    """A finalizer that publishes may run on the loop's thread between two turns."""
    asked: Queue[object] = Queue()
    rig.ask(lambda: rig.loop.slow_down("full", asked.put))
    assert asked.empty()
    assert not rig.loop.slowdowns


class CountingWaker(Waker):
    """A waker that counts the wake-ups."""

    count = 0

    def wake(self) -> None:
        self.count += 1
        super().wake()


def test_a_call_costs_no_wake_up_while_the_loop_is_awake() -> None:
    waker = CountingWaker()
    rig = Rig(waker=waker)
    rig.loop.start()
    wait_until(rig.loop.sleeps, "it has nothing to do")
    act = Blocks()
    _, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    assert not rig.loop.sleeps()
    count = waker.count
    assert count, "the connection has woken it"
    called: Queue[int] = Queue()
    for number in range(3):
        rig.loop.call_soon(lambda number=number: called.put(number))  # type: ignore[misc]
    assert waker.count == count
    act.held[b"A"].release()
    assert [called.get(timeout=TIMEOUT) for _ in range(3)] == [0, 1, 2]
    rig.close()


def test_several_calls_wake_a_sleeping_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    poller, waker = Poller(), CountingWaker()
    rig = Rig(poller=poller, waker=waker)
    receive, woken = poller.receive, Checkpoint()

    def wake_up_late(timeout: float | None) -> tuple[list[Received], list[tuple[int, int]]]:
        ready = receive(timeout)
        if timeout is None:
            woken.wait()
        return ready

    monkeypatch.setattr(poller, "receive", wake_up_late)
    rig.loop.start()
    wait_until(rig.loop.sleeps, "it has nothing to do")
    called: Queue[int] = Queue()
    for number in range(3):
        rig.loop.call_soon(partial(called.put, number))
    woken.wait_until_reached()
    assert waker.count == 1
    woken.release()
    assert [called.get(timeout=TIMEOUT) for _ in range(3)] == [0, 1, 2]
    rig.close()


@pytest.mark.parametrize("moment", ["before it is announced", "after it was announced"])
def test_a_call_is_not_lost_when_the_loop_falls_asleep(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = Poller()
    rig = Rig(poller=poller)
    called = threading.Event()
    receive = poller.receive
    calls: list[Callable[[], None]] = []

    def call() -> None:
        while calls:
            rig.loop.call_soon(calls.pop())

    def call_in_a_later_round() -> None:
        # The loop makes a call that a call has queued in the next round.
        rig.loop.call_soon(call)

    def receive_late(timeout: float | None) -> tuple[list[Received], list[tuple[int, int]]]:
        if timeout != 0 and moment == "after it was announced":
            call()
        found = receive(timeout and None)  # without an end, because a tick would make up for a loss
        if any(found) and moment == "before it is announced":
            call_in_a_later_round()  # after this round the loop sleeps
        return found

    monkeypatch.setattr(poller, "receive", receive_late)
    rig.loop.start()
    _, client = rig.connect(echo)
    calls.append(called.set)
    exchange(client, b"x")
    assert called.wait(TIMEOUT)
    rig.close()


def test_the_monitor_parks_while_idle_and_work_wakes_it() -> None:
    rig = Rig(Timing(turn_slice=0.001, monitor_interval=60, monitor_quiet_checks=2))
    rig.loop.start()
    act = Blocks()
    _, client = rig.connect(act, blocking=False)
    _, others_client = rig.connect(echo, route="/other")
    rig.start_monitor()
    for item, held in act.held.items():
        wait_until(lambda: rig.monitor.parked, "it is parked")
        client.sendall(item)
        held.wait_until_reached()
        exchange(others_client, b"x")  # on the loop that it has taken
        held.release()
        assert receive(client, 4) == item + b"<" + item + b">"
    assert rig.loop.handoffs >= 3  # on a busy machine, the other connection may lose it, too
    rig.close()


class QuietLoop:
    """A loop without a turn, for the monitor.

    Args:
        sleeps: the answers to the monitor's question whether the loop sleeps.

    Attributes:
        asked: the monitor's calls, in order.
    """

    def __init__(self, sleeps: Iterator[bool]) -> None:
        self.asked: Queue[str] = Queue()
        self._sleeps = sleeps

    def watch(self) -> bool:
        self.asked.put("check")
        return False

    def sleeps(self) -> bool:
        self.asked.put("sleeps")
        return next(self._sleeps)

    def expect(self, *calls: str) -> None:
        """Wait for these calls."""
        assert tuple(self.asked.get(timeout=TIMEOUT) for _ in calls) == calls


def test_the_monitor_does_not_park_while_a_loop_is_awake() -> None:
    """The loop may have checked just before whether a monitor must be woken."""
    monitor = Monitor(Timing(turn_slice=0.001, monitor_interval=60, monitor_quiet_checks=2))
    loop = QuietLoop(repeat(False))
    monitor.start([loop])
    for _ in range(3):
        loop.expect("check", "check", "sleeps")
    monitor.stop()


def test_a_parked_monitor_that_checks_by_itself_stays_parked() -> None:
    monitor = Monitor(Timing(turn_slice=0.001, monitor_interval=0.001, monitor_quiet_checks=2))
    loop = QuietLoop(chain([True, True, True], repeat(False)))
    monitor.start([loop])
    loop.expect("check", "check", *["sleeps"] * 4, "check")
    monitor.stop()


class FailingOnce(QuietLoop):
    """A loop whose first check fails."""

    failed = False

    def watch(self) -> bool:
        in_turn = super().watch()
        if not self.failed:
            self.failed = True
            raise LookupError("no turn")
        return in_turn


def test_a_check_that_fails_is_logged_and_repeated(log: ServerLog) -> None:
    monitor = Monitor(Timing(turn_slice=0.001, monitor_interval=60, monitor_quiet_checks=1))
    loop = FailingOnce(repeat(True))
    monitor.start([loop])
    loop.expect("check", "check", "sleeps")
    monitor.stop()
    assert "no turn" in str(log.expect("internal error in the monitor").exc_info)

"""A connection's handler is woken and runs, step by step."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from tests.server.handoff.stepping import Blocks, Conversation, Rig, block, echo, receive
from tests.support.handlers import Checkpoint
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.task import BUSY, HELD, MAX_WORK_PER_TURN, QUEUED, Task
from wsframe.server.pure_rounds import Signal
from wsframe.server.sockets.output import HIGH_WATER


def held_with_news(rig: Rig, held: Checkpoint, *ready_signals: Signal) -> None:
    """Register these signals with the loop in one turn, and block a turn of the next round."""

    def act(task: Conversation, item: bytes) -> None:
        if item == b"held":
            held.wait()
            return
        if item == b"news":
            for ready_signal in ready_signals:
                rig.loop.wakes.add(ready_signal)
        # A turn that is queued by a queued turn belongs to the next round.
        task.work = [b"held" if item == b"news" else b"news"]
        task.needs_finish = True

    _, client = rig.connect(act)
    client.sendall(b"tell")
    held.wait_until_reached()


def signals(rig: Rig, count: int) -> list[Signal]:
    """Return this number of signals that are not set."""
    return [rig.loop.wakes.new_signal() for _ in range(count)]


def test_the_loop_wakes_one_thread_which_wakes_the_next(rig: Rig) -> None:
    wakes = rig.loop.wakes
    wakes.one_at_a_time = True
    held = Checkpoint()
    first, second, third = signals(rig, 3)
    held_with_news(rig, held, first, second, second, third)
    assert [signal.is_set for signal in (first, second, third)] == [True, False, False]
    assert wakes.after(first) is second
    second.set()
    assert wakes.after(second) is third  # the second has been woken already
    assert wakes.after(third) is None
    held.release()


def test_the_loop_wakes_all_threads_in_the_end(rig: Rig) -> None:
    rig.loop.wakes.one_at_a_time = True
    held = Checkpoint()
    ready_signals = signals(rig, 20)
    held_with_news(rig, held, *ready_signals)
    held.release()
    for signal in ready_signals:
        assert signal.wait(TIMEOUT)


def test_all_threads_are_woken_at_once_without_a_gil(rig: Rig) -> None:
    rig.loop.wakes.one_at_a_time = False
    held = Checkpoint()
    ready_signals = signals(rig, 20)
    held_with_news(rig, held, *ready_signals)
    assert all(signal.is_set for signal in ready_signals)
    held.release()


def test_frames_are_sent_in_order_before_and_after_the_handoff(rig: Rig) -> None:
    holds = [Checkpoint(), Checkpoint()]

    def act(task: Conversation, item: bytes) -> None:
        for number, held in enumerate(holds):
            for _ in range(3):
                task.peer.send(b"%d" % number)
            held.wait()
        task.peer.send(b"2")

    task, client = rig.connect(act)
    block(rig, client, holds[0])
    assert receive(client, 3) == b"000"
    holds[0].release()
    holds[1].wait_until_reached()
    assert receive(client, 3) == b"111", "while it blocks without the loop"
    holds[1].release()
    assert receive(client, 1) == b"2"
    assert task.settled.get(timeout=TIMEOUT)


def test_within_a_turn_frames_are_sent_at_its_end(rig: Rig) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    assert task.peer.in_turn
    assert task.peer.out == [b"A<"]
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    assert not rig.ask(lambda: task.peer.in_turn)


def test_two_turns_of_a_connection_are_never_at_once(rig: Rig) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    block(rig, client, act.held[b"A"])
    client.sendall(b"b")
    wait_until(lambda: task.work == [b"b"], "it was read")
    rig.ask(task.schedule)
    assert task.state is BUSY
    assert len(task.ran) == 1
    act.held[b"A"].release()
    assert receive(client, 8) == b"A<A>b<b>"
    assert len(task.ran) == 2


@pytest.mark.parametrize("how", ["loop", "handed off", "thread"])
def test_only_the_owner_finishes_a_turn(rig: Rig, how: str) -> None:
    act = Blocks()
    task, client = rig.connect(act, blocking=True if how == "thread" else None)

    def unsettle() -> None:
        task.needs_finish = True

    rig.ask(unsettle)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    if how == "handed off":
        rig.look_twice()
    if how != "loop":
        rig.owner()
        assert task.settled.empty()
    act.held[b"A"].release()
    assert task.settled.get(timeout=TIMEOUT)
    client.sendall(b"b")
    assert receive(client, 8) == b"A<A>b<b>"
    if how == "loop":
        assert task.settled.empty(), "nothing was unsettled"
    else:
        assert task.settled.get(timeout=TIMEOUT)


def test_a_turn_is_scheduled_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    task, client = rig.connect(echo)
    queued: list[Task] = []
    queue_turn = rig.loop.queue_turn

    def note(task: Task) -> None:
        queued.append(task)
        queue_turn(task)

    monkeypatch.setattr(rig.loop, "queue_turn", note)

    def ask() -> None:
        task.work = [b"x"]
        task.schedule()
        assert task.state is QUEUED
        task.schedule()
        assert queued == [task]

    rig.ask(ask)
    assert receive(client, 1) == b"x"

    def hold() -> None:
        task.work = [b"y"]
        task.state = HELD

    rig.ask(hold)
    rig.owner()
    assert len(task.ran) == 1
    rig.ask(task.schedule)
    assert receive(client, 1) == b"y"


def test_much_work_is_done_in_many_turns(rig: Rig) -> None:
    task, client = rig.connect(echo)
    work = [b"%04d" % number for number in range(2 * MAX_WORK_PER_TURN + 1)]

    def ask() -> None:
        task.work = list(work)
        task.schedule()

    rig.ask(ask)
    assert receive(client, 4 * len(work)) == b"".join(work)
    rig.owner()
    assert len(task.ran) == 3


def test_another_thread_that_sends_much_during_a_turn_waits(rig: Rig) -> None:
    """The turn is not charged for the data of the other thread, and would not end because of it."""
    act = Blocks()
    task, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    frame = bytes(HIGH_WATER // 2)

    def push() -> None:
        for _ in range(6):
            task.peer.send(frame)

    pushing = threading.Thread(target=push)
    pushing.start()
    wait_until(lambda: task.peer.waiting_senders, "it has to wait")
    assert not task.peer.stop_turn
    act.held[b"A"].release()
    assert receive(client, 4 + 6 * len(frame)).replace(b"\0", b"") == b"A<A>"
    pushing.join(TIMEOUT)
    assert not pushing.is_alive()


@pytest.mark.parametrize("how", ["loop", "handed off", "thread"])
def test_a_closed_connection_is_removed(rig: Rig, how: str) -> None:
    act = Blocks()
    task, client = rig.connect(act, blocking=True if how == "thread" else None)
    if how == "handed off":
        block(rig, client, act.held[b"A"])
    else:
        client.sendall(b"A")
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    gone = weakref.ref(task)
    rig.ask(task.end)
    client.close()
    del task
    wait_until(lambda: not rig.clients.peers, "the client has left")
    wait_until(rig.loop.sleeps, "all is quiet")
    wait_until(lambda: rig.threads.counts()[1] == 0, "all is quiet")
    gc.collect()
    assert gone() is None

"""Ownership of the loop, step by step: the test decides when the loop is handed off."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from queue import Queue
from types import FrameType

import pytest

from tests.server.handoff.stepping import Blocks, Conversation, Rig, block, echo, exchange, receive
from tests.support.handlers import Checkpoint
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.ownership import Handoff
from wsframe.server.handoff.quotas import Holder
from wsframe.server.handoff.task import BUSY, IDLE
from wsframe.server.handoff.threads import Charge, WorkerThread


def test_a_task_that_schedules_itself_repeatedly_does_not_delay_others(rig: Rig) -> None:
    done = threading.Event()

    def schedule_again(task: Conversation, item: bytes) -> None:
        if not done.is_set():
            task.work = [item]
            task.needs_finish = True

    _, restless = rig.connect(schedule_again)
    _, client = rig.connect(echo)
    restless.sendall(b"x")
    exchange(client, b"hello")
    done.set()


def test_an_internal_error_after_a_turn_without_the_loop_ends_its_connection(
    rig: Rig, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    _, client = rig.connect(act)

    def fail(task: Conversation) -> None:
        raise LookupError("nothing to settle")

    monkeypatch.setattr(Conversation, "finish_turn", fail)
    block(rig, client, act.held[b"A"])
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    assert client.recv(1) == b""
    assert log.expect("internal error").exc_info


def test_a_turn_that_returns_keeps_the_loop(rig: Rig) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    owner = rig.owner()
    assert not rig.loop.watch()
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    assert rig.loop.watch()
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    assert rig.owner() is owner
    assert not rig.loop.watch()
    assert not rig.loop.watch()
    assert task.ran == [owner]
    assert task.state is IDLE
    assert rig.loop.handoffs == 0


def test_a_turn_seen_by_two_checks_loses_the_loop_and_others_continue(rig: Rig) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    other, others_client = rig.connect(echo)
    first = rig.owner()
    block(rig, client, act.held[b"A"])
    exchange(others_client, b"x")
    second = rig.owner()
    assert second is not first
    assert other.ran == [second]
    assert task.ran == [first]
    assert task.state is BUSY
    assert (first.name, second.name) == ("wsframe-handler /test", "wsframe-loop")
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    wait_until(lambda: first.name == "wsframe-idle", "the thread is free")
    assert rig.ask(lambda: task.state) is IDLE
    assert rig.owner() is second
    assert rig.loop.handoffs == 1


def test_two_turns_at_two_checks_are_not_one_slow_turn(rig: Rig) -> None:
    """Even if they look the same, and no check saw the loop idle in between."""
    holds = [Checkpoint(), Checkpoint()]
    entered = iter(holds)
    task, client = rig.connect(lambda task, item: next(entered).wait())
    for held in holds:
        client.sendall(b"same")
        held.wait_until_reached()
        assert rig.loop.watch()
        if held is holds[0]:
            held.release()
    assert rig.loop.handoffs == 0
    rig.loop.watch()
    assert rig.owner() is not task.ran[0]
    assert rig.loop.handoffs == 1
    holds[1].release()


def test_a_late_handoff_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn returns after a thread was taken and before the token was."""
    act = Blocks()
    task, client = rig.connect(act)
    owner = rig.owner()
    hand_off = rig.threads.hand_off

    def hand_off_late(worker: WorkerThread, holder: Holder) -> tuple[WorkerThread, Charge] | None:
        taken = hand_off(worker, holder)
        act.held[b"A"].release()
        assert rig.owner() is owner  # the turn is over
        return taken

    monkeypatch.setattr(rig.threads, "hand_off", hand_off_late)
    block(rig, client, act.held[b"A"])
    assert rig.owner() is owner
    assert rig.loop.handoffs == 0
    assert rig.threads.counts() == (2, 0)
    assert task.state is IDLE
    client.sendall(b"b")
    assert receive(client, 8) == b"A<A>b<b>"


def before_the_hand_off(function: Callable[[], object]) -> None:
    """Call this function when the next check, in this thread, has seen a turn for the second time.

    That is, before the check calls another method.
    """

    def profile(frame: FrameType, event: str, argument: object) -> None:
        caller = frame.f_back
        if event == "call" and caller is not None and caller.f_code is Handoff.watch.__code__:
            sys.setprofile(None)
            function()

    sys.setprofile(profile)


def test_a_turn_that_returns_right_before_the_hand_off_keeps_the_loop(rig: Rig) -> None:
    act = Blocks()
    _, client = rig.connect(act)
    owner = rig.owner()
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    assert rig.loop.watch()

    def end_turn() -> None:
        act.held[b"A"].release()
        assert receive(client, 4) == b"A<A>"
        assert rig.owner() is owner  # the round is over

    before_the_hand_off(end_turn)
    assert not rig.loop.watch()
    assert sys.getprofile() is None
    assert rig.owner() is owner
    assert rig.loop.handoffs == 0
    assert rig.threads.counts() == (2, 0)


def test_a_late_handoff_counts_for_the_turn_that_loses_the_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The observed turn returns after a thread was taken, and another turn begins."""
    act = Blocks()
    one, first = rig.connect(act, route="/one")
    two, second = rig.connect(act, route="/two")
    owners: list[WorkerThread] = []
    hand_off = rig.threads.hand_off

    def hand_off_late(owner: WorkerThread, holder: Holder) -> tuple[WorkerThread, Charge] | None:
        assert holder.route == "/one"
        owners.append(owner)
        taken = hand_off(owner, holder)
        second.sendall(b"B")
        act.held[b"A"].release()
        act.held[b"B"].wait_until_reached()
        return taken

    monkeypatch.setattr(rig.threads, "hand_off", hand_off_late)
    block(rig, first, act.held[b"A"])
    assert rig.ask(lambda: (one.state, two.state)) == (IDLE, BUSY)
    assert owners[0].charge is not None
    assert owners[0].charge[1].route == "/two"
    act.held[b"B"].release()
    assert receive(second, 4) == b"B<B>"
    assert two.settled.get(timeout=TIMEOUT)


def test_without_a_free_thread_the_turn_keeps_the_loop_until_it_returns(
    rig: Rig, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    _, others_client = rig.connect(echo)
    owner = rig.owner()
    monkeypatch.setattr(rig.threads, "hand_off", lambda owner, holder: None)
    block(rig, client, act.held[b"A"])
    others_client.sendall(b"x")
    rig.loop.watch()
    rig.loop.watch()
    act.held[b"A"].release()
    assert receive(others_client, 1) == b"x"
    assert receive(client, 4) == b"A<A>"
    assert rig.owner() is owner
    assert rig.loop.handoffs == 0
    assert not task.needs_thread
    log.expect("/test blocks the loop, and no thread can take it over: the system", logging.WARNING)
    assert not log.records, "once is enough for one turn"


def test_a_turn_that_lost_the_loop_cannot_take_the_token_of_a_later_one(rig: Rig) -> None:
    act = Blocks()
    one, first = rig.connect(act)
    two, second = rig.connect(act)
    block(rig, first, act.held[b"A"])
    second.sendall(b"B")
    act.held[b"B"].wait_until_reached()
    act.held[b"A"].release()
    # Its return is not noticed while the other turn has the loop.
    wait_until(lambda: one.ran[0].name == "wsframe-idle", "the first one has returned")
    rig.look_twice()
    assert rig.ask(lambda: (one.state, two.state)) == (IDLE, BUSY)
    assert rig.loop.handoffs == 2
    act.held[b"B"].release()
    assert receive(first, 4) == b"A<A>"
    assert receive(second, 4) == b"B<B>"


def hold_back_the_new_owner(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], threading.Thread]:
    """Let the next hand-off take a thread that does not start to run the loop.

    Returns:
        A function that starts it, and returns the thread.
    """
    late = WorkerThread(rig.threads)  # which never begins
    hand_off = rig.threads.hand_off
    taken: list[WorkerThread] = []

    def hand_off_late(owner: WorkerThread, holder: Holder) -> tuple[WorkerThread, Charge] | None:
        found = hand_off(owner, holder)
        assert found is not None
        taken.append(found[0])
        return late, found[1]

    def start() -> threading.Thread:
        (worker,) = taken
        worker.jobs.put(late.jobs.get(timeout=TIMEOUT))
        return worker.thread

    monkeypatch.setattr(rig.threads, "hand_off", hand_off_late)
    return start


def test_a_turn_can_return_before_the_new_owner_has_started(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    task, client = rig.connect(act)
    start_new_owner = hold_back_the_new_owner(rig, monkeypatch)
    block(rig, client, act.held[b"A"])
    act.held[b"A"].release()
    wait_until(lambda: task.ran[0].name == "wsframe-idle", "the turn has returned")
    start_new_owner()
    assert receive(client, 4) == b"A<A>"
    assert task.settled.get(timeout=TIMEOUT)
    assert task.settled.empty()
    assert task.state is IDLE
    client.sendall(b"b")
    assert receive(client, 4) == b"b<b>"


def test_a_thread_that_lost_the_loop_is_not_its_owner_even_before_the_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, owned = Checkpoint(), Queue[bool]()

    def act(task: Conversation, item: bytes) -> None:
        held.wait()
        owned.put(rig.loop.owned())

    _, client = rig.connect(act)
    start_new_owner = hold_back_the_new_owner(rig, monkeypatch)
    block(rig, client, held)
    held.release()
    assert not owned.get(timeout=TIMEOUT)
    new_owner = start_new_owner()
    assert rig.owner() is new_owner


def test_the_token_is_returned_after_any_exception_of_a_turn(rig: Rig, log: ServerLog) -> None:
    def fail(task: Conversation, item: bytes) -> None:
        task.peer.send(item)
        raise KeyboardInterrupt

    task, client = rig.connect(fail)
    owner = rig.owner()
    exchange(client, b"x")
    log.expect("internal error")
    assert not rig.loop.watch()
    assert rig.owner() is owner
    exchange(client, b"y")
    log.expect("internal error")
    assert task.state is IDLE


def test_the_owner_receives_any_exception_of_a_turn_in_a_thread(rig: Rig, log: ServerLog) -> None:
    def fail(task: Conversation, item: bytes) -> None:
        task.peer.send(item)
        raise KeyboardInterrupt

    task, client = rig.connect(fail, blocking=True)
    for item in (b"x", b"y"):
        exchange(client, item)
        log.expect("internal error")
        assert task.settled.get(timeout=TIMEOUT)
    assert task.state is IDLE


@pytest.mark.parametrize("slow", [False, True])
def test_a_client_that_has_disconnected_starts_no_second_turn_at_the_hand_off(
    rig: Rig, slow: bool
) -> None:
    """A failure to send an earlier answer shows it: to the new owner, or before a slow turn."""
    calls, turn = Checkpoint(), Checkpoint()

    class Ending(Conversation):
        def disconnected(self) -> None:
            self.work = [b"end"]
            self.schedule()

    def act(task: Conversation, item: bytes) -> None:
        if item == b"first":
            turn.wait()
        ended.put(item)

    ended: Queue[bytes] = Queue()
    task, client = rig.connect(act, kind=Ending)
    task.profile.slow = slow
    rig.loop.call_soon(calls.wait)
    calls.wait_until_reached()
    task.peer.send(b"answer")  # it is collected before the turn
    client.sendall(b"first")
    client.close()
    calls.release()
    turn.wait_until_reached()
    rig.look_twice()
    assert rig.ask(lambda: task.peer.closed)
    assert rig.ask(lambda: task.state) is BUSY
    turn.release()
    assert [ended.get(timeout=TIMEOUT), ended.get(timeout=TIMEOUT)] == [b"first", b"end"]

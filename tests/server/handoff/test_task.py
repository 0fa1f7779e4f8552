"""A connection's handler is woken and runs, step by step."""

from __future__ import annotations

import gc
import threading
import weakref
from queue import SimpleQueue

import pytest

from tests.server.handoff.stepping import Blocks, Conversation, Rig, block, echo, receive
from tests.support.handlers import Checkpoint
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.turns import (
    BUSY,
    HELD,
    QUEUED,
    WORK_A_TURN,
)
from wsframe.server.sockets.peer import HIGH_WATER


def held_with_news(rig: Rig, held: Checkpoint, *news: SimpleQueue[None]) -> None:
    """Have the loop told of these queues in one turn, and held in the next."""

    def act(turns: Conversation, item: bytes) -> None:
        if item == b"held":
            held.wait()
            return
        for queue in news:
            rig.loop.wake_soon(queue)
        turns.work = [b"held"]
        turns.unsettled = True

    _, client = rig.connect(act)
    client.sendall(b"tell")
    held.wait_until_reached()


def queues(count: int) -> list[SimpleQueue[None]]:
    """So many, on which nothing is."""
    return [SimpleQueue() for _ in range(count)]


def test_the_loop_wakes_one_and_who_is_woken_wakes_the_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.loop, "_wakes_one", True)
    held = Checkpoint()
    first, second, third = queues(3)
    held_with_news(rig, held, first, second, second, third)
    assert [queue.qsize() for queue in (first, second, third)] == [1, 0, 0]
    rig.loop.wake_next()
    assert second.qsize() == 1
    rig.loop.wake_next()  # the second has been told already
    assert [queue.qsize() for queue in (first, second, third)] == [1, 1, 1]
    rig.loop.wake_next()
    held.release()


def test_the_loop_wakes_all_in_the_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.loop, "_wakes_one", True)
    held = Checkpoint()
    news = queues(20)
    held_with_news(rig, held, *news)
    held.release()
    for queue in news:
        queue.get(timeout=TIMEOUT)


def test_all_are_woken_at_once_where_there_is_no_gil(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.loop, "_wakes_one", False)
    held = Checkpoint()
    news = queues(20)
    held_with_news(rig, held, *news)
    assert [queue.qsize() for queue in news] == [1] * 20
    held.release()


def test_frames_go_out_in_order_before_and_after_the_steal(rig: Rig) -> None:
    holds = [Checkpoint(), Checkpoint()]

    def act(turns: Conversation, item: bytes) -> None:
        for number, held in enumerate(holds):
            for _ in range(3):
                turns.peer.send(b"%d" % number)
            held.wait()
        turns.peer.send(b"2")

    turns, client = rig.connect(act)
    block(rig, client, holds[0])
    assert receive(client, 3) == b"000"
    holds[0].release()
    holds[1].wait_until_reached()
    assert receive(client, 3) == b"111", "while it blocks without the loop"
    holds[1].release()
    assert receive(client, 1) == b"2"
    assert turns.settled.get(timeout=TIMEOUT)


def test_within_a_turn_frames_are_sent_at_its_end(rig: Rig) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    assert turns.peer.in_turn
    assert turns.peer.out == [b"A<"]
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    assert not rig.ask(lambda: turns.peer.in_turn)


def test_two_turns_of_a_connection_are_never_at_once(rig: Rig) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    block(rig, client, act.held[b"A"])
    client.sendall(b"b")
    wait_until(lambda: turns.work == [b"b"], "it was read")
    rig.ask(turns.ask)
    assert turns.state is BUSY
    assert len(turns.ran) == 1
    act.held[b"A"].release()
    assert receive(client, 8) == b"A<A>b<b>"
    assert len(turns.ran) == 2


@pytest.mark.parametrize("how", ["loop", "stolen", "thread"])
def test_only_the_owner_settles(rig: Rig, how: str) -> None:
    act = Blocks()
    turns, client = rig.connect(act, blocking=True if how == "thread" else None)

    def unsettle() -> None:
        turns.unsettled = True

    rig.ask(unsettle)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    if how == "stolen":
        rig.look_twice()
    if how != "loop":
        rig.owner()
        assert turns.settled.empty()
    act.held[b"A"].release()
    assert turns.settled.get(timeout=TIMEOUT)
    client.sendall(b"b")
    assert receive(client, 8) == b"A<A>b<b>"
    if how == "loop":
        assert turns.settled.empty(), "nothing was unsettled"
    else:
        assert turns.settled.get(timeout=TIMEOUT)


def test_a_turn_is_asked_for_once(rig: Rig) -> None:
    turns, client = rig.connect(echo)

    def ask() -> None:
        turns.work = [b"x"]
        turns.ask()
        assert turns.state is QUEUED
        turns.ask()
        assert len(rig.loop._turns) == 1

    rig.ask(ask)
    assert receive(client, 1) == b"x"

    def hold() -> None:
        turns.work = [b"y"]
        turns.state = HELD

    rig.ask(hold)
    rig.owner()
    assert len(turns.ran) == 1
    rig.ask(turns.ask)
    assert receive(client, 1) == b"y"


def test_much_work_is_done_in_many_turns(rig: Rig) -> None:
    turns, client = rig.connect(echo)
    work = [b"%04d" % number for number in range(2 * WORK_A_TURN + 1)]

    def ask() -> None:
        turns.work = list(work)
        turns.ask()

    rig.ask(ask)
    assert receive(client, 4 * len(work)) == b"".join(work)
    rig.owner()
    assert len(turns.ran) == 3


def test_another_thread_that_sends_much_during_a_turn_waits(rig: Rig) -> None:
    """The turn does not count for it, and would not end for it."""
    act = Blocks()
    turns, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_until_reached()
    frame = bytes(HIGH_WATER // 2)

    def push() -> None:
        for _ in range(6):
            turns.peer.send(frame)

    pushing = threading.Thread(target=push)
    pushing.start()
    wait_until(lambda: turns.peer._waiting, "it has to wait")
    assert not turns.peer.halted
    act.held[b"A"].release()
    assert receive(client, 4 + 6 * len(frame)).replace(b"\0", b"") == b"A<A>"
    pushing.join(TIMEOUT)
    assert not pushing.is_alive()


@pytest.mark.parametrize("how", ["loop", "stolen", "thread"])
def test_a_connection_that_is_over_is_forgotten(rig: Rig, how: str) -> None:
    act = Blocks()
    turns, client = rig.connect(act, blocking=True if how == "thread" else None)
    if how == "stolen":
        block(rig, client, act.held[b"A"])
    else:
        client.sendall(b"A")
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    gone = weakref.ref(turns)
    rig.ask(turns.end)
    client.close()
    del turns
    wait_until(lambda: not rig.clients.peers, "the client has left")
    wait_until(rig.loop.sleeps, "all is quiet")
    wait_until(lambda: rig.threads.counts()[1] == 0, "all is quiet")
    gc.collect()
    assert gone() is None

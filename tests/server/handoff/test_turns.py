"""The hand-off, step by step: the test is the monitor, and decides when the loop is taken."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from queue import Queue, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

import pytest

from tests.server.conftest import ServerLog, wait_until
from tests.support.clients import TIMEOUT
from tests.support.clock import ManualClock
from tests.support.handlers import Held
from wsframe.server.handoff import loop as loop_module
from wsframe.server.handoff import monitor as monitor_module
from wsframe.server.handoff import turns as turns_module
from wsframe.server.handoff.loop import Loop
from wsframe.server.handoff.monitor import Monitor
from wsframe.server.handoff.quotas import Holder
from wsframe.server.handoff.threads import Charge, Threads, Worker
from wsframe.server.handoff.turns import (
    BUSY,
    HELD,
    IDLE,
    QUEUED,
    ROUTE_PROBATION,
    WORK_A_TURN,
    Habit,
    Turns,
)
from wsframe.server.settings import Settings
from wsframe.server.sockets.clients import Clients
from wsframe.server.sockets.peer import HIGH_WATER, Peer, Protocol
from wsframe.server.timing import Timing

Result = TypeVar("Result")
TIMING = Timing()


class Conversation(Protocol, Turns):
    """Every read is work, and the test says what is done with it.

    Attributes:
        ran: the threads of its turns.
        settled: for every settling, whether it was the owner's.
    """

    peer: Peer

    def __init__(self, peer: Peer, habit: Habit, act: Callable[[Conversation, bytes], object]):
        super().__init__(peer, habit)
        self.act = act
        self.ran: list[threading.Thread] = []
        self.settled: Queue[bool] = Queue()
        self._running = threading.Lock()

    path = "/test"

    def data_received(self, data: memoryview) -> Turns | None:
        self.work = [*(self.work or ()), bytes(data)]
        return self if self.state is IDLE else None

    def work_on(self, work: list[Any]) -> None:
        assert self._running.acquire(blocking=False), "two turns at once"
        try:
            self.ran.append(threading.current_thread())
            for item in work:
                self.act(self, item)
        finally:
            self._running.release()

    def settle(self) -> None:
        self.unsettled = False
        if self.work is not None:
            self.ask()
        self.settled.put(self.peer.loop.owned())

    def peer_left(self) -> None:
        pass

    def deadline_passed(self) -> None:
        pass

    def shut_down(self) -> None:
        pass


class Rig:
    """A loop with threads, and connections without a server.

    Its monitor is never started; the test looks at the loop itself.
    """

    def __init__(self) -> None:
        self.threads = Threads(
            1,
            TIMING,
            max_threads=8,
            max_handler_threads=8,
            reserve_threads=8,
            max_thread_share=0.5,
        )
        self.monitor = Monitor(TIMING)
        self.loop = Loop(TIMING, self.threads, self.monitor)
        self.clients = Clients(self.loop, Settings())
        self._sockets: list[socket.socket] = []
        self._habits: dict[str, Habit] = {}

    def connect(
        self,
        act: Callable[[Conversation, bytes], object],
        *,
        route: str = "/",
        blocking: bool | None = None,
    ) -> tuple[Conversation, socket.socket]:
        """A connection, and its client's socket."""
        ours, theirs = socket.socketpair()
        self._sockets += ours, theirs
        ours.setblocking(False)
        theirs.settimeout(TIMEOUT)
        habit = self._habits.setdefault(route, Habit(route, blocking, self.loop.timing))

        def begin() -> Conversation:
            peer = Peer(self.clients, ours, "client")
            turns = Conversation(peer, habit, act)
            self.loop.unfinished.add(turns)
            peer.open(turns, inf)
            return turns

        return self.ask(begin), theirs

    def ask(self, function: Callable[[], Result]) -> Result:
        """Have the owner call this, and return what it returns."""
        answers: Queue[Result] = Queue()
        self.loop.call_soon(lambda: answers.put(function()))
        return answers.get(timeout=TIMEOUT)

    def set_timing(self, **durations: Any) -> None:
        """Change what the loop reads of its timing."""
        self.loop.timing = replace(self.loop.timing, **durations)

    def owner(self) -> threading.Thread:
        """The owner's thread."""
        return self.ask(threading.current_thread)

    def look_twice(self) -> None:
        """Take the loop from the turn that is under way."""
        assert self.loop.watch()
        assert not self.loop.watch()

    def close(self) -> None:
        """End the loop and its threads."""
        if self.monitor._thread.is_alive():
            self.monitor.stop()
        self.loop.stop(TIMEOUT)
        self.threads.close(monotonic() + TIMEOUT)
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A loop that runs."""
    rig = Rig()
    rig.loop.start()
    yield rig
    rig.close()


def echo(turns: Conversation, item: bytes) -> None:
    """Send it back."""
    turns.peer.send(item)


class Blocks:
    """Sends ``item<`` and ``item>``, and is held in between if the item is upper case."""

    def __init__(self) -> None:
        self.held = {item: Held() for item in (b"A", b"B", b"C")}

    def __call__(self, turns: Conversation, item: bytes) -> None:
        turns.peer.send(item + b"<")
        if item in self.held:
            self.held[item].wait()
        turns.peer.send(item + b">")


def block(rig: Rig, client: socket.socket, held: Held, item: bytes = b"A") -> None:
    """Send what blocks, and take the loop from it."""
    client.sendall(item)
    held.wait_for()
    rig.look_twice()


def receive(client: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


def exchange(client: socket.socket, data: bytes) -> None:
    """See that the connection is served."""
    client.sendall(data)
    assert receive(client, len(data)) == data


# The token ---------------------------------------------------------------------------------------


def test_who_asks_again_and_again_does_not_keep_others_waiting(rig: Rig) -> None:
    done = threading.Event()

    def go_on(turns: Conversation, item: bytes) -> None:
        if not done.is_set():
            turns.work = [item]
            turns.unsettled = True

    _, restless = rig.connect(go_on)
    _, client = rig.connect(echo)
    restless.sendall(b"x")
    exchange(client, b"hello")
    done.set()


def test_a_defect_after_a_turn_without_the_loop_ends_its_connection(
    rig: Rig, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    _, client = rig.connect(act)

    def fail(turns: Conversation) -> None:
        raise LookupError("nothing to settle")

    monkeypatch.setattr(Conversation, "settle", fail)
    block(rig, client, act.held[b"A"])
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    assert client.recv(1) == b""
    assert log.expect("a defect in the server").exc_info


def test_a_turn_that_returns_keeps_the_loop(rig: Rig) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    owner = rig.owner()
    assert not rig.loop.watch()
    client.sendall(b"A")
    act.held[b"A"].wait_for()
    assert rig.loop.watch()
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    assert rig.owner() is owner
    assert not rig.loop.watch()
    assert not rig.loop.watch()
    assert turns.ran == [owner]
    assert turns.state is IDLE
    assert rig.loop.steals == 0


def test_a_turn_that_is_there_at_two_looks_loses_the_loop_and_others_go_on(rig: Rig) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    other, others_client = rig.connect(echo)
    first = rig.owner()
    block(rig, client, act.held[b"A"])
    exchange(others_client, b"x")
    second = rig.owner()
    assert second is not first
    assert other.ran == [second]
    assert turns.ran == [first]
    assert turns.state is BUSY
    assert (first.name, second.name) == ("wsframe-handler /test", "wsframe-loop")
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    wait_until(lambda: first.name == "wsframe-idle", "the thread is free")
    assert rig.ask(lambda: turns.state) is IDLE
    assert rig.owner() is second
    assert rig.loop.steals == 1


def test_two_turns_at_two_looks_are_not_one_slow_one(rig: Rig) -> None:
    """Even if they look the same, and nothing was seen in between."""
    holds = [Held(), Held()]
    entered = iter(holds)
    turns, client = rig.connect(lambda turns, item: next(entered).wait())
    for held in holds:
        client.sendall(b"same")
        held.wait_for()
        assert rig.loop.watch()
        if held is holds[0]:
            held.release()
    assert rig.loop.steals == 0
    rig.loop.watch()
    assert rig.owner() is not turns.ran[0]
    assert rig.loop.steals == 1
    holds[1].release()


def test_a_steal_that_comes_too_late_changes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn returns when a thread is taken, and the token is not yet."""
    act = Blocks()
    turns, client = rig.connect(act)
    owner = rig.owner()
    hand_off = rig.threads.hand_off

    def hand_off_late(worker: Worker, holder: Holder) -> tuple[Worker, Charge] | None:
        taken = hand_off(worker, holder)
        act.held[b"A"].release()
        assert rig.owner() is owner  # the turn is over
        return taken

    monkeypatch.setattr(rig.threads, "hand_off", hand_off_late)
    block(rig, client, act.held[b"A"])
    assert rig.owner() is owner
    assert rig.loop.steals == 0
    assert rig.threads.counts() == (2, 0)
    assert turns.state is IDLE
    client.sendall(b"b")
    assert receive(client, 8) == b"A<A>b<b>"


def test_without_a_thread_left_the_turn_keeps_the_loop_until_it_returns(
    rig: Rig, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
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
    assert rig.loop.steals == 0
    assert turns.credit == 0
    log.expect("/test blocks the loop: the system starts no more threads", logging.WARNING)
    assert not log.records, "once is enough for one turn"


def test_a_turn_that_was_stolen_cannot_take_a_later_ones_token(rig: Rig) -> None:
    act = Blocks()
    one, first = rig.connect(act)
    two, second = rig.connect(act)
    block(rig, first, act.held[b"A"])
    second.sendall(b"B")
    act.held[b"B"].wait_for()
    act.held[b"A"].release()
    # Nobody hears that it has returned as long as the other one has the loop.
    wait_until(lambda: one.ran[0].name == "wsframe-idle", "the first one has returned")
    rig.look_twice()
    assert rig.ask(lambda: (one.state, two.state)) == (IDLE, BUSY)
    assert rig.loop.steals == 2
    act.held[b"B"].release()
    assert receive(first, 4) == b"A<A>"
    assert receive(second, 4) == b"B<B>"


def test_a_turn_may_return_before_the_new_owner_has_begun(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    take_over = rig.loop._take_over

    def take_over_late(stolen: Turns) -> None:
        act.held[b"A"].release()
        wait_until(lambda: turns.ran[0].name == "wsframe-idle", "the turn has returned")
        take_over(stolen)

    monkeypatch.setattr(rig.loop, "_take_over", take_over_late)
    block(rig, client, act.held[b"A"])
    assert receive(client, 4) == b"A<A>"
    assert turns.settled.get(timeout=TIMEOUT)
    assert turns.settled.empty()
    assert turns.state is IDLE
    client.sendall(b"b")
    assert receive(client, 4) == b"b<b>"


def test_who_has_lost_the_loop_is_not_its_owner_even_before_there_is_another(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, owned = Held(), Queue[bool]()

    def act(turns: Conversation, item: bytes) -> None:
        held.wait()
        owned.put(rig.loop.owned())

    _, client = rig.connect(act)
    late = Worker(rig.threads)  # which never begins
    hand_off = rig.threads.hand_off
    taken: list[Worker] = []

    def hand_off_late(owner: Worker, holder: Holder) -> tuple[Worker, Charge] | None:
        found = hand_off(owner, holder)
        assert found is not None
        taken.append(found[0])
        return late, found[1]

    monkeypatch.setattr(rig.threads, "hand_off", hand_off_late)
    block(rig, client, held)
    held.release()
    assert not owned.get(timeout=TIMEOUT)
    (worker,) = taken
    worker.given.put(late.given.get(timeout=TIMEOUT))
    assert rig.owner() is worker.thread


def test_whatever_a_turn_raises_the_token_is_taken_back(rig: Rig, log: ServerLog) -> None:
    def fail(turns: Conversation, item: bytes) -> None:
        turns.peer.send(item)
        raise KeyboardInterrupt

    turns, client = rig.connect(fail)
    owner = rig.owner()
    exchange(client, b"x")
    log.expect("a defect in the server")
    assert not rig.loop.watch()
    assert rig.owner() is owner
    exchange(client, b"y")
    log.expect("a defect in the server")
    assert turns.state is IDLE


def test_whatever_a_turn_raises_in_a_thread_the_owner_hears_of_it(rig: Rig, log: ServerLog) -> None:
    def fail(turns: Conversation, item: bytes) -> None:
        turns.peer.send(item)
        raise KeyboardInterrupt

    turns, client = rig.connect(fail, blocking=True)
    for item in (b"x", b"y"):
        exchange(client, item)
        log.expect("a defect in the server")
        assert turns.settled.get(timeout=TIMEOUT)
    assert turns.state is IDLE


# Waking ------------------------------------------------------------------------------------------


def held_with_news(rig: Rig, held: Held, *news: SimpleQueue[None]) -> None:
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
    held.wait_for()


def queues(count: int) -> list[SimpleQueue[None]]:
    """So many, on which nothing is."""
    return [SimpleQueue() for _ in range(count)]


def test_the_loop_wakes_one_and_who_is_woken_wakes_the_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.loop, "_wakes_one", True)
    held = Held()
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
    held = Held()
    news = queues(20)
    held_with_news(rig, held, *news)
    held.release()
    for queue in news:
        queue.get(timeout=TIMEOUT)


def test_all_are_woken_at_once_where_there_is_no_gil(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.loop, "_wakes_one", False)
    held = Held()
    news = queues(20)
    held_with_news(rig, held, *news)
    assert [queue.qsize() for queue in news] == [1] * 20
    held.release()


# One connection ----------------------------------------------------------------------------------


def test_frames_go_out_in_order_before_and_after_the_steal(rig: Rig) -> None:
    holds = [Held(), Held()]

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
    holds[1].wait_for()
    assert receive(client, 3) == b"111", "while it blocks without the loop"
    holds[1].release()
    assert receive(client, 1) == b"2"
    assert turns.settled.get(timeout=TIMEOUT)


def test_within_a_turn_frames_are_sent_at_its_end(rig: Rig) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_for()
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
    act.held[b"A"].wait_for()
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
    act.held[b"A"].wait_for()
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


# Credit ------------------------------------------------------------------------------------------


def where(turns: Conversation, client: socket.socket, rig: Rig) -> str:
    """Where the next turn of a connection runs."""
    client.sendall(b"x")
    assert receive(client, 4) == b"x<x>"
    wait_until(lambda: rig.ask(lambda: turns.state) is IDLE, "the owner has heard of its end")
    return "loop" if turns.ran[-1] is rig.owner() else "thread"


def test_who_has_blocked_runs_in_threads_until_it_was_quick_for_long(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "PROBATION", 3)
    rig.set_timing(turn_slice=inf)
    act = Blocks()
    turns, client = rig.connect(act)
    assert where(turns, client, rig) == "loop"
    block(rig, client, act.held[b"A"])
    act.held[b"A"].release()
    assert receive(client, 4) == b"A<A>"
    found = [where(turns, client, rig) for _ in range(5)]
    assert found == ["thread", "thread", "thread", "loop", "loop"]


def test_who_is_slow_in_its_thread_begins_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "PROBATION", 2)
    rig.set_timing(turn_slice=inf)
    turns, client = rig.connect(Blocks())
    turns.credit = 2
    assert where(turns, client, rig) == "thread"
    rig.set_timing(turn_slice=0)
    assert where(turns, client, rig) == "thread"
    rig.set_timing(turn_slice=inf)
    assert [where(turns, client, rig) for _ in range(3)] == ["thread", "thread", "loop"]


def test_a_route_is_suspect_when_three_turns_have_blocked_in_a_second() -> None:
    clock = ManualClock()
    timing = Timing(clock=clock)
    habit = Habit("/", None, timing)
    for after, suspect in [(0, False), (0.5, False), (0.51, False), (0.48, True)]:
        clock.now += after
        assert habit.has_blocked() == suspect
        assert habit.credit() == (ROUTE_PROBATION if suspect else 0)
    clock.now += timing.route_memory - 0.01
    assert habit.credit() == ROUTE_PROBATION
    clock.now += 0.02
    assert habit.credit() == 0
    assert not habit.has_blocked()


def test_all_connections_of_a_suspect_route_are_on_probation(rig: Rig) -> None:
    clock = ManualClock()
    rig.set_timing(clock=clock)
    act = Blocks()
    blocking = [rig.connect(act) for _ in act.held]
    quick, client = rig.connect(act)
    other, others_client = rig.connect(act, route="/other")
    for (_, their_client), (item, held) in zip(blocking, act.held.items(), strict=True):
        assert rig.ask(lambda: quick.credit) == 0
        block(rig, their_client, held, item)
    assert rig.ask(lambda: quick.credit) == ROUTE_PROBATION
    new, news_client = rig.connect(act)
    assert new.credit == ROUTE_PROBATION
    assert where(quick, client, rig) == where(new, news_client, rig) == "thread"
    assert where(other, others_client, rig) == "loop"
    for held in act.held.values():
        held.release()
    for turns, _ in blocking:
        assert turns.settled.get(timeout=TIMEOUT)
        assert turns.credit == turns_module.PROBATION
    clock.now += rig.loop.timing.route_memory
    assert rig.connect(act)[0].credit == 0


def test_a_handler_that_is_said_to_block_never_has_the_loop(rig: Rig) -> None:
    rig.set_timing(turn_slice=inf)
    turns, client = rig.connect(Blocks(), blocking=True)
    assert {where(turns, client, rig) for _ in range(20)} == {"thread"}
    assert turns.credit == inf


def test_a_handler_that_is_said_not_to_block_begins_on_the_loop_and_loses_it_all_the_same(
    rig: Rig,
) -> None:
    act = Blocks()
    turns, client = rig.connect(act, blocking=False)
    for item, held in act.held.items():
        block(rig, client, held, item)
        assert turns.ran[-1] is not rig.owner()
        held.release()
        assert receive(client, 4) == item + b"<" + item + b">"
        assert where(turns, client, rig) == "loop"
    assert rig.loop.steals == 3
    assert rig.connect(act)[0].credit == 0


def no_more(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("blocking", [None, True])
def test_where_the_system_has_no_thread_a_suspect_begins_on_the_loop_and_loses_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, blocking: bool | None
) -> None:
    act = Blocks()
    turns, client = rig.connect(act, blocking=blocking)
    turns.credit = turns.credit or 5
    _, others_client = rig.connect(echo, route="/other")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        block(rig, client, act.held[b"A"])
        # The reserve is used up, so nothing begins on the loop until a thread is free again.
        others_client.sendall(b"x")
        wait_until(lambda: len(rig.loop.waiting) == 1, "the other one waits")
        act.held[b"A"].release()
        assert receive(client, 4) == b"A<A>"
        assert receive(others_client, 1) == b"x"


def test_what_waits_goes_on_when_the_system_starts_threads_again(
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


# The loop ----------------------------------------------------------------------------------------


def test_turns_that_are_queued_and_what_they_ask_for_run_before_the_loop_ends(rig: Rig) -> None:
    called: Queue[bytes] = Queue()

    def act(turns: Conversation, item: bytes) -> None:
        echo(turns, item)
        rig.loop.call_soon(lambda: called.put(item))

    connections = [rig.connect(act) for _ in range(3)]

    def ask_and_end() -> None:
        for turns, _ in connections:
            turns.work = [b"x"]
            turns.ask()
        rig.loop._end()

    rig.loop.call_soon(ask_and_end)
    for _, client in connections:
        assert receive(client, 1) == b"x"
    assert [called.get(timeout=TIMEOUT) for _ in connections] == [b"x"] * 3


def test_a_loop_may_end_while_a_turn_goes_on_without_it(rig: Rig) -> None:
    act = Blocks()
    turns, client = rig.connect(act)
    block(rig, client, act.held[b"A"])
    rig.loop.stop(TIMEOUT)
    act.held[b"A"].release()
    wait_until(lambda: turns.ran[0].name == "wsframe-idle", "the thread is free")


def test_a_call_wakes_a_loop_that_sleeps(rig: Rig) -> None:
    for _ in range(3):
        wait_until(rig.loop.sleeps, "it has nothing to do")
        rig.owner()  # without a connection it would sleep for ever


def test_a_call_costs_no_wake_up_while_the_loop_is_awake(rig: Rig) -> None:
    act = Blocks()
    _, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_for()
    assert not rig.loop.sleeps()
    called: Queue[int] = Queue()
    for number in range(3):
        rig.loop.call_soon(lambda number=number: called.put(number))  # type: ignore[misc]
    with pytest.raises(BlockingIOError):
        rig.loop._wakened.recv(1)
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
    monkeypatch.setattr(rig.loop, "_patience", lambda: None)
    rig.loop.start()
    _, client = rig.connect(echo)
    calls.append(called.set)
    exchange(client, b"x")
    assert called.wait(TIMEOUT)
    rig.close()


# The monitor -------------------------------------------------------------------------------------


def test_the_monitor_parks_when_all_is_quiet_and_work_wakes_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "QUIET_LOOKS", 2)
    rig.monitor._timing = Timing(turn_slice=0.001, monitor_interval=60)
    act = Blocks()
    _, client = rig.connect(act, blocking=False)
    _, others_client = rig.connect(echo, route="/other")
    rig.monitor.start([rig.loop])
    for item, held in act.held.items():
        wait_until(lambda: rig.monitor.parked, "it is parked")
        client.sendall(item)
        held.wait_for()
        exchange(others_client, b"x")  # on the loop that it has taken
        held.release()
        assert receive(client, 4) == item + b"<" + item + b">"
    assert rig.loop.steals == 3


def test_the_monitor_does_not_park_beside_a_loop_that_is_awake(rig: Rig) -> None:
    """It may have looked whether there is a monitor to be woken just before."""
    act = Blocks()
    _, client = rig.connect(act)
    client.sendall(b"A")
    act.held[b"A"].wait_for()
    rig.monitor._loops = [rig.loop]
    rig.monitor._park()
    assert not rig.monitor.parked
    act.held[b"A"].release()


def test_a_monitor_that_looks_by_itself_stays_parked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.monitor._timing = Timing(monitor_interval=0.001)
    looks = iter([True, True, True, False])
    monkeypatch.setattr(rig.loop, "sleeps", lambda: next(looks))
    rig.monitor._loops = [rig.loop]
    rig.monitor._park()
    assert not list(looks)

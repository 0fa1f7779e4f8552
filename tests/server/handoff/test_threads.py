"""The threads of a server: which jobs get one, which wait for one, and when threads end."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from queue import Queue, SimpleQueue
from time import monotonic

import pytest

from tests.support.handlers import Checkpoint
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.quotas import Holder, Shortage
from wsframe.server.handoff.threads import Threads, WorkerThread
from wsframe.server.handoff.waiting import WaitingRoom
from wsframe.server.settings import Settings
from wsframe.server.timing import Timing

ONE = Holder("one", None)


def no_more(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def threads_of(settings: Settings) -> Threads:
    return Threads(
        1,
        Timing(),
        max_threads=settings.max_threads,
        max_handler_threads=settings.max_handler_threads,
        reserve_threads=settings.reserve_threads,
        max_thread_share=settings.max_thread_share,
    )


class Pool:
    """Threads with one sleeping loop, and their jobs."""

    def __init__(self, **settings: object) -> None:
        self.threads = threads_of(Settings(**settings))  # type: ignore[arg-type]
        self.told: SimpleQueue[None] = SimpleQueue()
        self._ended = threading.Event()
        self.loop = self.threads.start_loop()
        self.loop.jobs.put(("loop", self._ended.wait))

    def tell(self) -> None:
        self.told.put(None)

    def turn(self, holder: Holder = ONE) -> WorkerThread | Shortage:
        return self.threads.engage_turn(holder, self.tell)

    def end(self, *workers: WorkerThread) -> None:
        """Let the threads run their job, which does nothing."""
        before = self.threads.counts()[1]
        for worker in workers:
            worker.jobs.put(("task", int))
        most = before - len(workers)  # other threads may end meanwhile, too
        wait_until(lambda: self.threads.counts()[1] <= most, "the threads have run their jobs")

    def run(self) -> threading.Thread:
        """Let a thread run the function; return the thread when it is idle."""
        worker = self.turn()
        assert isinstance(worker, WorkerThread)
        self.end(worker)
        return worker.thread

    def close(self) -> None:
        self._ended.set()
        self.threads.close(monotonic() + TIMEOUT)


@pytest.fixture
def pools() -> Iterator[list[Pool]]:
    pools: list[Pool] = []
    yield pools
    for pool in pools:
        pool.close()


@pytest.fixture
def pool(pools: list[Pool]) -> Pool:
    pools.append(Pool(max_threads=4, reserve_threads=4, max_handler_threads=4))
    return pools[0]


def engaged(found: WorkerThread | Shortage) -> WorkerThread:
    assert isinstance(found, WorkerThread), found
    return found


# Jobs that get a thread ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["turn", "handler"])
@pytest.mark.parametrize(
    ("holders", "shortage"),
    [
        ([Holder("a", 1), Holder("a", 2), Holder("a", 3)], Shortage.ROUTE),
        ([Holder("a", 1), Holder("b", 1), Holder("c", 1)], Shortage.NETWORK),
        ([Holder("a", 1), Holder("a", 1)], Shortage.PART),
        (
            [Holder("a", 1), Holder("a", 2), Holder("b", 1), Holder("b", 2), Holder("c", 3)],
            Shortage.ALL,
        ),
        ([Holder(name, None) for name in "aabbc"], Shortage.ALL),
    ],
)
def test_a_route_and_an_address_get_half_the_threads_and_an_address_half_of_a_route(
    pool: Pool, kind: str, holders: list[Holder], shortage: Shortage
) -> None:
    engage = pool.turn if kind == "turn" else pool.threads.engage_handler
    workers = [engaged(engage(holder)) for holder in holders[:-1]]
    assert engage(holders[-1]) is shortage
    pool.end(workers.pop())
    pool.end(*workers)
    workers = [engaged(engage(holder)) for holder in holders[:-1]]  # as if nothing had been
    pool.end(*workers)


def test_no_kind_of_work_uses_the_threads_of_another(pool: Pool) -> None:
    holders = [Holder(name, None) for name in "aabb"]
    workers = [engaged(pool.turn(holder)) for holder in holders]
    workers += [engaged(pool.threads.engage_handler(holder)) for holder in holders]
    assert pool.turn() is pool.threads.engage_handler(ONE) is Shortage.ALL
    assert pool.threads.hand_off_shortage(ONE, pool.tell) is None
    pool.end(*workers)


def test_a_turn_that_lost_the_loop_can_use_the_spare_threads(pool: Pool) -> None:
    """A route can use two of four threads and two of four spare threads."""
    owners = [pool.loop]
    holder, other = Holder("a", None), Holder("b", None)
    for _ in range(4):
        assert pool.threads.hand_off_shortage(holder, pool.tell) is None
        taken = pool.threads.hand_off(owners[-1], holder)
        assert taken is not None
        owners.append(taken[0])
    assert pool.threads.scarce
    assert pool.threads.hand_off_shortage(holder, pool.tell) is Shortage.ROUTE
    assert pool.turn(holder) is pool.turn(other) is Shortage.ALL
    assert pool.threads.hand_off_shortage(other, pool.tell) is None
    pool.end(*owners[1:4])
    assert pool.told.get(timeout=TIMEOUT) is None
    assert not pool.threads.scarce
    pool.end(engaged(pool.turn(holder)))
    owners[-1].jobs.put(("loop", int))


def test_a_late_handoff_is_undone(pool: Pool) -> None:
    taken = pool.threads.hand_off(pool.loop, ONE)
    assert taken is not None
    worker, charge = taken
    assert pool.threads.counts()[1] == 1
    pool.threads.take_back(pool.loop, charge, worker)
    assert pool.threads.counts() == (2, 0)
    # A holder whose charge has ended is not changed any more.
    pool.threads.recharge(pool.loop, charge, ONE)
    assert pool.threads.counts() == (2, 0)


def test_a_charge_moves_to_another_holder(pool: Pool) -> None:
    taken = pool.threads.hand_off(pool.loop, Holder("a", None))
    assert taken is not None
    worker, charge = taken
    pool.threads.recharge(pool.loop, charge, Holder("b", None))
    engaged(pool.turn(Holder("b", None))).jobs.put(("task", int))
    worker.jobs.put(("loop", int))
    wait_until(lambda: pool.threads.counts()[1] == 1, "only the old owner counts")


def test_a_job_without_a_thread_is_notified_once_when_one_is_free(pool: Pool) -> None:
    workers = [engaged(pool.turn()) for _ in range(2)]
    assert pool.turn() is Shortage.ROUTE
    assert pool.threads.turn_shortage(ONE, pool.tell) is Shortage.ROUTE
    assert pool.told.empty()
    pool.end(*workers)
    assert pool.told.get(timeout=TIMEOUT) is None
    pool.run()
    assert pool.told.empty()


# Which thread is used -----------------------------------------------------------------------------


def test_an_idle_thread_is_reused_and_ends_if_unused(pool: Pool) -> None:
    first = pool.run()
    assert pool.run() is first
    pool.threads.idle_time = 0.001
    pool.run()  # which makes it look at the time
    wait_until(lambda: pool.threads.counts() == (2, 0), "only the reserve is left")


def test_a_job_for_a_thread_about_to_end_is_not_lost(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.threads.idle_time = 0.001
    done: Queue[threading.Thread] = Queue()
    retire, retired = pool.threads.retire, Queue[bool]()

    def retire_late(worker: WorkerThread) -> bool:
        if retired.empty():
            late = engaged(pool.turn())
            late.jobs.put(("late", lambda: done.put(threading.current_thread())))
        ended = retire(worker)
        retired.put(ended)
        return ended

    monkeypatch.setattr(pool.threads, "retire", retire_late)
    pool.end(engaged(pool.turn()))
    thread = done.get(timeout=TIMEOUT)
    thread.join(TIMEOUT)
    assert not retired.get(timeout=TIMEOUT)
    wait_until(lambda: pool.threads.counts() == (2, 0), "only the reserve is left")


def test_a_thread_survives_an_exception_of_its_job(pool: Pool, log: ServerLog) -> None:
    def fail() -> None:
        raise SystemExit

    worker = engaged(pool.turn())
    worker.jobs.put(("fails", fail))
    log.expect("internal error")
    wait_until(lambda: pool.threads.counts()[1] == 0, "it is idle")
    assert pool.run() is worker.thread


def test_an_idle_thread_keeps_no_object_alive(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    idle, held = threading.Event(), Checkpoint()
    run = partial(held.wait)
    function = weakref.ref(run)
    finished = pool.threads.finished

    def note(worker: WorkerThread) -> None:
        finished(worker)
        idle.set()

    monkeypatch.setattr(pool.threads, "finished", note)
    engaged(pool.turn()).jobs.put(("held", run))
    del run
    held.release()
    assert idle.wait(TIMEOUT)
    # Without a GIL, the thread that has created the object may free it a little later.
    wait_until(lambda: function() is None, "the object is freed")


# When the system has no more threads --------------------------------------------------------------


def test_only_handoffs_use_the_spare_threads_when_no_more_can_be_started(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        assert pool.turn() is pool.threads.engage_handler(ONE) is Shortage.SYSTEM
        assert pool.threads.turn_shortage(ONE, pool.tell) is Shortage.SYSTEM
        assert pool.threads.hand_off_shortage(ONE, pool.tell) is None
        taken = pool.threads.hand_off(pool.loop, ONE)
        assert taken is not None
        pool.threads.restore_spares()
        assert pool.threads.scarce
        assert pool.threads.hand_off_shortage(ONE, pool.tell) is Shortage.SYSTEM
        assert pool.threads.hand_off(taken[0], ONE) is None
        with pytest.raises(RuntimeError, match="cannot start a thread for the I/O loop"):
            pool.threads.start_loop()
    pool.threads.restore_spares()
    assert not pool.threads.scarce
    taken[0].jobs.put(("loop", int))


# Jobs that wait -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Waiter:
    name: str
    needs_thread: bool = False

    def resume(self) -> None:
        raise NotImplementedError


def in_order(room: WaitingRoom, *lacking: tuple[Holder, Shortage]) -> list[str]:
    """Return the names of the waiters that find a thread, while these holders lack one."""
    names = []
    while (waiter := room.next(lambda _, holder: dict(lacking).get(holder))) is not None:
        assert isinstance(waiter, Waiter)
        names.append(waiter.name)
    return names


def room_of(*holders: Holder) -> WaitingRoom:
    room = WaitingRoom()
    for number, (route, origin) in enumerate(holders):
        room.add(Waiter(f"{route}{origin}.{number}"), Holder(route, origin))
    return room


def test_waiting_routes_and_their_addresses_take_turns() -> None:
    a1, a2, b1 = Holder("a", 1), Holder("a", 2), Holder("b", 1)
    room = room_of(a1, a1, a1, a2, b1, b1)
    assert in_order(room) == ["a1.0", "b1.4", "a2.3", "b1.5", "a1.1", "a1.2"]
    assert len(room) == 0


def test_a_route_or_address_that_uses_its_share_delays_no_other() -> None:
    a1, a2, b1 = Holder("a", 1), Holder("a", 2), Holder("b", 1)
    room = room_of(a1, a2, b1)
    assert in_order(room, (a1, Shortage.ROUTE), (a2, Shortage.ROUTE)) == ["b1.2"]
    assert in_order(room, (a1, Shortage.NETWORK)) == ["a2.1"]
    room.add(Waiter("a2.3"), a2)
    assert in_order(room, (a1, Shortage.PART)) == ["a2.3"]
    assert len(room) == 1
    assert in_order(room) == ["a1.0"]


def test_a_cancelled_wait_is_skipped() -> None:
    room, gone, left = WaitingRoom(), Waiter("gone"), Waiter("left")
    room.add(gone, ONE)
    room.add(left, ONE)
    room.discard(gone)
    room.discard(gone)
    assert in_order(room) == ["left"]
    assert in_order(room) == []

"""The threads of a server: they run its loops, the turns that block, and long-lived handlers."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from .quotas import Holder, Quota, Shortage, Usage

if TYPE_CHECKING:
    from ..timing import Timing

from ..reports.loggers import log

IDLE_NAME, LOOP_NAME, HANDLER_NAME = "wsframe-idle", "wsframe-loop", "wsframe-handler"

Job: TypeAlias = "tuple[str, Callable[[], object]]"
Charge: TypeAlias = "tuple[Usage, Holder]"


def stack_of(identifier: int | None) -> str:
    """Any thread: what a thread is doing; "" if it has ended."""
    frame = sys._current_frames().get(identifier or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def has_gil() -> bool:
    """Any thread: whether only one of them runs Python at a time."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


class WorkerThread:
    """One thread, which runs what it is given, again and again.

    Attributes:
        jobs: what to run, with a name for it; None dismisses the worker.
        charge: the usage that its present work counts in, and for whom; None while it owns a loop
            or is idle. Under the lock of :class:`Threads`.
    """

    def __init__(self, threads: Threads) -> None:
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.charge: Charge | None = None
        self.thread = threading.Thread(target=self._run, name=IDLE_NAME, daemon=True)
        self._threads = threads

    def _run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=self._threads.idle_time)
            except Empty:
                if self._threads.retire(self):
                    return
                continue  # it belongs to the reserve, or a job is on its way
            if job is None:
                return
            (self.thread.name, function), job = job, None
            try:
                function()
            except BaseException:
                log.exception("internal error in a thread of the server (please report this)")
            del function  # an idle thread keeps nobody alive, and is one in the next line
            self.thread.name = IDLE_NAME
            self._threads.finished(self)


class Threads:
    """All threads of a server but its monitor and its feeds; every method is for any thread.

    There are three kinds of work, and none can use up the threads of another:

    - turns that block: at most ``max_threads``, and as many more as the reserve has;
    - handlers that live as long as their connection: at most ``max_handler_threads``;
    - loops, each with one thread and a reserve of ``reserve_threads`` for hand-offs.

    One thread of the reserve is always there, idle, for each loop, so that a hand-off is possible
    even when the system starts no more threads.

    Args:
        loops: how many loops will run.
        timing: the app's.
        max_threads, max_handler_threads, reserve_threads, max_thread_share: as in
            :class:`wsframe.server.Settings`.

    Attributes:
        wary: whether a turn might find nobody to take the loop over. Then a loop must ask
            :meth:`hand_off_shortage` before it begins one.
        turn_quota: the limit on turns that have a thread of their own from the beginning.
        handoff_quota: the limit on these together with turns that have lost a loop.
        handler_quota: the limit on handlers that live as long as their connection.
    """

    def __init__(
        self,
        loops: int,
        timing: Timing,
        *,
        max_threads: int,
        max_handler_threads: int,
        reserve_threads: int,
        max_thread_share: float,
    ) -> None:
        share = max_thread_share
        reserve = Quota.of("reserve_threads", reserve_threads * loops, share)
        self.idle_time = timing.thread_idle_timeout
        self.turn_quota = Quota.of("max_threads", max_threads, share)
        # Every other loop may begin a turn at the same time, and all of them may block.
        limit = self.turn_quota.limit + reserve.limit - (loops - 1)
        self.handoff_quota = Quota(
            "max_threads and reserve_threads",
            limit,
            min(limit, self.turn_quota.share + reserve.share),
            min(limit, self.turn_quota.part + reserve.part),
        )
        self.handler_quota = Quota.of("max_handler_threads", max_handler_threads, share)
        self.scarce = True
        self._spare = loops
        self._lock = threading.Lock()  # for all that follows
        self._workers: set[WorkerThread] = set()
        self._idle: list[WorkerThread] = []  # the last one first, so that the others can retire
        self._turns = Usage()
        self._handlers = Usage()
        self._waiting: set[Callable[[], object]] = set()
        self._closed = False

    def start_loop(self) -> WorkerThread:
        """Return a thread for a loop, and start another for the reserve.

        Raises:
            RuntimeError: the system starts no more threads.
        """
        with self._lock:
            worker = self._start_worker()
            enough = worker is not None and self._fill_reserve(len(self._idle) + 1)
        if worker is None or not enough:
            raise RuntimeError("the system has no thread left for a loop")
        return worker

    def engage_handler(self, holder: Holder) -> WorkerThread | Shortage:
        """Return a thread for a handler that lives as long as its connection."""
        with self._lock:
            return self._engage(self._handlers, self.handler_quota, holder)

    def engage_turn(self, holder: Holder, notify: Callable[[], object]) -> WorkerThread | Shortage:
        """Return a thread for a turn; call ``notify`` once when another attempt may succeed."""
        with self._lock:
            found = self._engage(self._turns, self.turn_quota, holder)
            if isinstance(found, Shortage):
                self._waiting.add(notify)
            return found

    def turn_shortage(self, holder: Holder, notify: Callable[[], object]) -> Shortage | None:
        """Return why :meth:`engage_turn` finds no thread; None if it does."""
        with self._lock:
            lacking = self._turns.shortage(self.turn_quota, holder)
            if lacking is None and not self._fill_reserve(self._spare + 1):
                lacking = Shortage.SYSTEM
            if lacking is not None:
                self._waiting.add(notify)
            return lacking

    def hand_off_shortage(self, holder: Holder, notify: Callable[[], object]) -> Shortage | None:
        """Return why a turn of this holder must not begin on a loop; None if it may."""
        with self._lock:
            lacking = self._turns.shortage(self.handoff_quota, holder)
            if lacking is None and not self._fill_reserve(self._spare):
                lacking = Shortage.SYSTEM
            if lacking is not None:
                self._waiting.add(notify)
            return lacking

    def hand_off(self, owner: WorkerThread, holder: Holder) -> tuple[WorkerThread, Charge] | None:
        """Take a thread for a loop, and count its present owner as one that works for the holder.

        None if there is no thread; the monitor tries again.
        """
        with self._lock:
            worker = self._take_worker(0)
            if worker is None:
                return None
            charge = owner.charge = (self._turns, holder)
            self._turns.add(holder)
            self._look()
            return worker, charge

    def take_back(self, owner: WorkerThread, charge: Charge, worker: WorkerThread) -> None:
        """Undo :meth:`hand_off`: the owner has kept the loop."""
        self.recharge(owner, charge, None)
        self.finished(worker)

    def recharge(self, owner: WorkerThread, charge: Charge, holder: Holder | None) -> None:
        """Count what is charged for another holder, unless that work has ended meanwhile."""
        with self._lock:
            if owner.charge is not charge:
                return
            self._turns.remove(charge[1])
            owner.charge = None
            if holder is not None:
                owner.charge = (self._turns, holder)
                self._turns.add(holder)
            self._look()

    def restore_reserve(self) -> None:
        """Start a thread in place of one that a hand-off has taken, if the system has one."""
        with self._lock:
            self._fill_reserve(self._spare)

    def finished(self, worker: WorkerThread) -> None:
        """The worker has nothing to do; whoever waits for a thread is told."""
        with self._lock:
            if worker.charge is not None:
                usage, holder = worker.charge
                usage.remove(holder)
                worker.charge = None
            if self._closed:
                worker.jobs.put(None)
            self._idle.append(worker)
            self._look()
            waiting, self._waiting = self._waiting, set()
        for notify in waiting:
            notify()

    def retire(self, worker: WorkerThread) -> bool:
        """Whether a worker may end, because nobody needs it."""
        with self._lock:
            if worker not in self._idle or len(self._idle) <= self._spare:
                return False
            self._idle.remove(worker)
            self._workers.discard(worker)
            return True

    def running_here(self) -> bool:
        """Whether the calling thread is one of these."""
        current = threading.current_thread()
        with self._lock:
            return any(worker.thread is current for worker in self._workers)

    def counts(self) -> tuple[int, int]:
        """How many threads there are, and how many of them run handlers and turns."""
        with self._lock:
            return len(self._workers), self._turns.busy + self._handlers.busy

    def after_fork(self) -> None:
        """The child of a fork: the threads are the parent's, but for the one that has forked."""
        self._lock = threading.Lock()  # a thread that is not here may hold the old one
        for there in (self._workers, self._idle, self._waiting):
            there.clear()
        self._closed = True

    def close(self, deadline: float) -> None:
        """Wait for all to end; what takes longer is logged with what it does, and left behind.

        Args:
            deadline: on the monotonic clock, in seconds.
        """
        with self._lock:
            self._closed = True
            workers = tuple(self._workers)
            for worker in self._idle:
                worker.jobs.put(None)
        for worker in workers:
            worker.thread.join(max(0.0, deadline - monotonic()))
        for thread in (worker.thread for worker in workers if worker.thread.is_alive()):
            stack = stack_of(thread.ident)
            log.error("%s has not ended and is left behind", thread.name, extra={"stack": stack})

    # Under the lock ---------------------------------------------------------------------------

    def _engage(self, usage: Usage, quota: Quota, holder: Holder) -> WorkerThread | Shortage:
        lacking = usage.shortage(quota, holder)
        if lacking is not None:
            return lacking
        worker = self._take_worker(self._spare)
        if worker is None:
            return Shortage.SYSTEM
        worker.charge = (usage, holder)
        usage.add(holder)
        self._look()
        return worker

    def _take_worker(self, keep: int) -> WorkerThread | None:
        """An idle worker, if more than these are there, or a new one."""
        if len(self._idle) > keep:
            return self._idle.pop()
        return self._start_worker()

    def _start_worker(self) -> WorkerThread | None:
        worker = WorkerThread(self)
        try:
            worker.thread.start()
        except RuntimeError:
            return None
        self._workers.add(worker)
        return worker

    def _fill_reserve(self, size: int) -> bool:
        """Have as many idle workers; False if the system does not start them."""
        while len(self._idle) < size:
            worker = self._start_worker()
            if worker is None:
                break
            self._idle.append(worker)
        self._look()
        return len(self._idle) >= size

    def _look(self) -> None:
        """Set ``scarce``: below this, no route and no address can use all that it may use."""
        self.scarce = self._turns.busy >= self.handoff_quota.part or len(self._idle) < self._spare

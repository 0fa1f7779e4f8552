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
    """Any thread: return the stack of a thread; "" if it has ended."""
    frame = sys._current_frames().get(identifier or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def has_gil() -> bool:
    """Any thread: return True if only one thread runs Python code at a time."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


class WorkerThread:
    """One thread of the server, which runs jobs one after the other.

    Attributes:
        jobs: the functions to run, each with a name for the thread; None ends the worker.
        charge: the usage and the holder that the current job counts for; None while the thread owns
            a loop or is idle. The lock of :class:`Threads` protects this attribute.
    """

    def __init__(self, threads: Threads) -> None:
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.charge: Charge | None = None
        self.thread: threading.Thread = threading.Thread(
            target=self._run, name=IDLE_NAME, daemon=True
        )
        self._threads = threads

    def _run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=self._threads.idle_time)
            except Empty:
                if self._threads.retire(self):
                    return
                continue  # the worker is kept in reserve, or a job is about to arrive
            if job is None:
                return
            (self.thread.name, function), job = job, None
            try:
                function()
            except BaseException:
                log.exception("internal error in a thread of the server (please report this)")
            # The reference is deleted first, because an idle worker must not keep a finished
            # handler alive.
            del function
            self.thread.name = IDLE_NAME
            self._threads.finished(self)


class Threads:
    """The threads of a server, except the monitor and event sources. For any thread.

    Each of the three kinds of work has its own limit:

    - turns that block: at most ``max_threads``, plus ``reserve_threads`` for each loop;
    - handlers that keep a thread for as long as their connection: at most ``max_handler_threads``;
    - loops, each with one thread.

    One spare thread for each loop is always idle. So a loop can be handed off even when the system
    cannot start another thread.

    Args:
        loops: the number of loops.
        timing: the timing of the app.
        max_threads, max_handler_threads, reserve_threads, max_thread_share: as in
            :class:`wsframe.server.Settings`.

    Attributes:
        scarce: True if a hand-off might fail. Then a loop must call :meth:`hand_off_shortage`
            before it begins a turn.
        turn_quota: the limit on turns that begin in a thread.
        handoff_quota: the limit on turns in threads, together with turns that have lost a loop.
        handler_quota: the limit on handlers that keep a thread for as long as their connection.
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
        self.idle_time: float = timing.thread_idle_timeout
        self.turn_quota: Quota = Quota.of("max_threads", max_threads, share)
        # A turn on a loop counts toward this limit only after a hand-off. Before that, each other
        # loop may begin a turn that also blocks. So the limit is smaller by ``loops - 1``.
        limit = self.turn_quota.limit + reserve.limit - (loops - 1)
        self.handoff_quota: Quota = Quota(
            "max_threads + reserve_threads",
            limit,
            min(limit, self.turn_quota.share + reserve.share),
            min(limit, self.turn_quota.part + reserve.part),
        )
        self.handler_quota: Quota = Quota.of("max_handler_threads", max_handler_threads, share)
        self.scarce: bool = True
        self._spare = loops
        self._lock = threading.Lock()  # protects the following attributes
        self._workers: set[WorkerThread] = set()
        # The thread that became idle last is used first, so that the other threads can end.
        self._idle: list[WorkerThread] = []
        self._turns = Usage()
        self._handlers = Usage()
        self._waiting: set[Callable[[], object]] = set()
        self._closed = False

    def start_loop(self) -> WorkerThread:
        """Return a thread for a loop, and start a spare one.

        Raises:
            RuntimeError: the system cannot start another thread.
        """
        with self._lock:
            worker = self._start_worker()
            enough = worker is not None and self._fill_spares(len(self._idle) + 1)
        if worker is None or not enough:
            raise RuntimeError("the system cannot start a thread for the I/O loop")
        return worker

    def engage_handler(self, holder: Holder) -> WorkerThread | Shortage:
        """Return a thread for a handler that keeps the thread until its connection ends.

        Returns:
            The thread; if no thread is free, the reason.
        """
        with self._lock:
            return self._engage(self._handlers, self.handler_quota, holder)

    def engage_turn(self, holder: Holder, notify: Callable[[], object]) -> WorkerThread | Shortage:
        """Return a thread for a turn, or the reason why none is free.

        Args:
            holder: the route and the client network of the turn.
            notify: a function that any thread calls once when another attempt may succeed.
        """
        with self._lock:
            result = self._engage(self._turns, self.turn_quota, holder)
            if isinstance(result, Shortage):
                self._waiting.add(notify)
            return result

    def turn_shortage(self, holder: Holder, notify: Callable[[], object]) -> Shortage | None:
        """Return the reason why :meth:`engage_turn` would fail; None if it would succeed."""
        with self._lock:
            shortage = self._turns.shortage(self.turn_quota, holder)
            if shortage is None and not self._fill_spares(self._spare + 1):
                shortage = Shortage.SYSTEM
            if shortage is not None:
                self._waiting.add(notify)
            return shortage

    def hand_off_shortage(self, holder: Holder, notify: Callable[[], object]) -> Shortage | None:
        """Return the reason why a turn must not begin on a loop; None if no reason exists."""
        with self._lock:
            shortage = self._turns.shortage(self.handoff_quota, holder)
            if shortage is None and not self._fill_spares(self._spare):
                shortage = Shortage.SYSTEM
            if shortage is not None:
                self._waiting.add(notify)
            return shortage

    def hand_off(self, owner: WorkerThread, holder: Holder) -> tuple[WorkerThread, Charge] | None:
        """Return a thread to take over a loop, and charge the old owner's thread to the holder.

        Returns:
            The thread and the charge; None if no thread is free. Then the monitor tries again.
        """
        with self._lock:
            worker = self._take_worker(0)
            if worker is None:
                return None
            charge = owner.charge = (self._turns, holder)
            self._turns.add(holder)
            self._update_scarce()
            return worker, charge

    def take_back(self, owner: WorkerThread, charge: Charge, worker: WorkerThread) -> None:
        """Undo :meth:`hand_off`, because the owner has kept the loop."""
        self.recharge(owner, charge, None)
        self.finished(worker)

    def recharge(self, owner: WorkerThread, charge: Charge, holder: Holder | None) -> None:
        """Charge a thread's work to another holder or to none, unless the work has ended."""
        with self._lock:
            if owner.charge is not charge:
                return
            self._turns.remove(charge[1])
            owner.charge = None
            if holder is not None:
                owner.charge = (self._turns, holder)
                self._turns.add(holder)
            self._update_scarce()

    def restore_spares(self) -> None:
        """Start a spare thread in place of one that a hand-off has used, if possible."""
        with self._lock:
            self._fill_spares(self._spare)

    def finished(self, worker: WorkerThread) -> None:
        """Mark a worker as idle, and notify the loops that wait for a thread."""
        with self._lock:
            if worker.charge is not None:
                usage, holder = worker.charge
                usage.remove(holder)
                worker.charge = None
            if self._closed:
                worker.jobs.put(None)
            self._idle.append(worker)
            self._update_scarce()
            waiting, self._waiting = self._waiting, set()
        for notify in waiting:
            notify()

    def retire(self, worker: WorkerThread) -> bool:
        """Remove an idle worker; return False if it has a new job or is a spare thread."""
        with self._lock:
            if worker not in self._idle or len(self._idle) <= self._spare:
                return False
            self._idle.remove(worker)
            self._workers.discard(worker)
            return True

    def running_here(self) -> bool:
        """Return True if the calling thread is one of these threads."""
        current = threading.current_thread()
        with self._lock:
            return any(worker.thread is current for worker in self._workers)

    def counts(self) -> tuple[int, int]:
        """Return the number of threads, and how many of them run handlers and turns."""
        with self._lock:
            return len(self._workers), self._turns.busy + self._handlers.busy

    def after_fork(self) -> None:
        """The child of a fork: forget the threads, which exist only in the parent."""
        self._lock = threading.Lock()  # a thread of the parent may hold the old lock
        for collection in (self._workers, self._idle, self._waiting):
            collection.clear()
        self._closed = True

    def close(self, deadline: float) -> None:
        """Stop the threads, and wait for their end. A thread that takes longer is logged.

        Args:
            deadline: the time until which to wait, on the monotonic clock, in seconds.
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
            log.error(
                "%s did not stop in time; leaving it running",
                thread.name,
                extra={"stack": stack},
            )

    # Under the lock ---------------------------------------------------------------------------

    def _engage(self, usage: Usage, quota: Quota, holder: Holder) -> WorkerThread | Shortage:
        shortage = usage.shortage(quota, holder)
        if shortage is not None:
            return shortage
        worker = self._take_worker(self._spare)
        if worker is None:
            return Shortage.SYSTEM
        worker.charge = (usage, holder)
        usage.add(holder)
        self._update_scarce()
        return worker

    def _take_worker(self, keep: int) -> WorkerThread | None:
        """Return an idle worker if more than ``keep`` are idle, or else a new worker."""
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

    def _fill_spares(self, size: int) -> bool:
        """Start workers up to a number of idle ones; return False if a thread cannot be started."""
        while len(self._idle) < size:
            worker = self._start_worker()
            if worker is None:
                break
            self._idle.append(worker)
        self._update_scarce()
        return len(self._idle) >= size

    def _update_scarce(self) -> None:
        """Set ``scarce``: True if a holder may be at a limit, or a spare thread is missing."""
        self.scarce = self._turns.busy >= self.handoff_quota.part or len(self._idle) < self._spare

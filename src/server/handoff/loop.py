"""The I/O loop: one thread at a time on one poller, and the only one that touches sockets.

The rules of ownership, which every method's first words refer to:

- *owner*: only the thread that runs the loop may call it. It alone reads, writes, registers and
  closes sockets, runs the codec's receiving side and looks at deadlines. Asserted, but for -O.
- *any thread*: appends to a queue of the loop or of a connection, and wakes the loop if it sleeps.

The owner changes. While user code runs on the loop's thread (a *turn*, see ``task.py``), a token
lies in the owner's :class:`Ownership`. The thread that pops it decides who has the loop: the owner,
when the user's code returns, or the monitor, when it takes too long. The monitor gives the loop to
another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from wsframe.waker import Waker

from ..reports.loggers import log
from .blocking import PROBATION, ROUTE_PROBATION, BlockingProfile
from .overdue import OverdueHandlers
from .poller import HANGUP, READ, WRITE, Poller
from .quotas import Holder, Shortage
from .task import (
    BUSY,
    ENDED,
    IDLE,
    QUEUED,
    WAITING,
    WORK_A_TURN,
    Connection,
    Task,
)
from .thread_queue import ThreadQueue
from .threads import HANDLER_NAME, LOOP_NAME, WorkerThread, has_gil, stack_of

if TYPE_CHECKING:
    from _typeshed import HasFileno

    from ..timing import Timing
    from .monitor import Monitor
    from .threads import Threads

__all__ = ["HANGUP", "READ", "WRITE", "Loop", "Source"]


# How often to look in vain before going to sleep: a lone client that answers at once is served 1.4
# times as fast, for a tenth more of processor time, and a crowd none the worse.
SPIN_POLLS = 16
RECEIVE_BUFFER = 256 * 1024
# To cut a view costs as much as to decode a short message, so that those of fewer bytes are kept.
SHORT_READ = 512
# How many calls are made before sockets are looked at again.
CALLS_A_ROUND = 256


class Source(Protocol):
    """What the loop polls: a file, and what to call when it is ready."""

    def ready(self, events: int) -> Task | None:
        """Owner: act on it, and return whose turn it is, if this makes it somebody's.

        The events are a hint, and may be those of a file closed before.
        """


class Ownership:
    """One thread's time as the owner of a loop; never used again when that is over.

    Attributes:
        token: has one item while user code runs: the work of that turn, a new list each time.
        task: whose turn it is, or was; at first, the one that has lost the loop, if one has.
        thread: the owner.
        worker: the worker whose thread that is; set before the ownership begins.
    """

    __slots__ = ("task", "thread", "token", "worker")

    def __init__(self, lost: Task | None = None) -> None:
        self.thread = threading.current_thread()
        self.token: list[list[Any]] = []
        self.task = lost
        self.worker: WorkerThread | None = None


class Loop:
    """One I/O loop.

    Attributes:
        unfinished: the user's code that has begun and not ended; the owner's.
        waiting: what waits for a thread; the owner's.
        overdue: those whose user code still has a thread long after their client has left; the
            owner's.
        buffer: where every read of the loop goes; what is to be kept of it is copied.
        received: a view of it.
        received_short: views of its beginning, by their length.
        tick: called at intervals with the time on the loop's clock, once :meth:`start_ticks` was
            called. It returns the pause until the next call in seconds, 0 for the next round of the
            loop, or None if it need not be called any more.
        on_task_end: called when user code has ended.
        timing: the app's.
        checked_at: when deadlines were last checked, on the loop's clock. Idle connections share
            this one object.
        handoffs: how often a turn has lost the loop.
    """

    def __init__(
        self,
        timing: Timing,
        threads: Threads,
        monitor: Monitor,
    ) -> None:
        self.timing = timing
        self.tick: Callable[[float], float | None] = lambda now: None
        self.on_task_end: Callable[[], object] = lambda: None
        self.unfinished: set[Task] = set()
        self.waiting = ThreadQueue(self, threads)
        self.overdue = OverdueHandlers(self)
        self.buffer = bytearray(RECEIVE_BUFFER)
        self.received = memoryview(self.buffer)
        self.received_short = [self.received[:size] for size in range(SHORT_READ)]
        self.handoffs = 0
        self._threads = threads
        self._monitor = monitor
        self._poller = Poller()
        self._ready: dict[int, Source] = {}
        self._waker = Waker()
        self._poller.register(self._waker.fileno(), READ)
        self._ready[self._waker.fileno()] = self
        self._calls: deque[Callable[[], object]] = deque()
        self._queue: deque[Task] = deque()
        self._wakes: deque[SimpleQueue[None]] = deque()
        self._wake_one_at_a_time = has_gil()
        self._profiles: dict[object, BlockingProfile] = {}
        # Has one item while the owner is about to sleep; whoever pops it wakes the owner.
        self._asleep: list[None] = []
        self._clock = timing.clock
        self._stood_still = 0.0  # seconds, in all
        self.checked_at = self.clock()
        self._instants: dict[float, float] = {}  # by how much later than that they are
        self._ticking = False
        self._tick_again = False  # the last tick has left something for the next round
        self._next_tick = 0.0
        self._tick_by = 0.0  # when the next tick happens, unless the loop stands still
        self._at_tick: list[Callable[[], object]] = []
        self._started = False
        self._running = True
        self._ended = threading.Event()
        # Connections whose next turn must not begin yet, by what they wait for.
        self._slowed: dict[object, set[Task]] = {}
        self._ownership = Ownership()
        # The monitor's: the token at its last look, and the last one that it could not take.
        self._seen: list[Any] | None = None
        self._not_handed_off: list[Any] | None = None
        self._owner = 0
        self._at_end: list[Callable[[], object]] = []

    # Any thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Any thread, once: give the loop a thread.

        Raises:
            RuntimeError: the system has none left.
        """
        worker = self._ownership.worker = self._threads.start_loop()
        worker.jobs.put((LOOP_NAME, partial(self._run, self._ownership)))
        self._started = True

    def at_end(self, function: Callable[[], object]) -> None:
        """Any thread, before the start: call this when the loop runs no more; it must not raise."""
        self._at_end.append(function)

    def discard(self) -> None:
        """Any thread: if the loop was never started, it never will be."""
        if not self._started:
            self._close_files()

    def stop(self, timeout: float) -> None:
        """Any thread but the owner, once: stop the loop, and wait for its end.

        If a handler holds it for longer than that many seconds, because no thread was left to take
        the loop, it is logged with what it is doing, and left behind.
        """
        self.call_soon(self._end)
        if not self._ended.wait(timeout):
            stack = stack_of(self._owner)
            log.error("a handler blocks the loop, which is left behind", extra={"stack": stack})

    def owned(self) -> bool:
        """Any thread: whether the calling thread is the owner."""
        return threading.get_ident() == self._owner

    def clock(self) -> float:
        """Any thread: the time by which deadlines are set, in seconds.

        It leaves out the time during which the loop stood still, for example in a suspended
        container: what a client did meanwhile has not been seen.
        """
        return self._clock() - self._stood_still

    def slow_down(
        self, reason: object, when_over: Callable[[Callable[[], object]], object]
    ) -> None:
        """Owner: no other turn of the connection whose turn runs is to begin for now.

        Args:
            reason: what it waits for; one call ends the wait of all that wait for the same.
            when_over: is called with a function that any thread calls when the wait is over.
        """
        task = self._ownership.task
        if task is None:
            return
        task.peer.stop_turn = True
        if reason in self._slowed:
            self._slowed[reason].add(task)
            return
        self._slowed[reason] = {task}
        when_over(partial(self.call_soon, partial(self._end_of_wait, reason)))

    def is_slowed(self, task: Task) -> bool:
        """Owner: whether the next turn of this connection must not begin yet."""
        return any(task in waiting for waiting in self._slowed.values())

    def resume_slowed(self, task: Task) -> None:
        """Owner: it is not to wait any longer, because its client has left."""
        if self.is_slowed(task):
            for waiting in self._slowed.values():
                waiting.discard(task)
            if task.state is WAITING:
                task.resume()

    def _end_of_wait(self, reason: object) -> None:
        for task in self._slowed.pop(reason, ()):
            if task.state is WAITING and not self.is_slowed(task):
                task.resume()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread: have the owner call this, after what was asked for before."""
        self._calls.append(function)
        if self._asleep:
            try:
                self._asleep.pop()
            except IndexError:
                return  # another thread has woken it
            self._waker.wake()

    def wake_next(self) -> None:
        """Any thread that was just woken: wake the next that :meth:`wake_soon` was told of."""
        while self._wakes:
            try:
                ready_signal = self._wakes.popleft()
            except IndexError:
                return  # another thread was faster
            if ready_signal.empty():  # else it was told before, and has not looked yet
                ready_signal.put(None)
                return

    def sleeps(self) -> bool:
        """Any thread: whether the owner waits in the poller, or is about to."""
        return bool(self._asleep)

    def after_fork(self) -> None:
        """The child of a fork: close the copies of the files, and run nothing any more.

        The poller is shared with the parent, so nothing is unregistered from it.
        """
        self._running = False
        self._owner = 0
        self._ownership.token.clear()  # the handler that has forked on this loop has lost the loop
        for waiting in (self._calls, self._queue, self._wakes, self._asleep):
            waiting.clear()
        for file in (self._poller, self._waker):
            with suppress(OSError):
                file.close()

    # The monitor's thread ---------------------------------------------------------------------

    def watch(self) -> bool:
        """The monitor's thread: take the loop from a turn that was there the last time, too.

        Returns:
            Whether a turn was under way.
        """
        ownership = self._ownership
        token = next(iter(ownership.token), None)
        if token is not None and token is self._seen:
            self._hand_off(ownership, token)
            token = None
        self._seen = token
        return token is not None

    def _hand_off(self, ownership: Ownership, token: list[Any]) -> None:
        task, owner = ownership.task, ownership.worker
        if task is None or owner is None:
            return  # the turn has just ended
        taken = self._threads.hand_off(owner, Holder(task.route, task.peer.network))
        if taken is None:
            if token is not self._not_handed_off:  # once for each turn
                self._not_handed_off = token
                log.warning(
                    "%s blocks the loop: %s to take it over", task.path, Shortage.SYSTEM.value
                )
            return
        worker, charge = taken
        try:
            ownership.token.pop()
        except IndexError:  # the turn has just ended
            self._threads.take_back(owner, charge, worker)
            return
        # No other thread writes to it: the old owner has lost the loop, the new one has not begun.
        assert ownership.task is not None
        if ownership.task is not task:  # that turn had ended, and another has lost the loop
            lost = ownership.task
            self._threads.recharge(owner, charge, Holder(lost.route, lost.peer.network))
        self._ownership = Ownership(ownership.task)
        self._ownership.worker = worker
        self._owner = 0
        ownership.thread.name = f"{HANDLER_NAME} {ownership.task.path}"
        worker.jobs.put((LOOP_NAME, partial(self._run, self._ownership)))
        self._threads.restore_reserve()

    # Owner ------------------------------------------------------------------------------------

    def register(self, sock: HasFileno, events: int, ready: Source) -> None:
        """Owner: call ``ready.ready(events)`` when the socket is, until told otherwise."""
        assert self.owned()
        fd = sock.fileno()
        self._poller.register(fd, events)
        self._ready[fd] = ready

    def modify(self, sock: HasFileno, events: int) -> None:
        """Owner: change what is waited for."""
        assert self.owned()
        self._poller.modify(sock.fileno(), events)

    def unregister(self, sock: HasFileno) -> None:
        """Owner: wait for this socket no longer."""
        assert self.owned()
        fd = sock.fileno()
        self._poller.unregister(fd)
        del self._ready[fd]

    def profile(self, owner: object, blocking: bool | None) -> BlockingProfile:
        """Owner: what is known here of a route's handler, or whatever else takes turns."""
        if owner not in self._profiles:
            self._profiles[owner] = BlockingProfile(owner, blocking, self.timing)
        return self._profiles[owner]

    def finished(self, task: Task) -> None:
        """Owner: the user's code of a connection is over."""
        self.unfinished.discard(task)
        self.waiting.discard(task)
        for waiting in self._slowed.values():
            waiting.discard(task)
        self.overdue.discard(task)
        self.on_task_end()

    def at_next_tick(self, function: Callable[[], object]) -> None:
        """Owner: call this when the deadlines are checked the next time."""
        self.start_ticks()
        self._at_tick.append(function)

    def instant(self, seconds: float) -> float:
        """Owner: the time that many seconds after ``checked_at``.

        All connections that are checked together and ask for the same get one object.
        """
        if seconds not in self._instants:
            self._instants[seconds] = self.checked_at + seconds
        return self._instants[seconds]

    def queue_turn(self, task: Task) -> None:
        """Owner: have this turn soon, after those that are queued already."""
        assert self.owned()
        self._queue.append(task)

    def engage(self, peer: Connection, route: Hashable) -> WorkerThread | None:
        """Owner: return a thread for a handler that lives as long as this connection.

        None if there is none, which is logged; the request is to be refused then.
        """
        found = self._threads.engage_handler(Holder(route, peer.network))
        if isinstance(found, WorkerThread):
            return found
        self.waiting.log_refusal(route, self._threads.handler_quota.explain(found))
        return None

    def run_in(self, worker: WorkerThread, task: Task) -> None:
        """Owner: run a turn in this thread, if there is anything to do."""
        work = task.next_batch()
        if work is None:
            self._threads.finished(worker)
            return
        task.state = BUSY
        name = f"{HANDLER_NAME} {task.path}"
        worker.jobs.put((name, partial(self._run_elsewhere, task, work)))
        task.peer.flush()

    def wake_soon(self, ready_signal: SimpleQueue[None]) -> None:
        """Owner: have something put on this queue soon, where a thread of user code waits for it.

        Threads that wait for the GIL are not free: when many are woken at once, the system goes to
        and fro between them and the one that has it. So the loop wakes one in each of its rounds,
        and each that has got to run wakes the next, before it may block. All are woken where there
        is no GIL.
        """
        assert self.owned()
        self._wakes.append(ready_signal)

    def _run(self, ownership: Ownership) -> None:
        """Become the owner, and be it until the loop ends or a turn loses it.

        What is done for every read is written out here, where one call more would be measured.
        """
        self._owner = threading.get_ident()
        ownership.thread = threading.current_thread()
        if ownership.task is not None:
            self.call_safely(self._take_over, ownership.task)
        peer: Connection | None
        source: Any  # or the connection whose turn runs, to blame for an error
        poll, sources, queue, calls = self._poller.poll, self._ready, self._queue, self._calls
        wakes, asleep, monitor, token = self._wakes, self._asleep, self._monitor, ownership.token
        threads = self._threads
        myself = (self._waker.fileno(), 0)
        spins = 0
        while self._running or queue or calls or wakes:
            if wakes:
                self._wake_some()
            if queue or calls or wakes or spins:
                found = poll(0)
            else:
                # To announce sleep first and then look once more is what loses no wake-up.
                asleep.append(None)
                found = poll(0 if calls else self._poll_timeout())
                asleep.clear()
            spins = SPIN_POLLS if found else spins - 1 if spins else 0
            if calls:
                for _ in range(min(len(calls), CALLS_A_ROUND)):
                    self.call_safely(calls.popleft())
            if queue:
                # Those that are queued have their turns first; whoever queues again waits for the
                # others' sockets.
                found[:0] = [myself] * len(queue)
            if found and monitor.parked:
                monitor.unpark()
            for fd, events in found:
                source = sources.get(fd)
                if source is None:
                    continue  # it was closed a moment ago
                try:
                    task = source.ready(events)
                    if task is None:
                        if not queue:
                            continue
                        task = self._next_queued()
                    if (task.needs_thread or threads.scarce) and self._held_back(task):
                        continue
                    work = task.work
                    if work is None or len(work) > WORK_A_TURN:
                        work = task.next_batch()
                        if work is None:
                            continue
                    else:
                        task.work = None
                    source = peer = task.peer
                    ownership.task = task
                    peer.in_turn = True
                    token.append(work)
                    try:
                        task.run(work)
                    except BaseException:  # whatever it is, the token must be taken back
                        log.exception(
                            "internal error in a turn of %s (please report this)", task.path
                        )
                    peer.in_turn = False
                    try:
                        token.pop()
                    except IndexError:
                        self.call_soon(partial(self._returned, task))
                        return
                    peer.flush()
                    if task.needs_finish:
                        task.finish_turn()
                except Exception as error:
                    self.report_error(error, source)
            # A loop that sleeps keeps nobody alive.
            source = peer = task = work = ownership.task = None
            if self._ticking:
                self._tick_if_due()
        self._close()

    def _held_back(self, task: Task) -> bool:
        """Whether a turn must not begin on the loop: it has got a thread, or waits for one."""
        if task.state is ENDED:
            return True
        holder = Holder(task.route, task.peer.network)
        if task.needs_thread:
            found = self.waiting.engage_turn(holder)
            if isinstance(found, WorkerThread):
                self.run_in(found, task)
                return True
        shortage = self.waiting.shortage(task.needs_thread, holder)
        if shortage is None:
            return False
        task.state = WAITING
        task.hold()
        task.peer.flush()
        self.waiting.add(task, holder, shortage)
        return True

    def _take_over(self, lost: Task) -> None:
        """Let the turn that has lost the loop go on without it; the first act of a new owner."""
        self.handoffs += 1
        lost.state = BUSY
        lost.peer.in_turn = False
        profile = lost.profile
        if profile.blocking is None and profile.has_blocked():
            for task in self.unfinished:
                if task.profile is profile:
                    task.set_probation(max(task.probation, ROUTE_PROBATION))
        log.debug("%s blocks; the loop goes on without it", lost.path)
        lost.peer.flush()

    def _returned(self, task: Task, quick: bool = False) -> None:
        """A turn without the loop is over."""
        task.state = IDLE
        task.set_probation(max(0, task.probation - 1) if quick else PROBATION)
        try:
            task.peer.flush()
            task.finish_turn()
        except Exception as error:
            self.report_error(error, task.peer)

    def _tick_if_due(self) -> None:
        """Call what is to be called at this time, if it is time for that."""
        now = self._clock() - self._stood_still
        if now < self._next_tick:
            return
        late = now - self._tick_by
        if late > self.timing.stall_threshold:
            self._stood_still += late
            now = self._tick_by
        self._tick_by = now + self.timing.sweep_interval
        self.checked_at = now
        self._instants.clear()
        if not self._tick_again:
            due, self._at_tick = self._at_tick, []
            for function in due:
                self.call_safely(function)
        pause = self.tick(now)
        self._tick_again = pause == 0
        if pause is None and not self._at_tick:
            self._ticking = False
        self._next_tick = now + (self.timing.sweep_interval if pause is None else pause)

    def start_ticks(self) -> None:
        """Owner: call the hook ``tick`` from now on, until it returns None."""
        if not self._ticking:
            self._ticking = True
            self.checked_at = self.clock()
            self._instants.clear()
            self._next_tick = self._tick_by = self.checked_at + self.timing.sweep_interval

    def tick_soon(self) -> None:
        """Owner: call the hook ``tick`` in the next round, if it is called at all."""
        self._next_tick = self.clock()

    def _wake_some(self) -> None:
        for _ in range(1 if self._wake_one_at_a_time else len(self._wakes)):
            self.wake_next()

    def _poll_timeout(self) -> float | None:
        """How long the poller may wait, in seconds."""
        return max(0.0, self._next_tick - self.clock()) if self._ticking else None

    def _end(self) -> None:
        self._running = False

    def _close(self) -> None:
        self._owner = 0  # a thread that is started later may get the same identifier
        self._close_files()
        self._ended.set()

    def _close_files(self) -> None:
        self._poller.close()
        self._waker.close()
        for function in self._at_end:
            function()

    def call_safely(self, function: Callable[..., Any], *arguments: object) -> None:
        """Owner: call this; what it raises ends the connection whose method it is, and no other."""
        try:
            function(*arguments)
        except Exception as error:
            self.report_error(error, getattr(function, "__self__", None))

    def report_error(self, error: Exception, source: object = None) -> None:
        """Owner: log what should not be; the connection whose fault it is ends."""
        log.error("internal error in the loop (please report this)", exc_info=error)
        source = getattr(source, "peer", source)  # of what is done for a connection
        abort: Callable[[], object] | None = getattr(source, "abort", None)
        if abort is not None:
            self.call_safely(abort)

    def ready(self, events: int) -> Task | None:
        """Owner: somebody has woken the loop, or turns are queued."""
        if events:
            self._waker.drain()
        return self._next_queued() if self._queue else None

    def _next_queued(self) -> Task:
        task = self._queue.popleft()
        if task.state is QUEUED:
            task.state = IDLE
        return task

    # A thread of its own ----------------------------------------------------------------------

    def _run_elsewhere(self, task: Task, work: list[Any]) -> None:
        """A turn's own thread: run it, and tell the owner."""
        begin = self._clock()
        try:
            task.run(work)
        finally:
            quick = self._clock() - begin < self.timing.turn_slice
            self.call_soon(partial(self._returned, task, quick))

"""The I/O loop: it polls sockets and runs tasks. One thread at a time owns it.

The first words of each docstring name the threads that may call the method:

- *Owner*: only the thread that runs the loop. It alone reads, writes, registers and closes sockets,
  decodes received data and checks deadlines. Assertions enforce this.
- *Any thread*: the method appends to a queue of the loop or of a connection, and wakes the loop if
  it sleeps.

The owner changes. While user code runs on the loop's thread (a *turn*, see ``task.py``), the
:class:`Ownership` of that thread holds a token. Only one thread can pop it. The owner pops it when
the user code returns, and keeps the loop. The monitor pops it when the turn takes too long, and
hands the loop off to another thread.
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
from .blocking import BlockingProfile
from .clock import LoopClock
from .overdue import OverdueHandlers
from .poller import HANGUP, READ, WRITE, Poller
from .quotas import Holder, Shortage
from .slowdown import Slowdowns
from .task import (
    BUSY,
    ENDED,
    IDLE,
    MAX_WORK_PER_TURN,
    QUEUED,
    WAITING,
    Task,
    TaskPeer,
)
from .thread_queue import ThreadQueue
from .threads import HANDLER_NAME, LOOP_NAME, WorkerThread, has_gil, stack_of

if TYPE_CHECKING:
    from _typeshed import HasFileno

    from ..timing import Timing
    from .monitor import Monitor
    from .threads import Threads

__all__ = ["HANGUP", "READ", "WRITE", "Loop", "Source"]


# Spin: this many empty polls before blocking. A single ping-pong client gets 1.4x the rate for 10 %
# more CPU. Under load no poll is empty.
SPIN_POLLS = 16
RECEIVE_BUFFER = 256 * 1024
# Views of up to this many bytes are created in advance. Slicing costs as much as decoding a short
# message.
SHORT_READ = 512
# The number of queued calls that are made before sockets are polled again.
MAX_CALLS_PER_ROUND = 256


class Source(Protocol):
    """The callback of a file that the loop polls."""

    def ready(self, events: int) -> Task | None:
        """Owner: read or write the file, which may be ready.

        Args:
            events: a hint; they may belong to a closed file with the same descriptor.

        Returns:
            The task whose turn is due because of this, if any.
        """


class Ownership:
    """The period in which one thread owns the loop. It is never reused.

    Attributes:
        token: a list with one item while user code runs: the work of that turn, a new list each
            time.
        task: the task of the current or last turn; initially, the task that lost the loop, if any.
        thread: the owner.
        worker: the worker of that thread; set before the ownership begins.
    """

    __slots__ = ("task", "thread", "token", "worker")

    def __init__(self, lost: Task | None = None) -> None:
        self.thread = threading.current_thread()
        self.token: list[list[Any]] = []
        self.task = lost
        self.worker: WorkerThread | None = None


class Loop(LoopClock):
    """One I/O loop.

    Args:
        timing: the timing of the app.
        threads: the threads that run the loop and the handlers.
        monitor: the monitor that checks this loop.
        poller: the poller, by default a new one.
        waker: the waker of the owner, by default a new one.

    Attributes:
        unfinished: the tasks whose user code has begun and not ended; only the owner uses it.
        waiting: the turns and requests that wait for a thread.
        overdue: the handlers that outlive their client.
        slowdowns: the tasks whose next turn is delayed.
        buffer: the buffer of every read. Data that is kept is copied from it.
        received: a view of the buffer.
        received_short: views of the beginning of the buffer, by length.
        on_task_end: a hook, called when the user code of a task has ended.
        handoffs: the number of turns that have lost the loop.
        wake_one_at_a_time: True to wake one thread in each round; see :meth:`wake_soon`.
    """

    def __init__(
        self,
        timing: Timing,
        threads: Threads,
        monitor: Monitor,
        *,
        poller: Poller | None = None,
        waker: Waker | None = None,
    ) -> None:
        super().__init__(timing)
        self.on_task_end: Callable[[], object] = lambda: None
        self.unfinished: set[Task] = set()
        self.waiting = ThreadQueue(self, threads)
        self.overdue = OverdueHandlers(self)
        self.slowdowns = Slowdowns(self.call_soon)
        self.buffer = bytearray(RECEIVE_BUFFER)
        self.received = memoryview(self.buffer)
        self.received_short = [self.received[:size] for size in range(SHORT_READ)]
        self.handoffs = 0
        self.wake_one_at_a_time = has_gil()
        self._threads = threads
        self._monitor = monitor
        self._poller = Poller() if poller is None else poller
        self._sources: dict[int, Source] = {}
        self._waker = Waker() if waker is None else waker
        self._poller.register(self._waker.fileno(), READ)
        self._sources[self._waker.fileno()] = self
        self._calls: deque[Callable[[], object]] = deque()
        self._queue: deque[Task] = deque()
        self._wakes: deque[SimpleQueue[None]] = deque()
        self._profiles: dict[object, BlockingProfile] = {}
        # One item while the owner sleeps or is about to; a thread that sees it wakes the owner.
        self._asleep: list[None] = []
        self._started = False
        self._running = True
        self._ended = threading.Event()
        self._ownership = Ownership()
        # Only the monitor uses these: the token at its last check, and the last token without a
        # hand-off.
        self._seen: list[Any] | None = None
        self._not_handed_off: list[Any] | None = None
        self._owner = 0
        self._at_end: list[Callable[[], object]] = []

    # Any thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Any thread, once: start the loop in a thread.

        Raises:
            RuntimeError: the system cannot start another thread.
        """
        worker = self._ownership.worker = self._threads.start_loop()
        worker.jobs.put((LOOP_NAME, partial(self._run, self._ownership)))
        self._started = True

    def at_end(self, function: Callable[[], object]) -> None:
        """Any thread, before the start: call ``function``, which must not raise, at the end."""
        self._at_end.append(function)

    def discard(self) -> None:
        """Any thread: release the files of a loop that was never started."""
        if not self._started:
            self._close_files()

    def stop(self, timeout: float) -> None:
        """Any thread but the owner, once: stop the loop, and wait for its end.

        A handler blocks the loop for longer only if no thread was free to take over the loop. Such
        a handler is logged with its stack, and keeps running.

        Args:
            timeout: the longest time to wait, in seconds.
        """
        self.call_soon(self.end)
        if not self._ended.wait(timeout):
            stack = stack_of(self._owner)
            log.error(
                "the loop did not stop within %g s because a handler blocks it",
                timeout,
                extra={"stack": stack},
            )

    def owned(self) -> bool:
        """Any thread: return True if the calling thread is the owner."""
        return threading.get_ident() == self._owner

    def slow_down(
        self, reason: object, when_over: Callable[[Callable[[], object]], object]
    ) -> None:
        """Owner: delay the next turn of the task whose turn runs.

        Args:
            reason: identifies the cause; all tasks with the same reason continue together.
            when_over: called with a function; any thread calls that function to end the delay.
        """
        task = self._ownership.task
        if task is not None:
            self.slowdowns.add(task, reason, when_over)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread: queue ``function`` for the owner to call, after all earlier ones."""
        self._calls.append(function)
        if self._asleep:
            self._asleep.clear()  # so that later calls do not wake it again
            self._waker.wake()

    def wake_next(self) -> None:
        """Any thread that was just woken: send the next signal of :meth:`wake_soon`."""
        with suppress(IndexError):  # another thread may take the last one
            while self._wakes:
                ready_signal = self._wakes.popleft()
                if ready_signal.empty():  # otherwise an earlier signal is still unread
                    ready_signal.put(None)
                    return

    def sleeps(self) -> bool:
        """Any thread: return True if the owner is blocked in the poller, or about to be."""
        return bool(self._asleep)

    def after_fork(self) -> None:
        """The child of a fork: close the copies of the files, and stop.

        The parent uses the same poller, so nothing is unregistered from it.
        """
        self._running = False
        self._owner = 0
        self._ownership.token.clear()  # a handler that forked on this loop has lost the loop
        for waiting in (self._calls, self._queue, self._wakes, self._asleep):
            waiting.clear()
        for file in (self._poller, self._waker):
            with suppress(OSError):
                file.close()

    # The monitor's thread ---------------------------------------------------------------------

    def watch(self) -> bool:
        """The monitor's thread: hand the loop off if the turn of the last call still runs.

        Returns:
            True if a turn runs that may end before the next call.
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
        handoff = self._threads.hand_off(owner, Holder(task.route, task.peer.network))
        if handoff is None:
            if token is not self._not_handed_off:  # once for each turn
                self._not_handed_off = token
                log.warning(
                    "%s blocks the loop, and no thread can take it over: %s",
                    task.path,
                    Shortage.SYSTEM.value,
                )
            return
        worker, charge = handoff
        try:
            ownership.token.pop()
        except IndexError:  # the turn has just ended
            self._threads.take_back(owner, charge, worker)
            return
        # No other thread writes to it: the old owner lost the loop, the new one has not begun.
        assert ownership.task is not None
        if ownership.task is not task:  # that turn ended, and another one lost the loop
            lost = ownership.task
            self._threads.recharge(owner, charge, Holder(lost.route, lost.peer.network))
        self._ownership = Ownership(ownership.task)
        self._ownership.worker = worker
        self._owner = 0
        ownership.thread.name = f"{HANDLER_NAME} {ownership.task.path}"
        worker.jobs.put((LOOP_NAME, partial(self._run, self._ownership)))
        self._threads.restore_spares()

    # Owner ------------------------------------------------------------------------------------

    def register(self, sock: HasFileno, events: int, source: Source) -> None:
        """Owner: call ``source.ready`` when the socket is ready, until :meth:`unregister`."""
        assert self.owned()
        fd = sock.fileno()
        self._poller.register(fd, events)
        self._sources[fd] = source

    def modify(self, sock: HasFileno, events: int) -> None:
        """Owner: change the events to wait for."""
        assert self.owned()
        self._poller.modify(sock.fileno(), events)

    def unregister(self, sock: HasFileno) -> None:
        """Owner: stop polling this socket."""
        assert self.owned()
        fd = sock.fileno()
        self._poller.unregister(fd)
        del self._sources[fd]

    def profile(self, owner: object, blocking: bool | None) -> BlockingProfile:
        """Owner: return the blocking profile of a route or a hook on this loop."""
        if owner not in self._profiles:
            self._profiles[owner] = BlockingProfile(owner, blocking, self.timing)
        return self._profiles[owner]

    def finished(self, task: Task) -> None:
        """Owner: forget a task whose user code has ended."""
        self.unfinished.discard(task)
        self.waiting.discard(task)
        self.slowdowns.discard(task)
        self.overdue.discard(task)
        self.on_task_end()

    def queue_turn(self, task: Task) -> None:
        """Owner: queue a turn of this task."""
        assert self.owned()
        self._queue.append(task)

    def engage(self, peer: TaskPeer, route: Hashable) -> WorkerThread | None:
        """Owner: return a thread for a handler that keeps it until the connection ends.

        Returns:
            None if no thread is free, which is logged; the caller refuses the request.
        """
        result = self._threads.engage_handler(Holder(route, peer.network))
        if isinstance(result, WorkerThread):
            return result
        self.waiting.log_refusal(route, self._threads.handler_quota.explain(result))
        return None

    def run_in(self, worker: WorkerThread, task: Task) -> None:
        """Owner: run a turn in this thread, if the task has work."""
        work = task.next_batch()
        if work is None:
            self._threads.finished(worker)
            return
        task.state = BUSY
        name = f"{HANDLER_NAME} {task.path}"
        worker.jobs.put((name, partial(self._run_elsewhere, task, work)))
        task.peer.flush()

    def wake_soon(self, ready_signal: SimpleQueue[None]) -> None:
        """Owner: wake the handler's thread that waits for this queue, soon.

        If many threads are woken at once, they compete for the GIL and the system switches between
        them. So the loop wakes one thread in each round, and each woken thread wakes the next one
        before it may block. Without a GIL all threads are woken at once.
        """
        assert self.owned()
        self._wakes.append(ready_signal)

    def end(self) -> None:
        """Owner: end the loop, after the queued turns and calls."""
        self._running = False

    def _run(self, ownership: Ownership) -> None:
        """Own the loop until it ends or a turn loses it.

        The code for each read and turn is inlined here, because a call costs measurable time.
        """
        self._owner = threading.get_ident()
        ownership.thread = threading.current_thread()
        if ownership.task is not None:
            self.call_safely(self._take_over, ownership.task)
        peer: TaskPeer | None
        source: Any  # a Source, or the connection whose turn runs; an error ends it
        poll, sources, queue, calls = self._poller.poll, self._sources, self._queue, self._calls
        wakes, asleep, monitor, token = self._wakes, self._asleep, self._monitor, ownership.token
        threads = self._threads
        myself = (self._waker.fileno(), 0)
        spins = 0
        while self._running or queue or calls or wakes:
            if wakes:
                self._wake_some()
            if queue or calls or wakes or spins:
                ready = poll(0)
            else:
                # Announce the sleep, then check once more: no wake-up is lost in between.
                asleep.append(None)
                ready = poll(0 if calls else self._poll_timeout())
                asleep.clear()
            spins = SPIN_POLLS if ready else spins - 1 if spins else 0
            if calls:
                for _ in range(min(len(calls), MAX_CALLS_PER_ROUND)):
                    self.call_safely(calls.popleft())
            if queue:
                # Queued turns come first; turns that are queued meanwhile come after the sockets.
                ready[:0] = [myself] * len(queue)
            if ready and monitor.parked:
                monitor.unpark()
            for fd, events in ready:
                source = sources.get(fd)
                if source is None:
                    continue  # closed in this round
                try:
                    task = source.ready(events)
                    if task is None:
                        if not queue:
                            continue
                        task = self._next_queued()
                    if (task.needs_thread or threads.scarce) and self._held_back(task):
                        continue
                    work = task.work
                    if work is None or len(work) > MAX_WORK_PER_TURN:
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
                    except BaseException:  # of any kind, because the token must be popped
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
            # Drop the references, or a sleeping loop would keep a connection alive.
            source = peer = task = work = ownership.task = None
            if self._ticking:
                self._tick_if_due()
        self._close()

    def _held_back(self, task: Task) -> bool:
        """Start a turn in a thread, or queue it for one; return False to run it on the loop."""
        if task.state is ENDED:
            return True
        holder = Holder(task.route, task.peer.network)
        if task.needs_thread:
            result = self.waiting.engage_turn(holder)
            if isinstance(result, WorkerThread):
                self.run_in(result, task)
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
        """Account for the turn that lost the loop; the first action of a new owner."""
        self.handoffs += 1
        lost.state = BUSY
        lost.peer.in_turn = False
        profile = lost.profile
        if profile.blocking is None and profile.has_blocked():
            turns = self.timing.route_probation_turns
            for task in self.unfinished:
                if task.profile is profile:
                    task.set_probation(max(task.probation, turns))
        log.debug("%s blocks the loop; it was handed off to another thread", lost.path)
        lost.peer.flush()

    def _returned(self, task: Task, quick: bool = False) -> None:
        """Finish a turn that ran in a thread without owning the loop."""
        task.state = IDLE
        turns = max(0, task.probation - 1) if quick else self.timing.probation_turns
        task.set_probation(turns)
        try:
            task.peer.flush()
            task.finish_turn()
        except Exception as error:
            self.report_error(error, task.peer)

    def _wake_some(self) -> None:
        for _ in range(1 if self.wake_one_at_a_time else len(self._wakes)):
            self.wake_next()

    def _close(self) -> None:
        self._owner = 0  # a later thread may get the same identifier
        self._close_files()
        self._ended.set()

    def _close_files(self) -> None:
        self._poller.close()
        self._waker.close()
        for function in self._at_end:
            function()

    def call_safely(self, function: Callable[..., Any], *arguments: object) -> None:
        """Owner: call ``function``; an error ends only the connection whose method it is."""
        try:
            function(*arguments)
        except Exception as error:
            self.report_error(error, getattr(function, "__self__", None))

    def report_error(self, error: Exception, source: object = None) -> None:
        """Owner: log an internal error, and end the connection that caused it."""
        log.error("internal error in the loop (please report this)", exc_info=error)
        source = getattr(source, "peer", source)  # the connection of a session or a task
        abort: Callable[[], object] | None = getattr(source, "abort", None)
        if abort is not None:
            self.call_safely(abort)

    def ready(self, events: int) -> Task | None:
        """Owner: continue after a wake-up; return the task of the next queued turn, if any."""
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
        """The turn's thread: run it, then notify the owner."""
        begin = self._clock()
        try:
            task.run(work)
        finally:
            quick = self._clock() - begin < self.timing.turn_slice
            self.call_soon(partial(self._returned, task, quick))

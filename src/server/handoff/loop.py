"""The I/O loop: it polls sockets and runs tasks. One thread at a time owns it.

The first words of each docstring name the threads that may call the method:

- *Loop owner*: only the thread that runs the loop. It alone reads, writes, registers and closes
  sockets, decodes received data and checks deadlines. Assertions check this, except where each
  message passes.
- *Any thread*: the method appends to a queue of the loop or of a connection, and wakes the loop if
  it sleeps.

The owner changes. While user code runs on the loop's thread (a *turn*, see ``task.py``), the token
of that thread's :class:`Ownership` contains an item. Only one thread can pop the item. The owner
pops it when the user code returns, and keeps the loop. The monitor pops it when the turn takes too
long, and hands the loop off to another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from wsframe.waker import Waker

from .. import pure_rounds
from ..pure_rounds import FINISHED, LOST, OVER, UNTOUCHED
from ..reports.loggers import log
from ..rounds import Wire, run_turns
from .blocking import BlockingProfile
from .calls import Calls
from .clock import LoopClock
from .overdue import OverdueHandlers
from .ownership import Handoff, Ownership
from .poller import HANGUP, READ, WRITE, Poller
from .quotas import Holder
from .round import MESSAGES, NOTHING, Round
from .safe_calls import SafeCalls
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
from .threads import HANDLER_NAME, WorkerThread, stack_of
from .wakes import Wakes

if TYPE_CHECKING:
    from _typeshed import HasFileno

    from ..pure_rounds import IncompleteBlock
    from ..timing import Timing
    from .monitor import Monitor
    from .threads import Threads

__all__ = ["HANGUP", "READ", "WRITE", "Loop", "Source"]


# The number of empty polls before the loop blocks, after messages were received, an opening and the
# server's half of a close. The processor stays awake for a client that answers at once, which makes
# the next round faster: the rate of a single ping-pong client increases by half at the same cost.
# Under load no poll is empty.
SPIN_POLLS = 16
RECEIVE_BUFFER = 256 * 1024


class Source(Protocol):
    """The callback of a file that the loop polls."""

    def ready(self, events: int) -> Task | None:
        """Loop owner: read or write the file, which is probably ready.

        Args:
            events: the reported events, only a hint: they may belong to a closed file with the same
                descriptor.

        Returns:
            The task whose turn is due because of the data, if any.
        """


class Loop(SafeCalls, LoopClock):
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
        overdue: the handlers that still run after their client has disconnected.
        slowdowns: the tasks whose next turn is delayed.
        buffer: the memory for reads outside a round. Data that is kept is copied from it.
        poller: the files that the loop waits for.
        round: the data received, and the answers to send.
        wakes: the threads of handlers to wake.
        on_task_end: a hook, called when the user code of a task has ended.
        handoffs: the number of turns that have lost the loop.
    """

    place = "the loop"

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
        self.waiting: ThreadQueue = ThreadQueue(self, threads)
        self.overdue: OverdueHandlers = OverdueHandlers(self)
        self.slowdowns: Slowdowns = Slowdowns(self.call_soon)
        self.buffer: memoryview = memoryview(bytearray(RECEIVE_BUFFER))
        self.handoffs: int = 0
        self.wakes: Wakes = Wakes()
        self.poller: Poller = Poller() if poller is None else poller
        self.round: Round = Round(self.poller, self._clock, self.call_safely)
        self._threads = threads
        self._monitor = monitor
        self._handoff = Handoff(threads, self._run)
        self._calls = Calls(Waker() if waker is None else waker)
        # The sources by descriptor, except connections, which the poller stores.
        self._sources: dict[int, Source] = {self._calls.fileno(): self._calls}
        self.poller.register(self._calls.fileno(), READ)
        self._queue: deque[Task] = deque()
        self._profiles: dict[object, BlockingProfile] = {}
        self._started = False
        self._running = True
        self._ended = threading.Event()
        self._spins = 0
        self._idle = False  # True if no file was ready in the last poll
        self._at_end: list[Callable[[], object]] = []

    # Any thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Any thread, once: start the loop in a thread.

        Raises:
            RuntimeError: the system cannot start another thread.
        """
        self._handoff.start()
        self._started = True

    def at_end(self, function: Callable[[], object]) -> None:
        """Any thread, before the start: set a function that is called when the loop ends."""
        self._at_end.append(function)

    def discard(self) -> None:
        """Any thread: release the files of a loop that was never started."""
        if not self._started:
            self._close_files()

    def stop(self, timeout: float) -> None:
        """Any thread except the owner, once: stop the loop, and wait for its end.

        A handler delays the end only if no thread was free to take over the loop. Such a handler is
        logged with its stack, and keeps running.

        Args:
            timeout: the longest time to wait, in seconds.
        """
        self.call_soon(self.end)
        if not self._ended.wait(timeout):
            stack = stack_of(self._handoff.owner)
            log.error(
                "the loop did not stop within %g s because a handler blocks it",
                timeout,
                extra={"stack": stack},
            )

    def owned(self) -> bool:
        """Any thread: return True if the calling thread is the owner."""
        return threading.get_ident() == self._handoff.owner

    def slow_down(
        self, reason: object, when_over: Callable[[Callable[[], object]], object]
    ) -> None:
        """Loop owner: delay the next turn of the task whose turn runs.

        Args:
            reason: an object that identifies the cause; all tasks with the same reason continue
                together.
            when_over: a function that is called with another function; any thread calls the latter
                to end the delay.
        """
        task = self._handoff.ownership.task
        if task is not None:
            self.slowdowns.add(task, reason, when_over)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread: queue ``function`` for the owner to call, after all earlier functions."""
        self._calls.add(function)

    def sleeps(self) -> bool:
        """Any thread: return True if the loop's thread blocks in the poller, or is about to."""
        return self._calls.sleeps()

    def watch(self) -> bool:
        """The monitor's thread: hand the loop off if the turn of the last call still runs.

        Returns:
            True if a turn runs that may end before the next call.
        """
        return self._handoff.watch()

    def after_fork(self) -> None:
        """The child of a fork: close the copies of the files, and stop.

        The parent uses the same poller, so no file is unregistered from it.
        """
        self._running = False
        self._handoff.after_fork()
        for waiting in (self._calls, self._queue, self.wakes, self.round):
            waiting.clear()
        for file in (self.poller, self._calls):
            with suppress(OSError):
                file.close()

    # Loop owner -------------------------------------------------------------------------------

    def register(self, sock: HasFileno, events: int, source: Source) -> None:
        """Loop owner: call ``source.ready`` when the socket is ready, until :meth:`unregister`."""
        assert self.owned()
        fd = sock.fileno()
        if isinstance(source, Wire):
            self.poller.register(fd, events, source)
        else:
            self.poller.register(fd, events)
            self._sources[fd] = source

    def modify(self, sock: HasFileno, events: int) -> None:
        """Loop owner: change the events that a socket is polled for."""
        assert self.owned()
        self.poller.modify(sock.fileno(), events)

    def unregister(self, sock: HasFileno) -> None:
        """Loop owner: stop polling a socket."""
        assert self.owned()
        fd = sock.fileno()
        self.poller.unregister(fd)
        self._sources.pop(fd, None)

    def profile(self, owner: object, blocking: bool | None) -> BlockingProfile:
        """Loop owner: return the blocking profile of a route or a hook on this loop."""
        if owner not in self._profiles:
            self._profiles[owner] = BlockingProfile(owner, blocking, self.timing)
        return self._profiles[owner]

    def finished(self, task: Task) -> None:
        """Loop owner: forget a task whose user code has ended."""
        self.unfinished.discard(task)
        self.waiting.discard(task)
        self.slowdowns.discard(task)
        self.overdue.discard(task)
        self.on_task_end()

    def send_block(self, peers: list[Any], block: bytes, count: int) -> list[IncompleteBlock]:
        """Loop owner: send the same data to several connections that have no unsent data.

        Args:
            peers: the connections.
            block: the data.
            count: the number of messages or events in the block.

        Returns:
            The indexes of the connections that the caller must serve; see
            :func:`wsframe.server.pure_rounds.send_block`.
        """
        return self.poller.send_block(peers, block, count)

    def queue_turn(self, task: Task) -> None:
        """Loop owner: queue a turn of a task."""
        assert self.owned()
        self._queue.append(task)

    def engage(self, peer: TaskPeer, route: Hashable) -> WorkerThread | None:
        """Loop owner: return a thread for a handler that keeps it until the connection ends.

        Returns:
            The thread; None if no thread is free, which is logged. Then the caller refuses the
            request.
        """
        result = self._threads.engage_handler(Holder(route, peer.network))
        if isinstance(result, WorkerThread):
            return result
        self.waiting.log_refusal(route, self._threads.handler_quota.explain(result))
        return None

    def expect_data(self) -> None:
        """Loop owner: do not block in the next polls, because a client will probably send soon."""
        self._spins = SPIN_POLLS

    def run_in(self, worker: WorkerThread, task: Task) -> None:
        """Loop owner: run a turn in this thread, if the task has work."""
        work = task.next_batch()
        if work is None:
            self._threads.finished(worker)
            return
        task.state = BUSY
        name = f"{HANDLER_NAME} {task.path}"
        worker.jobs.put((name, partial(self._run_elsewhere, task, work)))
        task.peer.flush()

    def end(self) -> None:
        """Loop owner: end the loop, after the queued turns and calls."""
        self._running = False

    def _run(self, ownership: Ownership) -> None:
        """Run the loop in this thread until the loop ends or a turn loses it."""
        self._handoff.begin(ownership)
        if ownership.task is not None:
            self.call_safely(self._take_over, ownership.task)
        while self._run_round(ownership):
            if not (self._running or self._queue or self._calls.queue or self.wakes.signals):
                self._close()
                return
            self._begin_round()

    def _begin_round(self) -> None:
        """Wake a thread, poll and receive, and make the queued calls."""
        queue, calls, wakes, round_ = self._queue, self._calls.queue, self.wakes, self.round
        signals = wakes.signals
        if signals or wakes.last is not None:
            wakes.wake_some(idle=self._idle and not queue)
        if queue or calls or signals or self._spins:
            found = round_.receive(0)
        else:
            # The sleep is announced before the last check for calls, so that no wake-up is lost.
            self._calls.announce_sleep()
            found = round_.receive(0 if calls else self._poll_timeout())
            self._calls.end_sleep()
        self._idle = found is NOTHING
        if found is MESSAGES:
            self._spins = SPIN_POLLS
        elif self._spins:
            self._spins -= 1
        if calls:
            self._calls.make(self.call_safely)
            round_.begin_turns()
        round_.turns = len(queue)  # turns that are queued later run after the next poll
        if (queue or found is not NOTHING) and self._monitor.parked:
            self._monitor.unpark()

    def _run_round(self, ownership: Ownership) -> bool:
        """Continue the round; return False if a turn has lost the loop."""
        round_ = self.round
        if round_.turns and not self._run_queued_turns(ownership):
            return False
        others_wait = bool(self._queue)  # other turns run after the next poll
        if not self._deliver_messages(ownership):
            return False
        for fd, events in round_.ready:
            source = self.poller.wire(fd) or self._sources.get(fd)
            if source is None:
                continue  # the file was closed in this round
            try:
                due = source.ready(events)
            except Exception as error:
                self.report_error(error, source)
                continue
            if due is not None and not self._turn(due, ownership):
                return False
        if self._queue and not others_wait:
            round_.turns = len(self._queue)
            if not self._run_queued_turns(ownership):
                return False
        if round_.answered:
            round_.end()
        ownership.task = None  # a sleeping loop must not keep a connection alive
        if self._ticking:
            self._tick_if_due(round_.turn_ended)
        return True

    def _run_queued_turns(self, ownership: Ownership) -> bool:
        """Run the queued turns of this round; return False if one of them has lost the loop."""
        round_ = self.round
        while round_.turns:
            round_.turns -= 1
            task = self._queue.popleft()
            if task.state is not QUEUED:
                continue  # the task is in a thread, waits for one, or has ended
            task.state = IDLE
            if not self._turn(task, ownership):
                return False
        return True

    def _deliver_messages(self, ownership: Ownership) -> bool:
        """Deliver the received messages; return False if a turn has lost the loop."""
        round_ = self.round
        while True:
            # If no spare thread exists or a limit is near, a turn may have to wait.
            next_turns = pure_rounds.run_turns if self._threads.scarce else run_turns
            why, what = next_turns(round_, ownership, IDLE, MAX_WORK_PER_TURN)
            if why == OVER:
                return True
            if why == UNTOUCHED:
                session, messages, rest = what
                try:
                    due = session.messages_received(messages, rest)
                except Exception as error:
                    self.report_error(error, session)
                    continue
                if due is not None and not self._turn(due, ownership):
                    return False
            elif why == FINISHED:
                self._end_turn(what)
            else:
                task, failure = what
                if failure is not None:
                    self._report_turn(task, failure)
                if why == LOST:
                    self.call_soon(partial(self._returned, task))
                    return False
                self._end_turn(task)

    def _turn(self, task: Task, ownership: Ownership) -> bool:
        """Run a turn of the task, if it has work; return False if the turn has lost the loop."""
        round_ = self.round
        peer = task.peer
        try:
            if (task.needs_thread or self._threads.scarce) and self._held_back(task):
                return True
            work = task.work
            if work is None or len(work) > MAX_WORK_PER_TURN:
                work = task.next_batch()
                if work is None:
                    return True
            else:
                task.work = None
            if task.profile.slow:
                round_.send_answers()
            ownership.task = task
            peer.in_turn = True
            ownership.token.append(work)
            try:
                task.run(work)
            except BaseException as error:  # any error, because the token must be popped
                self._report_turn(task, error)
            peer.in_turn = False
            work = None  # an exception in the work refers to this frame, which would form a cycle
            try:
                ownership.token.pop()
            except IndexError:
                self.call_soon(partial(self._returned, task))
                return False
        except Exception as error:
            self.report_error(error, peer)
        else:
            self._end_turn(task)
        return True

    def _end_turn(self, task: Task) -> None:
        """Account for a turn that has kept the loop."""
        try:
            self.round.end_turn(task.peer, task.profile)
            if task.needs_finish:
                task.peer.flush()
                task.finish_turn()
        except Exception as error:
            self.report_error(error, task.peer)

    def _report_turn(self, task: Task, error: BaseException) -> None:
        """Log an internal error in a turn, which the handler has not caused."""
        log.error("internal error in a turn of %s (please report this)", task.path, exc_info=error)

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
        """The new owner, first: update the state and profile of the task that lost the loop."""
        # Set before send_answers(), which may find that the client has disconnected.
        lost.state = BUSY
        lost.peer.in_turn = False
        self.round.send_answers()
        self.handoffs += 1
        profile = lost.profile
        profile.slow = True
        if profile.blocking is None and profile.has_blocked():
            turns = self.timing.route_probation_turns
            for task in self.unfinished:
                if task.profile is profile:
                    task.set_probation(max(task.probation, turns))
        log.debug("%s blocks the loop, which was handed off to another thread", lost.path)
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

    def _close(self) -> None:
        self._handoff.owner = 0  # a later thread may have the same identifier
        self._close_files()
        self._ended.set()

    def _close_files(self) -> None:
        self.poller.close()
        self._calls.close()
        for function in self._at_end:
            function()

    # The thread of a turn ----------------------------------------------------------------------

    def _run_elsewhere(self, task: Task, work: list[Any]) -> None:
        """The turn's thread: run the turn, then notify the owner."""
        begin = self._clock()
        try:
            task.run(work)
        finally:
            quick = self._clock() - begin < self.timing.turn_slice
            self.call_soon(partial(self._returned, task, quick))

"""The I/O loop: one thread at a time on one poller, and the only one that touches sockets.

The rules of ownership, which every method's first words refer to:

- *owner*: only the thread that runs the loop may call it. It alone reads, writes, registers and
  closes sockets, runs the codec's receiving side and looks at deadlines. Asserted, but for -O.
- *any thread*: appends to a queue of the loop or of a connection, and wakes the loop if it sleeps.

The owner changes. While user code runs on the loop's thread (a *turn*, see ``turns.py``), a token
lies in the owner's tenure. Whoever pops it has the loop: the owner, when the user's code returns,
or the monitor, when it takes too long, which gives the loop to another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from logging import WARNING
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from wsframe.waker import Waker

from ..reports.loggers import log
from ..reports.throttled import ThrottledLog
from .poller import LEFT, READ, WRITE, Poller
from .quotas import Holder, Shortage, name_of
from .threads import HANDLER_NAME, LOOP_NAME, Worker, has_gil, stack_of
from .turns import (
    BUSY,
    ENDED,
    IDLE,
    PROBATION,
    QUEUED,
    ROUTE_PROBATION,
    WAITING,
    WORK_A_TURN,
    Connection,
    Habit,
    Turns,
)
from .waiting import Waiter, WaitingRoom

if TYPE_CHECKING:
    from _typeshed import HasFileno

    from ..timing import Timing
    from .monitor import Monitor
    from .threads import Threads

__all__ = ["LEFT", "READ", "WRITE", "Loop", "Source"]


# How often to look in vain before going to sleep: a lone client that answers at once is served 1.4
# times as fast, for a tenth more of processor time, and a crowd none the worse.
EMPTY_POLLS = 16
RECEIVE_BUFFER = 256 * 1024
# To cut a view costs as much as to decode a short message, so that those of fewer bytes are kept.
SHORT_READ = 512
# How many calls are made before sockets are looked at again.
CALLS_A_ROUND = 256


class Source(Protocol):
    """What the loop polls: a file, and what to call when it is ready."""

    def ready(self, events: int) -> Turns | None:
        """Owner: act on it, and return whose turn it is, if this makes it somebody's.

        The events are a hint, and may be those of a file closed before.
        """


class Tenure:
    """One thread's time as the owner of a loop; never used again when that is over.

    Attributes:
        token: has one item while user code runs: the work of that turn, a new list each time.
        turns: whose turn it is, or was; at first, the one that has lost the loop, if one has.
        thread: the owner.
        worker: the worker whose thread that is; set before the tenure begins.
    """

    __slots__ = ("thread", "token", "turns", "worker")

    def __init__(self, stolen: Turns | None = None) -> None:
        self.thread = threading.current_thread()
        self.token: list[list[Any]] = []
        self.turns = stolen
        self.worker: Worker | None = None


class Loop:
    """One I/O loop.

    Attributes:
        unfinished: the user's code that has begun and not ended; the owner's.
        waiting: what waits for a thread; the owner's.
        orphans: those whose user code still has a thread long after their client has left; the
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
        steals: how often a turn has lost the loop.
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
        self.unfinished: set[Turns] = set()
        self.waiting = WaitingRoom()
        self.orphans: set[Turns] = set()
        self.buffer = bytearray(RECEIVE_BUFFER)
        self.received = memoryview(self.buffer)
        self.received_short = [self.received[:size] for size in range(SHORT_READ)]
        self.steals = 0
        self._threads = threads
        self._monitor = monitor
        self._refused = ThrottledLog()
        self._delayed = ThrottledLog()
        self._abandoned = ThrottledLog()
        # By when their user code must have ended, in this order; after that they are orphans.
        self._outlived: dict[Turns, float] = {}
        self._will_try_again = False
        self._poller = Poller()
        self._ready: dict[int, Source] = {}
        self._waker = Waker()
        self._poller.register(self._waker.fileno(), READ)
        self._ready[self._waker.fileno()] = self
        self._calls: deque[Callable[[], object]] = deque()
        self._turns: deque[Turns] = deque()
        self._wakes: deque[SimpleQueue[None]] = deque()
        self._wakes_one = has_gil()
        self._habits: dict[object, Habit] = {}
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
        self._slowed: dict[object, set[Turns]] = {}
        self._tenure = Tenure()
        # The monitor's: the token at its last look, and the last one that it could not take.
        self._seen: list[Any] | None = None
        self._not_stolen: list[Any] | None = None
        self._owner = 0
        self._at_end: list[Callable[[], object]] = []

    # Any thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Any thread, once: give the loop a thread.

        Raises:
            RuntimeError: the system has none left.
        """
        worker = self._tenure.worker = self._threads.start_loop()
        worker.given.put((LOOP_NAME, partial(self._run, self._tenure)))
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
        turns = self._tenure.turns
        if turns is None:
            return
        turns.peer.halted = True
        if reason in self._slowed:
            self._slowed[reason].add(turns)
            return
        self._slowed[reason] = {turns}
        when_over(partial(self.call_soon, partial(self._end_of_wait, reason)))

    def is_slowed(self, turns: Turns) -> bool:
        """Owner: whether the next turn of this connection must not begin yet."""
        return any(turns in waiting for waiting in self._slowed.values())

    def let_go_on(self, turns: Turns) -> None:
        """Owner: it is not to wait any longer, because its client has left."""
        if self.is_slowed(turns):
            for waiting in self._slowed.values():
                waiting.discard(turns)
            if turns.state is WAITING:
                turns.resume()

    def _end_of_wait(self, reason: object) -> None:
        for turns in self._slowed.pop(reason, ()):
            if turns.state is WAITING and not self.is_slowed(turns):
                turns.resume()

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
                news = self._wakes.popleft()
            except IndexError:
                return  # another thread was faster
            if news.empty():  # else it was told before, and has not looked yet
                news.put(None)
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
        self._tenure.token.clear()  # the handler that has forked on this loop has lost the loop
        for waiting in (self._calls, self._turns, self._wakes, self._asleep):
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
        tenure = self._tenure
        token = next(iter(tenure.token), None)
        if token is not None and token is self._seen:
            self._steal(tenure, token)
            token = None
        self._seen = token
        return token is not None

    def _steal(self, tenure: Tenure, token: list[Any]) -> None:
        turns, owner = tenure.turns, tenure.worker
        if turns is None or owner is None:
            return  # the turn has just ended
        taken = self._threads.hand_off(owner, self._holder(turns.peer, turns.route))
        if taken is None:
            if token is not self._not_stolen:  # once for each turn
                self._not_stolen = token
                log.warning(
                    "%s blocks the loop: %s to take it over", turns.path, Shortage.SYSTEM.value
                )
            return
        worker, charge = taken
        try:
            tenure.token.pop()
        except IndexError:  # the turn has just ended
            self._threads.take_back(owner, charge, worker)
            return
        # Nobody else fills in tenures: the old owner has lost the loop, the new one has not begun.
        assert tenure.turns is not None
        if tenure.turns is not turns:  # that turn had ended, and another has lost the loop
            stolen = tenure.turns
            self._threads.recharge(owner, charge, self._holder(stolen.peer, stolen.route))
        self._tenure = Tenure(tenure.turns)
        self._tenure.worker = worker
        self._owner = 0
        tenure.thread.name = f"{HANDLER_NAME} {tenure.turns.path}"
        worker.given.put((LOOP_NAME, partial(self._run, self._tenure)))
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

    def habit(self, owner: object, blocking: bool | None) -> Habit:
        """Owner: what is known here of a route's handler, or whatever else takes turns."""
        if owner not in self._habits:
            self._habits[owner] = Habit(owner, blocking, self.timing)
        return self._habits[owner]

    def finished(self, turns: Turns) -> None:
        """Owner: the user's code of a connection is over."""
        self.unfinished.discard(turns)
        self.waiting.discard(turns)
        self._outlived.pop(turns, None)
        for waiting in self._slowed.values():
            waiting.discard(turns)
        self.orphans.discard(turns)
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

    def queue_turn(self, turns: Turns) -> None:
        """Owner: have this turn soon, after those that are queued already."""
        assert self.owned()
        self._turns.append(turns)

    def engage(self, peer: Connection, route: Hashable) -> Worker | None:
        """Owner: return a thread for a handler that lives as long as this connection.

        None if there is none, which is logged; the request is to be refused then.
        """
        found = self._threads.engage_handler(self._holder(peer, route))
        if isinstance(found, Worker):
            return found
        self.log_refusal(route, self._threads.handlers.explain(found))
        return None

    def run_in(self, worker: Worker, turns: Turns) -> None:
        """Owner: run a turn in this thread, if there is anything to do."""
        work = turns.take()
        if work is None:
            self._threads.finished(worker)
            return
        turns.state = BUSY
        name = f"{HANDLER_NAME} {turns.path}"
        worker.given.put((name, partial(self._run_elsewhere, turns, work)))
        turns.peer.flush()

    def wait_for_thread(self, waiter: Waiter, peer: Connection, route: Hashable) -> bool:
        """Owner: whether there is no thread now for what it will do.

        Then ``waiter.resume()`` is called when there is one, unless it is discarded from
        ``waiting`` before.
        """
        if not (waiter.credit or self._threads.wary):
            return False
        holder = self._holder(peer, route)
        lacking = self._shortage(waiter.credit, holder)
        if lacking is not None:
            self._await_thread(waiter, holder, lacking)
        return lacking is not None

    def lack_of(self, credit: float, peer: Connection, route: Hashable) -> str:
        """Owner: what to write into the log of why what has this credit finds no thread."""
        lacking = self._shortage(credit, self._holder(peer, route))
        return "a thread came too late" if lacking is None else self._explain(credit, lacking)

    def log_refusal(self, route: Hashable, reason: str) -> None:
        """Owner: log, once a second at most, that a request is refused for want of a thread."""
        self._refused.log(
            WARNING, "%s: a request is refused with 503, because %s", name_of(route), reason
        )

    def outlived(self, turns: Turns) -> None:
        """Owner: the client of this has left, and its user code has a thread.

        If that goes on for long, it is logged, and counted until it ends.
        """
        if turns not in self._outlived and turns not in self.orphans:
            if not self._outlived:
                self.at_next_tick(self._find_orphans)
            self._outlived[turns] = self.clock() + self.timing.overdue_after

    def _find_orphans(self) -> None:
        """Look which threads have outlived their clients for too long."""
        now = self.clock()
        for turns, due in tuple(self._outlived.items()):
            if due > now:
                break  # the others have ended their connections later
            del self._outlived[turns]
            if turns.state is not BUSY:
                continue  # it waits for its last turn
            self.orphans.add(turns)
            self._abandoned.log(
                WARNING,
                "%s: a handler still has its thread %g s after its client has left; what it waits "
                "for needs a time-out, or stream.get(queue), which ends with the client",
                name_of(turns.route),
                self.timing.overdue_after,
            )
        if self._outlived:
            self.at_next_tick(self._find_orphans)

    def wake_soon(self, news: SimpleQueue[None]) -> None:
        """Owner: have something put on this queue soon, where a thread of user code waits for it.

        Threads that wait for the GIL are not free: when many are woken at once, the system goes to
        and fro between them and the one that has it. So the loop wakes one in each of its rounds,
        and each that has got to run wakes the next, before it may block. All are woken where there
        is no GIL.
        """
        assert self.owned()
        self._wakes.append(news)

    def _run(self, tenure: Tenure) -> None:
        """Become the owner, and be it until the loop ends or a turn loses it.

        What is done for every read is written out here, where one call more would be measured.
        """
        self._owner = threading.get_ident()
        tenure.thread = threading.current_thread()
        if tenure.turns is not None:
            self.survive(self._take_over, tenure.turns)
        peer: Connection | None
        source: Any  # or the connection whose turn runs, to blame for an error
        poll, sources, queue, calls = self._poller.poll, self._ready, self._turns, self._calls
        wakes, asleep, monitor, token = self._wakes, self._asleep, self._monitor, tenure.token
        threads = self._threads
        myself = (self._waker.fileno(), 0)
        eager = 0
        while self._running or queue or calls or wakes:
            if wakes:
                self._wake_some()
            if queue or calls or wakes or eager:
                found = poll(0)
            else:
                # To announce sleep first and then look once more is what loses no wake-up.
                asleep.append(None)
                found = poll(0 if calls else self._patience())
                asleep.clear()
            eager = EMPTY_POLLS if found else eager - 1 if eager else 0
            if calls:
                for _ in range(min(len(calls), CALLS_A_ROUND)):
                    self.survive(calls.popleft())
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
                    turns = source.ready(events)
                    if turns is None:
                        if not queue:
                            continue
                        turns = self._next_queued()
                    if (turns.credit or threads.wary) and self._held_back(turns):
                        continue
                    work = turns.work
                    if work is None or len(work) > WORK_A_TURN:
                        work = turns.take()
                        if work is None:
                            continue
                    else:
                        turns.work = None
                    source = peer = turns.peer
                    tenure.turns = turns
                    peer.in_turn = True
                    token.append(work)
                    try:
                        turns.run(work)
                    except BaseException:  # whatever it is, the token must be taken back
                        log.exception("a defect in the server")
                    peer.in_turn = False
                    try:
                        token.pop()
                    except IndexError:
                        self.call_soon(partial(self._returned, turns))
                        return
                    peer.flush()
                    if turns.unsettled:
                        turns.settle()
                except Exception as error:
                    self.defect(error, source)
            # A loop that sleeps keeps nobody alive.
            source = peer = turns = work = tenure.turns = None
            if self._ticking:
                self._tick_if_due()
        self._close()

    def _held_back(self, turns: Turns) -> bool:
        """Whether a turn must not begin on the loop: it has got a thread, or waits for one."""
        if turns.state is ENDED:
            return True
        holder = self._holder(turns.peer, turns.route)
        if turns.credit:
            found = self._threads.engage_turn(holder, self._look_again)
            if isinstance(found, Worker):
                self.run_in(found, turns)
                return True
        lacking = self._shortage(turns.credit, holder)
        if lacking is None:
            return False
        turns.state = WAITING
        turns.hold()
        turns.peer.flush()
        self._await_thread(turns, holder, lacking)
        return True

    def _shortage(self, credit: float, holder: Holder) -> Shortage | None:
        """Why this must wait for a thread; None if it need not.

        What has blocked begins on the loop only if the system starts no thread for it: then the
        reserve is better than nothing.
        """
        if credit:
            lacking = self._threads.turn_shortage(holder, self._look_again)
            if lacking is not Shortage.SYSTEM:
                return lacking
        return self._threads.hand_off_shortage(holder, self._look_again)

    def _await_thread(self, waiter: Waiter, holder: Holder, lacking: Shortage) -> None:
        self.waiting.add(waiter, holder)
        reason = self._explain(waiter.credit, lacking)
        self._delayed.log(WARNING, "%s waits for a thread: %s", name_of(holder.route), reason)
        if not self._will_try_again:
            self._will_try_again = True
            self.at_next_tick(self._try_again)

    def _explain(self, credit: float, lacking: Shortage) -> str:
        quota = self._threads.turns if credit else self._threads.hand_offs
        return quota.explain(lacking)

    def _look_again(self) -> None:
        """Any thread: what waits for a thread may find one now."""
        self.call_soon(self._resume_next)

    def _resume_next(self) -> None:
        """Let the next one go on that finds a thread; what it does comes before another look."""
        waiter = self.waiting.next(lambda waiter, holder: self._shortage(waiter.credit, holder))
        if waiter is not None:
            self.survive(waiter.resume)  # whatever it raises ends its connection
            if self.waiting:
                self._look_again()

    def _try_again(self) -> None:
        """Look whether the system starts threads again: nobody tells when it does."""
        self._resume_next()
        self._will_try_again = bool(self.waiting)
        if self._will_try_again:
            self.at_next_tick(self._try_again)

    def _holder(self, peer: Connection, route: Hashable) -> Holder:
        return Holder(route, peer.network)

    def _take_over(self, stolen: Turns) -> None:
        """Let the turn that has lost the loop go on without it; the first act of a new owner."""
        self.steals += 1
        stolen.state = BUSY
        stolen.peer.in_turn = False
        habit = stolen.habit
        if habit.blocking is None and habit.has_blocked():
            for turns in self.unfinished:
                if turns.habit is habit:
                    turns.credit = max(turns.credit, ROUTE_PROBATION)
        log.debug("%s blocks; the loop goes on without it", stolen.path)
        stolen.peer.flush()

    def _returned(self, turns: Turns, quick: bool = False) -> None:
        """A turn without the loop is over."""
        turns.state = IDLE
        if turns.habit.blocking is None:
            turns.credit = turns.credit - 1 if quick else PROBATION
        try:
            turns.peer.flush()
            turns.settle()
        except Exception as error:
            self.defect(error, turns.peer)

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
                self.survive(function)
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
        for _ in range(1 if self._wakes_one else len(self._wakes)):
            self.wake_next()

    def _patience(self) -> float | None:
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

    def survive(self, function: Callable[..., Any], *arguments: object) -> None:
        """Owner: call this; what it raises ends the connection whose method it is, and no other."""
        try:
            function(*arguments)
        except Exception as error:
            self.defect(error, getattr(function, "__self__", None))

    def defect(self, error: Exception, source: object = None) -> None:
        """Owner: log what should not be; the connection whose fault it is ends."""
        log.error("a defect in the server", exc_info=error)
        source = getattr(source, "peer", source)  # of what is done for a connection
        abort: Callable[[], object] | None = getattr(source, "abort", None)
        if abort is not None:
            self.survive(abort)

    def ready(self, events: int) -> Turns | None:
        """Owner: somebody has woken the loop, or turns are queued."""
        if events:
            self._waker.drain()
        return self._next_queued() if self._turns else None

    def _next_queued(self) -> Turns:
        turns = self._turns.popleft()
        if turns.state is QUEUED:
            turns.state = IDLE
        return turns

    # A thread of its own ----------------------------------------------------------------------

    def _run_elsewhere(self, turns: Turns, work: list[Any]) -> None:
        """A turn's own thread: run it, and tell the owner."""
        begin = self._clock()
        try:
            turns.run(work)
        finally:
            quick = self._clock() - begin < self.timing.turn_slice
            self.call_soon(partial(self._returned, turns, quick))

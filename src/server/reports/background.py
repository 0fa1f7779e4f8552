"""A queue of jobs and one thread that does them: it runs the handlers of the log.

Handlers, filters and record factories are code of the application. They may block, hold locks of
their own, or publish to a topic and so wait for a loop. Therefore no other thread of the server
runs them: it puts a job into the queue, which neither waits nor calls anything.

Any code may put a job, also ``__del__`` and a signal handler that interrupts another ``put``. So
nothing here waits for a lock. The queue and the lists are those of the interpreter, whose
operations are atomic, and a list with one item is a token that one thread can take.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import repeat
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeAlias

from ..timing import Timing

# The queue holds 8 MiB in units of 1 KiB. A job takes one unit at least, so the number of jobs is
# bounded as well.
UNIT = 1024
CAPACITY = 8192

THREAD_NAME = "wsframe-log"

Job: TypeAlias = "Callable[[], object]"


class Tally:
    """A count that any thread may add to, also from ``__del__`` and from a signal handler."""

    def __init__(self) -> None:
        self._sum = 0
        self._new: deque[int] = deque()
        self._adding = threading.Lock()  # never waited for

    def add(self, number: int = 1) -> None:
        """Any thread: count so many more."""
        self._new.append(number)
        self._add_up()

    def total(self) -> int:
        """Any thread: the count."""
        self._add_up()
        return self._sum

    def _add_up(self) -> None:
        # Whoever finds the lock taken leaves its number to the thread that has it, or to the next.
        while self._new and self._adding.acquire(blocking=False):
            try:
                while self._new:
                    self._sum += self._new.popleft()
            finally:
                self._adding.release()


class Background:
    """A bounded queue of jobs, and the thread that does them in order, one at a time.

    The thread starts with the first job and ends at :meth:`close`; a later job starts another. A
    forked child begins with an empty queue, because its parent does what waited there.

    Args:
        tell_losses: called in the thread of the jobs when some have been dropped, with their number
            since the last call. The call stands in the queue where the first one was dropped.
        capacity: how many units of 1 KiB may wait.

    Attributes:
        lost: what has been dropped, and what others have counted as lost after it was taken.
    """

    def __init__(self, tell_losses: Callable[[int], object], capacity: int = CAPACITY) -> None:
        self._tell_losses = tell_losses
        self._capacity = capacity
        self._begin()

    def _begin(self) -> None:
        self.lost = Tally()
        self._dropped = Tally()
        self._told = 0  # of those dropped; the jobs' thread
        # With the units that each takes, and whether another job has put it.
        self._jobs: SimpleQueue[tuple[Job | threading.Event, int, bool]] = SimpleQueue()
        self._room: deque[None] = deque(repeat(None, self._capacity))  # an item for each free unit
        self._no_thread: list[None] = [None]  # a token: whoever takes it starts the thread
        self._no_loss: list[None] = [None]  # a token: whoever takes it has losses told
        self._thread: threading.Thread | None = None
        self._nested = False  # the job under way was put by another; the jobs' thread
        self._due: list[tuple[float, Job]] = []  # the jobs' thread
        self._over = False  # the interpreter exits
        self._stuck = False  # and what waited then could not be done

    # Any thread -------------------------------------------------------------------------------

    def put(self, job: Job, size: int) -> None:
        """Any thread: have the job done; it is dropped and counted if there is no room.

        A job may put another one. What that puts is dropped, because it would not end with a log
        handler that logs itself.

        While the interpreter exits there is no thread any more. The main thread does the job at
        once; what other threads put then is lost.

        Args:
            job: what to do; what it raises counts as a loss.
            size: the bytes that it holds.
        """
        if self._over:
            self._do_at_exit(job)
            return
        nested = self.running_here()
        if nested and self._nested:
            self.lost.add()
            return
        units = min(1 + size // UNIT, self._capacity)
        room, taken = self._room, 0
        try:
            while taken < units:
                room.pop()
                taken += 1
        except IndexError:
            room.extend(repeat(None, taken))
            self._drop()
            return
        self._queue(job, units, nested=nested)

    def later(self, seconds: float, job: Job) -> None:
        """Any thread: have the job done after so many seconds, or at :meth:`close`.

        The number of these jobs is not bounded here: each caller has one on its way at most.
        """
        if self._over:
            return
        due = monotonic() + seconds
        self._queue(lambda: self._due.append((due, job)), 0)

    def crowded(self, jobs: int) -> bool:
        """Any thread: whether at least so many jobs wait."""
        return self._jobs.qsize() >= jobs

    def running_here(self) -> bool:
        """Any thread: whether the calling thread is that of the jobs."""
        return self._thread is threading.current_thread()

    def flush(self, timeout: float) -> bool:
        """Any thread: wait until all is done that was put before; False if that takes longer."""
        if self._over or self.running_here() or (self._no_thread and self._jobs.empty()):
            return not self._stuck
        done = threading.Event()
        self._queue(done.set, 0)
        return done.wait(timeout)

    def close(self, timeout: float = Timing.log_flush_timeout) -> bool:
        """Any thread: :meth:`flush`, do what was to be done later, and end the thread.

        Returns:
            False if that takes longer. The thread then ends as soon as it can.
        """
        thread = self._thread
        if self._over or self.running_here() or (self._no_thread and self._jobs.empty()):
            return not self._stuck
        until = monotonic() + timeout
        end = threading.Event()
        self._queue(end, 0)
        if not end.wait(timeout):
            return False
        if thread is not None:
            thread.join(max(0.0, until - monotonic()))
        return True

    def close_at_exit(self) -> None:
        """The main thread: from now on there is no thread; registered with :mod:`atexit`."""
        closed = self.close()
        self._over = True
        if not closed and self._no_thread:  # the system has had none left for it
            self._jobs.put((threading.Event(), 0, False))
            self._work()
            closed = True
        self._stuck = not closed
        if self._stuck:
            # logging.shutdown would wait without end for the lock of a handler that has not come
            # back. CPython 3.14 and later run it at exit even if it is unregistered by now.
            logging._handlerList.clear()  # type: ignore[attr-defined]

    def after_fork(self) -> None:
        """A forked child, once: begin anew."""
        self._begin()

    def _queue(self, job: Job | threading.Event, units: int, *, nested: bool = False) -> None:
        self._jobs.put((job, units, nested))
        if self._no_thread:
            self._start_thread()

    def _start_thread(self) -> None:
        # With the token taken nobody else empties the queue. Before that another thread may have
        # done the jobs and ended; one that starts for an empty queue would wait without end.
        while not self._jobs.empty():
            try:
                self._no_thread.pop()
            except IndexError:
                return  # another thread was faster
            if self._jobs.empty():
                self._no_thread.append(None)
                continue  # somebody may have put a job, and found no token
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system has none left; the next job tries again
                self._thread = None
                self._no_thread.append(None)
            return

    def _drop(self) -> None:
        self.lost.add()
        self._dropped.add()
        try:
            self._no_loss.pop()
        except IndexError:
            return  # it is on its way already
        self._queue(self._report_losses, 0)

    def _do_at_exit(self, job: Job) -> None:
        # A handler that has not come back has its lock, which would be waited for without end. And
        # in other threads than the main one, loops may still run.
        if self._stuck or threading.current_thread() is not threading.main_thread():
            self.lost.add()
        else:
            self._do(job)

    # The jobs' thread -------------------------------------------------------------------------

    def _run(self) -> None:
        end = self._work()
        if end is None:
            return
        self._thread = None
        self._no_thread.append(None)
        self._start_thread()  # for what came meanwhile, and found the thread still there
        end.set()

    def _work(self) -> threading.Event | None:
        """Do the jobs until one is the event that ends the thread.

        None is returned in a child that a job has forked and that has returned from it. The jobs
        that wait are the parent's, and so is what comes after them.
        """
        jobs = self._jobs
        while jobs is self._jobs:
            try:
                job, units, self._nested = self._jobs.get(timeout=self._patience())
            except Empty:
                self._nested = False
                self._do_due(monotonic())
                continue
            if isinstance(job, threading.Event):
                if not self._due:
                    return job
                self._do_due(sys.maxsize)
                self._jobs.put((job, 0, False))  # behind what that has put
                continue
            self._do(job)
            del job  # an idle thread keeps no record alive
            if jobs is self._jobs:
                self._room.extend(repeat(None, units))
        return None

    def _do(self, job: Job) -> None:
        try:
            job()
        except BaseException:  # SystemExit, too, would end the thread
            self.lost.add()

    def _patience(self) -> float | None:
        """How long to wait for a job, in seconds."""
        if not self._due:
            return None
        return max(0.0, min(due for due, _ in self._due) - monotonic())

    def _do_due(self, now: float) -> None:
        due, self._due = self._due, []
        for moment, job in due:
            if moment <= now:
                self._do(job)
            else:
                self._due.append((moment, job))

    def _report_losses(self) -> None:
        self._no_loss.append(None)
        total = self._dropped.total()
        if total != self._told:
            number, self._told = total - self._told, total
            self._tell_losses(number)


def register(background: Background) -> None:
    """The main thread, once: have it survive forks, and flushed at exit."""
    atexit.register(background.close_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=background.after_fork)

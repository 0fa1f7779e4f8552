"""A queue of jobs, and the thread that runs them; the log uses it for its handlers.

Handlers, filters and record factories belong to the application. They may block, hold locks, or
publish to a topic and so wait for a loop. Therefore only this thread runs them. Other threads put
jobs into the queue, which neither blocks nor calls other code.

Any code may put a job, even ``__del__`` and a signal handler that interrupts another ``put``. So no
code in this module waits for a lock. The operations of the built-in queue and lists are atomic. A
list with one item is a token that only one thread can take.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import repeat
from queue import Empty
from time import monotonic
from typing import TypeAlias

from ..timing import Timing

# The queue holds 8 MiB in units of 1 KiB. A job takes at least one unit, so the number of jobs is
# bounded as well.
UNIT = 1024
CAPACITY = 8192

THREAD_NAME = "wsframe-log"

Job: TypeAlias = "Callable[[], object]"


class AtomicCounter:
    """A counter for any thread, which ``__del__`` and signal handlers may use, too."""

    def __init__(self) -> None:
        self._sum = 0
        self._new: deque[int] = deque()
        self._adding = threading.Lock()  # only acquired without waiting

    def add(self, number: int = 1) -> None:
        """Any thread: add a number."""
        self._new.append(number)
        self._add_up()

    def total(self) -> int:
        """Any thread: return the sum."""
        self._add_up()
        return self._sum

    def _add_up(self) -> None:
        # If another thread holds the lock, that thread or the next call adds the number.
        while self._new and self._adding.acquire(blocking=False):
            try:
                while self._new:
                    self._sum += self._new.popleft()
            finally:
                self._adding.release()


class Background:
    """A bounded queue of jobs, and the thread that runs them in order, one at a time.

    The thread starts with the first job and ends at :meth:`close`; a later job starts another. A
    forked child begins with an empty queue, because its parent runs the jobs that wait.

    Args:
        report_losses: a function that the background thread calls after jobs were dropped, with
            their number since the last call. The call is queued in place of the first dropped job.
        capacity: the number of units of 1 KiB that may wait.

    Attributes:
        lost: the number of dropped and failed jobs; other code may add to it.
    """

    def __init__(self, report_losses: Callable[[int], object], capacity: int = CAPACITY) -> None:
        self._report_losses = report_losses
        self._capacity = capacity
        self._begin()

    def _begin(self) -> None:
        self.lost: AtomicCounter = AtomicCounter()
        self._dropped = AtomicCounter()
        # The number of dropped jobs that were reported; only the background thread uses it.
        self._reported = 0
        # Each item is a job, its number of units, and True if another job has queued it. The class
        # is looked up now, because gevent may have replaced it since the import.
        self._jobs: queue.SimpleQueue[tuple[Job | threading.Event, int, bool]] = queue.SimpleQueue()
        # Contains one item for each free unit.
        self._room: deque[None] = deque(repeat(None, self._capacity))
        self._thread_token: list[None] = [None]  # the holder of this token starts the thread
        # The holder of this token queues the report of losses.
        self._loss_token: list[None] = [None]
        self._thread: threading.Thread | None = None
        self._nested = False  # True if another job has queued the running job
        self._delayed: list[tuple[float, Job]] = []  # only the background thread uses this list
        self._exiting = False  # True once the interpreter exits
        self._stuck = False  # True if the interpreter exits and the thread is blocked

    # Any thread -------------------------------------------------------------------------------

    def put(self, job: Job, size: int) -> None:
        """Any thread: queue a job; drop and count it if the queue is full.

        A job may put another one. Jobs that the second one puts are dropped, because a log handler
        that logs would never end.

        While the interpreter exits there is no thread. The main thread then runs the job at once,
        and jobs of other threads are lost.

        Args:
            job: a function without arguments; an exception counts as a loss.
            size: the memory that the job holds, in bytes.
        """
        if self._exiting:
            self._run_at_exit(job)
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

    def call_later(self, seconds: float, job: Job) -> None:
        """Any thread: run a job after a number of seconds, or at :meth:`close`.

        While the interpreter exits, this is the same as :meth:`put`. The number of these jobs is
        not limited here: each caller has at most one pending.
        """
        if self._exiting:
            self._run_at_exit(job)
            return
        due = monotonic() + seconds
        self._queue(lambda: self._delayed.append((due, job)), 0)

    def has_backlog(self, jobs: int) -> bool:
        """Any thread: return True if at least ``number`` jobs wait."""
        return self._jobs.qsize() >= jobs

    def running_here(self) -> bool:
        """Any thread: return True in the background thread."""
        return self._thread is threading.current_thread()

    def flush(self, timeout: float) -> bool:
        """Any thread: wait for all jobs that were put before; return False on a time-out."""
        if self._exiting or self.running_here() or (self._thread_token and self._jobs.empty()):
            return not self._stuck
        done = threading.Event()
        self._queue(done.set, 0)
        return done.wait(timeout)

    def close(self, timeout: float = Timing.log_flush_timeout) -> bool:
        """Any thread: wait for all jobs, run the delayed jobs, and end the thread.

        Returns:
            False on a time-out. The thread then ends as soon as it can.
        """
        thread = self._thread
        if self._exiting or self.running_here() or (self._thread_token and self._jobs.empty()):
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
        """The main thread: close for good; registered with :mod:`atexit`."""
        closed = self.close()
        self._exiting = True
        if not closed and self._thread_token:  # the system could not start the thread
            self._jobs.put((threading.Event(), 0, False))
            self._work()
            closed = True
        self._stuck = not closed
        if self._stuck:
            # logging.shutdown would wait forever for the lock of the blocked handler. CPython 3.14
            # and later run it at exit even after it was unregistered.
            logging._handlerList.clear()  # type: ignore[attr-defined]

    def after_fork(self) -> None:
        """A forked child, once: begin with an empty queue."""
        self._begin()

    def _queue(self, job: Job | threading.Event, units: int, *, nested: bool = False) -> None:
        self._jobs.put((job, units, nested))
        if self._thread_token:
            self._start_thread()

    def _start_thread(self) -> None:
        # While the token is taken, no other thread empties the queue. Before, another thread may
        # have run the jobs and ended, and a thread that starts with an empty queue never ends.
        while not self._jobs.empty():
            try:
                self._thread_token.pop()
            except IndexError:
                return  # another thread has taken the token
            if self._jobs.empty():
                self._thread_token.append(None)
                continue  # another thread may have put a job and found no token
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system cannot start a thread; the next put() tries again
                self._thread = None
                self._thread_token.append(None)
            return

    def _drop(self) -> None:
        self.lost.add()
        self._dropped.add()
        try:
            self._loss_token.pop()
        except IndexError:
            return  # the report is already queued
        self._queue(self._report_dropped, 0)

    def _run_at_exit(self, job: Job) -> None:
        # A blocked handler holds its lock, so a wait for it would never end. Another thread may be
        # a loop that still runs.
        if self._stuck or threading.current_thread() is not threading.main_thread():
            self.lost.add()
        else:
            self._run_job(job)

    # The background thread ----------------------------------------------------------------

    def _run(self) -> None:
        end = self._work()
        if end is None:
            return
        self._thread = None
        self._thread_token.append(None)
        self._start_thread()  # jobs may have been put while this thread was ending
        end.set()

    def _work(self) -> threading.Event | None:
        """Run jobs until one is the event that ends the thread; return the event.

        Return None in a forked child of a job: the waiting jobs belong to the parent.
        """
        jobs = self._jobs
        while jobs is self._jobs:
            try:
                job, units, self._nested = self._jobs.get(timeout=self._time_to_delayed())
            except Empty:
                self._nested = False
                self._run_delayed(monotonic())
                continue
            if isinstance(job, threading.Event):
                if not self._delayed:
                    return job
                self._run_delayed(sys.maxsize)
                # The end follows jobs that the delayed jobs have queued.
                self._jobs.put((job, 0, False))
                continue
            self._run_job(job)
            del job  # an idle thread must not keep a record alive
            if jobs is self._jobs:
                self._room.extend(repeat(None, units))
        return None

    def _run_job(self, job: Job) -> None:
        try:
            job()
        except BaseException:  # even a SystemExit must not end the thread
            self.lost.add()

    def _time_to_delayed(self) -> float | None:
        """Return the seconds until a delayed job is due; None without such jobs."""
        if not self._delayed:
            return None
        return max(0.0, min(due for due, _ in self._delayed) - monotonic())

    def _run_delayed(self, now: float) -> None:
        due, self._delayed = self._delayed, []
        for moment, job in due:
            if moment <= now:
                self._run_job(job)
            else:
                self._delayed.append((moment, job))

    def _report_dropped(self) -> None:
        self._loss_token.append(None)
        total = self._dropped.total()
        if total != self._reported:
            number, self._reported = total - self._reported, total
            self._report_losses(number)


def register(background: Background) -> None:
    """The main thread, once: register the queue's functions for forks and for the exit."""
    atexit.register(background.close_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=background.after_fork)

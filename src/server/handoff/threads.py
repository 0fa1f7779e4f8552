"""The threads of a server: they run its loops, and the handlers that block."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeAlias

from ..reports.loggers import log

# Threads past the limit that only loops may take, so that more than the limit's handlers must
# block to stop one.
RESERVE = 8
IDLE_NAME, LOOP_NAME, HANDLER_NAME = "wsframe-idle", "wsframe-loop", "wsframe-handler"

Task: TypeAlias = "tuple[str, Callable[[], object]]"


def stack_of(identifier: int | None) -> str:
    """Any thread: what a thread is doing; "" if it has ended."""
    frame = sys._current_frames().get(identifier or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def has_gil() -> bool:
    """Any thread: whether only one of them runs Python at a time."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


class Worker:
    """One thread, which runs what it is given, again and again.

    Attributes:
        given: what to run, with a name for it; None dismisses the worker.
    """

    def __init__(self, threads: Threads) -> None:
        self.given: SimpleQueue[Task | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=IDLE_NAME, daemon=True)
        self._threads = threads

    def _run(self) -> None:
        while True:
            try:
                task = self.given.get(timeout=self._threads.idle_time)
            except Empty:
                if self._threads.retire(self):
                    return
                continue  # a task is on its way
            if task is None:
                return
            while task is not None:
                (self.thread.name, function), task = task, None
                try:
                    function()
                except BaseException:
                    log.exception("a defect in the server")
                del function  # an idle thread keeps nobody alive, and is one in the next line
                task = self._threads.next_task(self)
            self.thread.name = IDLE_NAME


class Threads:
    """All threads of a server but its monitor and its feeds; every method is for any thread.

    Args:
        limit: how many handlers may have a thread at once; past it they wait for one.
        idle_time: how long a thread without work waits for some, in seconds, before it ends.
    """

    def __init__(self, limit: int, idle_time: float) -> None:
        self.idle_time = idle_time
        self._limit = limit
        self._lock = threading.Lock()  # for all that follows
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []  # the last one first, so that the others can retire
        self._waiting: deque[Task] = deque()
        self._loops = 0
        self._closed = False

    def run(self, name: str, function: Callable[[], object]) -> bool:
        """Call the function in a thread, as soon as one of the limit is free.

        Returns:
            False if there is no thread at all, not even one that will be free.
        """
        with self._lock:
            worker = self._take_worker() if self._busy < self._limit else None
            if worker is not None:
                worker.given.put((name, function))
                return True
            busy = self._busy
            if not busy:
                return False
            first = not self._waiting
            self._waiting.append((name, function))
        if first:
            log.warning("%s waits for a thread: %d have one", name, busy)
        return True

    def start_loop(self, function: Callable[[], object]) -> None:
        """Give a loop its first thread.

        Raises:
            RuntimeError: the system has none left.
        """
        with self._lock:
            worker = self._take_worker()
            if worker is None:
                raise RuntimeError("the system has no thread left for a loop")
            self._loops += 1
        worker.given.put((LOOP_NAME, function))

    def loop_ended(self) -> None:
        """Count what its thread does next as a handler."""
        with self._lock:
            self._loops -= 1

    def reserve(self) -> Worker | None:
        """Take a thread for a loop whose thread is blocked; None if there is none left."""
        with self._lock:
            return self._take_worker() if self._busy < self._limit + RESERVE else None

    def give_back(self, worker: Worker) -> None:
        """Undo :meth:`reserve`."""
        task = self.next_task(worker)
        if task is not None:
            worker.given.put(task)

    def next_task(self, worker: Worker) -> Task | None:
        """What a worker is to do next; None puts it among the idle ones."""
        with self._lock:
            if self._waiting and self._busy <= self._limit:
                return self._waiting.popleft()
            if self._closed:
                worker.given.put(None)
            self._idle.append(worker)
            return None

    def retire(self, worker: Worker) -> bool:
        """Whether a worker may end, for nobody has need of it."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._workers.discard(worker)
            return True

    def running_here(self) -> bool:
        """Whether the calling thread is one of these."""
        current = threading.current_thread()
        with self._lock:
            return any(worker.thread is current for worker in self._workers)

    def counts(self) -> tuple[int, int, int]:
        """How many threads there are, how many of them run handlers, and how many tasks wait."""
        with self._lock:
            return len(self._workers), self._busy, len(self._waiting)

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
                worker.given.put(None)
        for worker in workers:
            worker.thread.join(max(0.0, deadline - monotonic()))
        for thread in (worker.thread for worker in workers if worker.thread.is_alive()):
            stack = stack_of(thread.ident)
            log.error("%s has not ended and is left behind", thread.name, extra={"stack": stack})

    @property
    def _busy(self) -> int:
        """Under the lock: how many run handlers."""
        return len(self._workers) - len(self._idle) - self._loops

    def _take_worker(self) -> Worker | None:
        if self._idle:
            return self._idle.pop()
        worker = Worker(self)
        try:
            worker.thread.start()
        except RuntimeError:
            return None
        self._workers.add(worker)
        return worker

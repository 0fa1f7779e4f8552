"""Workers: processes that serve one port together, and their parent, which looks after them.

The parent has one thread, no loop and no connection. It forks before there is anything that a fork
would break, and each worker then makes its own. A worker is told to stop by SIGTERM alone: Ctrl-C
reaches every process of a terminal, so that it leaves SIGINT to its parent; nor does a second
SIGTERM mean anything to it, since a service manager may send one to each process and the parent
passes on its own. Only the parent forces an end, and it does so by SIGKILL.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from .reports import output
from .reports.loggers import background, log
from .signals import STOP_SIGNALS, Interrupted, Signals
from .sockets.goodbye import SPREAD

if TYPE_CHECKING:
    from .server import Server


# A worker that has lived for less than this, in seconds, is replaced after a pause, which doubles.
SHORT_LIFE = 1.0
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
# How often in a row a worker may end before it serves, until there is no hope.
MAX_FAILURES = 5
# How long past drain a worker may take to end before it is killed, in seconds.
GRACE = 5.0

UP = b"up"  # what a worker says when it serves; anything else is why it cannot


class Worker:
    """A worker, as its parent sees it.

    Attributes:
        pid: the number of its process.
        pipe: where it says that it serves, or why it cannot; -1 when it has.
        said: what it has said.
        born: when it was forked, on the monotonic clock.
    """

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self.said = b""
        self.born = monotonic()

    @property
    def up(self) -> bool:
        """The parent: whether it serves, or did before it ended."""
        return self.said == UP

    def listen(self) -> None:
        """The parent: take what it has said by now."""
        if self.pipe < 0:
            return
        with suppress(BlockingIOError):
            while part := os.read(self.pipe, 1 << 16):
                self.said += part
            self.close()

    def close(self) -> None:
        """The parent: listen no more."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


class Supervisor:
    """The parent; all its methods are for the main thread, in which Python runs signal handlers.

    Args:
        count: how many workers.
        drain: how long they take to stop, in seconds.
        signals: those that ask for the end, and SIGCHLD; entered.
        start: called in every worker with a context manager for the application's code, which a
            stop signal ends; returns the server that runs in the worker.
        serving: called when all serve, the first time.
        stopping: called when a signal has asked for the end.

    Attributes:
        failure: why it gave up; "" if it did not.
    """

    def __init__(
        self,
        count: int,
        drain: float,
        signals: Signals,
        start: Callable[[Callable[[], AbstractContextManager[None]]], Server],
        serving: Callable[[], object],
        stopping: Callable[[], object],
    ) -> None:
        self.failure = ""
        self._count = count
        self._drain = drain
        self._start = start
        self._serving = serving
        self._stopping = stopping
        self._workers: list[Worker] = []
        self._due = [0.0] * count  # when to fork those that are missing
        self._kill_at: float | None = None  # what has not ended then; set when it stops
        self._exit_code = 0
        self._served = self._announced = False  # one worker did; all did
        self._failures = 0  # in a row
        self._pause = 0.0  # before the last one was forked that replaces another
        self._last_reason = ""  # of a failure
        self._signals = signals
        self._heeded = 0  # of them
        self._alive, self._life = -1, -1  # a pipe that nobody writes: its end is the parent's

    def run(self) -> int:
        """The parent: look after the workers until all have ended; the exit code."""
        self._alive, self._life = os.pipe()
        try:
            self._look_after_workers()
        finally:
            self._kill_all()
            os.close(self._alive)
            os.close(self._life)
        return self._exit_code

    def _look_after_workers(self) -> None:
        while self._workers or self._kill_at is None:
            self._wait()
            self._heed_signals()
            for worker in tuple(self._workers):
                if worker in self._workers:  # the end of one may be the end of all
                    self._look_at(worker)
            while self._kill_at is None and self._due and min(self._due) <= monotonic():
                self._due.remove(min(self._due))
                self._fork()

    def _wait(self) -> None:
        """Wait for a signal, for the word of a worker, or until something is due."""
        poller = select.poll()
        poller.register(self._signals, select.POLLIN)
        for worker in self._workers:
            if worker.pipe >= 0:
                poller.register(worker.pipe, select.POLLIN)
        until = min(self._due, default=None) if self._kill_at is None else self._kill_at
        poller.poll(None if until is None else max(0.0, until - monotonic()) * 1000)
        self._signals.wake()
        self._signals.wait()

    def _heed_signals(self) -> None:
        while self._heeded < self._signals.count:
            self._heeded += 1
            if self._heeded == 1:
                self._stop()
                self._stopping()
            else:
                self._exit_code = 1
                self._kill_all()
        if self._kill_at is not None and self._kill_at <= monotonic():
            log.error("%d workers have not ended and are killed", len(self._workers))
            self._exit_code = 1
            self._kill_all()

    def _stop(self) -> None:
        if self._kill_at is None:
            self._kill_at = monotonic() + self._drain + GRACE
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGTERM)

    def _kill_all(self) -> None:
        while self._workers:
            worker = self._workers.pop()
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.close()

    def _look_at(self, worker: Worker) -> None:
        was_up = worker.up
        worker.listen()
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if pid:
            worker.listen()  # its last words
            worker.close()
            self._workers.remove(worker)
        if worker.up and not was_up:
            self._served = True
            self._failures = 0
            if not self._announced and sum(each.up for each in self._workers) == self._count:
                self._announced = True
                self._serving()
        if pid:
            self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        if self._kill_at is not None:
            if code:
                log.error("worker %d did not stop as it was told: %s", worker.pid, how)
                self._exit_code = 1
            return
        if worker.up:
            log.error("worker %d has ended and is replaced: %s", worker.pid, how)
        elif worker.said and not self._served:
            self._give_up(worker.said.decode())  # nor could the others
            return
        else:
            self._failed(worker.said.decode() or f"worker {worker.pid} has ended: {how}")
        self._replace(short=monotonic() - worker.born < SHORT_LIFE)

    def _failed(self, reason: str) -> None:
        """Count a worker that has ended before it served, or was not even forked."""
        if reason != self._last_reason:
            self._last_reason = reason
            lines = reason.splitlines()
            above = {"stack": "\n".join(lines[:-1])} if len(lines) > 1 else None  # of a traceback
            log.error("a worker cannot start: %s", lines[-1], extra=above)
        self._failures += 1
        if self._failures == MAX_FAILURES:
            self._give_up(f"no worker could be started, {MAX_FAILURES} times in a row")

    def _give_up(self, why: str) -> None:
        self.failure = why
        self._exit_code = 1
        self._stop()
        if not self._served:
            self._kill_all()  # there is nobody to say goodbye to

    def _replace(self, *, short: bool) -> None:
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE) if short else 0.0
        self._due.append(monotonic() + self._pause)

    def _fork(self) -> None:
        output.flush()  # or else the worker would print it, too
        background.close()  # a process that forks had better have one thread
        # A signal that comes before the worker has its own handlers waits for them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pipe = said = -1
        try:
            pipe, said = os.pipe()
            os.set_blocking(pipe, False)
            pid = os.fork()
            if not pid:
                self._work(pipe, said, mask)
            self._workers.append(Worker(pid, pipe))
        except OSError as error:
            if pipe >= 0:
                os.close(pipe)
            self._failed(f"{error.strerror}")
            self._replace(short=True)
        finally:
            if said >= 0:
                os.close(said)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _work(self, pipe: int, said: int, mask: set[int | signal.Signals]) -> NoReturn:
        """A new worker: all of its life. What its parent would do at the end, it leaves alone."""
        code = 1
        try:
            try:
                os.close(self._life)
                os.close(pipe)
                for worker in self._workers:
                    worker.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                atexit._clear()
                atexit.register(logging.shutdown)
                atexit.register(background.close_at_exit)  # before that
                # Ctrl-C is not ignored by SIG_IGN: programs that are started would inherit that.
                with Signals(signal.SIGTERM, others=(signal.SIGINT,)) as signals:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                    code = self._serve(said, signals)
                    atexit._run_exitfuncs()
            except BaseException:
                code = 1
                log.exception("worker %d has failed", os.getpid())
                background.close()
            output.settle()
        finally:
            os._exit(code)

    def _serve(self, said: int, signals: Signals) -> int:
        """A worker: start, serve until it is told to stop or has no parent any more, and stop."""
        with open(said, "wb") as pipe:
            try:
                server = self._start(signals.interrupting)
            except Interrupted:
                return 0
            except BaseException as error:  # SystemExit, too
                words = str(error) if isinstance(error, SystemExit) else traceback.format_exc()
                pipe.write(words.strip().encode(errors="replace") or b"SystemExit")
                return 1
            pipe.write(UP)

        orphaned = threading.Event()

        def wait_for_parent() -> None:
            os.read(self._alive, 1)
            orphaned.set()
            signals.wake()

        threading.Thread(target=wait_for_parent, name="wsframe-parent", daemon=True).start()
        while not (signals.count or orphaned.is_set()):
            signals.wait()
        server.stop(spread=SPREAD * self._drain)
        return 0

"""The supervisor: the parent process, which starts, checks, replaces and stops the workers.

The supervisor has one thread, no loop and no connection. It forks before it has anything that a
fork would break, and each worker then creates its own.

Only SIGTERM stops a worker. Ctrl-C reaches every process of a terminal, so a worker leaves SIGINT
to its parent. A second SIGTERM has no effect on it, because a service manager may send one to each
process and the parent sends its own. Only the parent forces an end, with SIGKILL.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from io import BufferedRandom
from math import inf
from tempfile import TemporaryFile
from time import monotonic
from typing import NoReturn

from ..forks import close_in_children
from ..reports import output
from ..reports.loggers import background, log
from ..signals import STOP_SIGNALS, Signals
from ..timing import Timing
from .channel import Channel, channel_pair, decode_stats
from .collector import Collector
from .process import WorkerProcess
from .worker import DUMP_SIGNAL, StartWorker, child_processes, run_exit_functions, serve

# Give up after this number of failed starts in a row.
MAX_FAILURES = 5


class Supervisor:
    """The parent of the workers. All methods are for the main thread, which runs signal handlers.

    Args:
        count: number of workers.
        drain: seconds that they have to stop.
        signals: the entered stop signals and SIGCHLD.
        start: called in every worker; starts its server.
        timeout: seconds without progress after which a worker is replaced; 0 for no limit.
        on_serving: called once, when all workers serve.
        on_stopping: called on the first stop signal.

    Attributes:
        failure: the reason for giving up, or "".
    """

    def __init__(
        self,
        count: int,
        drain: float,
        signals: Signals,
        start: StartWorker,
        timeout: float,
        on_serving: Callable[[], object],
        on_stopping: Callable[[], object],
    ) -> None:
        self.failure = ""
        self._count = count
        self._drain = drain
        self._start = start
        self._timeout = timeout
        self._on_serving = on_serving
        self._on_stopping = on_stopping
        self._workers: list[WorkerProcess] = []
        self._fork_at = [0.0] * count  # one time for each missing worker
        self._kill_at: float | None = None  # set when the supervisor stops
        self._exit_code = 0
        self._any_started = self._all_started = False
        self._failures = 0  # failed starts in a row
        self._pause = 0.0  # seconds before the latest replacement
        self._last_reason = ""  # the reason of the last failed start
        self._signals = signals
        self._signals_handled = 0
        self._collector = Collector(monotonic, Timing.stats_timeout)

    def run(self) -> int:
        """Supervise the workers until all have ended; return the exit code."""
        try:
            self._supervise()
        finally:
            self._kill_all()
        return self._exit_code

    def _supervise(self) -> None:
        while self._workers or self._kill_at is None:
            self._wait()
            self._handle_signals()
            for worker in tuple(self._workers):
                if worker in self._workers:  # the check of another worker may have removed it
                    self._check(worker)
            self._collector.check()
            while self._kill_at is None and self._fork_at and min(self._fork_at) <= monotonic():
                self._fork_at.remove(min(self._fork_at))
                self._fork()

    def _wait(self) -> None:
        """Wait for a signal, for a message of a worker, or until something is due."""
        poller = select.poll()
        poller.register(self._signals, select.POLLIN)
        for worker in self._workers:
            if not worker.channel.closed:
                writing = select.POLLOUT if worker.channel.has_unsent else 0
                poller.register(worker.channel, select.POLLIN | writing)
        until = min(self._times_due(), default=inf)
        poller.poll(None if until == inf else max(0.0, until - monotonic()) * 1000)
        self._signals.wake()
        self._signals.wait()

    def _times_due(self) -> list[float]:
        if self._kill_at is not None:
            return [self._kill_at, self._collector.due]
        return [self._collector.due, *self._fork_at, *(worker.due for worker in self._workers)]

    def _handle_signals(self) -> None:
        while self._signals_handled < self._signals.count:
            self._signals_handled += 1
            if self._signals_handled == 1:
                self._stop()
                self._on_stopping()
            else:
                self._exit_code = 1
                self._kill_all()
        if self._kill_at is not None and self._kill_at <= monotonic():
            log.error(
                "killing %d workers that did not stop within %g s (drain=%g)",
                len(self._workers),
                self._drain + Timing.worker_grace,
                self._drain,
            )
            self._exit_code = 1
            self._kill_all()

    def _stop(self) -> None:
        if self._kill_at is None:
            self._kill_at = monotonic() + self._drain + Timing.worker_grace
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGTERM)

    def _kill_all(self) -> None:
        while self._workers:
            worker = self._workers.pop()
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.close()

    def _check(self, worker: WorkerProcess) -> None:
        worker.channel.flush()
        self._receive_from(worker)
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if pid:
            self._receive_from(worker)  # messages that it sent just before its end
            self._workers.remove(worker)
            if worker.started:
                self._collector.remove(worker.participant)
            self._ended(worker, os.waitstatus_to_exitcode(status))
            worker.close()
        elif worker.hung:
            if worker.kill_at <= monotonic():
                os.kill(worker.pid, signal.SIGKILL)
                worker.kill_at = inf
        elif worker.started and self._kill_at is None and worker.watchdog.check():
            worker.hung = True
            worker.kill_at = monotonic() + Timing.stack_dump_timeout
            os.kill(worker.pid, DUMP_SIGNAL)

    def _receive_from(self, worker: WorkerProcess) -> None:
        for kind, content in worker.channel.receive_all():
            if kind == "started":
                self._started(worker)
            elif kind == "failed":
                worker.reason = content
            elif kind == "alive":
                worker.watchdog.answered()
            elif kind == "request":
                self._collector.request(worker.participant)
            else:
                self._collector.receive(worker.participant, decode_stats(content))

    def _started(self, worker: WorkerProcess) -> None:
        worker.started = True
        self._collector.add(worker.participant)
        self._any_started = True
        self._failures = 0
        if not self._all_started and sum(each.started for each in self._workers) == self._count:
            self._all_started = True
            self._on_serving()

    def _ended(self, worker: WorkerProcess, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        if self._kill_at is not None:
            if code:
                log.error("worker %d did not shut down cleanly: %s", worker.pid, how)
                self._exit_code = 1
            return
        if worker.hung:
            log.error(
                "replacing worker %d: its I/O loops made no progress for %g s (worker_timeout)",
                worker.pid,
                self._timeout,
                extra={"stack": worker.read_stacks() or "The worker did not write its stacks."},
            )
        elif worker.started:
            log.error("replacing worker %d, which ended unexpectedly: %s", worker.pid, how)
        elif worker.reason and not self._any_started:
            self._give_up(worker.reason)  # the others would fail for the same reason
            return
        else:
            self._failed(worker.reason or f"worker {worker.pid} ended: {how}")
        self._collector.replaced += worker.started
        self._replace(short=monotonic() - worker.forked_at < Timing.worker_min_lifetime)

    def _failed(self, reason: str) -> None:
        """Count a worker that has ended before it served, or could not be forked."""
        if reason != self._last_reason:
            self._last_reason = reason
            lines = reason.splitlines()
            above = {"stack": "\n".join(lines[:-1])} if len(lines) > 1 else None  # a traceback
            log.error("a worker failed to start: %s", lines[-1], extra=above)
        self._failures += 1
        if self._failures == MAX_FAILURES:
            self._give_up(f"giving up: {MAX_FAILURES} workers in a row failed to start")

    def _give_up(self, reason: str) -> None:
        self.failure = reason
        self._exit_code = 1
        self._stop()
        if not self._any_started:
            self._kill_all()  # no worker has clients

    def _replace(self, *, short: bool) -> None:
        pause = min(max(2 * self._pause, Timing.restart_min_backoff), Timing.restart_max_backoff)
        self._pause = pause if short else 0.0
        self._fork_at.append(monotonic() + self._pause)

    def _fork(self) -> None:
        output.flush()  # otherwise the worker would print the same text again
        background.close()  # a process should fork while it has a single thread
        # Signals are held back until the worker has its own handlers.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        stacks, ours, theirs = None, None, None
        try:
            if self._timeout:
                stacks = _file_for_stacks()
            ours, theirs = channel_pair()
            close_in_children(ours)
            pid = os.fork() or self._run_worker(theirs, stacks, mask)  # which never returns
            if stacks is not None:
                close_in_children(stacks)
            self._workers.append(WorkerProcess(pid, ours, stacks, self._timeout))
        except OSError as error:
            for file in (ours, stacks):
                if file is not None:
                    file.close()
            self._failed(f"{error.strerror}")
            self._replace(short=True)
        finally:
            if theirs is not None:
                theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _run_worker(
        self, channel: Channel, stacks: BufferedRandom | None, mask: set[int | signal.Signals]
    ) -> NoReturn:
        """A new worker: serve, then exit without the exit functions of the parent."""
        code = 1
        try:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                atexit._clear()
                atexit.register(logging.shutdown)
                atexit.register(background.close_at_exit)  # runs before logging.shutdown
                # SIG_IGN would be inherited by programs that the worker starts, so Ctrl-C is
                # handled, without effect. The handlers remain until the process ends, because a
                # later signal must not change its exit code.
                signals = Signals(signal.SIGTERM, others=(signal.SIGINT,)).__enter__()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                children = child_processes()
                code = serve(channel, stacks, signals, self._start, self._drain)
                run_exit_functions(children)
            except BaseException:
                code = 1
                log.exception("worker %d failed", os.getpid())
                background.close()
            output.flush_at_exit()
        finally:
            os._exit(code)


def _file_for_stacks() -> BufferedRandom | None:
    """Return an unnamed file; None if the system has no place for one, such as a read-only disk."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            return open(os.memfd_create("stacks"), "w+b")
    with suppress(OSError):
        return TemporaryFile()
    return None

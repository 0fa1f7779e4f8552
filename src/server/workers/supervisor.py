"""The supervisor: the parent process, which starts, checks, replaces and stops the workers.

The supervisor has one thread, no loop and no connection. So a fork is safe, and each worker creates
its own threads and loops.

A worker stops at SIGTERM, when its successor serves, and when its terminal is closed. Ctrl-C
reaches every process of a terminal, so a worker leaves SIGINT to its parent. A second SIGTERM has
no effect on a worker, because a service manager may signal each process, and the parent does, too.
Only the parent forces an end, with SIGKILL.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from io import BufferedRandom
from math import inf
from tempfile import TemporaryFile
from time import monotonic
from typing import NoReturn

from ..forks import close_in_children, passed_to_child
from ..reports import output
from ..reports.failure import Failure
from ..reports.loggers import background, log
from ..reports.throttled import ThrottledLog
from ..settings import Settings
from ..signals import HANGUP, HELD_BACK, Signals
from ..sockets.listening import Listening
from ..status import Status
from ..timing import LONGEST_POLL, Timing
from .channel import Channel, channel_pair, decode_stats
from .collector import Collector
from .process import WorkerProcess
from .reload import Reload, log_failed_start
from .worker import DUMP_SIGNAL, StartWorker, child_processes, run_exit_functions, serve

# The number of successive failed starts after which the supervisor gives up.
MAX_FAILURES = 5


class Supervisor:
    """The parent of the workers. Only the main thread calls the methods.

    A SIGHUP replaces all workers, one after another; see :class:`Reload`.

    Args:
        listening: the listening sockets of each worker.
        settings: the settings of the servers.
        signals: the entered stop signals, SIGCHLD and SIGHUP.
        start: a function that is called in each worker and starts its server.
        renew: a function that is called on SIGHUP, before the workers are replaced; it returns the
            parts of the old state that remain in use, and why.
        on_serving: a function that is called once, when all workers serve.
        status: the object that reports the states of the service.

    Attributes:
        failure: the reason for giving up, or None.
    """

    def __init__(
        self,
        listening: Sequence[Listening],
        settings: Settings,
        signals: Signals,
        start: StartWorker,
        renew: Callable[[], Iterable[str]],
        on_serving: Callable[[], object],
        status: Status,
    ) -> None:
        self.failure: Failure | None = None
        self._listening = listening
        self._settings = settings
        self._start = start
        self._renew = renew
        self._on_serving = on_serving
        self._status = status
        self._workers: list[WorkerProcess] = []
        # The start time and the slot of each missing worker.
        self._fork_at = [(0.0, slot) for slot in range(len(listening))]
        # The time of the SIGKILL; None until the supervisor stops.
        self._kill_at: float | None = None
        self._close_at = inf  # the time after which no more clients are accepted
        self._alive_at = monotonic() if status.manager.interval < inf else inf
        self._hangups_handled = 0
        grace = settings.drain + Timing.worker_grace
        self._reload = Reload(
            self._fork, lambda worker: worker.retire(grace), self._all_serve, status
        )
        self._exit_code = 0
        self._any_started = self._all_started = False
        self._failures = 0  # the number of successive failed starts
        self._pause = 0.0  # the pause before the latest replacement, in seconds
        self._last_reason: Failure | None = None  # the reason of the last failed start
        self._signals = signals
        self._signals_handled = 0
        self._dropped = ThrottledLog()
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
            if self._kill_at is None:
                self._reload.step()
            while self._kill_at is None and self._fork_at and min(self._fork_at)[0] <= monotonic():
                first = min(self._fork_at)
                self._fork_at.remove(first)
                self._start_missing(first[1])
            self._report_alive()

    def _wait(self) -> None:
        """Wait for a signal, for a message of a worker, or until something is due."""
        poller = select.poll()
        poller.register(self._signals, select.POLLIN)
        for worker in self._workers:
            if not worker.channel.closed:
                writing = select.POLLOUT if worker.channel.has_unsent else 0
                poller.register(worker.channel, select.POLLIN | writing)
        until = min(self._times_due(), default=inf)
        poller.poll(min(max(0.0, until - monotonic()), LONGEST_POLL) * 1000)
        self._signals.wake()
        self._signals.wait()

    def _times_due(self) -> list[float]:
        always = [self._collector.due, self._alive_at]
        if self._kill_at is not None:
            return [self._kill_at, self._close_at, *always]
        missing = (time for time, _ in self._fork_at)
        return [*always, *missing, *(worker.due for worker in self._workers)]

    def _handle_signals(self) -> None:
        while self._signals_handled < self._signals.count:
            self._signals_handled += 1
            if self._signals_handled == 1:
                self._stop()
                self._status.stopping()
            else:
                self._exit_code = 1
                self._kill_all()
        hangups = self._signals.hangups
        if hangups > self._hangups_handled and not self._reload.running and self._kill_at is None:
            self._hangups_handled = hangups
            self._status.reloading()
            self._reload.begin(self._workers, self._renew())
        if self._close_at <= monotonic():
            self._close_listening()
        if self._kill_at is not None and self._kill_at <= monotonic():
            drain = self._settings.drain
            log.error(
                "killing %d workers that did not stop within %g s (drain=%g)",
                len(self._workers),
                drain + Timing.worker_grace,
                drain,
            )
            self._exit_code = 1
            self._kill_all()

    def _stop(self) -> None:
        if self._kill_at is None:
            self._close_at = monotonic() + self._settings.stop_delay
            self._kill_at = self._close_at + self._settings.drain + Timing.worker_grace
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGTERM)

    def _close_listening(self) -> None:
        """Refuse further clients in all workers."""
        self._close_at = inf
        for listening in self._listening:
            listening.close()

    def _report_alive(self) -> None:
        if self._alive_at <= monotonic():
            self._alive_at = monotonic() + self._status.manager.interval
            self._status.manager.alive()

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
            self._receive_from(worker)  # the worker's last messages before its end
            self._workers.remove(worker)
            if worker.started:
                self._collector.remove(worker.participant)
            worker.ended = True
            self._ended(worker, os.waitstatus_to_exitcode(status))
            worker.close()
        elif worker.hung or worker.retired:
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
                worker.reason = Failure(*content)
            elif kind == "alive":
                worker.watchdog.answered()
            elif kind == "close":
                self._pass_on(worker, content)
            elif kind == "request":
                self._collector.request(worker.participant)
            else:
                self._collector.receive(worker.participant, decode_stats(content))

    def _pass_on(self, sender: WorkerProcess, closing: object) -> None:
        """Send the closing of an identity to all workers except the one that has sent it."""
        for worker in self._workers:
            if worker is sender:
                continue
            if worker.channel.is_full:
                text = "dropping the closing of an identity, because worker %d does not read"
                self._dropped.log(logging.ERROR, text, worker.pid)
            else:
                worker.channel.send("close", closing)

    def _started(self, worker: WorkerProcess) -> None:
        worker.started = True
        self._collector.add(worker.participant)
        self._any_started = True
        self._failures = 0
        if not self._all_started and self._all_serve():
            self._all_started = True
            self._on_serving()

    def _all_serve(self) -> bool:
        return len({each.slot for each in self._workers if each.started}) == len(self._listening)

    def _ended(self, worker: WorkerProcess, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        if self._kill_at is not None or worker.retired:
            if code:
                log.error("worker %d did not shut down cleanly: %s", worker.pid, how)
                self._exit_code = 1 if self._kill_at is not None else self._exit_code
            return
        reason = worker.reason or Failure(f"worker {worker.pid} ended: {how}")
        if not worker.started and self._reload.successor_failed(worker, reason):
            return
        if worker.hung:
            log.error(
                "replacing worker %d: its I/O loops made no progress for %g s (worker_timeout)",
                worker.pid,
                self._settings.worker_timeout,
                extra={"stack": worker.read_stacks() or "The worker did not write its stacks."},
            )
        elif worker.started:
            log.error("replacing worker %d, which ended unexpectedly: %s", worker.pid, how)
        elif worker.reason and not self._any_started:
            self._give_up(worker.reason)  # other workers would fail for the same reason
            return
        else:
            self._failed(reason)
        self._collector.replaced += worker.started
        if worker.successor is None:
            short = monotonic() - worker.forked_at < Timing.worker_min_lifetime
            self._replace(worker.slot, short=short)

    def _failed(self, reason: Failure) -> None:
        """Count a worker that has ended before it served, or could not be forked."""
        if reason != self._last_reason:
            self._last_reason = reason
            log_failed_start("a worker failed to start", reason)
        self._failures += 1
        if self._failures == MAX_FAILURES:
            self._give_up(Failure(f"giving up: {MAX_FAILURES} workers in a row failed to start"))

    def _give_up(self, reason: Failure) -> None:
        self.failure = reason
        self._exit_code = 1
        self._stop()
        if not self._any_started:
            self._kill_all()  # no worker has clients

    def _replace(self, slot: int, *, short: bool) -> None:
        pause = min(max(2 * self._pause, Timing.restart_min_backoff), Timing.restart_max_backoff)
        self._pause = pause if short else 0.0
        self._fork_at.append((monotonic() + self._pause, slot))

    def _start_missing(self, slot: int) -> None:
        try:
            self._fork(slot)
        except OSError as error:
            self._failed(Failure(f"{error.strerror}"))
            self._replace(slot, short=True)

    def _fork(self, slot: int) -> WorkerProcess:
        """Start a worker; the slot is the number of its listening sockets.

        Raises:
            OSError: the system cannot start another process, or too many files are open.
        """
        output.flush()  # otherwise the worker would print buffered text again
        background.close()  # the thread of the log must end before the fork
        # Signals are held back until the worker has its own handlers.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        stacks, ours, theirs = None, None, None
        try:
            if self._settings.worker_timeout:
                stacks = _file_for_stacks()
            ours, theirs = channel_pair()
            close_in_children(ours)
            with passed_to_child(self._listening[slot].sockets):
                # The child never returns.
                pid = os.fork() or self._run_worker(slot, theirs, stacks, mask)
            if stacks is not None:
                close_in_children(stacks)
            worker = WorkerProcess(pid, slot, ours, stacks, self._settings.worker_timeout)
            self._workers.append(worker)
            return worker
        except OSError:
            for file in (ours, stacks):
                if file is not None:
                    file.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _run_worker(
        self,
        slot: int,
        channel: Channel,
        stacks: BufferedRandom | None,
        mask: set[int | signal.Signals],
    ) -> NoReturn:
        """A new worker: serve, then exit without the ``atexit`` functions of the parent process."""
        code = 1
        try:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                atexit._clear()
                atexit.register(logging.shutdown)
                atexit.register(background.close_at_exit)  # runs before logging.shutdown
                # Ctrl-C has a handler without effect, because programs that the worker starts would
                # inherit SIG_IGN. The handlers remain until the process ends, because a later
                # signal must not change its exit code.
                signals = Signals(signal.SIGTERM, others=(signal.SIGINT, *HANGUP)).__enter__()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                children = child_processes()
                sockets = self._listening[slot].in_worker()
                code = serve(channel, stacks, signals, self._start, sockets, self._settings)
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

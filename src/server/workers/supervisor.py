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
from ..reports.stats import Stats
from ..signals import STOP_SIGNALS, Signals
from ..timing import Timing
from .census import Census, Respondent
from .channel import Channel, channel_pair, decode_stats, encode_stats
from .pulse import Pulse
from .worker import DUMP_SIGNAL, Start, child_processes, run_exit_functions, serve

# How often in a row a worker may end before it serves, until there is no hope.
MAX_FAILURES = 5
# The most bytes of a worker's stacks that are logged.
MAX_STACKS = 1 << 18


class WorkerProcess:
    """A worker, as its supervisor sees it.

    Attributes:
        pid: the number of its process.
        channel: to the worker.
        stacks: where it writes the stacks of its threads; None if it is never asked to.
        reason: why it does not serve; "" if it has not said so.
        up: it serves, or did before it ended.
        born: when it was forked, on the monotonic clock.
        pulse: whether its loops turn.
        kill_at: when it is killed if it has not ended, on the monotonic clock.
        hung: its loops did not turn.
    """

    def __init__(
        self, pid: int, channel: Channel, stacks: BufferedRandom | None, timeout: float
    ) -> None:
        self.pid = pid
        self.channel = channel
        self.stacks = stacks
        self.reason = ""
        self.up = False
        self.born = monotonic()
        self.pulse = Pulse(monotonic, timeout, lambda: channel.send("turn"))
        self.respondent = Respondent(lambda: channel.send("report"), self._answer)
        self.kill_at = inf
        self.hung = False

    @property
    def due(self) -> float:
        """When to look at it, on the monotonic clock."""
        if self.hung:
            return self.kill_at
        return self.pulse.due if self.up else inf

    def written_stacks(self) -> str:
        """What it has written of its threads."""
        if self.stacks is None:
            return ""
        self.stacks.seek(0)
        return self.stacks.read(MAX_STACKS).decode(errors="replace").strip()

    def close(self) -> None:
        """Have no more to do with it; it has ended."""
        self.channel.close()
        if self.stacks is not None:
            self.stacks.close()

    def _answer(self, numbers: Stats) -> None:
        self.channel.send("answer", encode_stats(numbers))


class Supervisor:
    """The parent; all its methods are for the main thread, in which Python runs signal handlers.

    Args:
        count: how many workers.
        drain: how long they take to stop, in seconds.
        signals: those that ask for the end, and SIGCHLD; entered.
        start: called in every worker; starts its server.
        timeout: how long the loops of a worker may stand still, in seconds; 0 for ever.
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
        start: Start,
        timeout: float,
        serving: Callable[[], object],
        stopping: Callable[[], object],
    ) -> None:
        self.failure = ""
        self._count = count
        self._drain = drain
        self._start = start
        self._timeout = timeout
        self._serving = serving
        self._stopping = stopping
        self._workers: list[WorkerProcess] = []
        self._due = [0.0] * count  # when to fork those that are missing
        self._kill_at: float | None = None  # what has not ended then; set when it stops
        self._exit_code = 0
        self._served = self._announced = False  # one worker did; all did
        self._failures = 0  # in a row
        self._pause = 0.0  # before the last one was forked that replaces another
        self._last_reason = ""  # of a failure
        self._signals = signals
        self._heeded = 0  # of them
        self._census = Census(monotonic, Timing.stats_timeout)

    def run(self) -> int:
        """The parent: look after the workers until all have ended; the exit code."""
        try:
            self._look_after_workers()
        finally:
            self._kill_all()
        return self._exit_code

    def _look_after_workers(self) -> None:
        while self._workers or self._kill_at is None:
            self._wait()
            self._heed_signals()
            for worker in tuple(self._workers):
                if worker in self._workers:  # the end of one may be the end of all
                    self._look_at(worker)
            self._census.look()
            while self._kill_at is None and self._due and min(self._due) <= monotonic():
                self._due.remove(min(self._due))
                self._fork()

    def _wait(self) -> None:
        """Wait for a signal, for the word of a worker, or until something is due."""
        poller = select.poll()
        poller.register(self._signals, select.POLLIN)
        for worker in self._workers:
            if not worker.channel.ended:
                writing = select.POLLOUT if worker.channel.has_unsent else 0
                poller.register(worker.channel, select.POLLIN | writing)
        until = min(self._times_due(), default=inf)
        poller.poll(None if until == inf else max(0.0, until - monotonic()) * 1000)
        self._signals.wake()
        self._signals.wait()

    def _times_due(self) -> list[float]:
        """When something is due, on the monotonic clock."""
        if self._kill_at is not None:
            return [self._kill_at, self._census.due]
        return [self._census.due, *self._due, *(worker.due for worker in self._workers)]

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
            self._kill_at = monotonic() + self._drain + Timing.worker_grace
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGTERM)

    def _kill_all(self) -> None:
        while self._workers:
            worker = self._workers.pop()
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.close()

    def _look_at(self, worker: WorkerProcess) -> None:
        worker.channel.flush()
        self._listen_to(worker)
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if pid:
            self._listen_to(worker)  # its last words
            self._workers.remove(worker)
            if worker.up:
                self._census.leave(worker.respondent)
            self._ended(worker, os.waitstatus_to_exitcode(status))
            worker.close()
        elif worker.hung:
            if worker.kill_at <= monotonic():
                os.kill(worker.pid, signal.SIGKILL)
                worker.kill_at = inf
        elif worker.up and self._kill_at is None and worker.pulse.beat():
            worker.hung = True
            worker.kill_at = monotonic() + Timing.stack_dump_timeout
            os.kill(worker.pid, DUMP_SIGNAL)

    def _listen_to(self, worker: WorkerProcess) -> None:
        for kind, content in worker.channel.receive_all():
            if kind == "up":
                self._serves(worker)
            elif kind == "failed":
                worker.reason = content
            elif kind == "turned":
                worker.pulse.turned()
            elif kind == "ask":
                self._census.ask(worker.respondent)
            else:
                self._census.report(worker.respondent, decode_stats(content))

    def _serves(self, worker: WorkerProcess) -> None:
        worker.up = True
        self._census.join(worker.respondent)
        self._served = True
        self._failures = 0
        if not self._announced and sum(each.up for each in self._workers) == self._count:
            self._announced = True
            self._serving()

    def _ended(self, worker: WorkerProcess, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        if self._kill_at is not None:
            if code:
                log.error("worker %d did not stop as it was told: %s", worker.pid, how)
                self._exit_code = 1
            return
        if worker.hung:
            log.error(
                "worker %d is replaced: its loops have not turned for %g s (worker_timeout)",
                worker.pid,
                self._timeout,
                extra={"stack": worker.written_stacks() or "It has not written its stacks."},
            )
        elif worker.up:
            log.error("worker %d has ended and is replaced: %s", worker.pid, how)
        elif worker.reason and not self._served:
            self._give_up(worker.reason)  # nor could the others
            return
        else:
            self._failed(worker.reason or f"worker {worker.pid} has ended: {how}")
        self._census.replaced += worker.up
        self._replace(short=monotonic() - worker.born < Timing.worker_min_lifetime)

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
        pause = min(max(2 * self._pause, Timing.restart_min_backoff), Timing.restart_max_backoff)
        self._pause = pause if short else 0.0
        self._due.append(monotonic() + self._pause)

    def _fork(self) -> None:
        output.flush()  # or else the worker would print it, too
        background.close()  # a process that forks had better have one thread
        # A signal that comes before the worker has its own handlers waits for them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        stacks, ours, theirs = None, None, None
        try:
            if self._timeout:
                stacks = _file_for_stacks()
            ours, theirs = channel_pair()
            close_in_children(ours)
            pid = os.fork()
            if not pid:
                self._work(theirs, stacks, mask)
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

    def _work(
        self, channel: Channel, stacks: BufferedRandom | None, mask: set[int | signal.Signals]
    ) -> NoReturn:
        """A new worker: all of its life. What its parent would do at the end, it leaves alone."""
        code = 1
        try:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                atexit._clear()
                atexit.register(logging.shutdown)
                atexit.register(background.close_at_exit)  # before that
                # Ctrl-C is not ignored by SIG_IGN: programs that are started would inherit that.
                with Signals(signal.SIGTERM, others=(signal.SIGINT,)) as signals:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                    children = child_processes()
                    code = serve(channel, stacks, signals, self._start, self._drain)
                    run_exit_functions(children)
            except BaseException:
                code = 1
                log.exception("worker %d has failed", os.getpid())
                background.close()
            output.settle()
        finally:
            os._exit(code)


def _file_for_stacks() -> BufferedRandom | None:
    """A file without a name; None if there is no place for one, as where all is read-only."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            return open(os.memfd_create("stacks"), "w+b")
    with suppress(OSError):
        return TemporaryFile()
    return None

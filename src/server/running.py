"""Serving in the main thread of a program until a stop signal."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic
from typing import Protocol

import wsframe
from wsframe.kernels import INSTRUCTION_SET

from .reports.loggers import background, log
from .reports.output import flush, flush_at_exit
from .server import Server
from .settings import Settings
from .signals import HANGUP, STOP_SIGNALS, Interrupted, Signals
from .sockets.admission import allow_all_files
from .sockets.certificate import tls_context
from .sockets.listening import Listening, activated, listen, listen_for_workers
from .sockets.shutdown import SPREAD
from .status import ServiceManager, Status
from .topics.errors import BrokerRefused
from .workers.supervisor import Supervisor
from .workers.worker import SupervisorLink

# The reason why SIGHUP has no effect without workers and without the file of a certificate.
NO_RELOAD = (
    "SIGHUP replaces workers (workers) and reads the certificate again (cert), and this server has "
    "neither; restart it instead",
)


class StartServer(Protocol):
    """A function that starts an application's server, and may load the application first."""

    def __call__(
        self,
        open_sockets: Callable[[], Listening],
        settings: Settings,
        *,
        link: SupervisorLink | None = None,
        interrupting: Callable[[], AbstractContextManager[None]] = ...,
    ) -> Server:
        """The main thread: start the server.

        Args:
            open_sockets: a function that returns the listening sockets.
            settings: as for :meth:`wsframe.server.App.start`.
            link: the worker's link to its supervisor; None without workers.
            interrupting: a context manager for the application's code, which a stop signal then
                ends.

        Raises:
            Interrupted: a stop signal has arrived.
        """


def activate(settings: Settings) -> Settings:
    """Return the settings with the sockets that a service manager has passed to this process."""
    fds = activated(os.environ)
    if not fds:
        return settings
    return replace(settings, fds=tuple(fds), unix=None, unix_mode=None, unix_group=None)


def run(start: StartServer, host: str, port: int, workers: int, settings: Settings) -> None:
    """The main thread: serve in this process, or in workers, until a stop signal.

    A stop signal interrupts the loading and the start of the application at once.

    Raises:
        OSError, RuntimeError, SystemExit, ValueError: as :meth:`wsframe.server.App.run`.
    """
    if workers < 0:
        raise ValueError(f"workers must not be negative: {workers!r}")
    if workers and not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")):
        raise OSError(
            errno.ENOTSUP, "workers require os.fork and SO_REUSEPORT, which this platform lacks"
        )
    allow_all_files()
    status = Status(ServiceManager(os.environ))
    try:
        if workers:
            _run_workers(start, host, port, workers, settings, status)
        else:
            _run_here(start, partial(listen, host, port, settings), settings, status)
    finally:
        flush_at_exit()


def _run_here(
    start: StartServer, open_sockets: Callable[[], Listening], settings: Settings, status: Status
) -> None:
    with Signals(*STOP_SIGNALS, others=HANGUP, forcible=True) as signals:
        try:
            server = start(open_sockets, settings, interrupting=signals.interrupting)
        except Interrupted:
            return
        flush()  # text that the application has printed must come first
        status.serving(f"Serving on {server.url}; press Ctrl-C to stop. Kernels: {_kernels()}.")
        progress = _Progress(server, signals, status.manager)
        hangups = 0
        while not signals.count:
            signals.wait(progress.timeout())
            progress.check()
            if signals.hangups > hangups:
                hangups = signals.hangups
                status.reloading()
                renewable = settings.cert is not None
                status.reloaded(_renew(server.renew_certificate) if renewable else NO_RELOAD)
        stopped = threading.Event()

        def stop() -> None:
            try:
                server.stop(spread=SPREAD * settings.drain, delay=settings.stop_delay)
            finally:
                stopped.set()
                signals.wake()

        stopping = threading.Thread(target=stop, name="wsframe-stop", daemon=True)
        stopping.start()
        status.stopping()
        while not stopped.is_set():
            if signals.count > 1:
                os._exit(1)
            signals.wait()
        stopping.join()


class _Progress:
    """The notification of the service manager while all loops make progress.

    Only the main thread calls its methods.
    """

    def __init__(self, server: Server, signals: Signals, manager: ServiceManager) -> None:
        self._server = server
        self._signals = signals
        self._manager = manager
        self._turned = threading.Event()  # set as soon as all loops have run a callback
        self._due = monotonic() if manager.interval < inf else inf

    def timeout(self) -> float | None:
        """Return the seconds until the next check is due; None without a limit."""
        return None if self._due == inf else self._due - monotonic()

    def check(self) -> None:
        """Notify the manager of progress, and request the next callback of all loops."""
        if self._turned.is_set():
            self._turned.clear()
            self._manager.alive()
        if monotonic() >= self._due:
            self._due = monotonic() + self._manager.interval
            self._server.call_when_each_loop_turns(self._set)

    def _set(self) -> None:
        self._turned.set()
        self._signals.wake()


def _run_workers(
    start: StartServer, host: str, port: int, workers: int, settings: Settings, status: Status
) -> None:
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(*STOP_SIGNALS, others=(signal.SIGCHLD, *HANGUP)))
        # The TLS context is created before the fork, so that a client can resume with another
        # worker.
        current = replace(
            settings, cert=None, key=None, client_ca=None, ssl_context=tls_context(settings)
        )
        listening = listen_for_workers(host, port, settings, workers)
        for each in listening:
            stack.callback(each.close)
        where = listening[0].url(secured=current.ssl_context is not None)
        kernels = _kernels()
        line = f"Serving on {where}; press Ctrl-C to stop. Workers: {workers}. Kernels: {kernels}."

        def start_in_worker(
            sockets: Listening,
            interrupting: Callable[[], AbstractContextManager[None]],
            link: SupervisorLink,
        ) -> Server:
            link.alone = workers == 1
            try:
                return start(lambda: sockets, current, link=link, interrupting=interrupting)
            except BrokerRefused as error:  # the supervisor exits with the first worker's reason
                sys.exit(f"cannot keep topics in Redis: {error}")

        def renew() -> None:
            nonlocal current
            current = replace(current, ssl_context=tls_context(settings))

        supervisor = Supervisor(
            listening,
            settings,
            signals,
            start_in_worker,
            partial(_renew, renew),
            partial(status.serving, line),
            status,
        )
        # The log must be written before the interpreter prints the exit's reason.
        stack.callback(background.close)
        code = supervisor.run()
    if code:
        raise SystemExit(supervisor.failure or code)


def _renew(renew: Callable[[], object]) -> list[str]:
    """Renew the certificate; if that fails, log and return the reason for keeping the old one."""
    try:
        renew()
    except OSError as error:
        problem = f"keeping the old certificate, because the new one cannot be used: {error}"
        log.error("%s", problem)
        return [problem]
    return []


def _kernels() -> str:
    if wsframe.ACCELERATED:
        return f"compiled, {INSTRUCTION_SET}"
    return "pure Python (slower; to compile them, install with a C compiler and Python.h)"

"""Running: to serve in the main thread of a program, until a signal asks for the end."""

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
from typing import Protocol

import wsframe
from wsframe.kernels import INSTRUCTION_SET

from .reports.loggers import background
from .reports.output import announce, flush, settle
from .server import Server, url
from .settings import Settings
from .signals import STOP_SIGNALS, Interrupted, Signals
from .sockets.admission import allow_all_files
from .sockets.certificate import tls_context
from .sockets.listener import bind
from .sockets.shutdown import SPREAD
from .topics.errors import BrokerRefused
from .workers.supervisor import Supervisor
from .workers.worker import SupervisorLink


class Start(Protocol):
    """Starts the server of an application, which it may have to load first."""

    def __call__(
        self,
        host: str,
        port: int,
        settings: Settings,
        *,
        link: SupervisorLink | None = None,
        interrupting: Callable[[], AbstractContextManager[None]] = ...,
    ) -> Server:
        """The main thread: start the server.

        Args:
            host, port, settings: as of :meth:`wsframe.server.App.start`.
            link: a worker's, which shares the port with others.
            interrupting: entered around the application's code, which a stop signal then ends.

        Raises:
            Interrupted: a stop signal has come.
        """


def run(start: Start, host: str, port: int, workers: int, settings: Settings) -> None:
    """The main thread: serve in this process, or in workers, until a signal asks for the end.

    A signal that comes before the application is loaded and started ends that at once.

    Raises:
        OSError, RuntimeError, SystemExit, ValueError: as :meth:`wsframe.server.App.run`.
    """
    if workers < 0:
        raise ValueError(f"workers must not be negative: {workers!r}")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "App.run is for the main thread, the only one that can wait for signals; "
            "in another one, use App.start"
        )
    if workers:
        _check_workers(settings)
    allow_all_files()
    try:
        if workers:
            _run_workers(start, host, port, workers, settings)
        else:
            _run_here(start, host, port, settings)
    finally:
        settle()


def _run_here(start: Start, host: str, port: int, settings: Settings) -> None:
    with Signals(*STOP_SIGNALS, forcible=True) as signals:
        try:
            server = start(host, port, settings, interrupting=signals.interrupting)
        except Interrupted:
            return
        flush()  # what the application has printed before comes first
        announce(f"Serving on {server.url}; Ctrl-C stops. Kernels: {_kernels()}.")
        while not signals.count:
            signals.wait()
        stopped = threading.Event()

        def stop() -> None:
            try:
                server.stop(spread=SPREAD * settings.drain)
            finally:
                stopped.set()
                signals.wake()

        stopping = threading.Thread(target=stop, name="wsframe-stop", daemon=True)
        stopping.start()
        _announce_stop()
        while not stopped.is_set():
            if signals.count > 1:
                os._exit(1)
            signals.wait()
        stopping.join()


def _check_workers(settings: Settings) -> None:
    if settings.unix is not None:
        raise ValueError("workers share a port, not a unix socket")
    if not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")):
        raise OSError(errno.ENOTSUP, "workers need fork and SO_REUSEPORT, which are not there")


def _run_workers(start: Start, host: str, port: int, workers: int, settings: Settings) -> None:
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(*STOP_SIGNALS, others=(signal.SIGCHLD,)))
        tls = tls_context(settings)  # of all workers, so that a client can resume with another
        settings = replace(settings, cert=None, key=None, ssl_context=tls)
        # Not yet shared, to find out whether the port is somebody else's; then kept for the
        # workers, by sockets that do not listen and so get no connection.
        for sock in bind(host, port):
            port = sock.getsockname()[1]
            sock.close()
        for sock in bind(host, port, shared=True):
            stack.callback(sock.close)
        where = url(host, port, secured=tls is not None)
        line = f"Serving on {where}; Ctrl-C stops. Workers: {workers}. Kernels: {_kernels()}."

        def start_in_worker(
            interrupting: Callable[[], AbstractContextManager[None]], link: SupervisorLink
        ) -> Server:
            try:
                return start(host, port, settings, link=link, interrupting=interrupting)
            except BrokerRefused as error:  # the first worker's reason is the supervisor's
                sys.exit(f"topics cannot be kept in Redis: {error}")

        supervisor = Supervisor(
            workers,
            settings.drain,
            signals,
            start_in_worker,
            settings.worker_timeout,
            lambda: announce(line),
            _announce_stop,
        )
        stack.callback(background.close)  # before the interpreter prints why it exits
        code = supervisor.run()
    if code:
        sys.exit(supervisor.failure or code)


def _announce_stop() -> None:
    announce("Stopping; once more forces the end.")


def _kernels() -> str:
    if wsframe.ACCELERATED:
        return f"compiled, {INSTRUCTION_SET}"
    return "pure Python, which is slower; a C compiler at install time makes the fast ones"

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
from typing import Protocol

import wsframe
from wsframe.kernels import INSTRUCTION_SET

from .reports.loggers import background
from .reports.output import announce, flush, flush_at_exit
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


class StartServer(Protocol):
    """Starts the server of an application, and may load the application first."""

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
            host, port, settings: as for :meth:`wsframe.server.App.start`.
            link: the worker's link to its supervisor; None without workers.
            interrupting: entered around the application's code, so that a stop signal ends it.

        Raises:
            Interrupted: a stop signal has arrived.
        """


def run(start: StartServer, host: str, port: int, workers: int, settings: Settings) -> None:
    """The main thread: serve in this process, or in workers, until a stop signal.

    A stop signal interrupts the loading and the start of the application at once.

    Raises:
        OSError, RuntimeError, SystemExit, ValueError: as :meth:`wsframe.server.App.run`.
    """
    if workers < 0:
        raise ValueError(f"workers must not be negative: {workers!r}")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "App.run must be called in the main thread, because only that receives signals; "
            "call App.start in other threads"
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
        flush_at_exit()


def _run_here(start: StartServer, host: str, port: int, settings: Settings) -> None:
    with Signals(*STOP_SIGNALS, forcible=True) as signals:
        try:
            server = start(host, port, settings, interrupting=signals.interrupting)
        except Interrupted:
            return
        flush()  # text that the application has printed comes first
        announce(f"Serving on {server.url}; press Ctrl-C to stop. Kernels: {_kernels()}.")
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
        raise ValueError("workers cannot share a unix socket: remove workers or unix")
    if not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")):
        raise OSError(
            errno.ENOTSUP, "workers require os.fork and SO_REUSEPORT, which this platform lacks"
        )


def _run_workers(
    start: StartServer, host: str, port: int, workers: int, settings: Settings
) -> None:
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(*STOP_SIGNALS, others=(signal.SIGCHLD,)))
        tls = tls_context(settings)  # shared, so that a client can resume with another worker
        settings = replace(settings, cert=None, key=None, ssl_context=tls)
        # The first sockets do not share the port and so detect that another program uses it. The
        # second ones keep it for the workers; they do not listen and get no connection.
        for sock in bind(host, port):
            port = sock.getsockname()[1]
            sock.close()
        for sock in bind(host, port, shared=True):
            stack.callback(sock.close)
        where = url(host, port, secured=tls is not None)
        kernels = _kernels()
        line = f"Serving on {where}; press Ctrl-C to stop. Workers: {workers}. Kernels: {kernels}."

        def start_in_worker(
            interrupting: Callable[[], AbstractContextManager[None]], link: SupervisorLink
        ) -> Server:
            try:
                return start(host, port, settings, link=link, interrupting=interrupting)
            except BrokerRefused as error:  # the supervisor exits with the first worker's reason
                sys.exit(f"cannot keep topics in Redis: {error}")

        supervisor = Supervisor(
            workers,
            settings.drain,
            signals,
            start_in_worker,
            settings.worker_timeout,
            lambda: announce(line),
            _announce_stop,
        )
        stack.callback(background.close)  # before the interpreter prints its reason to exit
        code = supervisor.run()
    if code:
        sys.exit(supervisor.failure or code)


def _announce_stop() -> None:
    announce("Shutting down; press Ctrl-C again to force.")


def _kernels() -> str:
    if wsframe.ACCELERATED:
        return f"compiled, {INSTRUCTION_SET}"
    return "pure Python (slower; install with a C compiler for the compiled ones)"

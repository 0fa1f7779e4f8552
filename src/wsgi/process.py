"""The server of a process, which starts with the first connection and stops at the exit."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from logging import ERROR

from ..server.forks import recreate_in_children
from ..server.http.refusals import RefusalError
from ..server.reports.refusals import FAILED
from ..server.reports.throttled import ThrottledLog
from ..server.server import Server
from ..server.sockets.shutdown import SPREAD
from ..server.topics.errors import BrokerRefused
from .relay import stopping


class ProcessServer:
    """The holder of this process's server. The child of a fork starts its own server.

    Args:
        start: a function that starts a server; it raises OSError, RuntimeError or BrokerRefused.
        on_exit: a function that is called when the process exits, if the server was started.

    Attributes:
        server: the server, also after its stop; None before its start.
    """

    def __init__(self, start: Callable[[], Server], on_exit: Callable[[], object]) -> None:
        self._start = start
        self._on_exit = on_exit
        self._failures = ThrottledLog()
        self.after_fork()
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The constructor and the child of a fork: begin without a server."""
        self._lock = threading.Lock()  # protects the next two attributes
        self.server: Server | None = None
        self._stopped = False

    def get(self) -> Server:
        """Any thread: return the server; start it if necessary.

        Raises:
            HandshakeError: the process is exiting, or the server cannot start (503).
        """
        with self._lock:
            if self._stopped:
                raise stopping()
            if self.server is None:
                try:
                    self.server = self._start()
                except (BrokerRefused, OSError, RuntimeError) as error:
                    self._failures.log(
                        ERROR, "cannot serve WebSockets and event streams: %s", error
                    )
                    raise RefusalError(
                        503,
                        "WebSockets and event streams are not available",
                        [("Retry-After", "5")],
                        kind=FAILED,
                    ) from None
                call_at_exit(self._on_exit)
            return self.server

    def stop(self, drain: float) -> None:
        """Any thread except the server's: stop the server, if any, and start no other one.

        Args:
            drain: the seconds for the stop. Most of this time is used to close connections one by
                one.
        """
        with self._lock:
            self._stopped = True
            server = self.server
        if server is not None:
            atexit.unregister(self._on_exit)
            server.stop(drain, spread=SPREAD * drain)

    def reopen(self) -> None:
        """Any thread: permit a new server after :meth:`stop`.

        Raises:
            RuntimeError: the server is running.
        """
        with self._lock:
            if self.server is not None and self.server.running:
                raise RuntimeError(
                    "cannot reopen this Live while it serves: call live.stop() first"
                )
            self.server, self._stopped = None, False


def call_at_exit(function: Callable[[], object]) -> None:
    """Any thread: call a function when the process exits.

    uWSGI does not call the functions of :mod:`atexit`, only its own ``uwsgi.atexit``.
    """
    atexit.register(function)
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None and hasattr(uwsgi, "connection_fd"):
        previous = getattr(uwsgi, "atexit", None)

        def exit_functions() -> None:
            function()
            if previous is not None:
                previous()

        uwsgi.atexit = exit_functions  # type: ignore[attr-defined]

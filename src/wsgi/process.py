"""The server of a process: it starts with the first connection, and stops at the exit."""

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
    """The server of this process. The child of a fork starts one of its own.

    Args:
        start: starts a server; raises OSError, RuntimeError or BrokerRefused if it cannot.
        on_exit: called when the process exits, after a start.

    Attributes:
        server: the server, also after its end; None before its start.
    """

    def __init__(self, start: Callable[[], Server], on_exit: Callable[[], object]) -> None:
        self._start = start
        self._on_exit = on_exit
        self._failures = ThrottledLog()
        self.after_fork()
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The child of a fork, and at the beginning: there is no server yet."""
        self._lock = threading.Lock()  # guards the next two
        self.server: Server | None = None
        self._stopped = False

    def get(self) -> Server:
        """Any thread: return the server, which starts if necessary.

        Raises:
            HandshakeError: the process ends, or the server cannot start (503).
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
        """Any thread except those of the server: stop it, if it has started; start none again.

        Args:
            drain: the seconds for that. Most of them are used to close connections one by one.
        """
        with self._lock:
            self._stopped = True
            server = self.server
        if server is not None:
            atexit.unregister(self._on_exit)
            server.stop(drain, spread=SPREAD * drain)


def call_at_exit(function: Callable[[], object]) -> None:
    """Any thread: call a function when the process exits.

    uWSGI calls its own function at the exit, and not those of :mod:`atexit`.
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

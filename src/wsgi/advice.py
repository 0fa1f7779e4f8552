"""Warnings about problems in a WSGI server's configuration, each logged once per process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from ..server.reports.loggers import log
from ..server.server import Server
from .environ import Environ

# The fraction of a limit from which a warning is logged.
NEARLY = 0.8


class Advice:
    """The warnings that one process logs, each once.

    Args:
        has_local_topics: a function that returns True if the process uses topics without Redis.
    """

    def __init__(self, has_local_topics: Callable[[], bool]) -> None:
        self._has_local_topics = has_local_topics
        self.after_fork()

    def after_fork(self) -> None:
        """The constructor and the child of a fork: forget all warnings."""
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._gunicorn: Any = None
        self._searched = False

    def opening(self, environ: Environ, server: Server) -> None:
        """The request's thread: check the configuration before a connection is opened."""
        if environ.get("wsgi.multiprocess") and self._has_local_topics():
            self.say(
                "processes",
                "topics are used in several processes without Redis: an event reaches only the "
                "clients of the process that publishes it. Use one process with threads, or the "
                "setting redis: Live(redis=...), WSFRAME_REDIS in Flask, WSFRAME in Django",
            )
        count, limit = server.capacity()
        if count >= NEARLY * limit:
            self.say(
                "files",
                f"{count} connections are open, and at most {limit} may be: raise max_connections, "
                "or the open-file limit of the process (ulimit -n, LimitNOFILE of systemd)",
            )
        self._check_gunicorn(count, server.settings.drain)
        self._check_uwsgi(environ, count)

    def _check_gunicorn(self, count: int, drain: float) -> None:
        if not self._searched:
            self._searched, self._gunicorn = True, gunicorn_settings()
        settings = self._gunicorn
        if settings is None:
            return
        self._check_max_requests("gunicorn", "max_requests", settings.max_requests, count)
        name = settings.worker_class_str
        if (name == "sync" or name.endswith("SyncWorker")) and settings.timeout:
            self.say(
                "sync",
                f"gunicorn ends a sync worker, with all its connections, when one request takes "
                f"longer than {settings.timeout} s (timeout): use --worker-class gthread",
            )
        if settings.graceful_timeout <= drain:
            self.say(
                "drain",
                f"gunicorn kills a worker after {settings.graceful_timeout} s (graceful_timeout), "
                f"before its connections are closed within {drain:g} s (drain): reduce drain",
            )

    def _check_uwsgi(self, environ: Environ, count: int) -> None:
        if "uwsgi.version" not in environ:
            return
        options: dict[str, Any] = getattr(sys.modules.get("uwsgi"), "opt", {})
        self._check_max_requests("uWSGI", "max-requests", _number(options, "max-requests"), count)
        harakiri = _number(options, "harakiri")
        if harakiri:
            self.say(
                "harakiri",
                f"uWSGI kills a process, with all its connections, when one request takes longer "
                f"than {harakiri} s (harakiri): set harakiri above the time of the slowest request",
            )

    def _check_max_requests(self, server: str, setting: str, limit: int, count: int) -> None:
        if 0 < limit <= 2 * (count + 1):
            self.say(
                "max_requests",
                f"{count + 1} clients are connected, and {server} replaces this worker after "
                f"{limit} requests ({setting}): each reconnect is a request, so workers may "
                f"restart for ever. Set {setting} to 0, or far above the number of clients",
            )

    def relaying(self, problem: str) -> None:
        """The request's thread: warn that an event stream holds a thread of the WSGI server."""
        self.say(
            "relay",
            f"each event stream holds a thread of the WSGI server, because {problem}",
        )

    def say(self, kind: str, text: str) -> None:
        """Any thread: log a warning, once for each kind."""
        with self._lock:
            new = kind not in self._said
            self._said.add(kind)
        if new:
            log.warning("%s", text)


def _number(options: dict[str, Any], name: str) -> int:
    """Return an option of uWSGI as a number; 0 if it is missing or is not a number."""
    text = options.get(name)
    return int(text) if isinstance(text, bytes) and text.isdigit() else 0


def gunicorn_settings() -> Any:
    """The request's thread: return gunicorn's settings; None on another WSGI server.

    The WSGI environment does not contain the settings, so a gunicorn worker is searched for in the
    stack of calls.
    """
    frame = sys._getframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith("gunicorn.workers.") and hasattr(frame.f_locals.get("self"), "cfg"):
            return frame.f_locals["self"].cfg
        frame = frame.f_back  # type: ignore[assignment]
    return None

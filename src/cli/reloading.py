"""The option ``--reload``: restart the process when a file of the program changes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ..server.reports.output import announce, flush_at_exit
from ..server.signals import Interrupted
from .exits import Exit
from .failing import report

# The pause between two checks of the files, in seconds.
INTERVAL = 0.25


class Files:
    """The files of the imported modules, and the Python files in the current directory."""

    def __init__(self) -> None:
        self._directory = Path.cwd()  # the program may change the current directory later
        self._others: tuple[str, ...] = ()
        self._times: dict[str, int] = {}
        self._here: set[str] = set()
        self.changed()

    def add(self, *names: str) -> None:
        """Watch further files."""
        self._others = names

    def changed(self) -> str:
        """Return the name of a file that has changed since the last call; "" for none.

        A new file counts as changed only in the current directory. Elsewhere it has just been
        imported.
        """
        before, here_before = self._times, self._here
        self._here = {str(path) for path in self._directory.glob("*.py")}
        imported = [getattr(each, "__file__", None) for each in tuple(sys.modules.values())]
        names = [*filter(None, imported), *self._here, *self._others]
        self._times = dict(_times(names))
        for name in self._here - here_before:
            before.setdefault(name, -1)
        for name, time in before.items():
            if self._times.get(name) != time:
                return name
        return ""


class _Watch:
    """A thread that checks the files, and sends SIGTERM to the process when one has changed.

    Attributes:
        found: the name of the file that has changed; "" before.
    """

    def __init__(self) -> None:
        self.found = ""
        self._files = Files()
        self._done = threading.Event()
        # A SIGTERM of the thread may arrive while no server runs.
        signal.signal(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._run, name="wsframe-reload", daemon=True).start()

    def wait(self, names: Iterable[str]) -> None:
        """The main thread, after a failed start: watch further files, and wait for a change."""
        self._files.add(*names)
        while not self._done.is_set():
            self._done.wait(INTERVAL)  # a signal that arrives just before the wait does not end it

    def _run(self) -> None:
        while not self.found:
            self._done.wait(INTERVAL)
            self.found = self._files.changed()
        os.kill(os.getpid(), signal.SIGTERM)
        self._done.set()

    def _terminate(self, number: int, frame: object) -> None:
        if not self.found:
            raise Interrupted


def serve_until_changed(serve: Callable[[], int]) -> int:
    """The main thread: serve, and restart the process whenever a file changes.

    A program that fails to start is started again after the next change.

    Args:
        serve: loads the program and serves until a stop signal; returns the exit code.

    Returns:
        The exit code, if a stop signal has ended the server.
    """
    directory = os.getcwd()
    watch = _Watch()
    code = int(Exit.FAILED)
    try:
        try:
            code = serve()
        except (Exception, SystemExit) as error:  # an error of the program, such as a SyntaxError
            report(error)
            announce("Not serving, because the program failed to start. Waiting for a change.")
            watch.wait(_files_of(error))
    except Interrupted:  # a stop signal has arrived while no server runs
        return Exit.OK
    if watch.found:
        _restart(watch.found, directory)
    return code


def _restart(changed: str, directory: str) -> NoReturn:
    """Replace this process by a new run of its command, in the original directory."""
    os.chdir(directory)
    announce(f"Restarting, because {os.path.relpath(changed)} has changed.")
    flush_at_exit()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _files_of(error: BaseException | None) -> Iterator[str]:
    """Yield the files in which an error and its causes have occurred."""
    while error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            yield frame.filename
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        error = error.__cause__


def _times(names: Iterable[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        with suppress(OSError):
            yield name, os.stat(name).st_mtime_ns

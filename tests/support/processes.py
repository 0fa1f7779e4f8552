"""Servers in separate processes, as users start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .waiting import TIMEOUT

# The arguments of the interpreter that start the command line.
COMMAND = ("-m", "wsframe.server")
URL = re.compile(r"Serving on (?P<url>https?://\S+:(?P<port>\d+));")


class ServerProcess:
    """A server started by a command; a context manager that kills it and its children.

    It is the leader of a process group, like the foreground program of a terminal.

    Args:
        *arguments: the arguments of the interpreter.
        directory: the working directory.
        stderr: the file descriptor of its standard error; by default its standard output.
        until: a pattern of the line that it prints when it has started; its groups ``url`` and
            ``port`` are optional.
        lifetime: the seconds after which it is killed.

    Attributes:
        pid: the process id.
        port: the port that it has printed, or 0.
        url: the URL that it has printed, or "".
    """

    def __init__(
        self,
        *arguments: str,
        directory: Path | None = None,
        stderr: int = subprocess.STDOUT,
        until: re.Pattern[str] = URL,
        lifetime: float = 6 * TIMEOUT,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=directory,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self.pid = self._process.pid
        # A process that hangs is killed with its children. That ends its output, and so every wait
        # for a line.
        self._alarm = threading.Timer(lifetime, self.kill)
        self._alarm.start()
        try:
            found = self.expect(until).groupdict()
            self.url: str = found.get("url") or ""
            self.port = int(found.get("port") or 0)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._alarm.cancel()
        self._alarm.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def expect(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Read lines until one matches."""
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            if match := pattern.search(line):
                return match
            lines.append(line)
        raise AssertionError(
            f"{pattern.pattern!r} was not printed, but {''.join(lines)!r}; the exit code is "
            f"{self._process.wait(TIMEOUT)}"
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to the process and its children, as a terminal does."""
        os.killpg(self.pid, number)

    def wait(self) -> tuple[int, str]:
        """Wait for the exit; return the exit code and the output since the last expected line.

        An orphaned child would keep the output open.
        """
        assert self._process.stdout is not None
        rest = self._process.stdout.read()
        return self._process.wait(TIMEOUT), rest

    def kill(self) -> None:
        """Kill the process group."""
        if sys.platform != "win32":
            with suppress(ProcessLookupError, PermissionError):  # gone, or a zombie
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait(TIMEOUT)


def run(
    arguments: Sequence[str], directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its exit."""
    return subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=directory,
        text=True,
        encoding="utf-8",
        timeout=3 * TIMEOUT,
        check=False,
    )

"""A program on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .waiting import TIMEOUT


class Terminal:
    """A context manager: a program whose input and output are a terminal.

    Attributes:
        transcript: everything that was printed.

    Args:
        command: the program and its arguments.
        state: the directory for what the program keeps.
        columns: the width of the terminal.
        rows: its height.
    """

    def __init__(
        self, command: Sequence[str], state: Path, *, columns: int = 40, rows: int = 10
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(state)}
        environment.pop("NO_COLOR", None)
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            # The terminal sends Ctrl-C to its foreground processes.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._unread = ""
        self.transcript = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT)
        os.close(self._master)

    def type(self, text: str) -> None:
        """Type a text; a surrogate is a byte that is not UTF-8, as :func:`os.fsdecode` has it."""
        os.write(self._master, os.fsencode(text))

    def expect(self, text: str) -> str:
        """Wait until this text is printed; return everything before it."""
        return self.expect_match(re.escape(text))

    def expect_match(self, pattern: str) -> str:
        """Wait until a text that matches is printed; return everything before it."""
        deadline = time.monotonic() + TIMEOUT
        while not (match := re.search(pattern, self._unread)):
            data = self._read(deadline)
            assert data, f"{pattern!r} is not in {self._unread!r}"
            self._unread += data
        before, self._unread = self._unread[: match.start()], self._unread[match.end() :]
        return before

    def wait_for(self, pattern: str, count: int) -> None:
        """Wait until the transcript has this number of matches."""
        deadline = time.monotonic() + TIMEOUT
        while len(re.findall(pattern, self.transcript)) < count:
            data = self._read(deadline)
            assert data, f"fewer than {count} of {pattern!r} are in {self.transcript!r}"
            self._unread += data

    def interrupt(self) -> int:
        """Type Ctrl-C until the program ends; return its exit code.

        A program that is about to wait for its terminal does not notice the first one.
        """
        deadline = time.monotonic() + TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the program; return its exit code."""
        deadline = time.monotonic() + TIMEOUT
        while data := self._read(deadline):
            self._unread += data
        return self._process.wait(TIMEOUT)

    def _read(self, deadline: float) -> str:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return ""
        try:
            text = os.read(self._master, 1 << 16).decode("utf-8", "replace")
        except OSError:  # the program has ended
            return ""
        self.transcript += text
        return text

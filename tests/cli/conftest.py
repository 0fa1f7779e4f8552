"""Fixtures for tests of the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.support.fixtures import certificates, leak_check, log, serve
from tests.support.waiting import TIMEOUT
from wsframe.cli import main

__all__ = ["certificates", "leak_check", "log", "serve"]


@dataclass
class Ran:
    """The result of a command: its exit code and its output, as lines."""

    code: int
    out: list[str]
    err: list[str]
    raw: bytes


Run = Callable[..., Ran]


class Program:
    """A context manager: a command in a process with pipes, which is killed at the end.

    Args:
        *arguments: the arguments of the program.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "wsframe", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell in the background ignores SIGINT, and so do the programs that it starts.
            preexec_fn=None if sys.platform == "win32" else restore_interrupt,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdin, self.stdout, self.stderr = (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT)
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()

    def interrupt(self) -> int:
        """Send SIGINT, as Ctrl-C does, until the program ends; return the exit code.

        A program that is about to wait does not notice the first one.
        """
        deadline = time.monotonic() + TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        return self._process.wait(TIMEOUT)


def restore_interrupt() -> None:
    """Let SIGINT have its effect."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command in this process."""

    def run_here(*arguments: object) -> Ran:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # of argparse
            code = int(exit_.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Ran(
            int(code), out.decode("utf-8", "replace").splitlines(), err.decode().splitlines(), out
        )

    return run_here


class Input:
    """The other end of the standard input."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write these bytes."""
        os.write(self._descriptor, data)

    def close(self) -> None:
        """End the standard input."""
        with suppress(OSError):  # it is closed already
            os.close(self._descriptor)
        self._descriptor = -1


@pytest.fixture
def stdin() -> Iterator[Input]:
    """The standard input of this process is a pipe, until the end of the test."""
    before = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    pipe = Input(writer)
    try:
        yield pipe
    finally:
        pipe.close()
        os.dup2(before, 0)
        os.close(before)

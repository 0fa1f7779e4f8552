"""The loads in C, driven from here; ``native/`` says what they do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from .native import program
from .serving import LOAD_CORE, BenchError, Server, on_core

LONGEST = 120.0  # seconds; the load ends before by itself


def run(mode: str, server: Server, **options: float | str | bool) -> dict[str, Any]:
    """Put a load on a server, and return what was measured.

    Raises:
        BenchError: the server was wrong, or is silent, or gone.
    """
    with _load(["load", mode], server, options) as process:
        try:
            said, complaint = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            raise BenchError(f"no end after {LONGEST:.0f} s") from None
    if process.returncode:
        raise BenchError(complaint.strip())
    measured: dict[str, Any] = json.loads(said)
    return measured


class Idle:
    """Connections that are held, on which an echo can be measured now and then."""

    def __init__(self, process: subprocess.Popen[str], stdin: IO[str], stdout: IO[str]) -> None:
        self._process, self._stdin, self._stdout = process, stdin, stdout

    def ask(self, line: str) -> str:
        """Say a line, and return the answer to it."""
        with suppress(BrokenPipeError):  # then there is no answer, and the load says why
            self._stdin.write(line)
            self._stdin.flush()
        return self.answer()

    def answer(self) -> str:
        """Return the next line that the load says."""
        line = self._stdout.readline()
        if not line:
            raise BenchError(self._process.communicate()[1].strip())
        return line

    def echo(self, times: int) -> dict[str, Any]:
        """Measure echoes, one after another, each on a WebSocket chosen at random."""
        measured: dict[str, Any] = json.loads(self.ask(f"echo {times}\n"))
        return measured


@contextmanager
def idle(server: Server, **options: float | str | bool) -> Iterator[Idle]:
    """Hold connections as long as the context; they must not be lost before its end.

    Raises:
        BenchError: the server was wrong, or is silent, or gone.
    """
    with _load(["load", "idle"], server, options) as process:
        assert process.stdin
        assert process.stdout
        held = Idle(process, process.stdin, process.stdout)
        held.answer()
        yield held
        complaint = process.communicate("quit\n", timeout=LONGEST)[1]
        if process.returncode:
            raise BenchError(complaint.strip())


@contextmanager
def broadcast(server: Server, **options: float | str | bool) -> Iterator[dict[str, Any]]:
    """Have messages sent to many, and give what was measured; the many stay for the context.

    Raises:
        BenchError: the server was wrong, or is silent, or gone.
    """
    with _load(["broadcast"], server, options) as process:
        assert process.stdout
        measured = process.stdout.readline()
        if measured:
            yield json.loads(measured)
        complaint = process.communicate(timeout=LONGEST)[1]
        if process.returncode:
            raise BenchError(complaint.strip())


@contextmanager
def _load(
    command: list[str], server: Server, options: dict[str, float | str | bool]
) -> Iterator[subprocess.Popen[str]]:
    command = [str(program(command[0])), *command[1:], "--port", str(server.port)]
    for pid in server.pids():
        command += ["--pid", str(pid)]
    for name, value in options.items():
        if value is not False:
            command.append(f"--{name.replace('_', '-')}")
            command += [] if value is True else [str(value)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: on_core(LOAD_CORE),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()

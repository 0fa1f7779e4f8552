"""Python's side of the loads in C, which are described in ``native/``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from .native import program
from .serving import LOAD_CORE, BenchError, Server, on_core

LONGEST = 120.0  # seconds; normally the load ends earlier


def run(mode: str, server: Server, **options: float | str | bool) -> dict[str, Any]:
    """Put a load on a server, and return the measurements.

    Raises:
        BenchError: the server sent wrong bytes, was silent for too long, or closed.
    """
    with _load(["load", mode], server, options) as process:
        try:
            output, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            raise BenchError(f"no end after {LONGEST:.0f} s") from None
    if process.returncode:
        raise BenchError(errors.strip())
    measured: dict[str, Any] = json.loads(output)
    return measured


class Idle:
    """Idle connections on which echoes can be measured."""

    def __init__(self, process: subprocess.Popen[str], stdin: IO[str], stdout: IO[str]) -> None:
        self._process, self._stdin, self._stdout = process, stdin, stdout

    def command(self, line: str) -> str:
        """Send a command line, and return the answer."""
        with suppress(BrokenPipeError):  # the load has ended; its exit status and stderr explain it
            self._stdin.write(line)
            self._stdin.flush()
        return self.answer()

    def answer(self) -> str:
        """Return the next line from the load."""
        line = self._stdout.readline()
        if not line:
            raise BenchError(self._process.communicate()[1].strip())
        return line

    def echo(self, times: int) -> dict[str, Any]:
        """Measure consecutive echoes, each on a WebSocket chosen at random."""
        measured: dict[str, Any] = json.loads(self.command(f"echo {times}\n"))
        return measured


@contextmanager
def idle(server: Server, **options: float | str | bool) -> Iterator[Idle]:
    """Hold connections until the end of the context; a lost one is an error.

    Raises:
        BenchError: the server sent wrong bytes, was silent for too long, or closed.
    """
    with _load(["load", "idle"], server, options) as process:
        assert process.stdin
        assert process.stdout
        held = Idle(process, process.stdin, process.stdout)
        held.answer()
        yield held
        errors = process.communicate("quit\n", timeout=LONGEST)[1]
        if process.returncode:
            raise BenchError(errors.strip())


@contextmanager
def broadcast(server: Server, **options: float | str | bool) -> Iterator[dict[str, Any]]:
    """Have messages sent to many clients, and yield the measurements; the clients stay connected.

    Raises:
        BenchError: the server sent wrong bytes, was silent for too long, or closed.
    """
    with _load(["broadcast"], server, options) as process:
        assert process.stdout
        measured = process.stdout.readline()
        if measured:
            yield json.loads(measured)
        errors = process.communicate(timeout=LONGEST)[1]
        if process.returncode:
            raise BenchError(errors.strip())


@contextmanager
def _load(
    command: list[str], server: Server, options: dict[str, float | str | bool]
) -> Iterator[subprocess.Popen[str]]:
    name = f"{command[0]}_tls" if server.tls else command[0]
    command = [str(program(name)), *command[1:], "--port", str(server.port)]
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
        preexec_fn=lambda: on_core(LOAD_CORE, server.pinned),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()

"""The server under attack: a process of its own, and what the system reports of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO

from .peers import get

START_TIME = 30.0


class Target:
    """A server process; a context manager that ends it.

    Args:
        settings: fields of :class:`wsframe.server.Settings`, as ``name=value`` with a literal.
        stderr: where its log goes; None for this process' own.
        runs: whether it is served by ``app.run`` instead of ``app.start``.

    Attributes:
        pid: of the process.
        port: where it listens, on 127.0.0.1.
    """

    def __init__(
        self,
        *settings: str,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
        runs: bool = False,
    ) -> None:
        mode = ["--run"] if runs else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "attack.app", *mode, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=Path(__file__).parent.parent,
            # glibc keeps freed memory in many heaps, one for some threads, and hides the rest.
            env={**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONUNBUFFERED": "1"},
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        alarm = threading.Timer(START_TIME, self._process.kill)
        alarm.start()
        try:
            self.port = int(self._process.stdout.readline())
        finally:
            alarm.cancel()
            alarm.join()

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in (self._process.stdin, self._process.stdout, self._process.stderr):
            if file is not None:
                file.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> IO[bytes]:
        """The reading end of the pipe that ``stderr`` is."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def memory(self) -> int:
        """What the process has of the memory now, in bytes."""
        return self._status("VmRSS")

    @property
    def peak(self) -> int:
        """The most that it has had since :meth:`forget_peak`, in bytes."""
        return self._status("VmHWM")

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return int(self._read_status()["Threads"])

    @property
    def files(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpu(self) -> float:
        """How much processor time it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Begin to measure the peak anew."""
        with suppress(PermissionError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def metric(self, sample: str) -> float:
        """The value of a sample of ``/metrics``, named with its labels."""
        text = get(self.port, "/metrics").decode()
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise KeyError(f"{sample} is not among the metrics")

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until something holds of the process; whether it did in time."""
        deadline = monotonic() + timeout
        while not condition():
            if monotonic() > deadline:
                return False
            sleep(0.02)
        return True

    def _status(self, name: str) -> int:
        return int(self._read_status()[name].split()[0]) << 10

    def _read_status(self) -> dict[str, str]:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return dict(line.split(":", 1) for line in text.splitlines())

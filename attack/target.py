"""The server process under attack, and its resource use as the system reports it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from .peers import get

START_TIME = 60.0


class Target:
    """A server process; as a context manager, it terminates the process.

    Args:
        settings: fields of :class:`wsframe.server.Settings`, as ``name=value`` with a literal.
        stderr: the file for its log; None for this process' own.
        runs: True to serve by ``app.run`` instead of ``app.start``.

    Attributes:
        pid: the id of the process.
        port: its port on 127.0.0.1.
    """

    def __init__(
        self,
        *settings: str,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
        runs: bool = False,
    ) -> None:
        mode = ["--run"] if runs else []
        # With several heaps, glibc keeps freed memory, which would hide real growth.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("COVERAGE_PROCESS_CONFIG", None)  # it would take time and memory
        self._process = subprocess.Popen(
            [sys.executable, "-m", "attack.app", *mode, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=Path(__file__).parent.parent,
            env=environment,
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

    def __exit__(self, *_: object) -> None:
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
        """The reading end of the pipe for ``stderr``."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def memory(self) -> int:
        """The current resident memory of the process, in bytes."""
        return self._status("VmRSS")

    @property
    def peak(self) -> int:
        """The largest resident memory since :meth:`forget_peak`, in bytes."""
        return self._status("VmHWM")

    @property
    def threads(self) -> int:
        """The number of threads."""
        return int(self._read_status()["Threads"])

    @property
    def files(self) -> int:
        """The number of open files."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpu(self) -> float:
        """The processor time used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Reset the peak."""
        with suppress(PermissionError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def metric(self, sample: str) -> float:
        """Return the value of a sample of ``/metrics``, named with its labels."""
        text = get(self.port, "/metrics").decode()
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise KeyError(f"{sample} is not among the metrics")

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30.0) -> bool:
        """Wait for a condition; False after ``timeout`` seconds."""
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

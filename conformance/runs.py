"""One run of the suite: its process and ours, one as the server and one as the client."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, Popen, TimeoutExpired
from time import monotonic, sleep

from . import AGENT, ROOT, suite

REPORTS = ROOT / "build" / "conformance"
HOST = "127.0.0.1"
RUN_TIMEOUT = 3600.0  # seconds
START_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Run:
    """A role and kernels to test.

    Attributes:
        role: "server" or "client".
        kernels: "compiled" or "pure".
    """

    role: str
    kernels: str

    def __str__(self) -> str:
        return f"{self.role}, {self.kernels} kernels"

    @property
    def folder(self) -> Path:
        """The folder of the suite's reports, whose index.html shows every case frame by frame."""
        return REPORTS / f"{self.role}-{self.kernels}"


def execute(run: Run, cases: list[str], messages: int) -> list[suite.Result]:
    """Run these cases, and return their results."""
    folder = run.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = _free_port()
    url = f"ws://{HOST}:{port}"
    if run.role == "server":
        server = [sys.executable, "-m", "conformance.server", HOST, str(port)]
        spec = {"servers": [{"agent": AGENT, "url": url}], "cases": cases}
        client = suite.command("fuzzingclient", spec, folder, messages)
        suite_log = folder / "client.log"
    else:
        server = suite.command("fuzzingserver", {"url": url, "cases": cases}, folder, messages)
        client = [sys.executable, "-m", "conformance.client", url]
        suite_log = folder / "server.log"

    environment = {**os.environ, "WSFRAME_PURE": "1" if run.kernels == "pure" else ""}
    with _process(server, folder / "server.log", environment) as process:
        _wait_until_it_listens(process, port)
        with (
            _process(client, folder / "client.log", environment) as process,
            suppress(TimeoutExpired),  # a case without a result counts as a failure
        ):
            process.wait(RUN_TIMEOUT)
    return suite.read_results(folder, suite_log)


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[Popen[bytes]]:
    """Run a process, and kill it at the end of the block."""
    with log.open("w") as file:
        process = Popen(command, stdout=file, stderr=STDOUT, env=environment, cwd=ROOT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _wait_until_it_listens(process: Popen[bytes], port: int) -> None:
    deadline = monotonic() + START_TIMEOUT
    while monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        sleep(0.05)

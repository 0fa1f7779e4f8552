"""The servers, each in a new process on its own core."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic, sleep

from .native import program

LIMIT, PYTHON_LIMIT = "c_epoll", "python_loop"
GENERATOR, THREAD = "wsframe_generator", "wsframe_thread"
PICOWS, WEBSOCKETS = "picows_uvloop", "websockets_sync"
ASYNC_PEERS = (PICOWS, "aiohttp_uvloop", "uvicorn_uvloop", "websockets_asyncio")
SERVERS = (LIMIT, GENERATOR, THREAD, *ASYNC_PEERS, WEBSOCKETS)

_cores = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _cores[0], _cores[-1]


class BenchError(Exception):
    """A server failed, or the load found an error."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    pid: int

    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def threads(self) -> int:
        """Return the number of threads of its first process."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self) -> int:
        """Return the resident memory of its first process, in KiB."""
        return self._kib("smaps_rollup", "Rss:")

    def peak(self) -> int:
        """Return the peak resident memory of its first process, in KiB."""
        return self._kib("status", "VmHWM:")

    def _kib(self, file: str, field: str) -> int:
        lines = Path(f"/proc/{self.pid}/{file}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))


def on_core(core: int) -> None:
    """Pin this process to a core, and raise its open-file limit."""
    os.sched_setaffinity(0, {core})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def serve(name: str, package: str = "echo", *, python: str = sys.executable) -> Iterator[Server]:
    """Run the limit, or a server of a package here with this Python, until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    module = f"bench.{package}.{name}"
    command = [str(program("limit"))] if name == LIMIT else [python, "-m", module]
    with TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, str(port)],
            stdout=subprocess.DEVNULL,
            stderr=output,
            preexec_fn=lambda: on_core(SERVER_CORE),
        )
        try:
            deadline = monotonic() + 10
            while monotonic() < deadline and process.poll() is None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                sleep(0.02)
            else:
                output.seek(0)
                lines = output.read().decode(errors="replace").splitlines() or ["no output"]
                raise BenchError(f"the server did not start: {lines[-1]}")
            yield Server(port, process.pid)
        finally:
            process.kill()
            process.wait()

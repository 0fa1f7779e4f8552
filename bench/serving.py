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

from .certificate import certificate
from .given import CERT, KEY
from .native import program

LIMIT, PYTHON_LIMIT = "c_epoll", "python_loop"
GENERATOR, THREAD, NO_SPIN = "wsframe_generator", "wsframe_thread", "wsframe_no_spin"
WEBSOCKETS_SYNC = "websockets_sync"

# Libraries on asyncio, and their loops: the name of a server is "picows_uvloop_aiofastnet".
PICOWS, AIOHTTP, UVICORN, WEBSOCKETS = "picows", "aiohttp", "uvicorn", "websockets"
LIBRARIES = (PICOWS, AIOHTTP, UVICORN, WEBSOCKETS)
UVLOOP, ASYNCIO = "uvloop", "asyncio"
# uvicorn on uvloop with wsframe, and with its slower implementations of WebSockets.
UVICORN_WSFRAME = "uvicorn_wsframe"
UVICORN_IMPLEMENTATIONS = {
    UVICORN_WSFRAME: "wsframe.uvicorn:WebSocketProtocol",
    "uvicorn_legacy": "websockets",
    "uvicorn_wsproto": "wsproto",
}
UVLOOP_FASTNET, ASYNCIO_FASTNET = "uvloop_aiofastnet", "asyncio_aiofastnet"
LOOPS = (UVLOOP, ASYNCIO, UVLOOP_FASTNET, ASYNCIO_FASTNET)


def variants(library: str, *loops: str) -> tuple[str, ...]:
    """Return the names of the servers of a library on these loops, or on all."""
    return tuple(f"{library}_{loop}" for loop in loops or LOOPS)


_cores = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _cores[0], _cores[-1]


class BenchError(Exception):
    """A server failed, or the load found an error."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: its port on 127.0.0.1.
        pid: the id of its first process.
        tls: True if it uses TLS.
        pinned: True if it and its load have a core each; otherwise they share all cores.
    """

    port: int
    pid: int
    tls: bool
    pinned: bool

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


def on_core(core: int, pinned: bool = True) -> None:
    """Raise the open-file limit of this process, and pin it to a core."""
    if pinned:
        os.sched_setaffinity(0, {core})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _command(name: str, package: str, python: str, port: str) -> list[str]:
    """Return the command for a server."""
    if name == LIMIT:
        return [str(program("limit")), port]
    library, _, loop = name.partition("_")
    if name == NO_SPIN:
        module, argument = GENERATOR, ["no_spin"]
    elif name in UVICORN_IMPLEMENTATIONS:
        module, argument = "with_uvicorn", [UVLOOP, UVICORN_IMPLEMENTATIONS[name]]
    elif library in LIBRARIES and loop in LOOPS:
        module, argument = f"with_{library}", [loop]
    else:
        module, argument = name, []
    return [python, "-m", f"bench.{package}.{module}", port, *argument]


@contextmanager
def serve(
    name: str,
    package: str = "echo",
    *arguments: str,
    python: str = sys.executable,
    tls: bool = False,
    pinned: bool = True,
) -> Iterator[Server]:
    """Run the limit, or a server of a package here with this Python, until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = dict(os.environ)
    if tls:
        environment[CERT], environment[KEY] = certificate()
    with TemporaryFile() as output:
        process = subprocess.Popen(
            [*_command(name, package, python, str(port)), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=environment,
            preexec_fn=lambda: on_core(SERVER_CORE, pinned),
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
            yield Server(port, process.pid, tls, pinned)
        finally:
            process.kill()
            process.wait()

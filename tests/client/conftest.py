"""The client on both kernels, and servers that are stopped at the end of the test."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from typing import Any, Protocol

import pytest

from tests.support.certificates import Certificates
from tests.support.fixtures import certificates, leak_check, log, serve
from tests.support.log import ServerLog
from tests.support.scripted import Script, ScriptedServer
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT

__all__ = [
    "Certificates",
    "Connect",
    "Serve",
    "ServerLog",
    "certificates",
    "leak_check",
    "log",
    "serve",
]

Connect = Callable[..., Any]


class Play(Protocol):
    """Start a server that runs these scripts, one per client."""

    def __call__(
        self,
        *scripts: Script,
        receive_buffer: int | None = ...,
        tls: ssl.SSLContext | None = ...,
        host: str = ...,
    ) -> ScriptedServer: ...


class Resolve(Protocol):
    """Resolve every name to these ports of this machine; return the list of later look-ups."""

    def __call__(self, *ports: int) -> list[tuple[str, int]]: ...


class InThread(Protocol):
    """Run a function in a new thread."""

    def __call__(self, function: Callable[..., Any], *arguments: object) -> Future[Any]: ...


@pytest.fixture
def play(leak_check: None) -> Iterator[Play]:
    """Starts scripted servers; an exception in a script fails the test."""
    with ExitStack() as servers:

        def start(*scripts: Script, **options: Any) -> ScriptedServer:
            server = ScriptedServer(*scripts, **options)
            servers.callback(server.stop)
            return server

        yield start


@pytest.fixture
def in_thread(play: Play, serve: Serve) -> Iterator[InThread]:
    """Runs functions in threads; ``.result(TIMEOUT)`` waits for a result."""
    with ExitStack() as threads:

        def run(function: Callable[..., Any], *arguments: object) -> Future[Any]:
            future: Future[Any] = Future()

            def work() -> None:
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:
                    future.set_exception(error)

            thread = threading.Thread(target=work)
            thread.start()
            threads.callback(thread.join, TIMEOUT)
            return future

        yield run


@pytest.fixture
def connect(codec: ModuleType, in_thread: InThread) -> Iterator[Connect]:
    """Opens WebSockets with bounded waits, and closes them before the servers are stopped."""
    with ExitStack() as clients:

        def open_websocket(url: str, **options: Any) -> Any:
            bounds = {"close_timeout": TIMEOUT, "open_timeout": TIMEOUT, "send_timeout": TIMEOUT}
            ws = codec.client.connect(url, **(bounds | options))
            clients.callback(ws.close)
            return ws

        yield open_websocket


@pytest.fixture
def events(
    codec: ModuleType,
    in_thread: InThread,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Connect]:
    """Opens event streams with bounded waits, and closes them before the servers are stopped."""
    if "waits" not in request.fixturenames:  # see the tests of the delay
        pause = partial(codec.client.pause.Pause, min_retry=0.01)
        monkeypatch.setattr(codec.client.eventsource, "Pause", pause)
    with ExitStack() as clients:

        def open_stream(url: str, **options: Any) -> Any:
            bounds = {"open_timeout": TIMEOUT, "read_timeout": TIMEOUT, "retry": 0}
            source = codec.client.events(url, **(bounds | options))
            clients.callback(source.close)
            return source

        yield open_stream


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Replaces the system's name lookup."""

    def lead(*ports: int) -> list[tuple[str, int]]:
        asked = []

        def look_up(host: str, port: int, **options: object) -> list[Any]:
            asked.append((host, port))
            kind = socket.AF_INET, socket.SOCK_STREAM, 0, ""
            return [(*kind, ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return lead

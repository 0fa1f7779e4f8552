"""The client on either kernel, and servers for it that are gone when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any, Protocol

import pytest

from ..server.conftest import Serve, ServerLog, log, nothing_left_behind, serve
from .servers import TIMEOUT, Script, ScriptedServer

__all__ = ["Connect", "Serve", "ServerLog", "log", "nothing_left_behind", "serve"]

Connect = Callable[..., Any]


class Play(Protocol):
    """Start a server that follows these scripts, a client each."""

    def __call__(self, *scripts: Script, receive_buffer: int | None = ...) -> ScriptedServer: ...


@pytest.fixture
def play(nothing_left_behind: None) -> Iterator[Play]:
    """Starts scripted servers; what a script raises fails the test."""
    with ExitStack() as servers:

        def start(*scripts: Script, receive_buffer: int | None = None) -> ScriptedServer:
            server = ScriptedServer(*scripts, receive_buffer=receive_buffer)
            servers.callback(server.stop)
            return server

        yield start


@pytest.fixture
def connect(codec: ModuleType, play: Play, serve: Serve) -> Iterator[Connect]:
    """Opens WebSockets, with bounded waits, that are closed before the servers are stopped."""
    with ExitStack() as clients:

        def open_websocket(url: str, **options: Any) -> Any:
            bounds = {"close_timeout": TIMEOUT, "open_timeout": TIMEOUT, "send_timeout": TIMEOUT}
            ws = codec.client.connect(url, **(bounds | options))
            clients.callback(ws.close)
            return ws

        yield open_websocket

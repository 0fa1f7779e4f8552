"""The fixtures of tests with uvicorn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import pytest

from .uvicorn_server import UvicornServer


class StartUvicorn(Protocol):
    """Start a server, which is stopped at the end of the test."""

    def __call__(self, app: Any, **settings: Any) -> UvicornServer: ...


@pytest.fixture(scope="session", autouse=True)
def uvloop_pipe() -> None:
    """Let uvloop open the pipe that it keeps until the process ends."""
    with suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.sleep(0))


@pytest.fixture
def uvicorn_servers(leak_check: None) -> Iterator[StartUvicorn]:
    """Start servers; the test fails if one logs an error that the test does not expect."""
    with ExitStack() as stack:
        servers = []

        def start(app: Any, **settings: Any) -> UvicornServer:
            server = UvicornServer(app, **settings)
            servers.append(server)
            return stack.enter_context(server)

        yield start
    records = [record for server in servers for record in server.log.records]
    assert not [logging.Formatter().format(record) for record in records]

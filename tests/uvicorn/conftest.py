"""A uvicorn server with our class, and clients, with a check that they release all resources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests.support.clients import Clients
from tests.support.fixtures import certificates, high_file_limit
from tests.support.uvicorn_fixtures import StartUvicorn, uvicorn_servers, uvloop_pipe
from tests.support.uvicorn_server import UvicornServer
from wsframe.testing import leak_check as checked
from wsframe.uvicorn import Timing, WebSocketProtocol

__all__ = ["certificates", "high_file_limit", "uvicorn_servers", "uvloop_pipe"]

DEFAULT = Timing()


class Serve(Protocol):
    """Start a server with these durations, which is stopped at the end of the test."""

    def __call__(self, app: Any, timing: Timing = ..., **settings: Any) -> UvicornServer: ...


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    """Fail if the test leaves a thread or an open file behind."""
    with checked():
        yield


@pytest.fixture
def serve(uvicorn_servers: StartUvicorn) -> Serve:
    """Start servers with our class."""

    def start(app: Any, timing: Timing = DEFAULT, **settings: Any) -> UvicornServer:
        protocol = type("Protocol", (WebSocketProtocol,), {"timing": timing})
        return uvicorn_servers(app, ws=protocol, **settings)

    return start


@pytest.fixture
def clients(serve: Serve) -> Iterator[Clients]:
    """The clients of a test."""
    with Clients() as clients:
        yield clients

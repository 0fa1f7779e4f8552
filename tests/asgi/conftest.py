"""A uvicorn server, and clients of its event streams, with a check that nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from tests.support.fixtures import high_file_limit, leak_check, log, redis_server
from tests.support.uvicorn_fixtures import StartUvicorn, uvicorn_servers, uvloop_pipe
from tests.support.uvicorn_server import UvicornServer
from wsframe.asgi import Topics

from .streams import ChunkedStream

__all__ = ["high_file_limit", "leak_check", "log", "redis_server", "uvicorn_servers", "uvloop_pipe"]


class Open(Protocol):
    """Open an event stream, which is closed at the end of the test."""

    def __call__(
        self, server: UvicornServer, target: str = ..., *headers: tuple[str, str], **options: Any
    ) -> ChunkedStream: ...


@pytest.fixture
def topics(leak_check: None) -> Iterator[Topics]:
    """The topics of an application."""
    topics = Topics()
    yield topics
    topics.close()


@pytest.fixture
def serve(topics: Topics, uvicorn_servers: StartUvicorn) -> StartUvicorn:
    """Start servers, which stop before the topics are closed."""
    return uvicorn_servers


@pytest.fixture
def connect(serve: StartUvicorn) -> Iterator[Open]:
    """Open event streams, whose clients disconnect before the servers stop."""
    with ExitStack() as stack:

        def start(
            server: UvicornServer, target: str = "/", *headers: tuple[str, str], **options: Any
        ) -> ChunkedStream:
            client = ChunkedStream(server.port, target, *headers, **options)
            stack.callback(client.close)
            return client

        yield start

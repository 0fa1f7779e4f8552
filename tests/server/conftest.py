"""A server and its clients, with a check that they release all resources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.support.clients import Clients
from tests.support.fixtures import (
    certificates,
    high_file_limit,
    leak_check,
    log,
    redis_server,
    serve,
    stack,
)
from tests.support.recording import Connect
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe.server import EventsLost
from wsframe.server.timing import Timing
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.sizes import DEFAULT_SIZES, Sizes

__all__ = ["certificates", "high_file_limit", "leak_check", "log", "redis_server", "serve", "stack"]


@pytest.fixture
def clients(serve: Serve) -> Iterator[Clients]:
    """The clients of a test."""
    with Clients() as clients:
        yield clients


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that connects to Redis like a process of its own."""
    with ExitStack() as stack:

        def close(streams: RedisStreams) -> None:
            with suppress(EventsLost):  # a test that cares has checked before
                streams.close(TIMEOUT)

        def make(
            url: str, prefix: str = "wsframe:", sizes: Sizes = DEFAULT_SIZES, **timing: float
        ) -> RedisStreams:
            timings = Timing(**timing)  # type: ignore[arg-type]
            streams = RedisStreams(url, prefix, timings, sizes)
            stack.callback(close, streams)
            stack.callback(streams.channels.stop)
            return streams

        yield make


@pytest.fixture
def streams(redis_server: RedisServer, connect: Connect) -> RedisStreams:
    return connect(redis_server.url)


@pytest.fixture
def others(redis_server: RedisServer, connect: Connect) -> RedisStreams:
    """Those of another process."""
    return connect(redis_server.url)

"""The fixtures of tests with a server: its log, a leak check, certificates, a stack, Redis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from wsframe.server import App, Server
from wsframe.server.reports.loggers import background
from wsframe.testing import leak_check as checked

from . import serving
from .certificates import Certificates
from .log import ServerLog
from .redis_server import RedisServer
from .serving import Serve
from .waiting import TIMEOUT

MANY_FILES = 4000


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """A stack of the resources of a test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for this test alone."""
    with RedisServer(tmp_path) as redis_server:
        yield redis_server


@pytest.fixture(autouse=True)
def log() -> Iterator[ServerLog]:
    """The server's log; the test fails if it contains an error that the test does not expect."""
    logger = logging.getLogger("wsframe.server")
    handler = ServerLog()
    logger.addHandler(handler)
    yield handler
    assert background.close(TIMEOUT)
    logger.removeHandler(handler)
    errors = [record for record in handler.records if record.levelno >= logging.ERROR]
    assert not [logging.Formatter().format(record) for record in errors]


@pytest.fixture(autouse=True)
def leak_check(log: ServerLog) -> Iterator[None]:
    """Fail if the test leaves a thread or an open file behind."""
    with checked():
        yield
        background.close(TIMEOUT)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers, on free ports of 127.0.0.1, that are stopped at the end of the test."""
    with ExitStack() as servers:

        def start(app: App, *, host: str = "127.0.0.1", **settings: Any) -> Server:
            return servers.enter_context(serving.serve(app, host, **settings))

        yield start


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """Certificates of an authority that only the tests trust."""
    return Certificates()


@pytest.fixture
def high_file_limit() -> Iterator[None]:
    """Raise the limit of open files for this process and its child processes."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limits[1] < MANY_FILES:
        pytest.skip("the limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)

"""The fixtures of every test with a server: its log, a leak check, certificates."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from wsframe.server import App, Server
from wsframe.server.reports.loggers import background

from . import leaks, serving
from .certificates import Certificates
from .log import ServerLog
from .serving import Serve
from .waiting import TIMEOUT


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
    with leaks.leak_check():
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

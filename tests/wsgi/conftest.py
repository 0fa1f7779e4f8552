"""A Live that is stopped at the end of the test, and the WSGI servers in its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import Client
from tests.support.fixtures import certificates, leak_check, log, redis_server, stack
from wsframe.wsgi import Live

__all__ = ["Certificates", "certificates", "leak_check", "log", "redis_server", "stack"]


class MakeLive(Protocol):
    """Make a Live, which is stopped at the end of the test."""

    def __call__(self, kind: type[Live] = Live, **settings: Any) -> Live: ...


@pytest.fixture
def make_live() -> Iterator[MakeLive]:
    """Make a Live, which is stopped at the end of the test."""
    with ExitStack() as stack:

        def make(kind: type[Live] = Live, **settings: Any) -> Live:
            live = kind(**{"loops": 1, "drain": 0.0, **settings})
            stack.callback(live.stop)
            return live

        yield make


@pytest.fixture
def live(make_live: MakeLive) -> Live:
    """A Live with one loop."""
    return make_live()


class Open(Protocol):
    """Open a client, which is closed at the end of the test."""

    def __call__(self, port: int, **options: Any) -> Client: ...


@pytest.fixture
def open_client() -> Iterator[Open]:
    """Open a client, which is closed at the end of the test."""
    with ExitStack() as stack:

        def connect(port: int, **options: Any) -> Client:
            client = Client(port, **options)
            stack.callback(client.close)
            return client

        yield connect

"""Apps and clients for tests of shutdown."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.clients import AnyClient
from tests.support.waiting import TIMEOUT
from wsframe import Close
from wsframe.server import (
    Server,
)

GOING_AWAY = Close(1001, "the server is shutting down")


# A spread of as many seconds: after the first, no client's turn comes while a test runs.
AGES = 1e6


@contextmanager
def stopping(server: Server, spread: float = 0) -> Iterator[None]:
    """Stop the server meanwhile; it must have ended soon after."""
    thread = threading.Thread(target=server.stop, kwargs={"spread": spread}, daemon=True)
    thread.start()
    yield
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the server does not stop"


def the_one_that_was_told(open_ones: list[AnyClient]) -> AnyClient:
    """Wait for the server to say something to one of them, and take that one off the list."""
    (sock, *_), _, _ = select.select([client.sock for client in open_ones], [], [], TIMEOUT)
    told = next(client for client in open_ones if client.sock is sock)
    open_ones.remove(told)
    return told

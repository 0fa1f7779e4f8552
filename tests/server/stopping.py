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


# A spread in seconds: after the first client, no further one is closed while a test runs.
AGES = 1e6


@contextmanager
def stopping(server: Server, spread: float = 0) -> Iterator[None]:
    """Stop the server while the body runs; it must end soon afterwards."""
    thread = threading.Thread(target=server.stop, kwargs={"spread": spread}, daemon=True)
    thread.start()
    yield
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the server has not stopped"


def next_closed(open_ones: list[AnyClient]) -> AnyClient:
    """Wait until the server sends to one of the clients; remove it from the list."""
    (sock, *_), _, _ = select.select([client.sock for client in open_ones], [], [], TIMEOUT)
    closed = next(client for client in open_ones if client.sock is sock)
    open_ones.remove(closed)
    return closed

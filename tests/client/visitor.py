"""A client of a hostile server, for the measurements of :mod:`tests.support.memory`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from tests.support.memory import Growth
from tests.support.waiting import TIMEOUT
from wsframe import ConnectionClosed
from wsframe.client import connect


@dataclass
class Visited:
    """The result of a client.

    Attributes:
        growth: the most memory that it takes.
        received: the received messages.
        code: the close code.
        reason: the close reason.
    """

    growth: int
    received: list[str | bytes]
    code: int | None
    reason: str | None


def visit(url: str, message: bytes) -> Visited:
    """Connect to a server, send this, and receive until the end."""
    ws = connect(url, close_timeout=TIMEOUT)
    with Growth() as growth:
        with suppress(ConnectionClosed):
            ws.send(message)
        received = list(ws)
    return Visited(growth.size, received, ws.close_code, ws.close_reason)

"""The list of the open connections, which any thread can request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import sleep
from typing import Literal, TypeVar, cast

from ..reports.stats import REQUEST
from .clients import Clients

# After this many connections the thread pauses, so that a loop can get the GIL.
BATCH = 64
PAUSE = 0.0001  # seconds

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """An open WebSocket or event stream, as of the call of :meth:`wsframe.server.App.connections`.

    >>> ConnectionInfo("websocket", "/chat", "192.0.2.1", "42", seconds=12.5, unsent=0).identity
    '42'

    Attributes:
        kind: "websocket" or "event_stream".
        path: the path of the request, percent-decoded and without the query.
        client: the client's address without the port, as trusted proxies report it; "unix" for a
            client of a unix socket.
        identity: the text of the connection's identity; None without one.
        seconds: the time since the connection was accepted.
        unsent: the number of queued bytes that the system has not accepted yet.
    """

    kind: Literal["websocket", "event_stream"]
    path: str
    client: str
    identity: str | None
    seconds: float
    unsent: int


def paced(items: Iterable[Item]) -> Iterator[Item]:
    """Any thread: yield the items, with pauses in which a loop can get the GIL."""
    for number, item in enumerate(items):
        if number % BATCH == BATCH - 1:
            sleep(PAUSE)
        yield item


def connections_of(groups: Iterable[Clients]) -> list[ConnectionInfo]:
    """Any thread: return the open WebSockets and event streams of these loops."""
    found = []
    for clients in groups:
        now = clients.loop.timing.clock()
        for peer in paced(clients.open_peers()):
            record = peer.record
            request, kind = record.request, record.kind
            if request is None or kind == REQUEST or peer.closed:
                continue
            found.append(
                ConnectionInfo(
                    cast(Literal["websocket", "event_stream"], kind),
                    request.path,
                    request.client,
                    peer.identity,
                    max(0.0, now - peer.opened),
                    peer.unsent,
                )
            )
    return found

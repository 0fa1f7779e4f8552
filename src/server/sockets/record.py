"""The facts about one connection that the request log and the statistics report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..reports.stats import REQUEST

if TYPE_CHECKING:
    from wsframe import ConnectionClosed


class RequestFacts(Protocol):
    """The part of a request that the request log contains."""

    @property
    def client(self) -> str:
        """The client's address, as trusted proxies report it."""

    @property
    def method(self) -> str:
        """The HTTP method, such as "GET"."""

    @property
    def path(self) -> str:
        """The path in normal form, without the query."""

    @property
    def user_agent(self) -> str | None:
        """The User-Agent header."""


class ConnectionRecord:
    """The facts about one connection beyond its socket; only the owner changes them.

    Attributes:
        request: the request that opened the connection; None before it is complete.
        kind: the kind of connection in the statistics: request, WebSocket or event stream.
        status: the status of the answer; 0 before the answer.
        headers: further headers of the answer, for example for pages of other sites (CORS).
        subprotocol: the subprotocol of a WebSocket.
        end: the close code and reason of a WebSocket.
    """

    __slots__ = ("end", "headers", "kind", "request", "status", "subprotocol")

    def __init__(self) -> None:
        self.request: RequestFacts | None = None
        self.kind: str = REQUEST
        self.status: int = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        self.subprotocol: str | None = None
        self.end: ConnectionClosed | None = None

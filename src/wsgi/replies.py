"""The replies to requests: a complete answer, a connection that is taken over, or a relay."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from wsframe import HandshakeError
from wsframe.headers import check_field

from ..server.forks import disconnect
from .connections import Connection, Taken
from .environ import Pairs, StartResponse
from .errors import CannotTakeError

if TYPE_CHECKING:
    from ..server.dispatch.opening import Opening
    from ..server.server import Server

# Headers of a framework's response that are not copied to the response of the connection.
NOT_PASSED_ON = frozenset(
    (
        *("accept-ranges", "age", "allow", "cache-control", "connection", "content-disposition"),
        *("content-encoding", "content-language", "content-length", "content-location"),
        *("content-md5", "content-range", "content-type", "date", "etag", "expires", "keep-alive"),
        *("last-modified", "location", "pragma", "proxy-connection", "retry-after", "server", "te"),
        *("trailer", "transfer-encoding", "upgrade", "www-authenticate", "x-accel-buffering"),
    )
)
# Headers of a connection, which a WSGI application must not set (PEP 3333).
HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "upgrade"))


def status_line(status: int) -> str:
    """Return a status as a WSGI server expects it."""
    return f"{int(status)} {HTTPStatus(status).phrase}"


class Reply(ABC):
    """The reply to a request, as an iterable that a WSGI server sends.

    A framework may send the reply itself. It sends the status and the headers, passes its own
    headers to :meth:`add_headers`, iterates over the reply, and then calls :meth:`close`.

    >>> reply = Answer(200, [("Content-Type", "text/plain")], b"hello")
    >>> reply.add_headers([("Set-Cookie", "a=1")])
    >>> b"".join(reply)
    b'hello'

    Attributes:
        status: the status.
        headers: the headers, as (name, value) pairs.
    """

    status: int
    headers: list[tuple[str, str]]

    def __call__(self, environ: Any, start_response: StartResponse) -> Reply:
        """The request's thread: start the response, as a WSGI application."""
        self.start(start_response)
        return self

    def start(self, start_response: StartResponse) -> None:
        """The request's thread: start the response with the status and the headers."""
        start_response(status_line(self.status), self.headers)

    def add_headers(self, headers: Pairs) -> None:
        """The request's thread: add headers of a framework's response, such as Set-Cookie.

        Headers of a body or of the connection are ignored, and headers that the reply already has.

        Raises:
            ValueError: a name or a value is not valid.
        """
        own = {name.lower() for name, _ in self.headers}
        added = []
        for name, value in headers:
            lower = name.lower()
            if not (lower in NOT_PASSED_ON or lower in own or lower.startswith("sec-websocket-")):
                check_field(name, value)
                added.append((name, value))
        self._add(added)

    @abstractmethod
    def _add(self, headers: list[tuple[str, str]]) -> None:
        """The request's thread: add headers to the answer that the client receives."""

    def __iter__(self) -> Iterator[bytes]:
        """The request's thread: return this reply."""
        return self

    @abstractmethod
    def __next__(self) -> bytes:
        """The request's thread: return the next part of the body."""

    @abstractmethod
    def close(self) -> None:
        """The request's thread: release the reply; WSGI servers call this at its end."""


class Answer(Reply):
    """A reply that is a complete response, such as a refusal.

    >>> Answer.refusal(HandshakeError(403, "not allowed")).status
    403

    Attributes:
        body: the body.
    """

    def __init__(self, status: int, headers: Pairs, body: bytes = b"") -> None:
        self.status = status
        self.headers: list[tuple[str, str]] = [
            pair for pair in headers if pair[0].lower() not in HOP_BY_HOP
        ]
        self.body = body
        self._parts = iter((body,) if body else ())

    @classmethod
    def refusal(cls, error: HandshakeError, *, with_body: bool = True) -> Answer:
        """Any thread: return the answer for an error."""
        body = f"{error.reason}\n".encode()
        headers = [
            *error.headers,
            ("Content-Type", "text/plain; charset=utf-8"),
            ("X-Content-Type-Options", "nosniff"),  # WHATWG Fetch section 3.6
            ("Content-Length", str(len(body))),
        ]
        return cls(error.status, headers, body if with_body else b"")

    def _add(self, headers: list[tuple[str, str]]) -> None:
        self.headers.extend(headers)

    def __next__(self) -> bytes:
        """The request's thread: return the body, once."""
        return next(self._parts)

    def close(self) -> None:
        """The request's thread: do nothing."""


class Takeover(Reply):
    """A reply that takes the connection over when the server iterates over the body.

    At that time all middleware has run, and the server has sent no byte. The body is empty.

    Args:
        server: the server for the connection.
        connection: the connection.
        opening: the request and its session; the bytes after the request are added to it.
        headers: the headers for the server and middleware; the client receives the session's
            headers.
        on_failure: called with the reason if the connection is not taken over.
    """

    def __init__(
        self,
        server: Server,
        connection: Connection,
        opening: Opening,
        headers: Pairs,
        on_failure: Callable[[str], object],
    ) -> None:
        self.status = 101 if opening.acceptance is not None else 200
        self.headers: list[tuple[str, str]] = list(headers)
        self._server = server
        self._connection = connection
        self._opening = opening
        self._on_failure = on_failure
        # A list with one item. The thread that pops the item takes the connection over. close()
        # also pops the item, so that no connection is taken over later.
        self._pending: list[None] = [None]
        self._start_response: StartResponse | None = None
        self._answer: Iterator[bytes] = iter(())

    def start(self, start_response: StartResponse) -> None:
        """The request's thread: start the response; an error can still replace its status."""
        self._start_response = start_response
        super().start(start_response)

    def _add(self, headers: list[tuple[str, str]]) -> None:
        self._opening = replace(self._opening, headers=(*self._opening.headers, *headers))

    def __next__(self) -> bytes:
        """The request's thread: take the connection over, and end the iteration."""
        try:
            self._pending.pop()
        except IndexError:
            return next(self._answer)
        try:
            taken = self._connection.take(upgrade=self.status == 101)
        except (CannotTakeError, OSError) as error:
            self._fail(error)
            return next(self._answer)
        self._begin(taken)
        raise StopIteration

    def _begin(self, taken: Taken) -> None:
        """Pass the connection to the server."""
        self._server.discard_from(taken.other_end)
        opening = self._opening
        opening.request.address = taken.address
        if opening.acceptance is not None:
            opening = replace(opening, rest=taken.rest)
        try:
            self._server.adopt(taken.sock, taken.address, opening)
        except RuntimeError:  # the process is exiting; the client reconnects to another one
            disconnect(taken.sock)

    def _fail(self, error: Exception) -> None:
        """Answer with an error, because the connection was not taken over.

        If a framework has started the response itself, only an exception prevents a 101.
        """
        self._on_failure(str(error))
        refusal = HandshakeError(503, "the connection cannot be taken over", [("Retry-After", "5")])
        if self._start_response is None:
            raise refusal
        answer = Answer.refusal(refusal)
        # PEP 3333 permits another status, because the server has not sent the headers.
        try:
            raise refusal
        except HandshakeError:
            exc_info = sys.exc_info()
            with suppress(SystemError):  # uWSGI sets the new status, but raises an error
                self._start_response(status_line(answer.status), answer.headers, exc_info)
        self._answer = answer

    def close(self) -> None:
        """The request's thread: end the reply; if it was not iterated over, take no connection."""
        with suppress(IndexError):
            self._pending.pop()
            self._on_failure(
                "the response was closed without being sent; a middleware may have replaced it or "
                "its status, or the client has disconnected"
            )

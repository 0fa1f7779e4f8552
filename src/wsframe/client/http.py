"""One GET over a connection of its own, and the answer as it comes."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse
from ssl import SSLContext
from typing import TYPE_CHECKING, cast

from ..fields import encode_head
from .dial import Line, Location, dial, set_deadline

if TYPE_CHECKING:
    from typing_extensions import Buffer

READ_SIZE = 1 << 16
# RFC 9110 section 15.2: to be passed over, though nobody asked for them. HTTPResponse knows of 100.
INTERIM = range(102, 200)


class Answer:
    """An answer whose head has come.

    Attributes:
        status: of the answer.
        headers: of the answer, as (name, value) pairs.
        content_type: without parameters and in lower case.
    """

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = tuple(response.getheaders())
        self.content_type = response.headers.get_content_type()
        self._response = response

    def header(self, name: str) -> str | None:
        """The value of a header; None where it is missing."""
        return self._response.headers[name]

    def read(self) -> bytes:
        """Wait for the next bytes of the body; b"" at its end.

        Raises:
            OSError: the connection is lost, or nothing came in the time that the socket allows.
        """
        try:
            return self._response.read1(READ_SIZE)
        except HTTPException as error:
            raise _malformed(error) from error


def get(
    location: Location,
    headers: Iterable[tuple[str, str]],
    *,
    deadline: float,
    ssl: SSLContext | None,
    timeout: float | None,
    line: Line,
) -> Answer:
    """Ask for a resource, and wait for the head of the answer.

    Args:
        location: where it is.
        headers: of the request.
        deadline: when, on the monotonic clock, the head must have come.
        ssl: as for :func:`dial`.
        timeout: how long the body may be silent, in seconds; None for as long as it likes.
        line: as for :func:`dial`.

    Raises:
        OSError: there is no connection, or no proper answer.
    """
    sock = dial(location, deadline, ssl, line)
    sock.sendall(encode_head(f"GET {location.target} HTTP/1.1", headers))
    source = _Source(sock, deadline)
    response = HTTPResponse(cast("socket.socket", source), method="GET")
    try:
        response.begin()
        while response.status in INTERIM:
            response.headers = None  # type: ignore[assignment]  # else it has begun
            response.begin()
    except HTTPException as error:
        raise _malformed(error) from error
    source.deadline = None
    sock.settimeout(timeout)
    return Answer(response)


def _malformed(error: HTTPException) -> ConnectionError:
    return ConnectionError(f"the answer is malformed: {error!r}")


class _Source(io.RawIOBase):
    """What HTTPResponse reads from: a socket that, while it has a deadline, keeps it."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.deadline: float | None = deadline
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Reader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        if self.deadline is not None:
            set_deadline(self._sock, self.deadline)
        return self._sock.recv_into(buffer)


class _Reader(io.BufferedReader):
    """What HTTPResponse flushes when it is thrown away, though this may have been so before."""

    def flush(self) -> None:
        pass

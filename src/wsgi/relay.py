"""Event streams on servers without a usable socket: the request's thread copies the data."""

from __future__ import annotations

import socket
from contextlib import suppress

from wsframe import HandshakeError
from wsframe.fields import decode_response
from wsframe.headers import encode_response

from ..server.dispatch.opening import Opening
from ..server.http.refusals import RefusalError
from ..server.reports.refusals import CONNECTIONS
from ..server.server import Server
from ..server.sessions.eventstream_session import STREAM_HEADERS
from .environ import StartResponse
from .replies import HOP_BY_HOP, Reply

READ_SIZE = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"
UNAVAILABLE = encode_response(503, [("Retry-After", "5"), ("Content-Length", "0")])


class Relay(Reply):
    """An event stream that the request's thread copies from the loop to the WSGI server.

    The loop serves one end of a pair of sockets like a client's socket. The stream occupies the
    request's thread until it ends.

    Args:
        server: the server of the event stream.
        opening: the request and its session.
    """

    def __init__(self, server: Server, opening: Opening) -> None:
        self.status: int = 200
        self.headers: list[tuple[str, str]] = [*STREAM_HEADERS, *opening.headers]
        self._server = server
        self._opening = opening
        self._added: list[tuple[str, str]] = []
        self._sock: socket.socket | None = None
        self._begun = False
        self._rest = b""

    def start(self, start_response: StartResponse) -> None:
        """The request's thread: begin the stream, and start the response with its head."""
        self._begin()
        super().start(start_response)

    def __next__(self) -> bytes:
        """The request's thread: wait for the next part of the stream."""
        if not self._begun:  # a framework has started the response itself, with status 200
            self._begin()
            if self.status != 200:
                self.close()
        part, self._rest = self._rest or self._receive(), b""
        if not part:
            self.close()
            raise StopIteration
        return part

    def close(self) -> None:
        """The request's thread: disconnect from the stream."""
        self._rest = b""
        if self._sock is not None:
            self._sock.close()

    def _add(self, headers: list[tuple[str, str]]) -> None:
        self._added.extend(headers)

    def _begin(self) -> None:
        """Begin the stream, wait for the head of its response, and copy the status and headers."""
        self._begun = True
        with suppress(OSError):  # the process has reached its open-file limit
            self._connect()
        data = b""
        while END_OF_HEAD not in data:
            data += self._receive() or UNAVAILABLE
        head, _, self._rest = data.partition(END_OF_HEAD)
        self.status, headers = decode_response(head + END_OF_HEAD)
        kept = [pair for pair in headers if pair[0].lower() not in HOP_BY_HOP]
        self.headers = [*kept, *self._added]

    def _connect(self) -> None:
        ours, theirs = socket.socketpair()
        self._sock = ours
        try:
            self._server.adopt(theirs, self._opening.request.address, self._opening)
        except RuntimeError:  # the process is exiting
            theirs.close()

    def _receive(self) -> bytes:
        """Return the next bytes of the stream; b"" at its end."""
        if self._sock is None:
            return b""
        try:
            return self._sock.recv(READ_SIZE)
        except OSError:
            return b""


def stopping() -> HandshakeError:
    """Return the answer (503) to a request that arrives while the process is exiting."""
    return RefusalError(
        503, "the server is shutting down", [("Retry-After", "5")], kind=CONNECTIONS
    )

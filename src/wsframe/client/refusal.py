"""The first bytes of the body of a response that refuses a request."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException, HTTPResponse
from time import monotonic
from typing import cast

from ..errors import HandshakeError
from ..fields import Fields
from ..responses import ResponseHead
from .content import decoder_for, read_decoded
from .deadline import set_deadline

MAX_BODY = 1 << 14
FRAMING = ("content-length", "transfer-encoding")
# The maximum number of bytes to read: a body's framing, such as chunk sizes, may be as long as the
# body.
MAX_RECEIVED = 2 * MAX_BODY
# The time limit for the body, in seconds, because the request may have no deadline.
MAX_WAIT = 2.0


def end_of_wait(deadline: float) -> float:
    """Return the deadline for the body of a refusal, on the monotonic clock.

    Args:
        deadline: the deadline of the request; infinity is no limit.
    """
    return min(deadline, monotonic() + MAX_WAIT)


def first_bytes(read: Callable[[], bytes]) -> bytes:
    """Return the first bytes of a body, 16 KiB at most.

    Args:
        read: a function that returns the next bytes of the body; b"" at its end. After an error of
            this function, the earlier bytes are returned.
    """
    body = bytearray()
    with suppress(OSError, HTTPException):
        while len(body) < MAX_BODY and (data := read()):
            body += data
    return bytes(body[:MAX_BODY])


def read_refusal(
    sock: socket.socket, answer: ResponseHead, received: bytes, deadline: float
) -> bytes:
    """Return the first bytes of the body of a response, decoded.

    The wait ends after two seconds, or at the deadline.

    The standard library parses the response, because this module must not require h11. The number
    of bytes that it can read is limited.

    Args:
        sock: the connected socket.
        answer: the head of the response.
        received: the bytes of the body that were received.
        deadline: a time of the monotonic clock.
    """
    framing = [f"{name}: {value}" for name, value in answer.headers if name.lower() in FRAMING]
    lines = [f"HTTP/1.1 {answer.status} Refused", *framing, "", ""]
    head = "\r\n".join(lines).encode("latin-1")
    stream = _Received(sock, head + received, end_of_wait(deadline))
    response = HTTPResponse(cast(socket.socket, stream))
    with suppress(OSError, HTTPException, HandshakeError), response:
        response.begin()
        read = partial(response.read1, MAX_BODY)
        decoder = decoder_for(Fields(answer.headers, 502).items("content-encoding"))
        return first_bytes(read if decoder is None else partial(read_decoded, decoder, read))
    return b""


class _Received(io.RawIOBase):
    """A file of the bytes that were received, then of the bytes that a socket receives."""

    def __init__(self, sock: socket.socket, received: bytes, deadline: float) -> None:
        self._sock = sock
        self._pending = received
        self._deadline = deadline
        self._room = MAX_RECEIVED

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return this file, buffered; HTTPResponse expects this method of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._pending and self._room:
            set_deadline(self._sock, self._deadline)
            self._pending = self._sock.recv(self._room)
            self._room -= len(self._pending)
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

"""The body of a request, which must have been read before its connection is taken over."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from wsframe import HandshakeError

from .environ import Environ

# The bytes of an unread body that are read and discarded.
MAX_UNREAD = 64 * 1024
# A refused body is read up to here: if a server closes a connection with unread data, its answer
# can be lost (RFC 9112 section 9.6), and a proxy answers 502.
MOST_READ = 2 * MAX_UNREAD
PIECE = 16 * 1024


class Readable(Protocol):
    """The body of a request."""

    def read(self, size: int, /) -> bytes: ...


def discard_body(environ: Environ, body: Readable | None) -> None:
    """The request's thread: read what the application has not read of the body.

    An input that does not end with the body is left alone: reading it might wait for the next
    request. Its unread bytes are discarded with everything else that the client of an event stream
    sends.

    Args:
        environ: the environment of the request.
        body: the framework's reader of the body, which ends with it; None without one.

    Raises:
        HandshakeError: more than 64 KiB of the body are unread (413), or it is malformed (400).
    """
    if not _has_body(environ):
        return
    source: Readable = environ["wsgi.input"] if body is None else body
    if hasattr(source, "raw"):  # the reader of the socket, as in wsgiref and Werkzeug
        return
    unread = 0
    try:
        while unread < MOST_READ and (data := source.read(PIECE)):
            unread += len(data)
    except Exception:  # every server and framework has its own errors
        raise HandshakeError(400, "the body of the request is malformed") from None
    if unread > MAX_UNREAD:
        raise HandshakeError(413, f"more than {MAX_UNREAD} bytes of the body are unread")


def discard_refused(environ: Environ) -> None:
    """The request's thread: read the chunked body of a request that is refused.

    Otherwise cheroot takes it for the next request. It does so with the rest of a body of more than
    128 KiB, and refuses that with 400. Every server skips a body with a length. The reader of the
    server is used, because Django regards a body without a length as empty.
    """
    if environ.get("HTTP_TRANSFER_ENCODING"):
        with suppress(HandshakeError):  # the request is refused anyway
            discard_body(environ, None)


def _has_body(environ: Environ) -> bool:
    length = str(environ.get("CONTENT_LENGTH") or "0")
    return length != "0" or bool(environ.get("HTTP_TRANSFER_ENCODING"))

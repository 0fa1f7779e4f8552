"""The body of a request, which must have been read before its connection is taken over."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from wsframe import HandshakeError

from .environ import Environ

# The maximum number of bytes of an unread body that are read and discarded.
MAX_UNREAD = 64 * 1024
# The maximum number of bytes that are read from a refused body. If a server closes a connection
# with unread data, its answer can be lost (RFC 9112 section 9.6), and a proxy answers 502.
MOST_READ = 2 * MAX_UNREAD
PIECE = 16 * 1024


class Readable(Protocol):
    """The body of a request."""

    def read(self, size: int, /) -> bytes: ...


def discard_body(environ: Environ, body: Readable | None) -> None:
    """The request's thread: read and discard the unread rest of the body.

    An input that does not end with the body is not read, because a read might wait for the next
    request. The loop later discards the unread bytes of such an input.

    Args:
        environ: the environment of the request.
        body: the framework's reader of the body, which ends with it; None without one.

    Raises:
        HandshakeError: more than 64 KiB of the body are unread (413), or it is malformed (400).
    """
    if not _has_body(environ):
        return
    source: Readable = environ["wsgi.input"] if body is None else body
    if hasattr(source, "raw"):  # the input of wsgiref and Werkzeug reads beyond the body
        return
    unread = 0
    try:
        while unread < MOST_READ and (data := source.read(PIECE)):
            unread += len(data)
    except Exception:  # each server and framework raises its own class of error
        raise HandshakeError(400, "the body of the request is malformed") from None
    if unread > MAX_UNREAD:
        raise HandshakeError(413, f"more than {MAX_UNREAD} bytes of the body are unread")


def discard_refused(environ: Environ) -> None:
    """The request's thread: read the chunked body of a request that is refused.

    cheroot would parse an unread chunked body as the next request. Beyond 128 KiB the rest of the
    body is still parsed so, and refused with 400. Every server skips an unread body with a
    Content-Length. The server's reader is used, because Django regards a body without a
    Content-Length as empty.
    """
    if environ.get("HTTP_TRANSFER_ENCODING"):
        with suppress(HandshakeError):  # the request is refused in any case
            discard_body(environ, None)


def _has_body(environ: Environ) -> bool:
    length = str(environ.get("CONTENT_LENGTH") or "0")
    return length != "0" or bool(environ.get("HTTP_TRANSFER_ENCODING"))

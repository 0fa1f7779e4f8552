"""The request of an opening handshake, read from its first byte (RFC 9112), without I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .arguments import check_integer
from .deflate import PerMessageDeflate
from .errors import HandshakeError
from .fields import Fields, decode_field
from .handshake import Acceptance, accept
from .headers import TOKEN, Headers
from .heads import HeadDecoder
from .origins import check_host
from .shown import names_of, short, show

__all__ = ["REQUEST_LINE", "RequestDecoder", "RequestHead", "check_path", "split_target"]

# The request line (RFC 9112 section 3), with single spaces, and a target without a fragment. In
# HTTP/0.9 it has no version.
REQUEST_LINE = re.compile(
    rf"(?P<method>{TOKEN.pattern}) (?P<target>[!\"$-~]+)"
    r"(?: HTTP/(?P<major>[0-9])\.(?P<minor>[0-9]))?\r\n".encode()
)
# A target in absolute-form (RFC 9112 section 3.2.2). The authority must not contain user
# information (RFC 9110 section 4.2.4), and the server must support the scheme (RFC 9110 section
# 7.4).
ABSOLUTE_FORM = re.compile(r"(?:https?|wss?)://([^/?@]+)(?=[/?]|$)", re.IGNORECASE)
# The characters that a head must not contain. CR is allowed before LF, which is checked in complete
# lines. Deleting the characters is faster than a search with a regular expression.
CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})
CRLF = b"\r\n"


@dataclass(frozen=True, slots=True, repr=False)
class RequestHead:
    r"""The head of a request, as :class:`RequestDecoder` returns it.

    >>> head = RequestDecoder().receive(b"GET /a?b=1 HTTP/1.1\r\nHost: example.com\r\n\r\n")
    >>> head.path, head.query
    ('/a', 'b=1')

    Attributes:
        method: the method, as in "GET".
        target: the request target as received.
        http_version: "1.0" or "1.1".
        headers: the headers, as (name, value) pairs.
        authority: the host and port of a target in absolute-form, which replaces the Host header
            (RFC 9112 section 3.2.2); None for a target that is a path.
        path: the path of the target, percent-encoded as received.
        query: the query after "?", as received, or "".
    """

    method: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    authority: str | None
    path: str
    query: str

    def accept(
        self,
        *,
        subprotocols: Sequence[str] = (),
        origins: Sequence[str] | Literal["*"] = (),
        deflate: PerMessageDeflate | None = None,
        headers: Headers = (),
    ) -> Acceptance:
        """Accept the request as an upgrade request; return the response to send.

        The arguments and errors are those of :func:`wsframe.accept`.
        """
        fields = Fields(self.headers)
        if self.authority is not None:
            check_host(fields)
            fields = fields.replace("host", self.authority)
        return accept(
            fields,
            method=self.method,
            http_version=self.http_version,
            subprotocols=subprotocols,
            origins=origins,
            deflate=deflate,
            headers=headers,
        )

    def __repr__(self) -> str:
        # A query may contain a secret.
        return show(self, short(self.method), short(self.path), headers=names_of(self.headers))


class RequestDecoder(HeadDecoder[RequestHead]):
    r"""Incremental decoder of the head of one request, for any split of its bytes.

    A head is refused as soon as it contains a fault or exceeds a limit. The status is 400 if it is
    malformed, 414 if its target or 431 if all of it exceeds a limit, or 505 for another version of
    HTTP. The time is linear in the received bytes, and the memory is limited to the head and one
    call's data. Only one thread at a time may use it.

    >>> decoder = RequestDecoder(max_head_size=4096)
    >>> decoder.receive(b"GET / HTTP/1.1\r\nHost: exa") is None
    True
    >>> decoder.receive(b"mple.com\r\n\r\n").headers
    (('Host', 'example.com'),)

    Args:
        max_head_size: the maximum size of the head in bytes, with the request line.
        max_headers: the maximum number of headers.
        max_path_size: the maximum size of the path in bytes, percent-encoded.

    Attributes:
        rest: the bytes received after the head: the first frames of a client that has not waited
            for the response. Pass them to :meth:`wsframe.Connection.receive`.

    Raises:
        ValueError: a limit is less than 1.
    """

    def __init__(
        self, *, max_head_size: int = 16384, max_headers: int = 100, max_path_size: int = 2048
    ) -> None:
        super().__init__(max_head_size)
        check_integer("max_headers", max_headers, 1)
        check_integer("max_path_size", max_path_size, 1)
        self._max_headers = max_headers
        self._max_path_size = max_path_size
        self._blank = False  # True after an empty line before the request line
        self._head: RequestHead | None = None  # the headers are added when the head is complete
        self._headers: list[tuple[str, str]] = []

    def _read(self, new: int) -> RequestHead | None:
        """Read all complete lines; return the head after its last one."""
        buffer, begin, checked = self._buffer, 0, new
        while (end := buffer.find(b"\n", checked) + 1) > 0:
            self._check(buffer, begin, checked, end)
            line = bytes(buffer[begin:end])
            self._room -= len(line)
            begin = checked = end
            if line != CRLF:
                self._read_line(line)
            elif self._head is not None:
                del buffer[:begin]
                headers, self._headers = tuple(self._headers), []
                return replace(self._head, headers=headers)
            elif self._blank:
                raise HandshakeError(400, "the request line is malformed")
            else:  # an empty line before the request line is allowed (RFC 9112 section 2.2)
                self._blank = True
        self._check(buffer, begin, checked, len(buffer))
        del buffer[:begin]
        return None

    def _check(self, buffer: bytearray, begin: int, checked: int, end: int) -> None:
        """Check the new bytes of a line, complete or not.

        The first fault in the order of the bytes is reported, for any split of them.
        """
        limit = begin + self._room
        new = buffer[checked : min(end, limit)]
        if len(new.translate(None, CONTROLS)) < len(new):
            raise HandshakeError(400, "the request contains a control character")
        if end <= limit:
            return
        if self._head is None:
            raise HandshakeError(414, f"the request line exceeds {self._max_head_size} bytes")
        raise HandshakeError(431, f"the request head exceeds {self._max_head_size} bytes")

    def _read_line(self, line: bytes) -> None:
        """Read the request line or a header."""
        if not line.endswith(CRLF):
            raise HandshakeError(400, "a line of the request does not end with CR LF")
        if self._head is None:
            self._head = self._read_request_line(line)
        elif len(self._headers) == self._max_headers:
            raise HandshakeError(431, f"the request has more than {self._max_headers} headers")
        elif (field := decode_field(line[:-2].decode("latin-1"))) is not None:
            self._headers.append(field)
        else:  # includes a folded line, which a server may refuse (RFC 9112 section 5.2)
            raise HandshakeError(400, "a header of the request is malformed")

    def _read_request_line(self, line: bytes) -> RequestHead:
        match = REQUEST_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError(400, "the request line is malformed")
        if match["major"] != b"1":
            raise HandshakeError(505, "unsupported HTTP version: use HTTP/1.1")
        # A higher minor version is processed as the highest known one (RFC 9110 section 2.5).
        version = "1.0" if match["minor"] == b"0" else "1.1"
        target = match["target"].decode()
        authority, path_and_query = split_target(target)
        path, _, query = path_and_query.partition("?")
        check_path(path, self._max_path_size)
        return RequestHead(match["method"].decode(), target, version, (), authority, path, query)


def split_target(target: str) -> tuple[str | None, str]:
    """Return the authority of a request target, and its path and query.

    The authority is None unless the target is in absolute-form.

    Raises:
        HandshakeError: 400, because the target has another form or is malformed.
    """
    authority = None
    if not target.startswith("/"):
        if target == "*":
            raise HandshakeError(400, "the request target * (asterisk-form) is not supported")
        absolute = ABSOLUTE_FORM.match(target)
        if absolute is None:
            raise HandshakeError(400, "the request target must be a path or a URL of this server")
        authority = absolute[1]
        check_host([("Host", authority)])
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = f"/{target}"  # an empty path equals "/" (RFC 9110 section 4.2.3)
    return authority, target


def check_path(path: str, max_size: int) -> None:
    """Check the size of a path, percent-encoded.

    Raises:
        HandshakeError: 414, because the path is too long.
    """
    if len(path) > max_size:
        raise HandshakeError(414, f"the path exceeds {max_size} bytes")

"""The request that opens every connection: read, judged, and answered or handed over."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs
from wsgiref.headers import Headers

try:
    import httptools
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'the server needs httptools: pip install "wsframe[server]"', name="httptools"
    ) from error

from wsframe import HandshakeError
from wsframe.fields import Fields, encode_response
from wsframe.origins import check_host

from ..sockets.peer import Peer, Protocol
from .paths import Path, normal_path, segments_of
from .proxies import client_of
from .refusals import report

MAX_HEAD = 16 * 1024
MAX_HEADERS = 100
MAX_TARGET = 8 * 1024
MAX_PATH = 2 * 1024  # handlers keep it, decoded, for as long as the connection lasts
MAX_USER_AGENT = 512  # characters of it that are kept of a long head
MAX_LINE = 512  # of a malformed head, in the log
END_OF_HEAD = b"\r\n\r\n"
MAX_PARAMETERS = 500  # in the query; each costs the loop some microseconds
# RFC 9112 section 3: single spaces, and no fragment. Nothing may precede it except an empty line
# (section 2.2). HTTP/0.9, which has no version, is refused later, with a clear status.
REQUEST_LINE = re.compile(rb"(?:\r\n)?[!-~]+ [!\"$-~]+(?: HTTP/[0-9.]+)?\r\n")
# RFC 9112 section 3.2.2: absolute-form. The authority has no user information (RFC 9110 section
# 4.2.4), and the scheme is one of this server's (section 7.4).
ABSOLUTE_FORM = re.compile(r"(?:https?|wss?)://([^/?@]+)(?=[/?]|$)", re.IGNORECASE)
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class Request:
    """The request that opened a connection.

    Its text is kept as it came, for as long as the connection lasts. The properties are read from
    that text at each access.

    Of a head over ``max_kept_head`` bytes (a setting, 4 KiB) ``headers`` and ``query`` are kept
    only until the handler first waits for a message, or for a plain function of event streams until
    it returns. They are there for ``authorize``, and for a handler that reads them at its
    beginning; later they raise RuntimeError. So a client cannot have 16 KiB kept for nothing.

    Attributes:
        method: as in "GET".
        http_version: as in "1.1".
        address: of whoever has connected, as the socket module gives it: the client, or a proxy;
            the server's path for a client of a unix socket, which has none.
        client: the client's address alone, by the word of proxies if they are trusted; "unix" for
            one that comes through a unix socket.
        scheme: "http" or "https", likewise.
        pattern: the path of the route that was found, where that has parameters.
        identity: what the route's ``authorize`` has returned; None where there is none.
    """

    __slots__ = (
        "_fields",
        "_host",
        "_shortened",
        "_target",
        "address",
        "client",
        "http_version",
        "identity",
        "method",
        "pattern",
        "scheme",
    )

    def __init__(
        self,
        method: str,
        target: str,
        fields: Iterable[tuple[str, str]],
        http_version: str,
        address: object,
        scheme: str,
        host: str | None = None,
    ) -> None:
        """The request.

        Args:
            method: as in "GET".
            target: path and query, as they came.
            fields: the headers.
            http_version: as in "1.1".
            address: as the socket module gives it.
            scheme: "http" or "https".
            host: the authority of a target in absolute-form, which replaces the Host header.
        """
        # One copy of what nearly all requests have in common.
        self.method = sys.intern(method)
        self.http_version = sys.intern(http_version)
        self.address = address
        self.client = client_of(address)
        self.scheme = scheme
        self.pattern: Path | None = None
        self.identity: Any = None
        self._target = target
        self._fields = "\n".join(f"{name}:{value}" for name, value in fields)
        self._host = host
        self._shortened = False

    @property
    def path(self) -> str:
        """The path by which the route was chosen, percent-decoded and without the query.

        Every spelling of a path has this one form. "%2F", "%25" and the control characters stay
        encoded, so that the slashes are those between segments and the text has no line break. Dot
        segments, empty segments and semicolons are ordinary text. A path that is not valid UTF-8
        is refused with 400.
        """
        return normal_path(self.raw_path)

    @property
    def raw_path(self) -> str:
        """The path as it came, percent-encoded; not fit for comparisons, :attr:`path` is."""
        return self._target.partition("?")[0]

    @property
    def parameters(self) -> Mapping[str, str]:
        """The values of what the route's path has in braces, decoded."""
        if self.pattern is None:
            return NO_PARAMETERS
        return self.pattern.match(segments_of(self.path)) or NO_PARAMETERS

    @property
    def headers(self) -> Headers:
        """Names are looked up without regard to case; ``get_all`` gives all values of one.

        Raises:
            RuntimeError: they were too long to be kept; see above.
        """
        self._check_complete()
        return self._headers()

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters after "?", each with all of its values, decoded; at most 500.

        Raises:
            RuntimeError: they were too long to be kept; see above.
        """
        self._check_complete()
        return parse_qs(self._target.partition("?")[2], keep_blank_values=True)

    @property
    def host(self) -> str:
        """The name, and the port if one was given, by which the client addressed the server.

        Trusted proxies may have forwarded it; else it is the authority of a target in absolute-form
        (RFC 9112 section 3.2.2), else the Host header. "" where HTTP/1.0 names none.
        """
        return (self._headers().get("Host") or "") if self._host is None else self._host

    @host.setter
    def host(self, host: str) -> None:
        self._host = host

    @property
    def user_agent(self) -> str | None:
        """What the client calls itself; of a long head, the first 512 characters."""
        return self._headers().get("User-Agent")

    def is_longer(self, limit: int) -> bool:
        """Any thread: whether the head takes more bytes than that."""
        return len(self._target) + len(self._fields) > limit

    def shorten(self, limit: int) -> None:
        """Whoever runs the handler, or the owner: keep no more of a long head than logs need."""
        if self._shortened or not self.is_longer(limit):
            return
        agent = (self.user_agent or "")[:MAX_USER_AGENT]
        self._host = self.host
        self._shortened = True
        self._target = self.raw_path
        self._fields = f"User-Agent:{agent}" if agent else ""

    def _headers(self) -> Headers:
        fields = (line.partition(":") for line in self._fields.split("\n") if line)
        return Headers([(name, value) for name, _, value in fields])

    def _check_complete(self) -> None:
        if self._shortened:
            raise RuntimeError(
                "headers and query of this request are not kept: its head is longer than "
                "max_kept_head; read them in authorize, or before the handler first waits"
            )

    def addressed(self, fields: Fields) -> Fields:
        """The fields of this request, with the :attr:`host` in place of the Host header."""
        return fields if self._host is None else fields.replace("host", self._host)


class RequestReader(Protocol):
    """Reads one request head, and hands it over with the bytes that came behind it.

    Args:
        peer: the connection.
        answer: called once, by the owner, with the request, its fields, and what followed its head;
            it may raise HandshakeError, which is answered.
    """

    __slots__ = ("_answer", "_complete", "_head", "_headers", "_parser", "_peer", "_target")

    def __init__(self, peer: Peer, answer: Callable[[Request, Fields, memoryview], None]) -> None:
        self._peer = peer
        self._answer = answer
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._head = bytearray()
        self._target = bytearray()
        self._headers: list[tuple[str, str]] = []
        self._complete = False

    def data_received(self, data: memoryview) -> None:
        """Owner: feed the parser just to the end of the head, so that what follows stays whole."""
        parser = self._parser
        if parser is None:
            return  # one request a connection; its answer is on its way
        begin = len(self._head)
        self._head += data
        end = self._head.find(END_OF_HEAD, max(0, begin - 3))
        if end >= 0:
            del self._head[end + len(END_OF_HEAD) :]
        head = data[: len(self._head) - begin]
        try:
            _feed(parser, head)
            if len(self._head) > MAX_HEAD:
                raise HandshakeError(431, f"the head is over {MAX_HEAD} bytes")
            if self._complete:
                request = self._request(parser)
                fields = Fields(self._headers)
                self._let_go()
                self._answer(request, fields, data[len(head) :])
            elif end >= 0:
                raise HandshakeError(400, "the request is malformed")
        except HandshakeError as error:
            line = bytes(self._head[:MAX_LINE]).partition(b"\r\n")[0].decode("latin-1")
            self._let_go()
            refuse(self._peer, error, with_body=parser.get_method() != b"HEAD", line=line)

    def peer_left(self) -> None:
        """Owner: there is nobody to answer."""

    def deadline_passed(self) -> None:
        """Owner: the head did not come in time."""
        self._peer.abort()

    @property
    def unasked(self) -> bool:
        """Owner: whether the head is not all there."""
        return not self._complete

    def shut_down(self) -> None:
        """Owner: nothing was asked, or the application has yet to judge it: nothing is owed."""
        self._peer.abort()

    def _let_go(self) -> None:
        """Read no more, and keep nothing of the head.

        The parser and this reader refer to each other. Unless that ends here, they wait for the
        garbage collector with all that they have read.
        """
        self._parser = None
        self._head = bytearray()
        self._target = bytearray()
        self._headers = []

    def _request(self, parser: httptools.HttpRequestParser) -> Request:
        if not REQUEST_LINE.match(self._head):
            raise HandshakeError(400, "the request line is malformed")
        host, target = _read_target(self._target.decode("latin-1"))
        request = Request(
            method=parser.get_method().decode("latin-1"),
            target=target,
            fields=self._headers,
            http_version=parser.get_http_version(),
            address=self._peer.address,
            scheme=self._peer.scheme,
            host=host,
        )
        try:
            normal_path(request.raw_path)
        except ValueError as error:
            raise HandshakeError(400, str(error)) from None
        return request

    # Called by the parser, inside _feed.

    def on_url(self, part: bytes) -> None:
        """A part of the request's target."""
        self._target += part
        if len(self._target) > MAX_TARGET:
            raise HandshakeError(414, f"the target is over {MAX_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if len(self._headers) == MAX_HEADERS:
            raise HandshakeError(431, f"more than {MAX_HEADERS} headers")
        # The blanks around a value are no part of it (RFC 9110 section 5.5).
        self._headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        """All of the head was there."""
        self._complete = True


def _feed(parser: httptools.HttpRequestParser, head: memoryview) -> None:
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # the parser's word for "what follows is not HTTP"; nothing follows
    except httptools.HttpParserCallbackError as error:
        if isinstance(error.__context__, HandshakeError):
            raise error.__context__ from None
        raise
    except httptools.HttpParserError:
        raise HandshakeError(400, "the request is malformed") from None


def _read_target(target: str) -> tuple[str | None, str]:
    """The authority of a target, None unless it is in absolute-form; and its path and query.

    Raises:
        HandshakeError: 400; it is in another form, malformed, or has too many parameters.
    """
    host = None
    if not target.startswith("/"):
        if target == "*":
            raise HandshakeError(400, "the target * (asterisk-form) is not served")
        absolute = ABSOLUTE_FORM.match(target)
        if absolute is None:
            raise HandshakeError(400, "the target must be a path, or a URL of this server")
        host = absolute[1]
        check_host([("Host", host)])
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = f"/{target}"  # RFC 9110 section 4.2.3: an empty path is "/"
    if len(target.partition("?")[0]) > MAX_PATH:
        raise HandshakeError(414, f"the path is over {MAX_PATH} bytes")
    if target.count("&") >= MAX_PARAMETERS:
        raise HandshakeError(400, f"the query has more than {MAX_PARAMETERS} parameters")
    return host, target


def respond(
    peer: Peer,
    status: int,
    body: bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: Iterable[tuple[str, str]] = (),
    with_body: bool = True,
) -> None:
    """Owner: answer and close; one request a connection leaves no request to smuggle."""
    head = [
        *headers,
        *peer.sharing,
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", content_type),
        ("X-Content-Type-Options", "nosniff"),  # WHATWG Fetch section 3.6
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    peer.status = status
    peer.finish(encode_response(status, head, body if with_body else b""))


def respond_without_content(peer: Peer, headers: Iterable[tuple[str, str]]) -> None:
    """Owner: answer with 204, which has no length either (RFC 9110 section 8.6), and close."""
    peer.status = 204
    date, close = ("Date", formatdate(usegmt=True)), ("Connection", "close")
    peer.finish(encode_response(204, [*headers, *peer.sharing, date, close]))


def refuse(
    peer: Peer,
    error: HandshakeError,
    *,
    with_body: bool,
    kind: str | None = None,
    line: str = "",
) -> None:
    """Owner: answer with the error, and close; the reason is counted and logged.

    Args:
        peer: the connection.
        error: the answer.
        with_body: whether the answer has a body, which one to HEAD has not.
        kind: as for :func:`report`.
        line: likewise.
    """
    report(peer, error, kind, line)
    body = f"{error.reason}\n".encode()
    respond(peer, error.status, body, headers=error.headers, with_body=with_body)

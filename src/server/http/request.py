"""The request that opens every connection: read, judged, and answered or handed over."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
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

from ..reports.stats import REQUEST
from ..routes import NO_PARAMETERS
from ..sockets.peer import Peer, Protocol
from .proxies import client_of

MAX_HEAD = 16 * 1024
MAX_HEADERS = 100
MAX_TARGET = 8 * 1024
END_OF_HEAD = b"\r\n\r\n"
# RFC 9112 section 3: single spaces, and no fragment. Nothing stands before it but, for section 2.2,
# an empty line; and HTTP/0.9, which has no version, is refused as such.
REQUEST_LINE = re.compile(rb"(?:\r\n)?[!-~]+ [!\"$-~]+(?: HTTP/[0-9.]+)?\r\n")
SCHEMES = (b"http", b"https", b"ws", b"wss")


class Request:
    """The request that opened a connection.

    What it says is kept as it came, for as long as the connection lasts; ``query`` and ``headers``
    are read from that each time.

    Attributes:
        method: as in "GET".
        path: as it stands in the request, percent-encoded, without the query.
        http_version: as in "1.1".
        address: of whoever has connected, as the socket module gives it: the client, or a proxy;
            the server's path for a client of a unix socket, which has none.
        client: the client's address alone, by the word of proxies if they are trusted; "unix" for
            one that comes through a unix socket.
        scheme: "http" or "https", likewise.
        parameters: what the route's path has in braces, decoded.
        identity: what the route's ``authorize`` has returned; None where there is none.
    """

    __slots__ = (
        "_fields",
        "_host",
        "_query",
        "address",
        "client",
        "http_version",
        "identity",
        "method",
        "parameters",
        "path",
        "scheme",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        fields: Iterable[tuple[str, str]],
        http_version: str,
        address: object,
        scheme: str,
    ) -> None:
        # One copy of what nearly all requests have in common.
        self.method = sys.intern(method)
        self.http_version = sys.intern(http_version)
        self.path = path
        self.address = address
        self.client = client_of(address)
        self.scheme = scheme
        self.parameters: Mapping[str, str] = NO_PARAMETERS
        self.identity: Any = None
        self._query = query
        self._fields = "\n".join(f"{name}:{value}" for name, value in fields)
        self._host: str | None = None

    @property
    def headers(self) -> Headers:
        """Names are looked up without regard to case; ``get_all`` gives all values of one."""
        fields = (line.partition(":") for line in self._fields.split("\n") if line)
        return Headers([(name, value) for name, _, value in fields])

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters after "?", each with all of its values, decoded."""
        return parse_qs(self._query, keep_blank_values=True)

    @property
    def host(self) -> str:
        """The name, and the port if one was given, by which the client knows the server.

        By the word of proxies if they are trusted; "" where HTTP/1.0 does not say.
        """
        return (self.headers.get("Host") or "") if self._host is None else self._host

    @host.setter
    def host(self, host: str) -> None:
        self._host = host


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
        self._parser = httptools.HttpRequestParser(self)
        self._head = bytearray()
        self._target = bytearray()
        self._headers: list[tuple[str, str]] = []
        self._complete = False

    def data_received(self, data: memoryview) -> None:
        """Owner: feed the parser just to the end of the head, so that what follows stays whole."""
        if self._complete:
            return  # one request a connection; its answer is on its way
        begin = len(self._head)
        self._head += data
        end = self._head.find(END_OF_HEAD, max(0, begin - 3))
        if end >= 0:
            del self._head[end + len(END_OF_HEAD) :]
        head = data[: len(self._head) - begin]
        try:
            self._feed(head)
            if len(self._head) > MAX_HEAD:
                raise HandshakeError(431, f"the head is over {MAX_HEAD} bytes")
            if self._complete:
                request = self._request()
                self._answer(request, Fields(self._headers), data[len(head) :])
            elif end >= 0:
                raise HandshakeError(400, "the request is malformed")
        except HandshakeError as error:
            refuse(self._peer, error, with_body=self._parser.get_method() != b"HEAD")

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

    def _feed(self, head: memoryview) -> None:
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the parser's word for "what follows is not HTTP"; nothing follows
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, HandshakeError):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError:
            raise HandshakeError(400, "the request is malformed") from None

    def _request(self) -> Request:
        if not REQUEST_LINE.match(self._head):
            raise HandshakeError(400, "the request line is malformed")
        try:
            url = httptools.parse_url(bytes(self._target))
        except httptools.HttpParserInvalidURLError:
            raise HandshakeError(400, "the target of the request is malformed") from None
        if url.host is not None:
            # RFC 9110 sections 4.2.4 and 7.4: neither a user nor another protocol's resource.
            if url.userinfo is not None or url.schema.lower() not in SCHEMES:
                raise HandshakeError(400, "the target of the request is malformed")
            # RFC 9112 section 3.2.2: an absolute target counts, whatever Host says.
            port = "" if url.port is None else f":{url.port}"
            if [f"{url.host.decode('latin-1')}{port}"] != Headers(self._headers).get_all("Host"):
                raise HandshakeError(400, "the target and the Host header differ")
        return Request(
            method=self._parser.get_method().decode("latin-1"),
            path=(url.path or b"/").decode("latin-1"),
            query=(url.query or b"").decode("latin-1"),
            fields=self._headers,
            http_version=self._parser.get_http_version(),
            address=self._peer.address,
            scheme=self._peer.scheme,
        )

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
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """All of the head was there."""
        self._complete = True


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


def refuse(peer: Peer, error: HandshakeError, *, with_body: bool) -> None:
    """Owner: answer with the error, and close."""
    peer.loop.totals.refused[error.status] += 1
    body = f"{error.reason}\n".encode()
    respond(peer, error.status, body, headers=error.headers, with_body=with_body)


def refuse_for_want_of_threads(peer: Peer) -> None:
    """Owner: answer the request after all, with 503, while its first answer is still queued."""
    if peer.bytes_out:  # it has gone out with the pong to a ping that came with the request
        peer.abort()
        return
    peer.out.clear()
    peer.kind = REQUEST
    refuse(
        peer,
        HandshakeError(503, "no thread is left for this", [("Retry-After", "5")]),
        with_body=True,
    )

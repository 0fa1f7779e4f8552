"""The request that opened a connection."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs
from wsgiref.headers import Headers

from wsframe.fields import Fields

from ..addresses import client_of
from ..headers import ON_CONNECTIONS, Pairs, added_headers
from .cookies import cookies_of
from .paths import Path, normal_path, segments_of
from .proxies import Hop

# The maximum length, in characters, of a User-Agent that is kept from a long head.
MAX_USER_AGENT = 512
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class Request:
    """The request that opened a connection.

    The text of the request is kept unchanged for as long as the connection lasts. Each access to a
    property parses it again.

    If the head exceeds ``max_kept_head`` bytes (a setting, 4 KiB), ``headers``, ``cookies`` and
    ``query`` are kept only until the handler first waits for a message. For a plain function that
    serves event streams they are kept until it returns. ``authorize`` and the beginning of a
    handler can read them; later they raise RuntimeError. So an idle client cannot occupy 16 KiB of
    memory.

    >>> app = App()
    >>> @app.websocket("/rooms/{room}")
    ... def greet(ws, room):
    ...     [name] = ws.request.query.get("name", ["a visitor"])
    ...     ws.send(f"{name} in {ws.request.path}")
    >>> with app.start() as server:
    ...     with connect(f"ws://localhost:{server.port}/rooms/tea?name=Ann") as ws:
    ...         ws.receive()
    'Ann in /rooms/tea'

    Attributes:
        method: the method, as in "GET".
        http_version: the version, as in "1.1".
        address: the address of the client, or of a proxy, as the socket module returns it. With
            ``proxy_protocol`` it is the address in the PROXY header. For a unix socket, whose
            clients have no address, it is the path of the server.
        client: the client's address without the port, as trusted proxies report it; "unix" for a
            client of a unix socket without such a report.
        scheme: "http" or "https", as trusted proxies report it.
        client_certificate: the verified certificate of the client, as
            :meth:`ssl.SSLSocket.getpeercert` returns it; None without one, and without TLS. For a
            TLS connection that was taken over from a WSGI server, it is that of its socket. A proxy
            that ends TLS has to report the certificate in a header of its own.
        identity: the value that the ``authorize`` of the route returned; None without one. A
            ``str``, ``int`` or ``UUID`` is the identity that :meth:`App.close_identity` closes.
    """

    __slots__ = (
        "_added",
        "_fields",
        "_host",
        "_pattern",
        "_shortened",
        "_target",
        "address",
        "client",
        "client_certificate",
        "http_version",
        "identity",
        "method",
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
        client_certificate: dict[str, Any] | None = None,
    ) -> None:
        """Create a request.

        Args:
            method: the method, as in "GET".
            target: the path and query, unchanged.
            fields: the headers.
            http_version: the version, as in "1.1".
            address: the address, as the socket module returns it.
            scheme: "http" or "https".
            host: the authority of a target in absolute-form, which replaces the Host header.
            client_certificate: the verified certificate of the client.
        """
        # These strings are interned, because nearly all requests have the same values.
        self.method: str = sys.intern(method)
        self.http_version: str = sys.intern(http_version)
        self.address: object = address
        self.client: str = client_of(address)
        self.scheme: str = scheme
        self.client_certificate: dict[str, Any] | None = client_certificate
        self._added: Pairs | None = ()  # headers for the answer; None once it is sent
        self._pattern: Path | None = None
        self.identity: Any = None
        self._target = target
        self._fields = "\n".join([f"{name}:{value}" for name, value in fields])
        self._host = host
        self._shortened = False

    @property
    def path(self) -> str:
        """The path that routes are matched with, percent-decoded and without the query.

        Every spelling of a path has this one form. "%2F", "%25" and control characters stay
        encoded, so that every slash separates segments and the text has no line break. Dot
        segments, empty segments and semicolons are ordinary text. A path that is not valid UTF-8
        is refused with 400.
        """
        return normal_path(self.raw_path)

    @property
    def raw_path(self) -> str:
        """The path as received, percent-encoded; compare :attr:`path` instead."""
        return self._target.partition("?")[0]

    @property
    def parameters(self) -> Mapping[str, str]:
        """The decoded values of the parameters in the path of the route."""
        if self._pattern is None:
            return NO_PARAMETERS
        return self._pattern.match(segments_of(self.path)) or NO_PARAMETERS

    @property
    def headers(self) -> Headers:
        """The headers; their names are case-insensitive, and ``get_all`` returns all values.

        Raises:
            RuntimeError: the head was too long to be kept; see ``max_kept_head``.
        """
        self._check_complete()
        return self._headers()

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies, read-only, in the order in which they were sent.

        Browsers may send several cookies with one name. The first cookie is used, which has the
        longest path (RFC 6265 section 5.4). Quotes around a value are removed, with the escapes
        within them, as :mod:`http.cookies` does; a value is not percent-decoded. Text without a
        name and "=" is ignored.

        Raises:
            RuntimeError: the head was too long to be kept; see ``max_kept_head``.
        """
        return cookies_of(self.headers.get_all("Cookie"))

    @property
    def query(self) -> dict[str, list[str]]:
        """The decoded parameters after "?", each with all of its values; at most 500.

        Raises:
            RuntimeError: the head was too long to be kept; see ``max_kept_head``.
        """
        self._check_complete()
        return parse_qs(self._target.partition("?")[2], keep_blank_values=True)

    @property
    def host(self) -> str:
        """The host that the client has addressed, with the port if the request has one.

        The value is the host that a trusted proxy reports, or else the authority of a target in
        absolute-form (RFC 9112 section 3.2.2), or else the Host header. It is "" for an HTTP/1.0
        request without a host.
        """
        return (self._headers().get("Host") or "") if self._host is None else self._host

    @property
    def user_agent(self) -> str | None:
        """The User-Agent header; of a long head, its first 512 characters."""
        return self._headers().get("User-Agent")

    def add_header(self, name: str, value: str) -> None:
        """The thread of ``authorize``: add a header to the 101, or to the 200 of an event stream.

        It may be called several times for one name, such as Set-Cookie. Headers of the route and
        of the settings with the same name are left out, except Set-Cookie and Vary. A refusal has
        the headers of its :class:`wsframe.HandshakeError` instead.

        Raises:
            RuntimeError: the request was answered, as it is before the handler begins.
            ValueError: the server sets this header itself, or the name or the value is not valid.
        """
        added = added_headers([(name, value)], ON_CONNECTIONS)
        if self._added is None:
            raise RuntimeError(
                f"cannot add the header {name}, because the request was answered: add it in the "
                "authorize function of the route"
            )
        self._added += added

    def _headers(self) -> Headers:
        fields = (line.partition(":") for line in self._fields.split("\n") if line)
        return Headers([(name, value) for name, _, value in fields])

    def _check_complete(self) -> None:
        if self._shortened:
            raise RuntimeError(
                "the headers and the query of this request were discarded, because its head "
                "exceeds max_kept_head: read them in authorize, or before the handler first waits"
            )


def is_longer(request: Request, limit: int) -> bool:
    """Any thread: return True if the head of a request has more bytes than the limit."""
    return len(request._target) + len(request._fields) > limit


def shorten(request: Request, limit: int) -> None:
    """The handler's thread, or the owner: reduce a head over the limit to the data for logs."""
    if request._shortened or not is_longer(request, limit):
        return
    agent = (request.user_agent or "")[:MAX_USER_AGENT]
    request._host = request.host
    request._shortened = True
    request._target = request.raw_path
    request._fields = f"User-Agent:{agent}" if agent else ""


def replace_host(request: Request, fields: Fields) -> Fields:
    """Any thread: return the headers with the host of the request in place of the Host header."""
    return fields if request._host is None else fields.replace("host", request._host)


def forward(request: Request, hop: Hop) -> None:
    """Any thread: set the client, the scheme and the host to the values that proxies report."""
    request.client = hop.client or request.client
    request.scheme = hop.scheme or request.scheme
    request._host = hop.authority(request.scheme) or request._host


def take_headers(request: Request) -> Pairs:
    """Loop owner, once: return the headers for the answer that is sent now."""
    added, request._added = request._added, None
    assert added is not None
    return added


def set_pattern(request: Request, pattern: Path | None) -> None:
    """Any thread: set the route's pattern, with which the path parameters are parsed."""
    request._pattern = pattern

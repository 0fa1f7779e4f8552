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
from .paths import Path, normal_path, segments_of
from .proxies import Hop

MAX_USER_AGENT = 512  # characters of it that are kept of a long head
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
        identity: what the route's ``authorize`` has returned; None where there is none.
    """

    __slots__ = (
        "_fields",
        "_host",
        "_pattern",
        "_shortened",
        "_target",
        "address",
        "client",
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
        self._pattern: Path | None = None
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
        if self._pattern is None:
            return NO_PARAMETERS
        return self._pattern.match(segments_of(self.path)) or NO_PARAMETERS

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

    @property
    def user_agent(self) -> str | None:
        """What the client calls itself; of a long head, the first 512 characters."""
        return self._headers().get("User-Agent")

    def _headers(self) -> Headers:
        fields = (line.partition(":") for line in self._fields.split("\n") if line)
        return Headers([(name, value) for name, _, value in fields])

    def _check_complete(self) -> None:
        if self._shortened:
            raise RuntimeError(
                "headers and query of this request are not kept: its head is longer than "
                "max_kept_head; read them in authorize, or before the handler first waits"
            )


def is_longer(request: Request, limit: int) -> bool:
    """Any thread: return whether the head of a request takes more bytes than the limit."""
    return len(request._target) + len(request._fields) > limit


def shorten(request: Request, limit: int) -> None:
    """The handler's thread, or the owner: of a head over the limit keep only what logs need."""
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
    """Any thread: set the client, the scheme and the host to those that a proxy has reported."""
    request.client = hop.client or request.client
    request.scheme = hop.scheme or request.scheme
    request._host = hop.host or request._host


def set_pattern(request: Request, pattern: Path | None) -> None:
    """Any thread: set the path of the route, which the parameters are read by."""
    request._pattern = pattern

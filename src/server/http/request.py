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

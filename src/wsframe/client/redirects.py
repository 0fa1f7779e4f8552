"""The request that opens an event stream, and its redirects."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ssl import SSLContext
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urldefrag, urljoin

from ..arguments import wrong_type
from ..errors import HandshakeError
from ..headers import TOKEN, Headers, check_field
from .dial import SocketSlot
from .identity import with_user_agent
from .location import Location

if TYPE_CHECKING:
    from . import http
else:
    http = None
    with suppress(ModuleNotFoundError):  # h11 is not installed
        from . import http

Origin: TypeAlias = "tuple[bool, str, str, int]"

SCHEMES = {"http": False, "https": True}
REDIRECTS = frozenset((301, 302, 303, 307, 308))
MAX_REDIRECTS = 10
# The statuses after which a request with a body is repeated as a GET without it (WHATWG Fetch
# section 4.4).
TO_GET = frozenset((301, 302, 303))
# The methods that cannot open an event stream. A response to HEAD has no content. CONNECT opens a
# tunnel, and TRACE returns the request.
FORBIDDEN_METHODS = frozenset(("CONNECT", "HEAD", "TRACE"))
# Headers that this module sets, and headers that would add a body or change the request's meaning.
RESERVED = frozenset(
    (
        "accept",
        "accept-encoding",
        "cache-control",
        "connection",
        "content-length",
        "expect",
        "host",
        "last-event-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


@dataclass(frozen=True)
class Target:
    """One request of a chain of redirects.

    Attributes:
        url: the URL.
        location: the location of the URL.
        headers: the caller's headers for this request.
        method: the method.
        body: the body.
    """

    url: str
    location: Location
    headers: list[tuple[str, str]]
    method: str
    body: bytes


class Request:
    """A request for an event stream, which may be sent any number of times.

    Args:
        url: the URL of the first request.
        headers: the caller's headers, which are sent only to the URL's origin.
        method: the method of the request.
        body: the body, which is sent only to the URL's origin; b"" for none.
        ssl: the context for TLS; None for the system's certificates.
        open_timeout: the limit for all of :meth:`send`, in seconds.
        read_timeout: the longest silence of the response's body, in seconds.

    Attributes:
        location: the location of the URL.

    Raises:
        ValueError: the URL is malformed, a header is reserved or malformed, the method is not a
            token, or a GET request has a body.
        TypeError: the body is not bytes.
        ImportError: the extra ``client`` is not installed.
    """

    def __init__(
        self,
        url: str,
        headers: Headers,
        *,
        method: str,
        body: bytes,
        ssl: SSLContext | None,
        open_timeout: float,
        read_timeout: float,
    ) -> None:
        if http is None:
            raise ImportError("event streams require h11: pip install 'wsframe[client]'")
        self.location: Location = Location.of(url, SCHEMES)
        if not TOKEN.fullmatch(method) or method in FORBIDDEN_METHODS:
            raise ValueError(f"the method of an event stream's request is not valid: {method!r}")
        if not isinstance(body, bytes):
            raise wrong_type("body", "bytes", body)
        if body and method == "GET":
            raise ValueError('a GET request must not have a body: pass method="POST"')
        self._first = Target(
            url, self.location, self.location.with_authorization(headers), method, body
        )
        for name, value in self._first.headers:
            check_field(name, value)
            if name.lower() in RESERVED:
                raise ValueError(f"header {name} is reserved for the client")
        self._ssl = ssl
        self._open_timeout = open_timeout
        self._read_timeout = read_timeout

    def send(
        self, last_event_id: str, origin_of_id: Origin, slot: SocketSlot
    ) -> tuple[http.Response, Origin]:
        """Send the request and follow redirects; return the final response and its origin.

        Args:
            last_event_id: the value of ``Last-Event-ID``, or "". It is sent only to the URL's
                origin and to the origin of the id.
            origin_of_id: the origin that sent the id.
            slot: the slot that receives the sockets. The caller must close the slot, also after an
                error.

        Raises:
            OSError: connecting failed, or a response is malformed.
            HandshakeError: a redirect is invalid, there are too many redirects, or the framing of
                a response is ambiguous.
        """
        deadline = monotonic() + self._open_timeout
        target = self._first
        for _ in range(MAX_REDIRECTS + 1):
            location = target.location
            own = [
                ("Host", location.authority),
                ("Accept", "text/event-stream"),
                ("Accept-Encoding", "identity"),
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
            ]
            if last_event_id and location.origin in (self.location.origin, origin_of_id):
                # This header is encoded in UTF-8 (WHATWG HTML section 9.2.4), unlike any other
                # header.
                own.append(("Last-Event-ID", last_event_id.encode().decode("latin-1")))
            if target.method != "GET":
                own.append(("Content-Length", str(len(target.body))))
            answer = http.send(
                location,
                target.method,
                [*own, *with_user_agent(target.headers)],
                target.body,
                deadline=deadline,
                ssl=self._ssl,
                timeout=self._read_timeout,
                slot=slot,
            )
            if answer.status not in REDIRECTS:
                return answer, location.origin
            target = _follow(answer, target)
        raise HandshakeError(answer.status, "too many redirects", answer.headers)


def _follow(answer: http.Response, target: Target) -> Target:
    """Return the target of a redirect."""
    location, headers, method, body = target.location, target.headers, target.method, target.body
    try:
        targets = answer.values("location")
        if len(targets) != 1:
            raise ValueError(f"the redirect has {len(targets)} Location headers")
        url = urldefrag(urljoin(target.url, targets[0])).url
        there = Location.of(url, SCHEMES)
        if location.secure and not there.secure:
            raise ValueError("a redirect from https to http is not allowed")
        if method != "GET" and answer.status in TO_GET:
            method, body = "GET", b""
            headers = [(name, value) for name, value in headers if name.lower() != "content-type"]
        if there.origin != location.origin and method != "GET":
            raise ValueError(f"a redirect of a {method} request to another origin is not allowed")
    except (ValueError, ImportError) as error:
        raise HandshakeError(answer.status, str(error), answer.headers) from None
    if there.origin != location.origin:
        # Any header may carry a secret, regardless of its name.
        headers = [(name, value) for name, value in headers if name.lower() == "user-agent"]
    return Target(url, there, there.with_authorization(headers), method, body)

"""The request that opens an event stream, and its redirects."""

from __future__ import annotations

from contextlib import suppress
from ssl import SSLContext
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urldefrag, urljoin

from ..errors import HandshakeError
from ..fields import Headers, check_field
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
# Headers that this module sets, and headers that would add a body or change the meaning.
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


class Request:
    """A GET request for an event stream, which may be sent any number of times.

    Args:
        url: the URL of the first request.
        headers: the caller's headers, which are sent only to the URL's origin.
        ssl: the context for TLS; None for the system's certificates.
        open_timeout: the limit for all of :meth:`send`, in seconds.
        read_timeout: the longest silence of the response's body, in seconds.

    Attributes:
        location: the location of the URL.

    Raises:
        ValueError: the URL is malformed, or a header is reserved or malformed.
        ImportError: the extra ``client`` is not installed.
    """

    def __init__(
        self,
        url: str,
        headers: Headers,
        *,
        ssl: SSLContext | None,
        open_timeout: float,
        read_timeout: float,
    ) -> None:
        if http is None:
            raise ImportError("event streams require h11: pip install 'wsframe[client]'")
        self.location = Location.of(url, SCHEMES)
        self._url = url
        self._headers = self.location.with_authorization(headers)
        for name, value in self._headers:
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
            slot: receives the sockets. The caller must close it, also if this method raises.

        Raises:
            OSError: connecting failed, or a response is malformed.
            HandshakeError: a redirect is invalid, there are too many redirects, or the framing of
                a response is ambiguous.
        """
        deadline = monotonic() + self._open_timeout
        url, location, headers = self._url, self.location, self._headers
        for _ in range(MAX_REDIRECTS + 1):
            own = [
                ("Host", location.authority),
                ("Accept", "text/event-stream"),
                ("Accept-Encoding", "identity"),
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
            ]
            if last_event_id and location.origin in (self.location.origin, origin_of_id):
                # In UTF-8 (WHATWG HTML section 9.2.4), unlike any other header.
                own.append(("Last-Event-ID", last_event_id.encode().decode("latin-1")))
            answer = http.get(
                location,
                [*own, *with_user_agent(headers)],
                deadline=deadline,
                ssl=self._ssl,
                timeout=self._read_timeout,
                slot=slot,
            )
            if answer.status not in REDIRECTS:
                return answer, location.origin
            url, location, headers = _follow(answer, url, location, headers)
        raise HandshakeError(answer.status, "too many redirects", answer.headers)


def _follow(
    answer: http.Response, url: str, location: Location, headers: list[tuple[str, str]]
) -> tuple[str, Location, list[tuple[str, str]]]:
    """Return the target of a redirect, and the caller's headers for it."""
    try:
        targets = answer.values("location")
        if len(targets) != 1:
            raise ValueError(f"the redirect has {len(targets)} Location headers")
        url = urldefrag(urljoin(url, targets[0])).url
        there = Location.of(url, SCHEMES)
        if location.secure and not there.secure:
            raise ValueError("a redirect from https to http is not allowed")
    except (ValueError, ImportError) as error:
        raise HandshakeError(answer.status, str(error), answer.headers) from None
    if there.origin != location.origin:
        # Any header may carry a secret, regardless of its name.
        headers = [(name, value) for name, value in headers if name.lower() == "user-agent"]
    return url, there, there.with_authorization(headers)

"""The subject of an examination: a URL, and requests to it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic

from wsframe.client import WebSocket, connect
from wsframe.client.dial import SocketSlot, dial
from wsframe.client.location import Location

SCHEMES = {"ws": False, "wss": True, "http": False, "https": True}
# A page of this site must not be able to connect. RFC 2606 reserves its name.
FOREIGN = "https://doctor.invalid"


@dataclass
class Subject:
    """The examined URL, the options of its requests, and the proxy that answers.

    Attributes:
        url: the URL.
        headers: additional headers of each request.
        context: the context for TLS.
        timeout: the limit for connecting and for the response, in seconds.
        silence: the time in which the connection is observed, in seconds.
        proxy: the proxy that was recognized, a key of ``findings.NAMES``; or "".
    """

    url: str
    headers: list[tuple[str, str]]
    context: ssl.SSLContext
    timeout: float
    silence: float
    proxy: str = ""
    location: Location = field(init=False)

    def __post_init__(self) -> None:
        self.location = Location.of(self.url, SCHEMES)

    @property
    def is_websocket(self) -> bool:
        """True if the scheme is that of WebSockets."""
        return self.url.startswith("ws")

    @property
    def origin(self) -> str:
        """The Origin of a page of the same host."""
        return f"{'https' if self.location.secure else 'http'}://{self.location.authority}"

    @property
    def origin_without_port(self) -> str:
        """The Origin of a page of the same host, without the port."""
        bare = replace(self.location, port=443 if self.location.secure else 80)
        return f"{'https' if self.location.secure else 'http'}://{bare.authority}"

    def recognize(self, headers: Iterable[tuple[str, str]]) -> None:
        """Recognize the proxy by the headers of a response."""
        for name, value in headers:
            name, value = name.lower(), value.lower()
            if name == "cf-ray" or (name == "server" and value == "cloudflare"):
                self.proxy = "cloudflare"
            elif not self.proxy and name in ("server", "via"):
                self.proxy = next((key for key in ("nginx", "caddy") if key in value), "")

    def open_websocket(self, origin: str | None) -> WebSocket:
        """Open the WebSocket as a page of an origin, or as no page.

        Raises:
            HandshakeError, OSError: as :func:`wsframe.client.connect`.
        """
        ws = connect(
            self.url,
            headers=self.headers,
            origin=origin,
            ssl=self.context,
            open_timeout=self.timeout,
            close_timeout=1.0,
            ping_interval=0,
        )
        self.recognize(ws.headers)
        return ws

    def days_of_certificate(self) -> int | None:
        """Connect; return the number of days until the certificate expires, None without TLS.

        Raises:
            OSError: connecting failed, or the certificate is not valid.
        """
        slot = SocketSlot()
        try:
            sock = dial(self.location, monotonic() + self.timeout, self.context, slot)
            certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
        finally:
            slot.close()
        if not certificate:  # empty if the user accepts every certificate
            return None
        end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        return int((end - datetime.now(UTC).timestamp()) // 86400)

"""Where a URL leads, and a socket that is connected to it."""

from __future__ import annotations

import os
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from ssl import SSLContext, create_default_context
from time import monotonic
from urllib.parse import unquote, urlsplit

from ..fields import Headers, pairs
from .transport import cut

CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Location:
    """What a URL says.

    Attributes:
        secure: whether TLS is spoken.
        host: a name, in ASCII, or an address.
        port: that of the scheme, if the URL names none.
        target: the path and the query, as they stand in the URL.
        authorization: the header that the user and the password in the URL are for, or None.
    """

    secure: bool
    host: str
    port: int
    target: str
    authorization: str | None

    @classmethod
    def of(cls, url: str, schemes: Mapping[str, bool]) -> Location:
        """Read a URL.

        Args:
            url: with no fragment (RFC 6455 section 3).
            schemes: those that may be, each with whether it is the one with TLS.

        Raises:
            ValueError: it is malformed, or of another scheme.
        """
        if CONTROL_OR_SPACE.search(url):  # which urlsplit would pass over in silence
            raise ValueError(f"a URL has no spaces and no control characters: {url!r}")
        if "#" in url:
            raise ValueError(f"this URL must have no fragment: {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError(f"a URL that begins with {' or '.join(schemes)}, not {url!r}")
        if not parts.hostname:
            raise ValueError(f"a URL without a host: {url!r}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii():
            raise ValueError(f"a path and a query are in ASCII, percent-encoded: {target!r}")
        secure = schemes[parts.scheme]
        authorization = None
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {b64encode(user.encode()).decode()}"
        return cls(
            secure,
            parts.hostname.encode("idna").decode(),  # raises what no name may look like
            (443 if secure else 80) if parts.port is None else parts.port,
            target,
            authorization,
        )

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What two resources have in common that may share secrets (RFC 6454 section 4)."""
        return self.secure, self.host, self.port

    @property
    def authority(self) -> str:
        """What the ``Host`` header says: the port only if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def with_authorization(self, headers: Headers) -> list[tuple[str, str]]:
        """The headers, and the URL's own ``Authorization`` unless they have one."""
        fields = list(pairs(headers))
        if self.authorization is not None and not any(
            name.lower() == "authorization" for name, _ in fields
        ):
            fields.append(("Authorization", self.authorization))
        return fields


class Line:
    """The one socket that a thread works with at a time, which any other thread may cut."""

    def __init__(self) -> None:
        # While it is held the socket is not closed: its number would be another's.
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._process = os.getpid()
        self._cut = False

    def use(self, sock: socket.socket) -> None:
        """The thread that works: use this socket from here on; the last one is closed.

        Raises:
            ConnectionAbortedError: the line is cut.
        """
        self.close()
        with self._lock:
            self._sock = sock
            if self._cut:
                raise ConnectionAbortedError("closed by another thread")

    def close(self) -> None:
        """The thread that works: close the socket."""
        with self._lock:
            if self._sock is not None:
                cut(self._sock, self._process)
                self._sock.close()
                self._sock = None

    def cut(self) -> None:
        """Any thread: end what is done with the socket, for good; it is still to be closed."""
        with self._lock:
            self._cut = True
            if self._sock is not None:
                cut(self._sock, self._process)


def dial(location: Location, deadline: float, ssl: SSLContext | None, line: Line) -> socket.socket:
    """Return a socket that is connected to one of the host's addresses, with TLS if it is secure.

    Args:
        location: where to.
        deadline: when, on the monotonic clock, to give up. Each address has its share of the time.
        ssl: the context for TLS; None for the system's certificates.
        line: has the socket, and is to be closed, also where this raises.

    Raises:
        TimeoutError: it took too long.
        OSError: the host is unknown, no address of it can be reached, or TLS fails.
    """
    sock = _connect(location, deadline, line)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not location.secure:
        return sock
    if ssl is None:
        ssl = create_default_context()
        ssl.set_alpn_protocols(["http/1.1"])
    secured = ssl.wrap_socket(sock, server_hostname=location.host, do_handshake_on_connect=False)
    line.use(secured)
    set_deadline(secured, deadline)
    secured.do_handshake()
    return secured


def _connect(location: Location, deadline: float, line: Line) -> socket.socket:
    infos = socket.getaddrinfo(location.host, location.port, type=socket.SOCK_STREAM)
    failure = OSError("the host has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(infos):
        now = monotonic()
        share = now + (deadline - now) / (len(infos) - tried)
        try:
            sock = socket.socket(family, kind, protocol)  # fails where IPv6 is known by name alone
            line.use(sock)
            set_deadline(sock, share)
            sock.connect(address)
        except OSError as error:
            failure = error
        else:
            return sock
    raise failure


def set_deadline(sock: socket.socket, deadline: float) -> None:
    """Let what the socket does next take until then, on the monotonic clock.

    Raises:
        TimeoutError: it is too late already.
    """
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError("the server did not answer in time")
    sock.settimeout(remaining)

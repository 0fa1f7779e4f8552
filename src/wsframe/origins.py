"""Host and Origin: the server that a request is for, and the site whose page sends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from .arguments import is_sequence_of_str
from .errors import HandshakeError
from .fields import Fields
from .headers import Headers

__all__ = ["check_host", "check_origin", "check_origins", "split_host"]

# The Host header: uri-host [":" port] (RFC 9110 section 7.2). An IPv6 address is in brackets.
HOST = re.compile(
    r"(?P<name>(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
)
ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+\-.]*)://(?P<authority>[^/?#@\s]*)")
# A name that the URL standard parses as an IPv4 address, because its last label is a number.
NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
# The schemes of origins that can match the request's own host. Other origins must be listed.
PAGE_SCHEMES = ("http", "https")
SCHEME_OF_PAGE = {"ws": "http", "wss": "https"}


def check_host(headers: Headers | Fields) -> None:
    """Check the ``Host`` header of any HTTP/1.1 request (RFC 9112 section 3.2).

    Raises:
        HandshakeError: 400, because the Host header is missing, repeated or malformed.
    """
    host = Fields.of(headers).single("host")
    if host is None:
        raise HandshakeError(400, "the request has no Host header")
    if split_host(host) is None:
        raise HandshakeError(400, "the Host header is malformed")


# Cached, because a server has few names, and each request is checked more than once.
@lru_cache(maxsize=16)
def split_host(host: str, scheme: str | None = None) -> tuple[str, str] | None:
    """Return (name, port) in lower case, without the scheme's default port; None if malformed."""
    match = HOST.fullmatch(host)
    if match is None:
        return None
    port = match["port"] or ""
    if port and int(port) > 65535:
        return None
    if match["name"].startswith("["):
        try:
            IPv6Address(match["name"][1:-1])
        except ValueError:
            return None
    return match["name"].lower(), "" if port == DEFAULT_PORTS.get(scheme or "") else port


def check_origins(origins: Sequence[str] | Literal["*"]) -> None:
    """Check a list of allowed origins before the first request arrives.

    Each entry must be exactly what browsers send (WHATWG HTML, serialization of an origin): scheme
    and host in lower case, and the port unless it is the scheme's default, such as
    "https://example.com" or "http://localhost:8080". Schemes other than http and https, such as
    "chrome-extension" or "capacitor", are compared literally. "null" allows every page with an
    opaque origin, such as a sandboxed frame of any site. "*" allows all; it must be the only entry.

    Raises:
        TypeError: the origins are one ``str``, or one of them is not a ``str``.
        ValueError: an entry can never match.
    """
    if origins == "*":
        return
    if not is_sequence_of_str(origins):
        raise TypeError('origins must be a sequence of str, as in ["https://example.com"], or "*"')
    if "*" in origins:
        if len(origins) > 1:
            raise ValueError('the origin "*" allows all others, so it must be the only one')
        return
    for entry in origins:
        _check_entry(entry)


def check_origin(headers: Headers | Fields, origins: Sequence[str] | Literal["*"]) -> str | None:
    """Check the ``Origin`` of a request: the site whose page sends it (RFC 6455 section 10.2).

    Pages of the request's own host are allowed, with http and https. Behind a proxy that terminates
    TLS the scheme of the request is unknown. So only the hosts are compared, each without the
    default port of the origin's scheme.

    Args:
        headers: the headers of the request.
        origins: other allowed origins, as for :func:`check_origins`.

    Returns:
        The origin if it is in ``origins``; None for the request's own host, or without ``Origin``.

    Raises:
        HandshakeError: the origin is not allowed (403), or there is more than one (400).
    """
    fields = Fields.of(headers)
    origin = fields.single("origin")
    if origin is None or "*" in origins or origin in origins or origin.lower() in origins:
        return origin
    match = ORIGIN.fullmatch(origin)
    if match is not None and (scheme := match["scheme"].lower()) in PAGE_SCHEMES:
        own = split_host(fields.single("host") or "", scheme)
        if own is not None and own == split_host(match["authority"], scheme):
            return None
    raise HandshakeError(403, "this Origin is not allowed")


@lru_cache(maxsize=1024)  # cached, because accept() checks the same entries for each request
def _check_entry(entry: str) -> None:
    if entry == "null":
        return
    if "*" in entry:
        hint = 'list every origin, or use "*" alone to allow all'
    else:
        sent = _as_sent(entry)
        if sent == entry:
            return
        hint = (
            'an origin consists of a scheme and a host in ASCII, such as "https://example.com"'
            if sent is None
            else f"browsers send {sent!r}"
        )
    raise ValueError(f"the origin {entry!r} can never match: {hint}")


def _as_sent(entry: str) -> str | None:
    """Return the origin that browsers send for the site that a wrong entry means; or None."""
    if "://" not in entry:
        entry = f"https://{entry}"
    scheme, _, rest = entry.partition("://")
    scheme = SCHEME_OF_PAGE.get(scheme.lower(), scheme.lower())
    authority = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if scheme not in PAGE_SCHEMES:
        sent = f"{scheme}://{authority}"
        return sent if ORIGIN.fullmatch(sent) else None
    parts = split_host(authority, scheme)
    if parts is None or "%" in parts[0]:
        return None
    name, port = parts
    port = str(int(port or "0"))
    if NUMERIC.fullmatch(name):
        try:
            name = str(IPv4Address(name))
        except ValueError:
            return None
    elif name.startswith("["):
        address = IPv6Address(name[1:-1])
        # Versions of Python format IPv4-mapped addresses differently.
        if address.ipv4_mapped is None:
            name = f"[{address}]"
    port = "" if port in ("0", DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{name}{port}"

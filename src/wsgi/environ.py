"""Conversion of a WSGI environment to the request of a connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.origins import check_host

from ..server.addresses import UNIX, parse_address
from ..server.http.head_limits import check_head_size, check_header_count, check_target
from ..server.http.paths import normal_path
from ..server.http.request import Request
from ..server.settings import Settings

#: The environment of a request (PEP 3333).
Environ: TypeAlias = dict[str, Any]
Address: TypeAlias = "IPv4Address | IPv6Address"
#: Header fields, as (name, value) pairs.
Pairs: TypeAlias = "Iterable[tuple[str, str]]"

# The characters of a path that need no encoding (RFC 3986 section 3.3).
SAFE = "/!$&'()*+,;=:@~"
# The headers with which proxies forward the client's address.
FORWARDING = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
LINE_BREAKS = re.compile("[\r\n]+")


class StartResponse(Protocol):
    """The ``start_response`` of a WSGI server."""

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = ..., /
    ) -> Callable[[bytes], object]: ...


def request_of(
    environ: Environ, *, http_version: str, settings: Settings
) -> tuple[Request, Fields]:
    """Any thread: return the request that an environment describes, and its headers.

    The settings limit the request's size, as in :class:`wsframe.server.App`. The WSGI server has
    applied limits of its own before.

    Args:
        environ: the environment.
        http_version: the version of the request.
        settings: the settings, with the limits.

    Raises:
        HandshakeError: the path is not valid UTF-8 or the Host is malformed (400), the path is too
            long (414), or the head is too large or has too many headers (431).
    """
    headers = list(_headers(environ))
    check_header_count(len(headers), settings)
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    try:
        target = quote(path.encode("latin-1"), safe=SAFE) or "/"
        normal_path(target)
    except ValueError:
        raise HandshakeError(400, "the path is not valid UTF-8") from None
    check_target(target, query)
    target = f"{target}?{query}" if query else target
    size = len(target) + sum(len(name) + len(value) for name, value in headers)
    check_head_size(size, settings)
    request = Request(
        method=environ["REQUEST_METHOD"],
        target=target,
        fields=headers,
        http_version=http_version,
        address=address_of(environ),
        scheme=environ.get("wsgi.url_scheme", "http"),
    )
    request.client = client_of(environ)
    fields = Fields(headers)
    if http_version == "1.1" or fields.items("host"):
        check_host(fields)
    return request, fields


def _headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            # Some servers do not remove the line breaks in folded headers.
            yield key[5:].replace("_", "-").title(), LINE_BREAKS.sub(" ", str(value))
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            yield key.replace("_", "-").title(), str(environ[key])


def client_of(environ: Environ) -> str:
    """Any thread: return the client's address in normal form, or "unix" if it has none."""
    client = _parsed(environ.get("REMOTE_ADDR"))
    return UNIX if client is None else str(client)


def address_of(environ: Environ) -> object:
    """Any thread: return the client's address as ``getpeername`` does; "" without one."""
    client = client_of(environ)
    return "" if client == UNIX else (client, _port(environ.get("REMOTE_PORT")) or 0)


def is_peer(peer: tuple[Any, ...], environ: Environ) -> bool:
    """Any thread: return True if a peer is the client of a request, by its address and port.

    A middleware may have replaced the client's address with an address from a proxy's header. Then
    only the port is compared, because such a middleware does not change the port.

    Args:
        peer: the address of the peer, as the socket module returns it.
        environ: the environment of the request.
    """
    names = list(_names(environ))
    address = _parsed(peer[0])
    if any(port in (None, peer[1]) and client in (None, address) for client, port in names):
        return True
    forwarded = any(environ.get(name) for name in FORWARDING)
    return forwarded and any(port in (None, peer[1]) for _, port in names)


def _names(environ: Environ) -> Iterator[tuple[Address | None, int | None]]:
    """Yield the possible addresses and ports of the client; None for an unknown part."""
    port = _port(environ.get("REMOTE_PORT"))
    yield _parsed(environ.get("REMOTE_ADDR")), port
    original = environ.get("werkzeug.proxy_fix.orig") or {}
    if original.get("REMOTE_ADDR"):
        yield _parsed(original["REMOTE_ADDR"]), port
    if environ.get("PROXY_ADDR"):  # gunicorn with the PROXY protocol
        yield _parsed(environ["PROXY_ADDR"]), _port(environ.get("PROXY_PORT"))


def _parsed(client: object) -> Address | None:
    """Return an IP address without its zone; None for a text that is not an address."""
    try:
        return parse_address(str(client).partition("%")[0])
    except ValueError:
        return None


def _port(text: object) -> int | None:
    """Return a port; None if it is unknown."""
    text = str(text or "")
    return (int(text) or None) if text.isdecimal() else None

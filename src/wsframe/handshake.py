"""The opening handshake of RFC 6455 section 4, as the server sees it, without I/O."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, TypeAlias

from .errors import HandshakeError
from .kernels import accept_key

__all__ = [
    "Acceptance",
    "Headers",
    "accept",
    "check_choices",
    "check_host",
    "encode_response",
    "wants_upgrade",
]

#: A mapping, or (name, value) pairs; only pairs show that a header came twice.
Headers: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# uri-host [":" port], RFC 9110 section 7.2; an IPv6 address stands in brackets.
HOST = re.compile(
    r"(?P<name>[A-Za-z0-9\-._~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
)
ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+\-.]*)://(?P<host>[^/?#@\s]+)")
DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
VERSION = "13"

UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", VERSION),
)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer to an upgrade request that is in order.

    Attributes:
        headers: what the 101 answer carries, as (name, value) pairs.
        subprotocol: the one that was chosen, or None.
    """

    headers: tuple[tuple[str, str], ...]
    subprotocol: str | None = None

    def encode(self) -> bytes:
        """Return the 101 answer as it stands on the wire; frames follow it."""
        return encode_response(HTTPStatus.SWITCHING_PROTOCOLS, self.headers)


def accept(
    headers: Headers,
    *,
    method: str = "GET",
    http_version: str = "1.1",
    subprotocols: Sequence[str] = (),
    origins: Sequence[str] | Literal["*"] = (),
) -> Acceptance:
    """Judge an upgrade request (RFC 6455 section 4.2.1) and return what to answer.

    Args:
        headers: of the request. Names and tokens are compared without regard to case.
        method: of the request.
        http_version: of the request, as in "1.1".
        subprotocols: those that the server speaks. The first of the client's list that is among
            them is chosen; where none is, the connection goes without (section 4.2.2).
        origins: those that may connect besides the request's own host, as in
            "https://example.com"; "*" admits all. A request without ``Origin`` comes from no
            browser and is admitted.

    Raises:
        TypeError: subprotocols or origins are one ``str`` instead of a sequence of them.
        HandshakeError: with the status to answer: 400 for what is malformed, 403 for a foreign
            origin, 405 for another method than GET, 426 for what is no upgrade to version 13.
    """
    check_choices(subprotocols, origins)
    fields = _collect(headers)
    _check_host(fields)
    if _tokens(fields, "transfer-encoding") or _single(fields, "content-length") not in (None, "0"):
        raise HandshakeError(400, "an upgrade request has no body")
    if http_version != "1.1" or not (
        "websocket" in _tokens(fields, "upgrade") and "upgrade" in _tokens(fields, "connection")
    ):
        raise HandshakeError(
            426, "this resource is a WebSocket: an upgrade is required", UPGRADE_REQUIRED
        )
    if method != "GET":
        raise HandshakeError(405, "a WebSocket is opened with GET", [("Allow", "GET")])
    if _single(fields, "sec-websocket-version") != VERSION:
        raise HandshakeError(426, "only version 13 is spoken here", UPGRADE_REQUIRED)
    key = _check_key(fields)
    _check_origin(fields, origins)
    subprotocol = _choose_subprotocol(fields, subprotocols)

    answer = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    if subprotocol is not None:
        answer.append(("Sec-WebSocket-Protocol", subprotocol))
    return Acceptance(tuple(answer), subprotocol)


def check_choices(subprotocols: Sequence[str], origins: Sequence[str] | Literal["*"]) -> None:
    """Find out whether these are what :func:`accept` takes, before the first request comes.

    Raises:
        TypeError: they are one ``str`` instead of a sequence of them.
    """
    if isinstance(subprotocols, str) or (isinstance(origins, str) and origins != "*"):
        raise TypeError('subprotocols and origins are sequences of str, as in ["chat"]')


def wants_upgrade(headers: Headers) -> bool:
    """Whether a request asks for an upgrade to WebSocket, rightly or not."""
    return "websocket" in _tokens(_collect(headers), "upgrade")


def check_host(headers: Headers) -> None:
    """Judge the Host of any HTTP/1.1 request (RFC 9112 section 3.2).

    Raises:
        HandshakeError: 400; there is not exactly one, or it is malformed.
    """
    _check_host(_collect(headers))


def encode_response(
    status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """Return an HTTP/1.1 response as it stands on the wire.

    Raises:
        ValueError: a header's name is not a token, or its value has a control character in it, such
            as a line break that would forge another header (RFC 9110 section 5.5).
    """
    lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"]
    for name, value in headers:
        if not TOKEN.fullmatch(name):
            raise ValueError(f"a header's name must be a token: {name!r}")
        if any(character < " " and character != "\t" for character in value) or "\x7f" in value:
            raise ValueError(f"control characters must not stand in a header: {name}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def _collect(headers: Headers) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    return fields


def _single(fields: dict[str, list[str]], name: str) -> str | None:
    values = fields.get(name, ())
    if len(values) > 1:
        raise HandshakeError(400, f"more than one {name.title()} header")
    return values[0] if values else None


def _list(fields: dict[str, list[str]], name: str) -> list[str]:
    """A comma-separated list, in however many headers it stands (RFC 9110 section 5.6.1)."""
    items = (item.strip(" \t") for value in fields.get(name, ()) for item in value.split(","))
    return [item for item in items if item]


def _tokens(fields: dict[str, list[str]], name: str) -> set[str]:
    return {item.lower() for item in _list(fields, name)}


def _check_host(fields: dict[str, list[str]]) -> None:
    host = _single(fields, "host")
    if host is None:
        raise HandshakeError(400, "no Host header")
    if _split_host(host) is None:
        raise HandshakeError(400, "the Host header is malformed")


def _split_host(host: str, scheme: str | None = None) -> tuple[str, str] | None:
    """(name, port), with the port empty where it is the scheme's own; None if malformed."""
    match = HOST.fullmatch(host)
    if match is None:
        return None
    port = match["port"] or ""
    if port and int(port) > 65535:
        return None
    return match["name"].lower(), "" if port == DEFAULT_PORTS.get(scheme or "") else port


def _check_key(fields: dict[str, list[str]]) -> str:
    """RFC 6455 section 4.2.1: 16 bytes in base64, in exactly one header."""
    key = _single(fields, "sec-websocket-key")
    if key is None:
        raise HandshakeError(400, "no Sec-WebSocket-Key header")
    try:
        size = len(b64decode(key.encode("ascii"), validate=True))
    except (Base64Error, UnicodeEncodeError):
        size = -1
    if size != 16 or len(key) != 24:
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return key


def _check_origin(fields: dict[str, list[str]], origins: Sequence[str] | Literal["*"]) -> None:
    """RFC 6455 section 10.2: a browser says which site's script is asking."""
    origin = _single(fields, "origin")
    if origin is None or origins == "*" or origin.lower() in {item.lower() for item in origins}:
        return
    match = ORIGIN.fullmatch(origin)
    if match is not None:
        # Behind a proxy that ends TLS the scheme of the request is not known: hosts are compared,
        # each without the port that the origin's scheme implies.
        scheme = match["scheme"].lower()
        if _split_host(match["host"], scheme) == _split_host(fields["host"][0], scheme):
            return
    raise HandshakeError(403, "this Origin may not connect")


def _choose_subprotocol(fields: dict[str, list[str]], subprotocols: Sequence[str]) -> str | None:
    """RFC 6455 section 4.2.2: the client lists in order of preference."""
    offered = _list(fields, "sec-websocket-protocol")
    if not all(TOKEN.fullmatch(item) for item in offered):
        raise HandshakeError(400, "Sec-WebSocket-Protocol must be a list of tokens")
    return next((item for item in offered if item in subprotocols), None)

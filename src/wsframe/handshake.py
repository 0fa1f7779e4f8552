"""The opening handshake of RFC 6455 section 4, for both ends, without I/O."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from .deflate import EXTENSION, Parameters, PerMessageDeflate
from .errors import HandshakeError
from .fields import TOKEN, Fields, Headers, check_field, encode_head, encode_response, pairs
from .kernels import accept_key
from .origins import check_host, check_origin, check_origins, split_host

__all__ = [
    "Acceptance",
    "UpgradeRequest",
    "accept",
    "check_choices",
    "wants_upgrade",
]

TARGET = re.compile(r"/[!\"$-~]*")  # without a fragment (RFC 6455 section 3)
KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
VERSION = "13"
# Headers that only the handshake sets, and headers that would announce a body.
RESERVED = frozenset(
    ("connection", "content-length", "expect", "host", "origin", "transfer-encoding", "upgrade")
)

UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", VERSION),
)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The result of an opening handshake.

    Attributes:
        headers: the headers of the 101 response, as (name, value) pairs.
        subprotocol: the negotiated subprotocol, or None.
        deflate: the negotiated compression, for :class:`wsframe.Connection`, or None.
    """

    headers: tuple[tuple[str, str], ...]
    subprotocol: str | None = None
    deflate: PerMessageDeflate | None = None

    def encode(self) -> bytes:
        """Return the 101 response in wire format; frames follow it."""
        return encode_response(HTTPStatus.SWITCHING_PROTOCOLS, self.headers)


def accept(
    headers: Headers | Fields,
    *,
    method: str = "GET",
    http_version: str = "1.1",
    subprotocols: Sequence[str] = (),
    origins: Sequence[str] | Literal["*"] = (),
    deflate: PerMessageDeflate | None = None,
) -> Acceptance:
    """Accept an upgrade request (RFC 6455 section 4.2.1), and return the response to send.

    Args:
        headers: the headers of the request. Names and tokens are case-insensitive.
        method: the method of the request.
        http_version: the HTTP version of the request, such as "1.1".
        subprotocols: the subprotocols that the server supports. The first one in the client's list
            that the server supports is chosen. Without a match the connection has no subprotocol
            (section 4.2.2).
        origins: the origins that may connect in addition to the request's own host, such as
            "https://example.com"; "*" allows all; see :func:`wsframe.origins.check_origins`. A
            request without ``Origin`` does not come from a browser, and is allowed.
        deflate: the compression that the server supports. The first of the client's offers that
            is compatible with it is accepted. Without a match messages are not compressed.

    Raises:
        TypeError: subprotocols or origins are one ``str`` instead of a sequence.
        ValueError: a subprotocol is not a token, or an origin can never match.
        HandshakeError: the request is malformed (400), has a foreign origin (403) or a method other
            than GET (405), or is not an upgrade to WebSocket version 13 (426).
    """
    check_choices(subprotocols, origins)
    fields = Fields.of(headers)
    check_host(fields)
    if fields.tokens("transfer-encoding") or fields.single("content-length") not in (None, "0"):
        raise HandshakeError(400, "an upgrade request must not have a body")
    if http_version != "1.1" or not _is_upgrade(fields):
        raise HandshakeError(
            426, "this resource is a WebSocket: an upgrade is required", UPGRADE_REQUIRED
        )
    if method != "GET":
        raise HandshakeError(405, "a WebSocket handshake must use GET", [("Allow", "GET")])
    if fields.single("sec-websocket-version") != VERSION:
        raise HandshakeError(426, "unsupported WebSocket version: use 13", UPGRADE_REQUIRED)
    key = _check_key(fields)
    check_origin(fields, origins)
    subprotocol = _choose_subprotocol(fields, subprotocols)
    extensions = fields.extensions()

    answer = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    if subprotocol is not None:
        answer.append(("Sec-WebSocket-Protocol", subprotocol))
    if deflate is None:
        return Acceptance(tuple(answer), subprotocol)
    for name, parameters in extensions:
        agreed = deflate.accept(parameters) if name == EXTENSION else None
        if agreed is not None:
            deflate, extension = agreed
            answer.append(("Sec-WebSocket-Extensions", extension))
            return Acceptance(tuple(answer), subprotocol, deflate)
    return Acceptance(tuple(answer), subprotocol)


class UpgradeRequest:
    """The client's side of one opening handshake (RFC 6455 section 4.1), with a random key.

    Args:
        host: the value of the ``Host`` header: the server's name, and its port unless it is the
            default port of the scheme.
        target: the path and the query.
        origin: the value of the ``Origin`` header; None to omit it, as clients other than browsers
            may.
        subprotocols: the subprotocols that the client supports, in order of preference.
        deflate: the compression to offer, or several offers in order of preference; None for no
            compression. The server accepts the first offer that it supports (RFC 7692 section 5).
        headers: additional headers of the request, as (name, value) pairs or a mapping.

    Raises:
        TypeError: subprotocols are one ``str`` instead of a sequence.
        ValueError: a value is not valid in a request, for example because it contains a line break;
            a header is reserved for the handshake; or a subprotocol is not a token or occurs twice.
    """

    def __init__(
        self,
        host: str,
        target: str = "/",
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        deflate: PerMessageDeflate | Sequence[PerMessageDeflate] | None = None,
        headers: Headers = (),
    ) -> None:
        check_choices(subprotocols, ())
        if split_host(host) is None:
            raise ValueError(f"host must be a name or address, optionally with a port: {host!r}")
        if not TARGET.fullmatch(target):
            raise ValueError(
                f"target must begin with a slash, without spaces or fragment: {target!r}"
            )
        if len(set(subprotocols)) < len(subprotocols):
            raise ValueError(f"subprotocols must be unique: {subprotocols!r}")
        self.host = host
        self.target = target
        self._key = b64encode(os.urandom(16)).decode()
        self._subprotocols = tuple(subprotocols)
        if deflate is None:
            deflate = ()
        self._offers = tuple(deflate) if isinstance(deflate, Sequence) else (deflate,)
        self._headers = [
            ("Host", host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", VERSION),
        ]
        if origin is not None:
            self._headers.append(("Origin", origin))
        if subprotocols:
            self._headers.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        if self._offers:
            offers = ", ".join(offer.offer() for offer in self._offers)
            self._headers.append(("Sec-WebSocket-Extensions", offers))
        for name, value in pairs(headers):
            if name.lower() in RESERVED or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"header {name} is reserved for the handshake")
            self._headers.append((name, value))
        for name, value in self._headers:
            check_field(name, value)

    def encode(self) -> bytes:
        """Return the request in wire format."""
        return encode_head(f"GET {self.target} HTTP/1.1", self._headers)

    def confirm(self, status: int, headers: Headers) -> Acceptance:
        """Check the server's response (RFC 6455 section 4.1), and return the result.

        Raises:
            HandshakeError: the server rejected the request, with the status of its response; or
                its 101 response violates the protocol, with status 502.
        """
        answer = tuple(pairs(headers))
        fields = Fields(answer, 502)
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise HandshakeError(status, f"the server answered {status}", answer)
        if not _is_upgrade(fields):
            raise fields.fault("the response does not upgrade to WebSocket")
        if fields.single("sec-websocket-accept") != accept_key(self._key):
            raise fields.fault("Sec-WebSocket-Accept does not match the key that was sent")
        subprotocol = fields.single("sec-websocket-protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise fields.fault("the server chose a subprotocol that was not offered")
        agreed: PerMessageDeflate | None = None
        for name, parameters in fields.extensions():
            if name != EXTENSION or not self._offers or agreed is not None:
                raise fields.fault("the server chose an extension that was not offered")
            agreed = self._confirm_deflate(parameters)
        return Acceptance(answer, subprotocol, agreed)

    def _confirm_deflate(self, parameters: Parameters) -> PerMessageDeflate:
        """Return the result for the first offer that the response complies with."""
        *others, last = self._offers
        for offer in others:
            with suppress(HandshakeError):
                return offer.confirm(parameters)
        return last.confirm(parameters)


def check_choices(subprotocols: Sequence[str], origins: Sequence[str] | Literal["*"]) -> None:
    """Check arguments of :func:`accept` before the first request arrives.

    Raises:
        TypeError: subprotocols or origins are one ``str`` instead of a sequence.
        ValueError: a subprotocol is not a token, or an origin can never match.
    """
    if isinstance(subprotocols, str):
        raise TypeError('subprotocols must be a sequence of str, as in ["chat"]')
    check_origins(origins)
    for subprotocol in subprotocols:
        if not TOKEN.fullmatch(subprotocol):
            raise ValueError(f"a subprotocol must be a token: {subprotocol!r}")


def wants_upgrade(headers: Headers | Fields) -> bool:
    """Return True if a request asks for an upgrade to WebSocket, even an invalid one."""
    return "websocket" in Fields.of(headers).tokens("upgrade")


def _is_upgrade(fields: Fields) -> bool:
    return "websocket" in fields.tokens("upgrade") and "upgrade" in fields.tokens("connection")


def _check_key(fields: Fields) -> str:
    """Return the key: 16 bytes in base64, in exactly one header (RFC 6455 section 4.2.1)."""
    key = fields.single("sec-websocket-key")
    if key is None:
        raise HandshakeError(400, "the request has no Sec-WebSocket-Key header")
    if not KEY.fullmatch(key):
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return key


def _choose_subprotocol(fields: Fields, subprotocols: Sequence[str]) -> str | None:
    """Return the first subprotocol of the client's list that is supported (section 4.2.2)."""
    offered = fields.items("sec-websocket-protocol")
    if not all(TOKEN.fullmatch(item) for item in offered):
        raise HandshakeError(400, "Sec-WebSocket-Protocol must be a list of tokens")
    return next((item for item in offered if item in subprotocols), None)

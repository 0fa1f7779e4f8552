"""The opening handshake of RFC 6455 section 4, for both ends, without I/O."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal

from .arguments import check_deflate, check_integer, check_text, is_sequence_of_str
from .deflate import PerMessageDeflate
from .errors import HandshakeError
from .fields import Fields
from .headers import TOKEN, Headers, check_field, checked, encode_head, encode_response, pairs
from .kernels import accept_key
from .origins import check_host, check_origin, check_origins, split_host
from .parameters import EXTENSION, Parameters
from .shown import names_of, short, show

__all__ = [
    "Acceptance",
    "UpgradeRequest",
    "accept",
    "check_choices",
    "check_upgrade",
    "negotiate",
    "wants_upgrade",
]

TARGET = re.compile(r"/[!\"$-~]*")  # a request target without a fragment (RFC 6455 section 3)
KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # Sec-WebSocket-Key: 16 bytes in base64
VERSION = "13"
SWITCHING_PROTOCOLS = int(HTTPStatus.SWITCHING_PROTOCOLS)  # an int, because an enum hashes slowly
# Headers that only the handshake sets, and headers that would announce a body, besides those of
# WebSocket. A 101 response must not have a body (RFC 9110 section 15.2).
RESERVED_IN_RESPONSE = frozenset(("connection", "content-length", "transfer-encoding", "upgrade"))
RESERVED_IN_REQUEST = RESERVED_IN_RESPONSE | {"expect", "host", "origin"}
RESERVED = "is reserved for the handshake"

UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", VERSION),
)


@dataclass(frozen=True, slots=True, repr=False)
class Acceptance:
    r"""The result of an opening handshake.

    >>> head = RequestDecoder().receive(UpgradeRequest("example.com").encode())
    >>> head.accept().encode()
    b'HTTP/1.1 101 Switching Protocols\r\n...'

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
        return encode_response(SWITCHING_PROTOCOLS, self.headers)

    def __repr__(self) -> str:
        return show(
            self,
            subprotocol=self.subprotocol,
            deflate=self.deflate,
            headers=names_of(self.headers),
        )


def accept(
    request: Headers | Fields,
    /,
    *,
    method: str = "GET",
    http_version: str = "1.1",
    subprotocols: Sequence[str] = (),
    origins: Sequence[str] | Literal["*"] = (),
    deflate: PerMessageDeflate | None = None,
    headers: Headers = (),
) -> Acceptance:
    """Accept an upgrade request (RFC 6455 section 4.2.1), and return the response to send.

    Args:
        request: the headers of the request, as (name, value) pairs or a mapping, in ``str``, or in
            ``bytes`` as in ASGI. Names and tokens are case-insensitive.
        method: the method of the request.
        http_version: the HTTP version of the request, such as "1.1".
        subprotocols: the subprotocols that the server supports. The first one in the client's list
            that the server supports is chosen. Without a match the connection has no subprotocol
            (section 4.2.2).
        origins: the origins that may connect in addition to the request's own host, such as
            "https://example.com"; "*" allows all. Each is exactly as a browser sends it: without a
            path, a default port or upper case. A request without ``Origin`` does not come from a
            browser, and is allowed.
        deflate: the compression that the server supports. The first of the client's offers that
            is compatible with it is accepted. Without a match messages are not compressed.
        headers: further headers of the response, such as ``Set-Cookie``, as (name, value) pairs or
            a mapping.

    Raises:
        TypeError: subprotocols or origins are not a sequence of ``str``, or another argument has a
            wrong type.
        ValueError: a subprotocol is not a token, or an origin can never match; or a header of the
            response is reserved for the handshake, or contains a line break, for example.
        HandshakeError: the request is malformed (400), has a foreign origin (403) or a method other
            than GET (405), or is not an upgrade to WebSocket version 13 (426).
    """
    check_choices(subprotocols, origins)
    if deflate is not None:
        check_deflate(deflate)
    further = checked(headers, RESERVED_IN_RESPONSE, RESERVED)
    fields = request if isinstance(request, Fields) else Fields(request, name="request")
    check_host(fields)
    key = check_upgrade(fields, method, http_version)
    check_origin(fields, origins)
    acceptance = negotiate(fields, key, subprotocols, deflate)
    return replace(acceptance, headers=(*acceptance.headers, *further)) if further else acceptance


def check_upgrade(fields: Fields, method: str, http_version: str) -> str:
    """Check a request as :func:`accept` does, except its Host and Origin; return its key.

    Raises:
        HandshakeError: the request is not a valid upgrade to WebSocket.
    """
    if fields.items("transfer-encoding") or fields.single("content-length") not in (None, "0"):
        raise HandshakeError(400, "an upgrade request must not have a body")
    if http_version != "1.1" or not _is_upgrade(fields):
        check_text(http_version=http_version)
        raise HandshakeError(
            426, "this resource is a WebSocket: an upgrade is required", UPGRADE_REQUIRED
        )
    if method != "GET":
        check_text(method=method)
        raise HandshakeError(405, "a WebSocket handshake must use GET", [("Allow", "GET")])
    if fields.single("sec-websocket-version") != VERSION:
        raise HandshakeError(426, "unsupported WebSocket version: use 13", UPGRADE_REQUIRED)
    return _check_key(fields)


def negotiate(
    fields: Fields, key: str, subprotocols: Sequence[str], deflate: PerMessageDeflate | None
) -> Acceptance:
    """Choose the subprotocol and the compression; return the response to a checked request.

    Raises:
        HandshakeError: a list in the request is malformed.
    """
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
    r"""The client's side of one opening handshake (RFC 6455 section 4.1), with a random key.

    >>> UpgradeRequest("example.com", "/chat", subprotocols=["chat"]).encode()
    b'GET /chat HTTP/1.1\r\nHost: example.com\r\n...'

    Args:
        host: the value of the ``Host`` header: the server's name, and its port unless it is the
            default port of the scheme.
        target: the path and the query, percent-encoded.
        origin: the value of the ``Origin`` header; None to omit it, as clients other than browsers
            may.
        subprotocols: the subprotocols that the client supports, in order of preference.
        deflate: the compression to offer, or several offers in order of preference; None for no
            compression. The server accepts the first offer that it supports (RFC 7692 section 5).
        headers: further headers of the request, as (name, value) pairs or a mapping.

    Raises:
        TypeError: subprotocols are not a sequence of ``str``, or another argument has a wrong type.
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
        check_text(host=host, target=target, origin="" if origin is None else origin)
        check_choices(subprotocols, ())
        if split_host(host) is None:
            raise ValueError(f"host must be a name or address, optionally with a port: {host!r}")
        if not TARGET.fullmatch(target):
            raise ValueError(
                "target must begin with a slash, without spaces or fragment, and with "
                f"percent-encoding of all characters that are not ASCII: {target!r}"
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
        for offer in self._offers:
            check_deflate(offer)
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
        for name, value in self._headers:
            check_field(name, value)
        self._headers += checked(headers, RESERVED_IN_REQUEST, RESERVED)

    def encode(self) -> bytes:
        """Return the request in wire format."""
        return encode_head(f"GET {self.target} HTTP/1.1", self._headers)

    def confirm(self, status: int, headers: Headers) -> Acceptance:
        """Check the server's response (RFC 6455 section 4.1), and return the result.

        Raises:
            HandshakeError: the server rejected the request, with the status of its response; or
                its 101 response violates the protocol, with status 502.
        """
        check_integer("status", status, 100, 999)
        answer = tuple(pairs(headers))
        fields = Fields(answer, 502)
        if status != SWITCHING_PROTOCOLS:
            raise HandshakeError.of_response(status, answer)
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

    def __repr__(self) -> str:
        path = self.target.partition("?")[0]  # a query may contain a secret
        return show(self, short(self.host), short(path), headers=names_of(self._headers))

    def _confirm_deflate(self, parameters: Parameters) -> PerMessageDeflate:
        """Return the settings negotiated by the first offer that the response matches."""
        *others, last = self._offers
        for offer in others:
            with suppress(HandshakeError):
                return offer.confirm(parameters)
        return last.confirm(parameters)


def check_choices(subprotocols: Sequence[str], origins: Sequence[str] | Literal["*"]) -> None:
    """Check arguments of :func:`accept` before the first request arrives.

    Raises:
        TypeError: subprotocols or origins are not a sequence of ``str``.
        ValueError: a subprotocol is not a token, or an origin can never match.
    """
    if not is_sequence_of_str(subprotocols):
        raise TypeError('subprotocols must be a sequence of str, as in ["chat"]')
    check_origins(origins)
    for subprotocol in subprotocols:
        if not TOKEN.fullmatch(subprotocol):
            raise ValueError(f"subprotocols must be tokens, unlike {subprotocol!r}")


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
    if not offered:
        return None
    if not all(TOKEN.fullmatch(item) for item in offered):
        raise HandshakeError(400, "Sec-WebSocket-Protocol must be a list of tokens")
    return next((item for item in offered if item in subprotocols), None)

"""The opening handshake of RFC 6455 section 4, of either end, without I/O."""

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

TARGET = re.compile(r"/[!\"$-~]*")  # a fragment stays with the client, RFC 6455 section 3
KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
VERSION = "13"
# Headers that only the handshake sets, and those that would give the request a body.
OURS = frozenset(
    ("connection", "content-length", "expect", "host", "origin", "transfer-encoding", "upgrade")
)

UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", VERSION),
)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What both ends have agreed on.

    Attributes:
        headers: what the 101 answer carries, as (name, value) pairs.
        subprotocol: the one that was chosen, or None.
        deflate: how messages may be compressed, or None; for :class:`wsframe.Connection`.
    """

    headers: tuple[tuple[str, str], ...]
    subprotocol: str | None = None
    deflate: PerMessageDeflate | None = None

    def encode(self) -> bytes:
        """Return the 101 answer as it stands on the wire; frames follow it."""
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
    """Judge an upgrade request (RFC 6455 section 4.2.1) and return what to answer.

    Args:
        headers: of the request. Names and tokens are compared without regard to case.
        method: of the request.
        http_version: of the request, as in "1.1".
        subprotocols: those that the server speaks. The first of the client's list that is among
            them is chosen; where none is, the connection goes without (section 4.2.2).
        origins: those that may connect besides the request's own host, as in
            "https://example.com"; "*" admits all; see :func:`wsframe.origins.check_origins`. A
            request without ``Origin`` comes from no browser and is admitted.
        deflate: the compression that the server is ready for. The first of the client's offers that
            it can keep is agreed on; where it can keep none, the connection goes without.

    Raises:
        TypeError: subprotocols or origins are one ``str`` instead of a sequence of them.
        ValueError: a subprotocol is not a token, or an origin can never match.
        HandshakeError: with the status to answer: 400 for what is malformed, 403 for a foreign
            origin, 405 for another method than GET, 426 for what is no upgrade to version 13.
    """
    check_choices(subprotocols, origins)
    fields = Fields.of(headers)
    check_host(fields)
    if fields.tokens("transfer-encoding") or fields.single("content-length") not in (None, "0"):
        raise HandshakeError(400, "an upgrade request has no body")
    if http_version != "1.1" or not _is_upgrade(fields):
        raise HandshakeError(
            426, "this resource is a WebSocket: an upgrade is required", UPGRADE_REQUIRED
        )
    if method != "GET":
        raise HandshakeError(405, "a WebSocket is opened with GET", [("Allow", "GET")])
    if fields.single("sec-websocket-version") != VERSION:
        raise HandshakeError(426, "only version 13 is spoken here", UPGRADE_REQUIRED)
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
    """A client's side of one opening handshake (RFC 6455 section 4.1), with a key of its own.

    Args:
        host: what the ``Host`` header says: the server's name, with the port unless it is the
            scheme's own.
        target: the path and the query.
        origin: what the ``Origin`` header says; None for no such header, as browsers alone must
            send it.
        subprotocols: those that the client speaks, in order of preference.
        deflate: the compression to offer, or several in order of preference, of which a server
            takes the first that it can keep (RFC 7692 section 5); None for none.
        headers: what the request carries besides, as (name, value) pairs, or a mapping.

    Raises:
        TypeError: subprotocols are one ``str`` instead of a sequence of them.
        ValueError: a value that must not stand in a request, such as one with a line break, a
            header that the handshake itself sets, or a subprotocol that is not a token or there
            twice.
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
            raise ValueError(f"not a host, or a host and its port: {host!r}")
        if not TARGET.fullmatch(target):
            raise ValueError(
                f"a target begins with a slash, without spaces or fragment: {target!r}"
            )
        if len(set(subprotocols)) < len(subprotocols):
            raise ValueError(f"a subprotocol is named once: {subprotocols!r}")
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
            if name.lower() in OURS or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"the handshake itself sets the header {name}, or never sends it")
            self._headers.append((name, value))
        for name, value in self._headers:
            check_field(name, value)

    def encode(self) -> bytes:
        """Return the request as it stands on the wire."""
        return encode_head(f"GET {self.target} HTTP/1.1", self._headers)

    def confirm(self, status: int, headers: Headers) -> Acceptance:
        """Judge the answer (RFC 6455 section 4.1).

        Raises:
            HandshakeError: the server has refused, with the status that it answered; or its 101
                breaks a rule, with the status 502.
        """
        answer = tuple(pairs(headers))
        fields = Fields(answer, 502)
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise HandshakeError(status, f"the server answered {status}", answer)
        if not _is_upgrade(fields):
            raise fields.fault("the answer is not the upgrade to WebSocket that was asked for")
        if fields.single("sec-websocket-accept") != accept_key(self._key):
            raise fields.fault("Sec-WebSocket-Accept does not answer the key that was sent")
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
        """Hold the answer to the first offer that it keeps to, as it does not say which it is."""
        *others, last = self._offers
        for offer in others:
            with suppress(HandshakeError):
                return offer.confirm(parameters)
        return last.confirm(parameters)


def check_choices(subprotocols: Sequence[str], origins: Sequence[str] | Literal["*"]) -> None:
    """Find out whether these are what :func:`accept` takes, before the first request comes.

    Raises:
        TypeError: they are one ``str`` instead of a sequence of them.
        ValueError: a subprotocol is not a token, or an origin can never match.
    """
    if isinstance(subprotocols, str):
        raise TypeError('subprotocols are sequences of str, as in ["chat"]')
    check_origins(origins)
    for subprotocol in subprotocols:
        if not TOKEN.fullmatch(subprotocol):
            raise ValueError(f"a subprotocol is a token: {subprotocol!r}")


def wants_upgrade(headers: Headers | Fields) -> bool:
    """Whether a request asks for an upgrade to WebSocket, rightly or not."""
    return "websocket" in Fields.of(headers).tokens("upgrade")


def _is_upgrade(fields: Fields) -> bool:
    return "websocket" in fields.tokens("upgrade") and "upgrade" in fields.tokens("connection")


def _check_key(fields: Fields) -> str:
    """RFC 6455 section 4.2.1: 16 bytes in base64, in exactly one header."""
    key = fields.single("sec-websocket-key")
    if key is None:
        raise HandshakeError(400, "no Sec-WebSocket-Key header")
    if not KEY.fullmatch(key):
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return key


def _choose_subprotocol(fields: Fields, subprotocols: Sequence[str]) -> str | None:
    """RFC 6455 section 4.2.2: the client lists in order of preference."""
    offered = fields.items("sec-websocket-protocol")
    if not all(TOKEN.fullmatch(item) for item in offered):
        raise HandshakeError(400, "Sec-WebSocket-Protocol must be a list of tokens")
    return next((item for item in offered if item in subprotocols), None)

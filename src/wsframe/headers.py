"""Callers' headers, and the encoding of HTTP/1.1 messages with these headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

__all__ = [
    "FORBIDDEN_IN_A_VALUE",
    "TEXT_TYPE",
    "TOKEN",
    "Headers",
    "check_field",
    "checked",
    "encode_final",
    "encode_head",
    "encode_response",
    "pairs",
]

#: A mapping, or (name, value) pairs; only pairs can contain a header more than once. Names and
#: values are ``str``, or ``bytes`` in Latin-1 as in ASGI.
Headers: TypeAlias = (
    Mapping[str, str]
    | Mapping[bytes, bytes]
    | Iterable[tuple[str, str]]
    | Iterable[tuple[bytes, bytes]]
)

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
FORBIDDEN_IN_A_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
TEXT_TYPE = "text/plain; charset=utf-8"


def pairs(headers: Headers, name: str = "headers") -> list[tuple[str, str]]:
    """Return headers as (name, value) pairs of ``str``.

    Args:
        headers: the headers.
        name: the name of the argument, for the error.

    Raises:
        TypeError: the argument has another type.
    """
    if headers == ():  # the common case: no headers
        return []
    try:
        items: Iterable[tuple[str, str] | tuple[bytes, bytes]] = (
            headers.items() if isinstance(headers, Mapping) else headers
        )
        return [
            (
                key if type(key) is str else _text(key),
                value if type(value) is str else _text(value),
            )
            for key, value in items
        ]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be a mapping or (name, value) pairs, of str or bytes"
        ) from error


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else str(value, "latin-1")


def check_field(name: str, value: str) -> None:
    """Check a header field before it is sent (RFC 9110 section 5).

    Raises:
        ValueError: the name is not a token, or the value contains a character outside Latin-1 or a
            control character. A line break, for example, would forge another field.
    """
    _check_characters(name, value)
    if not _is_latin(value):
        raise _not_latin(name, value)


def checked(headers: Headers, reserved: frozenset[str], reason: str) -> list[tuple[str, str]]:
    """Return a caller's headers as (name, value) pairs, checked.

    Args:
        headers: the headers.
        reserved: the names that the caller must not set, in lower case; the WebSocket headers are
            added.
        reason: the reason why the names are reserved, for the error.

    Raises:
        TypeError: the headers have another type.
        ValueError: a header is reserved; or as :func:`check_field`.
    """
    found = pairs(headers)
    for name, value in found:
        if name.lower() in reserved or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"header {name} {reason}")
        check_field(name, value)
    return found


def _check_characters(name: str, value: str) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"a header name must be a token: {name!r}")
    if FORBIDDEN_IN_A_VALUE.search(value):
        raise ValueError(f"a header must not contain control characters: {name}: {value!r}")


def _is_latin(value: str) -> bool:
    return value.isascii() or max(value) <= "\xff"


def _not_latin(name: str, value: str) -> ValueError:
    return ValueError(f"a header must be in Latin-1: {name}: {value!r}")


def encode_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a message in wire format, including the empty line.

    Raises:
        ValueError: as :func:`check_field`.
    """
    lines = [first_line]
    for name, value in headers:
        if not (TOKEN.fullmatch(name) and str.isprintable(value)):
            _check_characters(name, value)
        lines.append(f"{name}: {value}")
    lines += ("", "")
    try:
        return "\r\n".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        name, _, value = next(line for line in lines if not _is_latin(line)).partition(": ")
        raise _not_latin(name, value) from None


def encode_response(
    status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """Return an HTTP/1.1 response in wire format.

    Raises:
        ValueError: the status is unknown; or as :func:`check_field`.
    """
    return encode_head(_status_line(status), headers) + body


def encode_final(
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    content_type: str = TEXT_TYPE,
    with_body: bool = True,
) -> bytes:
    """Return the last response of a connection, in wire format.

    The connection is closed afterwards, so that no request can be smuggled behind the first one.

    Args:
        status: the status.
        headers: the headers that do not describe the body.
        body: the body.
        content_type: the media type of the body.
        with_body: False for the answer to a HEAD request, which describes the body without it.

    Raises:
        ValueError: as :func:`encode_response`.
    """
    head = [
        *headers,
        ("Content-Type", content_type),
        ("X-Content-Type-Options", "nosniff"),  # WHATWG Fetch section 3.6
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    return encode_response(status, head, body if with_body else b"")


@lru_cache
def _status_line(status: int) -> str:
    try:
        return f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"
    except ValueError:
        raise ValueError(f"status must be one of http.HTTPStatus, not {status!r}") from None

"""Parsing and encoding of the header fields of HTTP messages (RFC 9110 section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

from .errors import HandshakeError

__all__ = [
    "Extension",
    "Fields",
    "Headers",
    "check_field",
    "decode_response",
    "encode_response",
    "pairs",
]

#: A mapping, or (name, value) pairs; only pairs can contain a header more than once.
Headers: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"
#: The name of a WebSocket extension and its parameters, each with its value or None.
Extension: TypeAlias = "tuple[str, list[tuple[str, str | None]]]"

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# RFC 9112 section 5.2: a line that begins with white space continues the header before it.
FOLD = re.compile(r"\r\n[ \t]+")
STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
FORBIDDEN_IN_A_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 6455 section 9.1: the value of a parameter is absent, a token, or a quoted token.
PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({TOKEN.pattern})(?:[ \t]*=[ \t]*({TOKEN.pattern}|"(?:[^"\\]|\\.)*"))?'
)
# The maximum number of items of a list, including empty ones. RFC 9110 section 5.6.1.2 requires
# recipients to ignore empty items, but not so many of them that they cause a denial of service.
MAX_ITEMS = 100
END_OF_ITEM = re.compile(r"[ \t]*(?:,|$)")
BETWEEN_ITEMS = re.compile(r"[ \t,]*")


class Fields:
    """The fields of one message, by case-insensitive name.

    Args:
        headers: the received headers.
        status: the status of the HandshakeError for a malformed field.
    """

    def __init__(self, headers: Headers, status: int = 400) -> None:
        self._values: dict[str, list[str]] = {}
        self._status = status
        values = self._values
        for name, value in pairs(headers):
            name, value = name.lower(), value.strip(" \t")
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]

    @classmethod
    def of(cls, headers: Headers | Fields) -> Fields:
        """Return the fields of these headers, which may already be a Fields object."""
        return headers if isinstance(headers, Fields) else cls(headers)

    def replace(self, name: str, value: str) -> Fields:
        """Return a copy in which one field has another value."""
        fields = Fields((), self._status)
        fields._values = {**self._values, name: [value]}
        return fields

    def single(self, name: str) -> str | None:
        """Return the value of a field that may appear at most once; None if it is missing.

        Raises:
            HandshakeError: the field appears more than once.
        """
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise self.fault(f"more than one {name.title()} header")
        return values[0]

    def items(self, name: str) -> list[str]:
        """Return a comma-separated list, from all fields of this name (RFC 9110 section 5.6.1).

        Raises:
            HandshakeError: the list has more than 100 items.
        """
        values = self._values.get(name)
        if values is None:
            return []
        if self._is_long(name, ","):
            raise self.fault(f"the {name.title()} header has more than {MAX_ITEMS} items")
        items = [item.strip(" \t") for value in values for item in value.split(",")]
        return [item for item in items if item]

    def tokens(self, name: str) -> set[str]:
        """Return a list of case-insensitive items, in lower case."""
        return {item.lower() for item in self.items(name)}

    def extensions(self) -> list[Extension]:
        """Return the list in ``Sec-WebSocket-Extensions``, in order (RFC 6455 section 9.1).

        Raises:
            HandshakeError: the list is malformed, or has more than 100 items, parameters and
                escaped characters.
        """
        found: list[Extension] = []
        if "sec-websocket-extensions" not in self._values:
            return found
        if self._is_long("sec-websocket-extensions", ",;\\"):
            raise self._malformed_extensions(f": it has more than {MAX_ITEMS} items")
        text = ", ".join(self._values["sec-websocket-extensions"])
        position = BETWEEN_ITEMS.match(text).end()  # type: ignore[union-attr]
        while position < len(text):
            name = TOKEN.match(text, position)
            if name is None:
                raise self._malformed_extensions()
            position = name.end()
            parameters: list[tuple[str, str | None]] = []
            while (parameter := PARAMETER.match(text, position)) is not None:
                parameters.append((parameter[1], self._unquoted(parameter[2])))
                position = parameter.end()
            if END_OF_ITEM.match(text, position) is None:
                raise self._malformed_extensions()
            position = BETWEEN_ITEMS.match(text, position).end()  # type: ignore[union-attr]
            found.append((name[0], parameters))
        return found

    def _unquoted(self, value: str | None) -> str | None:
        if value is None or not value.startswith('"'):
            return value
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
        if not TOKEN.fullmatch(value):
            raise self._malformed_extensions()
        return value

    def _is_long(self, name: str, separators: str) -> bool:
        """Return True if a list has too many items; checked first, because parsing is expensive."""
        values = self._values[name]
        return 1 + sum(map(",".join(values).count, separators)) > MAX_ITEMS

    def _malformed_extensions(self, why: str = "") -> HandshakeError:
        return self.fault(f"the Sec-WebSocket-Extensions header is malformed{why}")

    def fault(self, reason: str) -> HandshakeError:
        """Return the error to raise for these fields."""
        return HandshakeError(self._status, reason)


def pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    """Return headers as (name, value) pairs."""
    return headers.items() if isinstance(headers, Mapping) else headers


def check_field(name: str, value: str) -> None:
    """Check a header field before it is sent (RFC 9110 section 5).

    Raises:
        ValueError: the name is not a token, or the value contains a character outside Latin-1 or a
            control character. A line break, for example, would forge another field.
    """
    _check_characters(name, value)
    value.encode("latin-1")


def _check_characters(name: str, value: str) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"a header name must be a token: {name!r}")
    if not str.isprintable(value) and FORBIDDEN_IN_A_VALUE.search(value):
        raise ValueError(f"a header must not contain control characters: {name}: {value!r}")


def encode_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a message in wire format, including the empty line.

    Raises:
        ValueError: as :func:`check_field`.
    """
    lines = [first_line]
    for name, value in headers:
        _check_characters(name, value)
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def encode_response(
    status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """Return an HTTP/1.1 response in wire format.

    Raises:
        ValueError: :class:`http.HTTPStatus` does not have the status; or as :func:`check_field`.
    """
    return encode_head(_status_line(status), headers) + body


@lru_cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"


def decode_response(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Parse the head of an HTTP/1.1 response, or of an HTTP/1.0 response other than 101.

    Args:
        head: the bytes up to and including the empty line.

    Returns:
        The status, and the fields as (name, value) pairs.

    Raises:
        HandshakeError: the head is malformed; the status is 502.
    """
    first, more, rest = head.decode("latin-1").removesuffix("\r\n\r\n").partition("\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None or status_line.groups() == ("0", "101"):  # RFC 6455 section 4.1
        raise HandshakeError(502, "the response does not begin with an HTTP/1.1 status line")
    headers = []
    for line in FOLD.sub(" ", rest).split("\r\n") if more else ():
        name, colon, value = line.partition(":")
        if not colon or not TOKEN.fullmatch(name) or FORBIDDEN_IN_A_VALUE.search(value):
            raise HandshakeError(502, "a header of the response is malformed")
        headers.append((name, value.strip(" \t")))
    return int(status_line[2]), headers

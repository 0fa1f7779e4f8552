"""The header fields of HTTP requests and responses (RFC 9110 section 5), read and written."""

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

#: A mapping, or (name, value) pairs; only pairs show that a header came twice.
Headers: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"
#: The name of a WebSocket extension and its parameters, each with its value or None.
Extension: TypeAlias = "tuple[str, list[tuple[str, str | None]]]"

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# RFC 9112 section 5.2: a line that begins with a blank goes on with the header before it.
FOLD = re.compile(r"\r\n[ \t]+")
STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
FORBIDDEN_IN_A_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 6455 section 9.1: a token, and parameters that may have a token or a quoted token as value.
PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({TOKEN.pattern})(?:[ \t]*=[ \t]*({TOKEN.pattern}|"(?:[^"\\]|\\.)*"))?'
)
# How many items a list may have, empty ones included. RFC 9110 section 5.6.1.2 wants empty items to
# be ignored, but not so many that they serve for denial of service.
MAX_ITEMS = 100
END_OF_ITEM = re.compile(r"[ \t]*(?:,|$)")
BETWEEN_ITEMS = re.compile(r"[ \t,]*")


class Fields:
    """The fields of one message, found by name without regard to case.

    Args:
        headers: as they came.
        status: of the HandshakeError that a malformed field is.
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
        """The fields of these headers, which may be fields already."""
        return headers if isinstance(headers, Fields) else cls(headers)

    def replace(self, name: str, value: str) -> Fields:
        """These fields with another value of one."""
        fields = Fields((), self._status)
        fields._values = {**self._values, name: [value]}
        return fields

    def single(self, name: str) -> str | None:
        """The value of a field that may stand once; None where it is missing.

        Raises:
            HandshakeError: it is there more than once.
        """
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise self.fault(f"more than one {name.title()} header")
        return values[0]

    def items(self, name: str) -> list[str]:
        """A comma-separated list, in however many fields it stands (RFC 9110 section 5.6.1).

        Raises:
            HandshakeError: it has more than 100 items.
        """
        values = self._values.get(name)
        if values is None:
            return []
        if self._is_long(name, ","):
            raise self.fault(f"the {name.title()} header has more than {MAX_ITEMS} items")
        items = [item.strip(" \t") for value in values for item in value.split(",")]
        return [item for item in items if item]

    def tokens(self, name: str) -> set[str]:
        """A list whose items are compared without regard to case."""
        return {item.lower() for item in self.items(name)}

    def extensions(self) -> list[Extension]:
        """What ``Sec-WebSocket-Extensions`` lists, in order (RFC 6455 section 9.1).

        Raises:
            HandshakeError: it is not of that form, or has more than 100 items, parameters and
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
        """Whether a list has too many items; seen before it is read, which would be expensive."""
        values = self._values[name]
        return 1 + sum(map(",".join(values).count, separators)) > MAX_ITEMS

    def _malformed_extensions(self, why: str = "") -> HandshakeError:
        return self.fault(f"the Sec-WebSocket-Extensions header is malformed{why}")

    def fault(self, reason: str) -> HandshakeError:
        """The error that these fields are refused with."""
        return HandshakeError(self._status, reason)


def pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    """The fields as (name, value) pairs."""
    return headers.items() if isinstance(headers, Mapping) else headers


def check_field(name: str, value: str) -> None:
    """Hold a field that is to be sent against RFC 9110 section 5.

    Raises:
        ValueError: the name is not a token, or the value has a control character in it, such as a
            line break that would forge another field, or a character that Latin-1 has not.
    """
    _check_characters(name, value)
    value.encode("latin-1")


def _check_characters(name: str, value: str) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"a header's name must be a token: {name!r}")
    if not str.isprintable(value) and FORBIDDEN_IN_A_VALUE.search(value):
        raise ValueError(f"control characters must not stand in a header: {name}: {value!r}")


def encode_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a message as it stands on the wire, with the empty line.

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
    """Return an HTTP/1.1 response as it stands on the wire.

    Raises:
        ValueError: a status without a name in :class:`http.HTTPStatus`, or as :func:`check_field`.
    """
    return encode_head(_status_line(status), headers) + body


@lru_cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"


def decode_response(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Read the head of an HTTP/1.1 response, or of a refusal in HTTP/1.0.

    Args:
        head: up to and with the empty line.

    Returns:
        The status, and the fields as (name, value) pairs.

    Raises:
        HandshakeError: it is malformed; the status is 502.
    """
    first, more, rest = head.decode("latin-1").removesuffix("\r\n\r\n").partition("\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None or status_line.groups() == ("0", "101"):  # RFC 6455 section 4.1
        raise HandshakeError(502, "the answer does not begin as HTTP/1.1 does")
    headers = []
    for line in FOLD.sub(" ", rest).split("\r\n") if more else ():
        name, colon, value = line.partition(":")
        if not colon or not TOKEN.fullmatch(name) or FORBIDDEN_IN_A_VALUE.search(value):
            raise HandshakeError(502, "a header of the answer is malformed")
        headers.append((name, value.strip(" \t")))
    return int(status_line[2]), headers

"""Header fields of HTTP messages (RFC 9110 section 5): parsing here, encoding in ``headers.py``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from .errors import HandshakeError
from .headers import FORBIDDEN_IN_A_VALUE, TOKEN, Headers, pairs

__all__ = ["Extension", "Fields", "decode_field", "decode_response"]

#: The name of a WebSocket extension and its parameters, each with its value or None.
Extension: TypeAlias = "tuple[str, list[tuple[str, str | None]]]"

# A line that begins with white space, which continues the previous header (RFC 9112 section 5.2).
FOLD = re.compile(r"\r\n[ \t]+")
STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")

# A parameter of an extension, without a value, or with a token or a quoted token (RFC 6455 section
# 9.1).
PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({TOKEN.pattern})(?:[ \t]*=[ \t]*({TOKEN.pattern}|"(?:[^"\\]|\\.)*"))?'
)
# The maximum number of items of a list, including empty ones. Recipients must ignore a reasonable
# number of empty items (RFC 9110 section 5.6.1.2).
MAX_ITEMS = 100
END_OF_ITEM = re.compile(r"[ \t]*(?:,|$)")
BETWEEN_ITEMS = re.compile(r"[ \t,]*")


class Fields:
    """The fields of one message, by case-insensitive name.

    Args:
        headers: the received headers.
        status: the status of the HandshakeError for a malformed field.
        name: the name of the argument with the headers, for the error.

    Raises:
        TypeError: the headers have another type.
    """

    def __init__(self, headers: Headers, status: int = 400, name: str = "headers") -> None:
        self._values: dict[str, list[str]] = {}
        self._status = status
        if type(headers) is list or type(headers) is tuple:
            try:
                self._add(headers)
                return
            except (TypeError, ValueError):
                self._values.clear()  # the headers contain bytes or have a wrong type
        self._add(pairs(headers, name))

    def _add(self, headers: Iterable[tuple[str, str]]) -> None:
        """Add headers of type ``str``.

        Raises:
            TypeError, ValueError: the headers have another type.
        """
        values, lower, strip = self._values, str.lower, str.strip
        for name, value in headers:
            name, value = lower(name), strip(value, " \t")
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]

    @classmethod
    def of(cls, headers: Headers | Fields) -> Fields:
        """Return headers as a Fields object; a Fields object is returned unchanged."""
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
        if len(values) == 1 and "," not in values[0]:
            return [values[0]] if values[0] else []  # the common case requires no parsing
        if self._is_long(name, ","):
            raise self.fault(f"the {name.title()} header has more than {MAX_ITEMS} items")
        items = [item.strip(" \t") for value in values for item in value.split(",")]
        return [item for item in items if item]

    def tokens(self, name: str) -> set[str]:
        """Return a list of case-insensitive items, in lower case."""
        return set(map(str.lower, self.items(name)))

    def extensions(self) -> list[Extension]:
        """Return the list in ``Sec-WebSocket-Extensions``, in order (RFC 6455 section 9.1).

        Raises:
            HandshakeError: the list is malformed, or has more than 100 items, parameters and
                escaped characters in total.
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
        field = decode_field(line)
        if field is None:
            raise HandshakeError(502, "a header of the response is malformed")
        headers.append(field)
    return int(status_line[2]), headers


def decode_field(line: str) -> tuple[str, str] | None:
    """Parse the line of a header field, without its end; None if it is malformed.

    White space around a value is not part of it (RFC 9110 section 5.5). White space before the
    colon is forbidden (RFC 9112 section 5.1).
    """
    name, colon, value = line.partition(":")
    if not colon or not TOKEN.fullmatch(name):
        return None
    if not value.isprintable() and FORBIDDEN_IN_A_VALUE.search(value):
        return None
    return name, value.strip(" \t")

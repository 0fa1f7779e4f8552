"""The path of a request in the normal form that routes, handlers, hooks and logs share.

Many spellings name the same path: ``/admin``, ``/%61dmin`` and ``/%61%64min`` are equal (RFC 3986
section 6.2.2.2). Code that compares paths must use the same form as the routes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from wsframe.arguments import wrong_type

# A percent-encoded byte, another percent sign, or a control character. Only the patterns of routes
# can contain a control character.
ESCAPE = re.compile(rb"%(?:[0-9A-Fa-f]{2})?|[\x00-\x1f\x7f]")
HEX_DIGITS = "0123456789abcdefABCDEF"
PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _stays_encoded(byte: int) -> bool:
    """Return True for bytes that stay percent-encoded: slash, percent sign, control characters."""
    return byte < 0x20 or byte in b"/%\x7f"


def _replacements() -> dict[bytes, bytes]:
    """Return a dictionary with the replacement for every possible match of ESCAPE."""
    replacements = {b"%": b"%25"}
    for byte in range(256):
        replacement = b"%%%02X" % byte if _stays_encoded(byte) else bytes([byte])
        if byte < 0x20 or byte == 0x7F:
            replacements[bytes([byte])] = replacement
        for high in HEX_DIGITS:
            for low in HEX_DIGITS:
                if int(high + low, 16) == byte:
                    replacements[f"%{high}{low}".encode()] = replacement
    return replacements


REPLACEMENTS = _replacements()


def normal_path(raw: str) -> str:
    """Return the normal form of a path, which is percent-decoded without a change of meaning.

    A slash, a percent sign and the ASCII control characters remain percent-encoded, in upper case.
    So two paths have the same normal form only if their segments are the same, and the form
    contains no line break. Dot segments, empty segments and semicolons are ordinary text: they are
    neither resolved nor removed. A percent sign without two hexadecimal digits is an ordinary
    character, as in the URL standard (WHATWG URL section 1.3).

    The time is linear in the length of the path. Raises: ValueError: the bytes are not valid UTF-8,
        or the text has a lone surrogate.
    """
    if "%" not in raw and raw.isascii() and raw.isprintable():
        return raw
    try:
        data = ESCAPE.sub(lambda match: REPLACEMENTS[match[0]], raw.encode())
        return data.decode()
    except UnicodeError:
        raise ValueError("the path is not valid UTF-8") from None


def segments_of(path: str) -> list[str]:
    """Return the decoded segments of a path in normal form; a segment may contain slashes."""
    return [unquote(part) if "%" in part else part for part in path.split("/")]


class Segment:
    """One segment of a pattern that contains parameters, as in "{name}.{extension}".

    Args:
        texts: the decoded text before, between and after the parameters.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._first, *self._between, self._last = texts

    def match(self, segment: str) -> list[str] | None:
        """Return the values of the parameters; None if the segment does not match.

        A value has at least one character. If a text between two parameters occurs more than
        once, the last occurrence separates them. The time is linear in the length of the segment.
        """
        begin, end = len(self._first), len(segment) - len(self._last)
        if begin >= end or not segment.startswith(self._first) or not segment.endswith(self._last):
            return None
        values = []
        for text in reversed(self._between):
            position = segment.rfind(text, begin + 1, end - 1)
            if position < 0:
                return None
            values.append(segment[position + len(text) : end])
            end = position
        values.append(segment[begin:end])
        return values[::-1]


def check_path_type(path: object, decorator: str = "") -> None:
    """Any thread: check the type of a path; a function means a decorator without a path.

    Args:
        path: the path.
        decorator: the name of the decorator whose argument is the path; "" for another function.

    Raises:
        TypeError: the path is not a ``str``.
    """
    if isinstance(path, str):
        return
    error = wrong_type("path", "str", path)
    if decorator and callable(path):
        error = TypeError(f'{error}; use @{decorator}("/path")')
    raise error


class Path:
    """The pattern of a path, with parameters in braces: "/rooms/{room}".

    A parameter matches one segment of the path or a part of it, with at least one character. The
    handler receives it percent-decoded, as a keyword argument.

    Attributes:
        pattern: the pattern as it was given.
        parameters: the names of the parameters, in order.
        shape: for each segment, the decoded text before, between and after the parameters. Two
            patterns with the same shape match the same paths.
        length: the number of segments.

    Raises:
        TypeError: the pattern is not a ``str``.
        ValueError: the pattern is malformed.
    """

    def __init__(self, pattern: str) -> None:
        check_path_type(pattern)
        if not pattern.startswith("/"):
            raise ValueError(f"a path must begin with a slash: {pattern!r}")
        pieces = PARAMETER.split(pattern)
        self.parameters: list[str] = pieces[1::2]
        if any("{" in text or "}" in text for text in pieces[::2]):
            raise ValueError(
                "a parameter must be a name of ASCII letters, digits and underscores in braces, as "
                f"{{name}}: {pattern!r}"
            )
        if len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"a parameter must occur only once in a path: {pattern!r}")
        if "" in pieces[2:-1:2]:
            raise ValueError(f"two parameters must have a text between them: {pattern!r}")
        self.pattern = pattern
        self.shape: tuple[tuple[str, ...], ...] = tuple(
            tuple(unquote(normal_path(text)) for text in PARAMETER.split(part)[::2])
            for part in pattern.split("/")
        )
        self._segments = [texts[0] if len(texts) == 1 else Segment(texts) for texts in self.shape]
        self.length: int = len(self._segments)

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Return the values of the parameters by name; None if the path does not match.

        Args:
            segments: the decoded segments of a path, as many as the pattern has.
        """
        values: list[str] = []
        for own, segment in zip(self._segments, segments, strict=True):
            if isinstance(own, str):
                if own != segment:
                    return None
            elif (matched := own.match(segment)) is not None:
                values += matched
            else:
                return None
        return dict(zip(self.parameters, values, strict=True))

"""The path of a request in the one form that routes, handlers, hooks and logs share.

Many spellings name the same path: ``/admin``, ``/%61dmin`` and ``/%61%64min`` are equal (RFC 3986
section 6.2.2.2). Whoever compares a path must see the form by which the route was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

# A percent-encoded byte, a percent sign that encodes nothing, or a control character, which only
# the patterns of routes can contain.
ESCAPE = re.compile(rb"%(?:[0-9A-Fa-f]{2})?|[\x00-\x1f\x7f]")
HEX_DIGITS = "0123456789abcdefABCDEF"
PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _stays_encoded(byte: int) -> bool:
    """Whether a byte is left percent-encoded: slash, percent sign, control characters."""
    return byte < 0x20 or byte in b"/%\x7f"


def _replacements() -> dict[bytes, bytes]:
    """What becomes of each match of ESCAPE."""
    found = {b"%": b"%25"}
    for byte in range(256):
        replacement = b"%%%02X" % byte if _stays_encoded(byte) else bytes([byte])
        if byte < 0x20 or byte == 0x7F:
            found[bytes([byte])] = replacement
        for high in HEX_DIGITS:
            for low in HEX_DIGITS:
                if int(high + low, 16) == byte:
                    found[f"%{high}{low}".encode()] = replacement
    return found


REPLACEMENTS = _replacements()


def normal_path(raw: str) -> str:
    """The normal form of a path: percent-decoded, except for what would change its meaning.

    A slash, a percent sign and the ASCII control characters stay percent-encoded, in upper case.
    So two paths have the same normal form only if they have the same segments, and the form has no
    line break. Dot segments, empty segments and semicolons are ordinary text: nothing resolves or
    removes them. A percent sign without two hexadecimal digits is an ordinary character, as in
    the URL standard (WHATWG URL section 1.3).

    The time is linear in the length.

    Raises:
        ValueError: the bytes are not valid UTF-8, or the text has a lone surrogate.
    """
    if "%" not in raw and raw.isascii() and raw.isprintable():
        return raw
    try:
        data = ESCAPE.sub(lambda match: REPLACEMENTS[match[0]], raw.encode())
        return data.decode()
    except UnicodeError:
        raise ValueError("the path is not valid UTF-8") from None


def segments_of(path: str) -> list[str]:
    """The segments of a path in normal form, decoded: a segment may contain slashes."""
    return [unquote(part) if "%" in part else part for part in path.split("/")]


class Segment:
    """One segment of a pattern that contains parameters, as in "{name}.{extension}".

    Args:
        texts: the decoded text before, between and after the parameters.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._first, *self._between, self._last = texts

    def match(self, segment: str) -> list[str] | None:
        """The values of the parameters; None if the segment is another.

        A value has at least one character. Where a text between two parameters occurs more than
        once, its last occurrence counts. The time is linear in the length of the segment.
        """
        begin, end = len(self._first), len(segment) - len(self._last)
        if begin >= end or not segment.startswith(self._first) or not segment.endswith(self._last):
            return None
        values = []
        for text in reversed(self._between):
            place = segment.rfind(text, begin + 1, end - 1)
            if place < 0:
                return None
            values.append(segment[place + len(text) : end])
            end = place
        values.append(segment[begin:end])
        return values[::-1]


class Path:
    """The pattern of a path, with parameters in braces: "/rooms/{room}".

    A parameter stands for one segment of the path or a part of it, never for nothing and never for
    more than one segment. It reaches the handler percent-decoded, as a keyword argument.

    Attributes:
        pattern: as it was given.
        parameters: their names, in order.
        shape: of each segment, the decoded text before, between and after the parameters. Two
            patterns of one shape match the same paths.
        length: the number of segments.

    Raises:
        ValueError: the pattern is malformed.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern.startswith("/"):
            raise ValueError(f"a path begins with a slash: {pattern!r}")
        pieces = PARAMETER.split(pattern)
        self.parameters = pieces[1::2]
        if any("{" in text or "}" in text for text in pieces[::2]):
            raise ValueError(f"a parameter must be a name in braces: {pattern!r}")
        if len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"a parameter must occur once in a path: {pattern!r}")
        if "" in pieces[2:-1:2]:
            raise ValueError(f"two parameters need a text between them: {pattern!r}")
        self.pattern = pattern
        self.shape = tuple(
            tuple(unquote(normal_path(text)) for text in PARAMETER.split(part)[::2])
            for part in pattern.split("/")
        )
        self._segments = [texts[0] if len(texts) == 1 else Segment(texts) for texts in self.shape]
        self.length = len(self._segments)

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """The values of the parameters by name; None if this is another path.

        Args:
            segments: of a path, decoded, as many as the pattern has.
        """
        values: list[str] = []
        for own, segment in zip(self._segments, segments, strict=True):
            if isinstance(own, str):
                if own != segment:
                    return None
            elif (found := own.match(segment)) is not None:
                values += found
            else:
                return None
        return dict(zip(self.parameters, values, strict=True))

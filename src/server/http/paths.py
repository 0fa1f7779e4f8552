"""The path of a request in the one form that routes, handlers, hooks and logs share.

Many spellings name the same path: ``/admin``, ``/%61dmin`` and ``/%61%64min`` are equal (RFC 3986
section 6.2.2.2). Whoever compares a path must see the form by which the route was chosen.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

# A percent-encoded byte, a percent sign that encodes nothing, or a control character, which only
# the patterns of routes can contain.
ESCAPE = re.compile(rb"%(?:[0-9A-Fa-f]{2})?|[\x00-\x1f\x7f]")
HEX_DIGITS = "0123456789abcdefABCDEF"


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

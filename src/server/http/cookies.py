"""The cookies of a request (RFC 6265 section 5.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

QUOTED = re.compile(r'"(.*)"')
# A backslash escape in a quoted value: three octal digits, or any other character. Older releases
# of ``http.cookies`` decode escapes in quadratic time (CVE-2024-7592).
ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


def cookies_of(headers: Iterable[str]) -> Mapping[str, str]:
    """Any thread: return the cookies in Cookie headers; see :attr:`Request.cookies`."""
    cookies: dict[str, str] = {}
    for pair in ";".join(headers).split(";"):
        name, equals, value = pair.partition("=")
        name = name.strip(" \t")
        if equals and name:  # browsers also send cookies without a name
            cookies.setdefault(name, _unquoted(value.strip(" \t")))
    return MappingProxyType(cookies)


def _unquoted(value: str) -> str:
    """Return a cookie's value without quotes and escapes, as :mod:`http.cookies` does."""
    quoted = QUOTED.fullmatch(value)
    return value if quoted is None else ESCAPE.sub(_character, quoted[1])


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8)) if escape[1] else escape[2]

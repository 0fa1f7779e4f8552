"""The headers that an application adds to answers: the permitted names, and the precedence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from wsframe.handshake import RESERVED_IN_RESPONSE
from wsframe.headers import Headers, checked

#: Headers, as (name, value) pairs.
Pairs: TypeAlias = "tuple[tuple[str, str], ...]"

# The headers that the server sets in each kind of answer, and an application must not set.
EVERYWHERE = RESERVED_IN_RESPONSE | {"date", "keep-alive", "trailer"}
ON_PAGES = EVERYWHERE | {"content-type", "x-content-type-options"}
ON_STREAMS = EVERYWHERE | {"cache-control", "content-encoding", "content-type", "x-accel-buffering"}
# On a route with origins, the server sets the headers of CORS.
ON_CONNECTIONS = ON_STREAMS | {"access-control-allow-credentials", "access-control-allow-origin"}
BY_DEFAULT = ON_PAGES | {"content-encoding"}

# Headers whose values are all sent. For any other header, only the most specific value is sent.
ADDING_UP = frozenset(("set-cookie", "vary"))


def added_headers(headers: Headers, reserved: frozenset[str]) -> Pairs:
    """Any thread: check the headers that an application sets, and return them.

    Args:
        headers: the headers.
        reserved: the names that the server sets, in lower case: ``ON_PAGES`` for pages and
            refusals, ``ON_CONNECTIONS`` for the 101 and for event streams, ``ON_STREAMS`` for
            event streams in ASGI, and ``BY_DEFAULT`` for every answer of a server.

    Raises:
        TypeError: the headers have an unsupported type.
        ValueError: the server sets a header itself, or a name or a value is not valid.
    """
    return tuple(checked(headers, reserved, "is set by the server"))


def layered(*levels: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Any thread: return the headers of an answer, from the most specific level to the defaults.

    A header is omitted if an earlier level has a header of the same name, except Set-Cookie and
    Vary.
    """
    filled = [level for level in map(tuple, levels) if level]
    if len(filled) == 1:
        return list(filled[0])
    headers: list[tuple[str, str]] = []
    names: set[str] = set()
    for level in filled:
        new = [(name, value) for name, value in level if name.lower() not in names]
        headers += new
        names.update({name.lower() for name, _ in new} - ADDING_UP)
    return headers

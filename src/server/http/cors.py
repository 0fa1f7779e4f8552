"""What lets pages of other sites read an event stream (CORS; WHATWG Fetch section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wsframe import HandshakeError
from wsframe.fields import TOKEN, Fields

# How long a browser may remember what a preflight was answered, in seconds.
MAX_AGE = 600

Pairs = tuple[tuple[str, str], ...]


def cors_headers(origin: str | None, origins: Sequence[str] | Literal["*"]) -> Pairs:
    """The headers by which the page that asks may read the answer, whatever that is.

    Cookies may come along where the origins are named, and not where all are allowed.

    Args:
        origin: of the page, if it is one of those that are allowed; None for the server's own, or
            no page.
        origins: those that are allowed.
    """
    if not origins:
        return ()
    vary = ("Vary", "Origin")
    if origin is None:
        return (vary,)
    if "*" in origins:
        return ("Access-Control-Allow-Origin", "*"), vary
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        vary,
    )


def preflight_headers(method: str, fields: Fields) -> Pairs | None:
    """What to answer a browser that asks whether it may ask; None if it does not ask that.

    It does so for a page that sets headers of its own. All are allowed: just the application makes
    something of them, and it judges them when they come.

    Raises:
        HandshakeError: 400; it is malformed.
    """
    if (
        method != "OPTIONS"
        or fields.single("origin") is None
        or fields.single("access-control-request-method") is None
    ):
        return None
    names = fields.items("access-control-request-headers")
    if not all(TOKEN.fullmatch(name) for name in names):
        raise HandshakeError(400, "Access-Control-Request-Headers must be a list of tokens")
    return (
        ("Access-Control-Allow-Methods", "GET, HEAD"),
        *((("Access-Control-Allow-Headers", ", ".join(names)),) if names else ()),
        ("Access-Control-Max-Age", str(MAX_AGE)),
    )

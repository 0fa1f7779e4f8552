"""Cross-origin resource sharing of event streams (CORS; WHATWG Fetch section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.headers import TOKEN

# The time, in seconds, for which a browser may cache the answer to a preflight request.
MAX_AGE = 600

Pairs = tuple[tuple[str, str], ...]


def cors_headers(origin: str | None, origins: Sequence[str] | Literal["*"]) -> Pairs:
    """Return the headers that permit the requesting page to read the answer, even a refusal.

    Credentials are allowed if the allowed origins are listed, but not with "*".

    Args:
        origin: the origin of the page, if it is allowed; None for the server's own origin, or if
            the client is not a page.
        origins: the origins that are allowed.
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
    """Return the headers of the answer to a preflight request; None for any other request.

    Browsers send a preflight request if a page sets additional headers. All headers are allowed,
    because the application can check them in the request that follows.

    Raises:
        HandshakeError: 400, because Access-Control-Request-Headers is malformed.
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

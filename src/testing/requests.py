"""Requests of clients as bytes. No argument is checked, so a test can send invalid requests."""

from __future__ import annotations

from collections.abc import Iterable

# The key of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def get(target: str, *headers: tuple[str, str], method: str = "GET") -> bytes:
    """Return a request without a body."""
    return head(f"{method} {target} HTTP/1.1", [("Host", "localhost"), *headers])


def upgrade(
    target: str,
    *more: tuple[str, str],
    changes: dict[str, str | None] | None = None,
    version: str = "1.1",
    method: str = "GET",
) -> bytes:
    """Return an upgrade request.

    Args:
        target: the path and the query.
        *more: additional headers, as (name, value) pairs.
        changes: replaced values of the usual headers, by name; None removes a header.
        version: the version of HTTP.
        method: the method.
    """
    changed: dict[str, str | None] = {**dict(UPGRADE), **(changes or {})}
    headers = [(name, value) for name, value in changed.items() if value is not None]
    return head(f"{method} {target} HTTP/{version}", [*headers, *more])

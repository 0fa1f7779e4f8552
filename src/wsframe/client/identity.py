"""The ``User-Agent`` of the client (RFC 9110 section 10.1.5)."""

from __future__ import annotations

from .. import __version__


def with_user_agent(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers with a ``User-Agent``, which many servers require."""
    if any(name.lower() == "user-agent" for name, _ in headers):
        return headers
    return [*headers, ("User-Agent", f"wsframe/{__version__}")]

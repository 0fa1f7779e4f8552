"""The ``User-Agent`` header of the client (RFC 9110 section 10.1.5)."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import metadata


def with_user_agent(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers with a ``User-Agent``, which many servers require."""
    if any(name.lower() == "user-agent" for name, _ in headers):
        return headers
    return [*headers, ("User-Agent", user_agent())]


@cache
def user_agent() -> str:
    """Return the name of this package, with its version if it is installed."""
    with suppress(metadata.PackageNotFoundError):  # the package is not installed
        return f"wsframe/{metadata.version('wsframe')}"
    return "wsframe"

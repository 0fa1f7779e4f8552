"""The client's name in its requests (RFC 9110 section 10.1.5)."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import metadata


def with_user_agent(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers, and a ``User-Agent`` unless they have one: many servers refuse those without."""
    if any(name.lower() == "user-agent" for name, _ in headers):
        return headers
    return [*headers, ("User-Agent", _user_agent())]


@cache
def _user_agent() -> str:
    with suppress(metadata.PackageNotFoundError):  # where the package was not installed
        return f"wsframe/{metadata.version('wsframe')}"
    return "wsframe"

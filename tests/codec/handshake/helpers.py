"""Upgrade requests for the tests of the opening handshake."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.support.vectors import RFC_KEY

Pairs = list[tuple[str, str]]


REQUEST: Pairs = [
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", RFC_KEY),
    ("Sec-WebSocket-Version", "13"),
]


FOREIGN = "this Origin is not allowed"


def request(*more: tuple[str, str], **changes: str | None) -> Pairs:
    """Return a valid request, with changed headers (None: removed) and additional ones."""
    values = {name.replace("_", "-"): value for name, value in changes.items()}
    assert set(values) <= {name.lower() for name, _ in REQUEST}
    pairs = []
    for name, value in REQUEST:
        changed = values.get(name.lower(), value)
        if changed is not None:
            pairs.append((name, changed))
    return [*pairs, *more]


def refusal(codec: ModuleType, headers: Any, **options: Any) -> tuple[int, str, Any]:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.accept(headers, **options)
    return caught.value.status, caught.value.reason, caught.value.headers

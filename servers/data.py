"""The content of the pages, which server and client compute."""

from __future__ import annotations


def content(size: int) -> bytes:
    """Return so many bytes; each group of four contains its own number."""
    return b"".join(number.to_bytes(4) for number in range((size + 3) // 4))[:size]

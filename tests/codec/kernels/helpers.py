"""Frames and buffers for the tests of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support.vectors import (
    LONG_SIZES,
    by_hand,
)

KEY = bytes.fromhex("37fa213d")


ZERO_KEY, HIGH_KEY = b"\0\0\0\0", b"\xff\x80\x7f\x01"


FIN_TEXT, FIN_BINARY = 0x81, 0x82


LIMIT = 1 << 20


sizes = pytest.mark.parametrize("size", LONG_SIZES)


class StrSubclass(str):
    __slots__ = ()


roles = pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])


def take(
    codec: ModuleType, data: bytes, key: bytes | None, limit: int = LIMIT, start: int = 0
) -> tuple[list[Any], int]:
    """Return the messages that take_messages decodes for both roles, and the remaining bytes."""
    messages: list[Any] = []
    ground = b"\x81" * start + data
    left = codec.kernels.take_messages(ground, start, messages, limit, key is not None)
    assert type(left) is int
    return messages, left


Maker = Callable[[bytes | None], bytes]


def frame(first: int, payload: bytes = b"x", **how: int) -> Maker:
    return lambda key: by_hand(first, payload, key, **how)

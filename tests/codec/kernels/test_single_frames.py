"""Decoding one frame head, and one frame."""

from __future__ import annotations

import inspect
import sys
import tracemalloc
from types import ModuleType

import pytest

from tests.codec.kernels.helpers import FIN_BINARY, KEY, LIMIT, roles, sizes, take
from tests.support.vectors import (
    SHORT_SIZES,
    by_hand,
    payload_of,
)


@pytest.mark.parametrize("start", [0, 1, 7])
@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("length_form", [0, 2, 8])
def test_parse_frame_of_every_incomplete_header(
    codec: ModuleType, length_form: int, key: bytes | None, start: int
) -> None:
    wire = by_hand(0xF5, b"Hello", key, length_form=length_form)
    second = (0x80 if key else 0) | {0: 5, 2: 126, 8: 127}[length_form]
    for end in range(len(wire) + 1):
        head = codec.kernels.parse_frame(b"\xee" * start + wire[:end], start)
        if end < 2:
            assert head is None
        elif end < 2 + length_form:
            assert head == (0xF5, second, -1, start + 2)
        else:
            assert head == (0xF5, second, 5, start + 2 + length_form)


def test_parse_frame_of_every_two_bytes(codec: ModuleType) -> None:
    after = bytes.fromhex("8123456789abcdef")
    for first in range(256):
        for second in range(256):
            field = second & 0x7F
            length, size = (
                (field, 0)
                if field < 126
                else (0x8123, 2)
                if field == 126
                else (0x8123456789ABCDEF, 8)
            )
            head = codec.kernels.parse_frame(bytes((first, second)) + after, 0)
            assert head == (first, second, length, 2 + size)


def test_parse_frame_from_the_end_and_past_it(codec: ModuleType) -> None:
    for start in (2, 3, 99):
        assert codec.kernels.parse_frame(b"\x81\x00", start) is None


def test_parse_frame_reads_a_length_of_64_bits(codec: ModuleType) -> None:
    assert codec.kernels.parse_frame(b"\x82\x7f" + b"\xff" * 8, 0) == (
        0x82,
        0x7F,
        (1 << 64) - 1,
        10,
    )


def take_one(
    codec: ModuleType, data: bytes, key: bytes | None, limit: int = LIMIT, start: int = 0
) -> tuple[int, bytes, int] | None:
    """Return the result of take_frame for both roles; the end is relative to the data."""
    ground = b"\x81" * start + data
    taken = codec.kernels.take_frame(ground, start, limit, key is not None)
    if taken is None:
        return None
    first, payload, end = taken
    assert (type(first), type(payload), type(end)) == (int, bytes, int)
    return first, payload, end - start


@roles
def test_take_frame_at_every_short_size(codec: ModuleType, key: bytes | None) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        wire = by_hand(FIN_BINARY, payload, key)
        assert take_one(codec, wire, key) == (FIN_BINARY, payload, len(wire))
        assert take_one(codec, wire + b"\xff" * 9, key, start=3) == (FIN_BINARY, payload, len(wire))


@roles
@sizes
def test_take_frame_at_the_limits_of_the_length_forms(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    payload = payload_of(size)
    wire = by_hand(FIN_BINARY, payload, key)
    assert take_one(codec, wire, key) == (FIN_BINARY, payload, len(wire))


@roles
def test_take_frame_accepts_any_first_byte(codec: ModuleType, key: bytes | None) -> None:
    # Invalid UTF-8, reserved bits and long control frames are not checked here.
    payload = b"\xff\x80" * 100
    for first in range(256):
        wire = by_hand(first, payload, key)
        assert take_one(codec, wire, key) == (first, payload, len(wire))


@roles
@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 300])
def test_take_frame_declines_an_incomplete_frame(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, payload_of(size), key)
    for end in range(len(wire)):
        assert take_one(codec, wire[:end], key) is None
        assert take_one(codec, wire[:end], key, start=5) is None


@roles
@pytest.mark.parametrize("size", [65536, 1 << 18])
def test_take_frame_declines_a_long_frame_without_its_last_byte(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), key)
    for end in (2, 9, 10, 13, 14, len(wire) - 1):
        assert take_one(codec, wire[:end], key) is None


@roles
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_take_frame_declines_wrong_masking(codec: ModuleType, size: int, key: bytes | None) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), KEY if key is None else None)
    assert take_one(codec, wire + bytes(4), key) is None


NOT_MINIMAL = [(0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)]


@roles
@pytest.mark.parametrize(("size", "form"), NOT_MINIMAL)
def test_take_frame_declines_a_length_that_is_not_minimal(
    codec: ModuleType, size: int, form: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), key, length_form=form)
    assert take_one(codec, wire + bytes(4), key) is None


@roles
@pytest.mark.parametrize("limit", [0, 1, 3, 125, 126, 300, 65535, 65536])
def test_take_frame_declines_a_frame_over_the_limit(
    codec: ModuleType, limit: int, key: bytes | None
) -> None:
    for first in (FIN_BINARY, 0x89):
        wire = by_hand(first, payload_of(limit), key)
        assert take_one(codec, wire, key, limit) == (first, payload_of(limit), len(wire))
        assert take_one(codec, by_hand(first, bytes(limit + 1), key), key, limit) is None


@pytest.mark.unmeasured
@roles
@pytest.mark.parametrize("limit", [LIMIT, sys.maxsize])
@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_take_frame_declines_an_announced_length(
    codec: ModuleType, length: int, limit: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, b"x", key, length=length)
    tracemalloc.start()
    try:
        assert take_one(codec, wire, key, limit) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000


@roles
def test_take_frame_of_an_empty_buffer(codec: ModuleType, key: bytes | None) -> None:
    assert take_one(codec, b"", key) is None
    assert codec.kernels.take_frame(b"\x81\x00", 2, LIMIT, key is not None) is None
    assert codec.kernels.take_frame(b"\x81\x00", 99, LIMIT, key is not None) is None


@roles
def test_a_negative_limit_declines_everything(codec: ModuleType, key: bytes | None) -> None:
    wire = by_hand(FIN_BINARY, b"", key)
    assert take_one(codec, wire, key, -1) is None
    assert take(codec, wire, key, -1) == ([], len(wire))


@roles
def test_a_decoded_frame_is_independent_of_the_buffer(codec: ModuleType, key: bytes | None) -> None:
    wire = by_hand(FIN_BINARY, b"data", key)
    buffer = bytearray(wire)
    _, payload, _ = codec.kernels.take_frame(buffer, 0, LIMIT, key is not None)
    buffer[:] = bytes(len(buffer))
    assert payload == b"data"


def test_the_kernels_report_their_instruction_set(compiled: ModuleType, pure: ModuleType) -> None:
    assert compiled.kernels.INSTRUCTION_SET in {"AVX-512", "AVX2", "SSE2", "NEON", "portable"}
    assert pure.kernels.INSTRUCTION_SET == "pure Python"
    assert compiled.kernels.__all__ == pure.kernels.__all__
    for name in set(pure.kernels.__all__) - {"ACCELERATED", "INSTRUCTION_SET"}:
        assert getattr(compiled.kernels, name) is not getattr(pure.kernels, name)
    for name in ("accept_key", "encode_frame", "mask", "mask_into"):
        assert inspect.getdoc(getattr(compiled, name)) == inspect.getdoc(getattr(pure, name))
        assert [*inspect.signature(getattr(compiled, name)).parameters] == [
            *inspect.signature(getattr(pure, name)).parameters
        ]
        assert getattr(compiled, name) is getattr(compiled.kernels, name)
        assert getattr(pure, name) is getattr(pure.kernels, name)

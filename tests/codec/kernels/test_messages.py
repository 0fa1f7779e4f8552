"""Decoding a run of messages."""

from __future__ import annotations

import sys
import tracemalloc
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.kernels.helpers import (
    FIN_BINARY,
    FIN_TEXT,
    HIGH_KEY,
    KEY,
    LIMIT,
    ZERO_KEY,
    Maker,
    frame,
    roles,
    sizes,
    take,
)
from tests.support.vectors import (
    INVALID_UTF8,
    SHORT_SIZES,
    TRUNCATED_UTF8,
    VALID_UTF8,
    by_hand,
    payload_of,
)

starts = pytest.mark.parametrize("start", [0, 1, 5])


@roles
def test_take_messages_at_every_short_size(codec: ModuleType, key: bytes | None) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        assert take(codec, by_hand(FIN_BINARY, payload, key), key) == ([payload], 0)
        text = "".join(chr(32 + i % 95) for i in range(size))
        assert take(codec, by_hand(FIN_TEXT, text.encode(), key), key) == ([text], 0)


@roles
@sizes
def test_take_messages_at_the_limits_of_the_length_forms(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    payload = payload_of(size)
    taken, left = take(codec, by_hand(FIN_BINARY, payload, key), key)
    assert (taken == [payload], type(taken[0]), left) == (True, bytes, 0)
    text = "é" * (size // 2) + "x" * (size % 2)
    taken, left = take(codec, by_hand(FIN_TEXT, text.encode(), key), key)
    assert (taken == [text], type(taken[0]), left) == (True, str, 0)


@roles
@pytest.mark.parametrize("data", VALID_UTF8.values(), ids=VALID_UTF8)
def test_take_messages_decodes_text(codec: ModuleType, data: bytes, key: bytes | None) -> None:
    assert take(codec, by_hand(FIN_TEXT, data, key), key) == ([data.decode()], 0)


@roles
def test_a_byte_outside_ascii_is_found_at_every_position(
    codec: ModuleType, key: bytes | None
) -> None:
    for size in (1, 2, 3, 15, 16, 31, 32, 63, 64, 65, 127, 128, 129, 200, 257):
        for place in range(size):
            text = "a" * place + "é" + "b" * (size - place - 1)
            assert take(codec, by_hand(FIN_TEXT, text.encode(), key), key) == ([text], 0)


@roles
@starts
def test_take_messages_keeps_the_order(codec: ModuleType, key: bytes | None, start: int) -> None:
    wire = b"".join(
        [
            by_hand(FIN_TEXT, b"one", key),
            by_hand(FIN_BINARY, b"two", key),
            by_hand(FIN_TEXT, b"", key),
            by_hand(FIN_BINARY, b"", key),
            by_hand(FIN_TEXT, "fünf".encode(), key),
            by_hand(FIN_BINARY, payload_of(70_000), key),
        ]
    )
    taken, left = take(codec, wire, key, start=start)
    assert taken == ["one", b"two", "", b"", "fünf", payload_of(70_000)]
    assert [type(item) for item in taken] == [str, bytes, str, bytes, str, bytes]
    assert left == 0


def test_every_frame_is_unmasked_with_its_own_key(codec: ModuleType) -> None:
    keys = [ZERO_KEY, KEY, HIGH_KEY, b"\x01\x00\x00\x00"]
    wire = b"".join(by_hand(FIN_TEXT, b"Hello", key) for key in keys)
    assert take(codec, wire, KEY) == (["Hello"] * 4, 0)


@roles
def test_a_decoded_message_is_independent_of_the_buffer(
    codec: ModuleType, key: bytes | None
) -> None:
    buffer = bytearray(by_hand(FIN_TEXT, b"text", key) + by_hand(FIN_BINARY, b"data", key))
    messages: list[Any] = []
    codec.kernels.take_messages(buffer, 0, messages, LIMIT, key is not None)
    buffer[:] = bytes(len(buffer))
    assert messages == ["text", b"data"]


#: Frames that the kernel must not decode; for the wrong masking, see below.
DECLINED: dict[str, Maker] = {
    "not-final-text": frame(0x01),
    "not-final-binary": frame(0x02),
    "continuation": frame(0x00),
    "final-continuation": frame(0x80),
    **{f"opcode-{opcode}": frame(0x80 | opcode) for opcode in range(3, 16)},
    **{
        f"rsv-{rsv}-{name}": frame(first | rsv << 4)
        for rsv in range(1, 8)
        for name, first in (("text", FIN_TEXT), ("binary", FIN_BINARY))
    },
    "not-minimal-0-in-16-bits": frame(FIN_BINARY, b"", length_form=2),
    "not-minimal-1-in-16-bits": frame(FIN_TEXT, b"x", length_form=2),
    "not-minimal-125-in-16-bits": frame(FIN_BINARY, bytes(125), length_form=2),
    "not-minimal-0-in-64-bits": frame(FIN_BINARY, b"", length_form=8),
    "not-minimal-125-in-64-bits": frame(FIN_TEXT, bytes(125), length_form=8),
    "not-minimal-126-in-64-bits": frame(FIN_BINARY, bytes(126), length_form=8),
    "not-minimal-65535-in-64-bits": frame(FIN_BINARY, bytes(65535), length_form=8),
    "over-the-limit": frame(FIN_BINARY, bytes(LIMIT + 1)),
    "over-the-limit-text": frame(FIN_TEXT, b"x" * (LIMIT + 1)),
    "over-the-limit-head": frame(FIN_BINARY, b"", length=LIMIT + 1),
    "length-of-63-bits": frame(FIN_BINARY, length=(1 << 63) - 1),
    "length-just-over-63-bits": frame(FIN_BINARY, length=1 << 63),
    "length-of-64-bits": frame(FIN_BINARY, length=(1 << 64) - 1),
    **{f"utf8-{name}": frame(FIN_TEXT, b"good" + bad.data) for name, bad in INVALID_UTF8.items()},
    **{
        f"utf8-truncated-{name}": frame(FIN_TEXT, b"x" * 70 + data)
        for name, data in TRUNCATED_UTF8.items()
    },
}


@pytest.mark.unmeasured
@roles
@pytest.mark.parametrize("make", DECLINED.values(), ids=DECLINED)
def test_take_messages_stops_at_a_frame_that_it_declines(
    codec: ModuleType, make: Maker, key: bytes | None
) -> None:
    declined = make(key)
    after = by_hand(FIN_TEXT, b"after", key)
    assert take(codec, declined, key) == ([], len(declined))
    assert take(codec, declined + after, key) == ([], len(declined + after))
    before = by_hand(FIN_TEXT, b"before", key) + by_hand(FIN_BINARY, b"", key)
    assert take(codec, before + declined + after, key, start=3) == (
        ["before", b""],
        len(declined + after),
    )


@roles
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("first", [FIN_TEXT, FIN_BINARY], ids=["text", "binary"])
def test_take_messages_declines_wrong_masking(
    codec: ModuleType, first: int, size: int, key: bytes | None
) -> None:
    wrong_key = KEY if key is None else None
    # With room for a masking key, so that only the mask bit differs.
    wire = by_hand(first, bytes(size), wrong_key) + b"\x81\x00\x81\x00"
    assert take(codec, wire, key) == ([], len(wire))


@roles
@pytest.mark.parametrize("size", [0, 1, 5, 126, 300])
@pytest.mark.parametrize("first", [FIN_TEXT, FIN_BINARY], ids=["text", "binary"])
def test_take_messages_declines_every_incomplete_frame(
    codec: ModuleType, first: int, size: int, key: bytes | None
) -> None:
    before = by_hand(FIN_BINARY, b"before", key)
    wire = by_hand(first, b"x" * size, key)
    for end in range(len(wire)):
        assert take(codec, before + wire[:end], key) == ([b"before"], end)
    assert take(codec, before + wire, key)[1] == 0


@roles
@pytest.mark.parametrize("size", [65536, 1 << 18])
def test_take_messages_declines_a_long_frame_without_its_last_byte(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), key)
    for end in (9, 10, 13, 14, len(wire) - 1):
        assert take(codec, wire[:end], key) == ([], end)


@roles
@pytest.mark.parametrize("limit", [1, 3, 125, 126, 300, 65535, 65536])
def test_take_messages_accepts_the_limit_itself(
    codec: ModuleType, limit: int, key: bytes | None
) -> None:
    for first, kind in ((FIN_BINARY, bytes), (FIN_TEXT, bytes.decode)):
        payload = b"x" * limit
        wire = by_hand(first, payload, key)
        assert take(codec, wire, key, limit) == ([kind(payload)], 0)
        over = by_hand(first, payload + b"x", key)
        assert take(codec, over, key, limit) == ([], len(over))


@roles
def test_the_limit_counts_bytes_of_utf_8(codec: ModuleType, key: bytes | None) -> None:
    wire = by_hand(FIN_TEXT, "éé".encode(), key)
    assert take(codec, wire, key, 4) == (["éé"], 0)
    assert take(codec, wire, key, 3) == ([], len(wire))


@roles
def test_decoding_an_empty_buffer_returns_no_messages(codec: ModuleType, key: bytes | None) -> None:
    assert take(codec, b"", key) == ([], 0)
    assert take(codec, b"", key, start=5) == ([], 0)


def test_take_messages_appends_to_the_list(codec: ModuleType) -> None:
    messages: list[Any] = ["there"]
    codec.kernels.take_messages(by_hand(FIN_TEXT, b"x"), 0, messages, LIMIT, False)
    assert messages == ["there", "x"]


@pytest.mark.unmeasured
@roles
@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_no_memory_is_allocated_for_a_declined_length(
    codec: ModuleType, length: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, b"x", key, length=length)
    tracemalloc.start()
    try:
        assert take(codec, wire, key) == ([], len(wire))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000


@roles
def test_no_memory_is_allocated_for_a_missing_payload(codec: ModuleType, key: bytes | None) -> None:
    limit = sys.maxsize
    for length in (1 << 40, (1 << 63) - 1):
        wire = by_hand(FIN_BINARY, b"x", key, length=length)
        assert take(codec, wire, key, limit) == ([], len(wire))


@given(
    payloads=st.lists(st.one_of(st.binary(max_size=300), st.text(max_size=100))),
    key=st.none() | st.binary(min_size=4, max_size=4),
)
def test_take_messages_decodes_the_frames_of_encode_frame(
    codec: ModuleType, payloads: list[Any], key: bytes | None
) -> None:
    wire = b"".join(
        codec.encode_frame(1 if isinstance(item, str) else 2, item, masking_key=key)
        for item in payloads
    )
    assert take(codec, wire, key) == (payloads, 0)

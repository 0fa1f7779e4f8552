"""The kernels, compiled and pure: bytes in, bytes out, and the same errors."""

from __future__ import annotations

import array
import base64
import ctypes
import hashlib
import inspect
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tools import load_codec, normals, outcome
from tests.support.vectors import (
    INVALID_UTF8,
    LONG_SIZES,
    RFC_ACCEPT,
    RFC_FRAMES,
    RFC_KEY,
    SHORT_SIZES,
    TRUNCATED_UTF8,
    VALID_UTF8,
    Frame,
    by_hand,
    payload_of,
    xored,
)

KEY = bytes.fromhex("37fa213d")
ZERO_KEY, HIGH_KEY = b"\0\0\0\0", b"\xff\x80\x7f\x01"
GUARD = 64
FIN_TEXT, FIN_BINARY = 0x81, 0x82
LIMIT = 1 << 20

sizes = pytest.mark.parametrize("size", LONG_SIZES)


def masked_by_hand(payload: bytes, key: bytes = KEY) -> bytes:
    return xored(payload, key)[4:]


# Masking (RFC 6455 section 5.3) -------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, ZERO_KEY, HIGH_KEY], ids=bytes.hex)
def test_mask_is_xor_with_the_key_at_every_short_size(codec: ModuleType, key: bytes) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        masked = codec.mask(payload, key)
        assert type(masked) is bytes
        assert masked == masked_by_hand(payload, key), size
        assert codec.mask(masked, key) == payload, size


@sizes
def test_mask_is_xor_with_the_key_at_the_edges(codec: ModuleType, size: int) -> None:
    payload = payload_of(size)
    assert codec.mask(payload, KEY) == masked_by_hand(payload)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 31, 64, 65, 300, 1024, 1500, 4097])
def test_mask_at_every_alignment(codec: ModuleType, size: int) -> None:
    for alignment in range(65):
        ground = payload_of(alignment + size + GUARD)
        view = memoryview(ground)[alignment : alignment + size]
        assert codec.mask(view, KEY) == masked_by_hand(bytes(view)), alignment


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 31, 63, 64, 65, 127, 128, 300, 1024, 1500])
def test_mask_into_at_every_alignment_leaves_its_neighbours_alone(
    codec: ModuleType, size: int
) -> None:
    for alignment in range(65):
        ground = bytearray(payload_of(alignment + size + GUARD))
        before = bytes(ground)
        codec.mask_into(memoryview(ground)[alignment : alignment + size], KEY)
        end = alignment + size
        assert ground[:alignment] == before[:alignment], alignment
        assert ground[alignment:end] == masked_by_hand(before[alignment:end]), alignment
        assert ground[end:] == before[end:], alignment


@pytest.mark.parametrize("offset", [*range(9), 1021, 65537, (1 << 31) + 1, (1 << 62) + 3])
def test_mask_into_turns_the_key_by_the_offset(codec: ModuleType, offset: int) -> None:
    turn = offset % 4
    for size in (0, 1, 2, 3, 4, 5, 17, 64, 67, 1024, 1029):
        buffer = bytearray(payload_of(size))
        codec.mask_into(buffer, KEY, offset)
        assert buffer == masked_by_hand(payload_of(size), KEY[turn:] + KEY[:turn]), size


@sizes
def test_mask_into_works_in_place(codec: ModuleType, size: int) -> None:
    buffer = bytearray(payload_of(size))
    assert codec.mask_into(buffer, KEY) is None
    assert buffer == masked_by_hand(payload_of(size))
    codec.mask_into(buffer, KEY)
    assert buffer == payload_of(size)


def test_mask_into_in_chunks_is_mask_of_the_whole(codec: ModuleType) -> None:
    payload = payload_of(5000)
    for chunk in (1, 2, 3, 5, 64, 333, 1025):
        buffer = bytearray(payload)
        for offset in range(0, len(buffer), chunk):
            codec.mask_into(memoryview(buffer)[offset : offset + chunk], KEY, offset)
        assert buffer == codec.mask(payload, KEY), chunk


def test_mask_does_not_write_to_its_argument(codec: ModuleType) -> None:
    for size in (3, 64, 1024, 1 << 18):
        payload = bytearray(payload_of(size))
        codec.mask(payload, KEY)
        assert payload == payload_of(size)


class BytesSubclass(bytes):
    pass


class StrSubclass(str):
    __slots__ = ()


READABLE: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytes-subclass": BytesSubclass,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "writable-memoryview": lambda data: memoryview(bytearray(data)),
    "array-of-integers": lambda data: array.array("I", data),
    "two-dimensions": lambda data: memoryview(data).cast("B", (2, len(data) // 2)),
    "ctypes": lambda data: (ctypes.c_ubyte * len(data)).from_buffer_copy(data),
    "ctypes-in-the-other-byte-order": lambda data: foreign(len(data)).from_buffer_copy(data),
    "structures": lambda data: (Pair * (len(data) // 8)).from_buffer_copy(data),
}


class Pair(ctypes.Structure):
    _fields_ = (("first", ctypes.c_int), ("second", ctypes.c_int))


def foreign(size: int) -> Any:
    """A type of numbers in the byte order that is not this machine's, in two dimensions."""
    number = ctypes.c_uint.__ctype_be__ if sys.byteorder == "little" else ctypes.c_uint.__ctype_le__
    return (number * 2) * (size // 8)


@pytest.mark.parametrize("convert", READABLE.values(), ids=READABLE)
@pytest.mark.parametrize("size", [8, 1024, 1 << 18])
def test_every_bytes_like_object_is_read(
    codec: ModuleType, size: int, convert: Callable[[bytes], Any]
) -> None:
    payload = payload_of(size)
    masked = masked_by_hand(payload)
    assert codec.mask(convert(payload), KEY) == masked
    assert codec.encode_frame(2, convert(payload)) == by_hand(FIN_BINARY, payload)
    assert codec.encode_frame(2, convert(payload), masking_key=KEY) == by_hand(
        FIN_BINARY, payload, KEY
    )
    wire = by_hand(FIN_BINARY, payload[: size - 4], KEY)
    wire += b"\x82" * (-len(wire) % 8)
    messages: list[Any] = []
    left = codec.kernels.take_messages(convert(wire), 0, messages, LIMIT, True)
    assert messages == [payload[: size - 4]]
    assert left == len(wire) - len(by_hand(FIN_BINARY, payload[: size - 4], KEY))
    assert codec.kernels.parse_frame(convert(wire), 0) == codec.kernels.parse_frame(wire, 0)
    taken = (FIN_BINARY, payload[: size - 4], len(wire) - left)
    assert codec.kernels.take_frame(convert(wire), 0, LIMIT, True) == taken


EMPTY: dict[str, Any] = {
    "bytes": b"",
    "bytearray": bytearray(),
    "array-of-integers": array.array("I"),
    "no-rows": ((ctypes.c_ubyte * 3) * 0)(),
    "no-columns": ((ctypes.c_ubyte * 0) * 3)(),
    "no-integers": ((ctypes.c_int * 3) * 0)(),
}


@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY)
def test_every_bytes_like_object_may_be_empty(codec: ModuleType, empty: Any) -> None:
    assert codec.mask(empty, KEY) == b""
    assert codec.encode_frame(2, empty) == by_hand(FIN_BINARY, b"")
    assert codec.encode_frame(2, empty, masking_key=KEY) == by_hand(FIN_BINARY, b"", KEY)
    assert codec.kernels.take_messages(empty, 0, [], LIMIT, True) == 0
    assert codec.kernels.parse_frame(empty, 0) is None
    assert codec.kernels.take_frame(empty, 0, LIMIT, True) is None
    for settings in (None, codec.PerMessageDeflate(min_size=0)):
        sender = codec.Connection(codec.Role.CLIENT, deflate=settings)
        receiver = codec.Connection(codec.Role.SERVER, deflate=settings)
        assert receiver.receive(sender.encode(empty)) == [b""]
        assert normals(receiver.receive(sender.ping(empty))) == [("Ping", b"")]
        half = sender.encode(b"half")
        assert receiver.receive(half[:1]) == receiver.receive(empty) == []
        assert receiver.receive(half[1:]) == [b"half"]


@pytest.mark.parametrize("convert", [bytearray, memoryview, BytesSubclass])
def test_a_masking_key_is_any_four_bytes(
    codec: ModuleType, convert: Callable[[bytes], Any]
) -> None:
    assert codec.mask(b"Hello", convert(KEY)) == masked_by_hand(b"Hello")
    assert codec.mask(b"Hello", array.array("B", KEY)) == masked_by_hand(b"Hello")
    assert codec.encode_frame(1, "Hello", masking_key=convert(KEY)) == by_hand(
        FIN_TEXT, b"Hello", KEY
    )
    buffer = bytearray(b"Hello")
    codec.mask_into(buffer, convert(KEY), 1)
    assert buffer == masked_by_hand(b"Hello", KEY[1:] + KEY[:1])


@pytest.mark.parametrize("size", [8, 1024, 1 << 18])
def test_mask_into_writes_to_every_writable_object(codec: ModuleType, size: int) -> None:
    expected = masked_by_hand(payload_of(size))
    integers = array.array("I", payload_of(size))
    codec.mask_into(integers, KEY)
    assert integers.tobytes() == expected
    ground = bytearray(payload_of(size))
    codec.mask_into(memoryview(ground).cast("B", (2, size // 2)), KEY)
    assert ground == expected
    octets = (ctypes.c_ubyte * size).from_buffer_copy(payload_of(size))
    codec.mask_into(octets, KEY)
    assert bytes(octets) == expected
    numbers = foreign(size).from_buffer_copy(payload_of(size))
    codec.mask_into(numbers, KEY)
    assert bytes(numbers) == expected
    codec.mask_into(((ctypes.c_ubyte * 3) * 0)(), KEY)


def test_no_kernel_holds_on_to_a_buffer(codec: ModuleType) -> None:
    for size in (16, 1 << 18):
        buffer = bytearray(payload_of(size))
        codec.mask(buffer, KEY)
        codec.mask_into(buffer, KEY)
        codec.encode_frame(2, buffer)
        codec.kernels.parse_frame(buffer, 0)
        codec.kernels.take_messages(buffer, 0, [], LIMIT, True)
        codec.kernels.take_frame(buffer, 0, LIMIT, True)
        buffer.append(0)  # BufferError while it is exported
        for view in (memoryview(buffer), memoryview(buffer).cast("B", (1, len(buffer)))):
            codec.mask(view, KEY)
            codec.mask_into(view, KEY)
            codec.encode_frame(2, view)
            codec.kernels.take_messages(view, 0, [], LIMIT, True)
            codec.kernels.take_frame(view, 0, LIMIT, True)
            with pytest.raises(ValueError, match="control frame"):
                codec.encode_frame(9, view, fin=False)
            view.release()
        buffer.append(0)


# What the caller does wrong: the same error, in the same words, from both kernels

READ_ONLY = memoryview(bytearray(8)).toreadonly()
GAPS = memoryview(bytearray(16))[::2]
RELEASED = memoryview(bytearray(8))
RELEASED.release()
HUGE = 1 << 70

WRONG: dict[str, tuple[type[Exception], str, Callable[[Any], object]]] = {
    "mask-key-of-3": (ValueError, "4 bytes, not 3", lambda w: w.mask(b"x", b"abc")),
    "mask-key-of-5": (ValueError, "4 bytes, not 5", lambda w: w.mask(b"x", b"abcde")),
    "mask-key-of-0": (ValueError, "4 bytes, not 0", lambda w: w.mask(b"x", b"")),
    "mask-key-of-two-integers": (
        ValueError,
        "4 bytes, not 8",
        lambda w: w.mask(b"x", array.array("I", [1, 2])),
    ),
    "mask-key-str": (TypeError, "'str'", lambda w: w.mask(b"x", "abcd")),
    "mask-key-none": (TypeError, "'NoneType'", lambda w: w.mask(b"x", None)),
    "mask-payload-str": (TypeError, "'str'", lambda w: w.mask("x", KEY)),
    "mask-payload-int": (TypeError, "'int'", lambda w: w.mask(8, KEY)),
    "mask-payload-with-gaps": (TypeError, "C-contiguous", lambda w: w.mask(GAPS, KEY)),
    "mask-both-wrong": (ValueError, "4 bytes, not 3", lambda w: w.mask("x", b"abc")),
    "mask-into-bytes": (TypeError, "writable", lambda w: w.mask_into(b"x", KEY)),
    "mask-into-read-only-view": (TypeError, "writable", lambda w: w.mask_into(READ_ONLY, KEY)),
    "mask-into-gaps": (TypeError, "C-contiguous", lambda w: w.mask_into(GAPS, KEY)),
    "mask-into-str": (TypeError, "'str'", lambda w: w.mask_into("x", KEY)),
    "mask-into-key-of-3": (
        ValueError,
        "4 bytes, not 3",
        lambda w: w.mask_into(bytearray(8), b"abc"),
    ),
    "mask-into-negative-offset": (
        ValueError,
        "offset must not be negative: -1",
        lambda w: w.mask_into(bytearray(8), KEY, -1),
    ),
    "mask-into-hugely-negative-offset": (
        ValueError,
        "offset must not be negative",
        lambda w: w.mask_into(bytearray(8), KEY, -HUGE),
    ),
    "mask-into-offset-str": (TypeError, "", lambda w: w.mask_into(bytearray(8), KEY, "1")),
    "mask-into-offset-float": (TypeError, "", lambda w: w.mask_into(bytearray(8), KEY, 1.0)),
    "accept-key-not-ascii": (
        UnicodeEncodeError,
        "ascii",
        lambda w: w.accept_key("é" * 24),
    ),
    "accept-key-bytes": (AttributeError, "'bytes'", lambda w: w.accept_key(RFC_KEY.encode())),
    "accept-key-none": (AttributeError, "'NoneType'", lambda w: w.accept_key(None)),
    "opcode-16": (ValueError, "opcode must be 0-15, not 16", lambda w: w.encode_frame(16)),
    "opcode-negative": (ValueError, "opcode must be 0-15, not -1", lambda w: w.encode_frame(-1)),
    "opcode-huge": (ValueError, "opcode must be 0-15", lambda w: w.encode_frame(HUGE)),
    "opcode-str": (TypeError, "", lambda w: w.encode_frame("1")),
    "opcode-none": (TypeError, "", lambda w: w.encode_frame(None)),
    "opcode-float": (TypeError, "", lambda w: w.encode_frame(1.0)),
    "rsv-8": (ValueError, "rsv must be 0-7, not 8", lambda w: w.encode_frame(1, rsv=8)),
    "rsv-negative": (ValueError, "rsv must be 0-7, not -1", lambda w: w.encode_frame(1, rsv=-1)),
    "rsv-huge": (ValueError, "rsv must be 0-7", lambda w: w.encode_frame(1, rsv=HUGE)),
    "rsv-str": (TypeError, "", lambda w: w.encode_frame(1, rsv="1")),
    "rsv-float": (TypeError, "", lambda w: w.encode_frame(1, rsv=1.0)),
    "payload-int": (TypeError, "'int'", lambda w: w.encode_frame(2, 5)),
    "payload-none": (TypeError, "'NoneType'", lambda w: w.encode_frame(2, None)),
    "payload-list": (TypeError, "'list'", lambda w: w.encode_frame(2, [1])),
    "payload-with-gaps": (TypeError, "C-contiguous", lambda w: w.encode_frame(2, GAPS)),
    "payload-lone-surrogate": (
        UnicodeEncodeError,
        "surrogates not allowed",
        lambda w: w.encode_frame(1, "a\ud800"),
    ),
    "payload-lone-surrogate-masked": (
        UnicodeEncodeError,
        "surrogates not allowed",
        lambda w: w.encode_frame(1, "\udfffa", masking_key=True),
    ),
    "key-of-3": (ValueError, "4 bytes, not 3", lambda w: w.encode_frame(1, masking_key=b"abc")),
    "key-of-0": (ValueError, "4 bytes, not 0", lambda w: w.encode_frame(1, masking_key=b"")),
    "key-false": (
        TypeError,
        "masking_key must be None, True or 4 bytes, not False",
        lambda w: w.encode_frame(1, masking_key=False),
    ),
    "key-one": (TypeError, "'int'", lambda w: w.encode_frame(1, masking_key=1)),
    "key-str": (TypeError, "'str'", lambda w: w.encode_frame(1, masking_key="abcd")),
    "ping-of-126": (
        ValueError,
        "a control frame carries at most 125 bytes, not 126",
        lambda w: w.encode_frame(9, bytes(126)),
    ),
    "close-of-126-masked": (
        ValueError,
        "a control frame carries at most 125 bytes, not 126",
        lambda w: w.encode_frame(8, bytes(126), masking_key=True),
    ),
    "reserved-control-of-126": (
        ValueError,
        "a control frame carries at most 125 bytes, not 126",
        lambda w: w.encode_frame(15, bytes(126)),
    ),
    "pong-of-126-as-text": (
        ValueError,
        "a control frame carries at most 125 bytes, not 126",
        lambda w: w.encode_frame(10, "é" * 63),
    ),
    "control-frame-in-fragments": (
        ValueError,
        "a control frame must not be fragmented",
        lambda w: w.encode_frame(8, fin=False),
    ),
    "opcode-and-payload": (ValueError, "opcode", lambda w: w.encode_frame(99, 5)),
    "opcode-and-surrogate": (ValueError, "opcode", lambda w: w.encode_frame(99, "\ud800")),
    "opcode-and-key": (ValueError, "opcode", lambda w: w.encode_frame(99, masking_key=False)),
    "take-from-str": (
        TypeError,
        "'str'",
        lambda w: w.kernels.take_messages("x", 0, [], LIMIT, True),
    ),
    "take-from-gaps": (
        TypeError,
        "C-contiguous",
        lambda w: w.kernels.take_messages(GAPS, 0, [], LIMIT, True),
    ),
    "mask-released-view": (ValueError, "released", lambda w: w.mask(RELEASED, KEY)),
    "mask-into-released-view": (ValueError, "released", lambda w: w.mask_into(RELEASED, KEY)),
    "payload-released-view": (ValueError, "released", lambda w: w.encode_frame(2, RELEASED)),
    "key-released-view": (
        ValueError,
        "released",
        lambda w: w.encode_frame(2, b"x", masking_key=RELEASED),
    ),
    "take-from-released-view": (
        ValueError,
        "released",
        lambda w: w.kernels.take_messages(RELEASED, 0, [], LIMIT, True),
    ),
    "parse-released-view": (ValueError, "released", lambda w: w.kernels.parse_frame(RELEASED, 0)),
    "parse-before": (ValueError, "negative: -1", lambda w: w.kernels.parse_frame(b"xx", -1)),
    "take-before": (
        ValueError,
        "negative: -1",
        lambda w: w.kernels.take_messages(b"xx", -1, [], 9, False),
    ),
    "take-frame-from-str": (
        TypeError,
        "'str'",
        lambda w: w.kernels.take_frame("xx", 0, LIMIT, True),
    ),
    "take-frame-from-gaps": (
        TypeError,
        "C-contiguous",
        lambda w: w.kernels.take_frame(GAPS, 0, LIMIT, True),
    ),
    "take-frame-from-released-view": (
        ValueError,
        "released",
        lambda w: w.kernels.take_frame(RELEASED, 0, LIMIT, True),
    ),
    "take-frame-before": (
        ValueError,
        "negative: -1",
        lambda w: w.kernels.take_frame(b"xx", -1, 9, False),
    ),
    "parse-str": (TypeError, "'str'", lambda w: w.kernels.parse_frame("xx", 0)),
    "parse-gaps": (TypeError, "C-contiguous", lambda w: w.kernels.parse_frame(GAPS, 0)),
}

wrong = pytest.mark.parametrize(("error", "text", "call"), WRONG.values(), ids=WRONG)


@wrong
def test_a_wrong_argument_is_an_error(
    codec: ModuleType, error: type[Exception], text: str, call: Callable[[Any], object]
) -> None:
    with pytest.raises(error) as caught:
        call(codec)
    assert type(caught.value) is error
    assert text in str(caught.value)


@wrong
def test_a_wrong_argument_is_the_same_error_on_both_kernels(
    compiled: ModuleType,
    pure: ModuleType,
    error: type[Exception],
    text: str,
    call: Callable[[Any], object],
) -> None:
    assert outcome(lambda: call(compiled)) == outcome(lambda: call(pure))


def test_mask_into_with_an_error_changes_nothing(codec: ModuleType) -> None:
    buffer = bytearray(b"untouched")
    for arguments in ((b"abc", 0), (KEY, -1), (None, 0)):
        with pytest.raises((TypeError, ValueError)):
            codec.mask_into(buffer, *arguments)
    assert buffer == b"untouched"


def test_mask_into_takes_an_offset_of_any_size(codec: ModuleType) -> None:
    buffer = bytearray(b"Hello")
    codec.mask_into(buffer, KEY, HUGE + 3)
    assert buffer == masked_by_hand(b"Hello", KEY[3:] + KEY[:3])


# The accept key (RFC 6455 section 4.2.2) ----------------------------------------------------------


def accept_by_hand(key: str) -> str:
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


def test_accept_key_of_the_rfc(codec: ModuleType) -> None:
    accept = codec.accept_key(RFC_KEY)
    assert type(accept) is str
    assert accept == RFC_ACCEPT


@pytest.mark.parametrize("size", [0, 1, 16, 19, 20, 23, 24, 25, 27, 28, 63, 64, 65, 300])
def test_accept_key_of_other_lengths(codec: ModuleType, size: int) -> None:
    key = ("dGhlIHNhbXBsZSBub25jZQ" * 14)[:size]
    assert codec.accept_key(key) == accept_by_hand(key)


def test_accept_key_of_a_subclass_of_str(codec: ModuleType) -> None:
    assert codec.accept_key(StrSubclass(RFC_KEY)) == RFC_ACCEPT


@given(nonce=st.binary(min_size=16, max_size=16))
def test_accept_key_is_sha1_in_base64(codec: ModuleType, nonce: bytes) -> None:
    key = base64.b64encode(nonce).decode()
    assert codec.accept_key(key) == accept_by_hand(key)


@given(key=st.text(st.characters(max_codepoint=127), min_size=24, max_size=24))
def test_accept_key_of_any_ascii(codec: ModuleType, key: str) -> None:
    assert codec.accept_key(key) == accept_by_hand(key)


# Writing frames (RFC 6455 section 5.2) ------------------------------------------------------------


@pytest.mark.parametrize("frame", RFC_FRAMES.values(), ids=RFC_FRAMES)
def test_encode_frame_gives_the_frames_of_the_rfc(codec: ModuleType, frame: Frame) -> None:
    wire = codec.encode_frame(
        frame.opcode, frame.payload, fin=frame.fin, masking_key=frame.masking_key
    )
    assert type(wire) is bytes
    assert wire == frame.wire


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
def test_encode_frame_at_every_short_size(codec: ModuleType, key: bytes | None) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        wire = codec.encode_frame(2, payload, masking_key=key)
        assert wire == by_hand(FIN_BINARY, payload, key), size


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@sizes
def test_encode_frame_at_the_edges(codec: ModuleType, size: int, key: bytes | None) -> None:
    payload = payload_of(size)
    assert codec.encode_frame(2, payload, masking_key=key) == by_hand(FIN_BINARY, payload, key)


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ],
)
def test_encode_frame_uses_the_shortest_form_of_the_length(
    codec: ModuleType, size: int, head: str
) -> None:
    assert codec.encode_frame(2, bytes(size)) == bytes.fromhex(head) + bytes(size)


def test_encode_frame_writes_every_first_byte(codec: ModuleType) -> None:
    for opcode in range(16):
        for rsv in range(8):
            for fin in (True, False):
                if opcode >= 8 and not fin:
                    continue
                first = fin << 7 | rsv << 4 | opcode
                assert codec.encode_frame(opcode, b"x", fin=fin, rsv=rsv) == bytes((first, 1, 120))


def test_encode_frame_takes_what_is_true_or_false_for_fin(codec: ModuleType) -> None:
    no: Any
    for no in (0, "", None):
        assert codec.encode_frame(1, fin=no) == b"\x01\x00"
    assert codec.encode_frame(1, fin=2) == b"\x81\x00"


def test_encode_frame_takes_an_opcode_by_name(codec: ModuleType) -> None:
    assert codec.encode_frame(codec.Opcode.PING, b"x") == b"\x89\x01x"


TEXTS = {
    "empty": "",
    "ascii": "Hello",
    "latin-1": "café",
    "greek": "κόσμε",
    "astral": "a😀b",
    "NUL": "a\0b",
    "long-ascii": "x" * 70_000,
    "long-latin-1": "é" * 70_000,
    "subclass": StrSubclass("Hello"),
    "subclass-not-ascii": StrSubclass("café"),
}


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_encode_frame_writes_text_as_utf_8(codec: ModuleType, text: str, key: bytes | None) -> None:
    assert codec.encode_frame(1, text, masking_key=key) == by_hand(FIN_TEXT, text.encode(), key)


def test_encode_frame_counts_bytes_and_not_characters(codec: ModuleType) -> None:
    assert codec.encode_frame(1, "é" * 63)[:4] == b"\x81\x7e\x00\x7e"


def test_control_frames_carry_125_bytes(codec: ModuleType) -> None:
    for opcode in range(8, 16):
        assert codec.encode_frame(opcode, bytes(125)) == bytes((0x80 | opcode, 125)) + bytes(125)


# Masking keys (RFC 6455 section 5.3: unpredictable, a new one for every frame)


def new_key(codec: ModuleType) -> bytes:
    wire: bytes = codec.encode_frame(1, b"", masking_key=True)
    assert wire[:2] == b"\x81\x80"
    assert len(wire) == 6
    return wire[2:]


def test_a_random_masking_key_masks_the_payload(codec: ModuleType) -> None:
    for size in (0, 1, 125, 126, 1024, 65536):
        payload = payload_of(size)
        wire = codec.encode_frame(2, payload, masking_key=True)
        head = {0: 2, 1: 2, 125: 2, 65536: 10}.get(size, 4)
        assert wire == by_hand(FIN_BINARY, payload, wire[head : head + 4])


def test_random_masking_keys_differ(codec: ModuleType) -> None:
    keys = [new_key(codec) for _ in range(10_000)]
    # Of 10,000 keys out of 2**32, the chance that 5 or more are there twice is 1 in 10**12.
    assert len(set(keys)) > 10_000 - 5
    for position in range(4):
        assert len({key[position] for key in keys}) == 256


def test_masking_keys_come_from_the_system(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return b"\xab" * size

    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", urandom)
        for _ in range(100_000):
            if asked:
                break
            new_key(codec)
        assert asked, "keys that no os.urandom gave"
        used = 1
        # Every key is used once: not more of them than there are bytes for.
        while len(asked) == 1:
            assert new_key(codec) == b"\xab" * 4
            used += 1
        assert used == asked[0] // 4 + 1
    for _ in range(asked[-1] // 4):
        new_key(codec)  # those of the second block, that no other test may see


def test_a_block_of_keys_that_is_too_short_is_an_error(
    compiled: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What stands behind it in memory is no secret, or not ours.
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: bytes(size - 1))
        with pytest.raises(RuntimeError, match=r"^os\.urandom gave 4095 bytes for 4096$"):
            b"".join(new_key(compiled) for _ in range(4096 // 4 + 1))
    assert len(new_key(compiled)) == 4


def test_where_no_process_can_fork_there_are_keys_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    assert len(new_key(load_codec(pure=True))) == 4


FORK = """
import os, wsframe
def keys(n):
    return b"".join(wsframe.encode_frame(1, b"", masking_key=True)[2:] for _ in range(n))
keys(10)  # so that there is a stock to inherit
read, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, keys(500))
    os._exit(0)
theirs = os.read(read, 2000)
assert os.waitpid(child, 0)[1] == 0
ours = keys(500)
cut = lambda data: {data[i : i + 4] for i in range(0, len(data), 4)}
assert len(theirs) == len(ours) == 2000
print(wsframe.ACCELERATED, len(cut(ours) & cut(theirs)) <= 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_masking_keys_are_not_repeated_in_a_forked_child(codec: ModuleType) -> None:
    environment = {**os.environ, "WSFRAME_PURE": "0" if codec.ACCELERATED else "1"}
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{codec.ACCELERATED} True\n", done.stderr


def test_masking_keys_are_not_repeated_between_threads(codec: ModuleType) -> None:
    count = 4
    stocks: list[list[bytes]] = [[] for _ in range(count)]
    start = threading.Barrier(count)

    def run(stock: list[bytes]) -> None:
        start.wait()
        stock.extend(new_key(codec) for _ in range(2500))

    threads = [threading.Thread(target=run, args=(stock,)) for stock in stocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(stock) for stock in stocks] == [2500] * count
    assert len(set().union(*stocks)) > 10_000 - 5


# Reading one head ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1, 7])
@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("length_form", [0, 2, 8])
def test_parse_frame_of_every_beginning(
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


# Taking messages ----------------------------------------------------------------------------------

roles = pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
starts = pytest.mark.parametrize("start", [0, 1, 5])


def take(
    codec: ModuleType, data: bytes, key: bytes | None, limit: int = LIMIT, start: int = 0
) -> tuple[list[Any], int]:
    """What take_messages takes of the data, and how many bytes it leaves, on either role."""
    messages: list[Any] = []
    ground = b"\x81" * start + data
    left = codec.kernels.take_messages(ground, start, messages, limit, key is not None)
    assert type(left) is int
    return messages, left


@roles
def test_taken_at_every_short_size(codec: ModuleType, key: bytes | None) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        assert take(codec, by_hand(FIN_BINARY, payload, key), key) == ([payload], 0)
        text = "".join(chr(32 + i % 95) for i in range(size))
        assert take(codec, by_hand(FIN_TEXT, text.encode(), key), key) == ([text], 0)


@roles
@sizes
def test_taken_at_the_edges(codec: ModuleType, size: int, key: bytes | None) -> None:
    payload = payload_of(size)
    taken, left = take(codec, by_hand(FIN_BINARY, payload, key), key)
    assert (taken == [payload], type(taken[0]), left) == (True, bytes, 0)
    text = "é" * (size // 2) + "x" * (size % 2)
    taken, left = take(codec, by_hand(FIN_TEXT, text.encode(), key), key)
    assert (taken == [text], type(taken[0]), left) == (True, str, 0)


@roles
@pytest.mark.parametrize("data", VALID_UTF8.values(), ids=VALID_UTF8)
def test_taken_text_is_decoded(codec: ModuleType, data: bytes, key: bytes | None) -> None:
    assert take(codec, by_hand(FIN_TEXT, data, key), key) == ([data.decode()], 0)


@roles
def test_the_first_byte_that_is_not_ascii_is_found_at_every_place(
    codec: ModuleType, key: bytes | None
) -> None:
    for size in (1, 2, 3, 15, 16, 31, 32, 63, 64, 65, 127, 128, 129, 200, 257):
        for place in range(size):
            text = "a" * place + "é" + "b" * (size - place - 1)
            assert take(codec, by_hand(FIN_TEXT, text.encode(), key), key) == ([text], 0)


@roles
@starts
def test_messages_are_taken_in_order(codec: ModuleType, key: bytes | None, start: int) -> None:
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


def test_every_frame_has_a_mask_of_its_own(codec: ModuleType) -> None:
    keys = [ZERO_KEY, KEY, HIGH_KEY, b"\x01\x00\x00\x00"]
    wire = b"".join(by_hand(FIN_TEXT, b"Hello", key) for key in keys)
    assert take(codec, wire, KEY) == (["Hello"] * 4, 0)


@roles
def test_a_taken_message_is_independent_of_the_buffer(codec: ModuleType, key: bytes | None) -> None:
    buffer = bytearray(by_hand(FIN_TEXT, b"text", key) + by_hand(FIN_BINARY, b"data", key))
    messages: list[Any] = []
    codec.kernels.take_messages(buffer, 0, messages, LIMIT, key is not None)
    buffer[:] = bytes(len(buffer))
    assert messages == ["text", b"data"]


Maker = Callable[[bytes | None], bytes]


def frame(first: int, payload: bytes = b"x", **how: int) -> Maker:
    return lambda key: by_hand(first, payload, key, **how)


#: Frames that are declined, each without judging why; for the wrong masking, see below.
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


@roles
@pytest.mark.parametrize("make", DECLINED.values(), ids=DECLINED)
def test_declined_with_all_that_follows(codec: ModuleType, make: Maker, key: bytes | None) -> None:
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
def test_declined_is_the_wrong_masking(
    codec: ModuleType, first: int, size: int, key: bytes | None
) -> None:
    wrong_key = KEY if key is None else None
    # With room for a masking key, so that only the bit can have told.
    wire = by_hand(first, bytes(size), wrong_key) + b"\x81\x00\x81\x00"
    assert take(codec, wire, key) == ([], len(wire))


@roles
@pytest.mark.parametrize("size", [0, 1, 5, 126, 300])
@pytest.mark.parametrize("first", [FIN_TEXT, FIN_BINARY], ids=["text", "binary"])
def test_declined_is_every_incomplete_frame(
    codec: ModuleType, first: int, size: int, key: bytes | None
) -> None:
    before = by_hand(FIN_BINARY, b"before", key)
    wire = by_hand(first, b"x" * size, key)
    for end in range(len(wire)):
        assert take(codec, before + wire[:end], key) == ([b"before"], end)
    assert take(codec, before + wire, key)[1] == 0


@roles
@pytest.mark.parametrize("size", [65536, 1 << 18])
def test_declined_is_a_long_frame_without_its_last_byte(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), key)
    for end in (9, 10, 13, 14, len(wire) - 1):
        assert take(codec, wire[:end], key) == ([], end)


@roles
@pytest.mark.parametrize("limit", [1, 3, 125, 126, 300, 65535, 65536])
def test_the_limit_itself_is_taken(codec: ModuleType, limit: int, key: bytes | None) -> None:
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
def test_nothing_is_taken_from_nothing(codec: ModuleType, key: bytes | None) -> None:
    assert take(codec, b"", key) == ([], 0)
    assert take(codec, b"", key, start=5) == ([], 0)


def test_messages_are_appended_to_those_that_are_there(codec: ModuleType) -> None:
    messages: list[Any] = ["there"]
    codec.kernels.take_messages(by_hand(FIN_TEXT, b"x"), 0, messages, LIMIT, False)
    assert messages == ["there", "x"]


@roles
@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_no_memory_is_taken_for_a_length_that_is_refused(
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
def test_no_memory_is_taken_for_a_payload_that_is_not_there(
    codec: ModuleType, key: bytes | None
) -> None:
    limit = sys.maxsize
    for length in (1 << 40, (1 << 63) - 1):
        wire = by_hand(FIN_BINARY, b"x", key, length=length)
        assert take(codec, wire, key, limit) == ([], len(wire))


@given(
    payloads=st.lists(st.one_of(st.binary(max_size=300), st.text(max_size=100))),
    key=st.none() | st.binary(min_size=4, max_size=4),
)
def test_what_encode_frame_writes_is_taken(
    codec: ModuleType, payloads: list[Any], key: bytes | None
) -> None:
    wire = b"".join(
        codec.encode_frame(1 if isinstance(item, str) else 2, item, masking_key=key)
        for item in payloads
    )
    assert take(codec, wire, key) == (payloads, 0)


# Taking one frame ---------------------------------------------------------------------------------


def take_one(
    codec: ModuleType, data: bytes, key: bytes | None, limit: int = LIMIT, start: int = 0
) -> tuple[int, bytes, int] | None:
    """What take_frame takes of the data, on either role; its end is counted in the data."""
    ground = b"\x81" * start + data
    taken = codec.kernels.take_frame(ground, start, limit, key is not None)
    if taken is None:
        return None
    first, payload, end = taken
    assert (type(first), type(payload), type(end)) == (int, bytes, int)
    return first, payload, end - start


@roles
def test_a_frame_is_taken_at_every_short_size(codec: ModuleType, key: bytes | None) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        wire = by_hand(FIN_BINARY, payload, key)
        assert take_one(codec, wire, key) == (FIN_BINARY, payload, len(wire))
        assert take_one(codec, wire + b"\xff" * 9, key, start=3) == (FIN_BINARY, payload, len(wire))


@roles
@sizes
def test_a_frame_is_taken_at_the_edges(codec: ModuleType, size: int, key: bytes | None) -> None:
    payload = payload_of(size)
    wire = by_hand(FIN_BINARY, payload, key)
    assert take_one(codec, wire, key) == (FIN_BINARY, payload, len(wire))


@roles
def test_a_frame_is_taken_whatever_its_first_byte_is(codec: ModuleType, key: bytes | None) -> None:
    # Text that is not UTF-8, reserved bits, long control frames: others judge.
    payload = b"\xff\x80" * 100
    for first in range(256):
        wire = by_hand(first, payload, key)
        assert take_one(codec, wire, key) == (first, payload, len(wire))


@roles
@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 300])
def test_no_frame_is_taken_that_is_not_whole(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, payload_of(size), key)
    for end in range(len(wire)):
        assert take_one(codec, wire[:end], key) is None
        assert take_one(codec, wire[:end], key, start=5) is None


@roles
@pytest.mark.parametrize("size", [65536, 1 << 18])
def test_no_long_frame_is_taken_without_its_last_byte(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), key)
    for end in (2, 9, 10, 13, 14, len(wire) - 1):
        assert take_one(codec, wire[:end], key) is None


@roles
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_no_frame_is_taken_that_is_masked_wrongly(
    codec: ModuleType, size: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), KEY if key is None else None)
    assert take_one(codec, wire + bytes(4), key) is None


NOT_MINIMAL = [(0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)]


@roles
@pytest.mark.parametrize(("size", "form"), NOT_MINIMAL)
def test_no_frame_is_taken_whose_length_is_not_minimal(
    codec: ModuleType, size: int, form: int, key: bytes | None
) -> None:
    wire = by_hand(FIN_BINARY, bytes(size), key, length_form=form)
    assert take_one(codec, wire + bytes(4), key) is None


@roles
@pytest.mark.parametrize("limit", [0, 1, 3, 125, 126, 300, 65535, 65536])
def test_no_frame_is_taken_over_the_limit(codec: ModuleType, limit: int, key: bytes | None) -> None:
    for first in (FIN_BINARY, 0x89):
        wire = by_hand(first, payload_of(limit), key)
        assert take_one(codec, wire, key, limit) == (first, payload_of(limit), len(wire))
        assert take_one(codec, by_hand(first, bytes(limit + 1), key), key, limit) is None


@roles
@pytest.mark.parametrize("limit", [LIMIT, sys.maxsize])
@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_no_frame_is_taken_whose_length_is_a_promise(
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
def test_no_frame_is_taken_from_nothing(codec: ModuleType, key: bytes | None) -> None:
    assert take_one(codec, b"", key) is None
    assert codec.kernels.take_frame(b"\x81\x00", 2, LIMIT, key is not None) is None
    assert codec.kernels.take_frame(b"\x81\x00", 99, LIMIT, key is not None) is None


@roles
def test_nothing_is_taken_where_the_limit_is_negative(codec: ModuleType, key: bytes | None) -> None:
    wire = by_hand(FIN_BINARY, b"", key)
    assert take_one(codec, wire, key, -1) is None
    assert take(codec, wire, key, -1) == ([], len(wire))


@roles
def test_a_taken_frame_is_independent_of_the_buffer(codec: ModuleType, key: bytes | None) -> None:
    wire = by_hand(FIN_BINARY, b"data", key)
    buffer = bytearray(wire)
    _, payload, _ = codec.kernels.take_frame(buffer, 0, LIMIT, key is not None)
    buffer[:] = bytes(len(buffer))
    assert payload == b"data"


def test_the_kernels_say_what_they_are(compiled: ModuleType, pure: ModuleType) -> None:
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

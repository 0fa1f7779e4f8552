"""Masking (RFC 6455 section 5.3)."""

from __future__ import annotations

import array
import ctypes
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.kernels.helpers import FIN_BINARY, FIN_TEXT, HIGH_KEY, KEY, LIMIT, ZERO_KEY, sizes
from tests.support.tools import normals, outcome
from tests.support.vectors import (
    RFC_KEY,
    SHORT_SIZES,
    by_hand,
    payload_of,
    xored,
)

GUARD = 64


def masked_by_hand(payload: bytes, key: bytes = KEY) -> bytes:
    return xored(payload, key)[4:]


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
def test_mask_into_at_every_alignment_changes_no_other_bytes(codec: ModuleType, size: int) -> None:
    for alignment in range(65):
        ground = bytearray(payload_of(alignment + size + GUARD))
        before = bytes(ground)
        codec.mask_into(memoryview(ground)[alignment : alignment + size], KEY)
        end = alignment + size
        assert ground[:alignment] == before[:alignment], alignment
        assert ground[alignment:end] == masked_by_hand(before[alignment:end]), alignment
        assert ground[end:] == before[end:], alignment


@pytest.mark.parametrize("offset", [*range(9), 1021, 65537, (1 << 31) + 1, (1 << 62) + 3])
def test_mask_into_rotates_the_key_by_the_offset(codec: ModuleType, offset: int) -> None:
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
    """Return a two-dimensional array type of numbers in the other byte order."""
    number = ctypes.c_uint.__ctype_be__ if sys.byteorder == "little" else ctypes.c_uint.__ctype_le__
    return (number * 2) * (size // 8)


@pytest.mark.unmeasured
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


def test_every_kernel_releases_its_buffers(codec: ModuleType) -> None:
    for size in (16, 1 << 18):
        buffer = bytearray(payload_of(size))
        codec.mask(buffer, KEY)
        codec.mask_into(buffer, KEY)
        codec.encode_frame(2, buffer)
        codec.kernels.parse_frame(buffer, 0)
        codec.kernels.take_messages(buffer, 0, [], LIMIT, True)
        codec.kernels.take_frame(buffer, 0, LIMIT, True)
        buffer.append(0)  # BufferError while the buffer is exported
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


# Invalid arguments: both kernels raise the same error with the same text

READ_ONLY = memoryview(bytearray(8)).toreadonly()


GAPS = memoryview(bytearray(16))[::2]


RELEASED = memoryview(bytearray(8))


RELEASED.release()


HUGE = 1 << 70


class Ambiguous:
    """An object that is neither true nor false, as an array of several elements."""

    def __bool__(self) -> bool:
        raise ValueError("no truth value")


WRONG: dict[str, tuple[type[Exception], str, Callable[[Any], object]]] = {
    "mask-key-of-3": (ValueError, "4 bytes, not 3", lambda w: w.mask(b"x", b"abc")),
    "mask-key-of-5": (ValueError, "4 bytes, not 5", lambda w: w.mask(b"x", b"abcde")),
    "mask-key-of-0": (ValueError, "4 bytes, not 0", lambda w: w.mask(b"x", b"")),
    "mask-key-of-two-integers": (
        ValueError,
        "4 bytes, not 8",
        lambda w: w.mask(b"x", array.array("I", [1, 2])),
    ),
    "mask-key-str": (
        TypeError,
        "masking_key must be a bytes-like object, not str",
        lambda w: w.mask(b"x", "abcd"),
    ),
    "mask-key-none": (
        TypeError,
        "masking_key must be a bytes-like object, not NoneType",
        lambda w: w.mask(b"x", None),
    ),
    "mask-payload-str": (
        TypeError,
        "payload must be a C-contiguous bytes-like object, not str",
        lambda w: w.mask("x", KEY),
    ),
    "mask-payload-int": (
        TypeError,
        "payload must be a C-contiguous bytes-like object, not int",
        lambda w: w.mask(8, KEY),
    ),
    "mask-payload-with-gaps": (TypeError, "C-contiguous", lambda w: w.mask(GAPS, KEY)),
    "mask-both-wrong": (ValueError, "4 bytes, not 3", lambda w: w.mask("x", b"abc")),
    "mask-into-bytes": (TypeError, "writable", lambda w: w.mask_into(b"x", KEY)),
    "mask-into-read-only-view": (TypeError, "writable", lambda w: w.mask_into(READ_ONLY, KEY)),
    "mask-into-gaps": (TypeError, "C-contiguous", lambda w: w.mask_into(GAPS, KEY)),
    "mask-into-str": (
        TypeError,
        "buffer must be a C-contiguous bytes-like object, not str",
        lambda w: w.mask_into("x", KEY),
    ),
    "mask-into-key-of-3": (
        ValueError,
        "4 bytes, not 3",
        lambda w: w.mask_into(bytearray(8), b"abc"),
    ),
    "mask-into-negative-offset": (
        ValueError,
        "offset must be at least 0, not -1",
        lambda w: w.mask_into(bytearray(8), KEY, -1),
    ),
    "mask-into-hugely-negative-offset": (
        ValueError,
        "offset must be at least 0",
        lambda w: w.mask_into(bytearray(8), KEY, -HUGE),
    ),
    "mask-into-offset-str": (
        TypeError,
        "offset must be an integer, not str",
        lambda w: w.mask_into(bytearray(8), KEY, "1"),
    ),
    "mask-into-offset-float": (
        TypeError,
        "offset must be an integer, not float",
        lambda w: w.mask_into(bytearray(8), KEY, 1.0),
    ),
    "accept-key-not-ascii": (
        UnicodeEncodeError,
        "ascii",
        lambda w: w.accept_key("é" * 24),
    ),
    "accept-key-bytes": (
        TypeError,
        "key must be str, not bytes",
        lambda w: w.accept_key(RFC_KEY.encode()),
    ),
    "accept-key-none": (TypeError, "key must be str, not NoneType", lambda w: w.accept_key(None)),
    "opcode-16": (ValueError, "opcode must be 0-15, not 16", lambda w: w.encode_frame(16)),
    "opcode-negative": (ValueError, "opcode must be 0-15, not -1", lambda w: w.encode_frame(-1)),
    "opcode-huge": (ValueError, "opcode must be 0-15", lambda w: w.encode_frame(HUGE)),
    "opcode-str": (TypeError, "opcode must be an integer, not str", lambda w: w.encode_frame("1")),
    "opcode-none": (
        TypeError,
        "opcode must be an integer, not NoneType",
        lambda w: w.encode_frame(None),
    ),
    "opcode-float": (
        TypeError,
        "opcode must be an integer, not float",
        lambda w: w.encode_frame(1.0),
    ),
    "rsv-8": (ValueError, "rsv must be 0-7, not 8", lambda w: w.encode_frame(1, rsv=8)),
    "rsv-negative": (ValueError, "rsv must be 0-7, not -1", lambda w: w.encode_frame(1, rsv=-1)),
    "rsv-huge": (ValueError, "rsv must be 0-7", lambda w: w.encode_frame(1, rsv=HUGE)),
    "rsv-str": (TypeError, "rsv must be an integer, not str", lambda w: w.encode_frame(1, rsv="1")),
    "rsv-float": (
        TypeError,
        "rsv must be an integer, not float",
        lambda w: w.encode_frame(1, rsv=1.0),
    ),
    "fin-without-a-truth": (
        ValueError,
        "no truth value",
        lambda w: w.encode_frame(1, fin=Ambiguous()),
    ),
    "payload-int": (
        TypeError,
        "payload must be a C-contiguous bytes-like object, not int",
        lambda w: w.encode_frame(2, 5),
    ),
    "payload-none": (
        TypeError,
        "payload must be a C-contiguous bytes-like object, not NoneType",
        lambda w: w.encode_frame(2, None),
    ),
    "payload-list": (
        TypeError,
        "payload must be a C-contiguous bytes-like object, not list",
        lambda w: w.encode_frame(2, [1]),
    ),
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
    "key-one": (
        TypeError,
        "masking_key must be a bytes-like object, not int",
        lambda w: w.encode_frame(1, masking_key=1),
    ),
    "key-str": (
        TypeError,
        "masking_key must be a bytes-like object, not str",
        lambda w: w.encode_frame(1, masking_key="abcd"),
    ),
    "ping-of-126": (
        ValueError,
        "payload must have at most 125 bytes in a control frame, not 126",
        lambda w: w.encode_frame(9, bytes(126)),
    ),
    "close-of-126-masked": (
        ValueError,
        "payload must have at most 125 bytes in a control frame, not 126",
        lambda w: w.encode_frame(8, bytes(126), masking_key=True),
    ),
    "reserved-control-of-126": (
        ValueError,
        "payload must have at most 125 bytes in a control frame, not 126",
        lambda w: w.encode_frame(15, bytes(126)),
    ),
    "pong-of-126-as-text": (
        ValueError,
        "payload must have at most 125 bytes in a control frame, not 126",
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
        "data must be a C-contiguous bytes-like object, not str",
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
        "data must be a C-contiguous bytes-like object, not str",
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
    "parse-str": (
        TypeError,
        "data must be a C-contiguous bytes-like object, not str",
        lambda w: w.kernels.parse_frame("xx", 0),
    ),
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


def test_mask_into_changes_nothing_after_an_error(codec: ModuleType) -> None:
    buffer = bytearray(b"untouched")
    for arguments in ((b"abc", 0), (KEY, -1), (None, 0)):
        with pytest.raises((TypeError, ValueError)):
            codec.mask_into(buffer, *arguments)
    assert buffer == b"untouched"


def test_mask_into_takes_an_offset_of_any_size(codec: ModuleType) -> None:
    buffer = bytearray(b"Hello")
    codec.mask_into(buffer, KEY, HUGE + 3)
    assert buffer == masked_by_hand(b"Hello", KEY[3:] + KEY[:3])

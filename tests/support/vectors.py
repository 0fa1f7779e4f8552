"""Known answers and boundary values for all tests."""

from __future__ import annotations

from typing import NamedTuple

# RFC 6455 section 1.3: the key of its example, and the accept value for it.
RFC_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RFC_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Frame(NamedTuple):
    """A frame of RFC 6455 section 5.7."""

    wire: bytes
    opcode: int
    fin: bool
    masking_key: bytes | None
    payload: bytes


RFC_MASKING_KEY = bytes.fromhex("37fa213d")
BYTES_256, BYTES_64K = b"\xa5" * 256, b"\x5a" * 65536

#: RFC 6455 section 5.7, in its order; it does not specify the long payloads.
RFC_FRAMES = {
    "unmasked-text": Frame(bytes.fromhex("810548656c6c6f"), 1, True, None, b"Hello"),
    "masked-text": Frame(
        bytes.fromhex("818537fa213d7f9f4d5158"), 1, True, RFC_MASKING_KEY, b"Hello"
    ),
    "first-fragment": Frame(bytes.fromhex("010348656c"), 1, False, None, b"Hel"),
    "last-fragment": Frame(bytes.fromhex("80026c6f"), 0, True, None, b"lo"),
    "unmasked-ping": Frame(bytes.fromhex("890548656c6c6f"), 9, True, None, b"Hello"),
    "masked-pong": Frame(
        bytes.fromhex("8a8537fa213d7f9f4d5158"), 10, True, RFC_MASKING_KEY, b"Hello"
    ),
    "256-bytes": Frame(bytes.fromhex("827e0100") + BYTES_256, 2, True, None, BYTES_256),
    "64-KiB": Frame(bytes.fromhex("827f0000000000010000") + BYTES_64K, 2, True, None, BYTES_64K),
}

#: RFC 6455 section 7.4, and later entries of its registry (1012-1014).
CLOSE_CODES_ALLOWED = (
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
    *(3000, 3001, 3999, 4000, 4001, 4999),
)
#: Undefined, reserved (1004), or never sent (1005, 1006, 1015).
CLOSE_CODES_REFUSED = (
    *(0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1099, 1100),
    *(2000, 2999, 5000, 9999, 32768, 65535),
)

VALID_UTF8 = {
    "empty": b"",
    "NUL": b"\x00",
    "ascii": b"plain",
    "U+007F": b"\x7f",
    "U+0080": b"\xc2\x80",
    "U+07FF": b"\xdf\xbf",
    "U+0800": b"\xe0\xa0\x80",
    "U+D7FF-before-the-surrogates": b"\xed\x9f\xbf",
    "U+E000-after-the-surrogates": b"\xee\x80\x80",
    "U+FFFD": b"\xef\xbf\xbd",
    "U+FFFE-noncharacter": b"\xef\xbf\xbe",
    "U+FFFF-noncharacter": b"\xef\xbf\xbf",
    "U+10000": b"\xf0\x90\x80\x80",
    "U+10FFFF": b"\xf4\x8f\xbf\xbf",
    "byte-order-mark": b"\xef\xbb\xbfx",
    "greek": "κόσμε".encode(),
    "latin-1": "café".encode(),
    "astral": "a😀b".encode(),
    "ascii-then-more-after-a-vector": b"x" * 200 + "é".encode(),
}


class Bad(NamedTuple):
    """Bytes that are not UTF-8, and the number of them that could begin valid UTF-8."""

    data: bytes
    prefix: int


#: Each is "good", then ``data``; it fails at the byte after ``prefix``, or at its end.
INVALID_UTF8 = {
    "lone-continuation": Bad(b"\x80", 0),
    "last-continuation": Bad(b"\xbf", 0),
    "overlong-2-of-NUL": Bad(b"\xc0\x80", 0),
    "overlong-2-of-slash": Bad(b"\xc0\xaf", 0),
    "overlong-2-of-DEL": Bad(b"\xc1\xbf", 0),
    "overlong-3-of-slash": Bad(b"\xe0\x80\xaf", 1),
    "overlong-3-of-U+07FF": Bad(b"\xe0\x9f\xbf", 1),
    "overlong-4-of-slash": Bad(b"\xf0\x80\x80\xaf", 1),
    "overlong-4-of-U+FFFF": Bad(b"\xf0\x8f\xbf\xbf", 1),
    "surrogate-U+D800": Bad(b"\xed\xa0\x80", 1),
    "surrogate-U+DBFF": Bad(b"\xed\xaf\xbf", 1),
    "surrogate-U+DFFF": Bad(b"\xed\xbf\xbf", 1),
    "surrogate-pair": Bad(b"\xed\xa0\xbd\xed\xb8\x80", 1),
    "U+110000": Bad(b"\xf4\x90\x80\x80", 1),
    "lead-F5": Bad(b"\xf5\x80\x80\x80", 0),
    "lead-F8-5-bytes": Bad(b"\xf8\x88\x80\x80\x80", 0),
    "lead-FC-6-bytes": Bad(b"\xfc\x84\x80\x80\x80\x80", 0),
    "FE": Bad(b"\xfe", 0),
    "FF": Bad(b"\xff", 0),
    "latin-1": Bad(b"\xe9t\xe9", 1),
    "interrupted-2": Bad(b"\xc3(", 1),
    "interrupted-3": Bad(b"\xe2\x82(", 2),
    "interrupted-4": Bad(b"\xf0\x9f\x98(", 3),
}

#: Valid beginnings, invalid because nothing follows.
TRUNCATED_UTF8 = {
    "1-of-2": b"\xc3",
    "1-of-3": b"\xe2",
    "2-of-3": b"\xe2\x82",
    "1-of-4": b"\xf0",
    "2-of-4": b"\xf0\x9f",
    "3-of-4": b"\xf0\x9f\x98",
}

SHORT_SIZES = range(301)
#: Sizes around the limits of vectors, of the forms of length, and of the methods of the kernels.
LONG_SIZES = (
    *(511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097),
    *(65534, 65535, 65536, 65537, (1 << 18) - 1, 1 << 18, (1 << 18) + 1),
)
SIZES = (*SHORT_SIZES, *LONG_SIZES)


BLOCK = bytes((7 * i + i // 256 * 3 + 1) & 0xFF for i in range(1021))


def payload_of(size: int) -> bytes:
    """Return this number of bytes, with all values in an order that no mask repeats."""
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


def by_hand(
    first: int,
    payload: bytes = b"",
    masking_key: bytes | None = None,
    *,
    length_form: int | None = None,
    length: int | None = None,
) -> bytes:
    """Return a valid or invalid frame, encoded without the code under test.

    Args:
        first: the first byte: FIN, the reserved bits and the opcode.
        payload: the unmasked payload.
        masking_key: the masking key; None for no mask.
        length_form: 2 or 8, the number of bytes of the length; None for the shortest form.
        length: the length in the header; None for the length of the payload.
    """
    size = len(payload) if length is None else length
    bit = 0 if masking_key is None else 0x80
    if length_form is None:
        length_form = 0 if size < 126 else 2 if size < 65536 else 8
    field = {0: size, 2: 126, 8: 127}[length_form]
    head = bytes([first, bit | field]) + size.to_bytes(8, "big")[8 - length_form :]
    return head + xored(payload, masking_key)


def xored(payload: bytes, masking_key: bytes | None) -> bytes:
    """Return the masking key and the payload masked with it (RFC 6455 section 5.3)."""
    if masking_key is None:
        return payload
    size = len(payload)
    mask = (masking_key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return masking_key + masked.to_bytes(size, "big")

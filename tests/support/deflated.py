"""Compressed messages, right and wrong, by none of the code under test."""

from __future__ import annotations

import zlib
from typing import Any

TAIL = b"\x00\x00\xff\xff"

#: RFC 7692 sections 7.2.3.1 and 7.2.3.3 to 7.2.3.6: what a payload inflates to, each on its own.
RFC_PAYLOADS = {
    "one-block": (bytes.fromhex("f248cdc9c90700"), b"Hello"),
    "no-compression": (bytes.fromhex("000500faff48656c6c6f00"), b"Hello"),
    "bfinal": (bytes.fromhex("f348cdc9c9070000"), b"Hello"),
    "two-blocks": (bytes.fromhex("f248050000 00ffff cac9c90700"), b"Hello"),
    "empty": (b"\x00", b""),
}
#: Section 7.2.3.2: "Hello" once more, where the window is kept.
RFC_HELLO_AGAIN = bytes.fromhex("f200110000")


def compressor(*, bits: int = 15, level: int = -1) -> Any:
    """A stream of the peer's."""
    return zlib.compressobj(level, zlib.DEFLATED, -bits)


def squeezed(data: bytes, stream: Any = None) -> bytes:
    """The payload of a compressed message (RFC 7692 section 7.2.1); by itself, or in a stream."""
    stream = stream or compressor()
    payload: bytes = stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    return payload.removesuffix(TAIL)


def stored(data: bytes) -> bytes:
    """A payload in which the data stands as it is, five bytes from its beginning."""
    return squeezed(data, compressor(level=0))


def ended(data: bytes) -> bytes:
    """A DEFLATE stream with its end (section 7.2.3.4), which other streams may follow."""
    stream = compressor()
    whole: bytes = stream.compress(data) + stream.flush()
    return whole


def bomb(size: int) -> bytes:
    """A payload that inflates to that many zeros, about a thousand times its own size."""
    block = bytes(1 << 20)
    stream = compressor(level=9)
    pieces = [stream.compress(block) for _ in range(size // len(block))]
    return b"".join(pieces) + squeezed(bytes(size % len(block)), stream)


def looking_back(data: bytes) -> bytes:
    """A payload of the data, and once more its first three bytes, as a copy from where they are.

    So the window must have as many bytes as the data, which are 5-32768.
    """
    bits = _Bits()
    bits.code(0b0000001, 7)  # a copy of 3 bytes, from so far back:
    distance = len(data) - 1
    extra = distance.bit_length() - 2
    bits.code(2 * extra + 2 + (distance >> extra & 1), 5)
    bits.number(distance & ((1 << extra) - 1), extra)
    bits.code(0b0000000, 7)  # the end of the block
    bits.number(0, 3)  # the empty block whose rest is TAIL
    # A block is stored, and behind it stands one with the fixed codes.
    size = len(data).to_bytes(2, "little")
    head = b"\x00" + size + bytes(255 - byte for byte in size)
    return head + data + bits.to_bytes()


class _Bits:
    """A block with the fixed codes (RFC 1951 section 3.2.6)."""

    def __init__(self) -> None:
        self._value, self._count = 0b010, 3  # not the last, fixed codes

    def number(self, value: int, count: int) -> None:
        """A number, whose lowest bit stands first (section 3.1.1)."""
        self._value |= value << self._count
        self._count += count

    def code(self, value: int, count: int) -> None:
        """A Huffman code, whose highest bit stands first."""
        self.number(int(f"{value:0{count}b}"[::-1], 2), count)

    def to_bytes(self) -> bytes:
        return self._value.to_bytes(-(-self._count // 8), "little")


def inflated(payload: bytes, bits: int = 15) -> bytes:
    """What the payloads inflate to in a window of exactly 2 ** bits bytes.

    zlib tells a copy from further back only where its output has no room for what it looks back
    at: it gets room for one byte at a time.

    Raises:
        zlib.error: they look back further, or are no DEFLATE stream.
    """
    stream = zlib.decompressobj(-bits)
    data = bytearray()
    piece = stream.decompress(payload + TAIL, 1)
    while piece:
        data += piece
        piece = stream.decompress(stream.unconsumed_tail, 1)
    return bytes(data)

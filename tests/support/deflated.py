"""Compressed messages, valid and invalid, without the code under test."""

from __future__ import annotations

import zlib
from typing import Any

TAIL = b"\x00\x00\xff\xff"

#: RFC 7692 sections 7.2.3.1 and 7.2.3.3 to 7.2.3.6: payloads, and the data that each inflates to.
RFC_PAYLOADS = {
    "one-block": (bytes.fromhex("f248cdc9c90700"), b"Hello"),
    "no-compression": (bytes.fromhex("000500faff48656c6c6f00"), b"Hello"),
    "bfinal": (bytes.fromhex("f348cdc9c9070000"), b"Hello"),
    "two-blocks": (bytes.fromhex("f248050000 00ffff cac9c90700"), b"Hello"),
    "empty": (b"\x00", b""),
}
#: Section 7.2.3.2: "Hello" again, with context takeover.
RFC_HELLO_AGAIN = bytes.fromhex("f200110000")


def compressor(*, bits: int = 15, level: int = -1) -> Any:
    """Return a compressor of the peer."""
    return zlib.compressobj(level, zlib.DEFLATED, -bits)


def squeezed(data: bytes, stream: Any = None) -> bytes:
    """Return the payload of a compressed message (RFC 7692 section 7.2.1), alone or in a stream."""
    stream = stream or compressor()
    payload: bytes = stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    return payload.removesuffix(TAIL)


def stored(data: bytes) -> bytes:
    """Return a payload with the uncompressed data, at its fifth byte."""
    return squeezed(data, compressor(level=0))


def ended(data: bytes) -> bytes:
    """Return a complete DEFLATE stream (section 7.2.3.4), which other streams may follow."""
    stream = compressor()
    whole: bytes = stream.compress(data) + stream.flush()
    return whole


def bomb(size: int) -> bytes:
    """Return a payload that inflates to this number of zeros, about a thousand times its size."""
    block = bytes(1 << 20)
    stream = compressor(level=9)
    pieces = [stream.compress(block) for _ in range(size // len(block))]
    return b"".join(pieces) + squeezed(bytes(size % len(block)), stream)


def looking_back(data: bytes) -> bytes:
    """Return a payload of the data and a copy of its first three bytes by reference.

    So the window must have at least as many bytes as the data, which has 5-32768.
    """
    bits = _Bits()
    bits.code(0b0000001, 7)  # a copy of 3 bytes, from this distance:
    distance = len(data) - 1
    extra = distance.bit_length() - 2
    bits.code(2 * extra + 2 + (distance >> extra & 1), 5)
    bits.number(distance & ((1 << extra) - 1), extra)
    bits.code(0b0000000, 7)  # the end of the block
    bits.number(0, 3)  # the empty block whose rest is TAIL
    # A stored block, followed by a block with the fixed codes.
    size = len(data).to_bytes(2, "little")
    head = b"\x00" + size + bytes(255 - byte for byte in size)
    return head + data + bits.to_bytes()


class _Bits:
    """Writes a block with the fixed codes (RFC 1951 section 3.2.6)."""

    def __init__(self) -> None:
        self._value, self._count = 0b010, 3  # not the last, fixed codes

    def number(self, value: int, count: int) -> None:
        """Append a number, lowest bit first (section 3.1.1)."""
        self._value |= value << self._count
        self._count += count

    def code(self, value: int, count: int) -> None:
        """Append a Huffman code, highest bit first."""
        self.number(int(f"{value:0{count}b}"[::-1], 2), count)

    def to_bytes(self) -> bytes:
        return self._value.to_bytes(-(-self._count // 8), "little")


def inflated(payload: bytes, bits: int = 15) -> bytes:
    """Inflate the payloads with a window of exactly 2 ** bits bytes.

    The output has room for one byte at a time, because zlib accepts a distance beyond its window
    if the bytes are still in its output.

    Raises:
        zlib.error: a distance exceeds the window, or the stream is invalid.
    """
    stream = zlib.decompressobj(-bits)
    data = bytearray()
    payload += TAIL
    for begin in range(0, len(payload), 256):  # each call copies the rest of its input
        piece = stream.decompress(payload[begin : begin + 256], 1)
        while piece:
            data += piece
            piece = stream.decompress(stream.unconsumed_tail, 1)
    return bytes(data)

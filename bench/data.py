"""What the benches work on: payloads, frames and streams, made without the codec."""

from __future__ import annotations

from functools import cache
from itertools import cycle
from operator import xor
from random import Random

SIZES = (0, 16, 125, 126, 1024, 16 * 1024, 64 * 1024, 1024 * 1024)
TEXT, BINARY = 0x1, 0x2
KEY = b"\x8a\x17\xf3\x5c"
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,"

# The example of RFC 6455 section 1.3.
HANDSHAKE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def label(size: int) -> str:
    """Return a size as people write it."""
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


@cache
def payload(size: int, opcode: int = BINARY) -> bytes:
    """Return random bytes or, for text, random ASCII: the same in every run."""
    random = Random(size)
    return bytes(random.choices(LETTERS, k=size)) if opcode == TEXT else random.randbytes(size)


def message(size: int, opcode: int) -> str | bytes:
    """Return what a decoder is to deliver for this payload."""
    body = payload(size, opcode)
    return body.decode("ascii") if opcode == TEXT else body


def masked(body: bytes, key: bytes) -> bytes:
    """XOR byte by byte, as RFC 6455 section 5.3 puts it."""
    return bytes(map(xor, body, cycle(key)))


def frame(opcode: int, body: bytes, key: bytes | None = None) -> bytes:
    """Return one whole frame; a client's, if there is a key."""
    size, mask_bit = len(body), 0x80 if key else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask_bit | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, mask_bit | 127)) + size.to_bytes(8, "big")
    return head + key + masked(body, key) if key else head + body


def unmasked(client_frame: bytes) -> bytes:
    """Return a client's frame as a server would have sent it."""
    field = client_frame[1] & 0x7F
    key_at = 2 + {126: 2, 127: 8}.get(field, 0)
    if not client_frame[1] & 0x80:
        raise ValueError("the frame is not masked")
    head = bytes((client_frame[0], field)) + client_frame[2:key_at]
    return head + masked(client_frame[key_at + 4 :], client_frame[key_at : key_at + 4])


def frames_in_stream(size: int) -> int:
    """Return how many frames make about 256 KiB, 4 at least and 1000 at most."""
    return max(4, min(1000, 256 * 1024 // (size + 8)))


@cache
def stream(size: int, opcode: int, count: int) -> bytes:
    """Return that many frames of a client in a row, each with a key of its own."""
    random = Random(count)
    body = payload(size, opcode)
    return b"".join(frame(opcode, body, random.randbytes(4)) for _ in range(count))

"""The data of the benchmarks: payloads, frames and streams, built without the codec."""

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
    """Return a size with its unit."""
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


@cache
def payload(size: int, opcode: int = BINARY) -> bytes:
    """Return random bytes or, for text, random ASCII; the same in every run."""
    random = Random(size)
    return bytes(random.choices(LETTERS, k=size)) if opcode == TEXT else random.randbytes(size)


def message(size: int, opcode: int) -> str | bytes:
    """Return the message that a decoder must return for this payload."""
    body = payload(size, opcode)
    return body.decode("ascii") if opcode == TEXT else body


def masked(body: bytes, key: bytes) -> bytes:
    """Mask byte by byte, as defined in RFC 6455 section 5.3."""
    return bytes(map(xor, body, cycle(key)))


def frame(opcode: int, body: bytes, key: bytes | None = None) -> bytes:
    """Return one whole frame; a client's if a key is given."""
    size, mask_bit = len(body), 0x80 if key else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask_bit | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, mask_bit | 127)) + size.to_bytes(8, "big")
    return head + key + masked(body, key) if key else head + body


def unmasked(client_frame: bytes) -> bytes:
    """Return the server's frame with the same payload as this client's frame."""
    field = client_frame[1] & 0x7F
    key_at = 2 + {126: 2, 127: 8}.get(field, 0)
    if not client_frame[1] & 0x80:
        raise ValueError("the frame is not masked")
    head = bytes((client_frame[0], field)) + client_frame[2:key_at]
    return head + masked(client_frame[key_at + 4 :], client_frame[key_at : key_at + 4])


def frames_in_stream(size: int) -> int:
    """Return the number of frames in about 256 KiB, from 4 to 1000."""
    return max(4, min(1000, 256 * 1024 // (size + 8)))


@cache
def stream(size: int, opcode: int, count: int) -> bytes:
    """Return consecutive frames of a client, each with its own key."""
    random = Random(count)
    body = payload(size, opcode)
    return b"".join(frame(opcode, body, random.randbytes(4)) for _ in range(count))

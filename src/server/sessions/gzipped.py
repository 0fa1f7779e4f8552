"""Event streams in gzip (RFC 1952), each event compressed once for all who are sent it.

Every block is a piece of DEFLATE that refers to nothing before it and ends at a byte: a full flush.
So it is read as soon as it is there, the same bytes stand in everybody's stream, and of a client
nothing is kept but what the end of its stream is to say.
"""

from __future__ import annotations

import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..topics.encodings import BODIES, EVENT_STREAM, EventStreamEncoding, encode_id_field
from ..topics.entry import LARGE

if TYPE_CHECKING:
    from wsframe.fields import Fields

    from ..topics.entry import Entry

# RFC 1952 section 2.3: DEFLATE, and neither name nor time nor system.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# RFC 1951 section 3.2.6: the last block, without content.
LAST_BLOCK = b"\x03\x00"
# RFC 9110 section 12.5.3, with the weights of section 12.4.2.
CODING = re.compile(
    r"([^\s;]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?", re.IGNORECASE
)
# How many compressors are kept for the next block; each is some 300 KiB.
SPARE_COMPRESSORS = 4

_spare: list[Any] = []


def accepts_gzip(fields: Fields) -> bool:
    """Whether a client takes gzip, and likes nothing better; one that says nothing does not."""
    found = filter(None, map(CODING.fullmatch, fields.items("accept-encoding")))
    weights = {match[1].lower(): float(match[2] or 1) for match in found}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


class Block(bytes):
    """A block of such a stream.

    Attributes:
        plain: what it says.
    """

    plain: bytes

    def __new__(cls, compressed: bytes, plain: bytes) -> Block:
        block = super().__new__(cls, compressed)
        block.plain = plain
        return block

    def __sizeof__(self) -> int:
        return super().__sizeof__() + sys.getsizeof(self.plain)


def compress_block(data: bytes) -> Block:
    """Any thread: the block that says this; nothing for nothing."""
    if not data:
        return Block(b"", b"")
    try:
        compressor = _spare.pop()
    except IndexError:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    compressed = compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)
    if len(_spare) < SPARE_COMPRESSORS:
        _spare.append(compressor)
    return Block(compressed, data)


def store_block(data: bytes) -> Block:
    """Any thread: the block that says this uncompressed, which takes next to no time."""
    compressor = zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
    return Block(compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH), data)


class GzippedEncoding(EventStreamEncoding):
    """An event of such a stream."""

    def block(self, topic: str, entries: Sequence[Entry]) -> bytes:
        blocks = [self.once(topic, entry) for entry in entries]
        if len(blocks) == 1:
            return blocks[0]
        return Block(b"".join(blocks), b"".join([block.plain for block in blocks]))

    def once(self, topic: str, entry: Entry) -> Block:
        """An entry's block, which is made when it is needed first."""
        block = super().once(topic, entry)
        assert isinstance(block, Block)
        return block

    def _encode_any(self, topic: str, entry: Entry) -> Block:
        if not entry.is_large:
            return compress_block(super()._encode_any(topic, entry))
        plain = EVENT_STREAM.once(topic, entry)  # whose id comes first
        body = entry.encoded.pop(_BODIES, None) or store_block(plain.partition(b"\n")[2])
        return Block(compress_block(encode_id_field(entry.id or "")) + body, plain)

    def prepare(self, topic: str, entry: Entry) -> None:
        _BODIES.once(topic, entry)


class _GzippedBodies(GzippedEncoding):
    """An event without its id."""

    def _encode_any(self, topic: str, entry: Entry) -> Block:
        return compress_block(BODIES.once(topic, entry))


_BODIES = _GzippedBodies()


GZIPPED_EVENT_STREAM = GzippedEncoding()


class GzipStream:
    """One client's stream, behind its header: what goes out, and what that comes to.

    The lock makes the order in which blocks are counted that in which they are queued.
    """

    __slots__ = ("_checksum", "_lock", "_size")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checksum = 0
        self._size = 0

    def put_at_once(self, data: bytes, queue: Callable[[bytes], object]) -> int:
        """The owner of a loop: the same, but what is large is not compressed."""
        large = len(data) > LARGE and not isinstance(data, Block)
        return self.put(store_block(data) if large else data, queue)

    def put(self, data: bytes, queue: Callable[[bytes], object]) -> int:
        """Any thread: have this queued in a block, or a block as it is; return its size."""
        block = data if isinstance(data, Block) else compress_block(data)
        with self._lock:
            self._count(block)
            queue(block)
        return len(block)

    def end(self, data: bytes, queue: Callable[[bytes], object]) -> None:
        """Any thread: have this queued in the last block, with what tells that nothing is lost."""
        block = compress_block(data)
        with self._lock:
            self._count(block)
            trailer = struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF)
            queue(block + LAST_BLOCK + trailer)

    def _count(self, block: Block) -> None:
        self._checksum = zlib.crc32(block.plain, self._checksum)
        self._size += len(block.plain)

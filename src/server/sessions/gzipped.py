"""Event streams in gzip (RFC 1952); each event is compressed once for all clients.

Each block of events is compressed separately, and a full flush ends it at a byte boundary. So a
client can decode each block when it arrives, and all clients receive the same bytes. For each
client, only the size and the checksum for the end of its stream are kept.
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

# The gzip header (RFC 1952 section 2.3): DEFLATE, without a name, time or system.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# An empty last block of DEFLATE (RFC 1951 section 3.2.6).
LAST_BLOCK = b"\x03\x00"
# A content coding (RFC 9110 section 12.5.3) with its weight (section 12.4.2).
CODING = re.compile(
    r"([^\s;]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?", re.IGNORECASE
)
# The maximum number of compressors that are kept for reuse; each uses about 300 KiB.
SPARE_COMPRESSORS = 4

_spare: list[Any] = []


def accepts_gzip(fields: Fields) -> bool:
    """Return True if the Accept-Encoding of the request prefers gzip to no compression."""
    codings = filter(None, map(CODING.fullmatch, fields.items("accept-encoding")))
    weights = {match[1].lower(): float(match[2] or 1) for match in codings}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


class Block(bytes):
    """A compressed block of events.

    Attributes:
        plain: the uncompressed bytes.
    """

    plain: bytes

    def __new__(cls, compressed: bytes, plain: bytes) -> Block:
        block = super().__new__(cls, compressed)
        block.plain = plain
        return block

    def __sizeof__(self) -> int:
        return super().__sizeof__() + sys.getsizeof(self.plain)


def compress_block(data: bytes) -> Block:
    """Any thread: return the compressed block for the data; an empty block for b""."""
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
    """Any thread: return a block that contains the data uncompressed, which is fast."""
    compressor = zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
    return Block(compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH), data)


class GzippedEncoding(EventStreamEncoding):
    """The encoding of events as compressed blocks."""

    is_shared = False

    def block(self, topic: str, entries: Sequence[Entry]) -> bytes:
        blocks = [self.once(topic, entry) for entry in entries]
        if len(blocks) == 1:
            return blocks[0]
        return Block(b"".join(blocks), b"".join([block.plain for block in blocks]))

    def once(self, topic: str, entry: Entry) -> Block:
        """Return the block of an entry. Only the first call for an entry compresses it."""
        block = super().once(topic, entry)
        assert isinstance(block, Block)
        return block

    def _encode_any(self, topic: str, entry: Entry) -> Block:
        if not entry.is_large:
            return compress_block(super()._encode_any(topic, entry))
        # The first line of ``plain`` is the id field. The body does not contain this line.
        plain = EVENT_STREAM.once(topic, entry)
        body = entry.encoded.pop(_BODIES, None) or store_block(plain.partition(b"\n")[2])
        return Block(compress_block(encode_id_field(entry.id or "")) + body, plain)

    def prepare(self, topic: str, entry: Entry) -> None:
        _BODIES.once(topic, entry)


class _GzippedBodies(GzippedEncoding):
    """The encoding of events as compressed blocks without ids."""

    def _encode_any(self, topic: str, entry: Entry) -> Block:
        return compress_block(BODIES.once(topic, entry))


_BODIES = _GzippedBodies()


GZIPPED_EVENT_STREAM = GzippedEncoding()


class GzipStream:
    """The compressed stream of one client, with the size and checksum of its data.

    A lock ensures that the checksum is updated in the order in which blocks are queued.
    """

    __slots__ = ("_checksum", "_lock", "_size")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checksum = 0
        self._size = 0

    def put_fast(self, data: bytes, queue: Callable[[bytes], object]) -> int:
        """Loop owner: queue a block, or other data as a new block.

        Large data is stored uncompressed in its new block.
        """
        large = len(data) > LARGE and not isinstance(data, Block)
        return self.put(store_block(data) if large else data, queue)

    def put(self, data: bytes, queue: Callable[[bytes], object]) -> int:
        """Any thread: queue a block, or data as a new block; return the size of the block."""
        block = data if isinstance(data, Block) else compress_block(data)
        with self._lock:
            self._count(block)
            queue(block)
        return len(block)

    def end(self, data: bytes, queue: Callable[[bytes], object]) -> None:
        """Any thread: queue data as the last block, then the checksum and the size (RFC 1952)."""
        block = compress_block(data)
        with self._lock:
            self._count(block)
            trailer = struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF)
            queue(block + LAST_BLOCK + trailer)

    def _count(self, block: Block) -> None:
        self._checksum = zlib.crc32(block.plain, self._checksum)
        self._size += len(block.plain)

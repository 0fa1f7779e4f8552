"""The gzip format of event streams."""

from __future__ import annotations

import threading
import zlib
from itertools import permutations
from random import Random

import pytest

from tests.server.sessions.gzipped import END, TEXT, Gunzip
from tests.support.waiting import TIMEOUT
from wsframe.fields import Fields
from wsframe.server.sessions.gzipped import HEADER, Block, GzipStream, accepts_gzip, compress_block


def inflate_alone(block: bytes) -> bytes:
    """Return the content of a block, decompressed without the blocks before it."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    plain = inflater.decompress(block)
    assert not inflater.eof
    return plain


PIECES = [b":\n\n", b"data: x\n\n", TEXT.encode(), b"a" * 100_000, Random(1).randbytes(70_000)]


def test_a_block_is_independent_of_its_position() -> None:
    for pieces in permutations(PIECES, 3):
        blocks = list(map(compress_block, pieces))
        for piece, block in zip(pieces, blocks, strict=True):
            assert block.plain == piece
            assert inflate_alone(block) == piece
        assert inflate_alone(b"".join(blocks)) == b"".join(pieces)


def test_repetitive_data_is_compressed() -> None:
    assert len(compress_block(TEXT.encode())) < len(TEXT) / 8


def test_empty_data_is_an_empty_block() -> None:
    assert compress_block(b"") == b""


def test_blocks_are_made_by_many_threads() -> None:
    faults: list[BaseException] = []
    begin = threading.Barrier(8)

    def compress(seed: int) -> None:
        try:
            random = Random(seed)
            begin.wait(TIMEOUT)
            for _ in range(300):
                data = bytes([65 + seed]) * random.randrange(1, 3000)
                assert inflate_alone(compress_block(data)) == data
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=compress, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize("last", [b"", END])
def test_a_stream_of_blocks_is_a_file_for_gzip(last: bytes) -> None:
    stream, out = GzipStream(), [HEADER]
    for piece in PIECES:
        stream.put(piece, out.append)
        stream.put(compress_block(piece), out.append)
    stream.end(last, out.append)
    gunzip = Gunzip()
    plain = gunzip.read(b"".join(out))
    gunzip.expect_end()
    assert plain == b"".join(piece + piece for piece in PIECES) + last


@pytest.mark.slow
def test_the_trailer_contains_the_last_32_bits_of_the_length() -> None:
    # RFC 1952 section 2.3.1
    stream, out = GzipStream(), list[bytes]()
    half = Block(b"", b"x" * (1 << 28))
    for _ in range(16):
        stream.put(half, out.append)
    stream.put(b"abc", out.append)
    stream.end(b"", out.append)
    assert out[-1][-4:] == b"\x03\0\0\0"


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("br,gzip;q=0.001", True),
        ("deflate", False),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("*, gzip;q=0", False),
        ("gzip;q=0", False),
        ("gzip; q=0", False),
        ("gzip ;Q=0.000", False),
        ("gzip;q=0.0, x-gzip", False),
        ("gzip;q=1.000", True),
        ("identity", False),
        ("identity, gzip", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0", False),
        ("identity;q=0, *", True),
        # Malformed items are ignored.
        ("gzip;q=2", False),
        ("gzip;q=-1", False),
        ("gzip;q=0.0001", False),
        ("gzip;level=9", False),
        ("gzip q=1", False),
        ("gzipped", False),
        (";q=1, gzip", True),
    ],
)
def test_gzip_is_accepted_if_the_client_prefers_it(header: str | None, accepted: bool) -> None:
    fields = Fields([] if header is None else [("Accept-Encoding", header)])
    assert accepts_gzip(fields) is accepted


def test_accept_encoding_may_be_several_headers() -> None:
    assert accepts_gzip(Fields([("Accept-Encoding", "br"), ("accept-encoding", "gzip")]))

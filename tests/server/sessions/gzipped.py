"""Clients that read gzip."""

from __future__ import annotations

import zlib

END = b"event: end\nid: :end\n\n"


TEXT = '{"price": 1234, "name": "something"}' * 20


class Gunzip:
    """A decoder of a stream, which must be valid to the last byte."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def read(self, data: bytes) -> bytes:
        """Return the decompressed bytes."""
        return self._inflater.decompress(data)

    def expect_end(self) -> None:
        """Check that the stream ends with a correct checksum and length."""
        assert self._inflater.eof
        assert self._inflater.unused_data == b""

"""Clients that read gzip."""

from __future__ import annotations

import zlib

END = b"id: :end\n\n"


TEXT = '{"price": 1234, "name": "something"}' * 20


class Gunzip:
    """A reader of a stream, which has to be in order to the last byte."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def read(self, data: bytes) -> bytes:
        """What these bytes say."""
        return self._inflater.decompress(data)

    def expect_end(self) -> None:
        """The checksum and the length were there, and right, and nothing is behind them."""
        assert self._inflater.eof
        assert self._inflater.unused_data == b""

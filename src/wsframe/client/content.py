"""Incremental decoding of the content codings of a response (RFC 9110 section 8.4.1)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from ..errors import HandshakeError

INFLATED = frozenset(("gzip", "x-gzip", "deflate"))
GZIP_OR_ZLIB = zlib.MAX_WBITS + 32  # the format, gzip or zlib, is detected from the first bytes
RAW = -zlib.MAX_WBITS
# The maximum number of bytes to inflate at once, so that a small body cannot use much memory.
STEP = 1 << 16


class Decoder:
    """Incremental decoder of a body in the format of gzip or zlib.

    Only one thread at a time may use it. Call :meth:`take` until it returns no bytes, then
    :meth:`feed` the next input.

    Args:
        raw: True if the body may lack the header and trailer of zlib. Some servers send "deflate"
            in this form (RFC 9110 section 8.4.1.2).
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._may_be_raw = raw
        self._format = GZIP_OR_ZLIB
        self._inflater = zlib.decompressobj(self._format)
        self._input = b""
        self._pending = False  # True if output may be available without more input

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the body."""
        self._input = data
        if self._may_be_raw:
            self._may_be_raw = False
            if not _is_framed(data):
                self._format = RAW
                self._inflater = zlib.decompressobj(self._format)

    def take(self) -> bytes:
        """Return the next decoded bytes, 64 KiB at most; b"" if more input is required.

        Raises:
            ConnectionError: the body is not in the announced format.
        """
        while self._input or self._pending:
            if self._inflater.eof:  # the next member of a gzip file follows (RFC 1952 section 2.2)
                self._inflater = zlib.decompressobj(self._format)
            try:
                piece = self._inflater.decompress(self._input, STEP)
            except zlib.error as error:
                raise ConnectionError(
                    f"the body does not match its Content-Encoding: {error}"
                ) from error
            # A full piece means that more output may be available.
            self._pending = len(piece) == STEP and not self._inflater.eof
            self._input = self._inflater.unused_data or self._inflater.unconsumed_tail
            if piece:
                return piece
        return b""


def _is_framed(data: bytes) -> bool:
    """Return True if a body with these first bytes is in the format of gzip or zlib.

    The first byte of zlib's format contains the method 8 (RFC 1950 section 2.2). No raw stream
    begins with these bytes. They would be a block of a reserved type (RFC 1951 section 3.2.3), or
    an uncompressed block with nonzero padding.
    """
    return data[0] == 0x1F or data[0] & 0x0F == 8


def read_decoded(decoder: Decoder, read: Callable[[], bytes]) -> bytes:
    """Return the next decoded bytes of a body, 64 KiB at most; b"" at its end.

    Args:
        decoder: the decoder of the body.
        read: returns the next bytes of the body; b"" at its end.

    Raises:
        ConnectionError: the body is not in the announced format.
    """
    while not (piece := decoder.take()):
        data = read()
        if not data:
            return b""
        decoder.feed(data)
    return piece


def decoder_for(codings: Iterable[str]) -> Decoder | None:
    """Return a decoder for content codings; None for a body without a coding.

    Args:
        codings: the list in ``Content-Encoding``, in the order in which they were applied.

    Raises:
        HandshakeError: a coding is unknown, or there is more than one; status 502.
    """
    names = [name.lower() for name in codings if name.lower() != "identity"]
    if not names:
        return None
    if len(names) == 1 and names[0] in INFLATED:
        return Decoder(raw=names == ["deflate"])
    text = ", ".join(names)[:100]
    raise HandshakeError(502, f"unsupported Content-Encoding: {text!r}")

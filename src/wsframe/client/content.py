"""Content codings of a response's body (RFC 9110 section 8.4.1), undone as it arrives."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from ..errors import HandshakeError

INFLATED = frozenset(("gzip", "x-gzip", "deflate"))
GZIP_OR_ZLIB = zlib.MAX_WBITS + 32  # whichever of the two formats the body begins as
RAW = -zlib.MAX_WBITS
# How much is inflated at once, so that a small body cannot take much memory.
STEP = 1 << 16


class Decoder:
    """Inflates a body in the format of gzip or zlib.

    One owner at a time; call :meth:`take` until it returns nothing, then :meth:`feed` what arrives.

    Args:
        raw: the body may lack the frame of zlib. Some servers send "deflate" so (RFC 9110 section
            8.4.1.2).
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._may_be_raw = raw
        self._format = GZIP_OR_ZLIB
        self._inflater = zlib.decompressobj(self._format)
        self._input = b""
        self._pending = False  # there may be output though there is no input

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the body."""
        self._input = data
        if self._may_be_raw:
            self._may_be_raw = False
            if not _is_framed(data):
                self._format = RAW
                self._inflater = zlib.decompressobj(self._format)

    def take(self) -> bytes:
        """Return the next decoded bytes, 64 KiB at most; b"" if more of the body is needed.

        Raises:
            ConnectionError: the body is not in the format that was announced.
        """
        while self._input or self._pending:
            if self._inflater.eof:  # the next member (RFC 1952 section 2.2)
                self._inflater = zlib.decompressobj(self._format)
            try:
                piece = self._inflater.decompress(self._input, STEP)
            except zlib.error as error:
                raise ConnectionError(f"the body is not what its coding is: {error}") from error
            # A piece of full size may have filled up before everything was out.
            self._pending = len(piece) == STEP and not self._inflater.eof
            self._input = self._inflater.unused_data or self._inflater.unconsumed_tail
            if piece:
                return piece
        return b""


def _is_framed(data: bytes) -> bool:
    """Whether a body that begins so is in the format of gzip or zlib.

    The method "deflate" is 8 in the first byte of zlib's (RFC 1950 section 2.2). No raw stream
    begins with these bytes: they are a block of a reserved type (RFC 1951 section 3.2.3), or one
    without compression, whose padding would have to be other than zeros.
    """
    return data[0] == 0x1F or data[0] & 0x0F == 8


def decoder_for(codings: Iterable[str]) -> Decoder | None:
    """Return what undoes these codings; None if there is nothing to undo.

    Args:
        codings: the list in ``Content-Encoding``, in the order in which they were applied.

    Raises:
        HandshakeError: a coding is unknown, or there are several; status 502.
    """
    names = [name.lower() for name in codings if name.lower() != "identity"]
    if not names:
        return None
    if len(names) == 1 and names[0] in INFLATED:
        return Decoder(raw=names == ["deflate"])
    text = ", ".join(names)[:100]
    raise HandshakeError(502, f"the Content-Encoding {text!r} is not understood")

"""Content codings of a response's body (RFC 9110 section 8.4.1), undone as it arrives."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from ..errors import HandshakeError

INFLATED = frozenset(("gzip", "x-gzip", "deflate"))
GZIP_OR_ZLIB = zlib.MAX_WBITS + 32  # whichever of the two formats the body begins as
# How much is inflated at once, so that a small body cannot take much memory.
STEP = 1 << 16


class Decoder:
    """Inflates a body in the format of gzip or zlib.

    One owner at a time; call :meth:`take` until it returns nothing, then :meth:`feed` what arrives.
    """

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(GZIP_OR_ZLIB)
        self._input = b""
        self._pending = False  # there may be output though there is no input

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the body."""
        self._input = data

    def take(self) -> bytes:
        """Return the next decoded bytes, 64 KiB at most; b"" if more of the body is needed.

        Raises:
            ConnectionError: the body is not in the format that was announced.
        """
        while self._input or self._pending:
            if self._inflater.eof:  # the next member (RFC 1952 section 2.2)
                self._inflater = zlib.decompressobj(GZIP_OR_ZLIB)
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
        return Decoder()
    text = ", ".join(names)[:100]
    raise HandshakeError(502, f"the Content-Encoding {text!r} is not understood")

"""permessage-deflate (RFC 7692): the negotiation, and the stream of each direction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from zlib import Z_FULL_FLUSH as FULL_FLUSH
from zlib import Z_SYNC_FLUSH as SYNC_FLUSH

from . import backends
from .arguments import check_integer
from .backends import MAX_BITS, MAX_SPARE_COMPRESSORS
from .buffers import octets
from .errors import HandshakeError, ProtocolError
from .frames import BINARY, CONTINUATION, RSV1, TEXT, CloseCode, Role
from .kernels import encode_frame
from .parameters import (
    CLIENT_BITS,
    CLIENT_NO_TAKEOVER,
    EXTENSION,
    SERVER_BITS,
    SERVER_NO_TAKEOVER,
    WINDOW_BITS,
    Parameters,
    read_parameters,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Deflater", "Inflater", "PerMessageDeflate"]

# The end of a flushed stream, which is removed from each message (RFC 7692 section 7.2.1).
TAIL = b"\x00\x00\xff\xff"
EMPTY = b"\x00"  # a compressed empty message (RFC 7692 section 7.2.3.6)
# The maximum number of bytes to inflate at once. A decompression bomb takes at most this many bytes
# beyond the limit.
STEP = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PerMessageDeflate:
    """Compression settings, either supported by one end or negotiated by both.

    The first four attributes are the parameters of RFC 7692. An end with context takeover also
    agrees to no context takeover, and an end with a large window also agrees to a smaller one.

    >>> PerMessageDeflate(level=9, min_size=256).min_size
    256

    Attributes:
        server_no_context_takeover: True if the server starts each message with an empty window.
            It then keeps no memory between messages, and one compressed frame serves many clients.
        client_no_context_takeover: True if the client starts each message with an empty window.
        server_max_window_bits: the base-2 logarithm of the server's window in bytes; 8-15.
        client_max_window_bits: the base-2 logarithm of the client's window in bytes; 8-15.
        level: the compression level of the backend (zlib: 0-9); None for its default.
        memory_level: 1-9; a compressor takes some 2 ** (memory_level + 9) bytes plus four windows.
        min_size: shorter messages, in bytes, are not compressed by default.
        backend: "zlib"; or "zlib-ng" or "isal", which are faster and require an extra of that name.

    Raises:
        ValueError: a number is out of range, also for the backend: isal has no window of 8 bits.
        ImportError: the backend is not installed.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = MAX_BITS
    client_max_window_bits: int = MAX_BITS
    level: int | None = None
    memory_level: int = 8
    min_size: int = 64
    backend: Literal["zlib", "zlib-ng", "isal"] = "zlib"

    def __post_init__(self) -> None:
        if self.backend not in backends.MODULES:
            raise ValueError(
                f"backend must be one of {', '.join(backends.MODULES)}, not {self.backend!r}"
            )
        for name in (SERVER_BITS, CLIENT_BITS):
            bits = getattr(self, name)
            if bits not in WINDOW_BITS.values() or not backends.has_window(self.backend, bits):
                raise ValueError(f"{name} is out of range for {self.backend}: {bits}")
        if type(self.min_size) is not int or self.min_size < 0:
            check_integer("min_size", self.min_size, 0)
        backends.check_levels(self.backend, self.level, self.memory_level)

    # Negotiation (RFC 7692 section 7.1) --------------------------------------------------------

    def accept(self, parameters: Parameters) -> tuple[PerMessageDeflate, str] | None:
        """As a server, accept or decline one offer of a client.

        Args:
            parameters: the parameters of the offer, each with its value or None.

        Returns:
            The negotiated settings and the extension to respond with; None if the offer is
            malformed, has an unknown parameter, or is not supported.
        """
        try:
            offer = read_parameters(parameters, of_offer=True)
        except ValueError:
            return None
        server_bits = min(self.server_max_window_bits, offer.get(SERVER_BITS, MAX_BITS))
        # A server may send this parameter only if the client has sent it (RFC 7692 section
        # 7.1.2.2).
        client_bits = MAX_BITS
        if CLIENT_BITS in offer:
            client_bits = min(self.client_max_window_bits, offer[CLIENT_BITS])
        if not backends.has_window(self.backend, min(server_bits, client_bits)):
            return None
        agreed = replace(
            self,
            server_no_context_takeover=self.server_no_context_takeover
            or SERVER_NO_TAKEOVER in offer,
            client_no_context_takeover=self.client_no_context_takeover
            or CLIENT_NO_TAKEOVER in offer,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        )
        return agreed, agreed._write(server_bits_too=SERVER_BITS in offer)

    def offer(self) -> str:
        """As a client, return the extension to offer."""
        offer = self._write()
        # Without a value, the server may choose the client's window (RFC 7692 section 7.1.2.2).
        return offer if CLIENT_BITS in offer else f"{offer}; {CLIENT_BITS}"

    def confirm(self, parameters: Parameters) -> PerMessageDeflate:
        """As a client, check the response to :meth:`offer`; return the negotiated settings.

        Raises:
            HandshakeError: the response is malformed, or does not match the offer; status 502.
        """
        try:
            answer = read_parameters(parameters, of_offer=False)
        except ValueError as error:
            raise HandshakeError(
                502, f"the server's response to permessage-deflate is invalid: {error}"
            ) from None
        client_bits = answer.get(CLIENT_BITS, self.client_max_window_bits)
        server_bits = answer.get(SERVER_BITS, MAX_BITS)
        if (
            (self.server_no_context_takeover and SERVER_NO_TAKEOVER not in answer)
            or server_bits > self.server_max_window_bits
            or client_bits > self.client_max_window_bits
            or not backends.has_window(self.backend, min(server_bits, client_bits))
        ):
            raise HandshakeError(
                502, "the server's permessage-deflate parameters do not match the client's offer"
            )
        return replace(
            self,
            server_no_context_takeover=SERVER_NO_TAKEOVER in answer,
            client_no_context_takeover=self.client_no_context_takeover
            or CLIENT_NO_TAKEOVER in answer,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        )

    def _write(self, *, server_bits_too: bool = False) -> str:
        parts = [EXTENSION]
        parts += [name for name in (SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER) if getattr(self, name)]
        if server_bits_too or self.server_max_window_bits < MAX_BITS:
            parts.append(f"{SERVER_BITS}={self.server_max_window_bits}")
        if self.client_max_window_bits < MAX_BITS:
            parts.append(f"{CLIENT_BITS}={self.client_max_window_bits}")
        return "; ".join(parts)

    # Compressing -------------------------------------------------------------------------------

    def encode(self, message: str | Buffer) -> bytes:
        """As a server, return one frame for all clients that have negotiated the same settings.

        So a message to many clients is compressed once. Any thread may call this method.

        Raises:
            ValueError: the settings include context takeover, so each client needs another frame;
                or the text contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        if not self.server_no_context_takeover:
            raise ValueError("a frame for several clients requires server_no_context_takeover")
        return Deflater(self, Role.SERVER).encode(message)

    def window_of(self, sender: Role) -> tuple[int, bool]:
        """Return a sender's window bits, and True if it keeps the window between messages."""
        if sender is Role.SERVER:
            return self.server_max_window_bits, not self.server_no_context_takeover
        return self.client_max_window_bits, not self.client_no_context_takeover

    def new_compressor(self, bits: int) -> Any:
        """Return a compressor with an empty window of 2 ** bits bytes."""
        return backends.new_compressor(self.backend, self.level, self.memory_level, bits)

    def new_decompressor(self, bits: int) -> Any:
        """Return a decompressor with an empty window of 2 ** bits bytes."""
        return backends.new_decompressor(self.backend, bits)


class Deflater:
    """Compressor of the messages that one end sends (RFC 7692 section 7.2.1).

    Args:
        settings: the negotiated settings.
        role: the end that sends.
    """

    __slots__ = ("_bits", "_idle", "_masking_key", "_settings", "_takeover")

    def __init__(self, settings: PerMessageDeflate, role: Role) -> None:
        self._settings = settings
        self._bits, self._takeover = settings.window_of(role)
        self._masking_key = None if role is Role.SERVER else True
        # With context takeover, the list holds one compressor. Only the thread that popped it may
        # use its window. The pop is atomic. Without context takeover, the list holds spare
        # compressors, which all connections share.
        self._idle: list[Any] = [None]
        if not self._takeover:
            self._idle = backends.spare_compressors(
                settings.backend, settings.level, settings.memory_level, self._bits
            )

    def encode(self, message: str | Buffer) -> bytes:
        """Return the frame of a message.

        Without context takeover any thread may call this method at any time, and a message that
        would not shrink is sent uncompressed.

        Raises:
            RuntimeError: with context takeover, another thread is in this method.
            ValueError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        if isinstance(message, str):
            opcode, payload = TEXT, memoryview(message.encode())
        else:
            opcode, payload = BINARY, octets(message, "message")
        if not self._takeover:
            compressed = self._compress_alone(payload)
            if len(compressed) >= len(payload):
                return encode_frame(opcode, payload, masking_key=self._masking_key)
            return self._frame(opcode, compressed)
        return self.encode_part(self._idle, opcode, payload)

    def window(self) -> list[Any]:
        """Return the list with the compressor of one message that is sent in parts."""
        return self._idle if self._takeover else [None]

    def encode_part(
        self, window: list[Any], opcode: int, payload: memoryview, final: bool = True
    ) -> bytes:
        """Return the frame of a part of a message, which the other end can inflate at once.

        Args:
            window: the place of the compressor, the same for all parts.
            opcode: CONTINUATION, except for the first part.
            payload: the uncompressed part.
            final: True for the last part.

        Raises:
            RuntimeError: another thread is in this method.
        """
        try:
            compressor = window.pop()
        except IndexError:
            raise RuntimeError("another thread is in encode() of this Connection") from None
        try:
            if compressor is None:
                compressor = self._settings.new_compressor(self._bits)
            compressed = _compress(compressor, payload, SYNC_FLUSH)
            if final and opcode != CONTINUATION:
                return self._frame(opcode, compressed)
            data = compressed if final else compressed + TAIL
            rsv = 0 if opcode == CONTINUATION else RSV1
            return encode_frame(opcode, data, fin=final, rsv=rsv, masking_key=self._masking_key)
        except BaseException:
            # The compressor's window now differs from the peer's. A new compressor is always valid.
            compressor = None
            raise
        finally:
            window.append(compressor)

    def _compress_alone(self, payload: memoryview) -> bytes:
        """Compress with any spare compressor; a full flush clears its window."""
        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = self._settings.new_compressor(self._bits)
        compressed = _compress(compressor, payload, FULL_FLUSH)
        if len(self._idle) < MAX_SPARE_COMPRESSORS:
            self._idle.append(compressor)
        return compressed

    def _frame(self, opcode: int, compressed: bytes) -> bytes:
        return encode_frame(opcode, compressed, rsv=RSV1, masking_key=self._masking_key)


class Inflater:
    """Decompressor of the messages that one end receives (RFC 7692 section 7.2.2).

    Only one thread at a time may use it.

    Args:
        settings: the negotiated settings.
        role: the end that receives.

    Attributes:
        pending: True if :meth:`inflate_more` must be called next.
        ends: the number of DEFLATE streams that have ended within the message.
    """

    __slots__ = (
        "_bits",
        "_decompressor",
        "_last",
        "_rest",
        "_role",
        "_settings",
        "_takeover",
        "ends",
        "pending",
    )

    def __init__(self, settings: PerMessageDeflate, role: Role) -> None:
        self._role = role
        self._settings = settings
        self._bits, self._takeover = settings.window_of(
            Role.CLIENT if role is Role.SERVER else Role.SERVER
        )
        self._decompressor: Any = None
        self._rest = b""
        self._last = False
        self.pending: bool = False
        self.ends: int = 0

    def inflate(self, data: bytes, last: bool) -> bytes:
        """Inflate the next bytes of a message; return 64 KiB at most.

        Args:
            data: the payload of a frame, or a part of it.
            last: True if the message ends with these bytes.

        Raises:
            ProtocolError: the data is not a valid DEFLATE stream; code 1007.
        """
        if last and not self.pending:
            data += TAIL
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = self._settings.new_decompressor(self._bits)
        try:
            piece: bytes = decompressor.decompress(data, STEP)
        except backends.module(self._settings.backend).error as error:
            raise ProtocolError(
                CloseCode.INVALID_FRAME_PAYLOAD_DATA, self._reason(str(error))
            ) from None
        # A full piece means that more output may be pending.
        self.pending = len(piece) == STEP
        if decompressor.eof:
            # A sender may end its stream (RFC 7692 section 7.2.3.4). The next stream has an empty
            # window.
            self._decompressor = None
            self.ends += 1
            self._leave(decompressor.unused_data, last)
        elif self.pending:
            self._leave(decompressor.unconsumed_tail, last)
        elif last:
            self.ends = 0
            if not self._takeover:
                self._decompressor = None
        return piece

    def inflate_more(self) -> bytes:
        """Inflate the rest of the input of :meth:`inflate`; return 64 KiB at most."""
        return self.inflate(self._rest, self._last)

    def _reason(self, error: str) -> str:
        """Return the close reason for an error that the backend has raised."""
        reason = "a compressed message is not valid DEFLATE"
        if not any(words in error for words in backends.TOO_FAR_BACK):
            return reason
        server = self._role is Role.SERVER
        if not self._takeover:
            # Some peers keep their window although they negotiated no context takeover.
            parameter = CLIENT_NO_TAKEOVER if server else SERVER_NO_TAKEOVER
            return f"{reason}: it refers to bytes before its start, against {parameter}"
        if self._bits < MAX_BITS:
            parameter = CLIENT_BITS if server else SERVER_BITS
            return f"{reason}: it refers further back than {parameter}={self._bits}"
        return reason

    def _leave(self, rest: bytes, last: bool) -> None:
        self._rest, self._last, self.pending = rest, last, True


def _compress(compressor: Any, payload: memoryview, flush: int) -> bytes:
    if not payload:  # isal would return more bytes
        return EMPTY
    data: bytes = compressor.compress(payload) + compressor.flush(flush)
    return data[: -len(TAIL)]

"""permessage-deflate (RFC 7692): what two ends agree on, and each direction's stream."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from zlib import Z_FULL_FLUSH as FULL_FLUSH
from zlib import Z_SYNC_FLUSH as SYNC_FLUSH

from .buffers import octets
from .errors import HandshakeError, ProtocolError
from .frames import BINARY, RSV1, TEXT, CloseCode, Role
from .kernels import encode_frame

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EXTENSION", "Deflater", "Inflater", "PerMessageDeflate"]

#: Of an extension, each with its value or None.
Parameters: TypeAlias = "Iterable[tuple[str, str | None]]"

EXTENSION: Final = "permessage-deflate"

#: The modules that speak zlib's interface, by the name that the user asks for them by.
BACKENDS = {"zlib": "zlib", "zlib-ng": "zlib_ng.zlib_ng", "isal": "isal.isal_zlib"}
# How a compressed message ends, before section 7.2.1 takes it away.
TAIL = b"\x00\x00\xff\xff"
EMPTY = b"\x00"  # section 7.2.3.6
# What zlib and zlib-ng, and isal, call a reference to bytes that the window does not have.
TOO_FAR_BACK = ("distance too far back", "lookback distance")
# How much is inflated at once: all that a bomb can take beyond the limit.
STEP = 1 << 16
# How many compressors of one kind are kept for the next message; each may be some 300 KiB.
SPARE_COMPRESSORS = 4

SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER, SERVER_BITS, CLIENT_BITS = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)
MIN_BACKEND_BITS, MAX_BITS = 9, 15
WINDOW_BITS = {str(bits): bits for bits in range(8, MAX_BITS + 1)}  # no leading zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class PerMessageDeflate:
    """How messages are compressed: what one end is ready for, or what two have agreed on.

    The first four are RFC 7692's. An end that is ready for context takeover also agrees to go
    without it, and one that is ready for a window, to a smaller one.

    Attributes:
        server_no_context_takeover: whether the server begins each message with an empty window. It
            then keeps nothing between two messages, and one compressed message serves many clients.
        client_no_context_takeover: whether the client does so.
        server_max_window_bits: the server looks back at most 2 ** so many bytes; 8-15.
        client_max_window_bits: how far the client looks back; 8-15.
        level: of compression, as the backend counts (zlib: 0-9); None for its own default.
        memory_level: 1-9; a compressor takes about 2 ** (memory_level + 9) bytes, and four times
            its window.
        min_size: shorter messages, in bytes, are not compressed unless it is asked for.
        backend: "zlib"; or "zlib-ng" or "isal", which are faster and are installed as extras of
            these names.

    Raises:
        ValueError: a number out of range, for the backend too: isal has no window of 8 bits.
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
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        for name in (SERVER_BITS, CLIENT_BITS):
            bits = getattr(self, name)
            if bits not in WINDOW_BITS.values() or not self._has_window(bits):
                raise ValueError(f"{name} is out of range for {self.backend}: {bits}")
        if self.min_size < 0:
            raise ValueError(f"min_size must not be negative: {self.min_size}")
        _check_levels(self.backend, self.level, self.memory_level)

    # Agreeing (RFC 7692 section 7.1) -----------------------------------------------------------

    def accept(self, parameters: Parameters) -> tuple[PerMessageDeflate, str] | None:
        """As a server, judge one offer of a client's.

        Args:
            parameters: of the offer, each with its value or None.

        Returns:
            What is agreed on, and the extension to answer with; None if the offer is declined,
            because it is malformed, unknown in part, or more than this end can keep.
        """
        try:
            offer = _read(parameters, of_offer=True)
        except ValueError:
            return None
        server_bits = min(self.server_max_window_bits, offer.get(SERVER_BITS, MAX_BITS))
        # Section 7.1.2.2: a client that does not name this one cannot be asked to keep it.
        client_bits = MAX_BITS
        if CLIENT_BITS in offer:
            client_bits = min(self.client_max_window_bits, offer[CLIENT_BITS])
        if not self._has_window(min(server_bits, client_bits)):
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
        # Without a value it says: name one, if you want to, and I shall keep it (section 7.1.2.2).
        return offer if CLIENT_BITS in offer else f"{offer}; {CLIENT_BITS}"

    def confirm(self, parameters: Parameters) -> PerMessageDeflate:
        """As a client, judge the server's answer to :meth:`offer`; return what is agreed on.

        Raises:
            HandshakeError: it is malformed, or does not keep to what was offered; status 502.
        """
        try:
            answer = _read(parameters, of_offer=False)
        except ValueError as error:
            raise HandshakeError(
                502, f"the server answers permessage-deflate with {error}"
            ) from None
        client_bits = answer.get(CLIENT_BITS, self.client_max_window_bits)
        server_bits = answer.get(SERVER_BITS, MAX_BITS)
        if (
            (self.server_no_context_takeover and SERVER_NO_TAKEOVER not in answer)
            or server_bits > self.server_max_window_bits
            or client_bits > self.client_max_window_bits
            or not self._has_window(min(server_bits, client_bits))
        ):
            raise HandshakeError(502, "the server chose a compression that was not offered")
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
        """As a server, return a frame that serves every client that agreed on just this.

        So a message to many is compressed once. Any thread may call it.

        Raises:
            ValueError: context takeover was agreed on, so each client needs a frame of its own; or
                text that UTF-8 has no form for.
        """
        if not self.server_no_context_takeover:
            raise ValueError("with context takeover no two clients can be sent the same frame")
        return Deflater(self, Role.SERVER).encode(message)

    def new_compressor(self, bits: int) -> Any:
        """Return a compressor with an empty window of 2 ** bits bytes."""
        return _new_compressor(self.backend, self.level, self.memory_level, bits)

    def new_decompressor(self, bits: int) -> Any:
        """Return a decompressor with an empty window of 2 ** bits bytes."""
        return _module(self.backend).decompressobj(-max(bits, MIN_BACKEND_BITS))

    def _has_window(self, bits: int) -> bool:
        """Whether the backend can be kept from looking back further than 2 ** bits bytes.

        No backend has a window of 8 bits for raw streams. With one of 9, zlib and zlib-ng look back
        262 bytes less than it has (MAX_DIST in their deflate.h), which is 250, and a window of 256
        bytes reads that; isal uses all of it.
        """
        return bits >= MIN_BACKEND_BITS or self.backend != "isal"


class Deflater:
    """The compressed messages that one end sends (RFC 7692 section 7.2.1).

    Args:
        settings: as agreed on.
        role: which end this is.
    """

    __slots__ = ("_bits", "_idle", "_masking_key", "_settings", "_takeover")

    def __init__(self, settings: PerMessageDeflate, role: Role) -> None:
        server = role is Role.SERVER
        self._settings = settings
        self._bits = settings.server_max_window_bits if server else settings.client_max_window_bits
        self._takeover = not (
            settings.server_no_context_takeover if server else settings.client_no_context_takeover
        )
        self._masking_key = None if server else True
        # With takeover: whoever holds the one item owns the window; popping it is atomic. Without:
        # compressors that have forgotten all they saw, for everybody.
        self._idle: list[Any] = [None]
        if not self._takeover:
            self._idle = _spare_compressors(
                settings.backend, settings.level, settings.memory_level, self._bits
            )

    def encode(self, message: str | Buffer) -> bytes:
        """Return the frame of a message.

        Without context takeover any thread may call it at any time, and a message that does not
        shrink goes as it is.

        Raises:
            RuntimeError: with context takeover, another thread is in this method.
            ValueError: text that UTF-8 has no form for.
        """
        if isinstance(message, str):
            opcode, payload = TEXT, memoryview(message.encode())
        else:
            opcode, payload = BINARY, octets(message)
        if not self._takeover:
            compressed = self._compress_alone(payload)
            if len(compressed) >= len(payload):
                return encode_frame(opcode, payload, masking_key=self._masking_key)
            return self._frame(opcode, compressed)
        try:
            compressor = self._idle.pop()
        except IndexError:
            raise RuntimeError("another thread is in encode() of this Connection") from None
        try:
            if compressor is None:
                compressor = self._settings.new_compressor(self._bits)
            return self._frame(opcode, _compress(compressor, payload, SYNC_FLUSH))
        except BaseException:
            # What is in its window will not be in the other end's. A new one is always in order.
            compressor = None
            raise
        finally:
            self._idle.append(compressor)

    def _compress_alone(self, payload: memoryview) -> bytes:
        """Compress with any compressor of the kind: a full flush makes it forget the message."""
        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = self._settings.new_compressor(self._bits)
        compressed = _compress(compressor, payload, FULL_FLUSH)
        if len(self._idle) < SPARE_COMPRESSORS:
            self._idle.append(compressor)
        return compressed

    def _frame(self, opcode: int, compressed: bytes) -> bytes:
        return encode_frame(opcode, compressed, rsv=RSV1, masking_key=self._masking_key)


class Inflater:
    """The compressed messages that one end receives (RFC 7692 section 7.2.2).

    It has one owner at a time.

    Args:
        settings: as agreed on.
        role: which end this is.

    Attributes:
        pending: whether :meth:`inflate_more` is to be called before anything else.
        ends: how many DEFLATE streams have ended within the message.
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
        client = role is Role.CLIENT
        self._role = role
        self._settings = settings
        self._bits = settings.server_max_window_bits if client else settings.client_max_window_bits
        self._takeover = not (
            settings.server_no_context_takeover if client else settings.client_no_context_takeover
        )
        self._decompressor: Any = None
        self._rest = b""
        self._last = False
        self.pending = False
        self.ends = 0

    def inflate(self, data: bytes, last: bool) -> bytes:
        """Inflate the next bytes of a message; return 64 KiB at most.

        Args:
            data: the payload of a frame, or a part of it.
            last: whether the message ends with them.

        Raises:
            ProtocolError: they are no DEFLATE stream; code 1007.
        """
        if last and not self.pending:
            data += TAIL
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = self._settings.new_decompressor(self._bits)
        try:
            piece: bytes = decompressor.decompress(data, STEP)
        except _module(self._settings.backend).error as error:
            raise ProtocolError(
                CloseCode.INVALID_FRAME_PAYLOAD_DATA, self._reason(str(error))
            ) from None
        # A piece of full size may have filled up before everything was out.
        self.pending = len(piece) == STEP
        if decompressor.eof:
            # A sender may end its stream (section 7.2.3.4). It begins anew, with an empty window.
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
        """Return the next 64 KiB at most of what :meth:`inflate` was given."""
        return self.inflate(self._rest, self._last)

    def _reason(self, error: str) -> str:
        """What is wrong with a message, given the backend's words."""
        reason = "a compressed message is not valid DEFLATE"
        if not any(words in error for words in TOO_FAR_BACK):
            return reason
        server = self._role is Role.SERVER
        if not self._takeover:
            # Some clients keep their window though they agreed not to.
            parameter = CLIENT_NO_TAKEOVER if server else SERVER_NO_TAKEOVER
            return f"{reason}: it refers to bytes before it, against {parameter}"
        if self._bits < MAX_BITS:
            parameter = CLIENT_BITS if server else SERVER_BITS
            return f"{reason}: it refers further back than {parameter}={self._bits}"
        return reason

    def _leave(self, rest: bytes, last: bool) -> None:
        self._rest, self._last, self.pending = rest, last, True


def _compress(compressor: Any, payload: memoryview, flush: int) -> bytes:
    if not payload:  # isal makes more of it
        return EMPTY
    data: bytes = compressor.compress(payload) + compressor.flush(flush)
    return data[: -len(TAIL)]


@cache
def _module(backend: str) -> Any:
    try:
        return importlib.import_module(BACKENDS[backend])
    except ImportError as error:
        raise ImportError(
            f"{backend} is not installed: pip install 'wsframe[{backend}]'"
        ) from error


def _new_compressor(backend: str, level: int | None, memory_level: int, bits: int) -> Any:
    module = _module(backend)
    if level is None:
        level = module.Z_DEFAULT_COMPRESSION
    return module.compressobj(level, module.DEFLATED, -max(bits, MIN_BACKEND_BITS), memory_level)


@cache
def _spare_compressors(backend: str, level: int | None, memory_level: int, bits: int) -> list[Any]:
    return []


@cache
def _check_levels(backend: str, level: int | None, memory_level: int) -> None:
    try:
        _new_compressor(backend, level, memory_level, MAX_BITS)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"level {level} or memory_level {memory_level} is out of range for {backend}: {error}"
        ) from None


def _read(parameters: Parameters, *, of_offer: bool) -> dict[str, int]:
    """Read the parameters of an offer or an answer (RFC 7692 section 7.1).

    Raises:
        ValueError: one is unknown, there twice, or has a value that it must not have.
    """
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            raise ValueError(f"{name} twice")
        if name in (SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER) and value is None:
            found[name] = True
        elif name == CLIENT_BITS and value is None and of_offer:
            found[name] = MAX_BITS
        elif name in (SERVER_BITS, CLIENT_BITS) and value in WINDOW_BITS:
            found[name] = WINDOW_BITS[value]
        else:
            raise ValueError(name if value is None else f"{name}={value}")
    return found

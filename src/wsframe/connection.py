"""Connection: all rules of RFC 6455 after the opening handshake, for both ends, without I/O."""

from __future__ import annotations

import codecs
import sys
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from .buffers import octets
from .deflate import Deflater, Inflater, PerMessageDeflate
from .errors import ProtocolError, StateError
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIRST_CONTROL_OPCODE,
    MAX_CONTROL_PAYLOAD,
    PING,
    PONG,
    RSV1,
    TEXT,
    Close,
    CloseCode,
    Failure,
    Ping,
    Pong,
    Role,
    encode_close,
    is_sendable,
)
from .kernels import encode_frame, mask, parse_frame, take_frame, take_messages

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Connection", "Event", "check_max_message_size"]

Event: TypeAlias = "str | bytes | Ping | Pong | Close | Failure"

Utf8Decoder = codecs.getincrementaldecoder("utf-8")

# Bits of the first byte of a frame.
FIN_BIT, RSV1_BIT, RSV_BITS, OPCODE_BITS = 0x80, RSV1 << 4, 0x70, 0x0F
WHOLE = FIN_BIT | RSV1_BIT  # an unfragmented compressed message
# Up to this size a frame is decoded when it is complete. A longer one is decoded in chunks as it
# arrives. A chunk of a compressed frame is at most this long, because zlib copies unconsumed input.
SHORT_FRAME = 1 << 14


def _fault(first: int, in_message: bool, compression: bool) -> str | None:
    """Return the rule of RFC 6455 section 5 or RFC 7692 section 6 that this first byte violates."""
    opcode = first & OPCODE_BITS
    if first & RSV_BITS & ~RSV1_BIT or (first & RSV1_BIT and not compression):
        return "a reserved bit is set and no extension was negotiated"
    if first & RSV1_BIT and (opcode == CONTINUATION or opcode >= FIRST_CONTROL_OPCODE):
        return "RSV1 may be set only on the first frame of a message"
    if opcode == CONTINUATION and not in_message:
        return "a continuation frame with no message to continue"
    if opcode in (TEXT, BINARY) and in_message:
        return "a new message inside a fragmented one"
    if opcode in (CLOSE, PING, PONG) and not first & FIN_BIT:
        return "a control frame must not be fragmented"
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return f"opcode {opcode} is reserved"
    return None


@cache
def _allowed(in_message: bool, compression: bool) -> frozenset[int]:
    """Return the valid first bytes."""
    return frozenset(byte for byte in range(256) if _fault(byte, in_message, compression) is None)


class Connection:
    """One end of one WebSocket connection, after the opening handshake.

    Pass received bytes to :meth:`receive`, which returns events. Send the bytes that the other
    methods return to the peer, in the order of the calls. There are no sockets, threads or clocks.

    Only one thread at a time may use a connection, with these exceptions: any thread may call
    :meth:`ping` and :meth:`pong`, and also :meth:`encode` unless compression keeps a context.
    Concurrent calls of :meth:`receive`, or of :meth:`encode` with such a context, raise
    ``RuntimeError``. Discard the connection if a signal handler raised an exception in one of its
    methods, as Ctrl-C does.

    Args:
        role: the end of the connection that this is.
        max_message_size: the maximum size of one message in bytes, for text in UTF-8. A
            longer message is rejected when its frame header arrives, before memory is allocated. A
            compressed one is rejected once it has inflated to more, or once its frames exceed
            2 * max_message_size + 1024 bytes.
        max_fragments: the maximum number of frames of one message; by default
            max_message_size / 16, and at least 1024.
        deflate: the negotiated compression, as :func:`wsframe.accept` and
            :meth:`wsframe.UpgradeRequest.confirm` return it; or None.
        subprotocol: the negotiated subprotocol; stored for the application.
    """

    __slots__ = (
        "_allowed_first",
        "_allowed_next",
        "_compressed",
        "_decoder",
        "_deflater",
        "_encode",
        "_ended",
        "_fin",
        "_fragments",
        "_inflater",
        "_kept",
        "_masked",
        "_masking_key",
        "_max_fragments",
        "_max_message_size",
        "_max_wire_size",
        "_may_close",
        "_message",
        "_min_deflate_size",
        "_short",
        "_text",
        "_unread",
        "_wire_size",
        "close_received",
        "close_sent",
        "deflate",
        "only_messages",
        "role",
        "subprotocol",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int = 1 << 20,
        max_fragments: int | None = None,
        deflate: PerMessageDeflate | None = None,
        subprotocol: str | None = None,
    ) -> None:
        check_max_message_size(max_message_size)
        if max_fragments is None:
            max_fragments = max(1024, max_message_size // 16)
        elif max_fragments < 1:
            raise ValueError(f"max_fragments must be at least 1, not {max_fragments}")
        self.role = Role(role)
        self.deflate = deflate
        self.subprotocol = subprotocol
        #: True once :meth:`close` was called.
        self.close_sent = False
        #: True once the peer's close frame was received.
        self.close_received = False
        #: True if the last call of :meth:`receive` returned only messages. It may also be False
        #: after such a call.
        self.only_messages = True
        self._may_close: list[None] = [None]  # the thread that pops the item closes
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments
        # RFC 6455 section 5.1: clients mask their frames, servers do not.
        self._masked = self.role is Role.SERVER
        self._encode = encode_frame if self._masked else _encode_masked
        self._deflater: Deflater | None = None
        self._inflater: Inflater | None = None
        self._max_wire_size = max_message_size
        self._min_deflate_size = 0
        if deflate is not None:
            self._deflater = Deflater(deflate, self.role)
            self._inflater = Inflater(deflate, self.role)
            self._min_deflate_size = deflate.min_size
            # Incompressible data grows a little, and so does data that is flushed often.
            self._max_wire_size = min(2 * max_message_size + 1024, sys.maxsize)
        # The longest frame that is decoded when it is complete.
        self._short = max(MAX_CONTROL_PAYLOAD, min(SHORT_FRAME, self._max_wire_size))
        self._allowed_first = _allowed(False, deflate is not None)
        self._allowed_next = _allowed(True, deflate is not None)

        # The thread that holds the one item of this list owns the receiving side; popping it is
        # atomic. The item is the beginning of an incomplete frame. It is None between two messages
        # if no bytes are kept; then the kernel can decode the next input directly.
        self._kept: list[bytes | None] = [None]
        self._ended = False  # by a failure or the peer's close frame
        # The incomplete message.
        self._message: bytearray | None = None
        self._text = False
        self._decoder: codecs.IncrementalDecoder | None = None  # of an incomplete text message
        self._compressed = 0
        self._wire_size = 0  # of all its frames so far
        self._fragments = 0
        # The data frame whose payload is incomplete.
        self._unread = 0
        self._fin = FIN_BIT
        self._masking_key = b""

    @property
    def incomplete(self) -> bool:
        """True if a frame or a message has been received in part.

        Read it between two calls of :meth:`receive`, in the same thread.
        """
        return self._kept != [None]

    @property
    def between_messages(self) -> bool:
        """True if the next byte begins a frame, and neither end has closed the receiving side.

        Then complete, uncompressed messages may be decoded without this object. Read it between two
        calls of :meth:`receive`, in the same thread.
        """
        return self._kept == [None]

    @property
    def max_message_size(self) -> int:
        """The maximum size of a received message, in bytes."""
        return self._max_message_size

    def receive(self, data: Buffer) -> list[Event]:
        """Decode bytes from the peer, and return the events that they complete, in order.

        Args:
            data: any C-contiguous bytes-like object; it may be reused after the call. With
                compression, one byte may inflate to a thousand bytes of messages within the limit,
                so read untrusted input in chunks of a few KiB.

        Returns:
            Messages (``str`` for text, ``bytes`` for binary), :class:`Ping`, :class:`Pong`, and
            finally :class:`Close` or :class:`Failure`. All bytes after these are ignored.

        Raises:
            RuntimeError: another thread is in this method.
        """
        try:
            kept = self._kept.pop()
        except IndexError:
            raise RuntimeError("another thread is in receive() of this Connection") from None
        events: list[Event] = []
        self.only_messages = True
        try:
            if kept:
                data = kept + octets(data)
                if self._message is None:
                    kept = None
            left = None
            if kept is None:
                left = take_messages(data, 0, events, self._max_message_size, self._masked)
            if left != 0:
                self.only_messages = False
                if type(data) is not bytes:
                    data = octets(data)
                begin = 0 if left is None else len(data) - left
                kept = self._receive_rest(data, begin, events)
        except (BufferError, TypeError, ValueError):
            raise  # not a bytes-like object, or a released view: nothing was decoded
        except BaseException:
            # Out of memory: the beginning of the next frame is no longer known.
            kept, self._ended = b"", True
            raise
        finally:
            self._kept.append(kept)
        return events

    def encode(self, message: str | Buffer, *, compress: bool | None = None) -> bytes:
        """Return the frame of a message: text for ``str``, binary for bytes-like objects.

        Args:
            message: the complete message.
            compress: True to compress the message if compression was negotiated, False to send it
                uncompressed, None to compress it if it has at least ``deflate.min_size`` bytes.
                Without context takeover, a message that would not shrink is sent uncompressed.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
            RuntimeError: compression keeps a context, and another thread is in this method.
        """
        if self.close_sent:
            raise StateError("the close frame has been sent; no message may follow it")
        if (
            self._deflater is not None
            and compress is not False
            and (compress or _size(message) >= self._min_deflate_size)
        ):
            return self._deflater.encode(message)
        return self._encode(TEXT if isinstance(message, str) else BINARY, message)

    def ping(self, payload: Buffer = b"") -> bytes:
        """Return a ping frame; the peer answers it with a pong of the same payload.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: the payload has more than 125 bytes.
        """
        return self._encode_control(PING, payload)

    def pong(self, payload: Buffer = b"") -> bytes:
        """Return a pong frame: the answer to a :class:`Ping`, or an unsolicited one.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: the payload has more than 125 bytes.
        """
        return self._encode_control(PONG, payload)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """Return the close frame; nothing may be sent after it (RFC 6455 section 5.5.1).

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; or 1005 for a frame without a code, so that
                the code of a received :class:`Close` is always valid here.
            reason: at most 123 bytes of UTF-8.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: the code must not be sent, or the reason is too long.
        """
        frame = self._encode(CLOSE, encode_close(code, reason))
        try:
            self._may_close.pop()
        except IndexError:
            raise StateError("the close frame has been sent; nothing may follow it") from None
        self.close_sent = True
        return frame

    def _encode_control(self, opcode: int, payload: Buffer) -> bytes:
        if self.close_sent:
            raise StateError("the close frame has been sent; nothing may follow it")
        return self._encode(opcode, payload)

    # Frames that the kernel did not decode, one at a time ------------------------------------

    def _receive_rest(
        self, data: bytes | memoryview, position: int, events: list[Event]
    ) -> bytes | None:
        """Decode the remaining data; return the bytes to keep until the next call."""
        if self._ended:
            return b""
        size = len(data)
        try:
            while position < size:
                if self._unread:
                    position = self._read_payload(data, position, events)
                elif (frame := take_frame(data, position, self._short, self._masked)) is not None:
                    first, payload, position = frame
                    self._receive_frame(first, payload, events)
                    if self._ended:
                        return b""
                else:
                    begin, position = position, self._begin_frame(data, position)
                    if position == begin:
                        break
                if self._message is None and position < size:
                    position = size - take_messages(
                        data, position, events, self._max_message_size, self._masked
                    )
        except ProtocolError as error:
            self._ended = True
            self._message = None
            events.append(Failure(error.code, error.reason))
            return b""
        if position < size:
            return bytes(data[position:])
        return None if self._message is None else b""

    def _receive_frame(self, first: int, payload: bytes, events: list[Event]) -> None:
        """Process a complete frame."""
        if first not in (self._allowed_first if self._message is None else self._allowed_next):
            raise self._refused(first)
        if first & OPCODE_BITS >= FIRST_CONTROL_OPCODE:
            self._receive_control(first & OPCODE_BITS, payload, events)
        elif first & WHOLE == WHOLE:
            # An unfragmented compressed message, the most common case.
            assert self._inflater is not None
            piece = self._inflater.inflate(payload, True)
            self._text = first & OPCODE_BITS == TEXT
            if self._inflater.pending or len(piece) > self._max_message_size:
                self._begin_payload(first, len(payload))
                piece = self._inflate_rest(piece)
            self._deliver(piece, events)
        else:
            self._begin_payload(first, len(payload))
            self._receive_payload(payload, self._fin != 0, events)

    def _begin_frame(self, data: bytes | memoryview, begin: int) -> int:
        """Check the header of a frame that is long, incomplete or invalid.

        Returns:
            The beginning of the payload if it can be read in chunks, as that of a data frame; else
            ``begin``, to wait for more bytes.
        """
        head = parse_frame(data, begin)
        if head is None:
            return begin
        first, second, length, position = head
        if first not in (self._allowed_first if self._message is None else self._allowed_next):
            raise self._refused(first)
        if second >> 7 != self._masked:
            raise _protocol_error(
                "a client's frame must be masked"
                if self._masked
                else "a server's frame must not be masked"
            )
        control = first & OPCODE_BITS >= FIRST_CONTROL_OPCODE
        if control and second & 0x7F > MAX_CONTROL_PAYLOAD:
            raise _control_too_long()
        if length < 0:
            return begin
        self._check_length(second & 0x7F, length)
        if control:
            return begin
        self._check_limits(first, length)
        payload_at = position + 4 * self._masked
        if payload_at > len(data):
            return begin
        self._begin_payload(first, length)
        self._unread = length
        self._masking_key = bytes(data[position:payload_at])
        return payload_at

    def _refused(self, first: int) -> ProtocolError:
        fault = _fault(first, self._message is not None, self.deflate is not None)
        assert fault is not None
        return _protocol_error(fault)

    def _check_length(self, field: int, length: int) -> None:
        """Check the form of a payload length (RFC 6455 section 5.2)."""
        if length >> 63:
            raise _protocol_error("the highest bit of a payload length must be 0")
        if (field == 126 and length < 126) or (field == 127 and length < 65536):
            raise _protocol_error("a payload length must use its shortest form")

    def _check_limits(self, first: int, length: int) -> None:
        """Check the limits of the message before a data frame is added to it."""
        compressed, size, fragments = first & RSV1_BIT, length, 1
        if self._message is not None:
            compressed = self._compressed
            size += self._wire_size
            fragments += self._fragments
        if size > (self._max_wire_size if compressed else self._max_message_size):
            raise self._too_big(f"a message of {size} bytes or more is")
        if fragments > self._max_fragments:
            raise self._too_many_fragments()

    def _begin_payload(self, first: int, length: int) -> None:
        """Begin a data frame, and a message if this is its first frame."""
        self._check_limits(first, length)
        if self._message is None:
            self._message = bytearray()
            self._text = first & OPCODE_BITS == TEXT
            self._compressed = first & RSV1_BIT
            self._wire_size = self._fragments = 0
        self._wire_size += length
        self._fragments += 1
        self._fin = first & FIN_BIT

    def _too_big(self, what: str) -> ProtocolError:
        return ProtocolError(
            CloseCode.MESSAGE_TOO_BIG, f"{what} over the limit of {self._max_message_size}"
        )

    def _too_many_fragments(self) -> ProtocolError:
        return ProtocolError(
            CloseCode.MESSAGE_TOO_BIG,
            f"a message in more fragments than the limit of {self._max_fragments}",
        )

    def _read_payload(self, data: bytes | memoryview, begin: int, events: list[Event]) -> int:
        """Process the available payload of a data frame; return the position after it."""
        size = min(self._unread, len(data) - begin)
        if self._compressed:
            size = min(size, SHORT_FRAME)
        chunk = memoryview(data)[begin : begin + size]
        if self._masking_key:
            payload = mask(chunk, self._masking_key)
            turn = size % 4
            self._masking_key = self._masking_key[turn:] + self._masking_key[:turn]
        else:
            payload = chunk.tobytes()
        self._unread -= size
        self._receive_payload(payload, self._fin != 0 and not self._unread, events)
        return begin + size

    def _receive_payload(self, payload: bytes, complete: bool, events: list[Event]) -> None:
        """Add payload to the message, and deliver the message if it is complete."""
        if self._compressed:
            assert self._inflater is not None
            payload = self._inflate_rest(self._inflater.inflate(payload, complete))
        if complete:
            self._deliver(payload, events)
        else:
            self._append(payload)

    def _inflate_rest(self, piece: bytes) -> bytes:
        """Inflate the rest of the input in pieces, and check the limits before each.

        Returns:
            The last piece; the earlier ones are added to the message.
        """
        inflater = self._inflater
        assert inflater is not None
        assert self._message is not None
        while True:
            size = len(self._message) + len(piece)
            if size > self._max_message_size:
                raise self._too_big(f"a message that inflates to {size} bytes or more is")
            if not inflater.pending:
                return piece
            # Starting a DEFLATE stream costs as much time as a fragment, but fewer bytes.
            if inflater.ends > self._max_fragments:
                raise self._too_many_fragments()
            self._append(piece)
            piece = inflater.inflate_more()

    def _deliver(self, payload: bytes, events: list[Event]) -> None:
        """Deliver the message that this payload completes."""
        whole: bytes | bytearray = payload
        if self._message:
            self._message += payload
            whole = self._message
        try:
            events.append(whole.decode() if self._text else bytes(whole))
        except UnicodeDecodeError:
            raise _not_utf8("a text message") from None
        self._message = self._decoder = None

    def _append(self, payload: bytes) -> None:
        """Add payload to a message that remains incomplete."""
        assert self._message is not None
        if self._text:
            self._check_text(payload)
        self._message += payload

    def _check_text(self, payload: bytes) -> None:
        """Reject invalid UTF-8 at its first byte, also in an incomplete frame (section 8.1)."""
        if self._decoder is None:
            if payload.isascii():
                return
            self._decoder = Utf8Decoder()
        try:
            self._decoder.decode(payload)
        except UnicodeDecodeError:
            raise _not_utf8("a text message") from None
        # These two bytes begin a surrogate, but CPython's decoder waits for the third byte.
        pending = self._decoder.getstate()[0]
        if b"\xed\xa0" <= pending <= b"\xed\xbf":
            raise _not_utf8("a text message")

    def _receive_control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise _control_too_long()
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(_read_close(payload))
            self._ended = self.close_received = True
            self._message = None


def check_max_message_size(size: int) -> None:
    """Check the argument of :class:`Connection` before the first connection is opened.

    Raises:
        ValueError: the size is out of range.
    """
    if not 0 < size <= sys.maxsize:
        raise ValueError(f"max_message_size must be 1-{sys.maxsize}, not {size}")


def _size(message: str | Buffer) -> int:
    """Return the size in bytes, or in characters for text, which is precise enough for min_size."""
    return len(message) if isinstance(message, str) else memoryview(message).nbytes


def _encode_masked(opcode: int, payload: Buffer | str) -> bytes:
    return encode_frame(opcode, payload, masking_key=True)


def _read_close(payload: bytes) -> Close:
    """Parse the payload of a close frame: nothing, or a code and a reason (section 5.5.1)."""
    if not payload:
        return Close()
    if len(payload) == 1:
        raise _protocol_error("a close frame's payload of 1 byte is too short for a close code")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise _protocol_error(f"close code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise _not_utf8("a close reason") from None


def _control_too_long() -> ProtocolError:
    return _protocol_error(f"a control frame carries at most {MAX_CONTROL_PAYLOAD} bytes")


def _protocol_error(rule: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, rule)


def _not_utf8(what: str) -> ProtocolError:
    return ProtocolError(CloseCode.INVALID_FRAME_PAYLOAD_DATA, f"{what} is not valid UTF-8")

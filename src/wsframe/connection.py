"""Connection: every rule of RFC 6455 after the opening handshake, for either end, without I/O."""

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

# Of the first byte of a frame.
FIN_BIT, RSV1_BIT, RSV_BITS, OPCODE_BITS = 0x80, RSV1 << 4, 0x70, 0x0F
WHOLE = FIN_BIT | RSV1_BIT  # a compressed message in one frame
# The longest frame that is taken whole; a longer one is read as it comes, whether it is there or
# not. Of a compressed one, this much is looked at together: what one call leaves over, zlib copies.
SHORT_FRAME = 1 << 14


def _fault(first: int, in_message: bool, compression: bool) -> str | None:
    """What RFC 6455 sections 5.2 to 5.5 and RFC 7692 section 6 have against this first byte."""
    opcode = first & OPCODE_BITS
    if first & RSV_BITS & ~RSV1_BIT or (first & RSV1_BIT and not compression):
        return "a reserved bit is set and no extension was agreed on"
    if first & RSV1_BIT and (opcode == CONTINUATION or opcode >= FIRST_CONTROL_OPCODE):
        return "only the first frame of a message says that it is compressed"
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
    """The first bytes without fault."""
    return frozenset(byte for byte in range(256) if _fault(byte, in_message, compression) is None)


class Connection:
    """One end of one WebSocket connection, after the opening handshake.

    Bytes from the peer go into :meth:`receive`, which returns what they mean; what the other
    methods return is to be sent to the peer, in that order. It has no sockets, threads or clocks.

    It has one owner at a time. Two threads in :meth:`receive` at once raise ``RuntimeError``, and
    so do two in :meth:`encode` where compression keeps a context; else :meth:`encode`, and always
    :meth:`ping` and :meth:`pong`, may be called by any thread. It is to be dropped when a signal
    handler has raised an exception in one of its methods, as Ctrl-C does.

    Args:
        role: which end this is.
        max_message_size: the most bytes one message may have, in its UTF-8 form if it is text. A
            longer one is refused when its head arrives, before memory is taken for it; a compressed
            one as soon as it has inflated to more, and never inflated further, or when its frames
            have more than twice as many bytes and 1024.
        max_fragments: the most frames one message may come in; by default one for every 16 bytes
            that it may have, and 1024 at least.
        deflate: the compression that the opening handshake agreed on, as
            :func:`wsframe.accept` and :meth:`wsframe.UpgradeRequest.confirm` return it; or None.
        subprotocol: what the opening handshake agreed on; kept for the application.
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
        #: Whether :meth:`close` was called.
        self.close_sent = False
        #: Whether the peer's close frame has arrived.
        self.close_received = False
        #: Whether all that :meth:`receive` has returned last are messages, so that nobody need
        #: look; False where it cannot say.
        self.only_messages = True
        self._may_close: list[None] = [None]  # whoever pops it closes
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments
        # RFC 6455 section 5.1: what a client sends is masked, what a server sends is not.
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
            # What does not shrink grows a little, and so does what is flushed often.
            self._max_wire_size = min(2 * max_message_size + 1024, sys.maxsize)
        # The longest frame that is taken whole.
        self._short = max(MAX_CONTROL_PAYLOAD, min(SHORT_FRAME, self._max_wire_size))
        self._allowed_first = _allowed(False, deflate is not None)
        self._allowed_next = _allowed(True, deflate is not None)

        # Whoever holds the one item of this list owns the receiving side; popping it is atomic.
        # It is the bytes of a frame whose head is not complete; None stands for "between two
        # messages, and nothing kept", when the kernel can take what comes as it comes.
        self._kept: list[bytes | None] = [None]
        self._ended = False  # by a failure or the peer's close frame
        # The message that has begun and is not complete.
        self._message: bytearray | None = None
        self._text = False
        self._decoder: codecs.IncrementalDecoder | None = None  # of text that is not complete
        self._compressed = 0
        self._wire_size = 0  # of all its frames so far
        self._fragments = 0
        # The data frame whose payload has not all come.
        self._unread = 0
        self._fin = FIN_BIT
        self._masking_key = b""

    @property
    def incomplete(self) -> bool:
        """Whether :meth:`receive` was given a part of a frame or a message, and not yet the rest.

        To be asked between two calls of :meth:`receive`, by whoever calls that.
        """
        return self._kept != [None]

    def receive(self, data: Buffer) -> list[Event]:
        """Return what these bytes from the peer complete, in order.

        Args:
            data: any C-contiguous bytes-like object; it may be reused when this returns. Where
                compression was agreed on, each byte of it may become a thousand of messages, every
                one of them within the limit: what strangers send is better read by few KiB.

        Returns:
            Messages (``str`` for text, ``bytes`` for binary), :class:`Ping`, :class:`Pong`, and,
            as the last one ever, :class:`Close` or :class:`Failure`. Bytes after those are ignored.

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
            raise  # it is no bytes-like object, or a released one, so nothing was taken
        except BaseException:
            # Out of memory: where the next frame begins is not known any more.
            kept, self._ended = b"", True
            raise
        finally:
            self._kept.append(kept)
        return events

    def encode(self, message: str | Buffer, *, compress: bool | None = None) -> bytes:
        """Return the frame of a message: text for ``str``, binary for bytes-like objects.

        Args:
            message: the whole of it.
            compress: where compression was agreed on, whether to compress this message; None for
                "if it has the agreement's ``min_size``". Without context takeover, a message that
                does not shrink goes as it is.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: text that UTF-8 has no form for, such as half a surrogate pair.
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
        """Return a ping frame, which the peer answers with a pong of the same payload.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: the payload has more than 125 bytes.
        """
        return self._encode_control(PING, payload)

    def pong(self, payload: Buffer = b"") -> bytes:
        """Return a pong frame: the answer to a :class:`Ping` with this payload, or an unasked one.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: the payload has more than 125 bytes.
        """
        return self._encode_control(PONG, payload)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """Return the close frame, after which nothing may be sent (RFC 6455 section 5.5.1).

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; or 1005 for a frame without a code, so that
                the code of a received :class:`Close` can always be returned.
            reason: at most 123 bytes of UTF-8.

        Raises:
            StateError: the close frame was sent before.
            ValueError: the code may not be sent, or the reason is too long.
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

    # What the kernel left: one frame at a time, with every rule ----------------------------

    def _receive_rest(
        self, data: bytes | memoryview, position: int, events: list[Event]
    ) -> bytes | None:
        """Decode what the kernel left, and return what is to be kept for the next time."""
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
        """Receive a frame that is whole."""
        if first not in (self._allowed_first if self._message is None else self._allowed_next):
            raise self._refused(first)
        if first & OPCODE_BITS >= FIRST_CONTROL_OPCODE:
            self._receive_control(first & OPCODE_BITS, payload, events)
        elif first & WHOLE == WHOLE:
            # A compressed message in one frame: most need no more than this.
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
        """Judge the head of a frame that is long, not whole, or not in order.

        Returns:
            Where the payload begins if it is to be read as it comes, which a control frame's is
            not; else ``begin``, to wait for more.
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
        """RFC 6455 section 5.2: the shortest form, and no more than 63 bits."""
        if length >> 63:
            raise _protocol_error("the highest bit of a payload length must be 0")
        if (field == 126 and length < 126) or (field == 127 and length < 65536):
            raise _protocol_error("a payload length must use its shortest form")

    def _check_limits(self, first: int, length: int) -> None:
        """Hold a data frame against the limits of its message."""
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
        """Begin a data frame, and its message if it is the first."""
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
        """Take what is there of a data frame's payload; return where it ends."""
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
        """Add to the message, and deliver it when that completes it."""
        if self._compressed:
            assert self._inflater is not None
            payload = self._inflate_rest(self._inflater.inflate(payload, complete))
        if complete:
            self._deliver(payload, events)
        else:
            self._append(payload)

    def _inflate_rest(self, piece: bytes) -> bytes:
        """Hold what is inflated against the limit, piece by piece.

        Returns:
            The last piece; those before it are added to the message.
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
            # To begin a stream anew costs as much as a fragment, and takes fewer bytes.
            if inflater.ends > self._max_fragments:
                raise self._too_many_fragments()
            self._append(piece)
            piece = inflater.inflate_more()

    def _deliver(self, payload: bytes, events: list[Event]) -> None:
        """Deliver the message, of which this is the end, or the whole."""
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
        """Add to the message what does not complete it."""
        assert self._message is not None
        if self._text:
            self._check_text(payload)
        self._message += payload

    def _check_text(self, payload: bytes) -> None:
        """RFC 6455 section 8.1, at the first bad byte, also of a frame that is still arriving."""
        if self._decoder is None:
            if payload.isascii():
                return
            self._decoder = Utf8Decoder()
        try:
            self._decoder.decode(payload)
        except UnicodeDecodeError:
            raise _not_utf8("a text message") from None
        # With these two bytes a surrogate begins. CPython's decoder waits for the third.
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
    """Check the limit before the first connection is made.

    Raises:
        ValueError: the size is out of range.
    """
    if not 0 < size <= sys.maxsize:
        raise ValueError(f"max_message_size must be 1-{sys.maxsize}, not {size}")


def _size(message: str | Buffer) -> int:
    """In bytes; of text in characters, which is near enough to tell short ones."""
    return len(message) if isinstance(message, str) else memoryview(message).nbytes


def _encode_masked(opcode: int, payload: Buffer | str) -> bytes:
    return encode_frame(opcode, payload, masking_key=True)


def _read_close(payload: bytes) -> Close:
    """RFC 6455 section 5.5.1: nothing, or a code and a reason in UTF-8."""
    if not payload:
        return Close()
    if len(payload) == 1:
        raise _protocol_error("a close frame's payload of 1 byte is half a code")
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

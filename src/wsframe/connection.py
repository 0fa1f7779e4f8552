"""Connection: every rule of RFC 6455 but the opening handshake, for either end, without I/O."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, TypeAlias

from .errors import ProtocolError, StateError
from .frames import (
    Close,
    CloseCode,
    Failure,
    Opcode,
    Ping,
    Pong,
    Role,
    may_stand_on_the_wire,
)
from .kernels import encode_frame, mask, parse_frame, take_messages

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Connection", "Event"]

Event: TypeAlias = "str | bytes | Ping | Pong | Close | Failure"

Utf8Decoder = codecs.getincrementaldecoder("utf-8")

FIRST_CONTROL_OPCODE = 0x8
# Plain integers: an attribute of an IntEnum costs as much as the whole frame.
CONTINUATION, TEXT, BINARY = map(int, (Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY))
CLOSE, PING, PONG = map(int, (Opcode.CLOSE, Opcode.PING, Opcode.PONG))
MAX_CONTROL_PAYLOAD = 125


class Connection:
    """One end of one WebSocket connection, after the opening handshake.

    Bytes from the peer go into :meth:`receive`, which returns what they mean; what the other
    methods return is to be sent to the peer, in that order. It has no sockets, threads or clocks.

    It has one owner at a time. Two threads in :meth:`receive` at once raise ``RuntimeError``;
    :meth:`encode`, :meth:`ping` and :meth:`pong` keep no state that could be corrupted.

    Args:
        role: which end this is.
        max_message_size: the most bytes one message may have, in its UTF-8 form if it is text. A
            longer one is refused when its head arrives, before memory is taken for it.
        max_fragments: the most frames one message may come in; by default one for every 16 bytes
            that it may have, and 1024 at least.
        subprotocol: what the opening handshake agreed on; kept for the application.
    """

    __slots__ = (
        "_decoder",
        "_encode",
        "_ended",
        "_fin",
        "_fragments",
        "_kept",
        "_masked",
        "_masking_key",
        "_max_fragments",
        "_max_message_size",
        "_message",
        "_unread",
        "close_received",
        "close_sent",
        "role",
        "subprotocol",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int = 1 << 20,
        max_fragments: int | None = None,
        subprotocol: str | None = None,
    ) -> None:
        if not 0 < max_message_size <= sys.maxsize:
            raise ValueError(f"max_message_size must be 1-{sys.maxsize}, not {max_message_size}")
        if max_fragments is None:
            max_fragments = max(1024, max_message_size // 16)
        elif max_fragments < 1:
            raise ValueError(f"max_fragments must be at least 1, not {max_fragments}")
        self.role = Role(role)
        self.subprotocol = subprotocol
        #: Whether :meth:`close` was called.
        self.close_sent = False
        #: Whether the peer's close frame has arrived.
        self.close_received = False
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments
        # RFC 6455 section 5.1: what a client sends is masked, what a server sends is not.
        self._masked = self.role is Role.SERVER
        self._encode = encode_frame if self._masked else _encode_masked

        # Whoever holds the one item of this list owns the receiving side; popping it is atomic.
        # It is the bytes of a frame whose head is not complete; None stands for "between two
        # messages, and nothing kept", when the kernel can take what comes as it comes.
        self._kept: list[bytes | None] = [None]
        self._ended = False  # by a failure or the peer's close frame
        # The message that has begun and is not complete.
        self._message: bytearray | None = None
        self._decoder: codecs.IncrementalDecoder | None = None  # if it is text
        self._fragments = 0
        # The data frame whose payload has not all come.
        self._unread = 0
        self._fin = True
        self._masking_key = b""

    def receive(self, data: Buffer) -> list[Event]:
        """Return what these bytes from the peer complete, in order.

        Args:
            data: any C-contiguous bytes-like object; it may be reused when this returns.

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
        try:
            if kept is not None:
                kept = self._receive_rest(memoryview(data).cast("B"), kept, events)
            elif left := take_messages(data, 0, events, self._max_message_size, self._masked):
                kept = self._receive_rest(memoryview(data).cast("B")[-left:], b"", events)
        except (BufferError, TypeError, ValueError):
            raise  # it is no bytes-like object, or a released one, so nothing was taken
        except BaseException:
            # Out of memory: where the next frame begins is not known any more.
            kept, self._ended = b"", True
            raise
        finally:
            self._kept.append(kept)
        return events

    def encode(self, message: str | Buffer) -> bytes:
        """Return the frame of a message: text for ``str``, binary for bytes-like objects.

        Raises:
            StateError: :meth:`close` was called before.
            ValueError: text that UTF-8 has no form for, such as half a surrogate pair.
        """
        if self.close_sent:
            raise StateError("the close frame has been sent; no message may follow it")
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
        if code == CloseCode.NO_STATUS_RCVD:
            if reason:
                raise ValueError("a close frame without a code has no place for a reason")
            payload = b""
        elif not may_stand_on_the_wire(code):
            raise ValueError(f"{int(code)} is not a close code that may be sent")
        else:
            payload = code.to_bytes(2, "big") + reason.encode()
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(
                f"a close reason has at most 123 bytes of UTF-8, not {len(payload) - 2}"
            )
        frame = self._encode_control(CLOSE, payload)
        self.close_sent = True
        return frame

    def _encode_control(self, opcode: int, payload: Buffer) -> bytes:
        if self.close_sent:
            raise StateError("the close frame has been sent; nothing may follow it")
        return self._encode(opcode, payload)

    # What the kernel left: one frame at a time, with every rule ----------------------------

    def _receive_rest(self, data: memoryview, kept: bytes, events: list[Event]) -> bytes | None:
        """Decode what follows, and return what is to be kept for the next time."""
        if self._ended:
            return b""
        if kept:
            data = memoryview(kept + data)
        position, size = 0, len(data)
        try:
            while position < size:
                if self._unread:
                    position = self._read_payload(data, position, events)
                    continue
                if self._message is None:
                    left = take_messages(
                        data, position, events, self._max_message_size, self._masked
                    )
                    position = size - left
                begin, position = position, self._read_frame(data, position, events)
                if position == begin:
                    break
                if self._ended:
                    return b""
        except ProtocolError as error:
            self._ended = True
            events.append(Failure(error.code, error.reason))
            return b""
        if position == size and self._message is None:
            return None
        return data[position:].tobytes()

    def _read_frame(self, data: memoryview, begin: int, events: list[Event]) -> int:
        """Decode the frame that begins here; return where it ends, ``begin`` to wait for more."""
        head = parse_frame(data, begin)
        if head is None:
            return begin
        first, second, length, position = head
        opcode = first & 0x0F
        self._check_head(first, second, opcode)
        if length < 0:
            return begin
        self._check_length(second & 0x7F, length)
        if opcode < FIRST_CONTROL_OPCODE:
            self._check_limits(length)
        payload_at = position + 4 * self._masked
        if payload_at > len(data):
            return begin
        masking_key = data[position:payload_at].tobytes()

        if opcode >= FIRST_CONTROL_OPCODE:
            end = payload_at + length
            if end > len(data):
                return begin
            payload = data[payload_at:end]
            self._receive_control(
                opcode,
                mask(payload, masking_key) if masking_key else payload.tobytes(),
                events,
            )
            return end

        if self._message is None:
            self._message = bytearray()
            self._decoder = Utf8Decoder() if opcode == TEXT else None
            self._fragments = 0
        self._fragments += 1
        self._fin = first >= 0x80
        self._unread = length
        self._masking_key = masking_key
        return self._read_payload(data, payload_at, events)

    def _check_head(self, first: int, second: int, opcode: int) -> None:
        """Hold the first two bytes of a frame against RFC 6455 sections 5.1 to 5.5."""
        if first & 0x70:
            raise _protocol_error("a reserved bit is set and no extension was agreed on")
        if second >> 7 != self._masked:
            raise _protocol_error(
                "a client's frame must be masked"
                if self._masked
                else "a server's frame must not be masked"
            )
        if opcode == CONTINUATION:
            if self._message is None:
                raise _protocol_error("a continuation frame with no message to continue")
        elif opcode in (TEXT, BINARY):
            if self._message is not None:
                raise _protocol_error("a new message inside a fragmented one")
        elif opcode in (CLOSE, PING, PONG):
            if first < 0x80:
                raise _protocol_error("a control frame must not be fragmented")
            if second & 0x7F > MAX_CONTROL_PAYLOAD:
                raise _protocol_error("a control frame carries at most 125 bytes")
        else:
            raise _protocol_error(f"opcode {opcode} is reserved")

    def _check_length(self, field: int, length: int) -> None:
        """RFC 6455 section 5.2: the shortest form, and no more than 63 bits."""
        if length >> 63:
            raise _protocol_error("the highest bit of a payload length must be 0")
        if (field == 126 and length < 126) or (field == 127 and length < 65536):
            raise _protocol_error("a payload length must use its shortest form")

    def _check_limits(self, length: int) -> None:
        fragments, size = 1, length
        if self._message is not None:
            fragments += self._fragments
            size += len(self._message)
        if size > self._max_message_size:
            raise ProtocolError(
                CloseCode.MESSAGE_TOO_BIG,
                f"a message of {size} bytes or more is over the limit of {self._max_message_size}",
            )
        if fragments > self._max_fragments:
            raise ProtocolError(
                CloseCode.MESSAGE_TOO_BIG,
                f"a message in more fragments than the limit of {self._max_fragments}",
            )

    def _read_payload(self, data: memoryview, begin: int, events: list[Event]) -> int:
        """Take what is there of a data frame's payload; return where it ends."""
        assert self._message is not None
        chunk: Buffer = data[begin : begin + self._unread]
        size = len(data[begin : begin + self._unread])
        if self._masking_key:
            chunk = mask(chunk, self._masking_key)
            turn = size % 4
            self._masking_key = self._masking_key[turn:] + self._masking_key[:turn]
        self._unread -= size
        complete = self._fin and not self._unread
        if self._decoder is not None:
            # RFC 6455 section 8.1, at the first bad byte, also of a frame that is still arriving.
            try:
                self._decoder.decode(chunk, complete)
            except UnicodeDecodeError:
                raise _not_utf8("a text message") from None
            # With these two bytes a surrogate begins. CPython's decoder waits for the third.
            pending = self._decoder.getstate()[0]
            if len(pending) == 2 and b"\xed\xa0" <= pending <= b"\xed\xbf":
                raise _not_utf8("a text message")
        self._message += chunk
        if complete:
            text = self._decoder is not None
            events.append(self._message.decode() if text else bytes(self._message))
            self._message = self._decoder = None
        return begin + size

    def _receive_control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(_read_close(payload))
            self._ended = self.close_received = True


def _encode_masked(opcode: int, payload: Buffer | str) -> bytes:
    return encode_frame(opcode, payload, masking_key=True)


def _read_close(payload: bytes) -> Close:
    """RFC 6455 section 5.5.1: nothing, or a code and a reason in UTF-8."""
    if not payload:
        return Close()
    if len(payload) == 1:
        raise _protocol_error("a close frame's payload of 1 byte is half a code")
    code = int.from_bytes(payload[:2], "big")
    if not may_stand_on_the_wire(code):
        raise _protocol_error(f"close code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise _not_utf8("a close reason") from None


def _protocol_error(rule: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, rule)


def _not_utf8(what: str) -> ProtocolError:
    return ProtocolError(CloseCode.INVALID_FRAME_PAYLOAD_DATA, f"{what} is not valid UTF-8")

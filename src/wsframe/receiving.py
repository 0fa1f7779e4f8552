"""Receiver: the receiving side of a connection, for the frames that no kernel decodes."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from .arguments import check_deflate, check_integer, check_max_message_size
from .deflate import Inflater, PerMessageDeflate
from .errors import ProtocolError
from .frames import (
    FIRST_CONTROL_OPCODE,
    MAX_CONTROL_PAYLOAD,
    PING,
    PONG,
    TEXT,
    Close,
    CloseCode,
    Failure,
    Ping,
    Pong,
    Role,
)
from .kernels import mask, parse_frame, take_frame, take_messages
from .rules import (
    FIN_BIT,
    OPCODE_BITS,
    RSV1_BIT,
    allowed_first_bytes,
    control_too_long,
    fault_of,
    not_utf8,
    protocol_error,
    read_close,
)

__all__ = ["Event", "Receiver"]

#: A result of :meth:`wsframe.Connection.receive`: a message, or another frame, or the end.
Event: TypeAlias = str | bytes | Ping | Pong | Close | Failure

Utf8Decoder: Callable[[], codecs.IncrementalDecoder] = codecs.getincrementaldecoder("utf-8")

WHOLE = FIN_BIT | RSV1_BIT  # the first bits of an unfragmented, compressed message
# The size in bytes up to which a frame is decoded when it is complete. A longer frame is decoded in
# chunks as they arrive. A chunk of a compressed frame has at most this size, because zlib copies
# unconsumed input.
SHORT_FRAME = 1 << 14
# A shared list that is always empty, because few connections need their own.
NO_PARTS: list[Any] = []


class Receiver:
    """The decoder of single frames, with all rules; the base of :class:`wsframe.Connection`.

    Args:
        role: the end of the connection that this is.
        max_message_size: the limit of messages, as for :class:`wsframe.Connection`.
        max_fragments: the maximum number of frames of one message; None for the default.
        deflate: the negotiated compression, or None.

    Attributes:
        close_received: as for :class:`wsframe.Connection`.
    """

    __slots__ = (
        "_allowed_first",
        "_allowed_next",
        "_compressed",
        "_decoder",
        "_ended",
        "_fin",
        "_fragments",
        "_in_parts",
        "_inflater",
        "_kept",
        "_masked",
        "_masking_key",
        "_max_fragments",
        "_max_message_size",
        "_max_wire_size",
        "_message",
        "_short",
        "_taken",
        "_text",
        "_unread",
        "_wire_size",
        "close_received",
        "deflate",
        "role",
    )

    def __init__(
        self,
        role: Role,
        max_message_size: int,
        max_fragments: int | None,
        deflate: PerMessageDeflate | None,
    ) -> None:
        check_max_message_size(max_message_size)
        if max_fragments is None:
            max_fragments = max(1024, max_message_size // 16)
        else:
            check_integer("max_fragments", max_fragments, 1)
        # An instance is checked first, because looking up a member is slow.
        if not isinstance(role, Role):
            try:
                role = Role(role)
            except ValueError:
                raise ValueError(f"role must be Role.SERVER or Role.CLIENT, not {role!r}") from None
        self.role: Role = role
        self.deflate: PerMessageDeflate | None = deflate
        self.close_received: bool = False
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments
        # RFC 6455 section 5.1: clients mask their frames, servers do not.
        self._masked = self.role is Role.SERVER
        self._inflater: Inflater | None = None
        self._max_wire_size = max_message_size
        if deflate is not None:
            check_deflate(deflate)
            self._inflater = Inflater(deflate, self.role)
            # The limit on compressed bytes is higher, because incompressible or often flushed data
            # grows.
            self._max_wire_size = min(2 * max_message_size + 1024, sys.maxsize)
        # The size of the longest frame that is decoded only when it is complete.
        self._short = max(MAX_CONTROL_PAYLOAD, min(SHORT_FRAME, self._max_wire_size))
        self._allowed_first = allowed_first_bytes(False, deflate is not None)
        self._allowed_next = allowed_first_bytes(True, deflate is not None)

        # A list with one item. The thread that pops the item, which is atomic, owns the receiving
        # side. The item is the beginning of an incomplete frame. It is None between two messages if
        # no bytes are kept. Then the kernel can decode the next input directly.
        self._kept: list[bytes | None] = [None]
        # This list contains the item of self._kept while a message is returned in parts.
        self._in_parts: list[bytes | None] = NO_PARTS
        self._ended = False  # True after a failure or the peer's close frame
        # The incomplete message.
        self._message: bytearray | None = None
        self._text = False
        # The decoder of an incomplete text message.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._compressed = 0
        self._wire_size = 0  # the size of the message's frames so far, as received
        self._taken = 0  # the number of bytes that were returned in parts
        self._fragments = 0
        # The data frame whose payload is incomplete.
        self._unread = 0
        self._fin = FIN_BIT
        self._masking_key = b""

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
            raise protocol_error(
                "a client's frame must be masked"
                if self._masked
                else "a server's frame must not be masked"
            )
        control = first & OPCODE_BITS >= FIRST_CONTROL_OPCODE
        if control and second & 0x7F > MAX_CONTROL_PAYLOAD:
            raise control_too_long()
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
        fault = fault_of(first, self._message is not None, self.deflate is not None)
        assert fault is not None
        return protocol_error(fault)

    def _check_length(self, field: int, length: int) -> None:
        """Check the form of a payload length (RFC 6455 section 5.2)."""
        if length >> 63:
            raise protocol_error("the highest bit of a payload length must be 0")
        if (field == 126 and length < 126) or (field == 127 and length < 65536):
            raise protocol_error("a payload length must use its shortest form")

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
            self._wire_size = self._fragments = self._taken = 0
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
            size = self._taken + len(self._message) + len(piece)
            if size > self._max_message_size:
                raise self._too_big(f"a message that inflates to {size} bytes or more is")
            if not inflater.pending:
                return piece
            # DEFLATE streams are limited like fragments, because each takes as much time, and fewer
            # sent bytes.
            if inflater.ends > self._max_fragments:
                raise self._too_many_fragments()
            self._append(piece)
            piece = inflater.inflate_more()

    def _take_part(self, min_size: int) -> str | bytes | None:
        """Remove the available part of the incomplete message; None if it is too short."""
        if self._message is None:
            return None
        # The bytes of an incomplete character remain.
        pending = b"" if self._decoder is None else self._decoder.getstate()[0]
        size = len(self._message) - len(pending)
        if size < min_size:
            return None
        with memoryview(self._message)[:size] as view:
            part = str(view, "utf-8") if self._text else bytes(view)
        del self._message[:size]
        self._taken += size
        return part

    def _deliver(self, payload: bytes, events: list[Event]) -> None:
        """Deliver the message that a payload completes."""
        whole: bytes | bytearray = payload
        if self._message:
            self._message += payload
            whole = self._message
        try:
            events.append(whole.decode() if self._text else bytes(whole))
        except UnicodeDecodeError:
            raise not_utf8("a text message") from None
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
            raise not_utf8("a text message") from None
        # These two bytes begin a surrogate, but CPython's decoder waits for the third byte.
        pending = self._decoder.getstate()[0]
        if b"\xed\xa0" <= pending <= b"\xed\xbf":
            raise not_utf8("a text message")

    def _receive_control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise control_too_long()
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(read_close(payload))
            self._ended = self.close_received = True
            self._message = None

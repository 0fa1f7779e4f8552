"""Connection: all rules of RFC 6455 after the opening handshake, for both ends, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from .arguments import check_integer, wrong_type
from .buffers import octets
from .deflate import Deflater, PerMessageDeflate
from .errors import StateError
from .frames import BINARY, CLOSE, PING, PONG, TEXT, CloseCode, Part, Role, encode_close
from .kernels import encode_frame, take_messages
from .parts import (
    MESSAGE_TYPES,
    Encoder,
    OutgoingMessage,
    each_frame,
    encode_masked,
    refuse_message,
    unfinished,
)
from .receiving import Event, Receiver
from .shown import show

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Connection"]

CLOSING, SENDING = "closing", "sending"  # the permits that self._permits contains, see below


class Connection(Receiver):
    """One end of one WebSocket connection, after the opening handshake.

    Pass received bytes to :meth:`receive`, which returns events. Send the bytes that the other
    methods return to the peer, in the order of the calls. There are no sockets, threads or clocks.

    Only one thread at a time may use a connection, with these exceptions: any thread may call
    :meth:`ping` and :meth:`pong`, and also :meth:`encode` unless compression keeps a context or a
    message is being sent in parts.
    Concurrent calls of :meth:`receive`, or of :meth:`encode` with such a context, raise
    ``RuntimeError``. Discard the connection if a signal handler raised an exception in one of its
    methods, as Ctrl-C does.

    >>> client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    >>> server.receive(client.encode("hello"))
    ['hello']

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

    Attributes:
        close_sent: True once :meth:`close` was called.
        close_received: True once the peer's close frame was received.
        only_messages: True only if the last call of :meth:`receive` returned only messages. It may
            be False after such a call, too.
    """

    __slots__ = (
        "_deflater",
        "_encode",
        "_min_deflate_size",
        "_outgoing",
        "_permits",
        "close_sent",
        "only_messages",
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
        super().__init__(role, max_message_size, max_fragments, deflate)
        self.subprotocol: str | None = subprotocol
        self.close_sent: bool = False
        self.only_messages: bool = True
        # The permits to close, and to encode a part. Only the thread that removes an item, which is
        # atomic, may do that.
        self._permits = [CLOSING, SENDING]
        self._encode: Encoder = encode_frame if self._masked else encode_masked
        self._deflater: Deflater | None = None
        self._min_deflate_size = 0
        if deflate is not None:
            self._deflater = Deflater(deflate, self.role)
            self._min_deflate_size = deflate.min_size
        # The message that is being sent in parts. Meanwhile a function that refuses messages
        # replaces the encoders above, so that encode() requires no additional check.
        self._outgoing: OutgoingMessage | None = None

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
            StateError: :meth:`receive_parts` has returned a part of an incomplete message.
        """
        try:
            kept = self._kept.pop()
        except IndexError:
            raise self._not_received() from None
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
            raise  # the argument is not bytes-like or is a released view, so no data was decoded
        except BaseException:
            # After a MemoryError, the beginning of the next frame is unknown.
            kept, self._ended = b"", True
            raise
        finally:
            self._kept.append(kept)
        return events

    def receive_parts(self, data: Buffer, *, min_size: int = 1) -> list[Event | Part]:
        """Decode bytes like :meth:`receive`, and return also the parts of incomplete messages.

        A message that has not been returned in part when it is complete is returned whole, as
        ``str`` or ``bytes``. All other messages are returned as :class:`Part` objects, the last of
        them with ``final``. A message whose last part is missing ends with :class:`Close` or
        :class:`Failure`, or with the connection. Limits and the check of UTF-8 are those of whole
        messages; pass a larger ``max_message_size`` and ``max_fragments`` for longer ones.

        Args:
            data: as for :meth:`receive`.
            min_size: the minimum size of a part in bytes, for text in UTF-8; the last part may be
                shorter. A message that is shorter than this is always returned whole.

        Returns:
            As :meth:`receive`, and parts. Control frames between fragments come before the part
            that is returned by the same call.

        Raises:
            RuntimeError: another thread is in this method or in :meth:`receive`.
            ValueError: ``min_size`` is less than 1.
        """
        check_integer("min_size", min_size, 1)
        view = octets(data)
        # The state of a message in parts is removed, so that receive() does not use it.
        place = self._in_parts or self._kept
        try:
            kept = place.pop()
        except IndexError:
            raise self._not_received() from None
        in_parts = place is self._in_parts
        found: list[Event] = []
        self.only_messages = False
        try:
            if kept:
                view = memoryview(kept + view)
            kept = self._receive_rest(view, 0, found)
            events: list[Event | Part] = []
            for event in found:
                if in_parts and isinstance(event, (str, bytes)):
                    in_parts = False
                    events.append(Part(event, final=True))
                else:
                    events.append(event)
            part = self._take_part(min_size)
            if part is not None:
                in_parts = True
                events.append(Part(part, final=False))
        except BaseException:
            # After a MemoryError, the beginning of the next frame is unknown.
            kept, self._ended = b"", True
            raise
        finally:
            if in_parts and not self._ended:
                self._in_parts = [kept]
            else:
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
            StateError: :meth:`close` was called before, or a message is being sent in parts.
            ValueError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
            RuntimeError: compression keeps a context, and another thread is in this method.
        """
        if self.close_sent:
            raise StateError("the close frame has been sent; no message may follow it")
        try:
            if (
                self._deflater is not None
                and compress is not False
                and (compress or _size(message) >= self._min_deflate_size)
            ):
                return self._deflater.encode(message)
            return self._encode(TEXT if isinstance(message, str) else BINARY, message)
        except TypeError:
            raise wrong_type("message", MESSAGE_TYPES, message) from None

    def encode_part(
        self, part: str | Buffer, *, final: bool = False, compress: bool | None = None
    ) -> bytes:
        """Return the frame of one part of a message; the other end can decode it at once.

        Call it for each part, the last time with ``final``. Between the parts, control frames may
        be sent, but no other message. One thread at a time may call it, and no other thread may be
        in :meth:`encode` meanwhile. :meth:`encode_parts` calls it for an iterable.

        Args:
            part: the part, ``str`` for text, bytes-like for binary. An empty part that is neither
                the first nor the last requires no frame; the result is b"".
            final: True for the last part.
            compress: False to send the message uncompressed; it applies to the first part.

        Raises:
            StateError: :meth:`close` was called before, or :meth:`encode_parts` has begun another
                message.
            TypeError: the part has another type than the first one; the message can be continued.
            ValueError: the text contains a lone surrogate; the message can be continued.
            RuntimeError: another thread is in this method.
        """
        return self._encode_part(None, compress, part, final)

    def encode_parts(
        self, parts: Iterable[str] | Iterable[Buffer], *, compress: bool | None = None
    ) -> Iterator[bytes]:
        """Return an iterator over the frames of a message: one for each part, and an empty one.

        Each frame is encoded when it is requested. Until the iterator is exhausted, control frames
        may be sent, but no other message. If the iterable or the encoding of a part fails, the
        message cannot be ended: close the connection.

        Args:
            parts: at least one part, each ``str`` for text, or each bytes-like for binary.
            compress: False to send the message uncompressed.

        Raises:
            TypeError: parts are one ``str`` or bytes-like object, or differ in their type.
            ValueError: there is no part, or as for :meth:`encode_part`; while iterating.
            StateError: :meth:`close` was called before, or another message is being sent in parts;
                while iterating.
        """
        if isinstance(parts, (str, bytes, bytearray, memoryview)) or not hasattr(parts, "__iter__"):
            raise wrong_type("parts", f"an iterable with parts, each {MESSAGE_TYPES}", parts)
        return each_frame(parts, partial(self._encode_part, object(), compress))

    def _encode_part(
        self, owner: object, compress: bool | None, part: str | Buffer, final: bool
    ) -> bytes:
        if self.close_sent:
            raise StateError("the close frame has been sent; no message may follow it")
        try:
            self._permits.remove(SENDING)
        except ValueError:
            raise RuntimeError("another thread is in encode_part() of this Connection") from None
        try:
            message = self._outgoing or OutgoingMessage(
                owner,
                text=isinstance(part, str),
                masked=not self._masked,
                encoders=(self._encode, self._deflater),
                compress=compress,
            )
            if message.owner is not owner:
                raise unfinished()
            frame = message.encode(part, final=final)
            if final:
                (self._encode, self._deflater), self._outgoing = message.encoders, None
            else:
                self._encode, self._deflater, self._outgoing = refuse_message, None, message
            return frame
        finally:
            self._permits.append(SENDING)

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
        encode = encode_frame if self._masked else encode_masked
        frame = encode(CLOSE, encode_close(code, reason))
        try:
            self._permits.remove(CLOSING)
        except ValueError:
            raise StateError("the close frame has been sent; nothing may follow it") from None
        self.close_sent = True
        return frame

    def _encode_control(self, opcode: int, payload: Buffer) -> bytes:
        if self.close_sent:
            raise StateError("the close frame has been sent; nothing may follow it")
        return encode_frame(opcode, payload) if self._masked else encode_masked(opcode, payload)

    def _not_received(self) -> Exception:
        """Return the error of a call that does not find the state of the receiving side."""
        if self._in_parts:
            return StateError("a message is being received in parts: call receive_parts()")
        return RuntimeError("another thread is in receive() of this Connection")

    def __repr__(self) -> str:
        states = ("incomplete", "close_received", "close_sent")
        return show(
            self,
            str(self.role),
            *(state for state in states if getattr(self, state)),
            max_message_size=self._max_message_size,
            deflate=self.deflate,
            subprotocol=self.subprotocol,
        )


def _size(message: str | Buffer) -> int:
    """Return the size in bytes, or in characters for text, which is precise enough for min_size."""
    return len(message) if isinstance(message, str) else memoryview(message).nbytes

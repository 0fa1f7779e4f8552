"""Server-sent events: encoder and decoder of event streams (WHATWG HTML section 9.2), no I/O."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .arguments import check_integer, check_text, wrong_type
from .buffers import octets
from .errors import ProtocolError
from .frames import CloseCode
from .shown import Shown, show

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EventStreamDecoder", "ServerSentEvent", "check_event", "encode_comment"]

# The line endings of event streams (WHATWG HTML section 9.2.5). str.splitlines recognizes others
# and would change the data.
END_OF_LINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True, repr=False)
class ServerSentEvent(Shown):
    r"""One event of an event stream.

    >>> ServerSentEvent("hello", event="greeting", id="7").encode()
    b'event: greeting\nid: 7\ndata: hello\n\n'

    Attributes:
        data: the client's ``event.data``; every line break arrives as LF.
        event: the event type, for ``addEventListener``; None for "message".
        id: the value that the client sends as ``Last-Event-ID`` when it reconnects; "" resets it.
        retry: the client's delay before it reconnects, in milliseconds.

    Raises:
        ValueError: ``event`` or ``id`` contains CR, LF or NUL, which would forge fields or be
            ignored (WHATWG HTML section 9.2.6), or ``retry`` is negative.
    """

    data: str
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        check_text(data=self.data)
        check_event(self.event, self.id, self.retry)

    def encode(self) -> bytes:
        """Return the event in wire format, including the blank line that ends it."""
        return encode_event(self.data.encode(), self.event, self.id, self.retry)


def check_event(event: str | None, id: str | None, retry: int | None) -> None:  # noqa: A002
    """Check the fields of an event other than its data; None for one that is absent.

    Raises:
        ValueError: as :class:`ServerSentEvent`.
    """
    for name, value in (("event", event), ("id", id)):
        if value is not None and not isinstance(value, str):
            raise wrong_type(name, "str or None", value)
        if value is not None and any(forbidden in value for forbidden in "\r\n\0"):
            raise ValueError(f"an event's {name} must not contain CR, LF or NUL: {value!r}")
    if retry is not None:
        check_integer("retry", retry, 0)


def encode_event(data: bytes, event: str | None, id: str | None, retry: int | None) -> bytes:  # noqa: A002
    """Return an event in wire format, as :meth:`ServerSentEvent.encode`, from data in UTF-8."""
    fields = (("event", event), ("id", id), ("retry", retry))
    head = "".join([f"{name}: {value}\n" for name, value in fields if value is not None])
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return b"%bdata: %b\n\n" % (head.encode(), data.replace(b"\n", b"\ndata: "))


def encode_comment(text: str = "") -> bytes:
    """Return a comment in wire format, which keeps an idle stream open; clients ignore it."""
    return "".join(f": {line}\n" for line in END_OF_LINE.split(text)).encode() + b"\n"


class EventStreamDecoder:
    r"""Incremental decoder of an event stream (WHATWG HTML section 9.2.6).

    Only one thread at a time may use it.

    >>> decoder = EventStreamDecoder()
    >>> decoder.receive(b"id: 7\ndata: hello\n\n")
    [ServerSentEvent(data='hello', event=None, id='7', retry=None)]
    >>> decoder.last_event_id
    '7'

    Args:
        max_event_size: the maximum number of characters of an incomplete event or line.
        last_event_id: the ``last_event_id`` of the stream that this one continues.

    Attributes:
        last_event_id: the value to send as ``Last-Event-ID`` to resume the stream.
        retry: the reconnection delay that the server sent last, in milliseconds, or None.

    Raises:
        ValueError: ``max_event_size`` is less than 1.
    """

    def __init__(self, *, max_event_size: int = 1 << 20, last_event_id: str = "") -> None:
        check_integer("max_event_size", max_event_size, 1)
        check_text(last_event_id=last_event_id)
        self.last_event_id: str = last_event_id
        self.retry: int | None = None
        self._max_event_size = max_event_size
        # The decoder replaces invalid UTF-8 by U+FFFD, and skips a byte order mark at the start.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._line: list[str] = []  # the parts of the incomplete line
        self._line_size = 0
        self._after_cr = False  # True if a following LF belongs to the last CR
        self._event = ""
        self._id = last_event_id
        self._data: list[str] = []
        self._event_size = 0  # the size of the complete data lines
        self._failed = False

    def receive(self, data: Buffer) -> list[ServerSentEvent]:
        """Decode bytes from the server; return the events that they complete.

        An event without an ``id`` has the last id of the stream, as in a browser.

        Raises:
            ProtocolError: an event exceeds the limit; code 1009. All events before it have been
                returned. Close the stream.
        """
        events: list[ServerSentEvent] = []
        try:
            self._read(self._decoder.decode(octets(data).tobytes()), events)
        except ProtocolError:
            self._failed = True
            if not events:
                raise
        return events

    def __repr__(self) -> str:
        return show(self, last_event_id=self.last_event_id, retry=self.retry)

    def _read(self, text: str, events: list[ServerSentEvent]) -> None:
        if self._failed:
            raise self._over_the_limit()
        if self._at_start and text:
            text = text.removeprefix("\ufeff")
            self._at_start = False
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        if not text:
            return
        self._after_cr = text.endswith("\r")
        *lines, rest = END_OF_LINE.split(text)
        for line in lines:
            event = self._end_line("".join((*self._line, line)))
            self._line.clear()
            self._line_size = 0
            if event is not None:
                events.append(event)
        if rest:
            self._line.append(rest)
            self._line_size += len(rest)
            self._check_size(self._line_size)

    def _check_size(self, line_size: int) -> None:
        """Check the size of the event and its last line, independently of the chunks."""
        if self._event_size + line_size > self._max_event_size:
            raise self._over_the_limit()

    def _over_the_limit(self) -> ProtocolError:
        return ProtocolError(
            CloseCode.MESSAGE_TOO_BIG,
            f"an event exceeds the limit of {self._max_event_size} characters",
        )

    def _end_line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._end_event()
        self._check_size(len(line))
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._event_size += len(value) + 1
            self._data.append(value)
        elif field == "event":
            # NUL is replaced, because ServerSentEvent rejects it.
            self._event = value.replace("\0", "\ufffd")
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit() and len(value) < 20:
            self.retry = int(value)  # int() raises ValueError for thousands of digits
        return None

    def _end_event(self) -> ServerSentEvent | None:
        self.last_event_id = self._id
        data, event = self._data, self._event
        self._data, self._event, self._event_size = [], "", 0
        if not data:
            return None
        return ServerSentEvent("\n".join(data), event or None, self._id or None)

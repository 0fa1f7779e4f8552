"""Server-sent events: the stream of WHATWG HTML section 9.2, written and read, without I/O."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ProtocolError
from .frames import CloseCode

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EventStreamDecoder", "ServerSentEvent", "check_event", "encode_comment"]

# The only three ends of a line (section 9.2.5); str.splitlines knows more and would alter the data.
END_OF_LINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of an event stream.

    Attributes:
        data: what the client gets as ``event.data``; every line break in it arrives as LF.
        event: the type the client listens for; None for "message".
        id: what the client sends as ``Last-Event-ID`` when it comes back; "" makes it forget.
        retry: how long the client is to wait before it comes back, in milliseconds.

    Raises:
        ValueError: CR, LF or NUL in ``event`` or ``id``, which would forge fields or be ignored
            (section 9.2.6), or a negative ``retry``.
    """

    data: str
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        check_event(self.event, self.id, self.retry)

    def encode(self) -> bytes:
        """Return the event as it stands in the stream, with the blank line that ends it."""
        return encode_event(self.data.encode(), self.event, self.id, self.retry)


def check_event(event: str | None, id: str | None, retry: int | None) -> None:  # noqa: A002
    """Check the fields of an event other than its data; None for one that is absent.

    Raises:
        ValueError: as :class:`ServerSentEvent`.
    """
    for name, value in (("event", event), ("id", id)):
        if value is not None and any(forbidden in value for forbidden in "\r\n\0"):
            raise ValueError(f"an event's {name} must not contain CR, LF or NUL: {value!r}")
    if retry is not None and retry < 0:
        raise ValueError(f"retry must not be negative: {retry}")


def encode_event(data: bytes, event: str | None, id: str | None, retry: int | None) -> bytes:  # noqa: A002
    """Return an event as :meth:`ServerSentEvent.encode` does, from data that is in UTF-8."""
    fields = (("event", event), ("id", id), ("retry", retry))
    head = "".join([f"{name}: {value}\n" for name, value in fields if value is not None])
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return b"%bdata: %b\n\n" % (head.encode(), data.replace(b"\n", b"\ndata: "))


def encode_comment(text: str = "") -> bytes:
    """Return a comment, which clients ignore; it keeps an idle stream open."""
    return "".join(f": {line}\n" for line in END_OF_LINE.split(text)).encode() + b"\n"


class EventStreamDecoder:
    """Reads an event stream as it arrives (section 9.2.6).

    It has one owner at a time.

    Args:
        max_event_size: the most characters that an unfinished event, or a line, may have.
        last_event_id: that of the stream which this one continues.

    Attributes:
        last_event_id: what to send as ``Last-Event-ID`` when the connection is lost.
        retry: what the server last asked to wait before coming back, in milliseconds, or None.
    """

    def __init__(self, *, max_event_size: int = 1 << 20, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._max_event_size = max_event_size
        # Bytes that are not UTF-8 become U+FFFD, and a byte order mark at the start is skipped.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._line: list[str] = []  # what has come of the line that is not ended
        self._line_size = 0
        self._after_cr = False  # an LF that comes now belongs to that CR
        self._event = ""
        self._id = last_event_id
        self._data: list[str] = []
        self._event_size = 0  # of the data lines that are complete
        self._failed = False

    def receive(self, data: Buffer) -> list[ServerSentEvent]:
        """Return the events that these bytes complete.

        The ``id`` of an event is the last one that the stream has named, as in a browser.

        Raises:
            ProtocolError: an event is over the limit; code 1009. The events before it have been
                returned; the stream is to be dropped.
        """
        events: list[ServerSentEvent] = []
        try:
            self._read(self._decoder.decode(memoryview(data).tobytes()), events)
        except ProtocolError:
            self._failed = True
            if not events:
                raise
        return events

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
        """Hold the event and its last line against the limit, however they were cut."""
        if self._event_size + line_size > self._max_event_size:
            raise self._over_the_limit()

    def _over_the_limit(self) -> ProtocolError:
        return ProtocolError(
            CloseCode.MESSAGE_TOO_BIG,
            f"an event is over the limit of {self._max_event_size} characters",
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
            self._event = value.replace("\0", "\ufffd")  # which ServerSentEvent would refuse
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit() and len(value) < 20:
            self.retry = int(value)  # which refuses thousands of digits, and no clock counts them
        return None

    def _end_event(self) -> ServerSentEvent | None:
        self.last_event_id = self._id
        data, event = self._data, self._event
        self._data, self._event, self._event_size = [], "", 0
        if not data:
            return None
        return ServerSentEvent("\n".join(data), event or None, self._id or None)

"""The encodings of a topic's entries, one for each kind of client."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from wsframe import Opcode, PerMessageDeflate, ServerSentEvent, encode_frame
from wsframe.backends import MAX_BITS
from wsframe.sse import encode_event

from .ids import END
from .places import Place

if TYPE_CHECKING:
    from .entry import Entry
    from .places import Places

GAP = "gap"


def text_of(entry: Entry) -> bytes:
    """Return the data as text in UTF-8; bytes are encoded in base64."""
    return b64encode(entry.payload) if entry.is_binary else entry.payload


class Encoding(ABC):
    """The encoding for one kind of client; any thread may use it.

    Encoding a large event takes long, and compression takes longer. So the publishing thread
    encodes for the kinds of clients that are subscribed: see :meth:`prepare`. The id does not exist
    yet, so an encoding with the id prepares only the rest. A loop never compresses a large event: a
    client of a new kind receives it uncompressed.

    Attributes:
        is_per_client: True if the encoding belongs to one client; then :meth:`sent` is called.
        is_shared: True if all clients receive the same bytes on their sockets.
    """

    is_per_client = False
    is_shared = True

    def sent(self, topic: str, entries: Sequence[Entry]) -> None:  # noqa: B027 - most keep nothing
        """Record that the client has been sent the entries."""

    def prepare(self, topic: str, entry: Entry) -> None:  # noqa: B027 - some have nothing to do
        """The publishing thread of a large entry: encode and compress it in advance."""

    def forget(self, topic: str) -> None:  # noqa: B027
        """Record that the client is no longer subscribed to a topic."""

    def block(self, topic: str, entries: Sequence[Entry]) -> bytes:
        """Return several encoded entries as one bytes object; each is encoded once."""
        if len(entries) == 1:
            return self.once(topic, entries[0])
        return b"".join([self.once(topic, entry) for entry in entries])

    def once(self, topic: str, entry: Entry) -> bytes:
        """Return an entry's encoding, which the first call creates."""
        encoded = entry.encoded.get(self)
        if encoded is None:
            # If two loops encode an entry at the same time, both use the first result.
            encoded = entry.encoded.setdefault(self, self._encode_any(topic, entry))
        return encoded

    def prepared(self, topic: str, entry: Entry) -> bytes:
        """Return the prepared encoding, which is used only once; or else create the encoding."""
        return entry.encoded.pop(self, None) or self._encode_any(topic, entry)

    def _encode_any(self, topic: str, entry: Entry) -> bytes:
        if entry.last:
            return b""
        if entry.oldest is not None:
            return self.gap(topic, entry.stream_id, entry.oldest)
        return self.encode(topic, entry)

    @abstractmethod
    def encode(self, topic: str, entry: Entry) -> bytes:
        """Encode one event."""

    @abstractmethod
    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        """Encode a gap.

        Args:
            topic: the name of the topic.
            cursor: the client's position after the gap.
            oldest: the id of the oldest entry that is kept.
        """

    @abstractmethod
    def stream_start(self, topic: str, cursor: str) -> bytes:
        """Encode the position at which a client begins."""


class EventStreamEncoding(Encoding):
    """The encoding of event streams."""

    def encode(self, topic: str, entry: Entry) -> bytes:
        if entry.is_large:
            return encode_id_field(entry.id or "") + BODIES.prepared(topic, entry)
        return encode_event(text_of(entry), entry.event, entry.id, entry.retry)

    def prepare(self, topic: str, entry: Entry) -> None:
        BODIES.once(topic, entry)

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        data = json.dumps({"topic": topic, "oldest": oldest})
        return ServerSentEvent(data, GAP, cursor).encode()

    def stream_start(self, topic: str, cursor: str) -> bytes:
        return encode_id(cursor)


class _Bodies(EventStreamEncoding):
    """The encoding of an event for event streams, without its ``id`` field.

    The id is added later: it can differ between clients, and a large event is encoded before its id
    exists.
    """

    def encode(self, topic: str, entry: Entry) -> bytes:
        return encode_event(text_of(entry), entry.event, None, entry.retry)


BODIES = _Bodies()


class StreamOfMany(EventStreamEncoding):
    """The encoding of one event stream that is subscribed to several topics.

    The id of each event names a position in all of them; see ``places.py``. The rest of the event
    is encoded once for all clients.
    """

    is_per_client = True
    is_shared = False

    def __init__(self, places: Places, ids: Mapping[str, str]) -> None:
        self._place = Place(places, ids)

    def block(self, topic: str, entries: Sequence[Entry]) -> bytes:
        return b"".join([self._encode_any(topic, entry) for entry in entries])

    def encode(self, topic: str, entry: Entry) -> bytes:
        moved = self._place.move(topic, entry.id or "")
        if entry.is_large:  # the encoding of an entry begins with its id
            body = EVENT_STREAM.once(topic, entry).partition(b"\n")[2]
        else:
            body = BODIES.once(topic, entry)
        return encode_id_field(moved) + body

    def prepare(self, topic: str, entry: Entry) -> None:
        EVENT_STREAM.prepare(topic, entry)

    def sent(self, topic: str, entries: Sequence[Entry]) -> None:
        if entries[-1].last:  # the last entry is not encoded
            self._place.move(topic, entries[-1].id or "")

    def forget(self, topic: str) -> None:
        self._place.forget(topic)

    def expect_only(self, topics: Collection[str]) -> None:
        """Record that the stream will not subscribe to any other topic of its last id."""
        self._place.expect_only(topics)

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        return super().gap(topic, self._place.move(topic, cursor), oldest)

    def stream_start(self, topic: str, cursor: str) -> bytes:
        self._place.move(topic, cursor)
        return self.here()

    def here(self) -> bytes:
        """Encode the current position of the client."""
        return encode_id(self._place.id)


def encode_id(cursor: str) -> bytes:
    """Return an event without data; a browser keeps its id and dispatches no event.

    WHATWG HTML section 9.2.6: the last event ID is set before the check for empty data.
    """
    return encode_id_field(cursor) + b"\n"


def encode_end() -> bytes:
    """Return the last block of a stream that ends for good.

    The block has an event type and no data. So a browser only stores the id, without an event. htmx
    4 triggers the event, and does not reconnect if its element has ``hx-sse:close="end"``.
    """
    return b"event: end\n" + encode_id(END)


def encode_id_field(event_id: str) -> bytes:
    """Return the "id" line of an event."""
    return f"id: {event_id}\n".encode()


class MessageEncoding(Encoding):
    """The encoding of WebSockets: a message with the data.

    Args:
        deflate: the negotiated compression; None without compression.
    """

    def __init__(self, deflate: PerMessageDeflate | None) -> None:
        self._deflate = deflate

    def encode(self, topic: str, entry: Entry) -> bytes:
        if self._deflate is None or entry.is_large:
            return encode_frame(Opcode.BINARY if entry.is_binary else Opcode.TEXT, entry.payload)
        return self._deflate.encode(entry.data)

    def prepare(self, topic: str, entry: Entry) -> None:
        if self._deflate is not None:
            entry.encoded.setdefault(self, self._deflate.encode(entry.data))

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        return b""  # a message without an envelope cannot describe a gap

    def stream_start(self, topic: str, cursor: str) -> bytes:
        return b""


class EnvelopeEncoding(MessageEncoding):
    """The encoding of WebSockets with envelopes: a JSON object with topic, id, event and data.

    Binary data is encoded in base64, and then ``binary`` is true. An object without data is a
    notice. The event "open" begins a subscription, with the id to resume from before the first
    event. The event "gap" reports a gap, with the id after it and the ``oldest`` id.
    """

    def encode(self, topic: str, entry: Entry) -> bytes:
        message_fields: dict[str, Any] = {"topic": topic, "id": entry.id, "event": entry.event}
        if entry.is_binary:
            message_fields["binary"] = True
        if entry.is_large:
            head = json.dumps(message_fields, ensure_ascii=False)[:-1].encode()
            message = b'%b, "data": %b}' % (head, _STRINGS.prepared(topic, entry))
            return encode_frame(Opcode.TEXT, message)
        message_fields["data"] = text_of(entry).decode()
        return self.frame(json.dumps(message_fields, ensure_ascii=False))

    def prepare(self, topic: str, entry: Entry) -> None:
        _STRINGS.once(topic, entry)

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        message_fields = {"topic": topic, "id": cursor, "event": GAP, "oldest": oldest}
        return self.frame(json.dumps(message_fields))

    def stream_start(self, topic: str, cursor: str) -> bytes:
        return self.frame(json.dumps({"topic": topic, "id": cursor, "event": "open"}))

    def frame(self, message: str) -> bytes:
        """Return a message as one frame."""
        if self._deflate is not None:
            return self._deflate.encode(message)
        return encode_frame(Opcode.TEXT, message)


class _Strings(MessageEncoding):
    """The data as a JSON string."""

    def encode(self, topic: str, entry: Entry) -> bytes:
        return json.dumps(text_of(entry).decode(), ensure_ascii=False).encode()


_STRINGS = _Strings(None)
EVENT_STREAM = EventStreamEncoding()


def message_encoding(deflate: PerMessageDeflate | None, envelope: bool) -> MessageEncoding:
    """Return the encoding for the negotiated compression; many clients share one.

    With context takeover each client would need a compressor of its own. Such a client receives
    events uncompressed, which RFC 7692 section 6 allows for any message.
    """
    if deflate is not None:
        # The parameters of the client's direction have no effect. A window below the negotiated
        # size is valid, so only a few sizes are used, which keeps the number of encodings small.
        window = deflate.server_max_window_bits
        deflate = (
            replace(
                deflate,
                client_no_context_takeover=False,
                client_max_window_bits=MAX_BITS,
                server_max_window_bits=window if window in (8, MAX_BITS) else 9,
            )
            if deflate.server_no_context_takeover
            else None
        )
    return _message_encoding(deflate, envelope)


@cache
def _message_encoding(deflate: PerMessageDeflate | None, envelope: bool) -> MessageEncoding:
    return (EnvelopeEncoding if envelope else MessageEncoding)(deflate)

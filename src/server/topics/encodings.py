"""How a topic's entries look on the wire: once for each kind of client, not for each client."""

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

from .places import Place

if TYPE_CHECKING:
    from .entry import Entry
    from .places import Places

GAP = "gap"


def text_of(entry: Entry) -> bytes:
    """The data as text in UTF-8; bytes have none but base64."""
    return b64encode(entry.payload) if entry.is_binary else entry.payload


class Encoding(ABC):
    """What one kind of client is sent; any thread may use it.

    To encode a large event takes long, and to compress it longer, so that is done by the thread
    which publishes it, for all kinds of clients that there are: see :meth:`prepare`. Its id is not
    known yet then, so where that stands within the encoding the rest is prepared. A loop compresses
    no large event: a client of a kind that is new gets it uncompressed.

    Attributes:
        is_per_client: it is one client's alone, and is told of what was :meth:`sent`.
    """

    is_per_client = False

    def sent(self, topic: str, entries: Sequence[Entry]) -> None:  # noqa: B027 - most keep nothing
        """The client has been sent these."""

    def prepare(self, topic: str, entry: Entry) -> None:  # noqa: B027 - some have nothing to do
        """The thread that publishes a large entry: do beforehand what takes long."""

    def forget(self, topic: str) -> None:  # noqa: B027
        """The client is not subscribed to it any more."""

    def block(self, topic: str, entries: Sequence[Entry]) -> bytes:
        """Several entries in one piece; each is encoded once, whoever needs it first."""
        if len(entries) == 1:
            return self.once(topic, entries[0])
        return b"".join([self.once(topic, entry) for entry in entries])

    def once(self, topic: str, entry: Entry) -> bytes:
        """An entry's encoding, which is made when it is needed first."""
        encoded = entry.encoded.get(self)
        if encoded is None:
            # Of two loops that come to it together, both take what the first has made.
            encoded = entry.encoded.setdefault(self, self._encode_any(topic, entry))
        return encoded

    def prepared(self, topic: str, entry: Entry) -> bytes:
        """What was prepared, which is needed but once; or else made now."""
        return entry.encoded.pop(self, None) or self._encode_any(topic, entry)

    def _encode_any(self, topic: str, entry: Entry) -> bytes:
        if entry.last:
            return b""
        if entry.oldest is not None:
            return self.gap(topic, entry.stream_id, entry.oldest)
        return self.encode(topic, entry)

    @abstractmethod
    def encode(self, topic: str, entry: Entry) -> bytes:
        """One event."""

    @abstractmethod
    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        """Something was missed: where the client is now, and the id of the oldest that is left."""

    @abstractmethod
    def stream_start(self, topic: str, cursor: str) -> bytes:
        """Where the client begins."""


class EventStreamEncoding(Encoding):
    """An event of an event stream."""

    def encode(self, topic: str, entry: Entry) -> bytes:
        if entry.is_large:
            return encode_id_field(entry.id or "") + BODIES.prepared(topic, entry)
        return encode_event(text_of(entry), entry.event, entry.id, entry.retry)

    def prepare(self, topic: str, entry: Entry) -> None:
        BODIES.once(topic, entry)

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        told = json.dumps({"topic": topic, "oldest": oldest})
        return ServerSentEvent(told, GAP, cursor).encode()

    def stream_start(self, topic: str, cursor: str) -> bytes:
        return encode_id(cursor)


class _Bodies(EventStreamEncoding):
    """An event without its id."""

    def encode(self, topic: str, entry: Entry) -> bytes:
        return encode_event(text_of(entry), entry.event, None, entry.retry)


BODIES = _Bodies()


class StreamOfMany(EventStreamEncoding):
    """The events of a stream that is subscribed to several topics.

    The id of each event stands for a place in all of them; see ``places.py``. The rest of it is
    encoded once for all clients.
    """

    is_per_client = True

    def __init__(self, places: Places, ids: Mapping[str, str]) -> None:
        self._place = Place(places, ids)

    def block(self, topic: str, entries: Sequence[Entry]) -> bytes:
        return b"".join([self._encode_any(topic, entry) for entry in entries])

    def encode(self, topic: str, entry: Entry) -> bytes:
        moved = self._place.move(topic, entry.id or "")
        if entry.is_large:  # whose id comes first
            body = EVENT_STREAM.once(topic, entry).partition(b"\n")[2]
        else:
            body = BODIES.once(topic, entry)
        return encode_id_field(moved) + body

    def prepare(self, topic: str, entry: Entry) -> None:
        EVENT_STREAM.prepare(topic, entry)

    def sent(self, topic: str, entries: Sequence[Entry]) -> None:
        if entries[-1].last:  # which is not encoded
            self._place.move(topic, entries[-1].id or "")

    def forget(self, topic: str) -> None:
        self._place.forget(topic)

    def expect_only(self, topics: Collection[str]) -> None:
        """The client's stream will be subscribed to no other topic that its last id has."""
        self._place.expect_only(topics)

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        return super().gap(topic, self._place.move(topic, cursor), oldest)

    def stream_start(self, topic: str, cursor: str) -> bytes:
        self._place.move(topic, cursor)
        return self.here()

    def here(self) -> bytes:
        """Where the client is now."""
        return encode_id(self._place.id)


def encode_id(cursor: str) -> bytes:
    """A block without data, which a browser keeps the id of and nothing else.

    (WHATWG HTML section 9.2.6: the last event ID is set before it is looked whether there is data.)
    """
    return encode_id_field(cursor) + b"\n"


def encode_id_field(given: str) -> bytes:
    """The line of an event that has its id."""
    return f"id: {given}\n".encode()


class MessageEncoding(Encoding):
    """A WebSocket message: just the data.

    Args:
        deflate: what was agreed on with the clients; None for no compression.
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
        return b""  # there is no place for it

    def stream_start(self, topic: str, cursor: str) -> bytes:
        return b""


class EnvelopeEncoding(MessageEncoding):
    """A WebSocket message that says what it is: a JSON object with topic, id, event and data.

    Binary data is base64, and then ``binary`` is true. What has no data is a notice: "open" begins,
    with the id to go on from if nothing comes; "gap" tells of a gap, with that id and ``oldest``.
    """

    def encode(self, topic: str, entry: Entry) -> bytes:
        told: dict[str, Any] = {"topic": topic, "id": entry.id, "event": entry.event}
        if entry.is_binary:
            told["binary"] = True
        if entry.is_large:
            head = json.dumps(told, ensure_ascii=False)[:-1].encode()
            message = b'%b, "data": %b}' % (head, _STRINGS.prepared(topic, entry))
            return encode_frame(Opcode.TEXT, message)
        told["data"] = text_of(entry).decode()
        return self.frame(json.dumps(told, ensure_ascii=False))

    def prepare(self, topic: str, entry: Entry) -> None:
        _STRINGS.once(topic, entry)

    def gap(self, topic: str, cursor: str, oldest: str) -> bytes:
        told = {"topic": topic, "id": cursor, "event": GAP, "oldest": oldest}
        return self.frame(json.dumps(told))

    def stream_start(self, topic: str, cursor: str) -> bytes:
        return self.frame(json.dumps({"topic": topic, "id": cursor, "event": "open"}))

    def frame(self, message: str) -> bytes:
        """One message in one frame."""
        if self._deflate is not None:
            return self._deflate.encode(message)
        return encode_frame(Opcode.TEXT, message)


class _Strings(MessageEncoding):
    """The data as a string in JSON."""

    def encode(self, topic: str, entry: Entry) -> bytes:
        return json.dumps(text_of(entry).decode(), ensure_ascii=False).encode()


_STRINGS = _Strings(None)
EVENT_STREAM = EventStreamEncoding()


def message_encoding(deflate: PerMessageDeflate | None, envelope: bool) -> MessageEncoding:
    """The encoding for WebSockets that have agreed on this, the same for as many as can be.

    A compressor that keeps a context is one client's alone; such a client gets what is published
    uncompressed, as RFC 7692 section 6 allows for any message.
    """
    if deflate is not None:
        # What the client does when it sends is the same to us. A window that is smaller than agreed
        # is allowed, and few sizes are kinds enough.
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

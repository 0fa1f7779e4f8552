"""One published event of a topic."""

from __future__ import annotations

from sys import getsizeof

from wsframe import ServerSentEvent
from wsframe.messages import encode_json
from wsframe.sse import check_event

from .ids import check_topic_id

# The maximum size of the name of a topic, an event type or a key, in bytes.
MAX_NAME = 1024
# The maximum size of an event that a loop encodes and compresses, in bytes.
LARGE = 32 * 1024
CONTROLS = bytes(range(32))
# The memory of an entry besides its texts, in bytes: the object, its id, and the log's tables.
ENTRY_COST = 512
# The memory of an encoding's object, in addition to its content, in bytes.
ENCODING_COST = 256


class Entry:
    """A published event; its encodings are made when the first client needs them.

    Attributes:
        payload: the data; text is kept in UTF-8, because the size of a ``str`` depends on its
            widest character.
        is_binary: True if the data is bytes.
        event: the event type; None for "message".
        id: the id after which a client resumes; the log sets it if the publisher does not.
        stream_id: the id in a shared log; "" otherwise.
        oldest: the id of the entry after a gap, if this entry is a gap in a shared log.
        key: the key that the event updates, for the policy "latest".
        retry: the reconnection time of an EventSource, in milliseconds.
        last: True if the entry closes the topic. Such an entry is not an event.
        size: bytes of the data and of the texts of the publisher.
        cost: the memory of the entry without its encodings, in bytes.
        encodings_cost: bytes of memory for the encodings, when they were last counted.
        position: the position in the log; 0 before it is appended.
        published: the time at which the entry was appended, on the monotonic clock.
        encoded: the encodings made so far.
    """

    __slots__ = (
        "cost",
        "encoded",
        "encodings_cost",
        "event",
        "id",
        "is_binary",
        "key",
        "last",
        "oldest",
        "payload",
        "position",
        "published",
        "retry",
        "size",
        "stream_id",
    )

    def __init__(
        self,
        data: str | bytes,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's name in the standard
        *,
        key: str | None = None,
        retry: int | None = None,
        last: bool = False,
        stream_id: str = "",
        oldest: str | None = None,
    ) -> None:
        if event is not None or id is not None or retry is not None:
            check_event(event, id, retry)
        self.is_binary: bool = not isinstance(data, str)
        self.payload: bytes = data.encode() if isinstance(data, str) else data
        self.size: int = len(self.payload)
        for text in (event, key, None if id == stream_id else id):
            if text is not None:
                self.size += size_of(text)
        self.cost: int = ENTRY_COST + self.size
        self.event: str | None = event
        self.id: str | None = id
        self.key: str | None = key
        self.retry: int | None = retry
        self.last: bool = last
        self.stream_id: str = stream_id
        self.oldest: str | None = oldest
        self.position: int = 0
        self.published: float = 0.0
        self.encoded: dict[object, bytes] = {}
        self.encodings_cost: int = 0

    @property
    def data(self) -> str | bytes:
        """The published data: text or bytes."""
        return self.payload if self.is_binary else self.payload.decode()

    @property
    def is_large(self) -> bool:
        """True if encoding the entry takes too long for a loop."""
        return len(self.payload) > LARGE

    def largest_encoding(self) -> int:
        """Return the maximum size of an encoding of the data, without the other fields, in bytes.

        An event stream repeats the field name on each line. In the JSON of an envelope a control
        character takes six bytes, a quotation mark and a backslash two.
        """
        data = self.payload
        if self.is_binary:
            return (len(data) + 2) // 3 * 4
        lines = data.count(b"\n") + data.count(b"\r")
        escaped = data.count(b'"') + data.count(b"\\")
        controls = len(data) - len(data.translate(None, CONTROLS))
        return len(data) + max(len("data: ") * lines, escaped + 5 * controls)

    def count_encodings(self) -> int:
        """Count the memory of the encodings; return the increase since the last count."""
        encoded = tuple(self.encoded.values())
        before = self.encodings_cost
        self.encodings_cost = sum(map(getsizeof, encoded)) + ENCODING_COST * len(encoded)
        return self.encodings_cost - before


def size_of(text: str) -> int:
    """Return the number of bytes of a text in UTF-8.

    Raises:
        ValueError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
    """
    return len(text) if text.isascii() else len(text.encode())


def check_name(what: str, name: str) -> None:
    """Check a name that is stored, and that a client may have sent.

    Args:
        what: the kind of the name, for the error message.
        name: the name of a topic, an event type, or a key.

    Raises:
        ValueError: the name is too long, or contains a lone surrogate.
    """
    size = size_of(name)
    if size > MAX_NAME:
        raise ValueError(
            f"the name of {what} is too long: {name[:40]!r}... has {size} bytes, the limit is "
            f"{MAX_NAME}"
        )


def check_names(event: str | None, id: str | None, key: str | None) -> None:  # noqa: A002
    """Check the type, the id and the key of an event; None for each that is absent.

    Raises:
        ValueError: as :func:`check_topic_id` and :func:`check_name`.
    """
    if id is not None:
        check_topic_id(id)
    if event is not None:
        check_name("an event", event)
    if key is not None:
        check_name("a key", key)


def as_entry(
    item: object,
    event: str | None = None,
    id: str | None = None,  # noqa: A002
    key: str | None = None,
) -> Entry:
    """Return the entry for a published item.

    Raises:
        TypeError: JSON cannot encode the item.
        ValueError: as :meth:`wsframe.server.Topic.publish`.
    """
    retry = None
    if isinstance(item, ServerSentEvent):
        event = item.event if event is None else event
        id = item.id if id is None else id  # noqa: A001
        retry, item = item.retry, item.data
    # This code may call methods of the user's classes, so it never runs on a loop or under a
    # topic's lock.
    event, id, key = map(plain, (event, id, key))  # noqa: A001
    check_names(event, id, key)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return Entry(memoryview(item).tobytes(), event, id, key=key)
    return Entry(as_text(item), event, id, key=key, retry=retry)


def plain(text: str | None) -> str | None:
    """Return a plain ``str``, without calling methods of a user's subclass."""
    return None if text is None else str.__str__(text)


def as_text(item: object) -> str:
    """Return the text for an item: the item itself if it is a ``str``, or else its JSON."""
    return str.__str__(item) if isinstance(item, str) else encode_json(item)

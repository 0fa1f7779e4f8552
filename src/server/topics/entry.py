"""One event of a topic, as it was published."""

from __future__ import annotations

import json
from sys import getsizeof

from wsframe import ServerSentEvent
from wsframe.sse import check_event

from .ids import check_topic_id

# How many bytes a name may have: of a topic, an event, or a key.
MAX_NAME = 1024
# How many bytes of data may be compressed and encoded on a loop.
LARGE = 32 * 1024
CONTROLS = bytes(range(32))
# What an entry takes besides its texts: the object, its id, its places in the log's tables.
ENTRY_COST = 512
# What an encoding takes besides its bytes: its places in tables.
ENCODING_COST = 256


class Entry:
    """What was published, once; its encodings are made when the first client needs them.

    Attributes:
        payload: the data; text is in UTF-8, so that its size is known whatever is in it.
        is_binary: whether the data is bytes, and no text.
        event: the type that an EventSource listens for; None for "message".
        id: what a client says that comes back; one that is not given comes from the topic's log.
        stream_id: what the entry is called in a log that is shared.
        oldest: it is a gap in a shared log, and this the id of what follows it.
        key: what the event is the newest news of, where a topic keeps but the newest.
        retry: how long an EventSource is to wait before it comes back, in milliseconds.
        last: nothing is published after it, and it is no event itself.
        size: bytes of the data and of what else was given.
        cost: bytes of memory, without the encodings.
        encodings_cost: bytes of memory for the encodings, when they were last counted.
        position: how many entries of its log came before it, and it.
        published: when it came into the log, on the monotonic clock.
        encoded: what has been made of it so far.
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
        self.is_binary = not isinstance(data, str)
        self.payload = data.encode() if isinstance(data, str) else data
        self.size = len(self.payload)
        for text in (event, key, None if id == stream_id else id):
            if text is not None:
                self.size += size_of(text)
        self.cost = ENTRY_COST + self.size
        self.event = event
        self.id = id
        self.key = key
        self.retry = retry
        self.last = last
        self.stream_id = stream_id
        self.oldest = oldest
        self.position = 0
        self.published = 0.0
        self.encoded: dict[object, bytes] = {}
        self.encodings_cost = 0

    @property
    def data(self) -> str | bytes:
        """What was published: a text message, or a binary one."""
        return self.payload if self.is_binary else self.payload.decode()

    @property
    def is_large(self) -> bool:
        """Whether to encode it would hold up a loop."""
        return len(self.payload) > LARGE

    def largest_encoding(self) -> int:
        """How many bytes its largest encoding can have, without what stands beside the data.

        An event stream repeats the name of the field on each line. In the JSON of an envelope a
        control character takes six bytes, a quotation mark and a backslash two.
        """
        data = self.payload
        if self.is_binary:
            return (len(data) + 2) // 3 * 4
        lines = data.count(b"\n") + data.count(b"\r")
        escaped = data.count(b'"') + data.count(b"\\")
        controls = len(data) - len(data.translate(None, CONTROLS))
        return len(data) + max(len("data: ") * lines, escaped + 5 * controls)

    def count_encodings(self) -> int:
        """Count what the encodings take; return how much more it is than before."""
        encoded = tuple(self.encoded.values())
        before = self.encodings_cost
        self.encodings_cost = sum(map(getsizeof, encoded)) + ENCODING_COST * len(encoded)
        return self.encodings_cost - before


def size_of(text: str) -> int:
    """How many bytes a text has in UTF-8.

    Raises:
        ValueError: there is a lone surrogate in it, which UTF-8 has no form for.
    """
    return len(text) if text.isascii() else len(text.encode())


def check_name(what: str, name: str) -> None:
    """Check a name that is kept, and may come from a client.

    Args:
        what: what it names.
        name: of a topic, an event, or a key.

    Raises:
        ValueError: it is too long, or UTF-8 has no form for it.
    """
    size = size_of(name)
    if size > MAX_NAME:
        raise ValueError(
            f"the name of {what} must have at most {MAX_NAME} bytes: {name[:40]!r} and so on has "
            f"{size}"
        )


def check_names(event: str | None, id: str | None, key: str | None) -> None:  # noqa: A002
    """Check the names that an entry has; None for one that it lacks.

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
    """The entry for what somebody publishes.

    Raises:
        TypeError: JSON has no form for the item.
        ValueError: as :meth:`wsframe.server.Topic.publish` says.
    """
    retry = None
    if isinstance(item, ServerSentEvent):
        event = item.event if event is None else event
        id = item.id if id is None else id  # noqa: A001
        retry, item = item.retry, item.data
    # Methods of the user's own classes run here, and never on a loop or under a topic's lock.
    event, id, key = map(plain, (event, id, key))  # noqa: A001
    check_names(event, id, key)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return Entry(memoryview(item).tobytes(), event, id, key=key)
    return Entry(as_text(item), event, id, key=key, retry=retry)


def plain(text: str | None) -> str | None:
    """The characters of a ``str``, whatever class of the user's it may be of."""
    return None if text is None else str.__str__(text)


def as_text(item: object) -> str:
    """The text for an item: itself if it is a ``str``, or else its JSON."""
    return str.__str__(item) if isinstance(item, str) else json.dumps(item, allow_nan=False)

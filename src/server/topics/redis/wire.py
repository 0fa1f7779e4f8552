"""Entries of topics as fields of the entries of a Redis stream.

The fields are ``n``, the number of the entry in its topic; ``d`` (text) or ``b`` (bytes) for the
data; ``e``, ``i``, ``k`` and ``r`` for the event type, the id, the key and the retry time; ``l``
for the last entry. A gap has only ``n`` and ``g``, the number of lost events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..entry import Entry, check_names
from ..ids import place_of


@dataclass(frozen=True)
class StreamEntry:
    """An entry as read from a stream.

    Attributes:
        id: the id in the stream.
        n: the number in the topic; 0 without a number, because another program has added it.
        entry: the entry; None for a gap, or an invalid entry.
        fault: the reason why the entry is invalid; "" for a valid entry and for a gap.
    """

    id: str
    n: int
    entry: Entry | None
    fault: str = ""


@dataclass(frozen=True)
class TopicSnapshot:
    """The state of a topic in Redis when it is followed or looked up.

    Attributes:
        floor_id: an id after which no entry has been removed.
        n: the number of entries ever added.
        closed_id: the id of the last entry; "" if the topic is not closed.
        time: the clock of Redis, in milliseconds.
        life: a text that distinguishes the topic from an earlier one of the same name.
        has_position: True if the requested position is in the stream.
        entries: the newest entries, in order.
    """

    floor_id: str
    n: int
    closed_id: str
    time: int
    life: bytes
    has_position: bool
    entries: list[StreamEntry]


def fields(entry: Entry) -> list[bytes]:
    """Return an entry as fields.

    Raises:
        ValueError: a text contains a lone surrogate, which cannot be encoded as UTF-8.
    """
    named: list[tuple[str, object]] = [("b" if entry.is_binary else "d", entry.data)]
    for name, value in (("e", entry.event), ("i", entry.id), ("k", entry.key), ("r", entry.retry)):
        if value is not None:
            named.append((name, value))
    if entry.last:
        named.append(("l", 1))
    return [
        value if isinstance(value, bytes) else str(value).encode()
        for field in named
        for value in field
    ]


def read_entry(stream_id: bytes, fields: Mapping[bytes, bytes]) -> StreamEntry:
    """Return an entry from its id and fields."""
    name, number = stream_id.decode(), fields.get(b"n", b"")
    n = int(number) if number.isdigit() and len(number) < 16 else 0
    if not n:
        return StreamEntry(name, 0, None, "it has no number")
    if b"g" in fields:
        return StreamEntry(name, n, None)
    try:
        return StreamEntry(name, n, _entry(name, fields))
    except ValueError as error:
        return StreamEntry(name, n, None, str(error))


def _entry(stream_id: str, fields: Mapping[bytes, bytes]) -> Entry:
    def text(name: bytes) -> str | None:
        value = fields.get(name)
        return None if value is None else value.decode()

    own_id, binary, retry = text(b"i"), fields.get(b"b"), text(b"r")
    event, key = text(b"e"), text(b"k")
    check_names(event, own_id, key)
    if binary is None and b"d" not in fields:
        raise ValueError("the entry has no data")
    return Entry(
        (text(b"d") or "") if binary is None else binary,
        event,
        own_id or stream_id,
        key=key,
        retry=None if retry is None else int(retry),
        last=b"l" in fields,
        stream_id=stream_id,
    )


def read_snapshot(
    reply: tuple[bytes, bytes, bytes, bytes, bytes, int, Iterable[tuple[bytes, list[bytes]]]],
) -> TopicSnapshot:
    """Return the result of the script OPEN as a snapshot."""
    floor_id, n, closed_id, now, life, has_position, newest = reply
    entries = [
        read_entry(stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
        for stream_id, fields in newest
    ]
    entries.reverse()
    return TopicSnapshot(
        floor_id.decode(), int(n), closed_id.decode(), int(now), life, bool(has_position), entries
    )


def age_of(stream_id: str, time: int) -> float:
    """Return the age of an entry in seconds, by the clock of Redis."""
    return max(0, time - place_of(stream_id)[0]) / 1000

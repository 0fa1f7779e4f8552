"""Entries of topics as fields of the entries of a Redis stream.

The fields are ``n``, the number of the entry in its topic; ``d`` (text) or ``b`` (bytes) for the
data; ``e``, ``i``, ``k`` and ``r`` for the event type, the id, the key and the retry time; ``l``
for the last entry. In place of them ``g`` tells that so many events were lost here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..entry import Entry, check_names
from ..ids import place_of


@dataclass(frozen=True)
class StreamEntry:
    """An entry as it came from a stream.

    Attributes:
        id: the stream's.
        n: its number in the topic; 0 if it has none, because another program has added it.
        entry: None if it is no event of ours.
        fault: why it is none; "" for a gap.
    """

    id: str
    n: int
    entry: Entry | None
    fault: str = ""


@dataclass(frozen=True)
class TopicSnapshot:
    """What a topic is when it begins to be followed, or is checked.

    Attributes:
        floor_id: an id after which nothing has been removed.
        n: how many entries it ever had.
        closed_id: of the last; "" if the topic is not closed.
        time: the clock of Redis, in milliseconds.
        life: tells the topic from one that stood there before it.
        found: whether the position that was asked for is in it.
        entries: the newest, in order.
    """

    floor_id: str
    n: int
    closed_id: str
    time: int
    life: bytes
    found: bool
    entries: list[StreamEntry]


def fields(entry: Entry) -> list[bytes]:
    """An entry as fields.

    Raises:
        ValueError: UTF-8 has no form for a text in it.
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
    """An entry from its id and fields."""
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

    given, binary, retry = text(b"i"), fields.get(b"b"), text(b"r")
    event, key = text(b"e"), text(b"k")
    check_names(event, given, key)
    if binary is None and b"d" not in fields:
        raise ValueError("it has no data")
    return Entry(
        (text(b"d") or "") if binary is None else binary,
        event,
        given or stream_id,
        key=key,
        retry=None if retry is None else int(retry),
        last=b"l" in fields,
        stream_id=stream_id,
    )


def read_snapshot(
    reply: tuple[bytes, bytes, bytes, bytes, bytes, int, Iterable[tuple[bytes, list[bytes]]]],
) -> TopicSnapshot:
    """What the script OPEN has returned."""
    floor_id, n, closed_id, now, life, found, newest = reply
    entries = [
        read_entry(stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
        for stream_id, fields in newest
    ]
    entries.reverse()
    return TopicSnapshot(
        floor_id.decode(), int(n), closed_id.decode(), int(now), life, bool(found), entries
    )


def age_of(stream_id: str, time: int) -> float:
    """How old an entry is, in seconds, by the clock of Redis."""
    return max(0, time - place_of(stream_id)[0]) / 1000

"""Entries of topics as fields of a Redis stream's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from ..reports.loggers import log
from .entry import Entry
from .ids import place_of


@dataclass(frozen=True)
class Numbered:
    """An entry as it came from a stream.

    Attributes:
        id: the stream's.
        n: how many the topic had with it.
        entry: None if it is none of ours.
    """

    id: str
    n: int
    entry: Entry | None


@dataclass(frozen=True)
class Opened:
    """What a topic is when it begins to be followed, or is looked at again.

    Attributes:
        floor_id: an id after which nothing has been removed.
        n: how many entries it ever had.
        closed_id: of the last; "" if the topic is not closed.
        numbered: the newest, in order.
    """

    floor_id: str
    n: int
    closed_id: str
    numbered: list[Numbered]


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


def numbered(stream_id: bytes, fields: Mapping[bytes, bytes]) -> Numbered:
    """An entry from its id and fields."""
    name = stream_id.decode()
    try:
        return Numbered(name, int(fields.get(b"n", 0)), _entry(name, fields))
    except ValueError as error:
        log.error("a stream of Redis has something that is no event: %s", error)
        return Numbered(name, 0, None)


def _entry(stream_id: str, fields: Mapping[bytes, bytes]) -> Entry:
    def text(name: bytes) -> str | None:
        value = fields.get(name)
        return None if value is None else value.decode()

    binary, retry = fields.get(b"b"), text(b"r")
    return Entry(
        (text(b"d") or "") if binary is None else binary,
        text(b"e"),
        text(b"i") or stream_id,
        key=text(b"k"),
        retry=None if retry is None else int(retry),
        last=b"l" in fields,
        stream_id=stream_id,
    )


def opened(
    reply: tuple[bytes, bytes, bytes, bytes, Iterable[tuple[bytes, list[bytes]]]],
) -> Opened:
    """What the script OPEN has answered; the entries are as old here as they are there."""
    floor_id, n, closed_id, now, newest = reply
    entries = [
        numbered(stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
        for stream_id, fields in newest
    ]
    entries.reverse()
    for item in entries:
        if item.entry is not None:
            time, _ = place_of(item.id)
            item.entry.published = monotonic() - max(0, int(now) - time) / 1000
    return Opened(floor_id.decode(), int(n), closed_id.decode(), entries)

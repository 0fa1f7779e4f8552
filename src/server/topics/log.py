"""The log of a topic: what was published, as far back as it is kept."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from .entry import Entry

# What an entry weighs besides its bytes, where it counts what there is to do.
ENTRY_WEIGHT = 64
# How many positions of entries that are gone are kept, besides as many as there are entries.
SPARE_POSITIONS = 100
# How many entries are forgotten at once where others may wait for that.
TRIM_SLICE = 256
# What a topic may take besides its history: for the newest event, whoever is behind, the encodings.
SPARE_BYTES = 2 << 20


@dataclass(frozen=True)
class Bounds:
    """How much a topic keeps.

    Attributes:
        history: how many events, at most, for clients that come back.
        max_bytes: how many bytes of them; and of those that wait for a client that is too slow.
        max_age: how old they may be, in seconds.

    In memory an event takes more than its bytes. Whatever is published and however slowly it is
    read, a topic takes at most three times ``max_bytes``, and 8 MiB: the other properties are the
    parts of that.
    """

    history: int = 256
    max_bytes: int = 1 << 20
    max_age: float = 300.0

    def __post_init__(self) -> None:
        for name in ("history", "max_bytes", "max_age"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} must not be negative: {value!r}")

    @property
    def largest_event(self) -> int:
        """How many bytes an event may have, in its largest encoding."""
        return self.max_bytes + SPARE_BYTES

    @property
    def entries_cost(self) -> int:
        """How many bytes of memory the entries may take, but for the newest."""
        return self.max_bytes + SPARE_BYTES

    @property
    def encodings_cost(self) -> int:
        """How many bytes of memory their encodings may take."""
        return self.max_bytes // 2 + SPARE_BYTES // 2


class Log:
    """Entries in order; each has a position, which is how many were ever put in up to it.

    Not thread-safe: it is its topic's, under the topic's lock.

    Args:
        bounds: what is kept.
        clock: dates the entries, in seconds; see :class:`wsframe.server.timing.Timing`.
        head, offset, floor_id: of the log that this one continues.

    Attributes:
        head: the position of the newest; 0 before the first.
        floor: the position of the newest that is gone. What is left is all that came after it.
        size: bytes of what is left.
        cost: bytes of memory of that, without encodings.
        encodings_cost: bytes of memory of the encodings, when they were last counted.
        offset: the weight of all that was ever put in.
        ended: the newest is the last; it is kept, and is no event.
        floor_id, head_id: what the floor and the head are called in a log that is shared.
    """

    def __init__(
        self,
        bounds: Bounds,
        clock: Callable[[], float],
        head: int = 0,
        offset: int = 0,
        floor_id: str = "",
    ) -> None:
        self.bounds = bounds
        self.clock = clock
        self.floor_id = self.head_id = floor_id
        self.head = head
        self.floor = head
        self.size = 0
        self.cost = 0
        self.encodings_cost = 0
        self.offset = offset
        self.ended = False
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._encoded: OrderedDict[int, Entry] = OrderedDict()  # of these, with encodings
        self._given: dict[str, int] = {}  # positions by ids that are not the log's own
        self._given_to_floor: str | None = None

    def __len__(self) -> int:
        return len(self._entries) - self.ended

    @property
    def end(self) -> int:
        """The position of the newest event."""
        return self.head - self.ended

    def append(self, entry: Entry) -> None:
        """Put an entry behind the others."""
        self.head += 1
        self.size += entry.size
        self.cost += entry.cost
        self.offset += entry.size + ENTRY_WEIGHT
        entry.position = self.head
        entry.published = entry.published or self.clock()
        self._entries[self.head] = entry
        self.head_id = entry.stream_id
        self.ended = entry.last
        if entry.id is not None:
            self._given[entry.id] = self.head

    def oldest(self) -> Entry | None:
        """The oldest that is left."""
        return next(iter(self._entries.values()), None)

    def after(self, position: int, to: int, weight: float = inf) -> tuple[list[Entry], int]:
        """What is left after one position, up to another, and up to where it is.

        It is the first of it, if it weighs more than that: bytes, and so much for each entry. An
        entry that weighs more by itself is alone.
        """
        found: list[Entry] = []
        for entry in self._between(position, to):
            weight -= entry.size + ENTRY_WEIGHT
            if weight < 0 and found:
                return found, found[-1].position
            found.append(entry)
        return found, to

    def _between(self, position: int, to: int) -> Iterator[Entry]:
        return map(self._entries.__getitem__, range(max(position, self.floor) + 1, to + 1))

    def newest_to(self, position: int) -> Entry | None:
        """The newest that is left, up to a position."""
        if position <= self.floor:
            return None
        return self._entries.get(position) or next(
            (entry for entry in reversed(self._entries.values()) if entry.position <= position),
            None,
        )

    def newest_by(self, place: Any, order: Callable[[Entry], Any]) -> int:
        """The position of the newest that is left and not past a place; or the floor."""
        positions = self._positions()
        index = bisect_right(positions, place, key=lambda here: order(self._entries[here]))
        return positions[index - 1] if index else self.floor

    def _positions(self) -> Sequence[int]:
        return range(self.floor + 1, self.head + 1)

    def position_of(self, given: str) -> int | None:
        """Where the entry is, or the newest that is gone, that was given this id; or None."""
        return self._given.get(given, self.floor if given == self._given_to_floor else None)

    def begin(self) -> int:
        """The position before the history; more may be left, for those that are too slow."""
        return max(self.floor, self.end - self.bounds.history)

    def count_encodings(self, entries: Iterable[Entry], cost: float = inf) -> None:
        """Count the encodings of these entries; past a bound, forget those of the oldest.

        Args:
            entries: some of them may be gone.
            cost: how much memory all encodings may take, if that is less than the bound.
        """
        for entry in entries:
            if self._entries.get(entry.position) is entry:
                self.encodings_cost += entry.count_encodings()
                self._encoded[entry.position] = entry
        cost = min(cost, self.bounds.encodings_cost)
        while self.encodings_cost > cost and self._encoded:
            _, entry = self._encoded.popitem(last=False)
            entry.encoded = {}
            self.encodings_cost += entry.count_encodings()

    def trim(self, needed: Callable[[Entry], bool], cost: float = inf, count: float = inf) -> bool:
        """Forget what is past the bounds, up to the first entry that is needed all the same.

        Args:
            needed: tells it of an entry.
            cost: how much memory the entries may take, needed or not; the newest may take more.
            count: how many entries to forget at most.

        Returns:
            False if there are more to be forgotten.
        """
        entries, bounds, now = self._entries, self.bounds, self.clock()
        for left in range(len(entries) - self.ended, 0, -1):
            entry = next(iter(entries.values()))
            if (self.cost <= cost or left == 1) and (
                (
                    left <= bounds.history
                    and self.size <= bounds.max_bytes
                    and entry.published + bounds.max_age >= now
                )
                or needed(entry)
            ):
                break
            if count <= 0:
                return False
            count -= 1
            self._forget(entry)
            self.floor, self.floor_id = entry.position, entry.stream_id
            self._given_to_floor = entry.id
        return True

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.position]
        self.size -= entry.size
        self.cost -= entry.cost
        self.encodings_cost -= entry.encodings_cost
        self._encoded.pop(entry.position, None)
        if entry.id is not None and self._given.get(entry.id) == entry.position:
            del self._given[entry.id]


class LatestLog(Log):
    """The newest entry of each key; no other is of interest to anybody."""

    def __init__(
        self,
        bounds: Bounds,
        clock: Callable[[], float],
        head: int = 0,
        offset: int = 0,
        floor_id: str = "",
    ) -> None:
        super().__init__(bounds, clock, head, offset, floor_id)
        self._newest: dict[str | None, Entry] = {}
        self._order: list[int] = []  # positions, some of them of entries that are gone

    def append(self, entry: Entry) -> None:
        """Put an entry behind the others, and forget what it replaces."""
        if not entry.last:
            old = self._newest.pop(entry.key, None)
            if old is not None:
                super()._forget(old)
            self._newest[entry.key] = entry
        super().append(entry)
        self._order.append(self.head)
        if len(self._order) > 2 * len(self._entries) + SPARE_POSITIONS:
            self._order = list(self._entries)

    def begin(self) -> int:
        """The position before all keys."""
        return self.floor

    def _positions(self) -> Sequence[int]:
        return list(self._entries)

    def _between(self, position: int, to: int) -> Iterator[Entry]:
        for index in range(bisect_right(self._order, position), len(self._order)):
            if self._order[index] > to:
                return
            entry = self._entries.get(self._order[index])
            if entry is not None:
                yield entry

    def _forget(self, entry: Entry) -> None:
        super()._forget(entry)
        if self._newest.get(entry.key) is entry:
            del self._newest[entry.key]

"""The log of a topic: its published entries, with limits on number, size and age."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from .entry import Entry
from .sizes import DEFAULT_SIZES

# The weight of an entry is its size plus this number, as a measure of work.
ENTRY_WEIGHT = 64
# The maximum number of entries that a loop drops in one call.
TRIM_SLICE = 256
# The memory of a topic beyond its history, for the newest event, lagging clients and encodings.
SPARE_BYTES = 2 << 20


@dataclass(frozen=True)
class Bounds:
    """The limits of a topic's log.

    Attributes:
        history: the maximum number of events kept for clients that reconnect.
        max_bytes: the maximum size of these events, and of events kept for slow clients, in bytes.
        max_age: the maximum age of these events, in seconds.

    In memory an event takes more than its size. With any events and any clients, a topic takes at
    most three times ``max_bytes`` plus 8 MiB. The other properties are the parts of this limit.
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
        """The maximum size of an event in its largest encoding, in bytes."""
        return self.max_bytes + SPARE_BYTES

    @property
    def entries_cost(self) -> int:
        """The maximum memory of the entries except the newest, in bytes."""
        return self.max_bytes + SPARE_BYTES

    @property
    def encodings_cost(self) -> int:
        """The maximum memory of the encodings, in bytes."""
        return self.max_bytes // 2 + SPARE_BYTES // 2


class Log:
    """Entries in order; the first entry ever appended has position 1, the next one position 2.

    Not thread-safe: the caller holds the topic's lock.

    Args:
        bounds: the limits of the log.
        clock: the clock of :class:`wsframe.server.timing.Timing`, in seconds.
        head: the head of the log that this one continues.
        offset: the offset of that log.
        floor_id: the id of the floor in a shared log.

    Attributes:
        head: the position of the newest entry; 0 before the first.
        floor: the position of the newest dropped entry; all later entries are kept.
        size: the size of the kept entries, in bytes.
        cost: the memory of the kept entries without encodings, in bytes.
        encodings_cost: bytes of memory of the encodings, when they were last counted.
        offset: the weight of all entries ever appended.
        ended: True if the newest entry closes the topic. This entry is kept, and is not an event.
        floor_id: the id of the floor in a shared log.
        head_id: the id of the head in a shared log.
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
        self.floor_id: str = floor_id
        self.head_id: str = floor_id
        self.head: int = head
        self.floor: int = head
        self.size: int = 0
        self.cost: int = 0
        self.encodings_cost: int = 0
        self.offset: int = offset
        self.ended: bool = False
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._encoded: OrderedDict[int, Entry] = OrderedDict()  # the entries that have encodings
        # The positions of entries, by ids that publishers chose.
        self._published_ids: dict[str, int] = {}
        self._published_id_of_floor: str | None = None

    def successor(self, floor_id: str) -> Log:
        """Return an empty log that continues this one after the id of its floor."""
        return Log(self.bounds, self.clock, self.head, self.offset, floor_id)

    def __len__(self) -> int:
        return len(self._entries) - self.ended

    @property
    def end(self) -> int:
        """The position of the newest event."""
        return self.head - self.ended

    def append(self, entry: Entry) -> None:
        """Append an entry."""
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
            self._published_ids[entry.id] = self.head

    def oldest(self) -> Entry | None:
        """Return the oldest entry; None if the log is empty."""
        return next(iter(self._entries.values()), None)

    def after(self, position: int, to: int, weight: float = inf) -> tuple[list[Entry], int]:
        """Return the entries after ``position`` up to ``to``, and the last one's position.

        The entries end before their weight is exceeded. A single entry of more weight is returned
        alone.
        """
        entries: list[Entry] = []
        for entry in self._between(position, to):
            weight -= entry.size + ENTRY_WEIGHT
            if weight < 0 and entries:
                return entries, entries[-1].position
            entries.append(entry)
        return entries, to

    def _between(self, position: int, to: int) -> Iterator[Entry]:
        return map(self._entries.__getitem__, range(max(position, self.floor) + 1, to + 1))

    def newest_to(self, position: int) -> Entry | None:
        """Return the newest entry up to a position; None if it was dropped."""
        if position <= self.floor:
            return None
        return self._entries.get(position) or next(
            (entry for entry in reversed(self._entries.values()) if entry.position <= position),
            None,
        )

    def newest_by(self, place: Any, order: Callable[[Entry], Any]) -> int:
        """Return the position of the newest entry whose key is at most ``place``; or the floor.

        Args:
            place: the key.
            order: a function that returns the key of an entry; keys increase within the log.
        """
        positions = self._positions()
        index = bisect_right(positions, place, key=lambda here: order(self._entries[here]))
        return positions[index - 1] if index else self.floor

    def _positions(self) -> Sequence[int]:
        return range(self.floor + 1, self.head + 1)

    def position_of(self, event_id: str) -> int | None:
        """Return the position of the entry with an id chosen by its publisher; None if unknown."""
        floor = self.floor if event_id == self._published_id_of_floor else None
        return self._published_ids.get(event_id, floor)

    def begin(self) -> int:
        """Return the position before the ``history`` newest entries; the log may keep more."""
        return max(self.floor, self.end - self.bounds.history)

    def count_encodings(self, entries: Iterable[Entry], cost: float = inf) -> None:
        """Count the encodings of entries; beyond the limit, drop the oldest entries' encodings.

        Args:
            entries: the entries; forgotten ones are ignored.
            cost: a limit for the memory of all encodings, if it is below the bound.
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
        """Drop the oldest entries beyond the limits, up to the first entry that is needed.

        Args:
            needed: a function that returns True for an entry that must be kept.
            cost: a limit for the memory of the entries, needed or not, except the newest.
            count: the maximum number of entries to drop.

        Returns:
            False if more entries must be dropped.
        """
        entries, bounds, now = self._entries, self.bounds, self.clock()
        for remaining in range(len(entries) - self.ended, 0, -1):
            entry = next(iter(entries.values()))
            if (self.cost <= cost or remaining == 1) and (
                (
                    remaining <= bounds.history
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
            self._published_id_of_floor = entry.id
        return True

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.position]
        self.size -= entry.size
        self.cost -= entry.cost
        self.encodings_cost -= entry.encodings_cost
        self._encoded.pop(entry.position, None)
        if entry.id is not None and self._published_ids.get(entry.id) == entry.position:
            del self._published_ids[entry.id]


class LatestLog(Log):
    """A log that keeps only the newest entry of each key.

    Args:
        spare_positions: see :class:`wsframe.server.topics.sizes.Sizes`.
    """

    def __init__(
        self,
        bounds: Bounds,
        clock: Callable[[], float],
        head: int = 0,
        offset: int = 0,
        floor_id: str = "",
        *,
        spare_positions: int = DEFAULT_SIZES.spare_positions,
    ) -> None:
        super().__init__(bounds, clock, head, offset, floor_id)
        self._spare_positions = spare_positions
        self._newest: dict[str | None, Entry] = {}
        self._order: list[int] = []  # the positions of all entries, and of some dropped ones

    def successor(self, floor_id: str) -> LatestLog:
        """Return an empty log that continues this one after the id of its floor."""
        return LatestLog(
            self.bounds,
            self.clock,
            self.head,
            self.offset,
            floor_id,
            spare_positions=self._spare_positions,
        )

    def append(self, entry: Entry) -> None:
        """Append an entry, and drop the entry that it replaces."""
        if not entry.last:
            old = self._newest.pop(entry.key, None)
            if old is not None:
                super()._forget(old)
            self._newest[entry.key] = entry
        super().append(entry)
        self._order.append(self.head)
        if len(self._order) > 2 * len(self._entries) + self._spare_positions:
            self._order = list(self._entries)

    def begin(self) -> int:
        """Return the position before the oldest entry."""
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

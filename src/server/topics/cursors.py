"""Cursors: the ids that name positions in a topic's log, so that a client can resume."""

from __future__ import annotations

from secrets import token_urlsafe
from typing import Protocol

from .ids import STREAM_ID, place_of
from .log import LatestLog, Log


class Ids(Protocol):
    """The mapping between positions in one log and cursors. The caller holds the topic's lock."""

    def cursor(self, log: Log, position: int) -> str:
        """Return the cursor with which a client resumes after a position."""

    def position(self, log: Log, cursor: str) -> int | None:
        """Return the position that a cursor names; None if the cursor is not of this log.

        Entries after a position before the floor were dropped. The entry at a position past the
        head has not arrived yet.
        """


class EpochIds:
    """The cursors of a log in this process: a random epoch, and the position.

    The epoch distinguishes these cursors from those of other logs and other processes.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Invalidate all cursors that were issued before."""
        self._epoch = token_urlsafe(8)

    def cursor(self, log: Log, position: int) -> str:
        """Return the cursor with which a client resumes after a position."""
        return f"{self._epoch}-{position}"

    def position(self, log: Log, cursor: str) -> int | None:
        """Return the position that a cursor names; None if the cursor is not of this log."""
        epoch, _, number = cursor.rpartition("-")
        if epoch != self._epoch or not STREAM_ID.fullmatch(f"0-{number}"):
            return None
        return int(number) if int(number) <= log.head else None


class StreamIds:
    """The cursors of a shared log: the ids of its entries, a time and a number."""

    def cursor(self, log: Log, position: int) -> str:
        """Return the cursor with which a client resumes after a position."""
        entry = log.newest_to(position)
        return log.floor_id if entry is None else entry.stream_id

    def position(self, log: Log, cursor: str) -> int | None:
        """Return the position that a cursor names; None if the cursor is not of this log."""
        if not STREAM_ID.fullmatch(cursor):
            return None
        if place_of(cursor) < place_of(log.floor_id):
            return log.floor - 1  # entries after this cursor were dropped
        if place_of(cursor) > place_of(log.head_id):
            return log.head + 1
        position = log.newest_by(place_of(cursor), lambda entry: place_of(entry.stream_id))
        # An unknown id between two known ones was lost in a failover, with the entries after it. In
        # a LatestLog it may belong to an entry that a newer entry with the same key has replaced.
        if isinstance(log, LatestLog) or self.cursor(log, position) == cursor:
            return position
        return None

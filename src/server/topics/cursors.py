"""How the places in a topic's log are called, so that a client can say where it was."""

from __future__ import annotations

from secrets import token_urlsafe
from typing import Protocol

from .ids import STREAM_ID, place_of
from .log import LatestLog, Log


class Ids(Protocol):
    """The names of the places in one log; under the topic's lock."""

    def cursor(self, log: Log, position: int) -> str:
        """What to say to go on after this position."""

    def position(self, log: Log, cursor: str) -> int | None:
        """The position that a cursor names; None if it is none of this log.

        One before the floor stands for all that are gone, one past the head for all that have not
        come yet.
        """


class EpochIds:
    """The ids of a log that lives in this process alone: a random epoch, and the position.

    The epoch makes them unlike those of any other log, before a restart or after it.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Make what was named before unknown."""
        self._epoch = token_urlsafe(8)

    def cursor(self, log: Log, position: int) -> str:
        """What to say to go on after this position."""
        return f"{self._epoch}-{position}"

    def position(self, log: Log, cursor: str) -> int | None:
        """The position that a cursor names; None if it is none of this log."""
        epoch, _, number = cursor.rpartition("-")
        if epoch != self._epoch or not STREAM_ID.fullmatch(f"0-{number}"):
            return None
        return int(number) if int(number) <= log.head else None


class StreamIds:
    """The ids of a log that is shared: those of its Redis stream, a time and a number."""

    def cursor(self, log: Log, position: int) -> str:
        """What to say to go on after this position."""
        entry = log.newest_to(position)
        return log.floor_id if entry is None else entry.stream_id

    def position(self, log: Log, cursor: str) -> int | None:
        """The position that a cursor names; None if it is none of this log.

        One past the head is that of an event that has not come yet.
        """
        if not STREAM_ID.fullmatch(cursor):
            return None
        if place_of(cursor) < place_of(log.floor_id):
            return log.floor - 1  # what came after it is gone
        if place_of(cursor) > place_of(log.head_id):
            return log.head + 1
        position = log.newest_by(place_of(cursor), lambda entry: place_of(entry.stream_id))
        # An id between two others was lost with the server that had it, and what followed it, too;
        # unless it is that of an entry which a newer one of its key has replaced.
        if isinstance(log, LatestLog) or self.cursor(log, position) == cursor:
            return position
        return None

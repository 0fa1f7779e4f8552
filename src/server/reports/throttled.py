"""A rate limit for log lines that any client may cause."""

from __future__ import annotations

from math import inf
from time import monotonic

from ..timing import Timing
from .background import AtomicCounter
from .loggers import background, log, message_of


class ThrottledLog:
    """A log of one kind of problem: the first line, then at most one line per interval.

    Further lines within the interval are counted. At the end of the interval, one line reports
    their number and the text of the last one. So every line is logged or counted, and a flood
    causes one line per interval.

    Args:
        interval: minimum time between two lines, in seconds.
    """

    def __init__(self, interval: float = Timing.log_throttle) -> None:
        self._interval = interval
        self._next = -inf
        self._suppressed = AtomicCounter()
        self._reported = 0  # the number of suppressed lines that were reported
        self._last = (0, "")  # the level and text of the last suppressed line
        self._count_token: list[None] = [None]  # the holder of this token may change self._reported
        self._summary_token: list[None] = [None]  # the holder of this token schedules a summary

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Any thread: log this line now, or count it.

        Args:
            level: as in :mod:`logging`.
            text: the message, with "%s" and the like for the arguments.
            *arguments: as for ``log.log``.
        """
        if not log.isEnabledFor(level):
            return
        line = message_of(text, arguments)
        now = monotonic()
        if now >= self._next:
            self._next = now + self._interval
            number = self._take_count()
            before = f" ({number} similar messages before it were suppressed)" if number else ""
            log.log(level, f"{line}{before}", stacklevel=2)
            return
        self._last = (level, line)
        self._suppressed.add()
        try:
            self._summary_token.pop()
        except IndexError:
            return  # a summary is already scheduled
        background.call_later(self._next - now, self._summarize)

    def _summarize(self) -> None:
        """The background thread: log the number of suppressed lines, if any."""
        self._summary_token.append(None)
        number = self._take_count()
        if number:
            self._next = monotonic() + self._interval
            level, line = self._last
            log.log(
                level, line if number == 1 else f"{line} (the last of {number} similar messages)"
            )

    def _take_count(self) -> int:
        """Any thread: return the number of suppressed lines that no line has reported."""
        try:
            self._count_token.pop()
        except IndexError:
            return 0  # another thread reports the suppressed lines
        total = self._suppressed.total()
        number, self._reported = total - self._reported, total
        self._count_token.append(None)
        return number

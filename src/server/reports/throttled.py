"""A rate limit for log lines that any client may cause."""

from __future__ import annotations

from math import inf
from time import monotonic

from ..timing import Timing
from .background import Tally
from .loggers import background, log, message_of


class ThrottledLog:
    """One kind of trouble: its first line is logged, then at most one a second.

    Lines within that second are counted. When it is over, one line has their number and the last of
    them. So every line is in the log or in a number, and a flood costs one line a second.

    Args:
        silence: for how long no other line follows one, in seconds.
    """

    def __init__(self, silence: float = Timing.log_throttle) -> None:
        self._silence = silence
        self._next = -inf
        self._left_out = Tally()
        self._told = 0  # of these
        self._last = (0, "")  # its level and text
        self._nobody_takes: list[None] = [None]  # a token: whoever has it changes that number
        self._no_summary: list[None] = [None]  # a token: whoever takes it has a summary logged

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Any thread: log this line now, or count it.

        Args:
            level: as in :mod:`logging`.
            text: what has happened, with "%s" and the like for the arguments.
            *arguments: as for ``log.log``.
        """
        if not log.isEnabledFor(level):
            return
        line = message_of(text, arguments)
        now = monotonic()
        if now >= self._next:
            self._next = now + self._silence
            number = self._take()
            before = f" ({number} like it before are left out)" if number else ""
            log.log(level, f"{line}{before}", stacklevel=2)
            return
        self._last = (level, line)
        self._left_out.add()
        try:
            self._no_summary.pop()
        except IndexError:
            return  # it is on its way
        background.later(self._next - now, self._summarize)

    def _summarize(self) -> None:
        """The log's thread: log how many lines have been left out, if any."""
        self._no_summary.append(None)
        number = self._take()
        if number:
            self._next = monotonic() + self._silence
            level, line = self._last
            log.log(level, line if number == 1 else f"{line} (the last of {number} like it)")

    def _take(self) -> int:
        """Any thread: how many lines have been left out that no line has told of."""
        try:
            self._nobody_takes.pop()
        except IndexError:
            return 0  # another thread tells of them
        total = self._left_out.total()
        number, self._told = total - self._told, total
        self._nobody_takes.append(None)
        return number

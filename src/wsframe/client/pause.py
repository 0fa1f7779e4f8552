"""How long an event stream waits before it connects again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

# In seconds: what a server can ask for, and what failures make of it.
MIN_RETRY, MAX_RETRY = 0.5, 3600.0
MAX_BACK_OFF = 60.0
MAX_JITTER = 0.25  # of the pause, so that clients that were cut off together do not return together


class Pause:
    """The time between two connections: the server's ``retry``, doubled after each failure.

    Attributes:
        failures: how many connections in a row have failed.
    """

    def __init__(self, retry: float) -> None:
        self.failures = 0
        self._asked_for = 0.0  # by the last Retry-After
        self.retry = retry

    @property
    def retry(self) -> float:
        """The pause without failures, in seconds, held between 0.5 and 3600."""
        return self._retry

    @retry.setter
    def retry(self, seconds: float) -> None:
        self._retry = min(max(seconds, MIN_RETRY), MAX_RETRY)

    def succeed(self) -> None:
        """A connection has served its purpose."""
        self.failures = 0
        self._asked_for = 0.0

    def fail(self, retry_after: float = 0.0) -> None:
        """A connection has failed.

        Args:
            retry_after: how long the server has asked to wait, in seconds; at most an hour of it
                counts.
        """
        self.failures += 1
        self._asked_for = min(retry_after, MAX_RETRY)

    def seconds(self) -> float:
        """How long to wait now: never less than the server has asked for."""
        doubled = min(self.retry * 2.0 ** min(self.failures, 20), MAX_BACK_OFF)
        return max(self.retry, doubled, self._asked_for) * random.uniform(1, 1 + MAX_JITTER)


def retry_after(values: Iterable[str], dates: Iterable[str]) -> float:
    """Return how long a server asks to wait (RFC 9110 section 10.2.3), in seconds.

    Args:
        values: of all ``Retry-After`` headers: a number of seconds, or a date. The longest counts,
            and one that is malformed does not.
        dates: of all ``Date`` headers. A date in ``Retry-After`` is compared with the server's own
            clock, if that is given.
    """
    now = max((_seconds_of_date(date) for date in dates), default=0.0) or time.time()
    return max((_seconds_to_wait(value, now) for value in values), default=0.0)


def _seconds_to_wait(value: str, now: float) -> float:
    if value.isascii() and value.isdigit():
        return float(value)
    return max(_seconds_of_date(value) - now, 0.0)


def _seconds_of_date(value: str) -> float:
    """A date in one of HTTP's three formats (RFC 9110 section 5.6.7) as Unix time; 0 if malformed.

    Seconds of the Unix epoch; dates before it count as malformed.
    """
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # asctime's format; all of them are in UTC
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp(), 0.0)
    except (ValueError, OverflowError):
        return 0.0

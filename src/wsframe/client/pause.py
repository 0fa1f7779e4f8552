"""The delay of an event stream before it reconnects."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

# The range of the server's ``retry``, and the maximum delay after failures, in seconds.
MIN_RETRY, MAX_RETRY = 0.5, 3600.0
MAX_BACK_OFF = 60.0
# The maximum random increase, as a fraction of the delay, so that disconnected clients do not all
# reconnect at the same time.
MAX_JITTER = 0.25


class Pause:
    """The delay between two connections: the server's ``retry``, doubled after each failure.

    Args:
        retry: the delay without failures, in seconds.
        min_retry: the shortest delay, in seconds.

    Attributes:
        failures: the number of consecutive connections that failed.
    """

    def __init__(self, retry: float, *, min_retry: float = MIN_RETRY) -> None:
        self.failures: int = 0
        self._min_retry = min_retry
        self._retry_after = 0.0  # the last Retry-After, in seconds
        self.retry = retry

    @property
    def retry(self) -> float:
        """The seconds to wait after a connection that did not fail, ``min_retry`` to 3600."""
        return self._retry

    @retry.setter
    def retry(self, seconds: float) -> None:
        self._retry = min(max(seconds, self._min_retry), MAX_RETRY)

    def succeed(self) -> None:
        """Record a successful connection."""
        self.failures = 0
        self._retry_after = 0.0

    def fail(self, retry_after: float = 0.0) -> None:
        """Record a failed connection.

        Args:
            retry_after: the server's ``Retry-After``, in seconds; limited to one hour.
        """
        self.failures += 1
        self._retry_after = min(retry_after, MAX_RETRY)

    def seconds(self) -> float:
        """Return the next delay, in seconds; at least the last ``Retry-After`` of the server."""
        doubled = min(self.retry * 2.0 ** min(self.failures, 20), MAX_BACK_OFF)
        return max(self.retry, doubled, self._retry_after) * random.uniform(1, 1 + MAX_JITTER)


def retry_after(values: Iterable[str], dates: Iterable[str]) -> float:
    """Return the delay in a server's Retry-After (RFC 9110 section 10.2.3), in seconds.

    Args:
        values: the values of all ``Retry-After`` headers: numbers of seconds, or dates. The longest
            counts; malformed ones are ignored.
        dates: the values of all ``Date`` headers. A date in ``Retry-After`` is compared with the
            server's clock if it is known.
    """
    now = max((_seconds_of_date(date) for date in dates), default=0.0) or time.time()
    return max((_seconds_to_wait(value, now) for value in values), default=0.0)


def _seconds_to_wait(value: str, now: float) -> float:
    if value.isascii() and value.isdigit():
        return float(value)
    return max(_seconds_of_date(value) - now, 0.0)


def _seconds_of_date(value: str) -> float:
    """Return a date in one of HTTP's three formats (RFC 9110 section 5.6.7) as Unix time.

    The result is 0 for a malformed date, and for dates before 1970.
    """
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # a date in asctime's format has no zone; HTTP dates are in UTC
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp(), 0.0)
    except (ValueError, OverflowError):
        return 0.0

"""Refused requests of one loop: counted by status and by reason, and logged with the reason."""

from __future__ import annotations

from collections import Counter
from logging import WARNING
from types import MappingProxyType

from .throttled import ThrottledLog

# Why a request is refused, as statistics and metrics name it.
HOST, ORIGIN, AUTHORIZE, PATH, METHOD = "host", "origin", "authorize", "path", "method"
UPGRADE, VERSION, MALFORMED, TOO_LARGE = "upgrade", "version", "malformed", "too_large"
CONNECTIONS, THREADS, FAILED = "connections", "threads", "failed"
# The reason of an answer for which none is given.
REASONS = MappingProxyType(
    {
        403: AUTHORIZE,
        404: PATH,
        405: METHOD,
        414: TOO_LARGE,
        421: HOST,
        426: UPGRADE,
        431: TOO_LARGE,
        500: FAILED,
        505: VERSION,
    }
)
# Whoever finds one of these logs it, with more than is known of the request.
LOGGED_ELSEWHERE = frozenset((CONNECTIONS, THREADS, FAILED))


class Refusals:
    """What one loop has refused; its owner writes, any thread may read.

    Attributes:
        by_status: how many requests, by the status of the answer.
        by_reason: how many, by the reason.
    """

    def __init__(self) -> None:
        self.by_status: Counter[int] = Counter()
        self.by_reason: Counter[str] = Counter()
        # One for each reason, so that no flood of one hides another.
        self._throttled: dict[str, ThrottledLog] = {}

    def count(self, status: int, reason: str) -> None:
        """Owner: count a request."""
        self.by_status[status] += 1
        self.by_reason[reason] += 1

    def log(self, reason: str, text: str) -> None:
        """Owner: log a line, or count it where one with this reason has just been logged."""
        throttled = self._throttled.setdefault(reason, ThrottledLog())
        throttled.log(WARNING, "%s", text)

"""The refused requests of one loop: counted by status and reason, and logged with the reason."""

from __future__ import annotations

from collections import Counter
from logging import WARNING
from types import MappingProxyType

from .throttled import ThrottledLog

# The reasons for a refusal, as named in statistics and metrics.
HOST, ORIGIN, AUTHORIZE, PATH, METHOD = "host", "origin", "authorize", "path", "method"
UPGRADE, VERSION, MALFORMED, TOO_LARGE = "upgrade", "version", "malformed", "too_large"
CONNECTIONS, THREADS, FAILED = "connections", "threads", "failed"
PROXY = "proxy"
# The default reason for each status.
REASONS = MappingProxyType(
    {
        403: AUTHORIZE,
        404: PATH,
        405: METHOD,
        413: TOO_LARGE,
        414: TOO_LARGE,
        421: HOST,
        426: UPGRADE,
        431: TOO_LARGE,
        500: FAILED,
        505: VERSION,
    }
)
# Refusals with these reasons are logged by the code that detects them, in more detail.
LOGGED_ELSEWHERE = frozenset((CONNECTIONS, THREADS, FAILED))


class Refusals:
    """The counters and the log of one loop's refusals; the owner writes, any thread may read.

    Attributes:
        by_status: number of refused requests by the status of the answer.
        by_reason: number of refused requests by reason.
    """

    def __init__(self) -> None:
        self.by_status: Counter[int] = Counter()
        self.by_reason: Counter[str] = Counter()
        # One throttled log for each reason, so that a flood of one reason does not hide another.
        self._throttled: dict[str, ThrottledLog] = {}

    def count(self, status: int, reason: str) -> None:
        """Loop owner: count a refused request."""
        self.by_status[status] += 1
        self.by_reason[reason] += 1

    def log(self, reason: str, text: str) -> None:
        """Loop owner: log a line; if a line with the same reason was just logged, count it."""
        throttled = self._throttled.setdefault(reason, ThrottledLog())
        throttled.log(WARNING, "%s", text)

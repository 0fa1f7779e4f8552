"""Bounded waits for conditions that no event announces."""

from __future__ import annotations

import time
from collections.abc import Callable

TIMEOUT = 10.0  # seconds; the longest wait of a test


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll a condition until it is true; fail with this text after a timeout."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def wait_until_stable(value: Callable[[], int]) -> None:
    """Poll a number until it has not changed for 0.3 seconds."""
    last, unchanged = value(), 0
    while unchanged < 10:
        time.sleep(0.03)
        now = value()
        unchanged = unchanged + 1 if now == last else 0
        last = now

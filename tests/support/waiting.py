"""Bounded waits for conditions that no event announces."""

from __future__ import annotations

import time
from collections.abc import Callable

from wsframe.testing import TIMEOUT, wait_until

__all__ = ["TIMEOUT", "wait_until", "wait_until_stable"]


def wait_until_stable(value: Callable[[], int]) -> None:
    """Poll a number until it has not changed for 0.3 seconds."""
    last, unchanged = value(), 0
    while unchanged < 10:
        time.sleep(0.03)
        now = value()
        unchanged = unchanged + 1 if now == last else 0
        last = now

"""Bounded waits for conditions that no event announces."""

from __future__ import annotations

import time
from collections.abc import Callable

# The longest wait of a test in seconds, which only a failure needs.
TIMEOUT = 30.0
# The pause between two checks of a condition, in seconds.
PAUSE = 0.005


def wait_until(condition: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
    """Poll a condition until it is true.

    Example::

        wait_until(lambda: not server.connections, "the server has closed all connections")

    Args:
        condition: a function without arguments.
        what: the condition as a clause, for the error.
        timeout: the longest wait, in seconds.

    Raises:
        AssertionError: the condition is false after that time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not true within {timeout:g} s: {what}")
        time.sleep(PAUSE)

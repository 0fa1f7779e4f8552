"""Waits with a time limit for conditions that no event reports."""

from __future__ import annotations

import time
from collections.abc import Callable

# The time limit of each wait in a test, in seconds; only a failing test reaches it.
TIMEOUT = 30.0
# The pause between two checks of a condition, in seconds.
PAUSE = 0.005


def wait_until(condition: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
    """Poll a condition until it is true.

    Example::

        wait_until(lambda: not server.connections, "the server has closed all connections")

    Args:
        condition: a function without arguments.
        what: the condition as a clause, for the error's message.
        timeout: the longest wait, in seconds.

    Raises:
        AssertionError: the condition is false after that time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"the condition is still false after {timeout:g} s: {what}")
        time.sleep(PAUSE)

"""Timeouts of the client: checks of the caller's values, and deadlines of a socket."""

from __future__ import annotations

import socket
from math import inf
from time import monotonic

# The longest timeout, eleven days in seconds. A longer one counts as no limit, because poll()
# counts milliseconds in 31 bits.
LONGEST_TIMEOUT = 1e6


def check_timeout(name: str, seconds: float) -> float:
    """Check a timeout from the caller, in seconds.

    Returns:
        The timeout; infinity if it is too long for a socket.

    Raises:
        ValueError: the timeout is negative or NaN.
    """
    if not seconds >= 0:
        raise ValueError(f"{name} must be a number of seconds that is at least 0, not {seconds}")
    return seconds if seconds <= LONGEST_TIMEOUT else inf


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Set the time limit of each operation of the socket; infinity is no limit."""
    sock.settimeout(None if seconds == inf else seconds)


def set_deadline(sock: socket.socket, deadline: float) -> None:
    """Limit the next operation of the socket to the time until the deadline.

    Args:
        sock: the socket.
        deadline: a time of the monotonic clock; infinity is no limit.

    Raises:
        TimeoutError: the deadline has passed.
    """
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError("the server did not respond in time")
    set_timeout(sock, remaining)

"""How long the client waits: timeouts that callers give, and deadlines of a socket."""

from __future__ import annotations

import socket
from math import inf
from time import monotonic

# In seconds, eleven days. The poll of a socket counts milliseconds in 31 bits; what is longer than
# this counts as no limit.
LONGEST_TIMEOUT = 1e6


def check_timeout(name: str, seconds: float) -> float:
    """Check a timeout that a caller gave, in seconds.

    Returns:
        The timeout; infinity for one that is too long for a socket.

    Raises:
        ValueError: the timeout is negative, or not a number.
    """
    if not seconds >= 0:
        raise ValueError(f"{name} must be a number of seconds that is not negative, not {seconds}")
    return seconds if seconds <= LONGEST_TIMEOUT else inf


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Limit how long each operation of the socket takes; infinity is no limit."""
    sock.settimeout(None if seconds == inf else seconds)


def set_deadline(sock: socket.socket, deadline: float) -> None:
    """Limit the next operation of the socket to the time until the deadline.

    Args:
        sock: the socket.
        deadline: on the monotonic clock; infinity is no limit.

    Raises:
        TimeoutError: the deadline has passed.
    """
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError("the server did not answer in time")
    set_timeout(sock, remaining)

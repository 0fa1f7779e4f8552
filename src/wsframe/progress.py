"""Progress: what the other end of a connection has acknowledged, and whether it still answers.

The system of the other end acknowledges data before its program reads them. What lies unread there
cannot be seen from here, so :attr:`Progress.caught_up` allows for it.
"""

from __future__ import annotations

import socket
import sys
from enum import Enum
from math import inf
from typing import Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The request for the bytes of a socket that are not acknowledged (Linux: tcp(7), unix(7)).
SIOCOUTQ = 0x5411
# The socket option with the same meaning (macOS).
SO_NWRITE = 0x1024

# A program that reads fewer bytes a second than this may be taken for one that has stopped.
SLOWEST_READER = 20_000
# How many acknowledged bytes a program may have to read at most: more than most systems keep.
MOST_UNREAD = 8 << 20
# A program that only acknowledges is pinged this many times less often than one that is silent.
ACKNOWLEDGED_INTERVALS = 4


class HasOptions(Protocol):
    """What :func:`unacknowledged` needs of a socket."""

    def fileno(self) -> int: ...

    def getsockopt(self, level: int, name: int, /) -> int: ...


def unacknowledged(sock: HasOptions) -> int:
    """Return how many bytes the system keeps because the other end has not acknowledged them.

    For a unix socket they are those that the other end has not read, with some overhead. The number
    is 0 on a system that does not tell it, where data count as acknowledged once the system has
    taken them.
    """
    try:
        if sys.platform == "darwin":
            return sock.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
        if fcntl is not None:
            return int.from_bytes(fcntl.ioctl(sock.fileno(), SIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        pass  # a kernel that lacks the request, or a socket that was disconnected
    return 0


class Progress:
    """What the other end has acknowledged. Times are in seconds, on one clock of the caller's.

    Attributes:
        acked: how many bytes were acknowledged, of those that were written.
        waiting_since: when bytes were last acknowledged, or when the present wait for that began;
            inf while nothing is to be acknowledged.
        caught_up: when a program that reads ``SLOWEST_READER`` bytes a second has read all that its
            system has acknowledged.
    """

    __slots__ = ("acked", "caught_up", "waiting_since")

    def __init__(self) -> None:
        self.acked = 0
        self.waiting_since = inf
        self.caught_up = 0.0

    def note(self, now: float, written: int, held: int, more: bool) -> bool:
        """Note the present state.

        Args:
            now: the time.
            written: how many bytes the system has taken so far. Under TLS they may be those before
                encryption, as long as the system's own count is at least as high.
            held: how many bytes the system has yet to see acknowledged.
            more: whether bytes wait that the system has not taken.

        Returns:
            Whether bytes were acknowledged since the last time.
        """
        acked = written - held if held else written  # the same object: idle connections are many
        moved = acked - self.acked
        if moved > 0:
            self.acked = acked
            unread_until = max(now, self.caught_up) + moved / SLOWEST_READER
            self.caught_up = min(unread_until, now + MOST_UNREAD / SLOWEST_READER)
        elif self.caught_up <= now:
            self.caught_up = 0.0  # one object for all that are idle
        if not (held or more):
            self.waiting_since = inf
        elif moved > 0 or self.waiting_since == inf:
            self.waiting_since = now
        return moved > 0

    def note_read(self, now: float, position: int) -> None:
        """Note that the other end's program has read all up to this many bytes."""
        self.caught_up = min(self.caught_up, now + max(0, self.acked - position) / SLOWEST_READER)


class Life(Enum):
    """What :meth:`Keepalive.look` finds."""

    CONTINUES = 0
    PING_DUE = 1
    OVER = 2


class Keepalive:
    """When a silent connection is to be pinged, and when it is dead.

    Received bytes and acknowledgements both show that the other end is alive. But a system also
    acknowledges data for a program that has stopped. So acknowledgements alone postpone a ping by
    at most ``ACKNOWLEDGED_INTERVALS`` intervals, unless more is queued than the system accepts.

    The deadline of a pong counts from the acknowledgement of its ping; until then it counts from
    the last acknowledgement of anything. In both cases a slow program has the time on top that it
    takes to read what it was sent before.

    Attributes:
        pong_due: when the connection is dead without a sign of life; inf if no ping is on its way.
    """

    __slots__ = (
        "_acked",
        "_acked_at",
        "_heard_at",
        "_ping_end",
        "_received",
        "pong_due",
    )

    def __init__(self, now: float) -> None:
        self._received = 0
        self._heard_at = now
        self._acked = 0
        self._acked_at = now
        self._ping_end = 0
        self.pong_due = inf

    def restart(self, now: float) -> None:
        """Count from now: the other end has given a sign of life, or could not give one."""
        self._heard_at = now
        self.pong_due = inf

    def pinged(self, now: float, end: int, progress: Progress, timeout: float) -> None:
        """Note that a ping was queued.

        Args:
            now: the time.
            end: how many bytes are written when the ping is.
            progress: the connection's.
            timeout: how long a pong may take, in seconds.
        """
        self._ping_end = end
        self.pong_due = max(now, progress.caught_up) + timeout

    def answered(self, now: float, progress: Progress) -> None:
        """Note a pong: the other end's program has read what came before the ping."""
        if self.pong_due < inf:
            progress.note_read(now, self._ping_end)

    def look(
        self,
        now: float,
        received: int,
        progress: Progress,
        *,
        more: bool,
        interval: float,
        timeout: float,
    ) -> Life:
        """Decide, right after :meth:`Progress.note`, what is to be done.

        Args:
            now: the time.
            received: how many bytes were received so far.
            progress: the connection's.
            more: whether bytes wait that the system has not taken.
            interval: how long the other end may be silent, in seconds.
            timeout: how long a pong may take, in seconds.
        """
        if received != self._received:
            self._received = received
            self.restart(now)
            return Life.CONTINUES
        if progress.acked != self._acked:
            if self.pong_due < inf and self._acked < self._ping_end:
                self.pong_due = max(now, progress.caught_up) + timeout
            self._acked, self._acked_at = progress.acked, now
        if self.pong_due < inf:
            return Life.OVER if now >= self.pong_due else Life.CONTINUES
        silence = now - self._heard_at
        if now - self._acked_at >= interval:
            due = silence >= interval and progress.waiting_since == inf
        else:
            due = silence >= ACKNOWLEDGED_INTERVALS * interval and not more
        return Life.PING_DUE if due else Life.CONTINUES

"""Progress and keepalive: the other end's acknowledgements, and the check that it is alive.

The other end's system acknowledges data before its program reads them. The amount of unread data
is not visible here, so :attr:`Progress.caught_up` estimates when the program will have read it.
"""

from __future__ import annotations

import socket
import sys
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The ioctl for the number of unacknowledged bytes of a socket (Linux: tcp(7), unix(7)).
SIOCOUTQ = 0x5411
# The socket option for the number of unacknowledged bytes (macOS).
SO_NWRITE = 0x1024

# The minimum reading rate of a program, in bytes per second. A slower program may be considered
# dead.
SLOWEST_READER = 20_000
# The assumed maximum of acknowledged but unread bytes, which is more than most systems buffer.
MOST_UNREAD = 8 << 20
# The number of intervals after which a program that only acknowledges is pinged. A silent program
# is pinged after one interval.
ACKNOWLEDGED_INTERVALS = 4


class HasOptions(Protocol):
    """The methods of a socket that :func:`unacknowledged` calls."""

    def fileno(self) -> int: ...

    def getsockopt(self, level: int, name: int, /) -> int: ...


def unacknowledged(sock: HasOptions) -> int:
    """Return the number of sent bytes that the other end has not acknowledged.

    For a unix socket these are the bytes that the other end has not read, with some overhead. On a
    system without this information the number is 0: data count as acknowledged once they are sent.
    """
    try:
        if sys.platform == "darwin":
            return sock.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
        if fcntl is not None:
            return int.from_bytes(fcntl.ioctl(sock.fileno(), SIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        pass  # the system does not support this ioctl, or the socket is disconnected
    return 0


class Progress:
    """Acknowledgements of the other end. Times are in seconds, on a clock of the caller.

    This class is a mixin without fields, so that it can be combined with a class written in C. A
    subclass has the slots ``FIELDS``, and calls :meth:`begin`.

    Attributes:
        acked: the number of written bytes that were acknowledged.
        waiting_since: the time of the last acknowledgement, or the time when the current wait for
            one began; inf if no acknowledgement is expected.
        caught_up: the time when a program that reads ``SLOWEST_READER`` bytes a second will have
            read all acknowledged bytes.
    """

    FIELDS = ("acked", "caught_up", "waiting_since")

    if not TYPE_CHECKING:  # a type checker would expect the fields among these slots
        __slots__ = ()

    acked: int
    waiting_since: float
    caught_up: float

    def begin(self) -> None:
        """Initialize the fields: nothing was written yet."""
        self.acked = 0
        self.waiting_since = inf
        self.caught_up = 0.0

    def note(self, now: float, written: int, held: int, more: bool) -> bool:
        """Record the current state.

        Args:
            now: the current time.
            written: the total number of bytes passed to the system. Under TLS this may be the
                number before encryption, as long as the system's own number is at least as high.
            held: the number of unacknowledged bytes.
            more: True if more bytes are queued that the system has not accepted.

        Returns:
            True if bytes were acknowledged since the last call.
        """
        # The same int object is kept, to save memory for idle connections.
        acked = written - held if held else written
        moved = acked - self.acked
        if moved > 0:
            self.acked = acked
            unread_until = max(now, self.caught_up) + moved / SLOWEST_READER
            self.caught_up = min(unread_until, now + MOST_UNREAD / SLOWEST_READER)
        elif self.caught_up <= now:
            self.caught_up = 0.0  # all idle connections share this float object
        if not (held or more):
            self.waiting_since = inf
        elif moved > 0 or self.waiting_since == inf:
            self.waiting_since = now
        return moved > 0

    def note_read(self, now: float, position: int) -> None:
        """Record the total number of bytes that the other end's program has read."""
        self.caught_up = min(self.caught_up, now + max(0, self.acked - position) / SLOWEST_READER)


class SocketProgress(Progress):
    """The acknowledgements of one socket."""

    __slots__ = Progress.FIELDS

    def __init__(self) -> None:
        self.begin()


class Life(Enum):
    """The result of :meth:`Keepalive.look`."""

    CONTINUES = 0
    PING_DUE = 1
    OVER = 2


class Keepalive:
    """The decision when a silent connection must be pinged, and when it is dead.

    Received bytes and acknowledgements both show that the other end is alive. But a system also
    acknowledges data for a program that has stopped. So acknowledgements alone postpone a ping by
    at most ``ACKNOWLEDGED_INTERVALS`` intervals, unless more is queued than the system accepts.

    The deadline of a pong counts from the acknowledgement of its ping. Until then it counts from
    the last acknowledgement of any data. In both cases the time that a slow program needs to read
    the data before the ping is added.

    Attributes:
        pong_due: the time when the connection is dead if nothing is received; inf without a
            pending ping.
    """

    __slots__ = (
        "_acked",
        "_acked_at",
        "_ping_end",
        "_received",
        "_received_at",
        "pong_due",
    )

    def __init__(self, now: float) -> None:
        self._received = 0
        self._received_at = now
        self._acked = 0
        self._acked_at = now
        self._ping_end = 0
        self.pong_due: float = inf

    def restart(self, now: float) -> None:
        """Restart the interval, because the other end is alive, or could not send."""
        self._received_at = now
        self.pong_due = inf

    def pinged(self, now: float, end: int, progress: Progress, timeout: float) -> None:
        """Record that a ping was queued.

        Args:
            now: the current time.
            end: the total number of written bytes once the ping is written.
            progress: the progress of the connection.
            timeout: the time for a pong, in seconds.
        """
        self._ping_end = end
        self.pong_due = max(now, progress.caught_up) + timeout

    def answered(self, now: float, progress: Progress) -> None:
        """Record a pong: the other end's program has read all data before the ping."""
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
        """Return the action that is due. Call it directly after :meth:`Progress.note`.

        Args:
            now: the current time.
            received: the total number of received bytes.
            progress: the progress of the connection.
            more: True if more bytes are queued that the system has not accepted.
            interval: the time after which a silent end is pinged, in seconds.
            timeout: the time for a pong, in seconds.
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
        silence = now - self._received_at
        if now - self._acked_at >= interval:
            due = silence >= interval and progress.waiting_since == inf
        else:
            due = silence >= ACKNOWLEDGED_INTERVALS * interval and not more
        return Life.PING_DUE if due else Life.CONTINUES

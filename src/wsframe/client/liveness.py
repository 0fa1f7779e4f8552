"""Liveness: checks that the server acknowledges data and answers pings."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..progress import Keepalive, Life, SocketProgress

# The number of checks within the send timeout.
LOOKS = 8
# The number of checks within the ping interval.
CHECKS = 4
# The delay of a wait, in seconds, from which the process is assumed to have been suspended.
STANDSTILL = 1.0


class Liveness:
    """Deadlines of the server, on a clock that runs only while a thread waits.

    While no thread waits, or the process is suspended, received data is not noticed. So deadlines
    ignore that time. Only one thread at a time may be in the methods.

    Attributes:
        moved: the time of the server's last acknowledgement, on the clock of :meth:`now`.
        next_look: the time of the next call of :meth:`look`, on the same clock.
        stalls_at: the deadline of the next acknowledgement, on the same clock; inf if none is
            expected.
        send_timeout: the longest time without an acknowledgement, in seconds.
        ping_timeout: the longest time for a pong, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        send_timeout: float,
        ping_interval: float,
        ping_timeout: float,
    ) -> None:
        self._clock = clock
        self._unobserved = 0.0  # the total time in which no thread waited
        self._wake_by = self._idle_since = clock()
        self._waiting = 0  # the number of waiting threads
        self._progress = SocketProgress()
        self._interval = ping_interval
        self.ping_timeout = ping_timeout
        self.send_timeout = send_timeout
        self.stalls_at: float = inf
        self.moved: float = self.now()
        self._keepalive = Keepalive(self.moved)
        self.next_look: float = self.moved

    def now(self) -> float:
        """Return the time on this clock: the seconds in which threads have waited."""
        return self._clock() - self._unobserved

    def begin(self) -> None:
        """Record that a thread begins to wait."""
        if not self._waiting:
            self._unobserved += self._clock() - self._idle_since
            self._wake_by = self.now()
        self._waiting += 1

    def end(self) -> None:
        """Record that a thread has stopped waiting."""
        self._waiting -= 1
        if not self._waiting:
            self._idle_since = self._clock()

    def wake(self) -> float:
        """Return the time after a wait, without the time in which the process was suspended."""
        now = self.now()
        if now > self._wake_by + STANDSTILL:
            self._unobserved += now - self._wake_by
            now = self._wake_by
        return now

    def sleep(self, now: float, seconds: float) -> None:
        """Record that a thread is about to wait for at most ``timeout`` seconds."""
        self._wake_by = max(self._wake_by, now + seconds)

    def look_soon(self) -> None:
        """Make :meth:`look` due now, because a new measurement begins."""
        self.next_look = -inf

    def deadline_after(self, timeout: float) -> Callable[[], float]:
        """Begin to wait for acknowledgements.

        Args:
            timeout: the longest time without an acknowledgement, in seconds.

        Returns:
            A function that returns the current deadline, on the caller's clock.
        """
        self.begin()
        began = self.now()
        self.end()
        self.look_soon()
        return lambda: max(began, self.moved) + timeout + self._unobserved

    def look(
        self, now: float, written: int, held: int, *, more: bool, timeout: float | None = None
    ) -> None:
        """Record the server's acknowledgements.

        Args:
            now: the time.
            written: the total number of bytes passed to the system.
            held: the number of unacknowledged bytes.
            more: True if more bytes are queued that the system has not accepted.
            timeout: the longest time without an acknowledgement, in seconds; None for
                ``send_timeout``.
        """
        if self._progress.note(now, written, held, more):
            self.moved = now
        if timeout is None:
            timeout = self.send_timeout
        self.stalls_at = self._progress.waiting_since + timeout
        check = self._interval / CHECKS if self._interval else inf
        self.next_look = min(now + timeout / LOOKS, now + check, self.stalls_at)

    def judge(self, now: float, received: int | None, *, more: bool) -> Life:
        """Return the keepalive action that is due. Call it directly after :meth:`look`.

        Args:
            now: the time.
            received: the total number of received bytes; None while reading is paused because the
                inbox is full.
            more: as for :meth:`look`.
        """
        if not self._interval:
            return Life.CONTINUES
        if received is None:
            self._keepalive.restart(now)
            return Life.CONTINUES
        life = self._keepalive.look(
            now,
            received,
            self._progress,
            more=more,
            interval=self._interval,
            timeout=self.ping_timeout,
        )
        self.next_look = min(self.next_look, self._keepalive.pong_due)
        return life

    def pinged(self, now: float, end: int) -> None:
        """Record that a ping was queued; its end is a position in all written bytes."""
        self._keepalive.pinged(now, end, self._progress, self.ping_timeout)
        self.next_look = min(self.next_look, self._keepalive.pong_due)

    def answered(self) -> None:
        """Record a pong."""
        self._keepalive.answered(self.now(), self._progress)

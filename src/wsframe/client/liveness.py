"""Liveness: whether the server takes what it is sent, and whether it still answers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..progress import Keepalive, Life, Progress

# How many times the server is checked within the time that it may take nothing.
LOOKS = 8
# How many times it is checked within the ping interval.
CHECKS = 4
# A wait that takes this much longer than it was to, in seconds, stood still with the process.
STANDSTILL = 1.0


class Liveness:
    """What is known of the server, by a clock that runs only while a thread waits for it.

    Nobody sees what comes while no thread waits, or while the process stands still. So that time
    counts for no deadline. The caller sees to it that one thread at a time is in any method.

    Attributes:
        moved: when the server last acknowledged something, in seconds of ``now``.
        next_look: when the caller is to call :meth:`look` next, likewise.
        stalls_at: when the server has acknowledged nothing for too long, likewise; inf if nothing
            waits for it.
        send_timeout: how long the server may acknowledge nothing, in seconds.
        ping_timeout: how long it may take to answer a ping, in seconds.
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
        self._away = 0.0  # how long nobody has watched, in all
        self._back_by = self._left = clock()
        self._watching = 0  # threads
        self._progress = Progress()
        self._interval = ping_interval
        self.ping_timeout = ping_timeout
        self.send_timeout = send_timeout
        self.stalls_at = inf
        self.moved = self.now()
        self._keepalive = Keepalive(self.moved)
        self.next_look = self.moved

    def now(self) -> float:
        """The time, in seconds of the liveness."""
        return self._clock() - self._away

    def begin(self) -> None:
        """A thread begins to watch."""
        if not self._watching:
            self._away += self._clock() - self._left
            self._back_by = self.now()
        self._watching += 1

    def end(self) -> None:
        """That thread watches no longer."""
        self._watching -= 1
        if not self._watching:
            self._left = self._clock()

    def wake(self) -> float:
        """The time, when a thread that watches is back from a wait."""
        now = self.now()
        if now > self._back_by + STANDSTILL:
            self._away += now - self._back_by
            now = self._back_by
        return now

    def sleep(self, now: float, seconds: float) -> None:
        """A thread that watches waits, at most this long."""
        self._back_by = max(self._back_by, now + seconds)

    def look_soon(self) -> None:
        """Have :meth:`look` be due, because something begins that it is to measure."""
        self.next_look = -inf

    def deadline_after(self, timeout: float) -> Callable[[], float]:
        """Wait for acknowledgements from now on.

        Args:
            timeout: how long the server may acknowledge nothing, in seconds.

        Returns:
            What returns when to give up, on the caller's clock.
        """
        self.begin()
        began = self.now()
        self.end()
        self.look_soon()
        return lambda: max(began, self.moved) + timeout + self._away

    def look(
        self, now: float, written: int, held: int, *, more: bool, timeout: float | None = None
    ) -> None:
        """Note what the server has acknowledged.

        Args:
            now: the time.
            written: how many bytes the system has taken.
            held: how many of them are not acknowledged.
            more: whether bytes wait that the system has not taken.
            timeout: how long the server may acknowledge nothing, in seconds; None for
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
        """Decide, right after :meth:`look`, whether to ping the server, and whether it is dead.

        Args:
            now: the time.
            received: how many bytes were received so far; None while nothing is read, because
                nobody takes the messages.
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
        """Note that a ping was queued, with which this many bytes are written."""
        self._keepalive.pinged(now, end, self._progress, self.ping_timeout)
        self.next_look = min(self.next_look, self._keepalive.pong_due)

    def answered(self) -> None:
        """Note a pong."""
        self._keepalive.answered(self.now(), self._progress)

"""Pings, and the time in which a client must answer them."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod


class Keepalive(asyncio.Protocol):
    """The pings of one connection.

    While reading is paused, no pong is expected: it may wait in the socket's receive buffer.

    Args:
        loop: the event loop.
        interval: the seconds between two pings (``ws_ping_interval``); None or 0 for no pings.
        timeout: the seconds for the arrival of a pong (``ws_ping_timeout``); None for no limit.

    Attributes:
        loop: the event loop.
        read_paused: True while the protocol does not read from the socket.
        ping_timer: the timer of the next ping.
        ping_sent_at: the time of the last ping, on the loop's clock; 0 before the first one.
    """

    __slots__ = (
        "_ping",
        "_ping_interval",
        "_ping_timeout",
        "_pong_timer",
        "loop",
        "ping_sent_at",
        "ping_timer",
        "read_paused",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval: float | None, timeout: float | None
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.read_paused: bool = False
        self.ping_timer: asyncio.TimerHandle | None = None
        self.ping_sent_at: float = 0.0
        self._ping_interval, self._ping_timeout = interval, timeout
        self._pong_timer: asyncio.TimerHandle | None = None
        self._ping = b""  # the payload of the unanswered ping

    @abstractmethod
    def _send_ping(self, payload: bytes) -> None:
        """Send a ping."""

    @abstractmethod
    def _no_pong(self) -> None:
        """Close the connection, because no pong has arrived in time."""

    def _start_keepalive(self) -> None:
        """Begin to send pings."""
        if self._ping_interval:
            self.ping_timer = self.loop.call_later(self._ping_interval, self._ping_due)

    def _stop_keepalive(self) -> None:
        """Send no more pings."""
        self._ping = b""
        for timer in (self.ping_timer, self._pong_timer):
            if timer is not None:
                timer.cancel()
        self.ping_timer = self._pong_timer = None

    def _pong_received(self, payload: bytes) -> None:
        """Process a pong; an unsolicited pong is ignored (RFC 6455 section 5.5.3)."""
        if payload and payload == self._ping:
            self._stop_keepalive()
            self._start_keepalive()

    def _ping_due(self) -> None:
        self._ping = os.urandom(4)
        self.ping_sent_at = self.loop.time()
        self.ping_timer = None
        self._send_ping(self._ping)
        if self._ping_timeout is None:
            self._start_keepalive()
        else:
            self._pong_timer = self.loop.call_later(self._ping_timeout, self._pong_due)

    def _pong_due(self) -> None:
        if self.read_paused:
            assert self._ping_timeout is not None
            self._pong_timer = self.loop.call_later(self._ping_timeout, self._pong_due)
        else:
            self._pong_timer = None
            self._no_pong()

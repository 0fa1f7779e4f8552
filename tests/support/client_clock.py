"""A clock that a test advances, so that no test waits for a deadline of the client."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.support.inspection import exchange_of, transport_of, use_clock

from .waiting import TIMEOUT

STEP = 0.5  # in seconds; less than a suspension of the process


class ManualClock:
    """Replaces the clock of a WebSocket; only the test advances it."""

    def __init__(self, ws: Any) -> None:
        self.now = time.monotonic()
        self._exchange, self._transport = exchange_of(ws), transport_of(ws)
        self._calls = 0
        self._called = threading.Condition()
        use_clock(ws, self)

    def __call__(self) -> float:
        with self._called:
            self._calls += 1
            self._called.notify_all()
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Advance the time in steps; a thread that waits in the WebSocket is woken for each."""
        end = self.now + seconds
        while self.now < end:
            self.jump(min(STEP, end - self.now))

    def jump(self, seconds: float) -> None:
        """Advance the time in one step, as when the process was suspended."""
        self.now += seconds
        with self._exchange.state:
            with self._called:
                before = self._calls
            if self._exchange.finished:
                return
            self._transport.wake()
        with self._called:
            assert self._called.wait_for(lambda: self._calls > before + 1, TIMEOUT)

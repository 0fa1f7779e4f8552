"""A clock that a test advances, so that no test waits for a deadline."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.support.inspection import loops_of
from wsframe.server.timing import Timing

from .waiting import TIMEOUT

if TYPE_CHECKING:
    from wsframe.server import Server

# Between two checks of the deadlines that :meth:`ManualClock.pass_time` lets happen, in seconds.
STEP = Timing().sweep_interval


class ManualClock:
    """The clock of a :class:`Timing`; only the test advances it.

    ``App(timing=Timing(clock=clock))`` gives it to an app.
    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Any thread: the time in seconds."""
        return self.now

    def pass_time(self, server: Server, seconds: float) -> None:
        """The test: advance the time step by step; the loops check all deadlines after each."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + STEP, end)
            self.let_loops_look(server)

    def jump(self, server: Server, seconds: float) -> None:
        """The test: advance the time in one step, as when the process was suspended."""
        self.now += seconds
        self.let_loops_look(server)

    @staticmethod
    def let_loops_look(server: Server) -> None:
        """The test: wait until every loop has checked its deadlines at the present time."""
        for loop in loops_of(server):
            # The second call is made in a later round of the loop, after the first one's check.
            for _ in range(2):
                called = threading.Event()
                loop.call_soon(called.set)
                assert called.wait(TIMEOUT)

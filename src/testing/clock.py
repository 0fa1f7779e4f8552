"""A clock that a test advances, so that no test waits for a deadline."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .waiting import TIMEOUT

if TYPE_CHECKING:
    from wsframe.server import Server


class ManualClock:
    """The clock of an application's deadlines and ages; only the test advances it.

    Pings, the deadlines of clients, and the ages of events in topics use this clock. The functions
    of :mod:`time`, and waits of threads for other threads, use real time. The client of a generator
    handler is pinged from the handshake on. The client of a plain handler is pinged from the moment
    at which the handler's thread first waits for a message.

    Example::

        clock = ManualClock()
        with AppServer(app, clock=clock, ping_interval=20, ping_timeout=20) as server:
            client = server.websocket("/echo", answer_pings=False)
            server.pass_time(30)
            assert client.expect(1) == [Ping(b"")]

    Attributes:
        now: the time in seconds.
    """

    def __init__(self) -> None:
        self.now: float = 1000.0

    def __call__(self) -> float:
        """Any thread: the time in seconds."""
        return self.now

    def pass_time(self, server: Server, seconds: float) -> None:
        """The test's thread: advance the time step by step.

        After each step, the loops of the server check all deadlines.
        """
        # Imported late, so that the codec can be tested without the server.
        from wsframe.server.timing import Timing

        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + Timing.sweep_interval, end)
            self.let_loops_look(server)

    def jump(self, server: Server, seconds: float) -> None:
        """The test's thread: advance the time in one step, as if the process had been suspended.

        A server ignores that time in the deadlines of its clients.
        """
        self.now += seconds
        self.let_loops_look(server)

    @staticmethod
    def let_loops_look(server: Server, timeout: float = TIMEOUT) -> None:
        """The test's thread: wait until every loop has checked its deadlines at the present time.

        Raises:
            TimeoutError: a handler has blocked a loop for ``timeout`` seconds.
        """
        # The second call runs in a later round of each loop, after a check of the deadlines.
        for _ in range(2):
            turned = threading.Event()
            server.call_when_each_loop_turns(turned.set)
            if not turned.wait(timeout):
                raise TimeoutError(
                    f"a loop has not checked its deadlines, because a handler has blocked it for "
                    f"{timeout:g} s"
                )

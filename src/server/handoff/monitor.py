"""The monitor: one thread that hands a loop off when a handler blocks it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..reports.loggers import log

if TYPE_CHECKING:
    from ..timing import Timing


class Watched(Protocol):
    """The part of a loop's interface that the monitor uses."""

    def watch(self) -> bool:
        """The monitor's thread: hand the loop off if the turn of the last call still runs.

        Returns:
            True if a turn runs that may end before the next call.
        """

    def sleeps(self) -> bool:
        """Any thread: return True if the owner is blocked in the poller, or about to block."""


class Monitor:
    """The thread that checks each loop once per time slice, while the loop has work.

    Args:
        timing: the timing of the app.

    Attributes:
        parked: True while the monitor sleeps; a loop with work calls :meth:`unpark`.
    """

    def __init__(self, timing: Timing) -> None:
        self.parked: bool = False
        self._timing = timing
        self._loops: Sequence[Watched] = ()
        self._woken = threading.Lock()
        self._woken.acquire()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="wsframe-monitor", daemon=True)

    def start(self, loops: Sequence[Watched]) -> None:
        """Any thread, once: start to check the loops."""
        self._loops = loops
        self._thread.start()

    def unpark(self) -> None:
        """Any thread: wake the monitor."""
        self.parked = False
        self._wake()

    def stop(self) -> None:
        """Any thread, once: stop the monitor, and wait for its end."""
        self._running = False
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        try:
            self._woken.release()
        except RuntimeError:
            return  # another thread has woken the monitor

    def _run(self) -> None:
        quiet = 0
        while self._running:
            self._woken.acquire(timeout=self._timing.turn_slice)
            quiet = 0 if self._look() else quiet + 1
            if quiet >= self._timing.monitor_quiet_checks:
                self._park()
                quiet = 0

    def _look(self) -> bool:
        """Check all loops; return True if one of them was in a turn."""
        try:
            # A list, because any() on a generator would not check all loops.
            in_turn = [loop.watch() for loop in self._loops]
            return any(in_turn)
        except Exception:  # an error must not end the monitor, which starts the hand-offs
            log.exception("internal error in the monitor (please report this)")
            return True

    def _park(self) -> None:
        self.parked = True
        # A loop that has just woken up may have checked ``parked`` before it was set.
        while self.parked and self._running and all(loop.sleeps() for loop in self._loops):
            self._woken.acquire(timeout=self._timing.monitor_interval)
        self.parked = False

"""The monitor: one thread that takes the loop from a handler that blocks it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..reports.loggers import log

if TYPE_CHECKING:
    from ..timing import Timing


# So many looks in a row that find no handler at work, and the monitor waits to be woken.
QUIET_LOOKS = 20


class Watched(Protocol):
    """A loop, as far as the monitor needs it."""

    def watch(self) -> bool:
        """The monitor's thread: take the loop from a turn that was there the last time, too.

        Returns:
            Whether a turn was under way.
        """

    def sleeps(self) -> bool:
        """Any thread: whether the owner waits in the poller, or is about to."""


class Monitor:
    """Looks at the loops every slice, for as long as they have work.

    Args:
        timing: the app's.

    Attributes:
        parked: it sleeps; a loop that has work is to call :meth:`unpark`.
    """

    def __init__(self, timing: Timing) -> None:
        self.parked = False
        self._timing = timing
        self._loops: Sequence[Watched] = ()
        self._woken = threading.Lock()
        self._woken.acquire()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="wsframe-monitor", daemon=True)

    def start(self, loops: Sequence[Watched]) -> None:
        """Any thread, once: begin to look at these."""
        self._loops = loops
        self._thread.start()

    def unpark(self) -> None:
        """Any thread: look after the loops again."""
        self.parked = False
        self._wake()

    def stop(self) -> None:
        """Any thread, once: end, and wait for it."""
        self._running = False
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        try:
            self._woken.release()
        except RuntimeError:
            return  # somebody else has

    def _run(self) -> None:
        quiet = 0
        while self._running:
            self._woken.acquire(timeout=self._timing.turn_slice)
            quiet = 0 if self._look() else quiet + 1
            if quiet == QUIET_LOOKS:
                self._park()
                quiet = 0

    def _look(self) -> bool:
        """Look at all loops; whether one of them was in a turn."""
        try:
            at_work = [loop.watch() for loop in self._loops]  # all of them, whatever one says
            return any(at_work)
        except Exception:  # without its monitor, the next handler that blocks would be the last
            log.exception("internal error in the monitor (please report this)")
            return True

    def _park(self) -> None:
        self.parked = True
        # A loop that is awake by now may have looked before this was set.
        while self.parked and self._running and all(loop.sleeps() for loop in self._loops):
            self._woken.acquire(timeout=self._timing.monitor_interval)
        self.parked = False

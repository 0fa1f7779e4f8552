"""Overdue handlers, which occupy a thread long after their client has disconnected."""

from __future__ import annotations

from collections.abc import Callable
from logging import WARNING
from typing import TYPE_CHECKING, Protocol

from ..reports.throttled import ThrottledLog
from .quotas import name_of
from .task import BUSY

if TYPE_CHECKING:
    from ..timing import Timing
    from .task import Task


class Ticking(Protocol):
    """The part of a loop's interface that overdue handlers use."""

    timing: Timing

    def clock(self) -> float:
        """Any thread: return the time on the loop's clock, in seconds."""

    def at_next_tick(self, function: Callable[[], object], /) -> None:
        """Loop owner: call ``function`` at the next check of the deadlines."""


class OverdueHandlers:
    """The handlers of one loop that outlive their client. Only the owner calls its methods.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: Ticking) -> None:
        self._loop = loop
        self._overdue: set[Task] = set()
        # The times at which the handlers become overdue, in order.
        self._due: dict[Task, float] = {}
        self._log = ThrottledLog()

    def __len__(self) -> int:
        """Any thread: return the number of overdue handlers."""
        return len(self._overdue)

    def watch(self, task: Task) -> None:
        """Loop owner: watch a handler that occupies a thread although its client has disconnected.

        After ``Timing.overdue_after`` the handler is logged, and counted until it ends.
        """
        if task not in self._due and task not in self._overdue:
            if not self._due:
                self._loop.at_next_tick(self._check)
            self._due[task] = self._loop.clock() + self._loop.timing.overdue_after

    def discard(self, task: Task) -> None:
        """Loop owner: stop watching a task, because its handler has ended."""
        self._due.pop(task, None)
        self._overdue.discard(task)

    def _check(self) -> None:
        now = self._loop.clock()
        for task, due in tuple(self._due.items()):
            if due > now:
                break  # the other handlers become overdue later
            del self._due[task]
            if task.state is not BUSY:
                continue  # the handler occupies no thread: it waits for its last turn
            self._overdue.add(task)
            self._log.log(
                WARNING,
                "%s: a handler still has its thread %g s after its client has disconnected; wait "
                "with a timeout in the handler, or with stream.get(queue), which ends with the "
                "client",
                name_of(task.route),
                self._loop.timing.overdue_after,
            )
        if self._due:
            self._loop.at_next_tick(self._check)

"""Slowdowns: tasks whose next turn is delayed until the cause is over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .task import WAITING

if TYPE_CHECKING:
    from .task import Task


class Slowdowns:
    """The delayed tasks of one loop, by the cause. Only the owner calls its methods.

    Args:
        call_soon: a function, for any thread, that queues a function for the owner to call.
    """

    def __init__(self, call_soon: Callable[[Callable[[], object]], None]) -> None:
        self._call_soon = call_soon
        self._tasks: dict[object, set[Task]] = {}

    def __len__(self) -> int:
        """Any thread: return the number of causes of delays."""
        return len(self._tasks)

    def add(
        self, task: Task, reason: object, when_over: Callable[[Callable[[], object]], object]
    ) -> None:
        """Loop owner: delay the next turn of a task; see :meth:`Loop.slow_down`."""
        task.peer.stop_turn = True
        if reason in self._tasks:
            self._tasks[reason].add(task)
            return
        self._tasks[reason] = {task}
        when_over(partial(self._call_soon, partial(self._end, reason)))

    def delays(self, task: Task) -> bool:
        """Loop owner: return True if the next turn of a task is delayed."""
        return any(task in tasks for tasks in self._tasks.values())

    def discard(self, task: Task) -> None:
        """Loop owner: remove a task that has ended."""
        for tasks in self._tasks.values():
            tasks.discard(task)

    def resume(self, task: Task) -> None:
        """Loop owner: end the delay of a task, because its client has disconnected."""
        if self.delays(task):
            self.discard(task)
            if task.state is WAITING:
                task.resume()

    def _end(self, reason: object) -> None:
        for task in self._tasks.pop(reason, ()):
            if task.state is WAITING and not self.delays(task):
                task.resume()

"""The ownership of a loop, and its hand-off to another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..reports.loggers import log
from .quotas import Holder, Shortage
from .threads import HANDLER_NAME, LOOP_NAME, WorkerThread

if TYPE_CHECKING:
    from .task import Task
    from .threads import Threads


class Ownership:
    """The period in which one thread owns the loop. Each period has a new object.

    Attributes:
        token: a list with one item while user code runs: the work of that turn. Each turn has a new
            list.
        task: the task of the current or last turn; initially, the task that lost the loop, if any.
        thread: the owner.
        worker: the worker object of that thread; set before the ownership begins.
    """

    __slots__ = ("task", "thread", "token", "worker")

    def __init__(self, lost: Task | None = None) -> None:
        self.thread: threading.Thread = threading.current_thread()
        self.token: list[list[Any]] = []
        self.task: Task | None = lost
        self.worker: WorkerThread | None = None


class Handoff:
    """The ownership of one loop: the thread that owns it now, and the change to another thread.

    Args:
        threads: the threads that run the loop.
        run: a function that runs the loop in the thread that owns it, until that ownership ends.

    Attributes:
        ownership: the current ownership.
        owner: the identifier of the owner's thread; 0 if no thread owns the loop.
    """

    def __init__(self, threads: Threads, run: Callable[[Ownership], object]) -> None:
        self.ownership: Ownership = Ownership()
        self.owner: int = 0
        self._threads = threads
        self._run = run
        # Only the monitor uses these: the token at its last check, and the last token whose
        # hand-off failed.
        self._seen: list[Any] | None = None
        self._not_handed_off: list[Any] | None = None

    def start(self) -> None:
        """Any thread, once: start the loop in a thread.

        Raises:
            RuntimeError: the system cannot start another thread.
        """
        worker = self.ownership.worker = self._threads.start_loop()
        worker.jobs.put((LOOP_NAME, partial(self._run, self.ownership)))

    def begin(self, ownership: Ownership) -> None:
        """The new owner: begin an ownership."""
        self.owner = threading.get_ident()
        ownership.thread = threading.current_thread()

    def after_fork(self) -> None:
        """The child of a fork: end the ownership; a handler that forked has lost the loop."""
        self.owner = 0
        self.ownership.token.clear()

    def watch(self) -> bool:
        """The monitor's thread: hand the loop off if the turn of the last call still runs.

        Returns:
            True if a turn runs that may end before the next call.
        """
        ownership = self.ownership
        token = next(iter(ownership.token), None)
        if token is not None and token is self._seen:
            self._hand_off(ownership, token)
            token = None
        self._seen = token
        return token is not None

    def _hand_off(self, ownership: Ownership, token: list[Any]) -> None:
        task, owner = ownership.task, ownership.worker
        if task is None or owner is None:
            return  # the turn has just ended
        handoff = self._threads.hand_off(owner, Holder(task.route, task.peer.network))
        if handoff is None:
            if token is not self._not_handed_off:  # logged once for each turn
                self._not_handed_off = token
                log.warning(
                    "%s blocks the loop, and no thread can take it over: %s",
                    task.path,
                    Shortage.SYSTEM.value,
                )
            return
        worker, charge = handoff
        try:
            ownership.token.pop()
        except IndexError:  # the turn has just ended
            self._threads.take_back(owner, charge, worker)
            return
        # No other thread changes the ownership: the old owner has lost the loop, the new one has
        # not begun.
        assert ownership.task is not None
        if ownership.task is not task:  # that turn has ended, and another one has lost the loop
            lost = ownership.task
            self._threads.recharge(owner, charge, Holder(lost.route, lost.peer.network))
        self.ownership = Ownership(ownership.task)
        self.ownership.worker = worker
        self.owner = 0
        ownership.thread.name = f"{HANDLER_NAME} {ownership.task.path}"
        worker.jobs.put((LOOP_NAME, partial(self._run, self.ownership)))
        self._threads.restore_spares()

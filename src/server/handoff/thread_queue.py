"""Thread queue: the turns and requests of one loop that wait for a thread."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from logging import WARNING
from typing import TYPE_CHECKING, Protocol

from ..reports.throttled import ThrottledLog
from .quotas import Holder, Shortage, name_of
from .waiting import Waiter, WaitingRoom

if TYPE_CHECKING:
    from .task import TaskPeer
    from .threads import Threads, WorkerThread


class QueueLoop(Protocol):
    """The part of a loop's interface that the queue uses."""

    def call_soon(self, function: Callable[[], object], /) -> None:
        """Any thread: queue ``function`` for the owner to call."""

    def call_safely(self, function: Callable[[], object], /) -> None:
        """Loop owner: call ``function``; an error ends only the connection whose method it is."""

    def at_next_tick(self, function: Callable[[], object], /) -> None:
        """Loop owner: call ``function`` at the next check of the deadlines."""


class ThreadQueue:
    """The turns and requests of one loop that wait for a thread.

    Only the owner calls its methods, except where stated.

    Args:
        loop: the loop.
        threads: the threads of the server.
    """

    def __init__(self, loop: QueueLoop, threads: Threads) -> None:
        self._loop = loop
        self._threads = threads
        self._room = WaitingRoom()
        self._log = ThrottledLog()
        self._refusal_log = ThrottledLog()
        self._retries = False  # True if a retry at the next tick is scheduled

    def __len__(self) -> int:
        """Any thread: return the number of turns and requests that wait."""
        return len(self._room)

    def discard(self, waiter: Waiter) -> None:
        """Loop owner: remove a turn or a request, if it waits."""
        self._room.discard(waiter)

    def wait_if_needed(self, waiter: Waiter, connection: TaskPeer, route: Hashable) -> bool:
        """Loop owner: queue a turn or a request, unless a thread is free for it now.

        ``waiter.resume()`` is called when a thread is free, unless the waiter is discarded before.

        Returns:
            True if the turn or request waits.
        """
        if not (waiter.needs_thread or self._threads.scarce):
            return False
        holder = Holder(route, connection.network)
        shortage = self.shortage(waiter.needs_thread, holder)
        if shortage is not None:
            self.add(waiter, holder, shortage)
        return shortage is not None

    def add(self, waiter: Waiter, holder: Holder, shortage: Shortage) -> None:
        """Loop owner: queue a turn or a request, and log the reason."""
        self._room.add(waiter, holder)
        reason = self._explain(waiter.needs_thread, shortage)
        self._log.log(WARNING, "%s waits for a thread: %s", name_of(holder.route), reason)
        if not self._retries:
            self._retries = True
            self._loop.at_next_tick(self._retry)

    def engage_turn(self, holder: Holder) -> WorkerThread | Shortage:
        """Loop owner: return a thread for a turn, or the reason why no thread is free.

        A turn is one run of user code for one connection.
        """
        return self._threads.engage_turn(holder, self._retry_soon)

    def shortage(self, needs_thread: bool, holder: Holder) -> Shortage | None:
        """Loop owner: return the reason to wait for a thread; None if one is free.

        A turn of a blocking route begins on the loop only if the system cannot start a thread. Then
        a spare thread can take over the loop.
        """
        if needs_thread:
            shortage = self._threads.turn_shortage(holder, self._retry_soon)
            if shortage is not Shortage.SYSTEM:
                return shortage
        return self._threads.hand_off_shortage(holder, self._retry_soon)

    def explain(self, needs_thread: bool, connection: TaskPeer, route: Hashable) -> str:
        """Loop owner: return the reason why no thread is free, for the log."""
        shortage = self.shortage(needs_thread, Holder(route, connection.network))
        if shortage is None:
            return "a thread became free too late"
        return self._explain(needs_thread, shortage)

    def log_refusal(self, route: Hashable, reason: str) -> None:
        """Loop owner: log a refusal of a request because no thread is free, at a limited rate."""
        self._refusal_log.log(
            WARNING, "%s: a request is refused with 503, because %s", name_of(route), reason
        )

    def _explain(self, needs_thread: bool, shortage: Shortage) -> str:
        quota = self._threads.turn_quota if needs_thread else self._threads.handoff_quota
        return quota.explain(shortage)

    def _retry_soon(self) -> None:
        """Any thread: make the owner check whether a thread is free now."""
        self._loop.call_soon(self._resume_next)

    def _resume_next(self) -> None:
        """Resume the next waiter for which a thread is free.

        If others wait, queue another check.
        """
        waiter = self._room.next(lambda waiter, holder: self.shortage(waiter.needs_thread, holder))
        if waiter is not None:
            self._loop.call_safely(waiter.resume)
            if self._room:
                self._retry_soon()

    def _retry(self) -> None:
        """Resume the next waiter if a thread is free; repeat this at each tick while any waits.

        The repetition is necessary, because the system does not report when it can start threads.
        """
        self._resume_next()
        self._retries = bool(self._room)
        if self._retries:
            self._loop.at_next_tick(self._retry)

"""Tasks: the user code of one connection, run in turns.

A *turn* is one run of user code for one connection. A connection has one turn at a time, on the
loop's thread or, if its handler has blocked before, in another thread:

    IDLE --schedule--> QUEUED --+--> runs on the loop --+--> returns: finish_turn --> IDLE, QUEUED,
                                |                       |    ENDED, or HELD until the client reads
                                |                       +--> loses the loop: BUSY
                                +--> has blocked before: BUSY, in a thread
                                +--> no thread is free: WAITING --a thread is free--> QUEUED
    BUSY --returns--> the owner calls finish_turn --> as above

Only the owner of the loop changes the state of a task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextvars import Context
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from ..rounds import Resumable

if TYPE_CHECKING:
    from .blocking import BlockingProfile
    from .threads import WorkerThread


# The maximum number of work items in one turn. Then the loop sends answers and runs other tasks.
MAX_WORK_PER_TURN = 256


class State(Enum):
    """The state of a task."""

    IDLE = "waits for work"
    QUEUED = "a turn is scheduled and has not begun"
    HELD = "has work, which waits until the client has received the unsent data"
    WAITING = "a turn waits for a thread"
    BUSY = "a turn runs without the loop"
    ENDED = "the user code has ended"


# Module-level names, because looking up a member of an enum is slower.
IDLE, QUEUED, HELD, WAITING, BUSY, ENDED = State


class TaskLoop(Protocol):
    """The part of a loop's interface that tasks use. Only the owner calls the methods."""

    unfinished: set[Task]

    def queue_turn(self, task: Task, /) -> None:
        """Loop owner: queue a turn of a task, which is one run of its user code."""

    def run_in(self, worker: WorkerThread, task: Task, /) -> None:
        """Loop owner: run a turn in this thread, if the task has work."""

    def finished(self, task: Task, /) -> None:
        """Loop owner: forget a task whose user code has ended."""


class TaskPeer(Protocol):
    """The part of a connection that its task and the loop use, besides that of :class:`Wire`.

    Attributes:
        in_turn: True while the owner runs user code of this connection; it flushes afterwards.
        stop_turn: True if the turn should end early.
    """

    in_turn: bool
    stop_turn: bool

    @property
    def loop(self) -> TaskLoop:
        """Any thread: the loop of the connection."""

    @property
    def network(self) -> Hashable:
        """Any thread: the client network that the threads count for; None for no limit."""

    def flush(self) -> None:
        """Loop owner: send the queued frames."""

    def sent_partly(self, items: Any, sent: int) -> None:
        """Loop owner: process the result of a call that has sent items of many connections."""

    def abort(self) -> None:
        """Loop owner: close the connection now."""


class Task(Resumable, ABC):
    """The user code of one connection.

    Attributes:
        peer: the connection.
        profile: the blocking profile of the route on this loop.
        probation: the number of quick turns in a thread before a turn runs on the loop again.
        needs_thread: True if the next turn must begin in a thread: during probation, or always.
        state: the state, which only the owner uses.
        work: the items for the next turn; None if none has arrived.
        needs_finish: True if :meth:`finish_turn` must be called after the turn.
    """

    __slots__ = ("probation", "work")

    peer: TaskPeer
    profile: BlockingProfile

    def __init__(self, peer: TaskPeer, profile: BlockingProfile) -> None:
        super().__init__()
        self.peer = peer
        self.profile = profile
        self.probation: int = profile.probation()
        self.needs_thread: bool = profile.needs_thread()
        self.state: Any = IDLE
        self.work: list[Any] | None = None
        # Each task has its own context variables, whichever thread runs its turns.
        self.context: Context = Context()

    def set_probation(self, turns: int) -> None:
        """Loop owner: require some quick turns in a thread, unless the route sets ``blocking``."""
        if self.profile.blocking is None:
            self.probation = turns
            self.needs_thread = turns > 0

    @property
    @abstractmethod
    def path(self) -> str:
        """Any thread: the path of the request, for the log."""

    @property
    def route(self) -> Hashable:
        """Any thread: the route whose share of the threads the turns use."""
        return self.profile.route

    def next_batch(self) -> list[Any] | None:
        """Loop owner: remove and return the work of the next turn, a new list; None without work.

        The loop skips this call if ``work`` has at most ``MAX_WORK_PER_TURN`` items.
        """
        work = self.work
        if work is not None and len(work) > MAX_WORK_PER_TURN:
            self.needs_finish = True
            first = work[:MAX_WORK_PER_TURN]
            del work[:MAX_WORK_PER_TURN]
            return first
        self.work = None
        return work

    def run(self, work: list[Any]) -> None:
        """The turn's thread: run the turn."""
        self.context.run(self.work_on, work)

    @abstractmethod
    def work_on(self, work: list[Any]) -> object:
        """The turn's thread: run user code; store an exception instead of raising it."""

    @abstractmethod
    def finish_turn(self) -> None:
        """Loop owner: process the result of the turn, and schedule the next turn."""

    def schedule(self) -> None:
        """Loop owner: queue a turn; if a turn is running, its end queues the next one."""
        if self.state is IDLE or self.state is HELD:
            self.state = QUEUED
            self.peer.loop.queue_turn(self)

    def hold(self) -> None:
        """Loop owner: accept no work until :meth:`release`, because the turn waits for a thread."""

    def release(self) -> None:
        """Loop owner: undo :meth:`hold`."""

    def resume(self) -> None:
        """Loop owner: queue the turn that waits for a thread, because one is free."""
        self.release()
        self.state = QUEUED
        self.peer.loop.queue_turn(self)

    def start(self, worker: WorkerThread | None = None) -> None:
        """Loop owner, once: start the user code; the loop does not stop before that code ends.

        Args:
            worker: the thread of a handler whose only turn lasts as long as the connection; None to
                schedule turns.
        """
        self.peer.loop.unfinished.add(self)
        if worker is None:
            self.schedule()
        else:
            self.peer.loop.run_in(worker, self)

    def end(self) -> None:
        """Loop owner: record that the user code has ended."""
        self.state = ENDED
        self.work = None
        self.peer.loop.finished(self)

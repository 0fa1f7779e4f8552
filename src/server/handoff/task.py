"""Turns: how the user's code of one connection is run, and who may touch what meanwhile.

A *turn* is one run of user code for one connection. A connection has one at a time, on the loop's
thread or, once it has blocked, in another:

    IDLE --ask--> QUEUED --+--> runs on the loop --+--> returns: settle --> IDLE, QUEUED, ENDED
                           |                       |         or HELD, until the client reads
                           |                       +--> loses the loop: BUSY
                           +--> has blocked before: BUSY, in a thread of its own
                           +--> no thread is free: WAITING --one is--> QUEUED
    BUSY --returns--> the owner hears of it: settle --> as above

Only the owner of the loop moves a connection from one state to the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextvars import Context
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .blocking import BlockingProfile
    from .threads import WorkerThread


# How much work a turn has at most; then it is seen what has become of the answers.
WORK_A_TURN = 256


class State(Enum):
    """What is with the user's code of a connection."""

    IDLE = "waits for something to work on"
    QUEUED = "a turn was asked for and has not begun"
    HELD = "has work, which must wait until the client takes what is unsent"
    WAITING = "a turn is due and waits for a thread"
    BUSY = "a turn runs without the loop"
    ENDED = "there will be no turn any more"


# As names of the module they are looked up faster.
IDLE, QUEUED, HELD, WAITING, BUSY, ENDED = State


class Scheduler(Protocol):
    """The loop, as far as turns need it. All methods are the owner's."""

    unfinished: set[Task]

    def queue_turn(self, task: Task, /) -> None:
        """Owner: have this turn soon."""

    def run_in(self, worker: WorkerThread, task: Task, /) -> None:
        """Owner: run a turn in this thread."""

    def finished(self, task: Task, /) -> None:
        """Owner: this user code has ended."""


class Connection(Protocol):
    """A connection, as far as its turns and the loop need it.

    Attributes:
        in_turn: the owner runs user code of this connection, and flushes when that is done.
        halted: the turn is to end early.
    """

    in_turn: bool
    stop_turn: bool

    @property
    def loop(self) -> Scheduler:
        """Any thread: the loop of the connection."""

    @property
    def network(self) -> Hashable:
        """Any thread: the client network that its threads count for; None if not limited."""

    def flush(self) -> None:
        """Owner: send what is queued."""

    def abort(self) -> None:
        """Owner: close the connection now."""


class Task(ABC):
    """The user's code of one connection.

    Attributes:
        peer: the connection.
        profile: the blocking profile of the route on this loop.
        probation: the number of turns that must be quick, in a thread, before one runs on the loop
            again.
        needs_thread: True if the next turn must begin in a thread: during probation, or always.
        state: which the owner alone looks at and sets.
        work: what the next turn is to work on, as far as it has come.
        unsettled: something has come of the turn that :meth:`finish_turn` is to carry out.
    """

    __slots__ = (
        "context",
        "needs_finish",
        "needs_thread",
        "peer",
        "probation",
        "profile",
        "state",
        "work",
    )

    def __init__(self, peer: Connection, profile: BlockingProfile) -> None:
        self.peer = peer
        self.profile = profile
        self.probation = profile.probation()
        self.needs_thread = profile.needs_thread()
        self.state = IDLE
        self.work: list[Any] | None = None
        self.needs_finish = False
        # What one handler sets must not be seen by the next one on the same thread, and must not
        # be lost when its own next turn is run by another.
        self.context = Context()

    def set_probation(self, turns: int) -> None:
        """Owner: require this many quick turns in a thread, unless the author has decided."""
        if self.profile.blocking is None:
            self.probation = turns
            self.needs_thread = turns > 0

    @property
    @abstractmethod
    def path(self) -> str:
        """Any thread: the path of the request, to name it by."""

    @property
    def route(self) -> Hashable:
        """Any thread: the route whose share of the threads its turns use."""
        return self.profile.route

    def next_batch(self) -> list[Any] | None:
        """Owner: what the next turn is to work on, a new list; None if there is nothing to do.

        Not called where ``work`` is what there is, and no more than ``WORK_A_TURN``.
        """
        work = self.work
        if work is not None and len(work) > WORK_A_TURN:
            self.needs_finish = True
            first = work[:WORK_A_TURN]
            del work[:WORK_A_TURN]
            return first
        self.work = None
        return work

    def run(self, work: list[Any]) -> None:
        """Whichever thread has the turn: have it."""
        self.context.run(self.work_on, work)

    @abstractmethod
    def work_on(self, work: list[Any]) -> object:
        """Whichever thread has the turn: run user code; whatever it raises is kept, not raised."""

    @abstractmethod
    def finish_turn(self) -> None:
        """Owner: carry out what has come of the turn, and ask for the next one."""

    def schedule(self) -> None:
        """Owner: have a turn soon, unless one is under way: its end will ask again."""
        if self.state is IDLE or self.state is HELD:
            self.state = QUEUED
            self.peer.loop.queue_turn(self)

    def hold(self) -> None:  # noqa: B027 - most have nothing to do then
        """Owner: the next turn waits for a thread; until :meth:`release`, take no more work."""

    def release(self) -> None:  # noqa: B027 - most have nothing to do then
        """Owner: undo :meth:`hold`."""

    def resume(self) -> None:
        """Owner: a thread is free for the turn that waits for one."""
        self.release()
        self.state = QUEUED
        self.peer.loop.queue_turn(self)

    def start(self, worker: WorkerThread | None = None) -> None:
        """Owner, once: user code exists from here on; the loop waits for its end.

        Args:
            worker: the thread for a handler that has only one turn, which lasts as long as the
                connection; None if its turns are asked for.
        """
        self.peer.loop.unfinished.add(self)
        if worker is None:
            self.schedule()
        else:
            self.peer.loop.run_in(worker, self)

    def end(self) -> None:
        """Owner: there will be no turn any more."""
        self.state = ENDED
        self.work = None
        self.peer.loop.finished(self)

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
from collections import deque
from collections.abc import Hashable
from contextvars import Context
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..timing import Timing
    from .threads import Worker


# How many turns of a connection that has blocked must be quick, in a thread, before it is run on
# the loop again: about what a lost slice costs, in hand-overs to a thread.
PROBATION = 200
# The same for connections of a route that is suspected of blocking: other connections of it have
# lost the loop STEALS_OF_A_ROUTE times within ``Timing.handoff_window``.
ROUTE_PROBATION = 16
STEALS_OF_A_ROUTE = 3
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


class Habit:
    """What is known of a route on one loop: does its user code block? All of it is the owner's.

    Args:
        route: the route; of a hook, the hook.
        blocking: what its author says: True for "always run it in a thread", False for "begin on
            the loop, whatever was seen", None to learn it.
        timing: the app's.
    """

    def __init__(self, route: Hashable, blocking: bool | None, timing: Timing) -> None:
        self.route = route
        self.blocking = blocking
        self._timing = timing
        self._blocked: deque[float] = deque(maxlen=STEALS_OF_A_ROUTE)
        self._suspected = -inf

    def credit(self) -> float:
        """How many turns a new connection has to be quick in a thread first."""
        if self.blocking:
            return inf
        age = self._timing.clock() - self._suspected
        return ROUTE_PROBATION if age < self._timing.route_memory else 0

    def has_blocked(self) -> bool:
        """Note that a turn held the loop; True if that makes all of the route suspect."""
        now = self._timing.clock()
        self._blocked.append(now)
        window = self._timing.handoff_window
        often = len(self._blocked) == STEALS_OF_A_ROUTE and now - self._blocked[0] < window
        if often:
            self._suspected = now
        return often


class Scheduler(Protocol):
    """The loop, as far as turns need it. All methods are the owner's."""

    unfinished: set[Turns]

    def queue_turn(self, turns: Turns, /) -> None:
        """Owner: have this turn soon."""

    def run_in(self, worker: Worker, turns: Turns, /) -> None:
        """Owner: run a turn in this thread."""

    def finished(self, turns: Turns, /) -> None:
        """Owner: this user code has ended."""


class Connection(Protocol):
    """A connection, as far as its turns and the loop need it.

    Attributes:
        in_turn: the owner runs user code of this connection, and flushes when that is done.
        halted: the turn is to end early.
    """

    in_turn: bool
    halted: bool

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


class Turns(ABC):
    """The user's code of one connection.

    Attributes:
        peer: the connection.
        habit: what is known of the route on this loop.
        credit: how many turns have to be quick, in a thread, before one is run on the loop again.
        state: which the owner alone looks at and sets.
        work: what the next turn is to work on, as far as it has come.
        unsettled: something has come of the turn that :meth:`settle` is to carry out.
    """

    __slots__ = ("context", "credit", "habit", "peer", "state", "unsettled", "work")

    def __init__(self, peer: Connection, habit: Habit) -> None:
        self.peer = peer
        self.habit = habit
        self.credit = habit.credit()
        self.state = IDLE
        self.work: list[Any] | None = None
        self.unsettled = False
        # What one handler sets must not be seen by the next one on the same thread, and must not
        # be lost when its own next turn is run by another.
        self.context = Context()

    @property
    @abstractmethod
    def path(self) -> str:
        """Any thread: the path of the request, to name it by."""

    @property
    def route(self) -> Hashable:
        """Any thread: the route whose share of the threads its turns use."""
        return self.habit.route

    def take(self) -> list[Any] | None:
        """Owner: what the next turn is to work on, a new list; None if there is nothing to do.

        Not called where ``work`` is what there is, and no more than ``WORK_A_TURN``.
        """
        work = self.work
        if work is not None and len(work) > WORK_A_TURN:
            self.unsettled = True
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
    def settle(self) -> None:
        """Owner: carry out what has come of the turn, and ask for the next one."""

    def ask(self) -> None:
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

    def begin(self, worker: Worker | None = None) -> None:
        """Owner, once: user code exists from here on; the loop waits for its end.

        Args:
            worker: the thread for a handler that has only one turn, which lasts as long as the
                connection; None if its turns are asked for.
        """
        self.peer.loop.unfinished.add(self)
        if worker is None:
            self.ask()
        else:
            self.peer.loop.run_in(worker, self)

    def end(self) -> None:
        """Owner: there will be no turn any more."""
        self.state = ENDED
        self.work = None
        self.peer.loop.finished(self)

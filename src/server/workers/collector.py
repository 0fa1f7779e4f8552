"""The statistics of a service: the sum over all workers, which any of them can request.

A worker requests the sum from the supervisor, which collects the numbers of all workers. Such a
*round* takes a limited time. A request that arrives during a round is answered by the next one, so
that an answer includes everything that happened before its request.

No counter decreases. The last numbers of a worker are used while it does not answer, and its
counters are kept after it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from ..reports.stats import Stats, counters, total


@dataclass(eq=False)
class Participant:
    """A worker that takes part in the rounds.

    Attributes:
        request: a function that requests the worker's numbers.
        answer: a function that sends the worker the sum over all workers.
        last: the last numbers of the worker.
        pending: True while the worker has not answered a request.
        missing: True if the worker has missed a round. Later rounds do not wait for a missing
            worker.
    """

    request: Callable[[], object]
    answer: Callable[[Stats], object]
    last: Stats = field(default_factory=Stats)
    pending: bool = False
    missing: bool = False


class Collector:
    """Collects the numbers of all workers on request. Only the supervisor calls its methods.

    Args:
        clock: a function that returns the time in seconds.
        timeout: seconds that a round waits for the workers.

    Attributes:
        due: time of the next :meth:`check`, by the clock.
        replaced: number of workers that have been replaced.
    """

    def __init__(self, clock: Callable[[], float], timeout: float) -> None:
        self.due: float = inf
        self.replaced = 0
        self._clock = clock
        self._timeout = timeout
        self._began = clock()
        self._past = Stats()  # the counters of workers that have ended
        self._all: list[Participant] = []
        self._waiting: list[Participant] = []  # the workers that wait for the end of this round
        # The workers that wait for the end of the next round.
        self._next_waiting: list[Participant] = []

    def add(self, worker: Participant) -> None:
        """Add a worker that has started."""
        self._all.append(worker)

    def remove(self, worker: Participant) -> None:
        """Remove a worker that has ended; keep its counters."""
        self._all.remove(worker)
        self._past = total([self._past, counters(worker.last)])
        for waiting in (self._waiting, self._next_waiting):
            if worker in waiting:
                waiting.remove(worker)
        self.check()

    def request(self, worker: Participant) -> None:
        """Send a worker the sum at the end of the next round."""
        self._next_waiting.append(worker)
        if not self._waiting:
            self._begin()

    def receive(self, worker: Participant, stats: Stats) -> None:
        """Record the numbers that a worker has sent as an answer or before its end."""
        worker.last = stats
        worker.pending = worker.missing = False
        self.check()

    def check(self) -> None:
        """End the round if it is complete or late; begin the next one if a worker waits for it."""
        if self.due == inf:
            return
        late = self._clock() >= self.due
        if not late and any(worker.pending and not worker.missing for worker in self._all):
            return
        for worker in self._all:
            worker.missing = worker.missing or worker.pending
        self.due = inf
        waiting, self._waiting = self._waiting, []
        numbers = self._sum()
        for worker in waiting:
            worker.answer(numbers)
        if self._next_waiting:
            self._begin()

    def _begin(self) -> None:
        self._waiting, self._next_waiting = self._next_waiting, []
        self.due = self._clock() + self._timeout
        for worker in self._all:
            if not worker.pending:
                worker.pending = True
                worker.request()
        self.check()

    def _sum(self) -> Stats:
        missing = sum(worker.missing for worker in self._all)
        return replace(
            total([self._past, *(worker.last for worker in self._all)]),
            uptime=self._clock() - self._began,
            processes=len(self._all) - missing,
            missing_processes=missing,
            replaced_processes=self.replaced,
        )

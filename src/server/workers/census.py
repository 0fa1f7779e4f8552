"""The numbers of a service: those of all its workers in one, whichever of them is asked.

A worker that is asked for the numbers asks the supervisor, and that asks all of them. Each such
*round* takes a bounded time. Who is asked during a round has an answer of the next one, so that an
answer tells of everything that happened before its question.

No counter decreases: the last numbers of a worker stand for it while it does not answer, and its
counters are kept when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from math import inf

from ..reports.stats import METRICS, Stats, total

COUNTERS = {
    attribute
    for metric in METRICS
    if metric.kind == "counter"
    for attribute in metric.samples.values()
}


@dataclass(eq=False)
class Respondent:
    """A worker that can be asked.

    Attributes:
        ask: sends it the question.
        answer: sends it the numbers of all.
        last: its last numbers.
        asked: it has been asked, and has not answered.
        silent: it did not answer in time, and is not waited for until it has answered.
    """

    ask: Callable[[], object]
    answer: Callable[[Stats], object]
    last: Stats = field(default_factory=Stats)
    asked: bool = False
    silent: bool = False


class Census:
    """Asks all workers when one wants to know; all methods are the supervisor's.

    Args:
        clock: returns the time in seconds.
        wait: how long a round waits for the workers, in seconds.

    Attributes:
        due: when :meth:`look` is to be called, by the clock.
        replaced: how many workers have been replaced.
    """

    def __init__(self, clock: Callable[[], float], wait: float) -> None:
        self.due = inf
        self.replaced = 0
        self._clock = clock
        self._wait = wait
        self._began = clock()
        self._past = Stats()  # the counters of those that have ended
        self._all: list[Respondent] = []
        self._askers: list[Respondent] = []  # of this round
        self._next_askers: list[Respondent] = []

    def join(self, worker: Respondent) -> None:
        """A worker serves."""
        self._all.append(worker)

    def leave(self, worker: Respondent) -> None:
        """A worker has ended; its counters are kept."""
        self._all.remove(worker)
        self._past = total([self._past, _counters(worker.last)])
        for askers in (self._askers, self._next_askers):
            if worker in askers:
                askers.remove(worker)
        self.look()

    def ask(self, worker: Respondent) -> None:
        """A worker wants to know the numbers of all."""
        self._next_askers.append(worker)
        if not self._askers:
            self._begin()

    def report(self, worker: Respondent, stats: Stats) -> None:
        """A worker has answered, or sends its last numbers unasked."""
        worker.last = stats
        worker.asked = worker.silent = False
        self.look()

    def look(self) -> None:
        """End the round if it is time, and begin the next one if somebody waits for it."""
        if self.due == inf:
            return
        late = self._clock() >= self.due
        if not late and any(worker.asked and not worker.silent for worker in self._all):
            return
        for worker in self._all:
            worker.silent = worker.silent or worker.asked
        self.due = inf
        askers, self._askers = self._askers, []
        numbers = self._numbers()
        for worker in askers:
            worker.answer(numbers)
        if self._next_askers:
            self._begin()

    def _begin(self) -> None:
        self._askers, self._next_askers = self._next_askers, []
        self.due = self._clock() + self._wait
        for worker in self._all:
            if not worker.asked:
                worker.asked = True
                worker.ask()
        self.look()

    def _numbers(self) -> Stats:
        missing = sum(worker.silent for worker in self._all)
        return replace(
            total([self._past, *(worker.last for worker in self._all)]),
            uptime=self._clock() - self._began,
            processes=len(self._all) - missing,
            missing_processes=missing,
            replaced_processes=self.replaced,
        )


def _counters(stats: Stats) -> Stats:
    others: Iterable[str] = (item.name for item in fields(Stats) if item.name not in COUNTERS)
    empty = Stats()
    return replace(stats, **{name: getattr(empty, name) for name in others})

"""Handlers that outlive their client, without a loop and without threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.support.log import ServerLog
from wsframe.server.handoff.overdue import OverdueHandlers
from wsframe.server.handoff.task import BUSY, IDLE, State, Task
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

LIMIT = 5.0


class StubLoop:
    """A loop whose ticks the test makes."""

    def __init__(self) -> None:
        self.source = ManualClock()
        self.timing = Timing(clock=self.source, overdue_after=LIMIT)
        self.functions: list[Callable[[], object]] = []

    def clock(self) -> float:
        return self.source.now

    def at_next_tick(self, function: Callable[[], object], /) -> None:
        self.functions.append(function)

    def tick(self, seconds: float) -> None:
        self.source.now += seconds
        functions, self.functions = self.functions, []
        for function in functions:
            function()


class StubTask:
    """A task in some state."""

    def __init__(self, state: State = BUSY) -> None:
        self.state = state
        self.route: Any = "/stuck"


def task(state: State = BUSY) -> Task:
    return cast(Task, StubTask(state))


@pytest.fixture
def loop() -> StubLoop:
    return StubLoop()


@pytest.fixture
def overdue(loop: StubLoop) -> OverdueHandlers:
    return OverdueHandlers(loop)


def test_a_handler_is_overdue_after_the_limit_and_until_it_ends(
    loop: StubLoop, overdue: OverdueHandlers, log: ServerLog
) -> None:
    stuck = task()
    overdue.watch(stuck)
    loop.tick(0.9 * LIMIT)
    assert len(overdue) == 0
    loop.tick(0.1 * LIMIT)
    assert len(overdue) == 1
    log.expect("/stuck: a handler still has its thread 5 s after its client", logging.WARNING)
    overdue.discard(stuck)
    assert len(overdue) == 0


def test_a_handler_that_ends_in_time_is_never_overdue(
    loop: StubLoop, overdue: OverdueHandlers
) -> None:
    quick = task()
    overdue.watch(quick)
    overdue.discard(quick)
    loop.tick(2 * LIMIT)
    assert len(overdue) == 0


def test_a_handler_without_a_thread_is_not_overdue(
    loop: StubLoop, overdue: OverdueHandlers
) -> None:
    overdue.watch(task(IDLE))
    loop.tick(LIMIT)
    assert len(overdue) == 0


def test_each_handler_has_a_limit_of_its_own(
    loop: StubLoop, overdue: OverdueHandlers, log: ServerLog
) -> None:
    overdue.watch(task())
    loop.tick(LIMIT / 2)
    overdue.watch(task())
    loop.tick(LIMIT / 2)
    assert len(overdue) == 1
    loop.tick(LIMIT / 2)
    assert len(overdue) == 2
    log.expect("/stuck: a handler still has its thread", logging.WARNING)


def test_a_handler_that_is_watched_twice_counts_once(
    loop: StubLoop, overdue: OverdueHandlers, log: ServerLog
) -> None:
    stuck = task()
    overdue.watch(stuck)
    loop.tick(LIMIT)
    overdue.watch(stuck)
    loop.tick(LIMIT)
    assert len(overdue) == 1
    log.expect("/stuck: a handler still has its thread", logging.WARNING)


def test_without_a_watched_handler_the_loop_is_not_asked_for_ticks(
    loop: StubLoop, overdue: OverdueHandlers
) -> None:
    overdue.watch(task(IDLE))
    loop.tick(LIMIT)
    assert loop.functions == []

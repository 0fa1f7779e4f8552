"""The clock of a loop, and its ticks, without a loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wsframe.server.handoff.clock import LoopClock
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

INTERVAL = Timing().sweep_interval
SUSPENDED = 100.0  # more than Timing.stall_threshold


class Ticking(LoopClock):
    """A clock whose ticks the test makes due, and which records them."""

    def __init__(self) -> None:
        self.source = ManualClock()
        super().__init__(Timing(clock=self.source))
        self.ticks: list[float] = []
        self.pauses: list[float | None] = []
        self.tick = self._record

    def call_safely(self, function: Callable[[], object], /) -> None:
        function()

    def pass_time(self, seconds: float) -> None:
        """Advance the time, then tick if it is due."""
        self.source.now += seconds
        self._tick_if_due(self.source.now)

    def _record(self, now: float) -> float | None:
        self.ticks.append(now)
        return self.pauses.pop(0) if self.pauses else INTERVAL


@pytest.fixture
def clock() -> Ticking:
    clock = Ticking()
    clock.start_ticks()
    return clock


def test_a_tick_is_due_after_the_interval(clock: Ticking) -> None:
    start = clock.clock()
    clock.pass_time(0.9 * INTERVAL)
    assert clock.ticks == []
    clock.pass_time(0.1 * INTERVAL)
    assert clock.ticks == [pytest.approx(start + INTERVAL)]


def test_an_unfinished_tick_is_continued_at_once(clock: Ticking) -> None:
    clock.pauses = [0, 0, INTERVAL]
    clock.pass_time(INTERVAL)
    clock.pass_time(0)
    clock.pass_time(0)
    clock.pass_time(0)
    assert len(clock.ticks) == 3


def test_the_pause_between_ticks_counts_from_the_first_of_successive_ones(clock: Ticking) -> None:
    start = clock.clock()
    clock.pauses = [0, 0, INTERVAL, INTERVAL]
    for _ in range(20):
        clock.pass_time(INTERVAL / 8)
    assert [8 * (time - start) / INTERVAL for time in clock.ticks] == [8, 9, 10, 16]


def test_functions_of_a_tick_are_called_once_and_not_while_it_is_continued(clock: Ticking) -> None:
    calls: list[int] = []
    clock.pauses = [0, INTERVAL]
    clock.pass_time(INTERVAL)
    clock.at_next_tick(lambda: calls.append(len(clock.ticks)))
    clock.pass_time(0)
    assert calls == []
    clock.pass_time(INTERVAL)
    clock.pass_time(INTERVAL)
    assert calls == [2]


def test_the_time_of_a_suspension_does_not_count(clock: Ticking) -> None:
    start = clock.clock()
    clock.pass_time(SUSPENDED)
    assert clock.clock() == pytest.approx(start + INTERVAL)
    clock.pass_time(INTERVAL)
    assert clock.clock() == pytest.approx(start + 2 * INTERVAL)
    assert clock.ticks == [pytest.approx(start + INTERVAL), pytest.approx(start + 2 * INTERVAL)]


def test_a_short_delay_counts(clock: Ticking) -> None:
    start = clock.clock()
    clock.pass_time(INTERVAL + 0.9 * clock.timing.stall_threshold)
    assert clock.clock() == clock.ticks[0] > start + INTERVAL


def test_the_time_without_ticks_is_no_suspension(clock: Ticking) -> None:
    clock.pauses = [None]
    clock.pass_time(INTERVAL)
    before = clock.clock()
    clock.source.now += SUSPENDED
    clock.start_ticks()
    clock.pass_time(INTERVAL)
    assert clock.clock() == pytest.approx(before + SUSPENDED + INTERVAL)


def test_equal_instants_of_one_tick_are_one_object(clock: Ticking) -> None:
    first = clock.instant(5)
    assert clock.instant(5) is first == clock.checked_at + 5
    clock.pass_time(INTERVAL)
    assert clock.instant(5) == pytest.approx(first + INTERVAL)

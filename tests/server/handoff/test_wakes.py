"""The threads of handlers wake each other, and the owner of the loop rests, without a loop."""

from __future__ import annotations

import threading

import pytest

from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.handoff.wakes import LEFT_OUT, Wakes
from wsframe.server.pure_rounds import Signal


class Case:
    """The threads of two handlers, which must be woken.

    Attributes:
        wakes: their wake-ups.
        first, second: their signals.
        ends: the signal that ends the owner's rests.
    """

    def __init__(self) -> None:
        self.wakes = Wakes()
        self.wakes.one_at_a_time = True
        self.wakes.longest_rest = TIMEOUT
        self.first, self.second = self.wakes.new_signal(), self.wakes.new_signal()
        self.wakes.add(self.first)
        self.wakes.add(self.second)

    def woken(self) -> tuple[bool, bool]:
        """Return which of them are set."""
        return self.first.is_set, self.second.is_set

    def waits(self, ready_signal: Signal) -> None:
        """Let the thread that a signal wakes wait again."""
        assert ready_signal.wait(TIMEOUT)
        following = self.wakes.after(ready_signal)
        if following is not None:
            following.set()


@pytest.fixture
def case() -> Case:
    return Case()


class Resting:
    """An owner that rests until something ends its rest."""

    def __init__(self, wakes: Wakes) -> None:
        self._thread = threading.Thread(target=lambda: wakes.wake_some(idle=True))
        self._thread.start()
        wait_until(lambda: wakes.resting, "the owner rests")

    def end(self) -> None:
        """Wait for the end of the rest, which comes long before its limit."""
        self._thread.join(TIMEOUT / 2)
        assert not self._thread.is_alive()


def test_a_woken_thread_wakes_the_next_when_it_waits(case: Case) -> None:
    case.wakes.wake_some(idle=False)
    assert case.woken() == (True, False)
    case.waits(case.first)
    assert case.woken() == (False, True)


def test_a_thread_that_was_not_woken_last_wakes_none(case: Case) -> None:
    case.wakes.wake_some(idle=False)
    assert case.wakes.after(case.second) is None
    assert case.woken() == (True, False)


def test_the_owner_wakes_no_thread_while_they_wake_each_other(case: Case) -> None:
    third = case.wakes.new_signal()
    case.wakes.add(third)
    case.wakes.wake_some(idle=False)
    case.waits(case.first)
    case.wakes.wake_some(idle=False)
    assert case.woken() == (False, True)
    assert not third.is_set


def test_the_owner_wakes_the_next_thread_if_the_last_one_blocks(case: Case) -> None:
    case.wakes.wake_some(idle=False)
    case.wakes.wake_some(idle=False)
    assert case.woken() == (True, True)
    assert case.wakes.after(case.first) is None  # a later one has been woken
    assert case.wakes.after(case.second) is None
    assert case.wakes.last is None


def test_a_thread_that_was_woken_before_is_left_out(case: Case) -> None:
    case.first.set()
    case.wakes.wake_some(idle=False)
    assert case.wakes.last is case.second


def test_the_rest_ends_when_all_threads_wait_again(case: Case) -> None:
    resting = Resting(case.wakes)
    case.waits(case.first)
    assert case.wakes.resting
    case.waits(case.second)
    resting.end()


def test_the_owner_does_not_rest_if_no_thread_runs(case: Case) -> None:
    case.wakes.wake_some(idle=False)
    case.waits(case.first)
    case.waits(case.second)
    case.wakes.wake_some(idle=True)
    assert not case.wakes.resting


def test_after_a_rest_without_progress_the_owner_wakes_threads_and_does_not_rest(
    case: Case,
) -> None:
    case.wakes.longest_rest = 0.0
    case.wakes.wake_some(idle=True)  # the first thread blocks
    case.wakes.longest_rest = TIMEOUT
    assert case.woken() == (True, False)
    case.wakes.wake_some(idle=True)
    assert case.woken() == (True, True)
    for _ in range(LEFT_OUT - 1):
        case.wakes.wake_some(idle=True)
    assert case.first.wait(0)
    case.wakes.add(case.first)
    resting = Resting(case.wakes)
    case.waits(case.first)
    resting.end()


def test_a_thread_that_blocks_is_forgotten_if_no_other_must_be_woken(case: Case) -> None:
    case.wakes.wake_some(idle=False)
    case.waits(case.first)
    case.wakes.wake_some(idle=False)
    case.wakes.longest_rest = 0.0
    case.wakes.wake_some(idle=True)
    assert case.wakes.last is None

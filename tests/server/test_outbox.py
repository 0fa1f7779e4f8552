"""The queue before the thread that runs log handlers: nobody who puts into it waits."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import pytest

from wsframe.server.reports.outbox import UNIT, Outbox, Tally

from .clients import TIMEOUT
from .conftest import wait_until
from .processes import run


class Blocked:
    """A job that the outbox's thread is at until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self._go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Wait for the test."""
        self.begun.set()
        assert self._go_on.wait(TIMEOUT)

    def end(self) -> None:
        """Let the outbox's thread go on."""
        self._go_on.set()


@pytest.fixture
def done() -> list[object]:
    """What jobs have been done; a number that stands alone is one of jobs lost."""
    return []


@pytest.fixture
def outbox(done: list[object]) -> Iterator[Outbox]:
    """An outbox for eight small jobs."""
    outbox = Outbox(done.append, capacity=8)
    yield outbox
    assert outbox.close(TIMEOUT)


@pytest.fixture
def blocked(outbox: Outbox) -> Iterator[Blocked]:
    """A job that holds up all others."""
    blocked = Blocked()
    outbox.put(blocked, 0)
    assert blocked.begun.wait(TIMEOUT)
    yield blocked
    blocked.end()


def put(outbox: Outbox, done: list[object], *names: str, size: int = 0) -> None:
    for name in names:
        outbox.put(partial(done.append, name), size)


def test_jobs_are_done_in_order(outbox: Outbox, done: list[object]) -> None:
    for number in range(500):
        outbox.put(partial(done.append, number), 0)
        if number % 7 == 0:
            assert outbox.flush(TIMEOUT)
    assert outbox.flush(TIMEOUT)
    assert done == list(range(500))


def test_what_does_not_fit_is_dropped_and_told_of_in_its_place(
    outbox: Outbox, blocked: Blocked, done: list[object]
) -> None:
    put(outbox, done, *"abcdefg")  # the job that is under way takes up room, too
    put(outbox, done, *"xyz")
    assert outbox.lost.total() == 3
    blocked.end()
    assert outbox.flush(TIMEOUT)
    put(outbox, done, "h")
    assert outbox.flush(TIMEOUT)
    assert done == [*"abcdefg", 3, "h"]


@pytest.mark.parametrize(
    ("size", "fit"), [(0, 7), (UNIT - 1, 7), (UNIT, 3), (6 * UNIT, 1), (7 * UNIT, 0), (1 << 30, 0)]
)
def test_large_jobs_take_up_more_room(
    outbox: Outbox, blocked: Blocked, done: list[object], size: int, fit: int
) -> None:
    put(outbox, done, *"abcdefghij", size=size)
    assert outbox.lost.total() == 10 - fit
    blocked.end()
    assert outbox.flush(TIMEOUT)
    assert done == [*"abcdefghij"[:fit], 10 - fit]


def test_a_job_larger_than_the_outbox_has_it_for_itself(outbox: Outbox, done: list[object]) -> None:
    put(outbox, done, "large", size=1 << 30)
    assert outbox.flush(TIMEOUT)
    assert done == ["large"]


def test_whoever_waits_for_a_job_that_does_not_end_waits_in_vain_but_not_for_ever(
    outbox: Outbox, blocked: Blocked
) -> None:
    assert not outbox.flush(0.01)
    assert not outbox.close(0.01)


def test_no_thread_is_left_after_the_close_and_a_later_job_starts_another(
    outbox: Outbox, done: list[object]
) -> None:
    before = threading.active_count()
    assert outbox.flush(TIMEOUT)  # without a thread there is nothing to wait for
    for name in ("one", "two"):
        put(outbox, done, name)
        assert outbox.close(TIMEOUT)
        assert threading.active_count() == before
    assert done == ["one", "two"]


def test_jobs_that_come_while_the_thread_ends_are_done(outbox: Outbox, done: list[object]) -> None:
    for number in range(300):
        closing = threading.Thread(target=outbox.close, args=(TIMEOUT,))
        closing.start()
        outbox.put(partial(done.append, number), 0)
        closing.join()
        assert outbox.flush(TIMEOUT)
    assert done == list(range(300))


def test_the_outboxs_own_thread_does_not_wait_for_itself(
    outbox: Outbox, done: list[object]
) -> None:
    outbox.put(lambda: done.append((outbox.flush(TIMEOUT), outbox.close(TIMEOUT))), 0)
    assert outbox.flush(TIMEOUT)
    assert done == [(True, True)]


def test_what_is_to_be_done_later_is_done_in_time_or_at_the_close(
    outbox: Outbox, done: list[object]
) -> None:
    outbox.later(3600, partial(done.append, "in an hour"))
    outbox.later(0.001, partial(done.append, "now"))
    wait_until(lambda: done == ["now"], "it is done when its time has come")
    # What it puts itself is done as well.
    outbox.later(3600, partial(put, outbox, done, "one more"))
    assert outbox.close(TIMEOUT)
    assert done == ["now", "in an hour", "one more"]


def test_a_system_without_threads_delays_jobs(
    outbox: Outbox, done: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        put(outbox, done, *"ab")
    put(outbox, done, "c")
    assert outbox.flush(TIMEOUT)
    assert done == [*"abc"]


def interrupt_each_line(function: Callable[[], object], interrupt: Callable[[], object]) -> None:
    """Call a function, and the other one before each of its lines, as a signal handler may be."""
    busy = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal busy
        if busy or not frame.f_code.co_filename.endswith("outbox.py"):
            return None
        if event == "line":
            busy = True
            interrupt()
            busy = False
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)


def test_who_puts_may_be_interrupted_anywhere_by_one_who_puts(done: list[object]) -> None:
    outbox = Outbox(done.append, capacity=1000)
    interruptions = 0

    def interrupt() -> None:
        nonlocal interruptions
        interruptions += 1
        put(outbox, done, "interruption")

    interrupt_each_line(partial(put, outbox, done, "first"), interrupt)  # which starts the thread
    interrupt_each_line(partial(put, outbox, done, "second"), interrupt)
    assert outbox.close(TIMEOUT)
    assert interruptions > 10
    assert sorted(map(str, done)) == sorted(["first", "second", *["interruption"] * interruptions])


def test_who_is_turned_away_may_be_interrupted_by_one_who_is_turned_away(
    outbox: Outbox, blocked: Blocked, done: list[object]
) -> None:
    put(outbox, done, *"abcdefg")
    interruptions = 0

    def interrupt() -> None:
        nonlocal interruptions
        interruptions += 1
        put(outbox, done, "x")

    interrupt_each_line(partial(put, outbox, done, "x"), interrupt)
    blocked.end()
    assert outbox.flush(TIMEOUT)
    assert outbox.lost.total() == interruptions + 1
    assert done[:7] == [*"abcdefg"]
    assert sum(number for number in done[7:] if isinstance(number, int)) == interruptions + 1


def test_a_tally_loses_nothing_between_threads() -> None:
    tally = Tally()

    def add() -> None:
        for _ in range(2000):
            tally.add()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.total() == 8000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_its_own_jobs_and_not_its_parents(
    outbox: Outbox, blocked: Blocked, done: list[object]
) -> None:
    put(outbox, done, *"abcdefghi")
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            outbox.after_fork()
            put(outbox, done, "child")
            if outbox.close(TIMEOUT) and done == ["child"] and not outbox.lost.total():
                code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    blocked.end()
    assert outbox.flush(TIMEOUT)
    assert done == [*"abcdefg", 2]


AT_EXIT = """
import atexit, sys, threading
from wsframe.server.reports.outbox import Outbox, register

class Late:
    def __del__(self):
        outbox.put(lambda: print("finalizer"), 0)

def first():
    outbox.put(lambda: print("before"), 0)

def last():
    outbox.put(lambda: print("after"), 0)

late = Late()
late.itself = late
atexit.register(last)
outbox = Outbox(print)
register(outbox)
atexit.register(first)
outbox.put(lambda: print("program"), 0)
if "stuck" in sys.argv:
    outbox.put(threading.Event().wait, 0)
"""


@pytest.mark.parametrize("stuck", [False, True])
def test_the_end_of_the_program_does_what_waits_but_does_not_wait_for_ever(*, stuck: bool) -> None:
    result = run([sys.executable, "-W", "error", "-c", AT_EXIT, *(["stuck"] if stuck else [])])
    assert (result.returncode, result.stderr) == (0, "")
    expected = ["program"] if stuck else ["program", "before", "after", "finalizer"]
    assert result.stdout.split() == expected

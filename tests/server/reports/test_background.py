"""The queue of the background thread, which runs log handlers: putting never blocks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from tests.support.processes import run
from tests.support.threads import NewThreads
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.reports import background as module
from wsframe.server.reports.background import UNIT, AtomicCounter, Background


class Blocked:
    """A job that blocks the thread until the test ends it."""

    def __init__(self) -> None:
        self.begun, self._unblocked = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Block until the test calls :meth:`end`."""
        self.begun.set()
        assert self._unblocked.wait(TIMEOUT)

    def end(self) -> None:
        """Unblock the thread."""
        self._unblocked.set()


@pytest.fixture
def done() -> list[object]:
    """The names of the jobs that have run; a number is a report of lost jobs."""
    return []


@pytest.fixture
def background(done: list[object]) -> Iterator[Background]:
    """A queue for eight small jobs."""
    background = Background(done.append, capacity=8)
    yield background
    assert background.close(TIMEOUT)


@pytest.fixture
def blocked(background: Background) -> Iterator[Blocked]:
    """A running job that blocks all others."""
    blocked = Blocked()
    background.put(blocked, 0)
    assert blocked.begun.wait(TIMEOUT)
    yield blocked
    blocked.end()


def put(background: Background, done: list[object], *names: str, size: int = 0) -> None:
    for name in names:
        background.put(partial(done.append, name), size)


def test_jobs_run_in_order(background: Background, done: list[object]) -> None:
    for number in range(500):
        background.put(partial(done.append, number), 0)
        if number % 7 == 0:
            assert background.flush(TIMEOUT)
    assert background.flush(TIMEOUT)
    assert done == list(range(500))


def test_jobs_that_do_not_fit_are_dropped_and_reported_in_their_place(
    background: Background, blocked: Blocked, done: list[object]
) -> None:
    put(background, done, *"abcdefg")  # the running job takes up room, too
    put(background, done, *"xyz")
    assert background.lost.total() == 3
    blocked.end()
    assert background.flush(TIMEOUT)
    put(background, done, "h")
    assert background.flush(TIMEOUT)
    assert done == [*"abcdefg", 3, "h"]


@pytest.mark.parametrize(
    ("size", "fit"), [(0, 7), (UNIT - 1, 7), (UNIT, 3), (6 * UNIT, 1), (7 * UNIT, 0), (1 << 30, 0)]
)
def test_large_jobs_take_up_more_room(
    background: Background, blocked: Blocked, done: list[object], size: int, fit: int
) -> None:
    put(background, done, *"abcdefghij", size=size)
    assert background.lost.total() == 10 - fit
    blocked.end()
    assert background.flush(TIMEOUT)
    assert done == [*"abcdefghij"[:fit], 10 - fit]


def test_a_job_larger_than_the_queue_fills_it_alone(
    background: Background, done: list[object]
) -> None:
    put(background, done, "large", size=1 << 30)
    assert background.flush(TIMEOUT)
    assert done == ["large"]


def test_waiting_for_a_blocked_job_times_out(background: Background, blocked: Blocked) -> None:
    assert not background.flush(0.01)
    assert not background.close(0.01)


def test_close_ends_the_thread_and_a_later_job_starts_another(
    background: Background, done: list[object]
) -> None:
    threads = NewThreads()
    assert background.flush(TIMEOUT)  # without a thread there is nothing to wait for
    for name in ("one", "two"):
        put(background, done, name)
        assert background.close(TIMEOUT)
        assert not threads
    assert done == ["one", "two"]


def test_jobs_that_are_put_while_the_thread_ends_run(
    background: Background, done: list[object]
) -> None:
    for number in range(300):
        closing = threading.Thread(target=background.close, args=(TIMEOUT,))
        closing.start()
        background.put(partial(done.append, number), 0)
        closing.join()
        assert background.flush(TIMEOUT)
    assert done == list(range(300))


def test_the_background_thread_does_not_wait_for_itself(
    background: Background, done: list[object]
) -> None:
    background.put(lambda: done.append((background.flush(TIMEOUT), background.close(TIMEOUT))), 0)
    assert background.flush(TIMEOUT)
    assert done == [(True, True)]


def test_delayed_jobs_run_in_time_or_at_the_close(
    background: Background, done: list[object]
) -> None:
    background.call_later(3600, partial(done.append, "in an hour"))
    background.call_later(0.001, partial(done.append, "now"))
    wait_until(lambda: done == ["now"], "the delayed job runs")
    # A job that it puts runs as well.
    background.call_later(3600, partial(put, background, done, "one more"))
    assert background.close(TIMEOUT)
    assert done == ["now", "in an hour", "one more"]


def test_jobs_wait_until_the_system_can_start_a_thread(
    background: Background, done: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        put(background, done, *"ab")
    put(background, done, "c")
    assert background.flush(TIMEOUT)
    assert done == [*"abc"]


def interrupt_each_line(function: Callable[[], object], interrupt: Callable[[], object]) -> None:
    """Call a function, and the other one before each of its lines, like a signal handler."""
    busy = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal busy
        if busy or not frame.f_code.co_filename.endswith("background.py"):
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


def test_put_may_be_interrupted_at_any_line_by_another_put(done: list[object]) -> None:
    background = Background(done.append, capacity=1000)
    interruptions = 0

    def interrupt() -> None:
        nonlocal interruptions
        interruptions += 1
        put(background, done, "interruption")

    interrupt_each_line(
        partial(put, background, done, "first"), interrupt
    )  # which starts the thread
    interrupt_each_line(partial(put, background, done, "second"), interrupt)
    assert background.close(TIMEOUT)
    assert interruptions > 10
    assert sorted(map(str, done)) == sorted(["first", "second", *["interruption"] * interruptions])


def test_no_thread_starts_for_a_job_that_another_thread_has_run(done: list[object]) -> None:
    """A put may be delayed before each of its lines while other threads put and close."""
    times_done = 0
    for chosen in range(40):
        background = Background(done.append, capacity=1000)
        threads, line, was_done = NewThreads(), 0, False

        def interrupt(background: Background = background, chosen: int = chosen) -> None:
            nonlocal line, was_done
            line += 1
            if line == chosen:
                put(background, done, "another")
                was_done = background.close(0.05) and "first" in done

        done.clear()
        interrupt_each_line(partial(put, background, done, "first"), interrupt)
        if was_done:
            times_done += 1
            assert not threads
        assert background.close(TIMEOUT)
        assert "first" in done
    assert times_done


def test_a_put_to_a_full_queue_may_be_interrupted_by_another(
    background: Background, blocked: Blocked, done: list[object]
) -> None:
    put(background, done, *"abcdefg")
    interruptions = 0

    def interrupt() -> None:
        nonlocal interruptions
        interruptions += 1
        put(background, done, "x")

    interrupt_each_line(partial(put, background, done, "x"), interrupt)
    blocked.end()
    assert background.flush(TIMEOUT)
    assert background.lost.total() == interruptions + 1
    assert done[:7] == [*"abcdefg"]
    assert sum(number for number in done[7:] if isinstance(number, int)) == interruptions + 1


class Watched(SimpleQueue[Any]):
    """A queue that another thread uses right after it was found not to be empty."""

    meanwhile: Callable[[], object] | None = None

    def empty(self) -> bool:
        """Return True if it was empty."""
        found = super().empty()
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        return found


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The queue of a background that is created afterwards."""
    queue = Watched()
    monkeypatch.setattr("queue.SimpleQueue", lambda: queue)
    return queue


def test_two_jobs_at_once_start_one_thread(queue: Watched, done: list[object]) -> None:
    background = Background(done.append)
    threads = NewThreads()
    blocked = Blocked()
    queue.meanwhile = partial(background.put, blocked, 0)
    put(background, done, "first")
    assert len(threads) == 1
    blocked.end()
    assert background.close(TIMEOUT)
    assert done == ["first"]


def test_no_thread_starts_for_a_queue_that_another_one_has_emptied(
    queue: Watched, done: list[object]
) -> None:
    background = Background(done.append)
    threads = NewThreads()

    def run_all() -> None:
        put(background, done, "second")
        assert background.close(TIMEOUT)

    queue.meanwhile = run_all
    put(background, done, "first")
    assert done == ["first", "second"]
    assert not threads


def test_a_loss_that_another_report_includes_is_not_reported_again(
    monkeypatch: pytest.MonkeyPatch, done: list[object]
) -> None:
    class Counter(AtomicCounter):
        """A counter after whose addition another thread acts."""

        meanwhile: Callable[[], object] | None = None

        def add(self, number: int = 1) -> None:
            super().add(number)
            act, self.meanwhile = self.meanwhile, None
            if act is not None:
                act()

    counters: list[Counter] = []

    def make() -> Counter:
        counters.append(Counter())
        return counters[-1]

    monkeypatch.setattr(module, "AtomicCounter", make)
    background = Background(done.append, capacity=1)
    blocked = Blocked()
    background.put(blocked, 0)

    def drop_and_report() -> None:
        put(background, done, "dropped, too")
        blocked.end()
        assert background.flush(TIMEOUT)
        assert done == [2]

    assert background.lost is counters[0]
    counters[1].meanwhile = drop_and_report  # the dropped jobs that a report includes
    put(background, done, "dropped")
    assert background.close(TIMEOUT)
    assert done == [2]


def test_an_atomic_counter_counts_the_additions_of_all_threads() -> None:
    counter = AtomicCounter()

    def add() -> None:
        for _ in range(2000):
            counter.add()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.total() == 8000


@pytest.mark.unmeasured
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_runs_its_own_jobs_but_not_its_parents(
    background: Background, blocked: Blocked, done: list[object]
) -> None:
    put(background, done, *"abcdefghi")
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            background.after_fork()
            put(background, done, "child")
            if background.close(TIMEOUT) and done == ["child"] and not background.lost.total():
                code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    blocked.end()
    assert background.flush(TIMEOUT)
    assert done == [*"abcdefg", 2]


FORKING_JOB = """
import os, signal, warnings
from wsframe.server.reports.background import Background, register

warnings.simplefilter("ignore")  # of Pythons that warn of forks beside threads
os.register_at_fork(after_in_child=lambda: signal.alarm(60))
background, children = Background(print), []
register(background)
background.put(lambda: children.append(os.fork()), 0)
background.put(lambda: os.write(1, b"the next job\\n"), 0)
assert background.close(60)
_, status = os.waitpid(children[0], 0)
print("exit code", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_returns_from_the_job_that_forked_it_ends() -> None:
    result = run([sys.executable, "-c", FORKING_JOB])
    assert result.stdout.splitlines() == ["the next job", "exit code 0"], result.stderr


AT_EXIT = """
import atexit, sys, threading
from wsframe.server.reports.background import Background, register

class Late:
    def __del__(self):
        background.put(lambda: print("finalizer"), 0)

def first():
    background.put(lambda: print("before"), 0)

def last():
    background.put(lambda: print("after"), 0)
    thread = threading.Thread(target=background.put, args=(lambda: print("elsewhere"), 0))
    thread.start()
    thread.join()
    assert background.lost.total() == 1 + ("stuck" in sys.argv)

late = Late()
late.itself = late
atexit.register(last)
background = Background(print)
register(background)
atexit.register(first)
background.put(lambda: print("program"), 0)
if "stuck" in sys.argv:
    background.put(threading.Event().wait, 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stuck", [False, True])
def test_the_exit_of_the_program_runs_waiting_jobs_for_a_limited_time(*, stuck: bool) -> None:
    result = run([sys.executable, "-W", "error", "-c", AT_EXIT, *(["stuck"] if stuck else [])])
    assert (result.returncode, result.stderr) == (0, "")
    expected = ["program"] if stuck else ["program", "before", "after", "finalizer"]
    assert result.stdout.split() == expected


@pytest.mark.slow
def test_an_exit_runs_the_jobs_that_no_thread_could_be_started_for(
    done: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    background = Background(done.append)
    monkeypatch.setattr(threading.Thread, "start", start)
    put(background, done, *"ab")
    background.close_at_exit()
    assert done == [*"ab"]


def test_a_delayed_job_runs_at_once_during_the_exit(done: list[object]) -> None:
    background = Background(done.append)
    background.close_at_exit()
    background.call_later(3600, partial(done.append, "delayed"))
    assert done == ["delayed"]


def test_a_thread_whose_process_was_forked_ends_after_its_job(done: list[object]) -> None:
    background = Background(done.append)
    threads = NewThreads()
    blocked = Blocked()
    background.put(blocked, 0)
    # A fork in a job has the same effect in the child: its thread has the queue of the parent.
    background.put(background.after_fork, 0)
    put(background, done, "of the parent")
    blocked.end()
    wait_until(lambda: not threads, "the thread has ended")
    put(background, done, "of the child")
    assert background.close(TIMEOUT)
    assert done == ["of the child"]

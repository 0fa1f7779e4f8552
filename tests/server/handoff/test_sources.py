"""The loop polls sources and runs tasks: here without a server, a client or a socket of either."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from queue import Queue
from time import monotonic
from typing import Any

import pytest

from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT
from wsframe.server.handoff.blocking import BlockingProfile
from wsframe.server.handoff.loop import READ, Loop
from wsframe.server.handoff.monitor import Monitor
from wsframe.server.handoff.task import ENDED, IDLE, Task
from wsframe.server.handoff.threads import Threads
from wsframe.server.rounds import Wire
from wsframe.server.timing import Timing


class Pipe(Wire):
    """A pipe: a source of the loop, and the connection of a task."""

    network = None

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.clear = False  # so the loop leaves sending to it
        self.loop = loop
        self.in_turn = False
        self.stop_turn = False
        self.flushed = 0
        self.aborted = threading.Event()
        self.task = Words(self, BlockingProfile("/pipe", None, loop.timing))
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        return self._reader

    def write(self, data: bytes) -> None:
        os.write(self._writer, data)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def ready(self, events: int) -> Task | None:
        data = os.read(self._reader, 100)
        if data == b"fail":
            raise ValueError("on purpose")
        self.task.work = [*(self.task.work or ()), *data.split()]
        return self.task if self.task.state is IDLE else None

    def flush(self) -> None:
        self.flushed += 1

    def sent_partly(self, items: object, sent: int) -> None:
        raise AssertionError("nothing is queued")

    def abort(self) -> None:
        self.loop.unregister(self)
        self.aborted.set()


class Words(Task):
    """A task whose work is words, which it puts on a queue."""

    path = "/pipe"

    def __init__(self, peer: Pipe, profile: BlockingProfile) -> None:
        super().__init__(peer, profile)
        self.words: Queue[tuple[bytes, bool]] = Queue()

    def work_on(self, work: list[Any]) -> None:
        for word in work:
            self.words.put((word, self.peer.in_turn))

    def finish_turn(self) -> None:
        """Loop owner: nothing remains to be done."""


@pytest.fixture
def loop() -> Iterator[Loop]:
    timing = Timing(sweep_interval=0.01)
    threads = Threads(
        1,
        timing,
        max_threads=2,
        max_handler_threads=2,
        reserve_threads=1,
        max_thread_share=1.0,
    )
    loop = Loop(timing, threads, Monitor(timing))
    loop.start()
    yield loop
    loop.stop(TIMEOUT)
    threads.close(monotonic() + TIMEOUT)


@pytest.fixture
def pipe(loop: Loop) -> Iterator[Pipe]:
    pipe = Pipe(loop)
    loop.call_soon(lambda: loop.register(pipe, READ, pipe))
    yield pipe
    done = threading.Event()

    def end() -> None:
        if not pipe.aborted.is_set():
            loop.unregister(pipe)
        done.set()

    loop.call_soon(end)
    assert done.wait(TIMEOUT)
    pipe.close()


def test_a_source_makes_a_turn_of_its_task_due(pipe: Pipe) -> None:
    pipe.write(b"one two")
    words = [pipe.task.words.get(timeout=TIMEOUT) for _ in range(2)]
    assert words == [(b"one", True), (b"two", True)]


def test_a_task_is_run_when_it_is_scheduled(loop: Loop, pipe: Pipe) -> None:
    def schedule() -> None:
        pipe.task.work = [b"word"]
        pipe.task.start()

    loop.call_soon(schedule)
    assert pipe.task.words.get(timeout=TIMEOUT) == (b"word", True)
    loop.call_soon(pipe.task.end)


def test_the_loop_reports_the_end_of_a_task(loop: Loop, pipe: Pipe) -> None:
    ended: Queue[set[Task]] = Queue()
    loop.on_task_end = lambda: ended.put(set(loop.unfinished))
    loop.call_soon(lambda: loop.unfinished.add(pipe.task))
    loop.call_soon(pipe.task.end)
    assert ended.get(timeout=TIMEOUT) == set()
    assert pipe.task.state is ENDED


def test_an_error_of_a_source_ends_it_and_no_other(loop: Loop, pipe: Pipe, log: ServerLog) -> None:
    other = Pipe(loop)
    loop.call_soon(lambda: loop.register(other, READ, other))
    pipe.write(b"fail")
    assert pipe.aborted.wait(TIMEOUT)
    log.expect("internal error")
    other.write(b"word")
    assert other.task.words.get(timeout=TIMEOUT) == (b"word", True)
    loop.call_soon(other.abort)
    assert other.aborted.wait(TIMEOUT)
    other.close()


def test_the_hook_is_called_until_it_returns_none(loop: Loop) -> None:
    pauses: list[float | None] = [0.0, 0.001, None]
    times: Queue[float] = Queue()

    def tick(now: float) -> float | None:
        times.put(now)
        return pauses.pop(0)

    def start() -> None:
        loop.tick = tick
        loop.start_ticks()

    loop.call_soon(start)
    first, second, third = (times.get(timeout=TIMEOUT) for _ in range(3))
    assert first <= second < third
    called = threading.Event()
    loop.call_soon(lambda: loop.at_next_tick(called.set))  # which starts the ticks again
    pauses.append(None)
    assert called.wait(TIMEOUT)
    assert times.get(timeout=TIMEOUT) > third

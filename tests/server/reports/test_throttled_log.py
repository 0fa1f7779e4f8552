"""Frequent log records are throttled."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT
from wsframe.server.reports import throttled as module
from wsframe.server.reports.background import AtomicCounter
from wsframe.server.reports.loggers import background
from wsframe.server.reports.throttled import ThrottledLog
from wsframe.testing import ManualClock


def test_a_flood_of_lines_becomes_two_lines_with_their_number(log: ServerLog) -> None:
    throttled = ThrottledLog(interval=3600)
    for number in range(1000):
        throttled.log(logging.WARNING, "trouble %d", number)
    assert [record.getMessage() for record in log.records] == ["trouble 0"]
    assert background.close(TIMEOUT)
    log.expect("trouble 0", logging.WARNING)
    log.expect("trouble 999 (the last of 999 similar messages)", logging.WARNING)
    assert not log.records


def test_suppressed_lines_are_reported_at_the_end_of_the_interval(log: ServerLog) -> None:
    throttled = ThrottledLog(interval=0.05)
    for number in range(3):
        throttled.log(logging.WARNING, "trouble %d", number)
    log.expect("trouble 2", logging.WARNING)


def test_throttled_lines_of_many_threads_are_all_counted(log: ServerLog) -> None:
    throttled = ThrottledLog(interval=3600)

    def complain() -> None:
        for _ in range(500):
            throttled.log(logging.WARNING, "trouble")

    threads = [threading.Thread(target=complain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert background.close(TIMEOUT)
    *lines, last = [record.getMessage() for record in log.records]
    assert last == f"trouble (the last of {2000 - len(lines)} similar messages)"


def test_lines_below_the_level_are_not_logged(log: ServerLog) -> None:
    throttled = ThrottledLog(interval=3600)
    throttled.log(logging.DEBUG, "nothing %s", "wrong", "with the arguments")
    throttled.log(logging.WARNING, "trouble")
    log.expect("trouble", logging.WARNING)


def test_two_lines_at_once_report_suppressed_lines_only_once(
    log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counter(AtomicCounter):
        """A counter that is read by two threads at once: another line is logged meanwhile."""

        meanwhile: tuple[str, ...] = ()

        def total(self) -> int:
            texts, self.meanwhile = self.meanwhile, ()
            for text in texts:
                throttled.log(logging.WARNING, text)
            return super().total()

    counter = Counter()
    monkeypatch.setattr(module, "AtomicCounter", lambda: counter)
    throttled = ThrottledLog(interval=0)
    counter.add(3)
    counter.meanwhile = ("another",)
    throttled.log(logging.WARNING, "trouble")
    assert [record.getMessage() for record in log.records] == [
        "another",
        "trouble (3 similar messages before it were suppressed)",
    ]


def test_a_summary_repeats_nothing_that_a_later_line_has_reported(
    log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(module, "monotonic", clock)
    throttled = ThrottledLog(interval=3600)
    throttled.log(logging.WARNING, "first")
    throttled.log(logging.WARNING, "second")
    clock.now += 3600
    throttled.log(logging.WARNING, "third")
    assert background.close(TIMEOUT)  # runs the delayed summary
    assert [record.getMessage() for record in log.records] == [
        "first",
        "third (1 similar messages before it were suppressed)",
    ]

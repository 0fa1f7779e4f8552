"""The mark ``unmeasured`` pauses the measurement of coverage."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from tests.support.measuring import COVERAGE, unmeasured

Calls = list[str]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """The names of the functions that a stand-in for coverage has seen."""
    calls: Calls = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        calls.append(frame.f_code.co_name)

    before, before_of_threads = sys.gettrace(), threading.gettrace()
    monkeypatch.setenv(COVERAGE, "configuration")
    sys.settrace(trace)
    threading.settrace(trace)
    yield calls
    threading.settrace(before_of_threads)
    sys.settrace(before)


def here() -> None:
    """A function that is called in this thread."""


def elsewhere() -> None:
    """A function that is called in another thread."""


def in_a_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_an_unmeasured_test_is_not_traced_in_any_thread(traced: Calls) -> None:
    with unmeasured():
        here()
        in_a_thread(elsewhere)
    assert not {"here", "elsewhere"} & set(traced)
    here()
    in_a_thread(elsewhere)
    assert {"here", "elsewhere"} <= set(traced)


def test_programs_of_an_unmeasured_test_are_not_measured(traced: Calls) -> None:
    with unmeasured():
        assert COVERAGE not in os.environ
    assert os.environ[COVERAGE] == "configuration"


def test_a_debugger_is_not_disturbed(traced: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COVERAGE)
    with unmeasured():
        here()
    assert "here" in traced


@pytest.mark.unmeasured
def test_the_mark_is_applied() -> None:
    """Under coverage, this fails without the mark."""
    assert COVERAGE not in os.environ
    assert threading.gettrace() is None

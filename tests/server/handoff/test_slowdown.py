"""Tasks whose next turn is delayed, without a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from wsframe.server.handoff.slowdown import Slowdowns
from wsframe.server.handoff.task import IDLE, WAITING, State, Task


class StubPeer:
    """A connection whose turn may have to end early."""

    stop_turn = False


class StubTask:
    """A task that counts how often it is resumed."""

    def __init__(self, state: State = WAITING) -> None:
        self.state = state
        self.peer = StubPeer()
        self.resumed = 0

    def resume(self) -> None:
        self.resumed += 1


class Case:
    """Slowdowns whose calls are made at once, and what ends their causes."""

    def __init__(self) -> None:
        self.slowdowns = Slowdowns(lambda function: cast(None, function()))
        self.ends: dict[str, Callable[[], object]] = {}

    def add(self, task: StubTask, reason: str) -> None:
        self.slowdowns.add(cast(Task, task), reason, lambda end: self.ends.setdefault(reason, end))

    def delays(self, task: StubTask) -> bool:
        return self.slowdowns.delays(cast(Task, task))


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_delayed_task_ends_its_turn_early(case: Case) -> None:
    task = StubTask()
    case.add(task, "full")
    assert task.peer.stop_turn
    assert case.delays(task)


def test_the_end_of_the_cause_resumes_all_its_tasks(case: Case) -> None:
    tasks = [StubTask(), StubTask()]
    for task in tasks:
        case.add(task, "full")
    case.ends["full"]()
    assert [task.resumed for task in tasks] == [1, 1]
    assert not any(map(case.delays, tasks))


def test_a_task_with_two_causes_waits_for_both(case: Case) -> None:
    task = StubTask()
    case.add(task, "one")
    case.add(task, "two")
    case.ends["one"]()
    assert (task.resumed, case.delays(task)) == (0, True)
    case.ends["two"]()
    assert (task.resumed, case.delays(task)) == (1, False)


def test_a_task_whose_turn_still_runs_is_not_resumed(case: Case) -> None:
    task = StubTask(IDLE)
    case.add(task, "full")
    case.ends["full"]()
    assert task.resumed == 0


def test_a_disconnected_client_ends_the_delay_of_its_task_alone(case: Case) -> None:
    gone, other = StubTask(), StubTask()
    case.add(gone, "full")
    case.add(other, "full")
    case.slowdowns.resume(cast(Task, gone))
    assert (gone.resumed, other.resumed) == (1, 0)
    assert case.delays(other)


def test_a_disconnect_ends_the_delay_of_a_turn_that_still_runs(case: Case) -> None:
    task = StubTask(IDLE)
    case.add(task, "full")
    case.slowdowns.resume(cast(Task, task))
    assert (task.resumed, case.delays(task)) == (0, False)


def test_a_disconnect_does_not_resume_a_task_that_waits_for_a_thread(case: Case) -> None:
    task = StubTask()
    case.slowdowns.resume(cast(Task, task))
    assert task.resumed == 0


def test_an_ended_task_is_not_resumed(case: Case) -> None:
    task = StubTask()
    case.add(task, "full")
    case.slowdowns.discard(cast(Task, task))
    case.ends["full"]()
    assert task.resumed == 0

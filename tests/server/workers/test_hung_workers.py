"""Workers whose loops make no progress are replaced; other workers are not."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest

from tests.server.test_forks import sees_the_end
from wsframe.server.workers.watchdog import CHECKS, Watchdog
from wsframe.testing import ManualClock

from .test_worker_metrics import Service, serve

__all__ = ["serve"]

TIMEOUT = 60.0


class Watched:
    """A watchdog with a clock of the test, and the number of its requests."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self.clock = ManualClock()
        self.requests = 0
        self.watchdog = Watchdog(self.clock, timeout, self._request)

    def _request(self) -> None:
        self.requests += 1

    def pass_time(self, seconds: float) -> bool:
        """Advance the clock and check; return True if the worker hangs."""
        self.clock.now += seconds
        return self.watchdog.check()


def test_a_worker_that_answers_gets_another_request() -> None:
    watched = Watched()
    for number in range(1, 100):
        assert not watched.pass_time(TIMEOUT / CHECKS)
        assert watched.requests == number
        watched.watchdog.answered()


def test_a_worker_that_does_not_answer_hangs_after_the_timeout() -> None:
    watched = Watched()
    assert not watched.pass_time(0)
    for _ in range(CHECKS - 1):
        assert not watched.pass_time(TIMEOUT / CHECKS)
    assert not watched.pass_time(TIMEOUT / CHECKS / 2)
    assert watched.pass_time(TIMEOUT / CHECKS / 2)
    assert watched.requests == 1


def test_a_late_answer_within_the_timeout_resets_the_count() -> None:
    watched = Watched()
    for _ in range(CHECKS):
        assert not watched.pass_time(TIMEOUT / CHECKS)
    watched.watchdog.answered()
    for _ in range(CHECKS):
        assert not watched.pass_time(TIMEOUT / CHECKS)
    assert watched.pass_time(TIMEOUT / CHECKS)


def test_a_suspended_machine_does_not_make_a_worker_hang() -> None:
    watched = Watched()
    assert not watched.pass_time(0)
    for _ in range(3):
        assert not watched.pass_time(1000 * TIMEOUT)
        watched.watchdog.answered()
        assert not watched.pass_time(TIMEOUT / CHECKS)


def test_without_a_timeout_no_request_is_sent() -> None:
    watched = Watched(0)
    assert not watched.pass_time(1000)
    assert not watched.requests


# Processes ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["no-memory"]])
def test_a_worker_that_hangs_is_logged_with_its_stacks_and_replaced(
    serve: Callable[..., Service], options: list[str]
) -> None:
    service = serve(2, 2, *options)
    others = [service.websocket("/echo") for _ in range(6)]
    client, pid = service.websocket("/hang")
    client.send_messages("hang")
    reason = r"its I/O loops made no progress for 2 s \(worker_timeout\)"
    service.process.expect(re.compile(f"replacing worker {pid}: {reason}"))
    service.process.expect(re.compile("line [0-9]+ in hang"))
    sees_the_end(client)
    service.wait_until_all_answer(2)
    for other, its_pid in others:
        if its_pid != pid:
            other.send_messages("x")
            assert other.next_event() == "x"


@pytest.mark.slow
def test_a_hung_worker_that_cannot_write_its_stacks_is_replaced(
    serve: Callable[..., Service],
) -> None:
    service = serve(2, timeout=2)
    _, pid = service.websocket("/echo")
    os.kill(pid, signal.SIGSTOP)
    service.process.expect(re.compile(f"replacing worker {pid}: its I/O loops made no progress"))
    service.process.expect(re.compile("did not write its stacks"))
    service.wait_until_all_answer(2)


@pytest.mark.slow
def test_a_hung_worker_without_a_place_for_its_stacks_is_replaced(
    serve: Callable[..., Service],
) -> None:
    service = serve(2, 2, "no-memory", "no-disk")
    client, pid = service.websocket("/hang")
    client.send_messages("hang")
    service.process.expect(re.compile(f"replacing worker {pid}: its I/O loops made no progress"))
    service.process.expect(re.compile("did not write its stacks"))
    sees_the_end(client)
    service.wait_until_all_answer(2)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_worker_with_blocking_handlers_does_not_hang(serve: Callable[..., Service]) -> None:
    service = serve(1, timeout=2)
    blocked = [service.websocket("/block") for _ in range(3)]
    for client, _ in blocked:
        client.send_messages("block")
    other, pid = service.websocket("/echo")
    # This number of rounds takes much longer than the time-out.
    for number in range(40):
        other.send_messages(str(number))
        assert other.next_event() == str(number)
        with other.timeout(0.1), pytest.raises(TimeoutError):
            other.receive(1)
    assert service.metrics()["wsframe_replaced_processes_total"] == 0
    assert {its_pid for _, its_pid in blocked} == {pid}


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_stop_of_all_processes_replaces_no_worker(serve: Callable[..., Service]) -> None:
    service = serve(2, timeout=2)
    client, _ = service.websocket("/echo")
    for _ in range(2):
        service.process.signal_all(signal.SIGSTOP)
        with client.timeout(2.6), pytest.raises(TimeoutError):
            client.next_event()
        service.process.signal_all(signal.SIGCONT)
        client.send_messages("x")
        assert client.next_event() == "x"
    assert service.metrics()["wsframe_replaced_processes_total"] == 0

"""Signals: the main thread counts them, and they interrupt user code."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

import pytest

from tests.support.waiting import TIMEOUT
from wsframe.server import signals as module
from wsframe.server.signals import AGAIN, Interrupted, Signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def start_traced(function: Callable[[], None], arguments: tuple[()]) -> None:
    """Start a thread that coverage measures, unlike the threads of the module ``_thread``."""
    threading.Thread(target=function, args=arguments).start()


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_new_thread", start_traced)


def test_only_the_first_signal_interrupts_user_code() -> None:
    steps = []

    def run(signals: Signals) -> None:
        with signals.interrupting():
            try:
                signal.raise_signal(signal.SIGTERM)
            except Interrupted:
                steps.append("interrupted")
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(*AGAIN)
                steps.append("not interrupted")

    with Signals(signal.SIGTERM) as signals:
        with pytest.raises(Interrupted):  # although the code has suppressed the first one
            run(signals)
        assert signals.count == 2
    assert steps == ["interrupted", "not interrupted"]


def test_a_signal_that_only_wakes_does_not_interrupt_user_code() -> None:
    with Signals(signal.SIGTERM, others=(signal.SIGINT,)) as signals:
        with signals.interrupting():
            signal.raise_signal(signal.SIGINT)
        assert signals.count == 0
        signals.wait()


def test_user_code_does_not_run_after_a_signal() -> None:
    with Signals(signal.SIGTERM) as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted), signals.interrupting():
            pytest.fail("it runs")


def test_a_signal_interrupts_a_call_although_its_handler_has_not_run() -> None:
    """The handler waits for the main thread, whose call began before the signal arrived."""
    reader, writer = os.pipe()
    interrupted = threading.Event()
    late = []

    def send_signal() -> None:
        os.read(reader, 1)  # the main thread has begun to write
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        late.append(not interrupted.wait(TIMEOUT))
        os.close(reader)  # otherwise a failure would last forever

    thread = threading.Thread(target=send_signal)
    with Signals(signal.SIGTERM) as signals:
        thread.start()
        with pytest.raises(Interrupted), signals.interrupting():
            os.write(writer, bytes(1 << 22))  # more than a pipe accepts
        interrupted.set()
        thread.join()
    os.close(writer)
    assert late == [False]


class SignalInDestructor:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_the_exception_is_raised_again_if_a_destructor_has_suppressed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suppressed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: suppressed.append(args.exc_type))
    ended = []

    def run(signals: Signals) -> None:
        with signals.interrupting():
            SignalInDestructor()
            assert suppressed == [Interrupted]
            ended.append(threading.Event().wait(TIMEOUT))

    with Signals(signal.SIGTERM) as signals, pytest.raises(Interrupted):
        run(signals)
    assert not ended


def test_a_signal_interrupts_user_code_also_if_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(function: Callable[[], None], arguments: tuple[()]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start_new_thread", fail)
    with Signals(signal.SIGTERM) as signals, pytest.raises(Interrupted), signals.interrupting():
        signal.raise_signal(signal.SIGTERM)


def test_a_wake_up_during_user_code_is_kept_for_the_wait_after_it() -> None:
    with Signals(signal.SIGTERM, others=(signal.SIGHUP,)) as signals:
        with signals.interrupting():
            signal.raise_signal(signal.SIGHUP)
        assert select.select([signals], [], [], 0)[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_returns_from_user_code_keeps_its_own_signal_handling() -> None:
    before = signal.getsignal(signal.SIGTERM)
    child, code = -1, 1
    try:
        with Signals(signal.SIGTERM) as signals:
            with signals.interrupting():
                child = os.fork()
            if not child:
                file = socket.socket()
                file.setblocking(False)
                signal.set_wakeup_fd(file.fileno())
                assert signal.getsignal(signal.SIGTERM) == before
        if not child:
            assert signal.set_wakeup_fd(-1) == file.fileno()
            code = 0
    finally:
        if not child:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

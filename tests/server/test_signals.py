"""Signals: the main thread counts them, and they interrupt user code."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest

from wsframe.server.signals import Interrupted, Signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def test_only_the_first_signal_interrupts_user_code() -> None:
    steps = []

    def run(signals: Signals) -> None:
        with signals.interrupting():
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)
            steps.append("interrupted")
            signal.raise_signal(signal.SIGTERM)
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

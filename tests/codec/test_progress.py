"""Progress and keepalive: conclusions from the byte counts of a connection."""

from __future__ import annotations

import os
import runpy
import socket
import sys
from math import inf

import pytest

from wsframe import progress as module
from wsframe.progress import (
    ACKNOWLEDGED_INTERVALS,
    MOST_UNREAD,
    SLOWEST_READER,
    Keepalive,
    Life,
    SocketProgress,
    unacknowledged,
)

SECOND = SLOWEST_READER  # the least bytes that a program reads in a second
INTERVAL, TIMEOUT = 20.0, 10.0


def look(
    keepalive: Keepalive,
    now: float,
    progress: SocketProgress,
    *,
    received: int = 0,
    more: bool = False,
) -> Life:
    return keepalive.look(now, received, progress, more=more, interval=INTERVAL, timeout=TIMEOUT)


def test_bytes_are_acknowledged_in_steps() -> None:
    progress = SocketProgress()
    assert progress.waiting_since == inf
    assert not progress.note(1.0, 0, 0, False)
    assert progress.waiting_since == inf
    assert not progress.note(2.0, 500, 500, True)
    assert progress.waiting_since == 2.0
    assert not progress.note(3.0, 500, 500, True)
    assert progress.waiting_since == 2.0
    assert progress.note(4.0, 500, 200, True)
    assert (progress.acked, progress.waiting_since) == (300, 4.0)
    assert not progress.note(5.0, 700, 450, True)  # encryption adds bytes
    assert (progress.acked, progress.waiting_since) == (300, 4.0)
    assert progress.note(6.0, 700, 0, False)
    assert (progress.acked, progress.waiting_since) == (700, inf)


def test_a_slow_program_has_time_to_read_what_was_acknowledged() -> None:
    progress = SocketProgress()
    progress.note(10.0, 5 * SECOND, 0, False)
    assert progress.caught_up == 15.0
    progress.note(12.0, 6 * SECOND, 0, False)
    assert progress.caught_up == 16.0
    progress.note(100.0, 7 * SECOND, 0, False)
    assert progress.caught_up == 101.0
    progress.note_read(100.5, 7 * SECOND)
    assert progress.caught_up == 100.5
    progress.note_read(100.6, 0)
    assert progress.caught_up == 100.5
    progress.note(200.0, 1 << 40, 0, False)
    assert progress.caught_up == 200.0 + MOST_UNREAD / SLOWEST_READER


def test_data_that_was_read_long_ago_adds_no_time() -> None:
    progress = SocketProgress()
    progress.note(10.0, 5 * SECOND, 0, False)
    progress.note(14.0, 5 * SECOND, 0, False)
    assert progress.caught_up == 15.0
    progress.note(15.0, 5 * SECOND, 0, False)
    assert progress.caught_up == 0.0


def test_a_silent_end_is_pinged_and_dead_without_an_answer() -> None:
    progress, keepalive = SocketProgress(), Keepalive(0.0)
    assert look(keepalive, INTERVAL - 1, progress) is Life.CONTINUES
    assert look(keepalive, INTERVAL, progress) is Life.PING_DUE
    keepalive.pinged(INTERVAL, 2, progress, TIMEOUT)
    assert keepalive.pong_due == INTERVAL + TIMEOUT
    assert look(keepalive, keepalive.pong_due - 1, progress) is Life.CONTINUES
    assert look(keepalive, keepalive.pong_due, progress) is Life.OVER


@pytest.mark.parametrize("more", [False, True])
def test_acknowledgements_postpone_a_ping(more: bool) -> None:
    progress, keepalive = SocketProgress(), Keepalive(0.0)
    now = 0.0
    while now < ACKNOWLEDGED_INTERVALS * INTERVAL:
        assert look(keepalive, now, progress, more=more) is Life.CONTINUES
        now += 1
        progress.note(now, int(now), 0, more)
    assert look(keepalive, now, progress, more=more) is (Life.CONTINUES if more else Life.PING_DUE)


def test_an_end_that_acknowledges_nothing_is_not_pinged() -> None:
    """The send timeout limits this case."""
    progress, keepalive = SocketProgress(), Keepalive(0.0)
    progress.note(0.0, 10, 10, False)
    assert look(keepalive, 2 * INTERVAL, progress) is Life.CONTINUES


@pytest.mark.parametrize("answers", [False, True])
def test_the_ping_timeout_starts_when_the_ping_is_acknowledged(answers: bool) -> None:
    progress, keepalive = SocketProgress(), Keepalive(0.0)
    keepalive.pinged(20.0, 102, progress, TIMEOUT)
    progress.note(25.0, 102, 50, False)
    assert look(keepalive, 25.0, progress) is Life.CONTINUES
    assert 35.0 < keepalive.pong_due < 35.1
    progress.note(26.0, 102, 0, False)
    assert look(keepalive, 26.0, progress) is Life.CONTINUES
    progress.note(30.0, 202, 0, False)
    assert look(keepalive, 30.0, progress) is Life.CONTINUES
    assert 36.0 < keepalive.pong_due < 36.1
    if answers:
        keepalive.answered(31.0, progress)
        assert look(keepalive, 31.0, progress, received=2) is Life.CONTINUES
        assert keepalive.pong_due == inf
    else:
        assert look(keepalive, 37.0, progress) is Life.OVER


def test_a_pong_shows_that_earlier_data_was_read() -> None:
    progress, keepalive = SocketProgress(), Keepalive(0.0)
    progress.note(0.0, 60 * SECOND, 0, False)
    keepalive.answered(1.0, progress)  # without a ping it has no meaning
    assert progress.caught_up == 60.0
    keepalive.pinged(1.0, 60 * SECOND + 2, progress, TIMEOUT)
    assert keepalive.pong_due == 60.0 + TIMEOUT
    progress.note(2.0, 61 * SECOND + 2, 0, False)
    keepalive.answered(2.0, progress)
    assert progress.caught_up == 3.0


def test_received_bytes_restart_the_interval() -> None:
    progress, keepalive = SocketProgress(), Keepalive(0.0)
    keepalive.pinged(20.0, 2, progress, TIMEOUT)
    assert look(keepalive, 100.0, progress, received=1) is Life.CONTINUES
    assert look(keepalive, 119.0, progress, received=1) is Life.CONTINUES
    assert look(keepalive, 120.0, progress, received=1) is Life.PING_DUE


# The system's word --------------------------------------------------------------------------------


@pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="this system has no such number"
)
def test_the_system_reports_unacknowledged_bytes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        with socket.create_connection(listener.getsockname()) as sender:
            receiver, _ = listener.accept()
            with receiver:
                sender.setblocking(False)
                assert unacknowledged(sender) == 0
                size = sender.send(bytes(1 << 20))
                assert 0 < unacknowledged(sender) <= size
                receiver.settimeout(10)
                while size:
                    size -= len(receiver.recv(1 << 20))
                    sender.setblocking(True)
                sender.setblocking(True)
                sender.shutdown(socket.SHUT_WR)
                assert receiver.recv(1) == b""
                sender.settimeout(10)
                receiver.close()
                assert sender.recv(1) == b""
                assert unacknowledged(sender) == 0


class MacSocket:
    """A socket with the option of macOS."""

    def fileno(self) -> int:
        raise AssertionError

    def getsockopt(self, level: int, name: int, /) -> int:
        assert (level, name) == (socket.SOL_SOCKET, 0x1024)
        return 42


def test_on_macos_a_socket_option_reports_unacknowledged_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert unacknowledged(MacSocket()) == 42


def test_other_systems_report_no_unacknowledged_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open(os.devnull) as no_socket:
        assert unacknowledged(no_socket) == 0  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "fcntl", None)
    elsewhere = runpy.run_path(str(module.__file__))
    with socket.socket() as sock:
        assert elsewhere["unacknowledged"](sock) == 0

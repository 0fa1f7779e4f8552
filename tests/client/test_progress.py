"""The client waits for a slow server, but not for a dead one."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.client_clock import STEP, ManualClock
from tests.support.inspection import exchange_of
from tests.support.scripted import Visit, end
from tests.support.waiting import TIMEOUT
from wsframe import Close, Ping

from .conftest import Connect, InThread, Play

SLOWLY = 30_000  # bytes a second
RECEIVE_BUFFER = 1 << 14
MUCH = 8_000_000  # more than the system accepts at once
SHORT = 0.05


class Slow:
    """A server that reads at a slow but steady rate, on the clock of its client.

    Attributes:
        go: must be set once the client's clock exists.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.clock: ManualClock
        self.received = bytearray()

    def attend(self, ws: Any) -> None:
        self.clock = ManualClock(ws)
        self.go.set()

    def read(self, visit: Visit, size: int) -> None:
        assert self.go.wait(TIMEOUT)
        while len(self.received) < size:
            step = min(len(self.received) + int(SLOWLY * STEP), size)
            while len(self.received) < step:
                self.received += visit.sock.recv(step - len(self.received))
            self.clock.pass_time(STEP)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_slow_but_steady_server_receives_everything(
    connect: Connect, play: Play, certificates: Certificates, secured: bool
) -> None:
    slow = Slow()

    def script(visit: Visit) -> None:
        visit.upgrade()
        slow.read(visit, MUCH - (4 << 20))
        visit.unread = bytes(slow.received)
        assert visit.next_event() == bytes(MUCH)
        visit.answer_close()

    tls = certificates.server if secured else None
    server = play(script, receive_buffer=RECEIVE_BUFFER, tls=tls)
    ws = connect(server.url(), ssl=certificates.client, deflate=False, send_timeout=30.0)
    slow.attend(ws)
    ws.send(bytes(MUCH))


def test_a_slow_but_steady_server_receives_the_close_frame(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    slow = Slow()
    size = 2_000_000

    def script(visit: Visit) -> None:
        visit.upgrade()
        slow.read(visit, size)
        visit.unread = bytes(slow.received)
        assert visit.next_event() == bytes(size)
        assert visit.answer_close() == Close(4000, "done")

    server = play(script, receive_buffer=RECEIVE_BUFFER)
    ws = connect(server.url(), deflate=False, close_timeout=5.0)
    ws.send(bytes(size))
    closing = in_thread(ws.close, 4000, "done")
    slow.attend(ws)
    closing.result(3 * TIMEOUT)
    server.stop()


def test_a_receiving_thread_detects_a_server_that_acknowledges_nothing(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert given_up.wait(TIMEOUT)
        visit.wait_for_end()

    given_up = threading.Event()
    server = play(script, receive_buffer=RECEIVE_BUFFER)
    ws = connect(server.url(), deflate=False, send_timeout=0.2, ping_interval=0)
    ws.send(bytes(1 << 16))
    assert end(ws.receive) == (
        1006,
        "the server acknowledged no data for 0.2 seconds (send_timeout)",
    )
    given_up.set()


def test_a_sending_thread_aborts_if_a_closed_server_acknowledges_nothing(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.close())
        assert given_up.wait(TIMEOUT)
        visit.wait_for_end()

    given_up = threading.Event()
    server = play(script, receive_buffer=RECEIVE_BUFFER)
    ws = connect(server.url(), deflate=False, send_timeout=0.2)
    with pytest.raises(TimeoutError, match="acknowledged no data for"):
        ws.send(bytes(MUCH))
    assert end(ws.receive) == (1000, "")
    given_up.set()


# Pings --------------------------------------------------------------------------------------------


def receive(ws: Any) -> object:
    return end(ws.receive)


def receive_again_and_again(ws: Any) -> object:
    while True:
        with suppress(TimeoutError):
            return end(ws.receive, SHORT / 2)


def iterate(ws: Any) -> object:
    assert list(ws) == []
    return ws.close_code, ws.close_reason


@pytest.mark.parametrize("wait", [receive, receive_again_and_again, iterate])
def test_a_server_that_does_not_answer_pings_is_dead(
    connect: Connect, play: Play, wait: Any
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == Ping(b"")
        visit.wait_for_end()

    ws = connect(play(script).url(), ping_interval=SHORT, ping_timeout=SHORT)
    assert wait(ws) == (1006, f"no pong within {SHORT} seconds (ping_timeout)")


def test_a_server_that_answers_pings_may_be_silent(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        for _ in range(3):
            assert visit.next_event() == Ping(b"")
            visit.send(visit.codec.pong(b""))
        visit.send_messages("at last")
        visit.answer_pings_until_the_end()

    ws = connect(play(script).url(), ping_interval=SHORT, ping_timeout=TIMEOUT)
    assert ws.receive() == "at last"


def test_without_an_interval_there_are_no_pings(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert go.wait(TIMEOUT)
        visit.send_messages("at last")
        visit.answer_close()

    go = threading.Event()
    ws = connect(play(script).url(), ping_interval=0, ping_timeout=0)
    with pytest.raises(TimeoutError):
        ws.receive(SHORT)
    go.set()
    assert ws.receive() == "at last"


def test_a_ping_of_one_thread_is_answered_to_another(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        for _ in range(2):
            assert visit.next_event() == Ping(b"")
            visit.send(visit.codec.pong(b""))
        visit.send_messages("one", "two")
        visit.answer_pings_until_the_end()

    ws = connect(play(script).url(), ping_interval=SHORT, ping_timeout=TIMEOUT)
    receiving = [in_thread(ws.receive) for _ in range(2)]
    assert sorted(future.result(TIMEOUT) for future in receiving) == ["one", "two"]


def test_all_threads_are_notified_of_a_dead_server(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.wait_for_end()

    ws = connect(play(script).url(), ping_interval=SHORT, ping_timeout=SHORT)
    receiving = [in_thread(end, ws.receive) for _ in range(3)]
    assert {future.result(TIMEOUT)[0] for future in receiving} == {1006}


def test_a_server_is_not_dead_while_reading_is_paused(connect: Connect, play: Play) -> None:
    """Reading is paused because the inbox is full, so the pong is not received."""

    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.encode("one") + visit.codec.encode("two"))
        assert given_up.wait(TIMEOUT)
        visit.answer_pings_until_the_end()

    given_up = threading.Event()
    ws = connect(play(script).url(), max_queue=1, ping_interval=SHORT, ping_timeout=0)
    while not exchange_of(ws).inbox:
        with suppress(TimeoutError):
            ws.round_trip(SHORT)
    with pytest.raises(TimeoutError):
        ws.round_trip(4 * SHORT)
    assert [ws.receive(), ws.receive()] == ["one", "two"]
    given_up.set()


@pytest.mark.parametrize("waits", [False, True], ids=["no thread waits", "a thread waits"])
def test_time_without_a_waiting_thread_does_not_count(
    connect: Connect,
    play: Play,
    in_thread: InThread,
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    waits: bool,
) -> None:
    """No thread of the program waits meanwhile, or the process is suspended."""

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert go.wait(TIMEOUT)
        visit.send_messages("still there")
        visit.answer_close()

    go, polling = threading.Event(), threading.Event()
    poll = codec.client.transport.Transport.poll

    def announce_and_poll(*arguments: Any) -> Any:
        polling.set()
        return poll(*arguments)

    ws = connect(play(script).url())
    clock = ManualClock(ws)
    if waits:
        monkeypatch.setattr(codec.client.transport.Transport, "poll", announce_and_poll)
        receiving = in_thread(ws.receive)
        assert polling.wait(TIMEOUT)
        clock.jump(3600)
        clock.pass_time(1)
        go.set()
        assert receiving.result(TIMEOUT) == "still there"
    else:
        with pytest.raises(TimeoutError):
            ws.receive(0)
        clock.now += 3600
        go.set()
        assert ws.receive() == "still there"


def test_silence_counts_while_a_thread_waits(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == Ping(b"")
        pinged.set()
        visit.wait_for_end()

    pinged = threading.Event()
    options = {"ping_interval": 20.0, "ping_timeout": 20.0, "send_timeout": 60.0}
    ws = connect(play(script).url(), **options)
    clock = ManualClock(ws)
    receiving = in_thread(end, ws.receive)
    clock.pass_time(15)
    assert not pinged.is_set()
    clock.pass_time(11)
    assert pinged.wait(TIMEOUT)
    clock.pass_time(12)
    assert not receiving.done()
    clock.pass_time(20)
    assert receiving.result(TIMEOUT) == (1006, "no pong within 20.0 seconds (ping_timeout)")

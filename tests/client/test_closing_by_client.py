"""WebSockets that the client closes."""

from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import ModuleType
from typing import Any

import pytest

from tests.client.closing import LOTS, RECEIVE_BUFFER
from tests.client.conftest import Connect, InThread, Play
from tests.support.certificates import Certificates
from tests.support.scripted import Visit, end
from tests.support.waiting import TIMEOUT
from wsframe import Close, Ping, Pong


def test_sent_messages_precede_the_close_frame_and_the_server_disconnects_first(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.expect(2) == ["one", Close(4001, "done")]
        visit.expect_silence()
        visit.send(visit.codec.close(4001))
        visit.expect_silence()

    ws = connect(play(script).url())
    ws.send("one")
    ws.close(4001, "done")
    assert (ws.close_code, ws.close_reason) == (4001, "done")


def test_closing_twice_does_nothing(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.answer_close() == Close(1000, "first")

    ws = connect(play(script).url())
    ws.close(reason="first")
    ws.close(4000, "second")
    assert (ws.close_code, ws.close_reason) == (1000, "first")


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (999, ""), (1000, "x" * 124)])
def test_invalid_arguments_of_close(connect: Connect, play: Play, code: int, reason: str) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.answer_close() == Close(1005)

    ws = connect(play(script).url())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"\w"):
            ws.close(code, reason)
        ws.close(1005)


def test_every_method_raises_after_closing(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()

    ws = connect(play(script).url())
    ws.close(4000, "over")
    for call in (lambda: ws.send("x"), ws.ping, ws.round_trip, ws.receive):
        assert end(call) == (4000, "over")
    assert list(ws) == []


def test_messages_received_before_closing_can_be_taken(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.encode("kept"))
        assert visit.next_event() == Close(1000)
        visit.send_messages("thrown away")
        visit.send(visit.codec.ping(b"after our close frame nothing is sent"))
        visit.send(visit.codec.close())
        visit.half_close()
        visit.expect_end()

    ws = connect(play(script).url())
    ws.close()
    assert list(ws) == ["kept"]


def test_closing_reads_all_data_before_the_close_frame_of_the_server(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages(*[bytes(100_000)] * 400)
        assert isinstance(visit.next_event(), Ping)
        assert visit.answer_close() == Close(1000)

    ws = connect(play(script).url(), max_queue=1)
    with pytest.raises(TimeoutError):
        ws.round_trip(0.1)  # because there is no room
    ws.close()
    assert len(list(ws)) <= 1


@pytest.mark.parametrize("answers", [True, False])
def test_the_client_disconnects_if_the_server_does_not(
    connect: Connect, play: Play, answers: bool
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == Close(1000)
        if answers:
            visit.send(visit.codec.close())
            visit.wait_for_end()  # by a reset, if the answer is too late
        else:
            visit.expect_end()

    ws = connect(play(script).url(), close_timeout=0.1)
    ws.close()
    assert (ws.close_code, ws.close_reason) == (1000, "")


def test_two_threads_close_at_the_same_time(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    heard, both = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        close = visit.next_event()
        heard.set()
        assert both.wait(TIMEOUT)
        assert isinstance(close, Close)
        visit.send(visit.codec.close(close.code))

    ws = connect(play(script).url())
    first = in_thread(ws.close, 4000)
    assert heard.wait(TIMEOUT)
    second = in_thread(ws.close, 4001)
    both.set()
    assert first.result(TIMEOUT) is second.result(TIMEOUT) is None
    assert ws.close_code == 4000


def test_a_closing_thread_does_not_block_others(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    heard, done = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert isinstance(visit.next_event(), Close)
        heard.set()
        assert done.wait(TIMEOUT)

    ws = connect(play(script).url(), close_timeout=2 * TIMEOUT)
    # One of them polls, and continues to do so for the thread that closes. The other one is woken.
    receiving = [in_thread(end, ws.receive) for _ in range(2)]
    closing = in_thread(ws.close, 4000)
    assert heard.wait(TIMEOUT)
    assert end(ws.receive) == (4000, "")
    woken, _ = wait(receiving, TIMEOUT, FIRST_COMPLETED)
    assert woken
    done.set()
    assert closing.result(TIMEOUT) is None
    assert [waiting.result(TIMEOUT) for waiting in receiving] == [(4000, "")] * 2


def test_no_message_follows_the_close_frame(
    connect: Connect,
    play: Play,
    in_thread: InThread,
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard, refused = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == Close(4000)
        heard.set()
        assert refused.wait(TIMEOUT)
        visit.expect_silence()

    def encode_late(*arguments: object, **options: object) -> bytes:
        frame: bytes = encode(*arguments, **options)
        closing.append(in_thread(ws.close, 4000))
        assert heard.wait(TIMEOUT)
        return frame

    closing: list[Future[Any]] = []
    ws = connect(play(script).url())
    encode = codec.Connection.encode
    monkeypatch.setattr(codec.Connection, "encode", encode_late)
    assert end(ws.send, "late") == (4000, "")
    refused.set()
    assert closing[0].result(TIMEOUT) is None


def test_closing_wakes_waiting_threads(connect: Connect, play: Play, in_thread: InThread) -> None:
    pinged = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.next_event()
        pinged.set()
        visit.answer_close()

    ws = connect(play(script).url())
    receiving = [in_thread(end, ws.receive, timeout) for timeout in (None, 2 * TIMEOUT)]
    iterating = in_thread(list, ws)
    pinging = in_thread(end, ws.round_trip, 2 * TIMEOUT)
    assert pinged.wait(TIMEOUT)
    ws.close(4000, "enough")
    for waiting in (*receiving, pinging):
        assert waiting.result(TIMEOUT) == (4000, "enough")
    assert iterating.result(TIMEOUT) == []


def test_when_closing_returns_the_socket_is_closed(
    connect: Connect,
    play: Play,
    in_thread: InThread,
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert opened.wait(TIMEOUT)
        visit.send(visit.codec.ping())
        assert visit.next_event() == Pong()
        polling.set()
        visit.wait_for_end()

    def lag(transport: Any, *arguments: object) -> bool:
        try:
            return bool(poll(transport, *arguments))
        finally:
            time.sleep(0.05)

    def note(transport: Any) -> None:
        close(transport)
        closed.append(transport)

    opened, polling, closed = threading.Event(), threading.Event(), list[Any]()
    ws = connect(play(script).url(), close_timeout=0.1)
    transport = codec.client.transport.Transport
    poll, close = transport.poll, transport.close
    monkeypatch.setattr(transport, "poll", lag)
    monkeypatch.setattr(transport, "close", note)
    received = in_thread(end, ws.receive)
    opened.set()
    assert polling.wait(TIMEOUT)
    ws.close()
    assert closed
    assert received.result(TIMEOUT) == (1000, "")


def test_closing_waits_for_messages_of_other_threads(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    sending = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.sock.recv(1) == b"\x82"
        sending.set()
        visit.codec.receive(b"\x82")
        assert visit.next_event() == LOTS
        assert visit.answer_close() == Close(4000)

    ws = connect(play(script, receive_buffer=RECEIVE_BUFFER).url())
    sent = in_thread(ws.send, LOTS)
    assert sending.wait(TIMEOUT)
    ws.close(4000)
    assert sent.result(TIMEOUT) is None
    assert ws.close_code == 4000


def test_closing_aborts_messages_of_other_threads(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    sending, closed = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.sock.recv(1)
        sending.set()
        assert closed.wait(TIMEOUT)
        visit.wait_for_end()

    ws = connect(play(script, receive_buffer=RECEIVE_BUFFER).url(), close_timeout=0.1)
    sent = in_thread(end, ws.send, LOTS)
    assert sending.wait(TIMEOUT)
    ws.close(4000, "enough")
    assert sent.result(TIMEOUT) == (4000, "enough")
    closed.set()


def test_over_tls_the_client_sends_close_notify(
    connect: Connect, play: Play, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()
        assert isinstance(visit.sock, ssl.SSLSocket)
        with visit.sock.unwrap():  # which waits for close_notify from the client
            pass

    connect(play(script, tls=certificates.server).url(), ssl=certificates.client).close()

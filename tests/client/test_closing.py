"""How a WebSocket ends: by whose will, and what every thread sees of it."""

from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import ModuleType
from typing import Any

import pytest

from tests.support.ends import BINARY, CLOSE, CONTINUATION, FIN, KEY, PING, RSV1, TEXT
from tests.support.servers import TIMEOUT, Script, Visit, end
from tests.support.vectors import by_hand
from wsframe import Close, PerMessageDeflate, Ping, Pong

from .conftest import Beside, Certificates, Connect, Play

LOTS = bytes(1 << 25)  # more than the buffers of both ends of a connection hold
RECEIVE_BUFFER = 1 << 14


# By us ---------------------------------------------------------------------------------------


def test_what_was_sent_before_goes_first_and_the_server_closes_first(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.hear(2) == ["one", Close(4001, "done")]
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
def test_a_close_that_may_not_be_sent(connect: Connect, play: Play, code: int, reason: str) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.answer_close() == Close(1005)

    ws = connect(play(script).url())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"\w"):
            ws.close(code, reason)
        ws.close(1005)


def test_after_closing_nothing_can_be_done(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()

    ws = connect(play(script).url())
    ws.close(4000, "over")
    for call in (lambda: ws.send("x"), ws.ping, ws.round_trip, ws.receive):
        assert end(call) == (4000, "over")
    assert list(ws) == []


def test_what_has_come_before_closing_can_still_be_received(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.encode("kept"))
        assert visit.next_event() == Close(1000)
        visit.say("thrown away")
        visit.send(visit.codec.ping(b"after our close frame nothing is sent"))
        visit.send(visit.codec.close())
        visit.half_close()
        visit.expect_end()

    ws = connect(play(script).url())
    ws.close()
    assert list(ws) == ["kept"]


def test_closing_reads_whatever_comes_before_the_answer(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.say(*[bytes(100_000)] * 400)
        assert isinstance(visit.next_event(), Ping)
        assert visit.answer_close() == Close(1000)

    ws = connect(play(script).url(), max_queue=1)
    with pytest.raises(TimeoutError):
        ws.round_trip(0.1)  # for there is no room
    ws.close()
    assert len(list(ws)) <= 1


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_does_not_leave_is_left(connect: Connect, play: Play, answers: bool) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == Close(1000)
        if answers:
            visit.send(visit.codec.close())
        visit.expect_end()

    ws = connect(play(script).url(), close_timeout=0.1)
    ws.close()
    assert (ws.close_code, ws.close_reason) == (1000, "")


def test_two_threads_close(connect: Connect, play: Play, beside: Beside) -> None:
    heard, both = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        close = visit.next_event()
        heard.set()
        assert both.wait(TIMEOUT)
        assert isinstance(close, Close)
        visit.send(visit.codec.close(close.code))

    ws = connect(play(script).url())
    first = beside(ws.close, 4000)
    assert heard.wait(TIMEOUT)
    second = beside(ws.close, 4001)
    both.set()
    assert first.result(TIMEOUT) is second.result(TIMEOUT) is None
    assert ws.close_code == 4000


def test_while_a_thread_closes_others_are_not_kept(
    connect: Connect, play: Play, beside: Beside
) -> None:
    heard, done = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert isinstance(visit.next_event(), Close)
        heard.set()
        assert done.wait(TIMEOUT)

    ws = connect(play(script).url(), close_timeout=2 * TIMEOUT)
    # One of them polls, and goes on to for the thread that closes; the other one is woken.
    receiving = [beside(end, ws.receive) for _ in range(2)]
    closing = beside(ws.close, 4000)
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
    beside: Beside,
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
        closing.append(beside(ws.close, 4000))
        assert heard.wait(TIMEOUT)
        return frame

    closing: list[Future[Any]] = []
    ws = connect(play(script).url())
    encode = codec.Connection.encode
    monkeypatch.setattr(codec.Connection, "encode", encode_late)
    assert end(ws.send, "late") == (4000, "")
    refused.set()
    assert closing[0].result(TIMEOUT) is None


def test_closing_wakes_threads_that_wait(connect: Connect, play: Play, beside: Beside) -> None:
    pinged = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.next_event()
        pinged.set()
        visit.answer_close()

    ws = connect(play(script).url())
    receiving = [beside(end, ws.receive, timeout) for timeout in (None, 2 * TIMEOUT)]
    iterating = beside(list, ws)
    pinging = beside(end, ws.round_trip, 2 * TIMEOUT)
    assert pinged.wait(TIMEOUT)
    ws.close(4000, "enough")
    for waiting in (*receiving, pinging):
        assert waiting.result(TIMEOUT) == (4000, "enough")
    assert iterating.result(TIMEOUT) == []


def test_when_closing_returns_the_socket_is_closed(
    connect: Connect,
    play: Play,
    beside: Beside,
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
    received = beside(end, ws.receive)
    opened.set()
    assert polling.wait(TIMEOUT)
    ws.close()
    assert closed
    assert received.result(TIMEOUT) == (1000, "")


def test_closing_waits_for_what_another_thread_sends(
    connect: Connect, play: Play, beside: Beside
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
    sent = beside(ws.send, LOTS)
    assert sending.wait(TIMEOUT)
    ws.close(4000)
    assert sent.result(TIMEOUT) is None
    assert ws.close_code == 4000


def test_closing_gives_up_what_another_thread_sends(
    connect: Connect, play: Play, beside: Beside
) -> None:
    sending, closed = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.sock.recv(1)
        sending.set()
        assert closed.wait(TIMEOUT)
        visit.wait_for_end()

    ws = connect(play(script, receive_buffer=RECEIVE_BUFFER).url(), close_timeout=0.1)
    sent = beside(end, ws.send, LOTS)
    assert sending.wait(TIMEOUT)
    ws.close(4000, "enough")
    assert sent.result(TIMEOUT) == (4000, "enough")
    closed.set()


def test_over_tls_the_end_is_said(connect: Connect, play: Play, certificates: Certificates) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()
        assert isinstance(visit.sock, ssl.SSLSocket)
        with visit.sock.unwrap():  # which waits for the client to say it, too
            pass

    connect(play(script, tls=certificates.server).url(), ssl=certificates.client).close()


# By the server -------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (1005, ""), (4999, "é")])
def test_the_server_closes(connect: Connect, play: Play, code: int, reason: str) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.say("last")
        visit.send(visit.codec.close(code, reason))
        assert visit.next_event() == Close(code)
        visit.expect_silence()

    ws = connect(play(script).url())
    assert ws.receive(TIMEOUT) == "last"
    assert end(ws.receive, TIMEOUT) == (code, reason)
    assert end(ws.send, "x") == (code, reason)
    assert (ws.close_code, ws.close_reason) == (code, reason)


def test_a_server_that_closes_and_does_not_leave_is_left(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.close(1001))
        assert visit.next_event() == Close(1001)
        visit.expect_end()

    ws = connect(play(script).url(), close_timeout=0.1)
    assert end(ws.receive) == (1001, "")


def test_one_of_the_threads_that_wait_answers_the_server_s_close(
    connect: Connect, play: Play, beside: Beside
) -> None:
    waiting = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert waiting.wait(TIMEOUT)
        visit.send(visit.codec.close(4000))
        assert visit.next_event() == Close(4000)
        visit.half_close()
        visit.expect_end()

    ws = connect(play(script).url())
    ends = [beside(end, ws.receive) for _ in range(4)]
    waiting.set()
    assert [waits.result(TIMEOUT) for waits in ends] == [(4000, "")] * 4


LEAVINGS: dict[str, Script] = {
    "closes": lambda visit: None,
    "leaves in a head": lambda visit: visit.send(b"\x82"),
    "leaves in a frame": lambda visit: visit.send(by_hand(TEXT | FIN, b"text")[:-1]),
    "leaves in a message": lambda visit: visit.send(by_hand(TEXT, b"text")),
}


@pytest.mark.parametrize("how", LEAVINGS)
@pytest.mark.parametrize("secured", [False, True])
def test_the_server_leaves_without_a_word(
    connect: Connect, play: Play, certificates: Certificates, how: str, secured: bool
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.say("last")
        LEAVINGS[how](visit)

    server = play(script, tls=certificates.server if secured else None)
    ws = connect(server.url(), ssl=certificates.client)
    assert ws.receive(TIMEOUT) == "last"
    assert end(ws.receive, TIMEOUT) == (1006, "the server left in silence")
    assert (ws.close_code, ws.close_reason) == (1006, "the server left in silence")


def test_the_server_closes_its_side(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.half_close()
        visit.expect_end()

    ws = connect(play(script).url())
    assert end(ws.receive, TIMEOUT) == (1006, "the server left in silence")


def test_the_server_resets(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.reset()

    ws = connect(play(script).url())
    code, reason = end(ws.receive)
    assert code == 1006
    assert "reset" in reason


@pytest.mark.parametrize(("word", "code"), [(b"", 1006), (b"\x88\x02\x03\xe9", 1001)])
def test_sending_to_a_server_that_has_left_reads_its_last_word(
    connect: Connect, play: Play, word: bytes, code: int
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert opened.wait(TIMEOUT)
        visit.send(word)
        visit.reset()

    opened = threading.Event()
    server = play(script)
    ws = connect(server.url())
    opened.set()
    server.stop()
    assert end(ws.send, "x")[0] == code


@pytest.mark.parametrize("method", ["send", "round_trip", "receive"])
def test_a_connection_that_is_lost_leaves_nothing_open(
    codec: ModuleType, play: Play, method: str
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.reset()

    server = play(script)
    ws = codec.client.connect(server.url())  # which nothing closes
    server.stop()
    arguments = ["x"] if method == "send" else []
    assert end(getattr(ws, method), *arguments)[0] == 1006


FAULTS = {
    "a masked frame": (by_hand(TEXT | FIN, b"x", KEY), 1002),
    "a reserved bit": (by_hand(TEXT | FIN | 0x20, b"x"), 1002),
    "a reserved opcode": (by_hand(0x3 | FIN, b"x"), 1002),
    "nothing to continue": (by_hand(CONTINUATION | FIN, b"x"), 1002),
    "a message in another": (by_hand(TEXT, b"x") * 2, 1002),
    "a long ping": (by_hand(PING, bytes(126)), 1002),
    "half a close code": (by_hand(CLOSE, b"\x03"), 1002),
    "a bad close code": (by_hand(CLOSE, b"\x03\xee"), 1002),
    "text that is no UTF-8": (by_hand(TEXT | FIN, b"\xff"), 1007),
    "a reason that is no UTF-8": (by_hand(CLOSE, b"\x03\xe8\xff"), 1007),
    "what does not inflate": (by_hand(TEXT | FIN | RSV1, b"\xff" * 8), 1007),
    "a long message": (by_hand(BINARY | FIN, bytes(1001)), 1009),
    "a long message in fragments": (
        by_hand(BINARY, bytes(600)) + by_hand(CONTINUATION | FIN, bytes(401)),
        1009,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_server_breaks_a_rule(connect: Connect, play: Play, fault: str) -> None:
    frames, code = FAULTS[fault]

    def script(visit: Visit) -> None:
        visit.upgrade(deflate=PerMessageDeflate())
        visit.send(visit.codec.encode("good") + frames + visit.codec.encode("too late"))
        close = visit.next_event()
        assert isinstance(close, Close)
        assert close.code == code
        closes.append(close.reason)

    closes: list[str] = []
    server = play(script)
    ws = connect(server.url(), max_message_size=1000)
    assert ws.receive(TIMEOUT) == "good"
    assert end(ws.receive, TIMEOUT) == (code, ws.close_reason)
    server.stop()
    assert closes == [ws.close_reason]


# By time, or by accident ---------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("receives", [False, True])
def test_a_server_that_takes_nothing(
    connect: Connect,
    play: Play,
    beside: Beside,
    certificates: Certificates,
    receives: bool,
    secured: bool,
) -> None:
    given_up = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert given_up.wait(TIMEOUT)
        visit.wait_for_end()

    late = "the server has acknowledged nothing for 0.2 seconds"
    tls = certificates.server if secured else None
    url = play(script, receive_buffer=RECEIVE_BUFFER, tls=tls).url()
    ws = connect(url, ssl=certificates.client, send_timeout=0.2)
    receiving = beside(end, ws.receive) if receives else None
    with pytest.raises(TimeoutError, match=f"{late}; the connection is closed"):
        ws.send(LOTS)
    assert end(ws.send, "x") == (1006, late)
    if receiving is not None:
        assert receiving.result(TIMEOUT) == (1006, late)
    given_up.set()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_fails_within_a_read_ends_the_connection(
    connect: Connect,
    play: Play,
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert waiting.wait(TIMEOUT)
        visit.say("message")
        visit.wait_for_end()

    waiting = threading.Event()
    ws = connect(play(script).url())
    with monkeypatch.context() as patched:
        patched.setattr(codec.client.exchange.Exchange, "feed", fail)
        waiting.set()
        with pytest.raises(error):
            ws.receive(TIMEOUT)
    assert end(ws.receive) == (1006, "the client failed")


def test_a_wait_that_was_interrupted_can_be_repeated(
    connect: Connect, play: Play, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> bool:
        raise KeyboardInterrupt

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "message"
        visit.say("answer")

    ws = connect(play(script).url())
    with monkeypatch.context() as patched:
        patched.setattr(codec.client.transport.Transport, "poll", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ws.receive()
    ws.send("message")
    assert ws.receive(TIMEOUT) == "answer"


def test_a_poll_that_is_interrupted_where_it_begins_is_over(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()

    def interrupted() -> None:
        release()
        raise KeyboardInterrupt

    ws = connect(play(script).url())
    release = ws._state.release
    with monkeypatch.context() as patched:
        patched.setattr(ws._state, "release", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ws.receive()
    ws.close()  # waits for no poll
    assert ws.close_code == 1000


def test_a_send_that_is_interrupted_ends_the_connection(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the compressor remembers of it the server would take for a part of the next message."""

    def script(visit: Visit) -> None:
        visit.upgrade(deflate=PerMessageDeflate())
        assert visit.next_event() == "one " * 50
        visit.wait_for_end()

    def interrupted(frame: bytes) -> int:
        raise KeyboardInterrupt

    ws = connect(play(script).url())
    ws.send("one " * 50)
    with pytest.raises(ValueError, match="surrogates"):
        ws.send("\ud800" * 50)  # which takes nothing, and changes nothing
    with monkeypatch.context() as patched:
        patched.setattr(ws._exchange, "push", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ws.send("two " * 50)
    assert end(ws.send, "two " * 50) == (1006, "a thread that sent was interrupted")


def test_a_close_by_a_signal_handler_over_a_poll_comes_to_an_end(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.answer_close() == Close(1000)
        visit.wait_for_end()

    def signalled(*arguments: Any) -> Any:
        monkeypatch.undo()
        ws.close()
        return poll(*arguments)

    ws = connect(play(script).url(), close_timeout=0.01)
    poll = ws._exchange._transport.poll
    monkeypatch.setattr(ws._exchange._transport, "poll", signalled)
    assert end(ws.receive)[0] == 1000

"""WebSockets that end by a timeout or a lost connection."""

from __future__ import annotations

import re
import threading
from types import ModuleType
from typing import Any

import pytest

from tests.client.closing import LOTS, RECEIVE_BUFFER
from tests.client.conftest import Connect, InThread, Play
from tests.support.certificates import Certificates
from tests.support.inspection import exchange_of, transport_of
from tests.support.scripted import Visit, end
from tests.support.waiting import TIMEOUT
from wsframe import Close, PerMessageDeflate


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("receives", [False, True])
def test_a_server_that_acknowledges_nothing(
    connect: Connect,
    play: Play,
    in_thread: InThread,
    certificates: Certificates,
    receives: bool,
    secured: bool,
) -> None:
    given_up = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert given_up.wait(TIMEOUT)
        visit.wait_for_end()

    late = "the server acknowledged no data for 0.2 seconds (send_timeout)"
    tls = certificates.server if secured else None
    url = play(script, receive_buffer=RECEIVE_BUFFER, tls=tls).url()
    ws = connect(url, ssl=certificates.client, send_timeout=0.2)
    receiving = in_thread(end, ws.receive) if receives else None
    with pytest.raises(TimeoutError, match=re.escape(f"{late}; the connection is closed")):
        ws.send(LOTS)
    assert end(ws.send, "x") == (1006, late)
    if receiving is not None:
        assert receiving.result(TIMEOUT) == (1006, late)
    given_up.set()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_exception_within_a_read_ends_the_connection(
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
        visit.send_messages("message")
        visit.wait_for_end()

    waiting = threading.Event()
    ws = connect(play(script).url())
    with monkeypatch.context() as patched:
        patched.setattr(codec.client.exchange.Exchange, "feed", fail)
        waiting.set()
        with pytest.raises(error):
            ws.receive(TIMEOUT)
    assert end(ws.receive) == (1006, "an exception interrupted reading or writing")


def test_a_wait_that_was_interrupted_can_be_repeated(
    connect: Connect, play: Play, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> bool:
        raise KeyboardInterrupt

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "message"
        visit.send_messages("answer")

    ws = connect(play(script).url())
    with monkeypatch.context() as patched:
        patched.setattr(codec.client.transport.Transport, "poll", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ws.receive()
    ws.send("message")
    assert ws.receive(TIMEOUT) == "answer"


def test_a_poll_that_is_interrupted_at_its_beginning_is_over(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.answer_close()

    def interrupted() -> None:
        release()
        raise KeyboardInterrupt

    ws = connect(play(script).url())
    state = exchange_of(ws).state
    release = state.release
    with monkeypatch.context() as patched:
        patched.setattr(state, "release", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ws.receive()
    ws.close()  # does not wait for a poll
    assert ws.close_code == 1000


def test_a_send_that_is_interrupted_ends_the_connection(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compressor's window contains the interrupted message, so no message may follow."""

    def script(visit: Visit) -> None:
        visit.upgrade(deflate=PerMessageDeflate())
        assert visit.next_event() == "one " * 50
        visit.wait_for_end()

    def interrupted(frame: bytes) -> int:
        raise KeyboardInterrupt

    ws = connect(play(script).url())
    ws.send("one " * 50)
    with pytest.raises(ValueError, match="surrogates"):
        ws.send("\ud800" * 50)  # takes no message, and changes nothing
    with monkeypatch.context() as patched:
        patched.setattr(exchange_of(ws), "push", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ws.send("two " * 50)
    assert end(ws.send, "two " * 50) == (1006, "a call of send() was interrupted")


def test_a_close_in_a_signal_handler_during_a_poll_ends(
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
    poll = transport_of(ws).poll
    monkeypatch.setattr(transport_of(ws), "poll", signalled)
    assert end(ws.receive)[0] == 1000

"""WebSockets that the server closes."""

from __future__ import annotations

import threading
from types import ModuleType

import pytest

from tests.client.conftest import Connect, InThread, Play
from tests.support.certificates import Certificates
from tests.support.ends import BINARY, CLOSE, CONTINUATION, FIN, KEY, PING, RSV1, TEXT
from tests.support.scripted import Script, Visit, end
from tests.support.vectors import by_hand
from tests.support.waiting import TIMEOUT
from wsframe import Close, PerMessageDeflate


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (1005, ""), (4999, "é")])
def test_the_server_closes(connect: Connect, play: Play, code: int, reason: str) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("last")
        visit.send(visit.codec.close(code, reason))
        assert visit.next_event() == Close(code)
        visit.expect_silence()

    ws = connect(play(script).url())
    assert ws.receive(TIMEOUT) == "last"
    assert end(ws.receive, TIMEOUT) == (code, reason)
    assert end(ws.send, "x") == (code, reason)
    assert (ws.close_code, ws.close_reason) == (code, reason)


def test_the_client_closes_if_the_server_does_not_disconnect(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.close(1001))
        assert visit.next_event() == Close(1001)
        visit.expect_end()

    ws = connect(play(script).url(), close_timeout=0.1)
    assert end(ws.receive) == (1001, "")


def test_one_of_the_waiting_threads_answers_the_close_of_the_server(
    connect: Connect, play: Play, in_thread: InThread
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
    ends = [in_thread(end, ws.receive) for _ in range(4)]
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
def test_the_server_disconnects_without_a_close_frame(
    connect: Connect, play: Play, certificates: Certificates, how: str, secured: bool
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("last")
        LEAVINGS[how](visit)

    server = play(script, tls=certificates.server if secured else None)
    ws = connect(server.url(), ssl=certificates.client)
    assert ws.receive(TIMEOUT) == "last"
    assert end(ws.receive, TIMEOUT) == (
        1006,
        "the server closed the connection without a close frame",
    )
    assert (ws.close_code, ws.close_reason) == (
        1006,
        "the server closed the connection without a close frame",
    )


def test_the_server_closes_its_side(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.half_close()
        visit.expect_end()

    ws = connect(play(script).url())
    assert end(ws.receive, TIMEOUT) == (
        1006,
        "the server closed the connection without a close frame",
    )


def test_the_server_resets(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.reset()

    ws = connect(play(script).url())
    code, reason = end(ws.receive)
    assert code == 1006
    assert "reset" in reason


@pytest.mark.parametrize(("word", "code"), [(b"", 1006), (b"\x88\x02\x03\xe9", 1001)])
def test_sending_to_a_disconnected_server_receives_its_close_frame(
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
def test_a_lost_connection_leaves_no_descriptor_open(
    codec: ModuleType, play: Play, method: str
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.reset()

    server = play(script)
    ws = codec.client.connect(server.url())  # not closed by the test
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
    "text that is not UTF-8": (by_hand(TEXT | FIN, b"\xff"), 1007),
    "a reason that is not UTF-8": (by_hand(CLOSE, b"\x03\xe8\xff"), 1007),
    "what does not inflate": (by_hand(TEXT | FIN | RSV1, b"\xff" * 8), 1007),
    "a long message": (by_hand(BINARY | FIN, bytes(1001)), 1009),
    "a long message in fragments": (
        by_hand(BINARY, bytes(600)) + by_hand(CONTINUATION | FIN, bytes(401)),
        1009,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_server_violates_the_protocol(connect: Connect, play: Play, fault: str) -> None:
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

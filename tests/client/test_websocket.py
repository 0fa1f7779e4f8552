"""A WebSocket without errors: messages, pings, iteration and closing."""

from __future__ import annotations

import math
import threading
from time import monotonic
from types import ModuleType
from typing import Any

import pytest

from tests.support.handlers import BOTH_KINDS, plain_echo, websocket_app
from tests.support.inspection import exchange_of
from tests.support.scripted import Visit
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import Close, CloseCode, PerMessageDeflate, Ping, Pong
from wsframe.server import WebSocket

from .conftest import Connect, Play

MESSAGES = ("text", "", "ünïcödé 🎈", b"binary", b"", "x" * 100_000, bytes(1 << 20))


@BOTH_KINDS
@pytest.mark.parametrize("theirs", [True, False])
@pytest.mark.parametrize("ours", [True, False, PerMessageDeflate(min_size=0)])
def test_messages_of_all_kinds_are_echoed(
    connect: Connect, serve: Serve, codec: ModuleType, echo: Any, theirs: bool, ours: Any
) -> None:
    if isinstance(ours, PerMessageDeflate):
        ours = codec.PerMessageDeflate(min_size=0)  # the class of this copy of the package
    server = serve(websocket_app(echo, deflate=theirs))
    with connect(f"ws://127.0.0.1:{server.port}/echo", deflate=ours) as ws:
        assert (ws.deflate is not None) == (theirs and ours is not False)
        for message in MESSAGES:
            ws.send(message)
            assert ws.receive(TIMEOUT) == message
    assert (ws.close_code, ws.close_reason) == (1000, "")


def test_any_bytes_like_object_can_be_sent(connect: Connect, serve: Serve) -> None:
    ws = connect(f"ws://127.0.0.1:{serve(websocket_app(plain_echo)).port}/echo")
    for message in (bytearray(b"abc"), memoryview(b"abc")):
        ws.send(message)
        assert ws.receive(TIMEOUT) == b"abc"


def test_values_are_sent_as_json_and_are_no_messages(connect: Connect, serve: Serve) -> None:
    ws = connect(f"ws://127.0.0.1:{serve(websocket_app(plain_echo)).port}/echo")
    ws.send_json({"a": [1, None]})
    ws.send_json("text")
    assert [ws.receive(TIMEOUT), ws.receive(TIMEOUT)] == ['{"a": [1, null]}', '"text"']
    with pytest.raises(TypeError, match="not dict; send_json sends a value as JSON"):
        ws.send({"a": 1})
    with pytest.raises(TypeError, match="C-contiguous"):
        ws.send(memoryview(b"abcd")[::2])


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_a_timeout_that_has_passed_or_is_nan_ends_at_once(
    connect: Connect, play: Play, timeout: float
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.wait_for_end()

    with connect(play(script).url(), close_timeout=0) as ws:
        with pytest.raises(TimeoutError):
            ws.receive(timeout)
        with pytest.raises(TimeoutError):
            ws.round_trip(timeout)


@pytest.mark.parametrize("compress", [None, True, False])
def test_compression_can_be_chosen_for_each_message(
    connect: Connect, play: Play, compress: bool | None
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(deflate=PerMessageDeflate())
        first_byte = visit.sock.recv(1)[0]
        assert bool(first_byte & 0x40) == bool(compress)

    ws = connect(play(script).url())
    ws.send("short", compress=compress)


def test_the_connection_is_iterated_over_until_its_end(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "begin"
        visit.send_messages("one", b"two")
        visit.send(visit.codec.close(4000, "enough"))
        assert visit.next_event() == Close(4000)

    ws = connect(play(script).url())
    assert (ws.close_code, ws.close_reason) == (None, None)
    ws.send("begin")
    assert list(ws) == ["one", b"two"]
    assert list(ws) == []
    assert (ws.close_code, ws.close_reason) == (4000, "enough")


def test_iteration_ends_at_a_lost_connection_too(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("one")

    ws = connect(play(script).url())
    assert list(ws) == ["one"]
    assert (ws.close_code, ws.close_reason) == (
        1006,
        "the server closed the connection without a close frame",
    )


def test_an_exception_in_a_with_block_closes_with_1011(connect: Connect, play: Play) -> None:
    closes = []

    def script(visit: Visit) -> None:
        visit.upgrade()
        closes.append(visit.answer_close())

    def fail(url: str) -> None:
        with connect(url):
            raise KeyError("defect")

    with pytest.raises(KeyError):
        fail(play(script).url())
    assert closes == [Close(CloseCode.INTERNAL_ERROR)]


def test_messages_before_the_servers_close_frame_can_be_answered(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.encode("one") + visit.codec.encode("two") + visit.codec.close(1001))
        assert visit.expect(3) == ["one", "two", Close(1001)]

    ws = connect(play(script).url())
    for message in ws:
        ws.send(message)


def test_pings_are_answered_while_a_thread_waits_for_a_message(
    connect: Connect, play: Play
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.ping(b"there?"))
        assert visit.next_event() == Pong(b"there?")
        visit.send_messages("answered")

    assert connect(play(script).url()).receive(TIMEOUT) == "answered"


def test_a_ping_in_the_same_read_as_a_message_is_answered(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert opened.wait(TIMEOUT)
        visit.send(visit.codec.ping(b"there?") + visit.codec.encode("message"))
        assert visit.next_event() == Pong(b"there?")
        answered.set()

    opened, answered = threading.Event(), threading.Event()
    ws = connect(play(script).url())
    opened.set()
    assert ws.receive(TIMEOUT) == "message"
    assert answered.wait(TIMEOUT)


def test_pings_are_answered_while_messages_are_taken_slowly(
    connect: Connect, play: Play, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert opened.wait(TIMEOUT)
        visit.send_messages("one", "two", "three")
        assert busy.wait(TIMEOUT)
        visit.send(visit.codec.ping(b"there?"))
        pinged.set()
        assert visit.next_event() == Pong(b"there?")
        answered.set()

    opened, busy, pinged, answered = (threading.Event() for _ in range(4))
    ws = connect(play(script).url())
    opened.set()
    assert ws.receive(TIMEOUT) == "one"
    busy.set()
    assert pinged.wait(TIMEOUT)
    monkeypatch.setattr(exchange_of(ws), "clock", lambda: monotonic() + 2)
    assert ws.receive(TIMEOUT) == "two"
    assert answered.wait(TIMEOUT)


def test_pings_are_answered_when_messages_are_sent(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.ping(b"there?"))
        assert sorted(map(str, visit.expect(2))) == ["Pong(payload=b'there?')", "message"]

    connect(play(script).url()).send("message")


def test_a_ping_can_be_sent_without_waiting_for_its_pong(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == Ping(b"x" * 125)
        visit.send(visit.codec.pong(b"x" * 125))
        visit.send_messages("next")

    ws = connect(play(script).url())
    with pytest.raises(ValueError, match="125"):
        ws.ping(b"x" * 126)
    ws.ping(b"x" * 125)
    assert ws.receive(TIMEOUT) == "next"


def test_a_round_trip_takes_some_time(connect: Connect, serve: Serve) -> None:
    ws = connect(f"ws://127.0.0.1:{serve(websocket_app(plain_echo)).port}/echo")
    assert 0 < ws.round_trip() < TIMEOUT
    assert 0 < ws.round_trip(None) < TIMEOUT


def test_a_server_s_handler_sees_the_client_s_close(connect: Connect, serve: Serve) -> None:
    seen = []

    def handler(ws: WebSocket) -> None:
        assert list(ws) == ["hello"]
        seen.append(ws.close_code)

    server = serve(websocket_app(handler))
    ws = connect(f"ws://127.0.0.1:{server.port}/echo")
    ws.send("hello")
    ws.close(4001, "done")
    ws.close(4002)
    server.stop()
    assert seen == [4001]
    assert (ws.close_code, ws.close_reason) == (4001, "done")

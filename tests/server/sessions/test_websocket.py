"""WebSockets: what a handler sees, both as a plain function and as a generator."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, Queue, SimpleQueue
from select import select
from typing import Any

import pytest

from tests.server.conftest import (
    Clients,
    Serve,
    ServerLog,
    stop_within,
    until_it_stands_still,
    wait_until,
)
from tests.support.clients import TIMEOUT, WebSocketClient, masked
from tests.support.handlers import (
    BOTH_KINDS,
    Held,
    Waits,
    generator_echo,
    plain_echo,
    websocket_app,
)
from wsframe import Close, Ping, Pong
from wsframe.frames import Opcode
from wsframe.server import App, ConnectionClosed, Server, WebSocket
from wsframe.server.handoff.loop import Loop
from wsframe.server.sockets.peer import HIGH_WATER

Handler = Callable[[WebSocket], Any]

MIB = 1 << 20


def numbered(number: int, size: int = 1 << 14) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


# Messages ----------------------------------------------------------------------------------------


@BOTH_KINDS
@pytest.mark.parametrize(
    "message",
    [
        "text",
        "",
        "ünïcödé 🎈",
        b"binary",
        b"",
        bytes(range(256)) * 300,
        "x" * 125,
        "x" * 126,
        b"x" * 65535,
        b"x" * 65536,
        "é" * (MIB // 2),
        b"\xff" * MIB,
    ],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_a_message_comes_back_as_it_was(
    serve: Serve, clients: Clients, echo: Handler, message: str | bytes
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    client.say(message)
    assert client.next_event() == message
    client.say(message, message)
    assert client.hear(2) == [message, message]
    assert client.leave() == Close(1000)


@BOTH_KINDS
def test_a_message_in_fragments_is_one_message(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    client.send(
        masked(Opcode.TEXT, "é".encode()[:1], fin=False)
        + masked(Opcode.PING, b"between")
        + masked(Opcode.CONTINUATION, "é".encode()[1:], fin=False)
        + masked(Opcode.CONTINUATION, b"")
    )
    assert client.hear(2) == [Pong(b"between"), "é"]


@BOTH_KINDS
def test_messages_may_come_in_the_segment_of_the_request(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    first = masked(Opcode.TEXT, "one") + masked(Opcode.PING, b"two") + masked(Opcode.BINARY, b"3")
    client = clients.websocket(serve(websocket_app(echo)), "/echo", first=first[:-1])
    client.send(first[-1:])
    events = client.hear(3)
    assert [event for event in events if not isinstance(event, Pong)] == ["one", b"3"]
    assert Pong(b"two") in events


@BOTH_KINDS
def test_the_whole_conversation_may_come_and_end_in_one_segment(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    first = masked(Opcode.TEXT, "one") + masked(Opcode.CLOSE, b"\x0f\xa0bye")
    client = clients.websocket(serve(websocket_app(echo)), "/echo", first=first)
    assert client.hear(2) == ["one", Close(4000)]
    client.expect_end()


@BOTH_KINDS
def test_the_whole_conversation_may_come_a_byte_at_a_time(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo", bytewise=True)
    client.send_bytewise(
        masked(Opcode.TEXT, "häl", fin=False)
        + masked(Opcode.PING, b"ping")
        + masked(Opcode.CONTINUATION, "lo")
        + masked(Opcode.BINARY, b"x" * 126)
        + masked(Opcode.CLOSE, b"\x0f\xa0bye")
    )
    assert client.hear(4) == [Pong(b"ping"), "hällo", b"x" * 126, Close(4000)]
    client.expect_end()


def test_what_is_sent_may_be_any_bytes_like_object(serve: Serve, clients: Clients) -> None:
    def send(ws: WebSocket) -> None:
        for message in (b"bytes", bytearray(b"array"), memoryview(b"view")[1:]):
            ws.send(message)

    client = clients.websocket(serve(websocket_app(send)), "/echo")
    assert client.hear(3) == [b"bytes", b"array", b"iew"]


def test_what_is_no_message_is_the_handlers_fault(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def send(ws: WebSocket) -> None:
        ws.send(42)  # type: ignore[arg-type]

    client = clients.websocket(serve(websocket_app(send)), "/echo")
    assert client.closed_by_server().code == 1011
    assert_traceback(log.expect("the handler of /echo failed"), TypeError, "send")


# Handshake ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ([], None),
        (["v2.chat"], "v2.chat"),
        (["v1.chat, v2.chat"], "v1.chat"),
        (["v9.chat", "v2.chat"], "v2.chat"),
        (["v9.chat"], None),
    ],
)
def test_a_subprotocol_is_agreed_on(
    serve: Serve, clients: Clients, offered: list[str], agreed: str | None
) -> None:
    def tell(ws: WebSocket) -> Waits:
        ws.send(repr(ws.subprotocol))
        yield

    server = serve(websocket_app(tell, subprotocols=["v2.chat", "v1.chat"]))
    headers = [("Sec-WebSocket-Protocol", item) for item in offered]
    client = clients.websocket(server, "/echo", *headers)
    assert client.headers["Sec-WebSocket-Protocol"] == agreed
    assert client.next_event() == repr(agreed)


def test_an_extension_that_is_offered_is_not_taken(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.websocket(
        server, "/echo", ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    )
    assert client.headers["Sec-WebSocket-Extensions"] is None
    client.say("plain")
    assert client.next_event() == "plain"


# Pings -------------------------------------------------------------------------------------------


@BOTH_KINDS
def test_pings_are_answered_in_order(serve: Serve, clients: Clients, echo: Handler) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    client.send(b"".join(client.codec.ping(bytes([number])) for number in range(100)))
    assert client.hear(100) == [Pong(bytes([number])) for number in range(100)]
    client.send(client.codec.pong(b"nobody asked"))
    client.say("next")
    assert client.next_event() == "next"


def test_a_ping_is_answered_while_the_handler_is_blocked(serve: Serve, clients: Clients) -> None:
    held = Held()

    def hold(ws: WebSocket) -> None:
        held.wait()
        plain_echo(ws)

    client = clients.websocket(serve(websocket_app(hold)), "/echo")
    client.say("waits")
    client.send(client.codec.ping(b"does not"))
    assert client.next_event() == Pong(b"does not")
    held.release()
    assert client.next_event() == "waits"


def test_a_handler_may_ping(serve: Serve, clients: Clients) -> None:
    refused: Queue[Exception] = Queue()

    def ping(ws: WebSocket) -> Waits:
        ws.ping()
        ws.ping(b"x" * 125)
        for size in (126, 125):
            try:
                ws.ping(b"x" * size)
            except Exception as error:
                refused.put(error)
            ws.close()
        yield

    client = clients.websocket(serve(websocket_app(ping)), "/echo")
    assert client.hear(2) == [Ping(b""), Ping(b"x" * 125)]
    assert isinstance(refused.get(timeout=TIMEOUT), ValueError)
    assert isinstance(refused.get(timeout=TIMEOUT), ConnectionClosed)
    client.closed_by_server()


# Handlers that fail, and that end ----------------------------------------------------------------


def assert_traceback(record: Any, kind: type[BaseException], function: str) -> None:
    """The record shows where in the handler it happened."""
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, kind)
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert function in names


def plain_failure(ws: WebSocket) -> None:
    for message in ws:
        raise ERRORS[str(message)]


def generator_failure(ws: WebSocket) -> Waits:
    message = yield
    raise ERRORS[str(message)]


def immediate_failure(ws: WebSocket) -> Waits:
    raise ERRORS["error"]
    yield


ERRORS: dict[str, BaseException] = {
    "error": ZeroDivisionError("one"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "another's": ConnectionClosed(1001, "another connection's end"),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("handler", [plain_failure, generator_failure])
def test_a_handler_that_raises_ends_its_connection_alone(
    serve: Serve, clients: Clients, log: ServerLog, handler: Handler, error: str
) -> None:
    app = websocket_app(generator_echo)
    app.websocket("/fail")(handler)
    server = serve(app)
    others = [clients.websocket(server, "/echo"), clients.websocket(server, "/fail")]
    client = clients.websocket(server, "/fail")
    client.say(error)
    assert client.closed_by_server() == Close(1011, "the handler failed")
    record = log.expect("the handler of /fail failed")
    assert_traceback(record, type(ERRORS[error]), handler.__name__)
    others[0].say("still here")
    assert others[0].next_event() == "still here"
    others[1].send(others[1].codec.ping(b"still here"))
    assert others[1].next_event() == Pong(b"still here")


def test_a_generator_may_raise_before_its_first_message(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    client = clients.websocket(serve(websocket_app(immediate_failure)), "/echo")
    assert client.closed_by_server().code == 1011
    log.expect("the handler of /echo failed")


@BOTH_KINDS
def test_what_was_sent_before_the_failure_arrives(
    serve: Serve, clients: Clients, log: ServerLog, echo: Handler
) -> None:
    def plain(ws: WebSocket) -> None:
        ws.send(ws.receive())
        raise RuntimeError

    def generator(ws: WebSocket) -> Waits:
        ws.send((yield))
        raise RuntimeError

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    client.say("first", "second")
    assert client.next_event() == "first"
    assert client.closed_by_server().code == 1011
    log.expect("failed")


def return_plain(ws: WebSocket) -> None:
    ws.send("bye")


def return_generator(ws: WebSocket) -> Waits:
    ws.send("bye")
    return
    yield


def return_later(ws: WebSocket) -> Waits:
    _ = yield
    ws.send("bye")


@pytest.mark.parametrize("handler", [return_plain, return_generator, return_later])
def test_a_handler_that_returns_closes(serve: Serve, clients: Clients, handler: Handler) -> None:
    client = clients.websocket(
        serve(websocket_app(handler)), "/echo", first=masked(Opcode.TEXT, "x")
    )
    assert client.next_event() == "bye"
    assert client.closed_by_server() == Close(1000)


@pytest.mark.parametrize("value", ["text", 0, False])
def test_a_websocket_handler_yields_nothing(
    serve: Serve, clients: Clients, log: ServerLog, value: object
) -> None:
    ended = threading.Event()

    def answer_with_yield(ws: WebSocket) -> Any:
        try:
            yield
            yield value
        finally:
            ended.set()

    client = clients.websocket(serve(websocket_app(answer_with_yield)), "/echo")
    client.say("x")
    assert client.closed_by_server().code == 1011
    record = log.expect("the handler of /echo failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)
    assert "ws.send" in str(record.exc_info[1])
    assert ended.wait(TIMEOUT)


def test_a_generator_that_yields_after_the_end_is_ended(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    ended: Queue[str] = Queue()

    def stay(ws: WebSocket) -> Waits:
        while True:
            try:
                yield
            except ConnectionClosed:
                ended.put("told")
            except GeneratorExit:
                ended.put("ended")
                raise

    client = clients.websocket(serve(websocket_app(stay)), "/echo")
    client.leave()
    assert ended.get(timeout=TIMEOUT) == "told"
    assert ended.get(timeout=TIMEOUT) == "ended"
    log.expect("the handler of /echo yields after the end")


def test_a_plain_function_that_returns_a_generator_is_told_so(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def wrapped(ws: WebSocket) -> object:
        return generator_echo(ws)

    client = clients.websocket(serve(websocket_app(wrapped)), "/echo")
    assert client.closed_by_server().code == 1011
    record = log.expect("the handler of /echo failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)


# The client leaves -------------------------------------------------------------------------------


def leave_with_close(client: WebSocketClient) -> None:
    assert client.leave(4321, "enough") == Close(4321)


LEAVING: list[Any] = [
    pytest.param(leave_with_close, 4321, id="close"),
    pytest.param(lambda client: client.leave(1005), 1005, id="close without code"),
    pytest.param(WebSocketClient.half_close, 1006, id="fin"),
    pytest.param(WebSocketClient.reset, 1006, id="rst"),
]


@pytest.mark.parametrize(("leave", "code"), LEAVING)
def test_the_clients_end_is_raised_at_the_yield(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None], code: int
) -> None:
    seen: Queue[object] = Queue()

    def watch(ws: WebSocket) -> Waits:
        seen.put("begun")
        try:
            while True:
                seen.put((yield))
        except ConnectionClosed as end:
            seen.put((end.code, end.reason if code == 4321 else None))
            seen.put(ws.close_code)
            raise
        finally:
            seen.put("finally")

    server = serve(websocket_app(watch))
    client = clients.websocket(server, "/echo")
    client.say("here")
    assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["begun", "here"]
    leave(client)
    told = [seen.get(timeout=TIMEOUT) for _ in range(3)]
    assert told == [(code, "enough" if code == 4321 else None), code, "finally"]
    stop_within(server, TIMEOUT)
    assert seen.empty()


@pytest.mark.parametrize(("leave", "code"), LEAVING)
def test_the_clients_end_ends_the_iteration(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None], code: int
) -> None:
    seen: Queue[object] = Queue()

    def watch(ws: WebSocket) -> None:
        assert ws.close_code is None
        for message in ws:
            seen.put(message)
        for _ in range(2):
            try:
                ws.receive()
            except ConnectionClosed as end:
                seen.put(end.code)
        assert list(ws) == []
        try:
            ws.send("too late")
        except ConnectionClosed as end:
            seen.put((end.code, ws.close_code))

    client = clients.websocket(serve(websocket_app(watch)), "/echo")
    client.say("here")
    assert seen.get(timeout=TIMEOUT) == "here"
    leave(client)
    assert [seen.get(timeout=TIMEOUT) for _ in range(3)] == [code, code, (code, code)]


@BOTH_KINDS
def test_what_is_sent_at_the_end_is_refused(serve: Serve, clients: Clients, echo: Handler) -> None:
    refused: Queue[ConnectionClosed] = Queue()

    def try_to_send(ws: WebSocket) -> None:
        try:
            ws.send("x")
        except ConnectionClosed as error:
            refused.put(error)

    def plain(ws: WebSocket) -> None:
        for _ in ws:
            pass
        try_to_send(ws)

    def generator(ws: WebSocket) -> Waits:
        try:
            yield
        finally:
            try_to_send(ws)

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    client.leave(4000, "why")
    error = refused.get(timeout=TIMEOUT)
    assert (error.code, error.reason, str(error)) == (4000, "why", "4000 why")


# Receive -----------------------------------------------------------------------------------------


def test_receive_waits_no_longer_than_it_may(serve: Serve, clients: Clients) -> None:
    def poll(ws: WebSocket) -> None:
        for timeout in (0, 0.01):
            try:
                ws.receive(timeout)
            except TimeoutError as error:
                ws.send(str(error))
        ws.send(ws.receive(TIMEOUT))
        ws.send(ws.receive(0))  # it came in the same segment
        ws.send(ws.receive())

    client = clients.websocket(serve(websocket_app(poll)), "/echo")
    assert client.hear(2) == ["no message in 0 seconds", "no message in 0.01 seconds"]
    client.say("one", "two")
    assert client.hear(2) == ["one", "two"]
    client.say("three")
    assert client.next_event() == "three"
    client.closed_by_server()


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_receive_may_wait_longer_than_a_lock_can(
    serve: Serve, clients: Clients, timeout: float
) -> None:
    def echo(ws: WebSocket) -> None:
        ws.send("ready")
        ws.send(ws.receive(timeout))

    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    assert client.next_event() == "ready"
    client.say("one")
    assert client.next_event() == "one"


def test_what_came_while_nobody_waited_is_no_news_later(serve: Serve, clients: Clients) -> None:
    """Neither for a wait that may end without a message, nor for one that may not."""
    first, come = Held(), Held()

    def receive(ws: WebSocket) -> None:
        ws.receive()
        first.wait()
        ws.receive(0)
        try:
            ws.receive(0.01)
        except TimeoutError as error:
            ws.send(str(error))
        come.wait()
        ws.receive(0)
        ws.send(ws.receive())

    server = serve(websocket_app(receive))
    client = clients.websocket(server, "/echo")
    client.say("one")
    first.wait_for()
    client.say("two")
    wait_until(lambda: server.stats().messages_in == 2, "both have come")
    first.release()
    assert client.next_event() == "no message in 0.01 seconds"
    come.wait_for()
    client.say("three")
    wait_until(lambda: server.stats().messages_in == 3, "the third has come")
    come.release()
    client.say("four")
    assert client.next_event() == "four"
    client.closed_by_server()


def test_a_thread_that_does_not_wait_is_not_woken(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a crowd, whoever waits would be woken after it, and it wakes nobody."""
    held, woken = Held(), []
    wake_soon = Loop.wake_soon

    def note(loop: Loop, news: SimpleQueue[None]) -> None:
        woken.append(news)
        wake_soon(loop, news)

    def receive(ws: WebSocket) -> None:
        ws.receive()
        held.wait()
        ws.send(ws.receive())

    monkeypatch.setattr(Loop, "wake_soon", note)
    server = serve(websocket_app(receive))
    client = clients.websocket(server, "/echo")
    client.say("one")
    held.wait_for()
    woken.clear()
    client.say("two")
    wait_until(lambda: server.stats().messages_in == 2, "both have come")
    assert not woken
    held.release()
    assert client.next_event() == "two"
    client.closed_by_server()


def test_a_message_that_came_in_time_is_received_though_nobody_was_woken_in_time(
    serve: Serve, clients: Clients
) -> None:
    class News(Queue[None]):
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            asleep.set()
            assert come.wait(TIMEOUT)
            raise Empty

    asleep, come = threading.Event(), threading.Event()

    def receive(ws: WebSocket) -> None:
        ws._session._news = News()  # type: ignore[attr-defined]
        ws.send(ws.receive(1))

    server = serve(websocket_app(receive))
    client = clients.websocket(server, "/echo")
    assert asleep.wait(TIMEOUT)
    client.say("late")
    wait_until(lambda: server.stats().messages_in == 1, "it has come")
    come.set()
    assert client.next_event() == "late"
    client.closed_by_server()


def test_a_thread_that_was_told_of_what_it_had_seen_is_woken_again(
    serve: Serve, clients: Clients
) -> None:
    """The loop takes down that it waits, and tells it of a message that it has taken before."""

    class News(SimpleQueue[None]):
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            if not told.is_set():
                sessions.get()._waits.clear()
                told.set()
                return
            again.set()
            super().get(timeout=timeout)

    told, again = threading.Event(), threading.Event()
    sessions: Queue[Any] = Queue()

    def receive(ws: WebSocket) -> None:
        sessions.put(ws._session)
        ws._session._news = News()  # type: ignore[attr-defined]
        ws.send(ws.receive())

    client = clients.websocket(serve(websocket_app(receive)), "/echo")
    assert again.wait(TIMEOUT)
    client.say("hello")
    assert client.next_event() == "hello"
    client.closed_by_server()


def test_all_threads_are_woken_though_none_of_them_comes_back(
    serve: Serve, clients: Clients
) -> None:
    together = threading.Barrier(50)

    def meet(ws: WebSocket) -> None:
        for message in ws:
            together.wait(TIMEOUT)
            ws.send(message)

    server = serve(websocket_app(meet))
    visitors = [clients.websocket(server, "/echo") for _ in range(together.parties)]
    for _ in range(3):
        for client in visitors:
            client.say("here")
        for client in visitors:
            assert client.next_event() == "here"


def test_a_thread_that_was_woken_wakes_the_next(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(websocket_app(plain_echo), loops=1)
    (loop,) = server.loops
    wake_next, woken_by = loop.wake_next, set[str]()

    def note() -> None:
        woken_by.add(threading.current_thread().name)
        wake_next()

    monkeypatch.setattr(loop, "wake_next", note)
    client = clients.websocket(server, "/echo")

    def wait_for_a_message() -> bool:  # unless it was there before the handler waited
        client.say("x")
        client.next_event()
        return "wsframe-handler /echo" in woken_by

    wait_until(wait_for_a_message, "the handler's thread was woken")


def test_a_generator_cannot_receive(serve: Serve, clients: Clients) -> None:
    def receive(ws: WebSocket) -> Waits:
        calls: list[Callable[[], object]] = [ws.receive, iter(ws).__next__]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                ws.send(str(error))
        yield

    client = clients.websocket(serve(websocket_app(receive)), "/echo")
    assert client.hear(2) == ["a generator handler receives with yield"] * 2


# Close -------------------------------------------------------------------------------------------


def close_and_wait(ws: WebSocket) -> None:
    ws.send("last")
    ws.close(4000, "ünd Schluß")
    ws.close(4001, "twice does nothing")
    assert ws.close_code == 4000
    assert list(ws) == []


def close_and_return(ws: WebSocket) -> None:
    ws.send("last")
    ws.close(4000, "ünd Schluß")


def close_and_yield(ws: WebSocket) -> Waits:
    ws.send("last")
    ws.close(4000, "ünd Schluß")
    ws.close(4001, "twice does nothing")
    assert ws.close_code == 4000
    yield


def close_and_end(ws: WebSocket) -> Waits:
    ws.send("last")
    ws.close(4000, "ünd Schluß")
    return
    yield


@pytest.mark.parametrize(
    "handler", [close_and_wait, close_and_return, close_and_yield, close_and_end]
)
def test_a_handler_may_close_with_a_code_and_a_reason(
    serve: Serve, clients: Clients, handler: Handler
) -> None:
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    assert client.next_event() == "last"
    assert client.closed_by_server() == Close(4000, "ünd Schluß")


def test_a_handler_that_fails_after_its_close_is_logged_and_its_close_counts(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def fail(ws: WebSocket) -> Waits:
        ws.close(4000)
        raise RuntimeError
        yield

    client = clients.websocket(serve(websocket_app(fail)), "/echo")
    assert client.closed_by_server() == Close(4000)
    log.expect("the handler of /echo failed")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1013, 3000, 4999, 1005])
def test_close_codes_that_may_be_sent(serve: Serve, clients: Clients, code: int) -> None:
    def close(ws: WebSocket) -> None:
        ws.close(code, "" if code == 1005 else "x" * 123)

    client = clients.websocket(serve(websocket_app(close)), "/echo")
    assert client.closed_by_server() == Close(code, "" if code == 1005 else "x" * 123)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "") for code in (0, 999, 1004, 1006, 1015, 2999, 5000, -1, 70000)),
        (1005, "reason"),
        (1000, "x" * 124),
        (1000, "é" * 62),
        (1000, "\ud800"),
    ],
)
def test_close_codes_and_reasons_that_may_not_be_sent(
    serve: Serve, clients: Clients, code: int, reason: str
) -> None:
    def close(ws: WebSocket) -> Waits:
        try:
            ws.close(code, reason)
        except ValueError:
            ws.send(f"refused, {ws.close_code}")
        yield from generator_echo(ws)

    client = clients.websocket(serve(websocket_app(close)), "/echo")
    assert client.next_event() == "refused, None"
    client.say("still open")
    assert client.next_event() == "still open"


@BOTH_KINDS
def test_another_thread_may_send_and_close(serve: Serve, clients: Clients, echo: Handler) -> None:
    opened: Queue[WebSocket] = Queue()
    ended: Queue[int] = Queue()

    def plain(ws: WebSocket) -> None:
        opened.put(ws)
        try:
            while True:
                ws.send(ws.receive())
        except ConnectionClosed as end:
            ended.put(end.code)

    def generator(ws: WebSocket) -> Waits:
        opened.put(ws)
        try:
            yield from generator_echo(ws)
        except ConnectionClosed as end:
            ended.put(end.code)

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    ws = opened.get(timeout=TIMEOUT)
    ws.send("pushed")
    ws.ping(b"too")
    assert client.hear(2) == ["pushed", Ping(b"too")]
    client.say("echoed")
    assert client.next_event() == "echoed"
    ws.send("last")
    ws.close(4000)
    ws.close(4001)
    with pytest.raises(ConnectionClosed, match="4000"):
        ws.send("too late")
    with pytest.raises(ConnectionClosed, match="4000"):
        ws.ping()
    assert client.next_event() == "last"
    assert client.closed_by_server() == Close(4000)
    assert ended.get(timeout=TIMEOUT) == 4000
    assert ws.close_code == 4000


@BOTH_KINDS
@pytest.mark.parametrize(
    ("bad", "close"),
    [
        (masked(Opcode.CLOSE, b"\x0f\xa0"), Close(4000)),
        (masked(Opcode.TEXT, b"\xff"), Close(1007, "a text message is not valid UTF-8")),
        (b"\x83\x80\0\0\0\0", Close(1002, "opcode 3 is reserved")),
        (b"\x81\x01x", Close(1002, "a client's frame must be masked")),
    ],
    ids=["close", "utf-8", "opcode", "mask"],
)
def test_messages_before_the_end_in_one_segment_are_answered_first(
    serve: Serve, clients: Clients, echo: Handler, bad: bytes, close: Close
) -> None:
    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    good = [masked(Opcode.TEXT, str(number)) for number in range(50)]
    client.send(b"".join(good) + bad + masked(Opcode.TEXT, "ignored"))
    assert client.hear(50) == [str(number) for number in range(50)]
    assert client.next_event() == close
    client.expect_end()


def test_after_a_close_request_no_message_is_delivered(serve: Serve, clients: Clients) -> None:
    seen: Queue[str | bytes] = Queue()

    def close_at_once(ws: WebSocket) -> Waits:
        while True:
            message = yield
            seen.put(message)
            ws.close()

    server = serve(websocket_app(close_at_once))
    client = clients.websocket(server, "/echo")
    client.say("one", "two")
    assert client.next_event() == Close(1000)
    client.send(masked(Opcode.TEXT, "three") + client.codec.close())
    client.expect_end()
    stop_within(server, TIMEOUT)
    assert seen.get_nowait() == "one"
    assert seen.empty()


# Threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 5_000])
@BOTH_KINDS
def test_frames_of_many_threads_never_mix_and_keep_each_threads_order(
    serve: Serve, clients: Clients, echo: Handler, size: int
) -> None:
    senders, count = 6, 300

    def push(ws: WebSocket, name: int) -> None:
        for number in range(count):
            ws.send(bytes([name]) * (size + number) + number.to_bytes(2, "big"))

    def begin(ws: WebSocket) -> list[threading.Thread]:
        threads = [threading.Thread(target=push, args=(ws, name)) for name in range(senders)]
        for thread in threads:
            thread.start()
        return threads

    def plain(ws: WebSocket) -> None:
        for thread in begin(ws):
            thread.join()
        plain_echo(ws)

    def generator(ws: WebSocket) -> Waits:
        begin(ws)
        yield from generator_echo(ws)

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    client.say("in between")
    numbers = dict.fromkeys(range(senders), 0)
    for message in client.hear(senders * count + 1):
        if message == "in between":
            continue
        assert isinstance(message, bytes)
        name, number = message[0], int.from_bytes(message[-2:], "big")
        assert message == bytes([name]) * (size + number) + number.to_bytes(2, "big")
        assert numbers[name] == number
        numbers[name] += 1
    assert set(numbers.values()) == {count}
    client.leave()


def test_nothing_follows_the_close_frame_however_many_threads_send(
    serve: Serve, clients: Clients
) -> None:
    threads: list[threading.Thread] = []

    def push(ws: WebSocket) -> None:
        while True:
            try:
                ws.send("x")
            except ConnectionClosed:
                return

    def pushed(ws: WebSocket) -> Waits:
        for _ in range(2):
            threads.append(threading.Thread(target=push, args=(ws,)))
            threads[-1].start()
        yield
        ws.close()
        yield

    server = serve(websocket_app(pushed))
    for _ in range(30):
        client = clients.websocket(server, "/echo", first=masked(Opcode.TEXT, "close"))
        stream = client.receive()
        while data := client.sock.recv(1 << 16):
            stream += data
            if b"\x88\x02\x03\xe8" in stream:
                break
        # All are b"\x81\x01x" but the last.
        end = stream.index(b"\x88")
        assert stream[:end] == b"\x81\x01x" * (end // 3)
        client.send(client.codec.close())
        assert stream[end:] + client.read_to_end() == b"\x88\x02\x03\xe8"
        client.close()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_a_connection_that_waits_holds_no_thread(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    before = threading.active_count()
    idle = [clients.websocket(server, "/echo") for _ in range(200)]
    for client in idle:
        client.say("one")
    for client in idle:
        assert client.next_event() == "one"
    assert threading.active_count() == before
    for client in idle[::2]:
        client.leave()
    for client in idle[1::2]:
        client.say("two")
        assert client.next_event() == "two"
    assert threading.active_count() == before


# Back-pressure -----------------------------------------------------------------------------------

# What the kernel's own buffers, at most, hold of a connection; all else would be our memory.
KERNEL = 16 * MIB


def test_a_thread_does_not_wait_for_what_has_gone_out(serve: Serve, clients: Clients) -> None:
    """Each message is over the mark above which a sender waits, and mostly sent before it does."""
    size, count = 300_000, 2000

    def push(ws: WebSocket) -> None:
        for number in range(count):
            ws.send(number.to_bytes(4, "big") + bytes(size))

    client = clients.websocket(serve(websocket_app(push)), "/echo")
    for number in range(count):
        message = client.next_event()
        assert isinstance(message, bytes)
        assert message[:4] == number.to_bytes(4, "big")
        assert len(message) == 4 + size
    assert client.closed_by_server() == Close(1000)


def test_a_thread_waits_while_its_client_does_not_read(serve: Serve, clients: Clients) -> None:
    sent = 0
    count = 4 * KERNEL >> 14
    done = threading.Event()

    def push(ws: WebSocket) -> None:
        nonlocal sent
        for number in range(count):
            ws.send(numbered(number))
            sent += 1
        done.set()

    server = serve(websocket_app(push))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    until_it_stands_still(lambda: sent)
    assert not done.is_set()
    assert 0 < sent < KERNEL >> 14
    assert queued(server) <= 2 * HIGH_WATER
    for number in range(count):
        assert client.next_event() == numbered(number)
    assert done.wait(TIMEOUT)
    assert client.closed_by_server() == Close(1000)


def leave_in_order(client: WebSocketClient) -> None:
    client.close()


@pytest.mark.parametrize("leave", [WebSocketClient.reset, leave_in_order])
def test_a_thread_that_waits_to_send_learns_that_the_client_has_gone(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None]
) -> None:
    ended: Queue[ConnectionClosed] = Queue()
    sent = 0

    def push(ws: WebSocket) -> None:
        nonlocal sent
        try:
            while True:
                ws.send(bytes(1 << 16))
                sent += 1
        except ConnectionClosed as end:
            ended.put(end)

    client = clients.websocket(serve(websocket_app(push)), "/echo", receive_buffer=1 << 16)
    until_it_stands_still(lambda: sent)
    leave(client)
    assert ended.get(timeout=TIMEOUT).code == 1006


def queued(server: Server) -> int:
    """The bytes that wait in our own memory for the one client."""
    (peer,) = server.clients[0].peers
    return len(peer._unsent) + sum(map(len, peer.out))


@pytest.mark.parametrize("code", [4000, None])
def test_a_thread_that_waits_to_send_learns_that_the_connection_was_closed(
    serve: Serve, clients: Clients, code: int | None
) -> None:
    """By ws.close, or by the server's stop; and long before the client reads or is cut off."""
    ended: Queue[ConnectionClosed] = Queue()
    opened: Queue[WebSocket] = Queue()
    sent = 0

    def push(ws: WebSocket) -> None:
        nonlocal sent
        opened.put(ws)
        try:
            while True:
                ws.send(bytes(1 << 16))
                sent += 1
        except ConnectionClosed as end:
            ended.put(end)

    server = serve(websocket_app(push), drain=60)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    until_it_stands_still(lambda: sent)
    stopping = threading.Thread(target=server.stop)
    if code is None:
        stopping.start()
    else:
        opened.get(timeout=TIMEOUT).close(code)
    assert ended.get(timeout=2).code == (code or 1001)
    # What was sent before arrives, and then the close frame.
    events = client.hear(sent)
    assert set(events) == {bytes(1 << 16)}
    while (event := client.next_event()) == bytes(1 << 16):
        pass
    assert isinstance(event, Close)
    assert event.code == (code or 1001)
    client.close()
    if code is None:
        stopping.join(TIMEOUT)


def flood(client: WebSocketClient) -> tuple[int, bytes]:
    """Send numbered messages until nothing is taken any more.

    Returns:
        How many were begun, and what is left of the last.
    """
    client.sock.setblocking(False)
    number, rest = 0, b""
    while select([], [client.sock], [], 1.0)[1]:
        if not rest:
            rest = client.codec.encode(numbered(number))
            number += 1
            assert number << 14 < 2 * KERNEL, "the server reads without bound"
        try:
            rest = rest[client.sock.send(rest) :]
        except BlockingIOError:
            continue
    client.sock.settimeout(TIMEOUT)
    return number, rest


def test_a_client_that_floods_a_handler_is_not_read_and_loses_nothing(
    serve: Serve, clients: Clients
) -> None:
    held = Held()
    received: list[str | bytes] = []

    def hold(ws: WebSocket) -> None:
        held.wait()
        for message in ws:
            if message == "end":
                ws.send(str(len(received)))
            else:
                received.append(message)

    client = clients.websocket(serve(websocket_app(hold)), "/echo")
    client.say("first")
    held.wait_for()
    count, rest = flood(client)
    held.release()
    client.send(rest)
    client.say("end")
    assert client.next_event() == str(count + 1)
    assert received == ["first", *map(numbered, range(count))]
    assert client.leave() == Close(1000)


def test_a_client_that_left_behind_a_flood_is_still_heard_to_the_end(
    serve: Serve, clients: Clients
) -> None:
    held = Held()
    received: Queue[object] = Queue()

    def hold(ws: WebSocket) -> None:
        held.wait()
        for message in ws:
            received.put(message)
        received.put(ws.close_code)

    client = clients.websocket(serve(websocket_app(hold)), "/echo")
    count, rest = flood(client)
    sending = threading.Thread(target=client.send, args=(rest + client.codec.close(4000),))
    sending.start()
    held.release()
    sending.join(TIMEOUT)
    assert [received.get(timeout=TIMEOUT) for _ in range(count)] == [*map(numbered, range(count))]
    assert received.get(timeout=TIMEOUT) == 4000
    assert client.next_event() == Close(4000)
    client.expect_end()


def test_the_answer_to_a_close_is_found_behind_a_flood(serve: Serve, clients: Clients) -> None:
    held = Held()
    opened: Queue[WebSocket] = Queue()

    def hold(ws: WebSocket) -> None:
        opened.put(ws)
        held.wait()

    server = serve(websocket_app(hold))
    client = clients.websocket(server, "/echo")
    _, rest = flood(client)
    opened.get(timeout=TIMEOUT).close(4000)
    begin = time.monotonic()
    assert client.next_event() == Close(4000)
    client.send(rest + client.codec.close(4000))
    client.expect_end()
    assert time.monotonic() - begin < server.settings.close_timeout / 2
    held.release()


@BOTH_KINDS
def test_a_client_that_reads_nothing_of_its_echo_is_not_read_and_loses_nothing(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    server = serve(websocket_app(echo))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    count, rest = flood(client)
    assert queued(server) <= 3 * HIGH_WATER
    finishing = threading.Thread(target=client.send, args=(rest,))
    finishing.start()
    for number in range(count):
        assert client.next_event() == numbered(number)
    finishing.join(TIMEOUT)
    client.say("end")
    assert client.next_event() == "end"
    client.leave()


def test_one_clients_flood_does_not_hold_up_another(serve: Serve, clients: Clients) -> None:
    held = Held()

    def hold(ws: WebSocket) -> None:
        held.wait()

    app = websocket_app(generator_echo)
    app.websocket("/hold")(hold)
    server = serve(app)
    flooding = clients.websocket(server, "/hold")
    flood(flooding)
    client = clients.websocket(server, "/echo")
    client.say("through")
    assert client.next_event() == "through"
    held.release()


def test_a_visitor_that_does_not_read_is_cut_off_for_the_others(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    visitors: set[WebSocket] = set()
    ends: Queue[int] = Queue()

    def chat(ws: WebSocket) -> Waits:
        visitors.add(ws)
        try:
            while True:
                message = yield
                for visitor in tuple(visitors):
                    visitor.send(message)
        except ConnectionClosed as end:
            ends.put(end.code)
        finally:
            visitors.remove(ws)

    server = serve(websocket_app(chat))
    slow = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    wait_until(lambda: len(visitors) == 1, "the slow visitor is there")
    client = clients.websocket(server, "/echo")
    for number in range(KERNEL >> 14):
        client.say(numbered(number))
        assert client.next_event() == numbered(number)
        if not ends.empty():
            break
    assert ends.get(timeout=TIMEOUT) == 1006
    log.expect("too slow", level=30)
    client.say("still here")
    assert client.next_event() == "still here"
    with pytest.raises((ConnectionResetError, EOFError)):
        slow.hear(2 * KERNEL >> 14)


def test_a_client_that_does_not_answer_the_close_frame_is_cut_off(
    serve: Serve, clients: Clients
) -> None:
    def leave(ws: WebSocket) -> None:
        ws.close()

    server = serve(websocket_app(leave), close_timeout=0.2)
    client = clients.websocket(server, "/echo")
    assert client.next_event() == Close(1000)
    assert client.sock.recv(1) == b""
    wait_until(lambda: not server.clients[0].peers, "the connection is over")


def test_a_handler_that_takes_too_long_does_not_keep_the_clients_close_waiting(
    serve: Serve, clients: Clients
) -> None:
    held = Held()
    ended: Queue[int] = Queue()

    def hold(ws: WebSocket) -> None:
        held.wait()
        try:
            ws.send("too late")
        except ConnectionClosed as end:
            ended.put(end.code)

    client = clients.websocket(serve(websocket_app(hold), close_timeout=0.2), "/echo")
    assert client.leave(4000) == Close(4000)
    held.release()
    assert ended.get(timeout=TIMEOUT) == 4000


@BOTH_KINDS
def test_a_client_that_closes_and_leaves_at_once_has_closed(
    serve: Serve, clients: Clients, echo: Handler
) -> None:
    held = Held()
    ended: Queue[int] = Queue()

    def plain(ws: WebSocket) -> None:
        held.wait()
        assert list(ws) == ["last words"]
        ended.put(ws.close_code or 0)

    def generator(ws: WebSocket) -> Waits:
        try:
            assert (yield) == "last words"
            yield
        except ConnectionClosed as end:
            ended.put(end.code)

    server = serve(websocket_app(plain if echo is plain_echo else generator))
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, "last words") + masked(Opcode.CLOSE, b"\x0f\xa0"))
    client.close()
    wait_until(lambda: not server.clients[0].peers, "the server knows that the client has left")
    held.release()
    assert ended.get(timeout=TIMEOUT) == 4000


def test_a_client_that_half_closes_still_gets_what_was_sent(serve: Serve, clients: Clients) -> None:
    client = clients.websocket(serve(websocket_app(generator_echo)), "/echo")
    client.say(bytes(MIB), bytes(MIB))
    client.half_close()
    assert client.hear(2) == [bytes(MIB), bytes(MIB)]
    client.expect_end()


def test_sockets_send_at_once(serve: Serve, clients: Clients) -> None:
    """With Nagle's algorithm a second small message would wait for the first's acknowledgement."""
    server = serve(websocket_app(generator_echo))
    clients.websocket(server, "/echo")
    peers = tuple(server.clients[0].peers)
    assert len(peers) == 1
    assert isinstance(peers[0]._sock, socket.socket)
    assert peers[0]._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_app_may_have_many_kinds_of_handlers(serve: Serve, clients: Clients) -> None:
    app = App()
    app.websocket("/plain")(plain_echo)
    app.websocket("/generator")(generator_echo)
    server = serve(app)
    both = [clients.websocket(server, path) for path in ("/plain", "/generator")]
    for number in range(20):
        for client in both:
            client.say(str(number))
    for client in both:
        assert client.hear(20) == list(map(str, range(20)))


@BOTH_KINDS
def test_a_client_that_reads_nothing_is_cut_off_in_time(
    serve: Serve, clients: Clients, log: ServerLog, echo: Handler
) -> None:
    ended: Queue[int] = Queue()

    def plain(ws: WebSocket) -> None:
        try:
            while True:
                ws.send(bytes(1 << 16))
        except ConnectionClosed as end:
            ended.put(end.code)

    def generator(ws: WebSocket) -> Waits:
        ws.send(bytes(1 << 24))
        try:
            yield from generator_echo(ws)
        except ConnectionClosed as end:
            ended.put(end.code)

    app = websocket_app(plain if echo is plain_echo else generator, "/push")
    app.websocket("/echo")(echo)
    server = serve(app, send_timeout=0.2)
    clients.websocket(server, "/push", receive_buffer=1 << 16)
    other = clients.websocket(server, "/echo")
    assert ended.get(timeout=TIMEOUT) == 1006
    log.expect("for 0.2 s (send_timeout) and is cut off", logging.WARNING)
    other.say("still here")
    assert other.next_event() == "still here"

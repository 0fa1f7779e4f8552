"""WebSocket handlers that fail or return, and clients that leave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.server.sessions.websocket import Handler, assert_traceback
from tests.support.clients import Clients, WebSocketClient, masked
from tests.support.handlers import (
    BOTH_KINDS,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT
from wsframe import Close, Pong
from wsframe.frames import Opcode
from wsframe.server import ConnectionClosed, WebSocket


def plain_failure(ws: WebSocket) -> None:
    for message in ws:
        raise ERRORS[str(message)]


def generator_failure(ws: WebSocket) -> MessageGenerator:
    message = yield
    raise ERRORS[str(message)]


def immediate_failure(ws: WebSocket) -> MessageGenerator:
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
def test_an_error_of_a_handler_ends_only_its_connection(
    serve: Serve, clients: Clients, log: ServerLog, handler: Handler, error: str
) -> None:
    app = websocket_app(generator_echo)
    app.websocket("/fail")(handler)
    server = serve(app)
    others = [clients.websocket(server, "/echo"), clients.websocket(server, "/fail")]
    client = clients.websocket(server, "/fail")
    client.send_messages(error)
    assert client.expect_close() == Close(1011, "the handler failed")
    record = log.expect("the handler of /fail failed")
    assert_traceback(record, type(ERRORS[error]), handler.__name__)
    others[0].send_messages("still here")
    assert others[0].next_event() == "still here"
    others[1].send(others[1].codec.ping(b"still here"))
    assert others[1].next_event() == Pong(b"still here")


def test_a_generator_may_raise_before_its_first_message(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    client = clients.websocket(serve(websocket_app(immediate_failure)), "/echo")
    assert client.expect_close().code == 1011
    log.expect("the handler of /echo failed")


@BOTH_KINDS
def test_messages_sent_before_an_error_arrive(
    serve: Serve, clients: Clients, log: ServerLog, echo: Handler
) -> None:
    def plain(ws: WebSocket) -> None:
        ws.send(ws.receive())
        raise RuntimeError

    def generator(ws: WebSocket) -> MessageGenerator:
        ws.send((yield))
        raise RuntimeError

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    client.send_messages("first", "second")
    assert client.next_event() == "first"
    assert client.expect_close().code == 1011
    log.expect("failed")


def return_plain(ws: WebSocket) -> None:
    ws.send("bye")


def return_generator(ws: WebSocket) -> MessageGenerator:
    ws.send("bye")
    return
    yield


def return_later(ws: WebSocket) -> MessageGenerator:
    _ = yield
    ws.send("bye")


@pytest.mark.parametrize("handler", [return_plain, return_generator, return_later])
def test_a_handler_that_returns_closes(serve: Serve, clients: Clients, handler: Handler) -> None:
    client = clients.websocket(
        serve(websocket_app(handler)), "/echo", first=masked(Opcode.TEXT, "x")
    )
    assert client.next_event() == "bye"
    assert client.expect_close() == Close(1000)


@pytest.mark.parametrize("value", ["text", 0, False])
def test_a_websocket_handler_must_yield_nothing(
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
    client.send_messages("x")
    assert client.expect_close().code == 1011
    record = log.expect("the handler of /echo failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)
    assert "ws.send" in str(record.exc_info[1])
    assert ended.wait(TIMEOUT)


def test_a_generator_that_yields_after_the_end_is_ended(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    ended: Queue[str] = Queue()

    def stay(ws: WebSocket) -> MessageGenerator:
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
    log.expect("the handler of /echo must return after ConnectionClosed, but has yielded again")


def test_a_generator_that_ignores_its_end_is_logged(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def stay(ws: WebSocket) -> Any:
        try:
            yield "a value"
        except GeneratorExit:
            yield

    client = clients.websocket(serve(websocket_app(stay)), "/echo")
    assert client.expect_close().code == 1011
    log.expect("the handler of /echo failed")
    record = log.expect("the handler of /echo did not end when its generator was closed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_a_value_that_is_yielded_for_one_of_several_messages_is_an_error(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def answer(ws: WebSocket) -> Any:
        message = yield
        while True:
            ws.send(message)
            message = yield (message if message == "two" else None)

    client = clients.websocket(serve(websocket_app(answer)), "/echo")
    client.send_messages("one", "two", "three")
    assert [client.next_event(), client.next_event()] == ["one", "two"]
    assert client.expect_close() == Close(1011, "the handler failed")
    record = log.expect("the handler of /echo failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)


def test_a_plain_function_must_not_return_a_generator(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def wrapped(ws: WebSocket) -> object:
        return generator_echo(ws)

    client = clients.websocket(serve(websocket_app(wrapped)), "/echo")
    assert client.expect_close().code == 1011
    record = log.expect("the handler of /echo failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)


def leave_with_close(client: WebSocketClient) -> None:
    assert client.leave(4321, "enough") == Close(4321)


LEAVING: list[Any] = [
    pytest.param(leave_with_close, 4321, id="close"),
    pytest.param(lambda client: client.leave(1005), 1005, id="close without code"),
    pytest.param(WebSocketClient.half_close, 1006, id="fin"),
    pytest.param(WebSocketClient.reset, 1006, id="rst"),
]


@pytest.mark.parametrize(("leave", "code"), LEAVING)
def test_the_close_of_the_client_is_raised_at_the_yield(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None], code: int
) -> None:
    seen: Queue[object] = Queue()

    def watch(ws: WebSocket) -> MessageGenerator:
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
    client.send_messages("here")
    assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["begun", "here"]
    leave(client)
    told = [seen.get(timeout=TIMEOUT) for _ in range(3)]
    assert told == [(code, "enough" if code == 4321 else None), code, "finally"]
    stop_within(server, TIMEOUT)
    assert seen.empty()


@pytest.mark.parametrize(("leave", "code"), LEAVING)
def test_the_close_of_the_client_ends_the_iteration(
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
    client.send_messages("here")
    assert seen.get(timeout=TIMEOUT) == "here"
    leave(client)
    assert [seen.get(timeout=TIMEOUT) for _ in range(3)] == [code, code, (code, code)]


@BOTH_KINDS
def test_sending_after_the_end_raises(serve: Serve, clients: Clients, echo: Handler) -> None:
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

    def generator(ws: WebSocket) -> MessageGenerator:
        try:
            yield
        finally:
            try_to_send(ws)

    handler = plain if echo is plain_echo else generator
    client = clients.websocket(serve(websocket_app(handler)), "/echo")
    client.leave(4000, "why")
    error = refused.get(timeout=TIMEOUT)
    assert (error.code, error.reason, str(error)) == (4000, "why", "4000 why")

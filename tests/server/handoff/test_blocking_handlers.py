"""Handlers that block, on real connections: other connections are served meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from queue import Queue

import pytest

from tests.server.handoff.blocking import KERNEL, Blocking, sessions
from tests.support.clients import Clients, WebSocketClient, get
from tests.support.handlers import Checkpoint, MessageGenerator, generator_echo, websocket_app
from tests.support.inspection import wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close, ConnectionClosed, Pong
from wsframe.server import WebSocket
from wsframe.server.handoff.loop import RECEIVE_BUFFER
from wsframe.server.handoff.task import BUSY
from wsframe.server.sessions.closing import ClosingState
from wsframe.server.sessions.websocket_session import INBOX_SIZE

# A handler with unknown behavior, and one declared as fast, which always starts on the loop.
LEARNED_OR_DECLARED = pytest.mark.parametrize(
    "blocking", [None, False], ids=["learned", "declared"]
)


def test_eight_handlers_block_and_twenty_others_are_served(serve: Serve, clients: Clients) -> None:
    blocking = Blocking()
    server = serve(blocking.app())
    blocked = [clients.websocket(server, "/block") for _ in range(8)]
    echoing = [clients.websocket(server, "/echo") for _ in range(20)]
    held = [blocking.block(server, client) for client in blocked]
    for number in range(20):
        for client in echoing:
            client.send_messages(str(number), "again")
        for client in echoing:
            assert client.expect(2) == [str(number), "again"]
    for one in reversed(held):
        one.release()
    for client in blocked:
        client.send_messages("next")
        assert client.expect(2) == ["block", "next"]


def test_a_server_whose_every_handler_blocks_still_accepts_and_answers(
    serve: Serve, clients: Clients
) -> None:
    blocking = Blocking()
    server = serve(blocking.app(), max_threads=2)
    held = []
    for _ in range(2):
        held.append(blocking.block(server, clients.websocket(server, "/block")))
    for _ in range(3):
        # New connections, whose first turn has not started.
        clients.websocket(server, "/block")
        client = clients.connect(server)
        client.send(get("/"))
        assert client.answer().body == b"page"
    for one in held:
        one.release()


def test_more_handlers_can_block_than_there_are_threads(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    """Beyond the limit a spare thread takes the loop over; suspected handlers wait."""
    blocking = Blocking()
    server = serve(blocking.app(), max_threads=2)
    blocked = [clients.websocket(server, "/block") for _ in range(6)]
    held = [Checkpoint() for _ in blocked]
    blocking.held.extend(held)
    for client in blocked:
        client.send_messages("block")
    # Three lose the loop; then the route is suspected, and the others get no thread.
    for one in held[:3]:
        one.wait_until_reached()
    wait_until(lambda: server.stats().handlers_waiting == 3, "three wait")
    assert server.stats().handlers_in_threads == 3
    echoing = clients.websocket(server, "/echo")
    echoing.send_messages("x")
    assert echoing.next_event() == "x"
    for one in held:
        one.release()
    for client in blocked:
        assert client.next_event() == "block"
        client.leave()
    log.expect("waits for a thread", logging.WARNING)


@LEARNED_OR_DECLARED
def test_messages_that_arrive_while_it_blocks_are_handled_in_order_and_once(
    serve: Serve, clients: Clients, blocking: bool | None
) -> None:
    handler = Blocking()
    server = serve(handler.app(blocking=blocking))
    client = clients.websocket(server, "/block")
    held = handler.block(server, client)
    numbers = list(map(str, range(1000)))
    for begin, end in ((0, 1), (1, 10), (10, 100), (100, 1000)):
        client.send_messages(*numbers[begin:end])
    held.release()
    assert client.expect(1001) == ["block", *numbers]
    client.leave()
    assert handler.next_seen(1003) == ["block", *numbers, 1000, "finally"]
    assert handler.seen.empty()


def test_pings_are_answered_while_it_blocks(serve: Serve, clients: Clients) -> None:
    handler = Blocking()
    server = serve(handler.app())
    client = clients.websocket(server, "/block")
    held = handler.block(server, client)
    client.send_messages("waits")
    for number in range(3):
        client.send(client.codec.ping(b"%d" % number))
        assert client.next_event() == Pong(b"%d" % number)
    held.release()
    assert client.expect(2) == ["block", "waits"]


def test_messages_sent_before_and_while_it_blocks_are_transmitted(
    serve: Serve, clients: Clients
) -> None:
    first, second = Checkpoint(), Checkpoint()

    def talk(ws: WebSocket) -> MessageGenerator:
        ws.send("before")
        first.wait()
        ws.send("while")
        ws.send("it blocks")
        second.wait()
        ws.send("after")
        yield

    client = clients.websocket(serve(websocket_app(talk)), "/echo")
    assert client.next_event() == "before"
    first.release()
    assert client.expect(2) == ["while", "it blocks"]
    second.release()
    assert client.next_event() == "after"


@LEARNED_OR_DECLARED
def test_messages_that_wait_for_a_blocked_handler_are_limited_and_none_is_lost(
    serve: Serve, clients: Clients, blocking: bool | None
) -> None:
    handler = Blocking()
    server = serve(handler.app(blocking=blocking))
    client = clients.websocket(server, "/block", receive_buffer=1 << 16)
    held = handler.block(server, client)
    (session,) = sessions(server)
    messages = [number.to_bytes(4, "big") * (1 << 14) for number in range(2 * KERNEL >> 16)]
    sending = threading.Thread(target=client.send_messages, args=messages)
    client.sock.settimeout(None)
    sending.start()
    wait_until(lambda: not session.peer.reading, "it is read no more")
    assert session.work is not None
    assert INBOX_SIZE <= sum(map(len, session.work)) < INBOX_SIZE + RECEIVE_BUFFER + (1 << 16)
    held.release()
    assert client.next_event() == "block"
    for message in messages:
        assert client.next_event() == message[:8]
    sending.join(TIMEOUT)
    client.sock.settimeout(TIMEOUT)
    client.send_messages("resumed")
    assert client.next_event() == "resumed"
    assert handler.next_seen(len(messages) + 2) == ["block", *messages, "resumed"]
    assert client.leave() == Close(1000)


def close(client: WebSocketClient) -> None:
    client.send(client.codec.close(4321))


LEAVING = pytest.mark.parametrize(
    ("leave", "code"),
    [
        pytest.param(WebSocketClient.half_close, 1006, id="fin"),
        pytest.param(WebSocketClient.reset, 1006, id="rst"),
        pytest.param(close, 4321, id="close"),
    ],
)


@LEARNED_OR_DECLARED
@LEAVING
def test_messages_of_a_client_that_disconnected_are_handled(
    serve: Serve,
    clients: Clients,
    leave: Callable[[WebSocketClient], None],
    code: int,
    blocking: bool | None,
) -> None:
    seen: Queue[object] = Queue()
    held = Checkpoint()

    def handler(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                seen.put((yield))
                if not held.reached.is_set():
                    held.wait()
        except ConnectionClosed as end:
            seen.put(end.code)
            raise
        finally:
            seen.put("finally")

    server = serve(websocket_app(handler, blocking=blocking))
    client = clients.websocket(server, "/echo")
    client.send_messages("block")
    held.wait_until_reached()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.send_messages("one")
    client.send_messages("two")
    wait_until(lambda: session.work == ["one", "two"], "they are read")
    leave(client)
    wait_until(lambda: session.closing > ClosingState.OPEN, "it is known that the client has left")
    assert [seen.get(timeout=TIMEOUT)] == ["block"]
    assert seen.empty()
    held.release()
    assert [seen.get(timeout=TIMEOUT) for _ in range(4)] == ["one", "two", code, "finally"]
    client.close()
    stop_within(server, TIMEOUT)
    assert seen.empty()


@pytest.mark.parametrize("leave", [WebSocketClient.half_close, WebSocketClient.reset])
def test_a_send_of_a_blocked_handler_fails_after_the_client_disconnected(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None]
) -> None:
    handler = Blocking()
    server = serve(handler.app())
    client = clients.websocket(server, "/block")
    held = handler.block(server, client)
    leave(client)
    wait_for_disconnects(server)
    held.release()
    assert handler.next_seen(3) == ["block", 1006, "finally"]
    stop_within(server, TIMEOUT)
    assert handler.seen.empty()


@LEARNED_OR_DECLARED
@pytest.mark.parametrize("more", [(), ("in the same read",)], ids=["", "more"])
def test_a_handler_that_closes_its_connection_receives_no_more_messages(
    serve: Serve, clients: Clients, blocking: bool | None, more: tuple[str, ...]
) -> None:
    seen: Queue[object] = Queue()
    held = [Checkpoint(), Checkpoint()]

    def handler(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                seen.put((yield))
                held[0].wait()
                ws.send("last")
                ws.close(4000)
                held[1].wait()
        except ConnectionClosed as end:
            seen.put(end.code)
            raise
        finally:
            seen.put("finally")

    server = serve(websocket_app(handler, blocking=blocking))
    client = clients.websocket(server, "/echo")
    client.send_messages("block", *more)
    held[0].wait_until_reached()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.send_messages("meanwhile")
    wait_until(lambda: session.work, "it is read")
    held[0].release()
    assert client.expect(2) == ["last", Close(4000)]  # while it still blocks
    client.send(client.codec.close(4000))
    client.expect_end()
    held[1].release()
    assert [seen.get(timeout=TIMEOUT) for _ in range(3)] == ["block", 4000, "finally"]
    stop_within(server, TIMEOUT)
    assert seen.empty()


@pytest.mark.parametrize("other", ["waits", "blocks"])
def test_a_blocked_handler_can_close_another_connection(
    serve: Serve, clients: Clients, other: str
) -> None:
    handler = Blocking()
    held = Checkpoint()

    def closing(ws: WebSocket) -> MessageGenerator:
        yield
        held.wait()
        handler.sockets.get(timeout=TIMEOUT).close(4001)
        ws.send("closed")
        yield

    app = handler.app()
    app.websocket("/close")(closing)
    server = serve(app)
    client, others_client = clients.websocket(server, "/close"), clients.websocket(server, "/block")
    client.send_messages("block")
    held.wait_until_reached()
    others = handler.block(server, others_client) if other == "blocks" else None
    held.release()
    assert client.next_event() == "closed"
    assert others_client.expect_close() == Close(4001)
    if others is not None:
        assert handler.next_seen(1) == ["block"]
        assert handler.seen.empty()
        others.release()
    assert handler.next_seen(2) == [4001, "finally"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
@pytest.mark.parametrize("where", ["loop", "thread"])
def test_an_exception_of_a_handler_ends_only_its_connection(
    serve: Serve, clients: Clients, log: ServerLog, where: str, error: type[BaseException]
) -> None:
    held = Checkpoint()

    def fail(ws: WebSocket) -> MessageGenerator:
        yield
        if where == "thread":
            held.wait()
        raise error

    app = websocket_app(generator_echo)
    app.websocket("/fail")(fail)
    server = serve(app)
    other, another = clients.websocket(server, "/echo"), clients.websocket(server, "/fail")
    client = clients.websocket(server, "/fail")
    client.send_messages("x")
    if where == "thread":
        held.wait_until_reached()
        wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
        held.release()
    assert client.expect_close() == Close(1011, "the handler failed")
    record = log.expect("the handler of /fail failed")
    assert record.exc_info is not None
    assert record.exc_info[0] is error
    other.send_messages("x")
    assert other.next_event() == "x"
    another.send(another.codec.ping())
    assert another.next_event() == Pong()


@pytest.mark.parametrize("blocking", [None, True])
def test_context_variables_stay_with_their_connection(
    serve: Serve, clients: Clients, blocking: bool | None
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    threads: dict[str, list[int]] = {"one": [], "two": []}

    def handler(ws: WebSocket, name: str) -> MessageGenerator:
        ws.send(variable.get())
        variable.set(name)
        while True:
            message = yield
            threads[name].append(threading.get_ident())
            if message == "block":
                held.wait()
            ws.send(variable.get())

    held = Checkpoint()
    server = serve(websocket_app(handler, "/{name}", blocking=blocking))
    pair = [(name, clients.websocket(server, f"/{name}")) for name in threads]
    for name, client in pair * 3:
        if not threads[name]:
            assert client.next_event() == "unset"
        client.send_messages("x")
        assert client.next_event() == name
    pair[0][1].send_messages("block")
    held.wait_until_reached()
    # On another thread than before, independent of the present owner of the loop.
    for _ in range(3):
        pair[1][1].send_messages("x")
        assert pair[1][1].next_event() == "two"
    held.release()
    assert pair[0][1].next_event() == "one"
    for name, client in pair * 3:
        client.send_messages("x")
        assert client.next_event() == name
    assert len({*threads["one"], *threads["two"]}) > 1
    assert {*threads["one"]} & {*threads["two"]}, "a thread of both"

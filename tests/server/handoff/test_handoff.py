"""Handlers that block, on real connections: the others go on, and nothing of theirs is lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from queue import Queue
from typing import Any, Literal

import pytest

from tests.server.conftest import (
    Clients,
    Serve,
    ServerLog,
    stop_within,
    until_it_stands_still,
    wait_until,
)
from tests.support.clients import TIMEOUT, WebSocketClient, get, masked
from tests.support.handlers import NO_STEALS, Held, Waits, generator_echo, websocket_app
from wsframe import Close, ConnectionClosed, Pong
from wsframe.frames import Opcode
from wsframe.server import App, EventStream, Server, WebSocket
from wsframe.server.handoff import loop as loop_module
from wsframe.server.handoff.loop import READ, RECEIVE_BUFFER
from wsframe.server.handoff.quotas import Shortage
from wsframe.server.handoff.turns import BUSY, HELD, ROUTE_PROBATION
from wsframe.server.sessions.generator import GeneratorSession
from wsframe.server.sessions.websocket import INBOX_SIZE
from wsframe.server.sockets.peer import HIGH_WATER, Peer
from wsframe.server.timing import Timing

MIB = 1 << 20
# What the kernel's own buffers, at most, hold of a connection; all else would be our memory.
KERNEL = 16 * MIB

# Learned from what it does, or said to be quick: that one begins on the loop again every time.
LEARNED_OR_SAID = pytest.mark.parametrize("blocking", [None, False], ids=["learned", "said"])


class Blocking:
    """A handler that is held at the message "block", and answers with what a message begins with.

    Attributes:
        seen: what each connection was given, its end, and that its ``finally`` has run.
        sockets: the connections, in the order in which they came.
    """

    def __init__(self) -> None:
        self.held: deque[Held] = deque()
        self.seen: Queue[Any] = Queue()
        self.sockets: Queue[WebSocket] = Queue()

    def __call__(self, ws: WebSocket) -> Waits:
        self.sockets.put(ws)
        try:
            while True:
                message = yield
                self.seen.put(message)
                if message == "block":
                    self.held.popleft().wait()
                ws.send(message[:8])
        except ConnectionClosed as end:
            self.seen.put(end.code)
            raise
        finally:
            self.seen.put("finally")

    def app(self, **options: Any) -> App:
        """An app with this, one that echoes, and a page."""

        def handler(ws: WebSocket) -> Waits:
            return (yield from self(ws))

        app = websocket_app(generator_echo)
        app.websocket("/block", **options)(handler)
        app.page("/", b"page")
        return app

    def block(self, server: Server, client: WebSocketClient) -> Held:
        """Have a client's handler block, and lose the loop or wait in a thread."""
        held = Held()
        self.held.append(held)
        busy = len(sessions(server, BUSY))
        client.say("block")
        held.wait_for()
        wait_until(lambda: len(sessions(server, BUSY)) > busy, "it has a thread of its own")
        return held

    def next_seen(self, count: int) -> list[Any]:
        """What comes next of ``seen``."""
        return [self.seen.get(timeout=TIMEOUT) for _ in range(count)]


def sessions(server: Server, state: Any = None) -> list[GeneratorSession]:
    """Those that have not ended, in this state."""
    found = [turns for loop in server.loops for turns in tuple(loop.unfinished)]
    return [  # only generators are looked at here
        turns
        for turns in found
        if isinstance(turns, GeneratorSession) and state in (None, turns.state)
    ]


# The others go on --------------------------------------------------------------------------------


def test_eight_handlers_block_and_twenty_others_are_served(serve: Serve, clients: Clients) -> None:
    blocking = Blocking()
    server = serve(blocking.app())
    blocked = [clients.websocket(server, "/block") for _ in range(8)]
    echoing = [clients.websocket(server, "/echo") for _ in range(20)]
    held = [blocking.block(server, client) for client in blocked]
    for number in range(20):
        for client in echoing:
            client.say(str(number), "again")
        for client in echoing:
            assert client.hear(2) == [str(number), "again"]
    for one in reversed(held):
        one.release()
    for client in blocked:
        client.say("next")
        assert client.hear(2) == ["block", "next"]


def test_a_server_whose_every_handler_blocks_still_accepts_and_answers(
    serve: Serve, clients: Clients
) -> None:
    blocking = Blocking()
    server = serve(blocking.app(), max_threads=2)
    held = []
    for _ in range(2):
        held.append(blocking.block(server, clients.websocket(server, "/block")))
    for _ in range(3):
        # New ones, whose first turn is to come.
        clients.websocket(server, "/block")
        client = clients.connect(server)
        client.send(get("/"))
        assert client.answer().body == b"page"
    for one in held:
        one.release()


def test_handlers_that_block_may_be_more_than_there_are_threads(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    """Past the limit it is the reserve that takes the loop on; those that are suspect wait."""
    blocking = Blocking()
    server = serve(blocking.app(), max_threads=2)
    blocked = [clients.websocket(server, "/block") for _ in range(6)]
    held = [Held() for _ in blocked]
    blocking.held.extend(held)
    for client in blocked:
        client.say("block")
    # Three lose the loop; then the route is suspect, and the others get no thread.
    for one in held[:3]:
        one.wait_for()
    wait_until(lambda: server.stats().handlers_waiting == 3, "three wait")
    assert server.stats().handlers_in_threads == 3
    echoing = clients.websocket(server, "/echo")
    echoing.say("x")
    assert echoing.next_event() == "x"
    for one in held:
        one.release()
    for client in blocked:
        assert client.next_event() == "block"
        client.leave()
    log.expect("waits for a thread", logging.WARNING)


# The one that blocks -----------------------------------------------------------------------------


@LEARNED_OR_SAID
def test_messages_that_come_while_it_blocks_are_handled_in_order_and_once(
    serve: Serve, clients: Clients, blocking: bool | None
) -> None:
    handler = Blocking()
    server = serve(handler.app(blocking=blocking))
    client = clients.websocket(server, "/block")
    held = handler.block(server, client)
    numbers = list(map(str, range(1000)))
    for begin, end in ((0, 1), (1, 10), (10, 100), (100, 1000)):
        client.say(*numbers[begin:end])
    held.release()
    assert client.hear(1001) == ["block", *numbers]
    client.leave()
    assert handler.next_seen(1003) == ["block", *numbers, 1000, "finally"]
    assert handler.seen.empty()


def test_pings_are_answered_while_it_blocks(serve: Serve, clients: Clients) -> None:
    handler = Blocking()
    server = serve(handler.app())
    client = clients.websocket(server, "/block")
    held = handler.block(server, client)
    client.say("waits")
    for number in range(3):
        client.send(client.codec.ping(b"%d" % number))
        assert client.next_event() == Pong(b"%d" % number)
    held.release()
    assert client.hear(2) == ["block", "waits"]


def test_what_it_sent_before_goes_out_and_what_it_sends_then_too(
    serve: Serve, clients: Clients
) -> None:
    first, second = Held(), Held()

    def talk(ws: WebSocket) -> Waits:
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
    assert client.hear(2) == ["while", "it blocks"]
    second.release()
    assert client.next_event() == "after"


@LEARNED_OR_SAID
def test_what_waits_for_it_is_bounded_and_nothing_is_lost(
    serve: Serve, clients: Clients, blocking: bool | None
) -> None:
    handler = Blocking()
    server = serve(handler.app(blocking=blocking))
    client = clients.websocket(server, "/block", receive_buffer=1 << 16)
    held = handler.block(server, client)
    (session,) = sessions(server)
    messages = [number.to_bytes(4, "big") * (1 << 14) for number in range(2 * KERNEL >> 16)]
    sending = threading.Thread(target=client.say, args=messages)
    client.sock.settimeout(None)
    sending.start()
    wait_until(lambda: not session.peer._interest & READ, "it is read no more")
    assert session.work is not None
    assert INBOX_SIZE <= sum(map(len, session.work)) < INBOX_SIZE + RECEIVE_BUFFER + (1 << 16)
    held.release()
    assert client.next_event() == "block"
    for message in messages:
        assert client.next_event() == message[:8]
    sending.join(TIMEOUT)
    client.sock.settimeout(TIMEOUT)
    client.say("goes on")
    assert client.next_event() == "goes on"
    assert handler.next_seen(len(messages) + 2) == ["block", *messages, "goes on"]
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


@LEARNED_OR_SAID
@LEAVING
def test_a_client_that_leaves_meanwhile_is_heard_to_the_end(
    serve: Serve,
    clients: Clients,
    leave: Callable[[WebSocketClient], None],
    code: int,
    blocking: bool | None,
) -> None:
    seen: Queue[object] = Queue()
    held = Held()

    def handler(ws: WebSocket) -> Waits:
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
    client.say("block")
    held.wait_for()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.say("one")
    client.say("two")
    wait_until(lambda: session.work == ["one", "two"], "they are read")
    leave(client)
    wait_until(lambda: session._end is not None, "it is known that the client has left")
    assert [seen.get(timeout=TIMEOUT)] == ["block"]
    assert seen.empty()
    held.release()
    assert [seen.get(timeout=TIMEOUT) for _ in range(4)] == ["one", "two", code, "finally"]
    client.close()
    stop_within(server, TIMEOUT)
    assert seen.empty()


@pytest.mark.parametrize("leave", [WebSocketClient.half_close, WebSocketClient.reset])
def test_it_learns_that_its_client_has_left_when_it_sends(
    serve: Serve, clients: Clients, leave: Callable[[WebSocketClient], None]
) -> None:
    handler = Blocking()
    server = serve(handler.app())
    client = clients.websocket(server, "/block")
    held = handler.block(server, client)
    leave(client)
    wait_until(lambda: not server.clients[0].peers, "the client has left")
    held.release()
    assert handler.next_seen(3) == ["block", 1006, "finally"]
    stop_within(server, TIMEOUT)
    assert handler.seen.empty()


@LEARNED_OR_SAID
@pytest.mark.parametrize("more", [(), ("in the same read",)], ids=["", "more"])
def test_it_may_close_its_own_connection_and_hears_no_message_after_it(
    serve: Serve, clients: Clients, blocking: bool | None, more: tuple[str, ...]
) -> None:
    seen: Queue[object] = Queue()
    held = [Held(), Held()]

    def handler(ws: WebSocket) -> Waits:
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
    client.say("block", *more)
    held[0].wait_for()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.say("meanwhile")
    wait_until(lambda: session.work, "it is read")
    held[0].release()
    assert client.hear(2) == ["last", Close(4000)]  # while it still blocks
    client.send(client.codec.close(4000))
    client.expect_end()
    held[1].release()
    assert [seen.get(timeout=TIMEOUT) for _ in range(3)] == ["block", 4000, "finally"]
    stop_within(server, TIMEOUT)
    assert seen.empty()


@pytest.mark.parametrize("other", ["waits", "blocks"])
def test_it_may_close_anothers_connection(serve: Serve, clients: Clients, other: str) -> None:
    handler = Blocking()
    held = Held()

    def closing(ws: WebSocket) -> Waits:
        yield
        held.wait()
        handler.sockets.get(timeout=TIMEOUT).close(4001)
        ws.send("closed")
        yield

    app = handler.app()
    app.websocket("/close")(closing)
    server = serve(app)
    client, others_client = clients.websocket(server, "/close"), clients.websocket(server, "/block")
    client.say("block")
    held.wait_for()
    others = handler.block(server, others_client) if other == "blocks" else None
    held.release()
    assert client.next_event() == "closed"
    assert others_client.closed_by_server() == Close(4001)
    if others is not None:
        assert handler.next_seen(1) == ["block"]
        assert handler.seen.empty()
        others.release()
    assert handler.next_seen(2) == [4001, "finally"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
@pytest.mark.parametrize("where", ["loop", "thread"])
def test_whatever_a_handler_raises_ends_its_connection_alone(
    serve: Serve, clients: Clients, log: ServerLog, where: str, error: type[BaseException]
) -> None:
    held = Held()

    def fail(ws: WebSocket) -> Waits:
        yield
        if where == "thread":
            held.wait()
        raise error

    app = websocket_app(generator_echo)
    app.websocket("/fail")(fail)
    server = serve(app)
    other, another = clients.websocket(server, "/echo"), clients.websocket(server, "/fail")
    client = clients.websocket(server, "/fail")
    client.say("x")
    if where == "thread":
        held.wait_for()
        wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
        held.release()
    assert client.closed_by_server() == Close(1011, "the handler failed")
    record = log.expect("the handler of /fail failed")
    assert record.exc_info is not None
    assert record.exc_info[0] is error
    other.say("x")
    assert other.next_event() == "x"
    another.send(another.codec.ping())
    assert another.next_event() == Pong()


@pytest.mark.parametrize("blocking", [None, True])
def test_context_variables_stay_with_their_connection(
    serve: Serve, clients: Clients, blocking: bool | None
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    threads: dict[str, list[int]] = {"one": [], "two": []}

    def handler(ws: WebSocket, name: str) -> Waits:
        ws.send(variable.get())
        variable.set(name)
        while True:
            message = yield
            threads[name].append(threading.get_ident())
            if message == "block":
                held.wait()
            ws.send(variable.get())

    held = Held()
    server = serve(websocket_app(handler, "/{name}", blocking=blocking))
    pair = [(name, clients.websocket(server, f"/{name}")) for name in threads]
    for name, client in pair * 3:
        if not threads[name]:
            assert client.next_event() == "nobody's"
        client.say("x")
        assert client.next_event() == name
    pair[0][1].say("block")
    held.wait_for()
    # On another thread than before, whoever has the loop now.
    for _ in range(3):
        pair[1][1].say("x")
        assert pair[1][1].next_event() == "two"
    held.release()
    assert pair[0][1].next_event() == "one"
    for name, client in pair * 3:
        client.say("x")
        assert client.next_event() == name
    assert len({*threads["one"], *threads["two"]}) > 1
    assert {*threads["one"]} & {*threads["two"]}, "a thread of both"


# Back-pressure -----------------------------------------------------------------------------------


def queued(peer: Peer) -> int:
    """The bytes that wait in our own memory for a client."""
    return len(peer._unsent) + sum(map(len, peer.out))


def test_who_sends_without_the_loop_waits_for_a_client_that_does_not_read(
    serve: Serve, clients: Clients
) -> None:
    count, sent, held = 2 * KERNEL >> 16, 0, Held()

    def push(ws: WebSocket) -> Waits:
        nonlocal sent
        yield
        held.wait()
        for number in range(count):
            ws.send(number.to_bytes(4, "big") * (1 << 14))
            sent += 1
        yield from generator_echo(ws)

    server = serve(websocket_app(push))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.say("block")
    held.wait_for()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.say("answered at last")
    held.release()
    until_it_stands_still(lambda: sent)
    assert 0 < sent < count
    assert queued(session.peer) <= 2 * HIGH_WATER
    for number in range(count):
        assert client.next_event() == number.to_bytes(4, "big") * (1 << 14)
    assert client.next_event() == "answered at last"


def test_who_sends_on_the_loop_does_not_wait_but_is_not_given_more_until_its_client_has_read(
    serve: Serve, clients: Clients
) -> None:
    seen: Queue[str | bytes] = Queue()

    def push(ws: WebSocket) -> Waits:
        while True:
            message = yield
            seen.put(message)
            ws.send(bytes(KERNEL))
            ws.send("end")

    server = serve(websocket_app(push, timing=NO_STEALS))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.say("one", "two")
    assert seen.get(timeout=TIMEOUT) == "one"
    wait_until(lambda: sessions(server, HELD), "the second one has to wait")
    (session,) = sessions(server)
    assert session.work == ["two"]
    assert not session.peer._interest & READ
    client.say("three")
    assert seen.empty()
    for message in ("two", "three", None):
        assert client.hear(2) == [bytes(KERNEL), "end"]
        if message is not None:
            assert seen.get(timeout=TIMEOUT) == message
    wait_until(lambda: not session.peer.halted, "the next turn may be as long as any")
    assert client.leave() == Close(1000)


def test_what_waits_until_the_client_has_read_is_dropped_when_another_thread_closes(
    serve: Serve, clients: Clients
) -> None:
    seen: Queue[object] = Queue()

    def push(ws: WebSocket) -> Waits:
        try:
            while True:
                seen.put((yield))
                ws.send(bytes(KERNEL))
        except ConnectionClosed as end:
            seen.put(end.code)

    server = serve(websocket_app(push, timing=NO_STEALS))
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.say("one", "two")
    wait_until(lambda: sessions(server, HELD), "the second one has to wait")
    session = sessions(server)[0]
    WebSocket(session, session.request).close(4000)
    assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["one", 4000]
    assert client.hear(2) == [bytes(KERNEL), Close(4000)]


def test_many_answers_to_one_read_cost_little_and_who_takes_none_is_cut_off(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    answered, ends = 0, Queue[int]()
    most = 0

    def answer(ws: WebSocket) -> Waits:
        nonlocal answered, most
        try:
            while True:
                yield
                answered += 1
                ws.send(bytes(1 << 12))
                most = max(most, queued(ws._peer))
        except ConnectionClosed as end:
            ends.put(end.code)
        finally:
            ends.put(0)

    server = serve(websocket_app(answer, timing=Timing(sweep_interval=0.01)), send_timeout=0.2)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send(masked(Opcode.TEXT, "x") * 30_000)
    assert ends.get(timeout=TIMEOUT) == 1006
    assert ends.get(timeout=TIMEOUT) == 0
    log.expect("acknowledged nothing of what it was sent", logging.WARNING)
    assert answered << 12 < KERNEL
    assert most <= 3 * HIGH_WATER
    stop_within(server, TIMEOUT)
    assert ends.empty()


def test_many_answers_and_the_end_of_one_read_all_arrive(serve: Serve, clients: Clients) -> None:
    """The turn ends early, for so much is sent; the end follows the messages that are left."""
    ended = threading.Event()

    def answer(ws: WebSocket) -> Waits:
        try:
            while True:
                message = yield
                ws.send(str(message) * 5_000)
        finally:
            ended.set()

    client = clients.websocket(serve(websocket_app(answer)), "/echo")
    numbers = [str(number % 10) for number in range(100)]
    frames = [masked(Opcode.TEXT, number) for number in numbers]
    client.send(b"".join(frames) + masked(Opcode.CLOSE, b"\x0f\xa0"))
    assert client.hear(100) == [number * 5_000 for number in numbers]
    assert client.next_event() == Close(4000)
    client.expect_end()
    assert ended.wait(TIMEOUT)


def test_a_turn_that_has_sent_much_and_loses_the_loop_leaves_its_messages_in_order(
    serve: Serve, clients: Clients
) -> None:
    """It ends early for what it sent on the loop; what was left comes before what came since."""
    held = Held()
    # Much for a turn, but not too much to be waiting while the client is read.
    much = bytes(HIGH_WATER + 1024)

    def handler(ws: WebSocket) -> Waits:
        while True:
            message = yield
            if message == "block":
                ws.send(much)
                held.wait()
            ws.send(message)

    server = serve(websocket_app(handler))
    client = clients.websocket(server, "/echo")
    client.say("block", "left", "too")
    held.wait_for()
    wait_until(lambda: sessions(server, BUSY), "it has lost the loop")
    (session,) = sessions(server)
    client.say("came", "since")
    wait_until(lambda: session.work == ["came", "since"], "they are read")
    held.release()
    assert client.hear(6) == [much, "block", "left", "too", "came", "since"]
    wait_until(lambda: not session.peer.halted, "the next turn may be as long as any")


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "reads nothing"])
def test_a_client_that_has_closed_is_not_given_more_either_until_it_has_read(
    serve: Serve, clients: Clients, reads: bool
) -> None:
    seen: Queue[str | int | bytes] = Queue()

    def push(ws: WebSocket) -> Waits:
        try:
            while True:
                seen.put((yield))
                ws.send(bytes(KERNEL))
        except ConnectionClosed as end:
            seen.put(end.code)

    server = serve(
        websocket_app(push, timing=replace(NO_STEALS, sweep_interval=0.01)),
        close_timeout=60 if reads else 0.2,
    )
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    client.send(masked(Opcode.TEXT, "x") * 3 + masked(Opcode.CLOSE, b"\x0f\xa0"))
    assert seen.get(timeout=TIMEOUT) == "x"
    if reads:
        wait_until(lambda: sessions(server, HELD), "the second one has to wait")
        assert seen.empty()
        assert client.hear(3) == [bytes(KERNEL)] * 3
        assert client.next_event() == Close(4000)
        client.expect_end()
        assert [seen.get(timeout=TIMEOUT) for _ in range(3)] == ["x", "x", 4000]
    else:
        # The answer to the second one is refused.
        assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == ["x", 4000]


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_one_answer_may_be_as_large_as_it_likes(serve: Serve, clients: Clients, where: str) -> None:
    answer = bytes(range(256)) * (64 * MIB // 256)

    def send(ws: WebSocket) -> Waits:
        yield
        ws.send(answer)
        ws.send("end")
        yield

    server = serve(websocket_app(send, timing=NO_STEALS, blocking=where == "thread"))
    client = clients.websocket(server, "/echo")
    client.say("x")
    assert client.next_event() == answer
    assert client.next_event() == "end"


# Threads -----------------------------------------------------------------------------------------


def test_an_event_streams_plain_function_that_blocks_loses_the_loop(
    serve: Serve, clients: Clients
) -> None:
    held = [Held(), Held()]

    def feed(stream: EventStream) -> None:
        stream.send("one")
        held[0].wait()
        stream.send("two")
        held[1].wait()

    app = websocket_app(generator_echo)
    app.sse("/feed")(feed)
    server = serve(app)
    stream = clients.stream(server, "/feed")
    assert stream.hear(1) == ["one"]
    client = clients.websocket(server, "/echo")
    client.say("x")
    assert client.next_event() == "x"
    held[0].release()
    assert stream.hear(1) == ["two"]
    held[1].release()
    assert server.loops[0].steals == 1


def test_a_route_whose_handlers_block_is_learned(serve: Serve, clients: Clients) -> None:
    handler = Blocking()
    server = serve(handler.app())
    blocked = [clients.websocket(server, "/block") for _ in range(6)]
    held = [handler.block(server, client) for client in blocked]
    for one in held:
        one.release()
    for client in blocked:
        assert client.next_event() == "block"
    assert 3 <= server.loops[0].steals <= 6
    new = clients.websocket(server, "/block")
    new.say("x")
    assert new.next_event() == "x"
    assert max(session.credit for session in sessions(server)) >= ROUTE_PROBATION - 2


def test_without_a_thread_a_handler_that_has_begun_goes_on_on_the_loop(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(websocket_app(generator_echo, blocking=True))
    client = clients.websocket(server, "/echo")
    client.say("x")
    assert client.next_event() == "x"
    monkeypatch.setattr(server._threads, "engage_turn", lambda *_: Shortage.SYSTEM)
    monkeypatch.setattr(server._threads, "turn_shortage", lambda *_: Shortage.SYSTEM)
    client.say("y")
    assert client.next_event() == "y"
    assert client.leave() == Close(1000)


# Stop --------------------------------------------------------------------------------------------


def test_a_stop_tells_handlers_that_block_and_waits_for_those_that_return(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    handler = Blocking()
    server = serve(handler.app(), drain=0.2)
    blocked = [clients.websocket(server, "/block") for _ in range(3)]
    held = [handler.block(server, client) for client in blocked]
    stopping = threading.Thread(target=server.stop)
    begin = time.monotonic()
    stopping.start()
    for client in blocked:
        assert client.closed_by_server() == Close(1001, "the server stops")
    for one in held[:2]:
        one.release()
    seen = [item if isinstance(item, str) else f"{item:d}" for item in handler.next_seen(7)]
    assert sorted(seen) == sorted(["block"] * 3 + ["1001", "finally"] * 2)
    stopping.join(TIMEOUT)
    assert 0.2 <= time.monotonic() - begin < 4
    record = log.expect("wsframe-handler /block has not ended and is left behind")
    assert "held.popleft().wait()" in str(record.stack_info)
    left = [thread for thread in threading.enumerate() if thread.name.startswith("wsframe-")]
    assert [thread.name for thread in left] == ["wsframe-handler /block"]
    held[2].release()


# All of it ---------------------------------------------------------------------------------------


class Visitor(threading.Thread):
    """One client of the stress: it sends bursts of numbered messages, and looks at the answers."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        self.random = random.Random(number)
        self.client = WebSocketClient(server.port, f"/{number}")
        self.leaves: Literal["close", "fin", "rst"] = ("close", "close", "fin", "rst")[number % 4]
        self.sent = 0
        self.pushed = -1
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._talk()
        except BaseException as error:
            self.error = error
        finally:
            self.client.close()

    def _talk(self) -> None:
        deadline = time.monotonic() + 2
        answered = 0
        while time.monotonic() < deadline:
            count = self.random.choice([1, 1, 1, 5, 200])
            blocks = self.random.choice([0, 0, 0, 0, 0, 1, 2, 3])
            messages = [
                f"{self.sent + number} {blocks if number == count // 2 else 0}"
                for number in range(count)
            ]
            self.sent += count
            self._send_in_pieces(b"".join(map(self.client.codec.encode, messages)))
            while answered < self.sent:
                event = self.client.next_event()
                assert isinstance(event, str)
                kind, number = event.split()
                if kind == "push":
                    assert int(number) > self.pushed
                    self.pushed = int(number)
                else:
                    assert int(number) == answered
                    answered += 1
        if self.leaves == "close":
            self.client.send(self.client.codec.close())
            while not isinstance(self.client.next_event(), Close):
                pass
        elif self.leaves == "rst":
            # It goes while there is much to do.
            self.client.say(*("0 2" for _ in range(3)))
            self.client.reset()

    def _send_in_pieces(self, data: bytes) -> None:
        cuts = sorted(self.random.randrange(len(data)) for _ in range(self.random.randrange(4)))
        begin = 0
        for end in (*cuts, len(data)):
            self.client.send(data[begin:end])
            begin = end


@pytest.mark.parametrize("loops", [1, 3])
def test_forty_clients_whose_handlers_block_at_random(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, loops: int
) -> None:
    """Order, nothing lost, nothing twice, every ``finally`` once."""
    piece = 0.001
    monkeypatch.setattr(loop_module, "PROBATION", 5)
    monkeypatch.setattr(loop_module, "ROUTE_PROBATION", 1)
    entered: list[str] = []
    left: list[str] = []
    disorder: list[str] = []
    everybody: set[WebSocket] = set()

    def handler(ws: WebSocket, name: str) -> Waits:
        entered.append(name)
        everybody.add(ws)
        inside = threading.Lock()
        expected = 0
        try:
            while True:
                message = yield
                if not inside.acquire(blocking=False):
                    disorder.append(f"two threads in {name}")
                number, blocks = map(int, str(message).split())
                if number != expected and number:
                    disorder.append(f"{name}: {number} instead of {expected}")
                expected += 1
                if blocks:
                    time.sleep(blocks * piece)  # once and twice a slice are the sharp ones
                ws.send(f"echo {number}")
                inside.release()
        except ConnectionClosed:
            pass
        finally:
            everybody.discard(ws)
            left.append(name)

    server = serve(websocket_app(handler, "/{name}", Timing(turn_slice=piece)), loops=loops)
    visitors = [Visitor(server, number) for number in range(40)]
    stopped = threading.Event()

    def push() -> None:
        number = 0
        while not stopped.wait(piece):
            for ws in everybody.copy():
                try:
                    ws.send(f"push {number}")
                except ConnectionClosed:
                    continue
            number += 1

    pushing = threading.Thread(target=push)
    pushing.start()
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(3 * TIMEOUT)
    stopped.set()
    pushing.join(TIMEOUT)
    errors = [visitor.error for visitor in visitors if visitor.error is not None]
    assert not errors
    wait_until(lambda: len(left) == 40, "every handler has ended")
    stop_within(server, TIMEOUT)
    assert sorted(left) == sorted(entered)
    assert not disorder
    assert sum(loop.steals for loop in server.loops) > 10
    assert min(visitor.pushed for visitor in visitors) > 0

"""Handlers that block, on real connections: threads, shutdown, and everything together."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Literal

import pytest

from tests.server.handoff.blocking import Blocking, sessions
from tests.support.clients import Clients, WebSocketClient
from tests.support.handlers import (
    SHORT_GRACE,
    Checkpoint,
    MessageGenerator,
    generator_echo,
    websocket_app,
)
from tests.support.inspection import loops_of
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close, ConnectionClosed
from wsframe.server import EventStream, Server, WebSocket
from wsframe.server.handoff.quotas import Shortage
from wsframe.server.handoff.threads import Threads
from wsframe.server.timing import Timing


def test_a_blocking_function_of_an_event_stream_loses_the_loop(
    serve: Serve, clients: Clients
) -> None:
    held = [Checkpoint(), Checkpoint()]

    def feed(stream: EventStream) -> None:
        stream.send("one")
        held[0].wait()
        stream.send("two")
        held[1].wait()

    app = websocket_app(generator_echo)
    app.sse("/feed")(feed)
    server = serve(app)
    stream = clients.stream(server, "/feed")
    assert stream.expect(1) == ["one"]
    client = clients.websocket(server, "/echo")
    client.send_messages("x")
    assert client.next_event() == "x"
    held[0].release()
    assert stream.expect(1) == ["two"]
    held[1].release()
    assert loops_of(server)[0].handoffs >= 1  # on a busy machine, the echo may lose it, too


def test_a_route_with_blocking_handlers_is_recognized(serve: Serve, clients: Clients) -> None:
    handler = Blocking()
    server = serve(handler.app())
    blocked = [clients.websocket(server, "/block") for _ in range(6)]
    held = [handler.block(server, client) for client in blocked]
    for one in held:
        one.release()
    for client in blocked:
        assert client.next_event() == "block"
    assert 3 <= loops_of(server)[0].handoffs <= 6
    new = clients.websocket(server, "/block")
    new.send_messages("x")
    assert new.next_event() == "x"
    assert (
        max(session.probation for session in sessions(server)) >= Timing().route_probation_turns - 2
    )


def test_without_a_thread_a_started_handler_continues_on_the_loop(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(websocket_app(generator_echo, blocking=True))
    client = clients.websocket(server, "/echo")
    client.send_messages("x")
    assert client.next_event() == "x"
    monkeypatch.setattr(Threads, "engage_turn", lambda *_: Shortage.SYSTEM)
    monkeypatch.setattr(Threads, "turn_shortage", lambda *_: Shortage.SYSTEM)
    client.send_messages("y")
    assert client.next_event() == "y"
    assert client.leave() == Close(1000)


def threads_of_the_server() -> list[str]:
    """Return the names of the threads that run, except that of the log."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("wsframe-") and name != "wsframe-log"]


def test_a_stop_notifies_blocked_handlers_and_waits_for_their_return(
    serve: Serve, clients: Clients
) -> None:
    handler = Blocking()
    server = serve(handler.app(), drain=60)
    blocked = [clients.websocket(server, "/block") for _ in range(3)]
    held = [handler.block(server, client) for client in blocked]
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    for client in blocked:
        assert client.expect_close() == Close(1001, "the server is shutting down")
    for one in held[:2]:
        one.release()
    seen = [item if isinstance(item, str) else f"{item:d}" for item in handler.next_seen(7)]
    assert sorted(seen) == sorted(["block"] * 3 + ["1001", "finally"] * 2)
    assert stopping.is_alive()
    held[2].release()
    assert sorted(map(str, handler.next_seen(2))) == ["1001", "finally"]
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    assert not threads_of_the_server()


def test_a_handler_that_blocks_for_longer_than_drain_is_left_running(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    handler = Blocking()
    server = serve(handler.app(SHORT_GRACE), drain=0)
    held = handler.block(server, clients.websocket(server, "/block"))
    server.stop()
    record = log.expect("wsframe-handler /block did not stop in time; leaving it running")
    assert "held.popleft().wait()" in str(record.stack_info)
    assert threads_of_the_server() == ["wsframe-handler /block"]
    held.release()


class Visitor(threading.Thread):
    """A client of the stress test: it sends bursts of numbered messages, and checks the answers.

    It does so for two seconds, and on a busy machine for longer, until there were enough hand-offs.
    """

    def __init__(self, server: Server, number: int, enough: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.enough = enough
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
        begin = time.monotonic()
        answered = 0
        while time.monotonic() < begin + 2 or not (self.enough() and self.pushed > 0):
            assert time.monotonic() < begin + 2 * TIMEOUT, "there are too few hand-offs or pushes"
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
            # It disconnects while much work is waiting.
            self.client.send_messages(*("0 2" for _ in range(3)))
            self.client.reset()

    def _send_in_pieces(self, data: bytes) -> None:
        cuts = sorted(self.random.randrange(len(data)) for _ in range(self.random.randrange(4)))
        begin = 0
        for end in (*cuts, len(data)):
            self.client.send(data[begin:end])
            begin = end


@pytest.mark.slow
@pytest.mark.parametrize("loops", [1, 3])
def test_forty_clients_whose_handlers_block_at_random(serve: Serve, loops: int) -> None:
    """The order is kept, no message is lost or doubled, and every ``finally`` runs once."""
    piece = 0.001
    timing = Timing(turn_slice=piece, probation_turns=5, route_probation_turns=1)
    entered: list[str] = []
    left: list[str] = []
    disorder: list[str] = []
    everybody: set[WebSocket] = set()

    def handler(ws: WebSocket, name: str) -> MessageGenerator:
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

    server = serve(websocket_app(handler, "/{name}", timing), loops=loops)

    def enough() -> bool:
        return sum(loop.handoffs for loop in loops_of(server)) > 10

    visitors = [Visitor(server, number, enough) for number in range(40)]
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
    assert enough()
    assert min(visitor.pushed for visitor in visitors) > 0

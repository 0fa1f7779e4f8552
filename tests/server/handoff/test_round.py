"""Rounds: what a loop has received belongs to the loop, and survives a hand-off.

The test holds the loop in a call until all clients have sent, so that one round receives from all.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.server.handoff.stepping import Conversation, Rig, exchange, receive
from tests.support.clients import Clients, WebSocketClient
from tests.support.handlers import Checkpoint, MessageGenerator, websocket_app
from tests.support.inspection import loops_of
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT
from wsframe import Close, CloseCode, ConnectionClosed
from wsframe.server import Server, WebSocket, pure_rounds
from wsframe.server.handoff.task import Task
from wsframe.server.sessions.generator import GeneratorSession
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock


@contextmanager
def held_loop(call_soon: Callable[[Callable[[], object]], None]) -> Iterator[None]:
    """Hold a loop in a call; at the end it receives everything that was sent meanwhile."""
    held = Checkpoint()
    call_soon(held.wait)
    held.wait_until_reached()
    yield
    held.release()


class Words:
    """A handler that echoes words, and waits at the words that a test has chosen."""

    def __init__(self, *blocking: str) -> None:
        self.held = {word: Checkpoint() for word in blocking}

    def handle(self, ws: WebSocket) -> MessageGenerator:
        while True:
            word = yield
            assert isinstance(word, str)
            if word in self.held:
                ws.send(f"{word} begins")
                self.held[word].wait()
            ws.send(word)


class Scene:
    """A server with one loop, and its clients."""

    def __init__(self, serve: Serve, clients: Clients, *blocking: str, count: int = 3) -> None:
        self.words = Words(*blocking)
        self.server: Server = serve(websocket_app(self.words.handle, blocking=False))
        self.clients: list[WebSocketClient] = [
            clients.websocket(self.server, "/echo") for _ in range(count)
        ]
        (self.loop,) = loops_of(self.server)

    def send_together(self, *words: str) -> None:
        """Send one word from each client; one round receives all."""
        with held_loop(self.loop.call_soon):
            for client, word in zip(self.clients, words, strict=True):
                client.send_messages(word)


@pytest.fixture
def release() -> Iterator[list[Checkpoint]]:
    """Checkpoints that are released at the end, even if the test fails."""
    found: list[Checkpoint] = []
    yield found
    for checkpoint in found:
        checkpoint.release()


def test_a_turn_that_blocks_delays_no_other_client_of_its_round(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve, clients, "block")
    first, blocked, last = scene.clients
    scene.send_together("before", "block", "after")
    assert first.next_event() == "before"
    assert last.next_event() == "after"
    assert blocked.next_event() == "block begins"
    scene.words.held["block"].release()
    assert blocked.next_event() == "block"
    assert scene.loop.handoffs == 1


def test_two_turns_of_one_round_lose_the_loop(serve: Serve, clients: Clients) -> None:
    scene = Scene(serve, clients, "one", "two")
    one, two, quick = scene.clients
    scene.send_together("one", "two", "three")
    assert quick.next_event() == "three"
    assert scene.loop.handoffs == 2
    for client, word in ((two, "two"), (one, "one")):
        assert client.next_event() == f"{word} begins"
        scene.words.held[word].release()
        assert client.next_event() == word


def test_messages_stay_in_order_across_a_hand_off(serve: Serve, clients: Clients) -> None:
    scene = Scene(serve, clients, "1", count=2)
    many, other = scene.clients
    with held_loop(scene.loop.call_soon):
        many.send_messages("0", "1", "2")
        other.send_messages("x")
    assert other.next_event() == "x"  # the loop was handed off
    many.send_messages("3", "4")
    other.send_messages("y")
    assert other.next_event() == "y"
    many.send_messages("5")
    scene.words.held["1"].release()
    assert many.expect(7) == ["0", "1 begins", "1", "2", "3", "4", "5"]


def test_a_connection_that_is_closed_in_the_round_receives_nothing_more(
    serve: Serve, clients: Clients
) -> None:
    ended, received = threading.Event(), list[str]()
    others: list[WebSocket] = []

    def handler(ws: WebSocket) -> MessageGenerator:
        others.append(ws)
        try:
            while True:
                word = yield
                assert isinstance(word, str)
                received.append(word)
                others[1].close(4000)
        except ConnectionClosed as end:
            if end.code == 4000:
                ended.set()

    server = serve(websocket_app(handler))
    (loop,) = loops_of(server)
    first, second = (clients.websocket(server, "/echo") for _ in range(2))
    with held_loop(loop.call_soon):
        first.send_messages("close the other")
        second.send_messages("too late")
    end = second.next_event()
    assert isinstance(end, Close)
    assert end.code == 4000
    assert ended.wait(TIMEOUT)
    assert received == ["close the other"]


def test_the_clients_of_a_round_are_answered_before_the_server_stops(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene(serve, clients)
    with held_loop(scene.loop.call_soon):
        for client in scene.clients:
            client.send_messages("last")
        stopping = threading.Thread(target=stop_within, args=(scene.server, 20))
        stopping.start()
    for client in scene.clients:
        assert client.next_event() == "last"
    for client in scene.clients:
        end = client.next_event()
        assert isinstance(end, Close)
        assert end.code == CloseCode.GOING_AWAY
    stopping.join(TIMEOUT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_child_of_a_fork_sends_none_of_the_collected_answers(
    serve: Serve, clients: Clients
) -> None:
    def handler(ws: WebSocket) -> MessageGenerator:
        while True:
            word = yield
            if word == "fork":
                child = os.fork()
                if not child:
                    os._exit(0)
                os.waitpid(child, 0)
            ws.send(word)

    server = serve(websocket_app(handler))
    (loop,) = loops_of(server)
    first, second, third = (clients.websocket(server, "/echo") for _ in range(3))
    with held_loop(loop.call_soon):
        first.send_messages("before")
        second.send_messages("fork")
        third.send_messages("after")
    answers = [client.next_event() for client in (first, second, third)]
    assert answers == ["before", "fork", "after"]
    for client in (first, second, third):
        client.send_messages("next")
        assert client.next_event() == "next"  # no answer arrived twice


# Without a monitor: the clock is the test's -------------------------------------------------------


class Acts:
    """The act of each item of a conversation; any other item is echoed."""

    def __init__(self, **acts: Callable[[], object]) -> None:
        self.acts = acts

    def __call__(self, task: Conversation, item: bytes) -> None:
        self.acts.get(item.decode(), lambda: None)()
        task.peer.send(item)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(clock: ManualClock) -> Iterator[Rig]:
    """A running loop without a monitor, whose clock only the test advances."""
    rig = Rig(Timing(clock=clock))
    rig.loop.start()
    yield rig
    rig.close()


def advance(clock: ManualClock) -> None:
    """Let a turn take a second."""
    clock.now += 1


def together(rig: Rig, *sends: tuple[socket.socket, bytes]) -> None:
    """Send from several clients; one round receives all."""
    with held_loop(rig.loop.call_soon):
        for client, item in sends:
            client.sendall(item)


def test_answers_are_sent_before_a_turn_of_a_slow_route(
    timed: Rig, clock: ManualClock, release: list[Checkpoint]
) -> None:
    held = Checkpoint()
    release.append(held)
    acts = Acts(slow=partial(advance, clock), hold=held.wait)
    quick = timed.connect(acts)[1]
    slow = timed.connect(acts, route="/slow")[1]
    exchange(slow, b"slow")
    together(timed, (quick, b"quick"), (slow, b"hold"))
    held.wait_until_reached()
    assert receive(quick, 5) == b"quick"
    held.release()
    assert receive(slow, 4) == b"hold"


def test_answers_wait_for_a_turn_of_a_route_that_is_quick(
    timed: Rig, release: list[Checkpoint]
) -> None:
    held = Checkpoint()
    release.append(held)
    acts = Acts(hold=held.wait)
    quick, other = (timed.connect(acts)[1] for _ in range(2))
    together(timed, (quick, b"quick"), (other, b"hold"))
    held.wait_until_reached()
    quick.setblocking(False)
    with pytest.raises(BlockingIOError):
        quick.recv(1)
    quick.settimeout(TIMEOUT)
    held.release()
    assert receive(quick, 5) == b"quick"


def test_answers_are_sent_after_a_turn_that_took_long(
    timed: Rig, clock: ManualClock, release: list[Checkpoint]
) -> None:
    held = Checkpoint()
    release.append(held)
    acts = Acts(slow=partial(advance, clock), hold=held.wait)
    first, slow, last = (timed.connect(acts, route=route)[1] for route in ("/a", "/b", "/c"))
    together(timed, (first, b"first"), (slow, b"slow"), (last, b"hold"))
    held.wait_until_reached()
    assert receive(first, 5) == b"first"
    assert receive(slow, 4) == b"slow"
    held.release()
    assert receive(last, 4) == b"hold"


def test_the_answers_of_a_round_are_sent_in_one_call(
    timed: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [timed.connect(Acts())[1] for _ in range(5)]
    calls: list[int] = []
    send: Callable[..., Any] = timed.loop.poller.send

    def note(connections: list[Any]) -> Any:
        calls.append(len(connections))
        return send(connections)

    monkeypatch.setattr(timed.loop.poller, "send", note)
    together(timed, *((client, b"x") for client in clients))
    for client in clients:
        assert receive(client, 1) == b"x"
    assert calls == [5]


def test_an_error_ends_only_its_own_connection(
    timed: Rig, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, broken = timed.connect(Acts())
    _, other = timed.connect(Acts())

    def fail(data: memoryview) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(task, "data_received", fail)
    together(timed, (broken, b"x"), (other, b"y"))
    assert receive(other, 1) == b"y"
    assert broken.recv(1) == b""
    log.expect("internal error")


def test_an_error_at_the_end_of_a_turn_ends_only_its_own_connection(
    timed: Rig, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, broken = timed.connect(Acts())
    _, other = timed.connect(Acts())

    def fail() -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(task, "finish_turn", fail)
    task.needs_finish = True
    together(timed, (broken, b"x"), (other, b"y"))
    assert receive(other, 1) == b"y"
    assert broken.recv(1) == b"x"
    assert broken.recv(1) == b""
    log.expect("internal error")


def test_an_error_in_the_delivery_of_messages_ends_only_its_own_connection(
    serve: Serve, clients: Clients, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(serve, clients, count=2)
    deliver = GeneratorSession.messages_received

    def fail(
        session: GeneratorSession, messages: list[str | bytes], rest: memoryview | None
    ) -> Task | None:
        if messages == ["broken"]:
            raise ValueError("on purpose")
        return deliver(session, messages, rest)

    monkeypatch.setattr("wsframe.server.handoff.loop.run_turns", pure_rounds.run_turns)
    monkeypatch.setattr(GeneratorSession, "messages_received", fail)
    scene.send_together("broken", "whole")
    assert scene.clients[1].next_event() == "whole"
    assert scene.clients[0].read_to_end() == b""
    log.expect("internal error")

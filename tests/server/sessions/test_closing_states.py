"""The states of the closing handshake: every transition of the table in docs/design.md."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import pairwise
from queue import Queue
from threading import Event
from typing import Any

import pytest

from tests.support.clients import Clients, WebSocketClient
from tests.support.handlers import Checkpoint
from tests.support.inspection import peers_of, socket_of, websocket_session
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close, encode_frame
from wsframe.frames import TEXT
from wsframe.server import App, Server, WebSocket
from wsframe.server.sessions.closing import ClosingState
from wsframe.server.sessions.websocket_session import WebSocketSession

OPEN, CLIENT_CLOSING, CLOSING, CLOSED = ClosingState
SHORT = 0.2  # a close_timeout that is meant to expire
TRANSITIONS = {
    (OPEN, CLIENT_CLOSING),
    (OPEN, CLOSING),
    (OPEN, CLOSED),
    (CLIENT_CLOSING, CLOSING),
    (CLIENT_CLOSING, CLOSED),
    (CLOSING, CLOSED),
}


class Case:
    """One connection, whose handler waits before it answers a message.

    Attributes:
        server: the server.
        client: the client.
        held: where the handler waits.
        socket: the handler's side of the WebSocket.
        states: the states of the session so far.
    """

    def __init__(
        self, serve: Serve, clients: Clients, states: list[ClosingState], close_timeout: float
    ) -> None:
        self.states = states
        self.held = Checkpoint()
        self.sockets: Queue[WebSocket] = Queue()
        app = App()

        @app.websocket("/")
        def answer(ws: WebSocket) -> None:
            self.sockets.put(ws)
            for message in ws:
                if message == "return":
                    return
                if message == "fail":
                    raise ValueError("on purpose")
                self.held.wait()
                ws.send(message)

        self.server: Server = serve(app, close_timeout=close_timeout)
        self.client: WebSocketClient = clients.websocket(self.server, "/")
        self.socket = self.sockets.get(timeout=TIMEOUT)

    def reach(self, state: ClosingState) -> None:
        """Wait until the session has this state."""
        wait_until(lambda: self.states[-1] is state, state.name)

    def client_closes(self) -> None:
        """Have the client close before the handler answers a message."""
        self.client.send_messages("message")
        self.held.wait_until_reached()
        self.client.send(self.client.codec.close(1000, "done"))
        self.reach(CLIENT_CLOSING)


def the_handler_answers_before_the_reply(case: Case) -> None:
    case.client_closes()
    case.held.release()
    assert case.client.expect(2) == ["message", Close(1000, "")]
    case.client.expect_end()


def the_handler_takes_longer_than_close_timeout(case: Case) -> None:
    case.client_closes()
    assert case.client.next_event() == Close(1000, "")
    case.client.expect_end()
    case.held.release()


def the_application_closes_after_the_client(case: Case) -> None:
    case.client_closes()
    case.socket.close(4000)
    assert case.client.next_event() == Close(1000, "")
    case.client.expect_end()
    case.held.release()


def the_connection_is_lost_while_the_handler_answers(case: Case) -> None:
    case.client_closes()
    case.client.reset()
    case.reach(CLOSED)
    case.held.release()


def the_client_breaks_a_rule(case: Case) -> None:
    case.client.send(encode_frame(TEXT, b"not masked"))
    close = case.client.next_event()
    assert isinstance(close, Close)
    assert close.code == 1002
    case.client.expect_end()


def the_handler_returns(case: Case) -> None:
    case.client.send_messages("return")
    assert case.client.next_event() == Close(1000, "")
    case.reach(CLOSING)
    case.client.send(case.client.codec.close(1000))
    case.client.expect_end()


def the_server_stops(case: Case) -> None:
    stop_within(case.server, 20)
    assert case.client.next_event() == Close(1001, "the server is shutting down")


def the_client_does_not_answer(case: Case) -> None:
    case.socket.close(4000, "enough")
    assert case.client.next_event() == Close(4000, "enough")
    case.client.expect_end()


def the_connection_is_lost(case: Case) -> None:
    case.client.reset()


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[ClosingState]:
    """Record the states of the only session of a test."""
    found: list[ClosingState] = []
    closing: Any = vars(WebSocketSession)["closing"]

    class Recorded:
        """The attribute ``closing``, which records what it is set to."""

        def __get__(self, session: WebSocketSession, owner: object) -> Any:
            return closing.__get__(session, owner)

        def __set__(self, session: WebSocketSession, state: ClosingState) -> None:
            closing.__set__(session, state)
            found.append(state)

    monkeypatch.setattr(WebSocketSession, "closing", Recorded())
    return found


AFTER_THE_CLIENT = (OPEN, CLIENT_CLOSING, CLOSING, CLOSED)
BEFORE_THE_CLIENT = (OPEN, CLOSING, CLOSED)
CASES: dict[Callable[[Case], None], tuple[ClosingState, ...]] = {
    the_handler_answers_before_the_reply: AFTER_THE_CLIENT,
    the_handler_takes_longer_than_close_timeout: AFTER_THE_CLIENT,
    the_application_closes_after_the_client: AFTER_THE_CLIENT,
    the_connection_is_lost_while_the_handler_answers: (OPEN, CLIENT_CLOSING, CLOSED),
    the_client_breaks_a_rule: AFTER_THE_CLIENT,
    the_handler_returns: BEFORE_THE_CLIENT,
    the_server_stops: BEFORE_THE_CLIENT,
    the_client_does_not_answer: BEFORE_THE_CLIENT,
    the_connection_is_lost: (OPEN, CLOSED),
}


EXPIRING = (
    the_handler_takes_longer_than_close_timeout,
    the_server_stops,
    the_client_does_not_answer,
)


@pytest.mark.parametrize("happens", CASES, ids=lambda happens: happens.__name__)
def test_every_case_makes_its_transitions(
    serve: Serve, clients: Clients, states: list[ClosingState], happens: Callable[[Case], None]
) -> None:
    case = Case(serve, clients, states, SHORT if happens in EXPIRING else TIMEOUT)
    try:
        happens(case)
        case.reach(CLOSED)
    finally:
        case.held.release()
    assert tuple(states) == CASES[happens]


def test_the_cases_reach_every_transition() -> None:
    assert {step for path in CASES.values() for step in pairwise(path)} == TRANSITIONS


def test_a_close_frame_after_a_ping_whose_answer_finds_the_connection_lost(
    serve: Serve, clients: Clients, states: list[ClosingState], log: ServerLog
) -> None:
    case = Case(serve, clients, states, TIMEOUT)
    (peer,) = peers_of(case.server)
    socket_of(peer).shutdown(socket.SHUT_WR)  # sending the pong fails
    codec = case.client.codec
    case.client.send(codec.ping() + codec.close(1000))
    case.reach(CLOSED)
    stop_within(case.server, 20)
    assert tuple(states) == (OPEN, CLOSED)
    assert not log.records


def test_a_stop_waits_for_a_closing_handshake_that_has_begun(
    serve: Serve, clients: Clients, states: list[ClosingState]
) -> None:
    """The stop sends no second close frame."""
    case = Case(serve, clients, states, TIMEOUT)
    (peer,) = peers_of(case.server)
    case.socket.close(4000, "enough")
    case.reach(CLOSING)
    done = Event()
    peer.loop.call_soon(peer.shut_down)
    peer.loop.call_soon(done.set)
    assert done.wait(TIMEOUT)
    assert case.socket.close_code == 4000
    assert case.client.expect_close() == Close(4000, "enough")
    case.reach(CLOSED)
    assert tuple(states) == BEFORE_THE_CLIENT


@pytest.mark.parametrize("client_closes", [False, True])
def test_the_last_events_of_a_topic_find_the_connection_lost(
    serve: Serve,
    clients: Clients,
    states: list[ClosingState],
    log: ServerLog,
    client_closes: bool,
) -> None:
    app, held, sockets = App(), Checkpoint(), Queue[WebSocket]()
    topic = app.topic("news")

    @app.websocket("/")
    def subscribe(ws: WebSocket) -> None:
        ws.subscribe(topic)
        sockets.put(ws)
        held.wait()

    server = serve(app)
    client = clients.websocket(server, "/")
    session = websocket_session(sockets.get(timeout=TIMEOUT))
    wait_until(lambda: session.subscriptions[0].begun, "the subscription has begun")
    if client_closes:
        client.send(client.codec.close(1000))
        wait_until(lambda: states[-1] is CLIENT_CLOSING, "the close frame is received")
    (peer,) = peers_of(server)
    socket_of(peer).shutdown(socket.SHUT_WR)  # sending the event fails

    def publish_and_close() -> None:
        topic.publish("the last event")
        if client_closes:
            session.answer_client()
        else:
            session.close(1000, "")

    peer.loop.call_soon(publish_and_close)
    wait_until(lambda: states[-1] is CLOSED, "the connection is closed")
    held.release()
    stop_within(server, 20)
    before = (OPEN, CLIENT_CLOSING) if client_closes else (OPEN,)
    assert tuple(states) == (*before, CLOSED)
    assert not log.records

"""Empty polls: a loop polls a few times without blocking if its client will probably send soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.clients import Clients, WebSocketClient
from tests.support.handlers import MessageGenerator, websocket_app
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe.server import WebSocket
from wsframe.server.handoff.loop import SPIN_POLLS
from wsframe.server.handoff.round import Found, Round

Timeouts = list[float | None]


def echo(ws: WebSocket) -> MessageGenerator:
    while True:
        ws.send((yield))


def exchange(client: WebSocketClient) -> None:
    client.send_messages("hello")
    assert client.next_event() == "hello"


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> Timeouts:
    """The timeouts of all polls, in order."""
    found: Timeouts = []
    receive = Round.receive

    def recorded(round_: Round, timeout: float | None) -> Found:
        found.append(timeout)
        return receive(round_, timeout)

    monkeypatch.setattr(Round, "receive", recorded)
    return found


def wait_until_blocked(timeouts: Timeouts) -> None:
    """Wait for the empty polls, and the blocking poll that follows them."""
    expected = "0" * SPIN_POLLS + "-"

    def blocked() -> bool:
        return expected in "".join("0" if timeout == 0 else "-" for timeout in timeouts)

    wait_until(blocked, "the loop blocks after its empty polls")


@pytest.mark.parametrize("act", [exchange, WebSocketClient.leave], ids=["a message", "a close"])
def test_empty_polls_follow_an_opening_and_each_act_of_the_client(
    serve: Serve, clients: Clients, timeouts: Timeouts, act: Callable[[WebSocketClient], object]
) -> None:
    server = serve(websocket_app(echo))
    client = clients.websocket(server, "/echo")
    wait_until_blocked(timeouts)
    timeouts.clear()
    act(client)
    wait_until_blocked(timeouts)


def test_no_empty_poll_follows_a_pong(serve: Serve, clients: Clients, timeouts: Timeouts) -> None:
    server = serve(websocket_app(echo))
    client = clients.websocket(server, "/echo")
    wait_until_blocked(timeouts)
    received = server.stats().bytes_in
    timeouts.clear()
    pong = client.codec.pong(b"unsolicited")
    client.send(pong)
    wait_until(lambda: server.stats().bytes_in == received + len(pong), "it is received")
    wait_until(lambda: timeouts, "the loop polls again")
    assert 0 not in timeouts

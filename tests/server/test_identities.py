"""Closing the connections of a user, in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import generator_echo, websocket_app
from tests.support.inspection import (
    clients_of,
    indexed,
    loops_of,
    topics_of,
    wait_for_disconnects,
)
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.server import App, ConnectionClosed, EventStream, Request, Server, WebSocket
from wsframe.server.sockets.identities import MAX_IDENTITY, STEP, Identity, identity_of
from wsframe.server.topics import closings

NUMBER = UUID("6a2f41a3-c54c-fce8-32d2-0324e1c32e22")


class Level(IntEnum):
    ONE = 1


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("code of the application")


def let_all_loops_turn(server: Server) -> None:
    """Wait until every loop has made the calls that are queued now."""
    for loop in loops_of(server):
        turned = threading.Event()
        loop.call_soon(turned.set)
        assert turned.wait(TIMEOUT)


def user(request: Request) -> str | None:
    return request.query.get("user", [""])[0] or None


def make_app(echo: Any = generator_echo) -> App:
    app = websocket_app(echo, authorize=user)
    app.sse("/news", app.topic("news"), authorize=user)

    @app.sse("/handled", authorize=user)
    def greet(stream: EventStream) -> None:
        stream.send("hello")

    return app


def plain_echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@pytest.mark.parametrize("echo", [generator_echo, plain_echo])
@pytest.mark.parametrize("loops", [1, 3])
def test_the_connections_of_one_user_are_closed(
    serve: Serve, clients: Clients, echo: Any, loops: int
) -> None:
    app = make_app(echo)
    server = serve(app, loops=loops)
    sockets = [clients.websocket(server, "/echo?user=ann") for _ in range(4)]
    streams = [clients.stream(server, f"/{name}?user=ann") for name in ("news", "handled")]
    assert streams[1].next_event().data == "hello"
    bob = clients.websocket(server, "/echo?user=bob")
    app.close_identity("ann", code=4001, reason="banned")
    assert [each.expect_close() for each in sockets] == [Close(4001, "banned")] * 4
    for stream in streams:
        stream.expect_end()
        assert stream.last_event_id == ":end"
    bob.send_messages("hello")
    assert bob.next_event() == "hello"
    wait_until(lambda: len(app.connections()) == 1, "the others have ended")


def test_a_closed_stream_that_reconnects_is_answered_with_204(
    serve: Serve, clients: Clients
) -> None:
    app = make_app()
    server = serve(app)
    stream = clients.stream(server, "/news?user=ann")
    app.close_identity("ann")
    stream.expect_end()
    again = clients.connect(server)
    again.send(get("/news?user=ann", ("Last-Event-ID", stream.last_event_id)))
    assert again.response().status == 204


def test_the_default_code_is_a_policy_violation(serve: Serve, clients: Clients) -> None:
    app = make_app()
    client = clients.websocket(serve(app), "/echo?user=ann")
    app.close_identity("ann")
    assert client.expect_close() == Close(1008, "")


def test_messages_sent_before_arrive_and_the_handler_gets_none_after(
    serve: Serve, clients: Clients
) -> None:
    app, ends = App(), []
    opened = threading.Event()
    sockets: list[WebSocket] = []

    @app.websocket("/", authorize=user)
    def record(ws: WebSocket) -> Iterator[None]:
        sockets.append(ws)
        opened.set()
        try:
            yield
        except ConnectionClosed as end:
            ends.append(end.code)
            raise

    client = clients.websocket(serve(app), "/?user=ann")
    assert opened.wait(TIMEOUT)
    sockets[0].send("last")
    app.close_identity("ann")
    assert client.next_event() == "last"
    assert client.expect_close() == Close(1008, "")
    wait_until(lambda: ends == [1008], "the handler has ended")


def test_a_handler_sets_the_identity_and_changes_it(serve: Serve, clients: Clients) -> None:
    app = App()

    @app.websocket("/")
    def log_in(ws: WebSocket) -> Iterator[Any]:
        while True:
            message = yield
            ws.identify(str(message) or None)
            ws.send(str(message))

    @app.sse("/stream/{name}")
    def stream(stream: EventStream, name: str) -> None:
        stream.identify(NUMBER if name == "number" else name)
        stream.send(name)

    server = serve(app)
    ann, bob, eve = (clients.websocket(server, "/") for _ in range(3))
    for client, names in ((ann, ["x", "ann"]), (bob, ["ann", "bob"]), (eve, ["ann", ""])):
        client.send_messages(*names)
        assert client.expect(2) == names
    streams = [clients.stream(server, f"/stream/{name}") for name in ("ann", "number", "eve")]
    for each in streams:
        each.next_event()
    app.close_identity("x")
    app.close_identity("ann")
    app.close_identity(NUMBER)
    assert ann.expect_close() == Close(1008, "")
    streams[0].expect_end()
    streams[1].expect_end()
    wait_until(lambda: len(app.connections()) == 3, "the others are open")
    assert {info.identity for info in app.connections()} == {"bob", None, "eve"}


def test_numbers_are_the_same_as_their_text(serve: Serve, clients: Clients) -> None:
    app = App()
    app.websocket("/", authorize=lambda request: 42)(generator_echo)
    client = clients.websocket(serve(app), "/")
    app.close_identity("42")
    client.expect_close()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ann", "ann"),
        (Name("ann"), "ann"),
        (7, "7"),
        (Level.ONE, "1"),
        (NUMBER, str(NUMBER)),
        ("x" * MAX_IDENTITY, "x" * MAX_IDENTITY),
        ("x" * (MAX_IDENTITY + 1), None),
        ("", None),
        ("\ud800", None),
        (10**600, None),
        (True, None),
        (None, None),
        (object(), None),
        (["ann"], None),
    ],
)
def test_a_value_of_authorize_may_be_an_identity(value: object, text: str | None) -> None:
    assert identity_of(value) == text


def test_wrong_arguments_are_errors() -> None:
    app = App()
    for wrong in (None, True, 1.5, b"ann"):
        with pytest.raises(TypeError, match="identity must be a str, an int or a UUID, got "):
            app.close_identity(wrong)  # type: ignore[arg-type]
    for empty in ("", "x" * 513):
        with pytest.raises(ValueError, match="identity must have 1 to 512 bytes in UTF-8: "):
            app.close_identity(empty)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        app.close_identity("\ud800")
    with pytest.raises(ValueError, match="1006"):
        app.close_identity("ann", code=1006)
    with pytest.raises(ValueError, match="123"):
        app.close_identity("ann", reason="x" * 124)


def test_a_user_without_connections_is_no_error(serve: Serve, clients: Clients) -> None:
    app = make_app()
    app.close_identity("ann")
    server = serve(app)
    app.close_identity("ann")
    client = clients.websocket(server, "/echo?user=ann")  # a later request is not affected
    client.send_messages("hello")
    assert client.next_event() == "hello"


@pytest.mark.parametrize("path", ["/echo", "/news"])
def test_a_request_that_was_authorized_before_the_closing_is_refused(
    serve: Serve, clients: Clients, path: str
) -> None:
    judging, release = threading.Event(), threading.Event()

    def judge(request: Request) -> Identity:
        judging.set()
        release.wait(TIMEOUT)
        return "ann"

    app = App()
    app.websocket("/echo", authorize=judge)(generator_echo)
    app.sse("/news", app.topic("news"), authorize=judge)
    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade(path) if path == "/echo" else get(path))
    assert judging.wait(TIMEOUT)
    app.close_identity("ann")
    let_all_loops_turn(server)
    release.set()
    assert client.response().status == 403
    again = clients.connect(server)
    again.send(upgrade(path) if path == "/echo" else get(path))
    assert again.read_until(b"\r\n").split()[1] in (b"101", b"200")


def test_many_connections_are_closed_in_steps(serve: Serve, clients: Clients) -> None:
    app = make_app()
    server = serve(app)
    count = 3 * STEP + 1
    sockets = [clients.websocket(server, "/echo?user=ann") for _ in range(count)]
    [group] = clients_of(server)
    steps: list[int] = []

    def look() -> None:
        left = sum(getattr(peer.session, "over", True) is None for peer in group.peers)
        if not steps or steps[-1] != left:
            steps.append(left)
        if left:
            group.loop.call_soon(look)

    group.loop.call_soon(look)
    app.close_identity("ann")
    for client in sockets:
        client.expect_close()
    wait_until(lambda: steps[-1] == 0, "all are closed")
    assert all(before - after <= STEP for before, after in pairwise(steps))
    assert len(steps) >= 4


def test_a_second_closing_does_not_queue_the_connections_again(
    serve: Serve, clients: Clients
) -> None:
    app = make_app()
    server = serve(app)
    sockets = [clients.websocket(server, "/echo?user=ann") for _ in range(STEP + 1)]
    other = clients.websocket(server, "/echo?user=bob")
    for _ in range(3):
        app.close_identity("ann", code=4001)
    app.close_identity("bob", code=4002)
    assert {client.expect_close().code for client in sockets} == {4001}
    assert other.expect_close().code == 4002


def test_an_identity_takes_no_memory_without_connections(serve: Serve, clients: Clients) -> None:
    server = serve(make_app())
    for number in range(20):
        clients.websocket(server, f"/echo?user=user{number}").leave()
    ann, _ = (clients.websocket(server, "/echo?user=ann") for _ in range(2))
    ann.leave()
    wait_for_disconnects(server, 1)
    assert indexed(server) == {"ann": 1}


def test_closings_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(closings, "monotonic", lambda: now)
    app = App()

    def is_remembered(name: str) -> bool:
        return topics_of(app).closings.closed_since(name, 0)

    app.close_identity("first")
    for number in range(9_999):
        app.close_identity(number)
    assert is_remembered("first")
    app.close_identity("last")
    assert not is_remembered("first")
    assert is_remembered("0")
    now += 61
    app.close_identity("later")
    assert not is_remembered("last")
    assert is_remembered("later")


def test_a_name_of_a_topic_is_reserved() -> None:
    with pytest.raises(ValueError, match="reserved"):
        App().topic("\0closed identities")

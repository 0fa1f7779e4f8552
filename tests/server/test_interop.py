"""Another library's client, which has its own idea of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from wsframe import PerMessageDeflate
from wsframe.server import Server, WebSocket

from .clients import TIMEOUT
from .conftest import Serve, ServerLog
from .handlers import BOTH_KINDS, Waits, websocket_app


def dial(server: Server, path: str = "/echo", **options: Any) -> ClientConnection:
    """A client; with its default options it offers permessage-deflate."""
    options = {"open_timeout": TIMEOUT, "close_timeout": TIMEOUT, "proxy": None} | options
    return connect(f"ws://127.0.0.1:{server.port}{path}", **options)


@BOTH_KINDS
@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize(
    "deflate", [False, True, PerMessageDeflate()], ids=["no", "yes", "context"]
)
def test_messages_of_all_kinds_come_back(
    serve: Serve,
    echo: Callable[..., Any],
    compression: str | None,
    deflate: bool | PerMessageDeflate,
) -> None:
    with dial(serve(websocket_app(echo, deflate=deflate)), compression=compression) as client:
        assert bool(client.protocol.extensions) == bool(deflate and compression)
        for message in ("text", "", "ünïcödé 🎈", b"binary", b"", "x" * 100_000, bytes(1 << 20)):
            client.send(message)
            assert client.recv(TIMEOUT) == message


@BOTH_KINDS
def test_fragments_come_back_as_one_message(serve: Serve, echo: Callable[..., Any]) -> None:
    with dial(serve(websocket_app(echo))) as client:
        client.send(["one ", "twö ", "", "three"])
        assert client.recv(TIMEOUT) == "one twö three"
        client.send([b"one ", b"two"])
        assert client.recv(TIMEOUT) == b"one two"


@BOTH_KINDS
def test_pings_are_answered(serve: Serve, echo: Callable[..., Any]) -> None:
    with dial(serve(websocket_app(echo))) as client:
        assert client.ping(b"x" * 125).wait(TIMEOUT)
        pongs = [client.ping() for _ in range(10)]
        assert all(pong.wait(TIMEOUT) for pong in pongs)


def test_a_ping_of_the_server_is_answered_unseen(serve: Serve) -> None:
    def ping(ws: WebSocket) -> Waits:
        ws.ping(b"are you there")
        ws.send((yield))

    with dial(serve(websocket_app(ping))) as client:
        client.send("yes")
        assert client.recv(TIMEOUT) == "yes"


@BOTH_KINDS
def test_the_clients_close_is_answered(serve: Serve, echo: Callable[..., Any]) -> None:
    with dial(serve(websocket_app(echo))) as client:
        client.close(4000, "enough")
        assert client.protocol.close_code == 4000
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(TIMEOUT)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4000


def test_the_servers_close_is_understood(serve: Serve, log: ServerLog) -> None:
    def end(ws: WebSocket) -> None:
        message = ws.receive()
        if message == "close":
            ws.close(4000, "ünd Schluß")
        elif message == "fail":
            raise RuntimeError

    server = serve(websocket_app(end))
    with dial(server) as client:
        client.send("return")
        with pytest.raises(ConnectionClosedOK):
            client.recv(TIMEOUT)
    for word, code, reason in (
        ("close", 4000, "ünd Schluß"),
        ("fail", 1011, "the handler failed"),
    ):
        with dial(server) as client:
            client.send(word)
            with pytest.raises(ConnectionClosedError) as caught:
                client.recv(TIMEOUT)
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)
    log.expect("the handler of /echo failed")


def test_a_message_over_the_limit_is_refused(serve: Serve) -> None:
    def echo(ws: WebSocket) -> Waits:
        while True:
            ws.send((yield))

    with dial(serve(websocket_app(echo, max_message_size=1000))) as client:
        client.send("x" * 1001)
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(TIMEOUT)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert "limit of 1000" in caught.value.rcvd.reason


def test_a_subprotocol_is_agreed_on(serve: Serve) -> None:
    def tell(ws: WebSocket) -> None:
        ws.send(str(ws.subprotocol))

    server = serve(websocket_app(tell, subprotocols=["b", "c"]))
    with dial(server, subprotocols=[Subprotocol("a"), Subprotocol("b")]) as client:
        assert client.subprotocol == "b"
        assert client.recv(TIMEOUT) == "b"


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [("/nothing", None, 404), ("/echo", "https://evil.example", 403)],
)
def test_refusals_are_understood(serve: Serve, path: str, origin: str | None, status: int) -> None:
    server = serve(websocket_app(lambda ws: None))
    with pytest.raises(InvalidStatus) as caught:
        dial(server, path, origin=origin)
    assert caught.value.response.status_code == status
    assert caught.value.response.body


def test_the_server_stops_under_its_clients(serve: Serve) -> None:
    def echo(ws: WebSocket) -> Waits:
        while True:
            ws.send((yield))

    server = serve(websocket_app(echo), drain=60)
    with dial(server) as client:
        client.send("x")
        assert client.recv(TIMEOUT) == "x"
        server.stop()
        with pytest.raises(ConnectionClosedOK) as caught:
            client.recv(TIMEOUT)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001

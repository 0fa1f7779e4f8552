"""A server without listeners, to which connections are handed that were accepted elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.clients import Client, StreamClient, WebSocketClient, get
from tests.support.handlers import generator_echo, plain_echo
from tests.support.inspection import peers_of, socket_of
from tests.support.serving import stop_within
from tests.support.waiting import wait_until
from wsframe.server import EventStream, Server, Settings
from wsframe.server.dispatch.routes import EventRoute, PageRoute, Routes, WebSocketRoute
from wsframe.server.timing import Timing
from wsframe.server.topics.registry import Topics


class Acceptor:
    """A listening socket of the test, which hands each connection to a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]

    def accept(self) -> None:
        """Accept one connection and hand it over."""
        sock, address = self._sock.accept()
        try:
            self._server.adopt(sock, address)
        except RuntimeError:
            sock.close()
            raise

    def accept_later(self) -> threading.Thread:
        """Do so in another thread, because a client waits for the answer at once."""
        thread = threading.Thread(target=self.accept)
        thread.start()
        return thread

    def close(self) -> None:
        self._sock.close()


def send_one(stream: EventStream) -> None:
    stream.send("one")


@pytest.fixture
def routes() -> Routes:
    routes = Routes()
    routes.add("/", PageRoute(b"hello", "text/plain"))
    for path, handler in (("/plain", plain_echo), ("/generator", generator_echo)):
        routes.add(path, WebSocketRoute(path, handler, (), "*", 1 << 20, None, None, None))
    routes.add("/events", EventRoute("/events", send_one, None, "*", False, None, None))
    return routes


@pytest.fixture
def server(routes: Routes) -> Iterator[Server]:
    timing = Timing()
    server = Server(routes, "", [], Settings(loops=2, drain=0.5), Topics(timing), timing)
    yield server
    stop_within(server, 20)


@pytest.fixture
def acceptor(server: Server) -> Iterator[Acceptor]:
    acceptor = Acceptor(server)
    yield acceptor
    acceptor.close()


def test_an_adopted_connection_gets_a_page(server: Server, acceptor: Acceptor) -> None:
    assert server.port == 0
    client = Client(acceptor.port)
    client.send(get("/"))
    acceptor.accept()
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello")
    wait_until(lambda: server.stats().accepted == 1, "the connection is counted")


@pytest.mark.parametrize("path", ["/plain", "/generator"])
def test_an_adopted_connection_becomes_a_websocket(acceptor: Acceptor, path: str) -> None:
    thread = acceptor.accept_later()
    client = WebSocketClient(acceptor.port, path)
    thread.join()
    client.send_messages("a", b"b")
    assert client.expect(2) == ["a", b"b"]
    assert client.leave().code == 1000


def test_the_kernel_buffers_of_an_adopted_connection_are_limited(
    server: Server, acceptor: Acceptor
) -> None:
    client = Client(acceptor.port)
    acceptor.accept()
    wait_until(lambda: peers_of(server), "the connection is served")
    (peer,) = peers_of(server)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        # Linux doubles the value for its own data.
        assert socket_of(peer).getsockopt(socket.SOL_SOCKET, option) <= 2 * 64 * 1024
    client.close()


@pytest.mark.slow
def test_stopping_ends_adopted_connections(server: Server, acceptor: Acceptor) -> None:
    thread = acceptor.accept_later()
    stream = StreamClient(acceptor.port, "/events")
    thread.join()
    assert stream.expect(1) == ["one"]
    stop_within(server, 20)
    stream.expect_end()


def test_a_stopped_server_adopts_no_connections(server: Server, acceptor: Acceptor) -> None:
    stop_within(server, 20)
    client = Client(acceptor.port)
    with pytest.raises(RuntimeError, match="shutting down"):
        acceptor.accept()
    client.close()

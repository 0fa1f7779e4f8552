"""A server without listeners, to which connections are handed that were accepted elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.support.clients import Client, StreamClient, WebSocketClient, get, masked
from tests.support.handlers import generator_echo, plain_echo
from tests.support.inspection import peers_of, socket_of
from tests.support.log import ServerLog
from tests.support.serving import stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Acceptance, Connection, Event, Opcode, Role
from wsframe.server import EventStream, Request, Server, Settings, WebSocket
from wsframe.server.dispatch.opening import Opening
from wsframe.server.dispatch.routes import EventRoute, PageRoute, Routes, WebSocketRoute
from wsframe.server.sockets.listening import Listening
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
    server = Server(routes, Listening(), Settings(loops=2, drain=0.5), Topics(timing), timing)
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


def begin(
    server: Server, opening: Callable[[Request], Opening], first: str = "GET"
) -> tuple[socket.socket, socket.socket]:
    """Return a client and its connection, whose request is answered by this opening."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    client.settimeout(TIMEOUT)
    sock, address = listener.accept()
    listener.close()
    request = Request(first, "/elsewhere", [("Host", "localhost")], "1.1", address, "http")
    server.adopt(sock, address, opening(request))
    return client, sock


def test_a_request_that_was_read_elsewhere_becomes_a_websocket(server: Server) -> None:
    def handler(ws: WebSocket) -> Generator[None, str, None]:
        ws.send(f"hello {ws.request.path}")
        while True:
            ws.send((yield))

    route = WebSocketRoute("", handler, (), "*", 1 << 20, None, None, None)
    early = masked(Opcode.TEXT, "early")
    client, _ = begin(
        server,
        lambda request: Opening(
            request,
            route,
            handler,
            generator=True,
            acceptance=Acceptance((("X-Own", "1"),)),
            headers=(("Set-Cookie", "a=b"),),
            rest=early[:3],
        ),
    )
    client.sendall(early[3:])
    codec = Connection(Role.CLIENT)
    with client, client.makefile("rb") as lines:
        assert lines.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
        assert lines.readline() == b"X-Own: 1\r\n"
        assert lines.readline() == b"Set-Cookie: a=b\r\n"
        assert lines.readline() == b"\r\n"
        received: list[Event] = []
        while len(received) < 2:
            received += codec.receive(lines.read1())
        assert received == ["hello /elsewhere", "early"]
    wait_until(lambda: not server.stats().websockets, "the connection has ended")
    assert server.stats().accepted == 1


@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_a_request_that_was_read_elsewhere_becomes_an_event_stream(
    server: Server, method: str
) -> None:
    route = EventRoute("", send_one, None, "*", False, None, None)
    client, _ = begin(
        server,
        lambda request: Opening(
            request, route, send_one, generator=False, headers=(("X-More", "1"),)
        ),
        method,
    )
    with client, client.makefile("rb") as lines:
        assert lines.readline() == b"HTTP/1.1 200 OK\r\n"
        head = list(iter(lines.readline, b"\r\n"))
        assert head.count(b"X-More: 1\r\n") == 1
        if method == "HEAD":
            assert lines.read() == b""
        else:
            assert lines.readline().startswith(b"retry: ")
            assert lines.readline() == b"\n"
            assert lines.readline() == b"data: one\n"


def test_an_opening_without_a_free_thread_is_refused(routes: Routes, log: ServerLog) -> None:
    timing = Timing()
    settings = Settings(max_handler_threads=1, drain=0.5, max_thread_share=1.0)
    route = WebSocketRoute("", plain_echo, (), "*", 1 << 20, None, None, None)
    with Server(routes, Listening(), settings, Topics(timing), timing) as server:
        clients = [
            begin(
                server,
                lambda request: Opening(
                    request, route, plain_echo, generator=False, acceptance=Acceptance(())
                ),
            )[0]
            for _ in range(2)
        ]
        heads = [client.recv(100).partition(b"\r\n")[0] for client in clients]
        assert heads == [b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 503 Service Unavailable"]
        for client in clients:
            client.close()
    log.discard()


def test_a_handler_that_cannot_be_called_ends_its_connection(
    server: Server, log: ServerLog
) -> None:
    def handler(ws: WebSocket) -> Generator[None, str, None]:
        raise ZeroDivisionError

    route = WebSocketRoute("", handler, (), "*", 1 << 20, None, None, None)
    client, _ = begin(
        server,
        lambda request: Opening(request, route, handler, generator=True, acceptance=Acceptance(())),
    )
    assert client.recv(100) == b""
    client.close()
    log.expect("internal error in the loop")
    wait_until(lambda: server.capacity()[0] == 0, "the connection has ended")


def test_the_number_of_connections_and_its_limit_are_known(server: Server) -> None:
    limit = server.capacity()[1]
    assert server.capacity() == (0, limit)
    route = WebSocketRoute("", generator_echo, (), "*", 1 << 20, None, None, None)
    client, _ = begin(
        server,
        lambda request: Opening(
            request, route, generator_echo, generator=True, acceptance=Acceptance(())
        ),
    )
    wait_until(lambda: server.capacity() == (1, limit), "the connection is counted")
    client.close()
    wait_until(lambda: server.capacity() == (0, limit), "the connection has ended")


def test_a_socket_is_read_to_its_end_and_closed(server: Server) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    server.discard_from(theirs)
    ours.sendall(b"x" * 1_000_000)  # more than the buffers of the system
    ours.close()
    wait_until(lambda: theirs.fileno() < 0, "the socket is closed")


def test_a_socket_that_is_reset_is_closed(server: Server) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    client = Client(listener.getsockname()[1])
    sock, _ = listener.accept()
    listener.close()
    server.discard_from(sock)
    client.reset()
    wait_until(lambda: sock.fileno() < 0, "the socket is closed")


def test_stopping_closes_a_socket_whose_data_is_discarded(server: Server) -> None:
    ours, theirs = socket.socketpair()
    server.discard_from(theirs)
    stop_within(server, 20)
    assert theirs.fileno() < 0
    assert ours.recv(1) == b""
    ours.close()


def test_a_stopped_server_closes_a_socket_at_once(server: Server) -> None:
    stop_within(server, 20)
    ours, theirs = socket.socketpair()
    server.discard_from(theirs)
    assert theirs.fileno() < 0
    ours.close()


def test_a_stopped_server_adopts_no_connections(server: Server, acceptor: Acceptor) -> None:
    stop_within(server, 20)
    client = Client(acceptor.port)
    with pytest.raises(RuntimeError, match="shutting down"):
        acceptor.accept()
    client.close()

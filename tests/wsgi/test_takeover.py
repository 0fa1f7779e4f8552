"""The moment in which a connection is taken: only the right one, once, or nothing at all."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import pytest

from tests.support.clients import masked
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import HandshakeError, Opcode
from wsframe.wsgi import Live, WebSocket

from .arrived import UPGRADE, Arrived
from .conftest import MakeLive

WARNING = 30


def greet(ws: WebSocket) -> Generator[None, str, None]:
    ws.send("hello")
    while True:
        ws.send((yield))


@pytest.fixture
def request_to_upgrade() -> Iterator[Arrived]:
    with Arrived(**UPGRADE) as arrived:
        yield arrived


def expect_nothing_taken(arrived: Arrived, log: ServerLog, reason: str) -> None:
    """Check that the server still has the connection, and that the answer is an error."""
    assert arrived.status == 503
    log.expect(f"the connection of /here was not taken over: {reason}", WARNING)
    arrived.sock.sendall(b"still the server's")
    assert arrived.client.recv(100) == b"still the server's"


def test_the_connection_is_taken_when_the_server_asks_for_the_body(
    live: Live, request_to_upgrade: Arrived
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    assert arrived.status == 101
    arrived.sock.sendall(b"before")
    assert arrived.client.recv(100) == b"before"
    assert list(reply) == []
    arrived.sock.sendall(b"a head that no client must see")
    assert arrived.sock.recv(100) == b""
    reply.close()
    assert arrived.receive_until().startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    arrived.receive_until(b"hello")


def test_the_bytes_read_ahead_belong_to_an_upgraded_connection(live: Live) -> None:
    frame = masked(Opcode.TEXT, "early")
    with Arrived(frame[:-1], **UPGRADE) as arrived:
        assert arrived.serve(live.websocket(greet)) == b""
        assert arrived.environ["wsgi.input"].read() == b""
        arrived.receive_until(b"hello")
        arrived.client.sendall(frame[-1:])
        arrived.receive_until(b"early")


def test_the_bytes_behind_another_request_are_discarded(live: Live) -> None:
    with Arrived(b"GET /next HTTP/1.1\r\n\r\n") as arrived:
        assert arrived.serve(live.events(live.topic("news"))) == b""
        assert arrived.environ["wsgi.input"].read() == b""
        head = arrived.receive_until()
        assert b"text/event-stream" in head


@pytest.mark.parametrize("limit", [1000, 2000])
def test_servers_that_call_select_keep_the_low_descriptors(
    live: Live, request_to_upgrade: Arrived, limit: int
) -> None:
    arrived = request_to_upgrade
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        arrived.serve(live.websocket(greet))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    arrived.receive_until(b"hello")
    high = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd >= 1024]
    assert len(high) == (1 if limit == 2000 else 0)


def test_the_dummy_blocks_as_the_socket_did(live: Live, request_to_upgrade: Arrived) -> None:
    arrived = request_to_upgrade
    arrived.sock.setblocking(False)
    arrived.serve(live.websocket(greet))
    assert not os.get_blocking(arrived.sock.fileno())
    assert arrived.sock.recv(100) == b""


def test_the_server_can_send_any_amount_to_the_dummy(
    live: Live, request_to_upgrade: Arrived
) -> None:
    arrived = request_to_upgrade
    arrived.serve(live.websocket(greet))
    arrived.sock.settimeout(TIMEOUT)
    arrived.sock.sendall(b"x" * 2_000_000)


def test_a_closed_connection_is_refused_at_once(live: Live, request_to_upgrade: Arrived) -> None:
    arrived = request_to_upgrade
    os.close(arrived.sock.detach())
    arrived.serve(live.websocket(greet))
    assert arrived.status == 501


def test_a_connection_that_was_closed_meanwhile_is_not_taken(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    fd = arrived.sock.detach()
    assert b"".join(reply) == b"the connection cannot be taken over\n"
    arrived.sock = socket.socket(fileno=fd)
    expect_nothing_taken(arrived, log, "the server has closed the connection")
    reply.close()


def test_a_descriptor_that_belongs_to_another_connection_meanwhile_is_not_replaced(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    with Arrived() as other:
        # The server closes the connection, and the next one gets its descriptor.
        own = socket.socket(fileno=os.dup(arrived.sock.fileno()))
        os.dup2(other.sock.fileno(), arrived.sock.fileno())
        assert b"".join(reply) == b"the connection cannot be taken over\n"
        reply.close()
        arrived.sock.sendall(b"to the other")
        assert other.client.recv(100) == b"to the other"
        arrived.sock.close()
        arrived.sock = own
        expect_nothing_taken(arrived, log, "the server has closed the connection")


def test_a_descriptor_that_changes_while_it_is_taken_is_not_replaced(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    class Fickle:
        """A socket of a server that closes it at the worst moment: before the replacement."""

        def __init__(self, sock: socket.socket) -> None:
            self.calls = 0
            self.sock = sock

        def fileno(self) -> int:
            self.calls += 1
            return self.sock.fileno() if self.calls < 3 else -1

    arrived = request_to_upgrade
    fickle = arrived.environ["werkzeug.socket"] = Fickle(arrived.sock)
    arrived.serve(live.websocket(greet))
    assert fickle.calls == 3
    expect_nothing_taken(arrived, log, "the server has closed the connection")


def test_a_connection_is_taken_once(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    application = live.websocket(greet)
    first, second = application.open(arrived.environ), application.open(arrived.environ)
    assert list(first) == []
    second.start(arrived.start_response)
    assert b"".join(second) == b"the connection cannot be taken over\n"
    log.expect("the server has closed the connection", WARNING)
    arrived.receive_until(b"hello")


def test_the_dummy_is_not_taken(live: Live, request_to_upgrade: Arrived, log: ServerLog) -> None:
    arrived = request_to_upgrade
    application = live.websocket(greet)
    assert list(application.open(arrived.environ)) == []
    arrived.receive_until(b"hello")
    reply = arrived.call(application)
    assert reply.status == 101  # the dummy looks like a connection
    assert b"".join(reply) == b"the connection cannot be taken over\n"
    log.expect("the socket was not accepted by a server", WARNING)


@pytest.mark.parametrize("replies", [1, 2])
def test_of_several_threads_one_takes_the_connection(
    live: Live, request_to_upgrade: Arrived, replies: int, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    application = live.websocket(greet)
    opened = [application.open(arrived.environ) for _ in range(replies)]
    for reply in opened:
        reply.start(lambda *arguments: None)
    barrier = threading.Barrier(4)
    bodies: list[bytes] = []

    def take(number: int) -> None:
        barrier.wait()
        bodies.append(b"".join(opened[number % replies]))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrived.receive_until(b"hello")
    assert live.stats().accepted == 1
    assert sum(bool(body) for body in bodies) == replies - 1
    log.discard()


def test_a_descriptor_that_becomes_a_file_is_not_taken(
    live: Live, request_to_upgrade: Arrived, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    duplicate = fcntl.fcntl

    def late(fd: int, *arguments: int) -> int:
        """Duplicate a file, which the server has opened at the worst moment."""
        with open(os.devnull) as file:
            return duplicate(file.fileno(), *arguments)

    monkeypatch.setattr(fcntl, "fcntl", late)
    assert b"".join(reply) == b"the connection cannot be taken over\n"
    monkeypatch.undo()
    expect_nothing_taken(arrived, log, "[Errno 88] Socket operation on non-socket")


def test_a_client_that_has_disconnected_is_not_taken(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    arrived.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    arrived.client.close()
    assert b"".join(reply)
    log.expect("the client has disconnected", WARNING)


@pytest.mark.parametrize(
    "changes",
    [
        {"REMOTE_ADDR": "127.0.0.2"},
        {"REMOTE_PORT": "1"},
        {"REMOTE_ADDR": "::1"},
        {"REMOTE_PORT": "1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"},
        {"REMOTE_ADDR": "127.0.0.2", "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "127.0.0.3"}},
        {"REMOTE_ADDR": "192.0.2.1", "PROXY_ADDR": "127.0.0.1", "PROXY_PORT": "1"},
    ],
)
def test_the_connection_of_another_client_is_not_taken(
    live: Live, request_to_upgrade: Arrived, changes: dict[str, Any], log: ServerLog
) -> None:
    arrived = request_to_upgrade
    arrived.environ.update(changes)
    arrived.serve(live.websocket(greet))
    expect_nothing_taken(arrived, log, "the connection is to 127.0.0.1 port ")


@pytest.mark.parametrize(
    "changes",
    [
        {"REMOTE_PORT": ""},
        {"REMOTE_PORT": "0"},
        {"REMOTE_ADDR": "::ffff:127.0.0.1"},
        {"REMOTE_ADDR": "127.0.0.1%lo"},
        {"REMOTE_ADDR": "unknown"},
        {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"},
        {"REMOTE_ADDR": "192.0.2.1", "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "127.0.0.1"}},
        {"REMOTE_ADDR": "192.0.2.1", "PROXY_ADDR": "127.0.0.1", "PROXY_PORT": ""},
    ],
)
def test_the_client_may_be_named_in_several_ways(
    live: Live, request_to_upgrade: Arrived, changes: dict[str, Any]
) -> None:
    arrived = request_to_upgrade
    arrived.environ.update(changes)
    arrived.serve(live.websocket(greet))
    arrived.receive_until(b"hello")


def test_a_connection_to_a_unix_socket_is_taken(live: Live, tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
        Arrived(**UPGRADE) as arrived,
    ):
        listener.bind(path)
        listener.listen()
        client.connect(path)
        sock, _ = listener.accept()
        arrived.environ.update({"REMOTE_ADDR": "", "REMOTE_PORT": "", "werkzeug.socket": sock})
        seen: list[object] = []

        def handler(ws: WebSocket) -> Generator[None, str, None]:
            seen.extend((ws.request.address, ws.request.client))
            ws.send("hello")
            yield

        arrived.serve(live.websocket(handler))
        client.settimeout(TIMEOUT)
        while b"hello" not in client.recv(1000):
            pass
        assert seen == [path, "unix"]
        sock.close()


def test_a_process_without_descriptors_answers_503(
    live: Live, request_to_upgrade: Arrived, monkeypatch: pytest.MonkeyPatch, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))

    def fail() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", fail)
    assert b"".join(reply) == b"the connection cannot be taken over\n"
    monkeypatch.undo()
    expect_nothing_taken(arrived, log, "[Errno 24] Too many open files")
    assert arrived.header("Retry-After") == "5"


def test_a_failure_to_read_ahead_ends_the_connection(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    arrived.environ["wsgi.input"].close()
    assert b"".join(reply) == b"the connection cannot be taken over\n"
    assert arrived.client.recv(100) == b""
    log.expect(
        "the bytes after the request cannot be read from the server's buffer: ValueError", WARNING
    )


def test_a_framework_without_start_response_gets_an_exception(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = live.websocket(greet).open(arrived.environ)
    os.close(arrived.sock.detach())
    with pytest.raises(HandshakeError, match="the connection cannot be taken over"):
        next(reply)
    log.expect("the server has closed the connection", WARNING)


# Middleware --------------------------------------------------------------------------------------


def wrapping(reply: Iterable[bytes]) -> Iterator[bytes]:
    yield from reply


def joining(reply: Iterable[bytes]) -> Iterable[bytes]:
    return [b"".join(reply)]


def appending(reply: Any) -> Iterable[bytes]:
    body = [*reply, b"<!-- appended -->"]
    reply.close()
    return body


@pytest.mark.parametrize("middleware", [wrapping, joining, appending])
def test_middleware_may_wrap_or_consume_the_reply(
    live: Live, request_to_upgrade: Arrived, middleware: Callable[[Any], Iterable[bytes]]
) -> None:
    arrived = request_to_upgrade
    for part in middleware(arrived.call(live.websocket(greet))):
        arrived.sock.sendall(part)
    arrived.receive_until(b"hello")


def test_a_reply_that_is_closed_before_it_is_sent_takes_nothing(
    live: Live, request_to_upgrade: Arrived, log: ServerLog
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    reply.close()
    reply.close()
    assert list(reply) == []
    log.expect("the response was closed without being sent", WARNING)
    arrived.sock.sendall(b"the server's answer")
    assert arrived.client.recv(100) == b"the server's answer"


def test_middleware_may_replace_the_input(live: Live, request_to_upgrade: Arrived) -> None:
    arrived = request_to_upgrade
    arrived.environ["wsgi.input"] = object()
    arrived.serve(live.websocket(greet))
    arrived.receive_until(b"hello")


def test_headers_of_a_framework_are_sent_with_the_101(
    live: Live, request_to_upgrade: Arrived
) -> None:
    arrived = request_to_upgrade
    reply = live.websocket(greet).open(arrived.environ)
    reply.add_headers(
        [
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Length", "3"),
            ("Content-Type", "text/html"),
            ("Connection", "close"),
            ("Sec-WebSocket-Protocol", "other"),
        ]
    )
    with pytest.raises(ValueError, match="control characters"):
        reply.add_headers([("X-Bad", "a\r\nSet-Cookie: c=3")])
    assert list(reply) == []
    head = arrived.receive_until()
    assert head.count(b"Set-Cookie: ") == 2
    assert b"Content" not in head
    assert b"close" not in head
    assert b"Protocol: other" not in head


# The process ends --------------------------------------------------------------------------------


def test_a_request_is_refused_after_the_stop(live: Live, request_to_upgrade: Arrived) -> None:
    arrived = request_to_upgrade
    live.stop()
    arrived.serve(live.websocket(greet))
    assert arrived.status == 503
    assert arrived.header("Retry-After") == "5"


def test_a_connection_that_is_taken_after_the_stop_is_closed(
    live: Live, request_to_upgrade: Arrived
) -> None:
    arrived = request_to_upgrade
    reply = arrived.call(live.websocket(greet))
    live.stop()
    assert list(reply) == []
    assert arrived.client.recv(100) == b""


def test_stopping_closes_websockets_with_1001(
    make_live: MakeLive, request_to_upgrade: Arrived
) -> None:
    live = make_live(drain=5.0)
    request_to_upgrade.serve(live.websocket(greet))
    request_to_upgrade.receive_until(b"hello")
    stopping = threading.Thread(target=live.stop)
    stopping.start()
    assert request_to_upgrade.client.recv(4)[2:] == (1001).to_bytes(2, "big")
    request_to_upgrade.client.close()
    stopping.join()
    wait_until(lambda: not live.stats().websockets, "the connection has ended")

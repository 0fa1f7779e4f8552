"""TLS by the WSGI server itself: its TLS socket is taken over."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cheroot.ssl.builtin import BuiltinSSLAdapter

from tests.support.clients import Client, StreamClient, WebSocketClient, masked, upgrade
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import HandshakeError, Opcode
from wsframe.wsgi import Live, WebSocket
from wsframe.wsgi.connections import connection_of
from wsframe.wsgi.tls import Retired, TakenTLS

from . import running
from .arrived import UPGRADE, Arrived
from .conftest import Certificates, MakeLive

WARNING = 30


def echo(ws: WebSocket) -> Generator[None, str, None]:
    ws.send("hello")
    while True:
        ws.send((yield))


class Site:
    """The application of these tests."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.news = live.topic("news", history=10)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/name":
            return self.live.websocket(name)(environ, start_response)
        if environ["PATH_INFO"] == "/echo":
            return self.live.websocket(echo)(environ, start_response)
        return self.live.events(self.news)(environ, start_response)


def cheroot(site: Site, certificates: Certificates, directory: Path) -> AbstractContextManager[int]:
    certificates.write(directory)
    adapter = BuiltinSSLAdapter(str(directory / "both.pem"), str(directory / "both.pem"))
    return running.cheroot_server(site, ssl_adapter=adapter)


def werkzeug(
    site: Site, certificates: Certificates, directory: Path
) -> AbstractContextManager[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.configure(context)
    return running.werkzeug_server(site, ssl_context=context)


def name(ws: WebSocket) -> Generator[None, str, None]:
    certificate = ws.request.client_certificate or {"subject": ()}
    ws.send(str(certificate["subject"]))
    yield


@pytest.fixture
def site(live: Live) -> Site:
    return Site(live)


@pytest.fixture(params=[cheroot, werkzeug])
def port(
    request: pytest.FixtureRequest, site: Site, certificates: Certificates, tmp_path: Path
) -> Iterator[int]:
    """A server with TLS and the site; the clients of a test are closed before it ends."""
    with request.param(site, certificates, tmp_path) as port:
        yield port


def test_a_websocket_is_served_over_tls(port: int, certificates: Certificates) -> None:
    client = WebSocketClient(port, "/echo", tls=certificates.client)
    assert client.expect(1) == ["hello"]
    client.send_messages("a", "x" * 100_000)
    assert client.expect(2) == ["a", "x" * 100_000]
    assert client.leave().code == 1000


def test_handlers_see_the_certificate_of_a_client(site: Site, certificates: Certificates) -> None:
    context = certificates.server_context()
    with running.werkzeug_server(site, ssl_context=context) as port:
        for name, subject in (("ann", "'ann'"), (None, "()")):
            client = WebSocketClient(port, "/name", tls=certificates.client_context(name))
            (message,) = client.expect(1)
            assert subject in str(message)
            client.leave()


def test_there_is_no_certificate_after_the_server_has_ended_tls(encrypted: Encrypted) -> None:
    connection = connection_of(encrypted.arrived.environ)
    ssl.SSLSocket.shutdown(encrypted.sock, socket.SHUT_RD)
    assert connection.client_certificate() is None


def test_data_that_the_server_has_decrypted_is_received(
    port: int, certificates: Certificates
) -> None:
    client = Client(port, tls=certificates.client)
    early = b"".join(masked(Opcode.TEXT, f"{number:05}") for number in range(1000))
    client.send(upgrade("/echo") + early)  # a record is longer than the server's buffer
    client.read_until(b"\r\n\r\n")
    client.read_until(b"\x81\x0500999")
    client.close()


def test_an_event_stream_is_served_over_tls(
    port: int, site: Site, certificates: Certificates
) -> None:
    client = StreamClient(port, "/news", tls=certificates.client)
    client.read_opening()
    site.news.publish("one")
    assert client.expect(1) == ["one"]
    client.close()
    wait_until(lambda: not site.live.stats().event_streams, "the stream has ended")


def test_a_stop_sends_close_notify(port: int, site: Site, certificates: Certificates) -> None:
    client = StreamClient(port, "/news", tls=certificates.client)
    client.read_opening()
    stopping = threading.Thread(target=site.live.stop, args=(5.0,))
    stopping.start()
    client.expect_end()  # an end without close_notify is an error
    stopping.join()


# The object --------------------------------------------------------------------------------------


class Encrypted:
    """A request on a connection with TLS."""

    def __init__(self, certificates: Certificates, **changes: Any) -> None:
        self.arrived = Arrived(**changes)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates.configure(context)
        shaking = threading.Thread(target=self._shake, args=(context,))
        shaking.start()
        self.client = certificates.client.wrap_socket(
            self.arrived.client, server_hostname="localhost"
        )
        shaking.join()
        self.arrived.environ["werkzeug.socket"] = self.sock

    def _shake(self, context: ssl.SSLContext) -> None:
        self.sock = context.wrap_socket(self.arrived.sock, server_side=True)

    def __enter__(self) -> Encrypted:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.sock.close()
        self.arrived.__exit__(None, None, None)

    def receive_until(self, end: bytes) -> None:
        data = b""
        while end not in data:
            data += self.client.recv(1000)


@pytest.fixture
def encrypted(certificates: Certificates) -> Iterator[Encrypted]:
    with Encrypted(certificates, **UPGRADE) as encrypted:
        yield encrypted


def test_the_server_uses_the_dummy_from_then_on(live: Live, encrypted: Encrypted) -> None:
    sock = encrypted.sock
    sock.settimeout(TIMEOUT)
    encrypted.arrived.serve(live.websocket(echo))
    assert isinstance(sock, Retired)
    assert sock.gettimeout() == TIMEOUT
    sock.settimeout(2 * TIMEOUT)
    sock.sendall(b"not for the client")
    assert sock.send(b"x") == sock.write(b"x") == 1
    with open(__file__, "rb") as file:
        assert sock.sendfile(file) > 0
    buffer = bytearray(10)
    assert sock.recv(10) == sock.read(10) == b""
    assert sock.recv_into(buffer) == sock.read(10, buffer) == sock.pending() == 0
    sock.setblocking(True)
    sock.shutdown(socket.SHUT_RDWR)
    assert sock.unwrap().fileno() == sock.fileno()
    socket.close(sock.detach())
    sock.close()
    encrypted.receive_until(b"hello")
    encrypted.client.sendall(masked(Opcode.TEXT, "still encrypted"))
    encrypted.receive_until(b"still encrypted")


def test_the_taken_socket_has_the_methods_of_a_tls_socket(encrypted: Encrypted) -> None:
    dummy, other_end = socket.socketpair()
    taken = TakenTLS(encrypted.sock, dummy)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    encrypted.client.sendall(b"abc")
    buffer = memoryview(bytearray(1))
    wait_until(lambda: select.select([taken], [], [], 0)[0], "the data has arrived")
    assert (taken.recv_into(buffer), bytes(buffer), taken.pending()) == (1, b"a", 2)
    assert taken.recv_into(memoryview(bytearray(5))) == 2
    encrypted.client.settimeout(TIMEOUT)
    unwrapping = threading.Thread(target=encrypted.client.unwrap)
    unwrapping.start()
    wait_until(lambda: select.select([taken], [], [], 0)[0], "close_notify has arrived")
    assert taken.unwrap() is encrypted.sock
    unwrapping.join()
    with pytest.raises(BlockingIOError):
        taken.recv_into(buffer)
    taken.close()
    taken.close()
    other_end.close()


def test_nothing_is_sent_unencrypted_after_the_server_has_ended_tls(encrypted: Encrypted) -> None:
    dummy, other_end = socket.socketpair()
    taken = TakenTLS(encrypted.sock, dummy)
    # As if a thread of the server had been in this method while the socket was taken.
    ssl.SSLSocket.shutdown(encrypted.sock, socket.SHUT_RD)
    with pytest.raises(ConnectionAbortedError):
        taken.recv_into(memoryview(bytearray(1)))
    with pytest.raises(ConnectionAbortedError):
        taken.send(b"secret")
    taken.close()
    other_end.close()
    assert encrypted.client.recv(100) == b""


def test_the_server_may_shut_down_twice(encrypted: Encrypted) -> None:
    dummy, other_end = socket.socketpair()
    taken = TakenTLS(encrypted.sock, dummy)
    for _ in range(2):
        encrypted.sock.shutdown(socket.SHUT_RDWR)
        encrypted.sock.close()
    taken.close()
    other_end.close()


def test_a_tls_socket_is_taken_once(live: Live, encrypted: Encrypted, log: ServerLog) -> None:
    application = live.websocket(echo)
    first, second = (application.open(encrypted.arrived.environ) for _ in range(2))
    assert list(first) == []
    with pytest.raises(HandshakeError, match="cannot be taken over"):
        list(second)
    log.expect("the connection has already been taken over", WARNING)
    encrypted.receive_until(b"hello")


def test_a_tls_socket_of_another_kind_is_left_alone(
    live: Live, encrypted: Encrypted, log: ServerLog
) -> None:
    class Other(ssl.SSLSocket):
        """A TLS socket with methods of its own, as those of gevent."""

    encrypted.sock.__class__ = Other
    encrypted.arrived.serve(live.websocket(echo))
    assert encrypted.arrived.status == 501
    log.expect("TLS by Werkzeug cannot be taken over; use a proxy for TLS", WARNING)


def test_a_full_process_closes_the_connection(
    make_live: MakeLive, encrypted: Encrypted, log: ServerLog
) -> None:
    live = make_live(max_connections=1)
    with Arrived(**UPGRADE) as first:
        first.serve(live.websocket(echo))
        first.receive_until(b"hello")
        encrypted.arrived.serve(live.websocket(echo))
        assert encrypted.client.recv(10) == b""
    log.discard()

"""TLS sockets whose handshake other code has completed, and which wait for the other direction."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import pytest

from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, get, masked, upgrade
from tests.support.handlers import generator_echo, websocket_app
from tests.support.inspection import peers_of
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Opcode
from wsframe.server import Server
from wsframe.server.sockets.secured import TLSSocket

pytestmark = resets_under_tls


class Taken:
    """A TLS socket that was taken over: any object with its methods, and no socket."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class OtherCode:
    """Code that accepts connections, completes their handshakes, and gives them to a server.

    Attributes:
        server: the server.
        port: the port on which it listens.
        kind: the class of its TLS sockets.
    """

    def __init__(self, server: Server, certificates: Certificates) -> None:
        self.kind: type[ssl.SSLSocket] = ssl.SSLSocket
        self.server = server
        self._certificates = certificates
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                sock, address = self._listener.accept()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._certificates.configure(context)
                context.sslsocket_class = self.kind
                secured = context.wrap_socket(sock, server_side=True)
                secured.setblocking(False)
                self.server.adopt(cast("Any", Taken(secured)), address)

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        self._listener.close()


@pytest.fixture
def code(serve: Serve, certificates: Certificates) -> Iterator[OtherCode]:
    app = websocket_app(generator_echo, deflate=True)
    app.page("/", "hello")
    code = OtherCode(serve(app), certificates)
    yield code
    code.close()


@pytest.fixture
def tls(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client


class ReadsWhenWritable(ssl.SSLSocket):
    """A socket whose reads wait until it can send."""

    held: bytes | None = None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.held is None:
            self.held = bytes(buffer[: super().recv_into(buffer, nbytes, flags)])
            raise ssl.SSLWantWriteError
        held, self.held = self.held, None
        buffer[: len(held)] = held
        return len(held)


class SendsWhenReadable(ReadsWhenWritable):
    """A socket whose sends also wait until data arrives, and usually longer."""

    sends = 0
    begun: bytes | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        assert self.begun in (None, bytes(data)), "another record than the one that was begun"
        self.sends += 1
        if self.sends % 6:
            self.begun = bytes(data)
            raise ssl.SSLWantReadError
        self.begun = None
        return super().send(data, flags)


class SendsCloseNotifyLate(ssl.SSLSocket):
    """A socket that has no room for close_notify at first."""

    asked = 0

    def unwrap(self) -> Any:
        self.asked += 1
        if self.asked < 3:
            raise ssl.SSLWantWriteError
        return super().unwrap()


def test_a_read_can_wait_until_it_can_send(
    code: OtherCode, clients: Clients, tls: ssl.SSLContext
) -> None:
    code.kind = ReadsWhenWritable
    client = clients.websocket(cast("Server", code), "/echo", tls=tls)
    for number in range(20):
        client.send_messages(str(number))
        assert client.next_event() == str(number)
    assert client.leave().code == 1000


def test_a_send_can_wait_until_it_can_read(
    code: OtherCode, clients: Clients, tls: ssl.SSLContext
) -> None:
    code.kind = SendsWhenReadable
    client = clients.connect(cast("Server", code), tls=tls)
    client.send(upgrade("/echo"))
    client.sock.settimeout(0.05)
    received = b""
    for _ in range(100):
        client.send(masked(Opcode.TEXT, "x"))  # which lets the waiting data be sent
        with suppress(TimeoutError):
            received += client.receive()
        if b"\x81\x01x" * 5 in received:
            break
    else:
        pytest.fail(f"only {received!r} came")


def test_a_close_notify_can_wait_for_room(
    code: OtherCode, clients: Clients, tls: ssl.SSLContext
) -> None:
    code.kind = SendsCloseNotifyLate
    client = clients.connect(cast("Server", code), tls=tls)
    client.send(get("/"))
    assert client.answer().body == b"hello"  # an end without close_notify would be an error


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
def test_a_client_can_disconnect_without_close_notify(
    code: OtherCode, clients: Clients, tls: ssl.SSLContext, leave: Callable[[Client], None]
) -> None:
    server = cast("Server", code)
    leave(clients.websocket(server, "/echo", tls=tls))
    client = clients.connect(server, tls=tls)
    client.send(get("/"))
    assert client.answer().body == b"hello"


def test_a_long_message_crosses(code: OtherCode, clients: Clients, tls: ssl.SSLContext) -> None:
    client = clients.websocket(cast("Server", code), "/echo", tls=tls)
    message = "x" * (1 << 19)
    client.send_messages(message)
    assert client.next_event() == message
    assert client.leave().code == 1000


def test_messages_beyond_the_buffers_of_a_slow_reader_cross(
    code: OtherCode, clients: Clients, tls: ssl.SSLContext
) -> None:
    client = clients.websocket(cast("Server", code), "/echo", tls=tls, receive_buffer=1 << 16)
    message = bytes(1 << 20)
    frame = memoryview(client.codec.encode(message))
    (peer,) = peers_of(code.server)
    client.sock.settimeout(0.3)
    sent = 0
    while peer.reading or not sent:  # the server reads no more when its client does not
        with suppress(TimeoutError):
            while True:
                sent += client.sock.send(frame[sent % len(frame) :][:16384])
    client.sock.settimeout(TIMEOUT)
    assert sent > len(frame)
    for _ in range(sent // len(frame)):
        assert client.next_event() == message


def test_the_rest_of_a_record_is_read(
    code: OtherCode, clients: Clients, tls: ssl.SSLContext
) -> None:
    # A connection with compression is read in pieces of 4096 bytes, smaller than a record.
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate")
    client = clients.websocket(cast("Server", code), "/echo", offer, tls=tls)
    messages = [f"{number:058}" for number in range(256)]  # frames of 64 bytes
    for _ in range(3):
        client.send_messages(*messages)
        assert client.expect(len(messages)) == messages


@pytest.fixture
def pair(certificates: Certificates) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Return the server's and the client's end of TLS."""
    ours, theirs = socket.socketpair()
    secured: list[ssl.SSLSocket] = []

    def accept() -> None:
        secured.append(certificates.server.wrap_socket(ours, server_side=True))

    accepting = threading.Thread(target=accept)
    accepting.start()
    client = certificates.client.wrap_socket(theirs, server_hostname="127.0.0.1")
    accepting.join(TIMEOUT)
    (server,) = secured
    server.setblocking(False)
    with server, client:
        yield server, client


def test_the_records_of_a_message_are_read_together(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    server, client = pair
    client.sendall(bytes(20_000))
    wait_until(
        lambda: len(socket.socket.recv(server, 1 << 16, socket.MSG_PEEK)) > 20_000, "all arrives"
    )
    assert TLSSocket(server).recv_into(memoryview(bytearray(1 << 16))) == 20_000


def test_a_socket_has_the_options_of_its_connection(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    sock = TLSSocket(pair[0])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bytes([1, 0, 0, 0]))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

"""The end of a TLS connection, and records that carry no data."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import pytest

from tests.server.sockets.over_tls import context_of, page_app
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, get, masked, upgrade
from tests.support.handlers import (
    BOTH_KINDS,
    MessageGenerator,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.inspection import peers_of
from tests.support.serving import Serve
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT
from wsframe import ConnectionClosed, Opcode, encode_frame
from wsframe.server import WebSocket

pytestmark = resets_under_tls


def test_the_server_ends_tls_with_close_notify(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"  # an end without close_notify would be an error
    client = clients.websocket(server, "/echo", tls=certificates.client)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.expect_close().code == 1001
    stopping.join(TIMEOUT)


def unwrap(client: Client) -> None:
    """Send close_notify, and check that the server does so."""
    assert isinstance(client.sock, ssl.SSLSocket)
    client.sock = client.sock.unwrap()


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close, unwrap])
@BOTH_KINDS
def test_a_client_that_disconnects_without_close_notify_is_removed(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    echo: Callable[..., Any],
    leave: Callable[[Client], None],
) -> None:
    ends: SimpleQueue[int | None] = SimpleQueue()

    def plain(ws: WebSocket) -> None:
        plain_echo(ws)
        ends.put(ws.close_code)

    def generator(ws: WebSocket) -> MessageGenerator:
        try:
            yield from generator_echo(ws)
        except ConnectionClosed as end:
            ends.put(end.code)

    app = websocket_app(plain if echo is plain_echo else generator)
    server = serve(app, ssl_context=certificates.server)
    client = clients.websocket(server, "/echo", tls=certificates.client)
    client.send_messages("hello")
    assert client.next_event() == "hello"
    leave(client)
    assert ends.get(timeout=TIMEOUT) == 1006


class SendsForItself(ssl.SSLObject):
    """An object that sends a byte of its own after each record of a WebSocket."""

    upgraded = False

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - its name there
        found = super().read(len, buffer)
        if self.upgraded:
            super().write(b"\xff")
        self.upgraded = True
        return found


def test_records_of_tls_itself_are_sent_before_data_that_waits(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    app = websocket_app(generator_echo, max_message_size=1 << 24)
    server = serve(app, ssl_context=context_of(certificates, SendsForItself))
    client = clients.websocket(server, "/echo", tls=certificates.client, receive_buffer=1 << 16)
    (peer,) = peers_of(server)
    message = bytes(1 << 20)
    frame = memoryview(client.codec.encode(message))
    client.sock.settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while True:  # until the server reads no more, because its client does not
            sent += client.sock.send(frame[sent % len(frame) :][:16384])
    assert peer.congested
    client.sock.settimeout(TIMEOUT)
    expected = encode_frame(Opcode.BINARY, message) * (sent // len(frame))
    received = bytearray()
    size = 0
    while len(received) < len(expected):
        data = client.sock.recv(1 << 16)
        size += len(data)
        received += data.replace(b"\xff", b"")
    assert received == expected
    assert size > len(expected)


class SendsWhenReadable(ssl.SSLObject):
    """An object whose sends wait until data arrives, and usually longer."""

    sends = 0

    def write(self, data: Any) -> int:
        self.sends += 1
        if self.sends % 6:
            raise ssl.SSLWantReadError
        return super().write(data)


def test_a_tls_send_can_wait_until_it_can_read(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    context = context_of(certificates, SendsWhenReadable)
    server = serve(websocket_app(generator_echo), ssl_context=context)
    client = clients.connect(server, tls=certificates.client)
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


def test_an_error_of_encryption_ends_only_its_own_connection(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    class Failing(ssl.SSLObject):
        def write(self, data: Any) -> int:
            if b"fail" in bytes(data):
                raise ssl.SSLError("on purpose")
            return super().write(data)

    server = serve(websocket_app(generator_echo), ssl_context=context_of(certificates, Failing))
    failing, other = (clients.websocket(server, "/echo", tls=certificates.client) for _ in range(2))
    failing.send_messages("fail")
    with suppress(ssl.SSLEOFError):  # not in CPython 3.11.2, which sets OP_IGNORE_UNEXPECTED_EOF
        assert failing.receive() == b""
    other.send_messages("served")
    assert other.next_event() == "served"


def test_a_wait_for_the_client_does_not_spin(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    class Counting(ssl.SSLObject):
        """An object that counts the calls that it cannot perform."""

        handshakes, sends, deaf = 0, 0, True

        def do_handshake(self) -> None:
            Counting.handshakes += 1
            super().do_handshake()

        def write(self, data: Any) -> int:
            if Counting.deaf and b"deaf" in bytes(data):
                Counting.sends += 1
                raise ssl.SSLWantReadError
            return super().write(data)

    server = serve(websocket_app(generator_echo), ssl_context=context_of(certificates, Counting))
    deaf, other = (clients.websocket(server, "/echo", tls=certificates.client) for _ in range(2))
    Counting.handshakes = 0
    silent = clients.connect(server)
    silent.send(b"\x16\x03\x01\x00\x01\x01")  # a record with the first byte of a message
    deaf.send_messages("deaf")
    for number in range(200):
        other.send_messages(str(number))
        assert other.next_event() == str(number)
    assert Counting.handshakes == 1
    assert 1 <= Counting.sends <= 3
    Counting.deaf = False
    deaf.send_messages("now")
    assert deaf.expect(2) == ["deaf", "now"]


def test_a_key_update_is_answered(serve: Serve, certificates: Certificates) -> None:
    program = shutil.which("openssl")
    if program is None:
        missing_tool("openssl")
    server = serve(page_app(), ssl_context=certificates.server)
    command = [program, "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_3", "-crlf"]
    talk = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert talk.stdin is not None
    assert talk.stdout is not None
    try:
        # Separately: of lines that are read together, only the first can be a command.
        talk.stdin.write(b"K\n")
        talk.stdin.flush()
        while b"KEYUPDATE" not in (said := talk.stdout.readline()):
            assert said
        talk.stdin.write(b"GET / HTTP/1.1\nHost: localhost\n\n")
        talk.stdin.flush()
        output = talk.stdout.read()
    finally:
        talk.kill()
        talk.communicate(timeout=TIMEOUT)
    assert b"200 OK" in output
    assert b"hello" in output


def test_a_client_may_renegotiate_if_the_context_allows_it(
    serve: Serve, certificates: Certificates
) -> None:
    program = shutil.which("openssl")
    if program is None:
        missing_tool("openssl")
    context = context_of(certificates, ssl.SSLObject)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options &= ~ssl.OP_NO_RENEGOTIATION
    context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    server = serve(page_app(), ssl_context=context)
    command = [program, "s_client", "-connect", f"127.0.0.1:{server.port}", "-crlf"]
    talk = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert talk.stdin is not None
    assert talk.stdout is not None
    try:
        talk.stdin.write(b"R\n")
        talk.stdin.flush()
        while b"RENEGOTIATING" not in (said := talk.stdout.readline()):
            assert said
        talk.stdin.write(b"GET / HTTP/1.1\nHost: localhost\n\n")
        talk.stdin.flush()
        output = talk.stdout.read()
    finally:
        talk.kill()
        talk.communicate(timeout=TIMEOUT)
    assert b"200 OK" in output
    assert b"hello" in output

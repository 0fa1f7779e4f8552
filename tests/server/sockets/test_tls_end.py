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
from tests.support.serving import Serve
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT
from wsframe import ConnectionClosed, Opcode
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


def test_a_tls_read_can_wait_until_it_can_send(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    context = context_of(certificates, ReadsWhenWritable)
    server = serve(websocket_app(generator_echo), ssl_context=context)
    client = clients.websocket(server, "/echo", tls=certificates.client)
    for number in range(20):
        client.send_messages(str(number))
        assert client.next_event() == str(number)
    assert client.leave().code == 1000


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


class SendsCloseNotifyLate(ssl.SSLSocket):
    """A socket that has no room for close_notify at first."""

    asked = 0

    def unwrap(self) -> Any:
        self.asked += 1
        if self.asked < 3:
            raise ssl.SSLWantWriteError
        return super().unwrap()


def test_a_close_notify_can_wait_for_room(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=context_of(certificates, SendsCloseNotifyLate))
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"  # an end without close_notify would be an error


def test_a_wait_for_the_client_does_not_spin(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    class Counting(ssl.SSLSocket):
        """A socket that counts the calls that it cannot perform."""

        handshakes, sends, deaf = 0, 0, True

        def do_handshake(self, block: bool = False) -> None:
            Counting.handshakes += 1
            super().do_handshake(block)

        def send(self, data: Any, flags: int = 0) -> int:
            if Counting.deaf and b"deaf" in bytes(data):
                Counting.sends += 1
                raise ssl.SSLWantReadError
            return super().send(data, flags)

    server = serve(websocket_app(generator_echo), ssl_context=context_of(certificates, Counting))
    deaf, other = (clients.websocket(server, "/echo", tls=certificates.client) for _ in range(2))
    Counting.handshakes = 0
    silent = clients.connect(server)
    silent.send(b"\x16")
    deaf.send_messages("deaf")
    for number in range(200):
        other.send_messages(str(number))
        assert other.next_event() == str(number)
    assert 1 <= Counting.handshakes <= 2  # after it was accepted, and after its byte arrived
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

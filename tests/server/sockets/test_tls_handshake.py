"""The TLS handshake."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.server.sockets.over_tls import VERSIONS, client_of, page_app, send_few_bytes
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, get, parse_response, upgrade
from tests.support.inspection import peers_of
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe.server import Server
from wsframe.server.sockets import output, tls
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

pytestmark = resets_under_tls


def has_no_clients(server: Server) -> bool:
    return not peers_of(server)


class Handshake:
    """The client's side of a TLS handshake, step by step, over a socket without TLS."""

    def __init__(self, client: Client, context: ssl.SSLContext) -> None:
        self._client = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    def flights(self) -> Any:
        """Yield the flights to send, one after the other; each answer is read in between."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                yield self._outgoing.read()
                self._incoming.write(self._client.receive())
            else:
                yield self._outgoing.read()
                return

    def ask(self, request: bytes) -> bytes:
        """Send a request, and read the whole response."""
        self.tls.write(request)
        self._client.send(self._outgoing.read())
        answer = b""
        while True:
            try:
                data = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._incoming.write(self._client.receive())
                continue
            except ssl.SSLZeroReturnError:
                return answer
            if not data:
                return answer
            answer += data


@VERSIONS
def test_a_handshake_byte_by_byte_delays_no_other_client(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    other = clients.websocket(server, "/echo", tls=certificates.client)
    client = clients.connect(server)
    handshake = Handshake(client, client_of(certificates, version))
    for flight in handshake.flights():
        client.send_bytewise(flight[:-1])
        other.send_messages("still there?")
        assert other.next_event() == "still there?"
        client.send(flight[-1:])
    assert parse_response(handshake.ask(get("/"))).body == b"hello"


@VERSIONS
def test_the_flights_of_a_handshake_can_be_sent_in_parts(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    version: ssl.TLSVersion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (output, tls):
        monkeypatch.setattr(module, "send_pieces", send_few_bytes)
    server = serve(page_app(), ssl_context=certificates.server)
    client = clients.connect(server, tls=client_of(certificates, version))
    client.send(get("/"))
    assert client.answer().body == b"hello"  # an end without close_notify would be an error


@pytest.mark.parametrize("share", [0, 1, 50, 100], ids="{}%".format)
def test_a_late_handshake_is_disconnected(
    serve: Serve, clients: Clients, certificates: Certificates, share: int
) -> None:
    clock = ManualClock()
    app = page_app(Timing(clock=clock))
    server = serve(app, ssl_context=certificates.server, handshake_timeout=1)
    client = clients.connect(server)
    wait_until(lambda: peers_of(server), "it is accepted")
    if share:
        hello = next(Handshake(client, certificates.client).flights())
        client.send(hello[: max(1, len(hello) * share // 100)])
    clock.pass_time(server, 2)
    client.read_to_end()
    late = clients.connect(server, tls=certificates.client)
    clock.pass_time(server, 2)
    # A client without a request gets no answer. CPython 3.11.2 sets OP_IGNORE_UNEXPECTED_EOF, so
    # the end of the connection is b"" there; later versions raise.
    with suppress(ssl.SSLEOFError):
        assert late.receive() == b""
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
@VERSIONS
def test_a_handshake_can_break_off_anywhere(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    version: ssl.TLSVersion,
    leave: Callable[[Client], None],
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    context = client_of(certificates, version)
    whole = 0
    cut = 0
    while cut <= whole:
        client = clients.connect(server)
        handshake = Handshake(client, context)
        whole = 0
        for flight in handshake.flights():
            client.send(flight[: max(0, cut - whole)])
            whole += len(flight)
            if cut <= whole:
                break
        leave(client)
        wait_until(partial(has_no_clients, server), "no connection remains")
        cut += 97
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"


def test_a_client_can_disconnect_before_the_handshake(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    for _ in range(200):
        clients.connect(server).reset()
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"
    wait_until(partial(has_no_clients, server), "no connection remains")


def test_plain_http_receives_an_explanation(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    for request in (get("/"), upgrade("/echo"), get("/", method="POST")):
        client = clients.connect(server)
        client.send(request)
        answer = client.answer()
        assert (answer.status, answer.body) == (400, b"this port requires TLS: use https\n")
    wait_until(partial(has_no_clients, server), "no connection remains")


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"SSH-2.0-x\r\n", os.urandom(8) * 2000])
def test_a_client_without_tls_is_disconnected(
    serve: Serve, clients: Clients, certificates: Certificates, garbage: bytes
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    client = clients.connect(server)
    client.send(garbage)
    wait_until(partial(has_no_clients, server), "no connection remains")


def test_a_client_that_does_not_trust_the_certificate_is_no_error(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    with pytest.raises(ssl.SSLCertVerificationError):
        clients.connect(server, tls=ssl.create_default_context())
    wait_until(partial(has_no_clients, server), "no connection remains")

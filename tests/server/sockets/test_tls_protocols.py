"""WebSockets, event streams and pages over TLS."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Queue
from typing import Any

import pytest

import wsframe.client
from tests.server.sockets.over_tls import VERSIONS, client_of
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Clients, masked
from tests.support.handlers import BOTH_KINDS, generator_echo, plain_echo, websocket_app
from tests.support.inspection import peers_of
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Opcode, Pong
from wsframe.server import App, EventStream, WebSocket

pytestmark = resets_under_tls


MIB = 1 << 20


MUCH = 32 * MIB  # more than the kernel's own buffers hold of a connection


@BOTH_KINDS
@VERSIONS
def test_messages_are_echoed_over_tls(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    echo: Callable[..., Any],
    version: ssl.TLSVersion,
) -> None:
    server = serve(
        websocket_app(echo, max_message_size=MUCH), ssl_context=certificates.server, loops=2
    )
    client = clients.websocket(server, "/echo", tls=client_of(certificates, version))
    messages: list[str | bytes] = ["", "hello", b"\x00\xff", "é" * 50_000, os.urandom(MIB)]
    for message in messages:
        client.send_messages(message)
        assert client.next_event() == message
    client.send_messages(*messages)
    assert client.expect(len(messages)) == messages
    client.send(masked(Opcode.PING, b"there?"))
    assert client.next_event() == Pong(b"there?")
    assert client.leave().code == 1000


@pytest.mark.slow
@pytest.mark.unmeasured
@BOTH_KINDS
@VERSIONS
def test_large_messages_can_cross(
    serve: Serve, certificates: Certificates, echo: Callable[..., Any], version: ssl.TLSVersion
) -> None:
    server = serve(websocket_app(echo, max_message_size=MUCH), ssl_context=certificates.server)
    messages = [os.urandom(8 * MIB) for _ in range(4)]

    def send_all() -> None:
        for message in messages:
            client.send(message)

    with wsframe.client.connect(
        f"wss://127.0.0.1:{server.port}/echo",
        ssl=client_of(certificates, version),
        max_message_size=MUCH,
    ) as client:
        sending = threading.Thread(target=send_all)
        sending.start()
        for message in messages:
            assert client.receive(TIMEOUT) == message
        sending.join(TIMEOUT)


@VERSIONS
def test_an_event_stream_works_over_tls(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    app, ticks = App(), Queue[str]()
    app.sse("/time", source=ticks)

    @app.sse("/job")
    def job(stream: EventStream) -> Any:
        yield from map(str, range(1000))

    server = serve(app, ssl_context=certificates.server)
    tls = client_of(certificates, version)
    stream, job_stream = (clients.stream(server, path, tls=tls) for path in ("/time", "/job"))
    for number in range(1000):
        ticks.put(str(number))
    assert stream.expect(1000) == list(map(str, range(1000)))
    assert job_stream.expect(1000) == list(map(str, range(1000)))
    job_stream.expect_end()


@VERSIONS
def test_a_slow_reader_delays_no_other_client_and_receives_everything(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    messages = [bytes([number]) * MIB for number in range(MUCH // MIB)]
    app = websocket_app(generator_echo)

    @app.websocket("/plain")
    def plain(ws: WebSocket) -> None:
        for message in messages:
            ws.send(message)

    server = serve(app, ssl_context=certificates.server)
    tls = client_of(certificates, version)
    slow = clients.websocket(server, "/plain", tls=tls, receive_buffer=1 << 16)
    other = clients.websocket(server, "/echo", tls=tls)
    for number in range(100):
        other.send_messages(str(number))
        assert other.next_event() == str(number)
    assert slow.expect(len(messages)) == messages
    assert slow.expect_close().code == 1000


def test_a_client_that_never_reads_is_not_read_and_loses_no_message(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(
        websocket_app(generator_echo, max_message_size=MUCH), ssl_context=certificates.server
    )
    client = clients.websocket(server, "/echo", tls=certificates.client, receive_buffer=1 << 16)
    # A socket has one owner: the sending ends before the reading starts.
    message = bytes(MIB)
    frame = memoryview(client.codec.encode(message))
    (peer,) = peers_of(server)
    client.sock.settimeout(0.3)
    sent = 0
    while peer.reading or not sent:
        assert sent < 4 * MUCH, "the server reads without bound"
        with suppress(TimeoutError):
            while sent < 4 * MUCH:
                sent += client.sock.send(frame[sent % len(frame) :][:16384])
    client.sock.settimeout(TIMEOUT)
    for _ in range(sent // len(frame)):
        assert client.next_event() == message


OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate")


@pytest.mark.parametrize("size", [50, 64], ids=["parts of frames", "whole frames"])
@BOTH_KINDS
def test_the_rest_of_a_record_is_read(
    serve: Serve, clients: Clients, certificates: Certificates, echo: Callable[..., Any], size: int
) -> None:
    # A connection with compression is read in pieces of 4096 bytes, smaller than a record. Each
    # frame has six bytes of head and mask.
    messages = [f"{number:0{size - 6}}" for number in range(16384 // size)]
    server = serve(websocket_app(echo, deflate=True), ssl_context=certificates.server)
    client = clients.websocket(server, "/echo", OFFER, tls=certificates.client)
    for _ in range(3):
        client.send_messages(*messages)
        assert client.expect(len(messages)) == messages


@pytest.mark.unmeasured
def test_the_rest_of_a_record_is_read_when_there_is_room(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    go = threading.Event()

    def late(ws: WebSocket) -> None:
        go.wait(TIMEOUT)
        plain_echo(ws)

    server = serve(websocket_app(late, deflate=True), ssl_context=certificates.server)
    client = clients.websocket(server, "/echo", OFFER, tls=certificates.client)
    frame = masked(Opcode.BINARY, b"x")
    count = 4 * 16384 // len(frame)
    client.send(frame * count)  # more than waits for a handler, by half of the last record
    (peer,) = peers_of(server)
    wait_until(lambda: not peer.reading, "the client is not read")
    go.set()
    assert client.expect(count) == [b"x"] * count

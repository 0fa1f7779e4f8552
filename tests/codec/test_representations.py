"""Representations of the public classes: useful, of bounded length, and without secrets."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.handshake.helpers import REQUEST

pytestmark = pytest.mark.one_kernel

SECRET, LONG = "s3cr3t", "x" * 10_000
HEADERS = [("Cookie", SECRET), ("Authorization", SECRET), *[("X-Long", LONG)] * 50]
CUT = f"'{'x' * 64}'... (10000 characters)"


def request_head(codec: ModuleType) -> Any:
    request = codec.UpgradeRequest("a.example", f"/chat?token={SECRET}", headers={"Cookie": SECRET})
    return codec.RequestDecoder().receive(request.encode())


SHOWN: dict[str, tuple[Callable[[Any], object], str]] = {
    "ping": (lambda c: c.Ping(b"x"), "Ping(payload=b'x')"),
    "long-ping": (lambda c: c.Ping(b"x" * 125), f"Ping(payload=b'{'x' * 64}'... (125 bytes))"),
    "pong": (lambda c: c.Pong(), "Pong(payload=b'')"),
    "close": (lambda c: c.Close(4000, "bye"), "Close(code=4000, reason='bye')"),
    "failure": (lambda c: c.Failure(1002, LONG), f"Failure(code=1002, reason={CUT})"),
    "part": (lambda c: c.Part(LONG, False), f"Part(data={CUT}, final=False)"),
    "event": (
        lambda c: c.ServerSentEvent(LONG, id="7"),
        f"ServerSentEvent(data={CUT}, event=None, id='7', retry=None)",
    ),
    "event-stream": (
        lambda c: c.EventStreamDecoder(last_event_id="7"),
        "EventStreamDecoder(last_event_id='7', retry=None)",
    ),
    "connection": (
        lambda c: c.Connection(c.Role.SERVER, subprotocol="chat", max_message_size=9),
        "Connection(Role.SERVER, max_message_size=9, deflate=None, subprotocol='chat')",
    ),
    "handshake-error": (
        lambda c: c.HandshakeError(401, LONG, [("Set-Cookie", SECRET)]),
        f"HandshakeError(401, {CUT}, headers=['Set-Cookie'])",
    ),
    "acceptance": (
        lambda c: c.accept(REQUEST, headers={"Set-Cookie": SECRET}),
        "Acceptance(subprotocol=None, deflate=None, "
        "headers=['Upgrade', 'Connection', 'Sec-WebSocket-Accept', 'Set-Cookie'])",
    ),
    "request": (
        lambda c: c.UpgradeRequest("a.example", f"/chat?token={SECRET}", headers=HEADERS[:1]),
        "UpgradeRequest('a.example', '/chat', headers=['Host', 'Upgrade', 'Connection', "
        "'Sec-WebSocket-Key', 'Sec-WebSocket-Version', 'Cookie'])",
    ),
    "request-head": (
        request_head,
        "RequestHead('GET', '/chat', headers=['Host', 'Upgrade', 'Connection', "
        "'Sec-WebSocket-Key', 'Sec-WebSocket-Version', 'Cookie'])",
    ),
    "response-head": (
        lambda c: c.ResponseDecoder().receive(c.HandshakeError(401, SECRET, HEADERS[:1]).encode()),
        "ResponseHead(401, headers=['Cookie', 'Content-Type', 'X-Content-Type-Options', "
        "'Content-Length', 'Connection'])",
    ),
    "decoder": (lambda c: c.RequestDecoder(), "RequestDecoder(incomplete)"),
    "response-decoder": (lambda c: c.ResponseDecoder(), "ResponseDecoder(incomplete)"),
    "protocol-error": (lambda c: c.ProtocolError(1002, "rule"), "ProtocolError(1002, 'rule')"),
    "closed": (lambda c: c.ConnectionClosed(1001, "away"), "ConnectionClosed(1001, 'away')"),
}


@pytest.mark.parametrize(("create", "text"), SHOWN.values(), ids=SHOWN)
def test_an_object_is_shown(codec: ModuleType, create: Callable[[Any], object], text: str) -> None:
    assert repr(create(codec)) == text


def test_a_connection_shows_its_state(codec: ModuleType) -> None:
    deflate = codec.PerMessageDeflate()
    connection = codec.Connection(codec.Role.CLIENT, deflate=deflate)
    end = f"max_message_size=1048576, deflate={deflate!r}, subprotocol=None)"
    connection.receive(b"\x01\x01a")
    assert repr(connection) == f"Connection(Role.CLIENT, incomplete, {end}"
    connection.receive_parts(b"")
    assert repr(connection) == f"Connection(Role.CLIENT, incomplete, {end}"
    connection.receive_parts(b"\x88\x00")
    connection.close()
    assert repr(connection).startswith("Connection(Role.CLIENT, incomplete, close_received, close")


def test_a_decoder_shows_its_state(codec: ModuleType) -> None:
    decoder = codec.RequestDecoder()
    decoder.receive(f"GET / HTTP/1.1\r\nCookie: {SECRET}\r\n".encode())
    assert repr(decoder) == "RequestDecoder(incomplete)"
    decoder.receive(b"\r\n")
    assert repr(decoder) == "RequestDecoder(complete)"
    decoder = codec.RequestDecoder()
    with pytest.raises(codec.HandshakeError):
        decoder.receive(b"\n")
    assert repr(decoder) == "RequestDecoder(refused)"


def test_every_public_object_is_short_and_without_secrets(codec: ModuleType) -> None:
    error = codec.HandshakeError(400, LONG, HEADERS)
    request = codec.UpgradeRequest("a." + "x" * 500, f"/{LONG}?{SECRET}", headers=HEADERS)
    decoder = codec.RequestDecoder(max_head_size=1 << 20, max_path_size=1 << 20)
    head = decoder.receive(request.encode().replace(b"GET", b"G" * 10_000, 1))
    acceptance = codec.Acceptance(tuple(HEADERS), LONG)
    connection = codec.Connection(codec.Role.SERVER, subprotocol=LONG)
    objects = [error, request, head, acceptance, connection, decoder]
    objects += [codec.Close(4000, LONG), codec.Part(LONG.encode(), True), codec.Ping(bytes(999))]
    for shown in objects:
        text = repr(shown)
        assert len(text) < 1000
        assert SECRET not in text
        assert f"{type(shown).__name__}(" in text

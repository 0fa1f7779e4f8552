"""Frames that the server refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.http.refused import LIMIT, REFUSED_EARLY
from tests.support.clients import Clients, WebSocketClient, masked
from tests.support.handlers import MessageGenerator, generator_echo
from tests.support.inspection import wait_for_disconnects
from tests.support.serving import Serve
from wsframe import Close, Opcode
from wsframe.server import App, Server, WebSocket

KEY_BYTES = b"\x01\x82\x7f\xfc"


FRAGMENT = masked(Opcode.TEXT, "x" * 600, fin=False)


TOO_BIG = {
    "message": (masked(Opcode.BINARY, bytes(LIMIT + 1)), 1001),
    "message, only its length": (b"\x82\xfe\x03\xe9", 1001),
    "message of a length of 63 bits": (b"\x81\xff\x7f" + b"\xff" * 7, (1 << 63) - 1),
    "fragments": (FRAGMENT + masked(Opcode.CONTINUATION, "x" * 401), 1001),
    "fragments, the last only its length": (FRAGMENT + b"\x00\xfe\x01\x91", 1001),
}


NOT_UTF8 = {
    "message": masked(Opcode.TEXT, b"\xff"),
    "message that is cut": masked(Opcode.TEXT, "é".encode()[:1]),
    "surrogate": masked(Opcode.TEXT, b"\xed\xa0\x80"),
    "overlong": masked(Opcode.TEXT, b"\xc0\xaf"),
    "over U+10FFFF": masked(Opcode.TEXT, b"\xf4\x90\x80\x80"),
    "frame that has not come whole": masked(Opcode.TEXT, b"good \xff" + b"x" * 500)[:-400],
    "last byte that has come": masked(Opcode.TEXT, b"\xf8" + b"x" * 500)[: 7 + 2],
    "fragment": masked(Opcode.TEXT, "x", fin=False) + masked(Opcode.CONTINUATION, b"\xff"),
    "fragment, not the last": masked(Opcode.TEXT, b"\xff", fin=False),
    "close reason": masked(Opcode.CLOSE, b"\x03\xe8\xff"),
}


BROKEN = {
    "reserved bit 1": b"\xc1\x80" + KEY_BYTES,
    "reserved bit 2": b"\xa1\x80" + KEY_BYTES,
    "reserved bit 3": b"\x91\x80" + KEY_BYTES,
    "reserved bit on a ping": b"\xc9\x80" + KEY_BYTES,
    **{f"opcode {code}": bytes([0x80 | code, 0x80]) + KEY_BYTES for code in (3, 7, 11, 15)},
    "no mask": b"\x81\x01x",
    "no mask, only the head": b"\x81\x7e",
    "no mask on a close": b"\x88\x00",
    "long form of a short length": b"\x81\xfe\x00\x7d" + KEY_BYTES,
    "longest form of a short length": b"\x81\xff" + bytes(6) + b"\xff\xff" + KEY_BYTES,
    "length of 64 bits": b"\x82\xff\x80" + bytes(7),
    "continuation of nothing": masked(Opcode.CONTINUATION, "x"),
    "message in a message": FRAGMENT + masked(Opcode.TEXT, "x"),
    "fragmented ping": b"\x09\x80" + KEY_BYTES,
    "fragmented close": b"\x08\x80" + KEY_BYTES,
    "ping over 125 bytes": b"\x89\xfe",
    "close over 125 bytes": b"\x88\xfe",
    "half a close code": masked(Opcode.CLOSE, b"\x03"),
    **{
        f"close code {code}": masked(Opcode.CLOSE, code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


def close_of(client: WebSocketClient) -> Close:
    """Return the close frame, which the client does not answer."""
    close = client.next_event()
    assert isinstance(close, Close)
    client.expect_end()
    return close


def breaking(clients: Clients, server: Server, frames: bytes) -> Iterator[Close]:
    """Return the close frames for this data, for both kinds of handler, whole and bytewise."""
    for target in ("/echo", "/thread"):
        client = clients.websocket(server, target)
        client.send(frames)
        yield close_of(client)
    if len(frames) < 300:
        client = clients.websocket(server, "/echo")
        with REFUSED_EARLY:
            client.send_bytewise(frames)
        yield close_of(client)


@pytest.mark.parametrize("name", TOO_BIG)
def test_a_message_over_the_limit_is_refused_at_its_head(
    server: Server, clients: Clients, name: str
) -> None:
    frames, size = TOO_BIG[name]
    reason = f"a message of {size} bytes or more is over the limit of {LIMIT}"
    assert set(breaking(clients, server, frames)) == {Close(1009, reason)}


def test_a_message_at_the_limit_is_accepted(server: Server, clients: Clients) -> None:
    for target in ("/echo", "/thread"):
        client = clients.websocket(server, target)
        client.send_messages("x" * LIMIT, "é" * (LIMIT // 2))
        client.send(FRAGMENT + masked(Opcode.CONTINUATION, "x" * 400))
        assert client.expect(3) == ["x" * LIMIT, "é" * (LIMIT // 2), "x" * LIMIT]


@pytest.mark.parametrize("name", NOT_UTF8)
def test_text_that_is_not_utf8_is_refused_at_its_first_bad_byte(
    server: Server, clients: Clients, name: str
) -> None:
    what = "a close reason" if name == "close reason" else "a text message"
    close = Close(1007, f"{what} is not valid UTF-8")
    assert set(breaking(clients, server, NOT_UTF8[name])) == {close}


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", BROKEN)
def test_frames_that_violate_the_protocol_are_refused(
    server: Server, clients: Clients, name: str
) -> None:
    for close in breaking(clients, server, BROKEN[name]):
        assert close.code == 1002
        assert close.reason


def test_data_after_a_protocol_error_is_ignored(serve: Serve, clients: Clients) -> None:
    seen: list[Any] = []

    def collect(ws: WebSocket) -> MessageGenerator:
        while True:
            seen.append((yield))

    app = App()
    app.websocket("/echo")(collect)
    server = serve(app)
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, "before") + b"\xc1\x80" + KEY_BYTES)
    assert client.next_event() == Close(
        1002, "a reserved bit is set and no extension was negotiated"
    )
    client.send(masked(Opcode.TEXT, "after") * 100)
    client.expect_end()
    wait_for_disconnects(server)
    assert seen == ["before"]


def test_an_announced_message_takes_no_memory(serve: Serve, clients: Clients) -> None:
    """A length alone, even within a large limit, allocates no memory."""
    resource = pytest.importorskip("resource")
    app = App()
    app.websocket("/echo", max_message_size=1 << 40)(generator_echo)
    server = serve(app)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        client = clients.websocket(server, "/echo")
        client.send(b"\x82\xff" + (1 << 39).to_bytes(8, "big") + KEY_BYTES + b"begun")
        client.send_bytewise(b"and more")
    other = clients.websocket(server, "/echo")
    other.send_messages("x")
    assert other.next_event() == "x"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024

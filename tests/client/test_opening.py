"""The opening handshake of the client: its request, and the responses that it accepts."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, Play, Resolve
from tests.client.opening import close_at_once
from tests.support.certificates import Certificates
from tests.support.scripted import Visit
from tests.support.waiting import TIMEOUT
from wsframe import Close, PerMessageDeflate, Pong, __version__, encode_frame

OFFERED = "permessage-deflate"


def answer(data: bytes) -> Callable[[Visit], None]:
    """Respond with these bytes."""

    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(data)

    return script


def test_the_request_contains_all_arguments(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.request_line == "GET /p%20q?r=%2F HTTP/1.1"
        assert len(visit.headers.get("Sec-WebSocket-Key", "")) == 24
        del visit.headers["Sec-WebSocket-Key"]
        assert visit.headers.items() == [
            ("Host", f"127.0.0.1:{server.port}"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Origin", "https://example.org"),
            ("Sec-WebSocket-Protocol", "chat, superchat"),
            ("X-One", "1"),
            ("X-One", "2"),
            ("User-Agent", f"wsframe/{__version__}"),
        ]

    server = play(script)
    connect(
        server.url("/p%20q?r=%2F"),
        origin="https://example.org",
        subprotocols=["chat", "superchat"],
        headers=[("X-One", "1"), ("X-One", "2")],
        deflate=False,
    ).close()


def test_the_headers_may_be_bytes(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers.get_all("X-One") == ["1", "caf\xe9"]

    connect(play(script).url(), headers=[(b"X-One", b"1"), (b"X-One", b"caf\xe9")]).close()


def test_the_websocket_is_shown_without_secrets(connect: Connect, play: Play) -> None:
    ws = connect(play(close_at_once).url("/?token=s3cr3t"), deflate=False)
    assert repr(ws) == "WebSocket(close_code=None, subprotocol=None, deflate=None)"
    ws.close(1001)
    assert repr(ws) == "WebSocket(close_code=1001, subprotocol=None, deflate=None)"


def test_the_caller_s_user_agent_replaces_the_client_s(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers.get_all("User-Agent") == ["mine"]

    connect(play(script).url(), headers={"user-agent": "mine"}).close()


def test_the_request_has_no_optional_headers_by_default(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.request_line == "GET / HTTP/1.1"
        for name in ("Authorization", "Origin", "Sec-WebSocket-Protocol"):
            assert name not in visit.headers
        assert visit.headers["Sec-WebSocket-Extensions"].startswith(OFFERED)

    server = play(script)
    connect(f"ws://127.0.0.1:{server.port}").close()


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"not a token": ""}},
        {"headers": {"X": "\u20ac"}},
        {"headers": {"host": "other"}},
        {"headers": {"Origin": "other"}},
        {"headers": {"Connection": "close"}},
        {"headers": {"Sec-WebSocket-Key": "x"}},
        {"origin": "a\nb"},
        {"subprotocols": ["no token"]},
        {"subprotocols": ["twice", "twice"]},
        {"max_message_size": 0},
        {"max_queue": 0},
        {"open_timeout": -1},
        {"open_timeout": math.nan},
        {"close_timeout": -1},
        {"send_timeout": math.nan},
        {"ping_interval": -1},
        {"ping_timeout": math.nan},
    ],
)
def test_invalid_arguments_are_raised_at_once(
    connect: Connect, resolve: Resolve, options: dict[str, Any]
) -> None:
    names = resolve()
    with pytest.raises(ValueError, match=r"\w"):
        connect("ws://127.0.0.1/", **options)
    assert names == []


def test_subprotocols_must_be_a_sequence(connect: Connect) -> None:
    with pytest.raises(TypeError):
        connect("ws://127.0.0.1/", subprotocols="chat")


def test_the_websocket_has_the_negotiated_settings(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(subprotocols=["superchat"], deflate=PerMessageDeflate())
        visit.answer_close()

    ws = connect(play(script).url(), subprotocols=["chat", "superchat"])
    headers = dict(ws.headers)
    assert headers["Upgrade"] == "websocket"
    assert headers["Sec-WebSocket-Protocol"] == ws.subprotocol == "superchat"
    assert headers["Sec-WebSocket-Extensions"].startswith(OFFERED)
    assert ws.deflate is not None


def test_a_response_byte_by_byte_followed_by_frames(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.send_bytewise(visit.judge().encode() + visit.codec.encode("first"))
        visit.answer_close()

    assert connect(play(script).url()).receive(TIMEOUT) == "first"


def test_frames_in_the_same_segment_as_the_response(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        codec = visit.codec
        visit.upgrade(first=codec.ping(b"?") + codec.encode("first") + codec.close(4000))
        assert visit.expect(2) == [Pong(b"?"), Close(4000)]

    ws = connect(play(script).url())
    assert ws.close_code == 4000
    assert list(ws) == ["first"]


def test_an_invalid_frame_in_the_same_segment_as_the_response(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=encode_frame(3, b""))
        assert visit.next_event() == Close(1002, "opcode 3 is reserved")

    assert list(connect(play(script).url())) == []


def test_more_frames_with_the_response_than_fit_into_one_read(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.encode(bytes(1 << 20)))
        visit.answer_close()

    assert connect(play(script).url()).receive(TIMEOUT) == bytes(1 << 20)


def test_interim_responses_are_skipped(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        visit.upgrade()
        visit.answer_close()

    assert "Link" not in dict(connect(play(script).url()).headers)


def test_endless_interim_responses(connect: Connect, play: Play, codec: ModuleType) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        with suppress(ConnectionError):
            for _ in range(1000):
                visit.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
            raise AssertionError("the client has taken it all")

    with pytest.raises(codec.HandshakeError, match="exceeds the limit of 16384 bytes"):
        connect(play(script).url(), open_timeout=math.inf)


@pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t", " \r\n  \t"])
def test_a_folded_header_is_one_line(connect: Connect, play: Play, fold: str) -> None:
    def script(visit: Visit) -> None:
        good = visit.judge().encode().decode()
        visit.send(good.replace("websocket", fold + "websocket", 1)[:-2].encode())
        visit.send(f"X: a{fold}b{fold}c\r\n\r\n".encode())
        visit.answer_close()

    ws = connect(play(script).url())
    assert dict(ws.headers)["X"].split() == ["a", "b", "c"]
    assert dict(ws.headers)["Upgrade"] == "websocket"


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 426, 503])
def test_a_server_that_rejects_the_request(
    connect: Connect, play: Play, codec: ModuleType, status: int
) -> None:
    def script(visit: Visit) -> None:
        visit.answer(status, ("Location", server.url("/there")), body=b"no")

    server = play(script)
    with pytest.raises(codec.HandshakeError, match=f"the server answered {status}") as caught:
        connect(server.url())
    assert caught.value.status == status
    assert caught.value.headers == (("Location", server.url("/there")),)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Upgrade: websocket", "X: y", "does not upgrade to WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c", "does not upgrade to WebSocket"),
        ("Connection: Upgrade", "Connection: close", "does not upgrade to WebSocket"),
        ("Accept: ", "Accept: x", "does not match the key"),
        ("Sec-WebSocket-Accept", "X", "does not match the key"),
        ("Connection", "Sec-WebSocket-Protocol: chat\r\nConnection", "subprotocol .* not offered"),
        ("Connection", "Sec-WebSocket-Extensions: foo\r\nConnection", "extension .* not offered"),
        ("Connection", f"Sec-WebSocket-Extensions: {OFFERED}; x\r\nConnection", r"\w"),
        ("Connection", f"Sec-WebSocket-Extensions: {OFFERED};;\r\nConnection", "malformed"),
        ("Connection", "no colon\r\nConnection", "malformed"),
        (
            "Upgrade",
            " Upgrade",
            "malformed",
        ),  # a continuation line without a header (RFC 9112 section 2.2)
        ("Connection", "Upgrade : x\r\nConnection", "malformed"),
        ("HTTP/1.1", "HTTP/1.0", "does not begin with an HTTP/1.1 status line"),
        ("HTTP/1.1", "ICY", "does not begin with an HTTP/1.1 status line"),
        ("Connection", f"X: {'x' * 16384}\r\nConnection", "exceeds the limit of 16384 bytes"),
    ],
)
def test_an_invalid_response(
    connect: Connect, play: Play, codec: ModuleType, old: str, new: str, reason: str
) -> None:
    def script(visit: Visit) -> None:
        good = visit.judge().encode().decode()
        assert old in good
        visit.send(good.replace(old, new, 1).encode())
        visit.wait_for_end()

    with pytest.raises(codec.HandshakeError, match=reason) as caught:
        connect(play(script).url())
    assert caught.value.status == 502


def test_compression_that_was_not_offered(connect: Connect, play: Play, codec: ModuleType) -> None:
    def script(visit: Visit) -> None:
        good = visit.judge().encode()
        visit.send(good[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")

    with pytest.raises(codec.HandshakeError, match="extension that was not offered"):
        connect(play(script).url(), deflate=False)


def test_an_endless_head(connect: Connect, play: Play, codec: ModuleType) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 16384)
        visit.wait_for_end()

    with pytest.raises(codec.HandshakeError, match="exceeds the limit of 16384 bytes"):
        connect(play(script).url())


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs"])
def test_a_server_that_disconnects(
    connect: Connect, play: Play, codec: ModuleType, data: bytes
) -> None:
    with pytest.raises(
        codec.HandshakeError, match="closed the connection before it responded"
    ) as caught:
        connect(play(answer(data)).url())
    assert caught.value.status == 502


def test_a_server_that_resets(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.reset()

    with pytest.raises(ConnectionResetError):
        connect(play(script).url())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_server_that_never_answers(connect: Connect, play: Play, scheme: str) -> None:
    server = play(Visit.wait_for_end)
    with pytest.raises(TimeoutError):
        connect(f"{scheme}://127.0.0.1:{server.port}/", open_timeout=0.1)


def test_a_slow_head_must_be_complete_in_time(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.trickle(b"HTTP/1.1 101 Switching Protocols\r\nX: ")

    with pytest.raises(TimeoutError):
        connect(play(script).url(), open_timeout=0.3)


def test_a_timeout_of_zero(connect: Connect) -> None:
    with pytest.raises(TimeoutError):
        connect("ws://127.0.0.1:1/", open_timeout=0)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**400, 86400 * 365])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_timeout_of_infinity(
    connect: Connect, play: Play, certificates: Certificates, scheme: str, timeout: float
) -> None:
    server = play(close_at_once, tls=certificates.server if scheme == "wss" else None)
    names = "open_timeout", "close_timeout", "send_timeout", "ping_interval", "ping_timeout"
    timeouts = dict.fromkeys(names, timeout)
    ws = connect(server.url(), ssl=certificates.client, **timeouts)
    ws.close()
    assert ws.close_code == 1000

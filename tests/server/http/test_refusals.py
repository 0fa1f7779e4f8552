"""What the server refuses: how, that it closes then, and that the next client is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Queue
from typing import Any

import pytest

from tests.server.conftest import Clients, Serve, until_it_stands_still, wait_until
from tests.support.clients import (
    KEY,
    Answer,
    Client,
    WebSocketClient,
    get,
    head,
    masked,
    parse_answer,
    upgrade,
)
from tests.support.handlers import Waits, generator_echo, plain_echo
from wsframe import Close, Opcode
from wsframe.server import App, Server, WebSocket
from wsframe.server.sockets.peer import HIGH_WATER

PAGE = b"<p>the page"
LIMIT = 1000
# Around what a client sends of which the beginning is enough to be refused, and closed.
REFUSED_EARLY = suppress(BrokenPipeError, ConnectionResetError)

HOST = ("Host", "localhost")


@pytest.fixture
def server(serve: Serve, clients: Clients) -> Iterator[Server]:
    """A server of which the next client is served, whatever the one before has done."""
    app = App()
    app.page("/", PAGE)
    app.websocket("/echo", max_message_size=LIMIT)(generator_echo)
    app.websocket("/thread", max_message_size=LIMIT)(plain_echo)
    app.websocket("/site", origins=["https://example.com", "http://other.example:8080"])(plain_echo)
    app.websocket("/open", origins="*")(generator_echo)
    app.websocket("/every", origins=["*"])(generator_echo)
    app.websocket("/app", origins=["capacitor://localhost"])(generator_echo)
    app.sse("/time", source=Queue())
    running = serve(app, hosts="*")
    yield running
    client = clients.connect(running)
    client.send(get("/"))
    assert client.answer().body == PAGE
    last = clients.websocket(running, "/echo")
    last.say("served")
    assert last.next_event() == "served"
    last.leave()


def answers(clients: Clients, server: Server, request: bytes) -> list[Answer]:
    """The answers to a request in one segment, and, unless it is long, a byte at a time."""
    client = clients.connect(server)
    client.send(request)
    result = [client.answer()]
    if len(request) < 500:
        client = clients.connect(server)
        with REFUSED_EARLY:
            client.send_bytewise(request)
        result.append(parse_answer(client.read_until(b"\r\n\r\n") + read_what_comes(client)))
    return result


def read_what_comes(client: Client) -> bytes:
    """The rest, where the client has sent more than was read and so may see a reset."""
    try:
        return client.read_to_end()
    except ConnectionResetError:
        return b""


# Requests ----------------------------------------------------------------------------------------

MALFORMED = {
    "no words": b"\r\n\r\n",
    "no HTTP": b"hello there\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
    "no target": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "version 3.0": head("GET / HTTP/3.0", [HOST]),
    "version 1": head("GET / HTTP/1", [HOST]),
    "version of another protocol": head("GET / ICE/1.0", [HOST]),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method in lower case": head("get / HTTP/1.1", [HOST]),
    "unknown method": head("BREW / HTTP/1.1", [HOST]),
    "space in target": head("GET /a b HTTP/1.1", [HOST]),
    "tab for a space": head("GET\t/ HTTP/1.1", [HOST]),
    "control character in target": head("GET /\x01 HTTP/1.1", [HOST]),
    "byte in target that is not ASCII": head("GET /é HTTP/1.1", [HOST]),
    "target without a slash": head("GET index HTTP/1.1", [HOST]),
    "CONNECT": head("CONNECT localhost:1 HTTP/1.1", [HOST]),
    "bare line feeds": get("/").replace(b"\r\n", b"\n"),
    "bare carriage returns": get("/").replace(b"\r\n", b"\r"),
    "folded header": get("/", ("X-A", "b\r\n c")),
    "folded first header": b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "header without a colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nabc\r\n\r\n",
    "header without a name": get("/", ("", "x")),
    "header with a space in its name": get("/", ("X A", "x")),
    "header with a bracket in its name": get("/", ("X(A", "x")),
    "header with a name that is not ASCII": get("/", ("X-é", "x")),
    "NUL in a header": get("/", ("X-A", "a\0b")),
    "carriage return in a header": get("/", ("X-A", "a\rb")),
    "line feed in a header": get("/", ("X-A", "a\nX-B: b")),
    "no Host": head("GET / HTTP/1.1", []),
    "Host twice": get("/", HOST),
    "two different Hosts": get("/", ("host", "example.com")),
    "empty Host": head("GET / HTTP/1.1", [("Host", "")]),
    "Host with a space": head("GET / HTTP/1.1", [("Host", "a b")]),
    "Host with a path": head("GET / HTTP/1.1", [("Host", "a/b")]),
    "Host with a user": head("GET / HTTP/1.1", [("Host", "a@b")]),
    "Host with a port that is none": head("GET / HTTP/1.1", [("Host", "a:b")]),
    "Host with a port that is too large": head("GET / HTTP/1.1", [("Host", "a:65536")]),
    "two Hosts in one": head("GET / HTTP/1.1", [("Host", "a, b")]),
    "Host twice in HTTP/1.0": head("GET / HTTP/1.0", [HOST, HOST]),
    "length that is no number": get("/", ("Content-Length", "five")),
    "negative length": get("/", ("Content-Length", "-1")),
    "length with a sign": get("/", ("Content-Length", "+5")),
    "length in hexadecimal": get("/", ("Content-Length", "0x5")),
    "length over 64 bits": get("/", ("Content-Length", "9" * 30)),
    "upgrade, no Host": upgrade("/echo", changes={"Host": None}),
    "upgrade, Host twice": upgrade("/echo", HOST),
    "upgrade, bad Host": upgrade("/echo", changes={"Host": "a b"}),
    "upgrade with a body": upgrade("/echo", ("Content-Length", "3")) + b"abc",
    "upgrade with a chunked body": upgrade("/echo", ("Transfer-Encoding", "chunked"))
    + b"0\r\n\r\n",
    "no key": upgrade("/echo", changes={"Sec-WebSocket-Key": None}),
    "empty key": upgrade("/echo", changes={"Sec-WebSocket-Key": ""}),
    "short key": upgrade("/echo", changes={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"}),
    "key of 15 bytes": upgrade("/echo", changes={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"}),
    "key of 17 bytes": upgrade("/echo", changes={"Sec-WebSocket-Key": "A" * 23 + "="}),
    "key that is no base64": upgrade("/echo", changes={"Sec-WebSocket-Key": "!" * 22 + "=="}),
    "key that is not ASCII": upgrade("/echo", changes={"Sec-WebSocket-Key": "é" * 22 + "=="}),
    "two keys": upgrade("/echo", ("Sec-WebSocket-Key", KEY)),
    "two keys in one": upgrade("/echo", changes={"Sec-WebSocket-Key": f"{KEY}, {KEY}"}),
    "subprotocol that is no token": upgrade("/echo", ("Sec-WebSocket-Protocol", "a b")),
    "two origins": upgrade(
        "/site", ("Origin", "https://example.com"), ("Origin", "http://localhost")
    ),
}

# Where one server sees one request, another may see two.
SMUGGLING = {
    "length and encoding": get("/", ("Content-Length", "6"), ("Transfer-Encoding", "chunked"))
    + b"0\r\n\r\nG",
    "encoding and length": get("/", ("Transfer-Encoding", "chunked"), ("Content-Length", "6"))
    + b"0\r\n\r\nG",
    "two lengths": get("/", ("Content-Length", "0"), ("Content-Length", "44")) + get("/"),
    "two equal lengths": get("/", ("Content-Length", "5"), ("Content-Length", "5")) + b"hello",
    "two lengths in one": get("/", ("Content-Length", "0, 44")) + get("/"),
    "unknown encoding": get("/", ("Transfer-Encoding", "xchunked")) + get("/"),
    "chunked is not the last": get("/", ("Transfer-Encoding", "chunked, gzip")) + get("/"),
    "space before the colon": get("/", ("Content-Length ", "44")) + get("/"),
    "folded encoding": get("/", ("Transfer-Encoding", "\r\n chunked")) + get("/"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_a_bad_request(server: Server, clients: Clients, name: str) -> None:
    for answer in answers(clients, server, MALFORMED[name]):
        assert answer.status == 400
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert answer.body


@pytest.mark.parametrize("name", SMUGGLING)
def test_a_request_that_may_be_read_as_two_is_answered_once(
    server: Server, clients: Clients, name: str
) -> None:
    client = clients.connect(server)
    client.send(SMUGGLING[name])
    received = client.read_to_end()
    assert received.count(b"HTTP/1.1 ") == 1
    assert parse_answer(received).status == 400


@pytest.mark.parametrize(
    "request_",
    [
        get("/") + get("/"),
        get("/") + upgrade("/echo"),
        get("/", ("Content-Length", "5")) + b"hello" + get("/"),
        get("/", ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n" + get("/"),
        get("/", ("Connection", "keep-alive")) + get("/"),
    ],
    ids=["page", "upgrade", "body", "chunked", "keep-alive"],
)
def test_a_second_request_on_a_connection_is_not_served(
    server: Server, clients: Clients, request_: bytes
) -> None:
    client = clients.connect(server)
    client.send(request_)
    received = client.read_to_end()
    assert received.count(b"HTTP/1.1 ") == 1
    assert parse_answer(received).body == PAGE


def unsent(server: Server) -> int:
    return sum(len(peer._unsent) for peer in tuple(server.clients[0].peers))


def test_what_comes_behind_a_request_is_never_added_to_it(serve: Serve, clients: Clients) -> None:
    """Also while its answer waits for a client that does not read."""
    entered = threading.Event()

    def enter(ws: WebSocket) -> None:
        entered.set()

    def ask(size: int) -> tuple[Server, Client, bytes]:
        app = App()
        app.page("/a", bytes(size))
        app.websocket("/a/b")(enter)
        server = serve(app)
        client = clients.connect(server, receive_buffer=1 << 16)
        client.send(get("/a"))
        first = client.read_until(b"\r\n\r\n")
        until_it_stands_still(lambda: -unsent(server))
        return server, client, first

    # How much the kernel takes; a little more leaves a little, with which we still read.
    size = 1 << 24
    server, client, first = ask(size)
    taken = size - unsent(server)
    client.reset()
    size = taken + HIGH_WATER // 2
    server, client, first = ask(size)
    assert 0 < unsent(server) < HIGH_WATER
    client.send(upgrade("/b", changes={"Host": None}))  # which it had before
    until_it_stands_still(lambda: -unsent(server))
    assert parse_answer(first + client.read_to_end()).body == bytes(size)
    assert not entered.is_set()


def test_a_refusal_closes_at_once(serve: Serve, clients: Clients) -> None:
    """And not when the server is tired of waiting for the client to close."""
    client = clients.connect(serve(App()))
    begin = time.monotonic()
    client.send(get("/none"))
    assert client.answer().status == 404
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("lines", [1, 2])
def test_an_empty_line_before_the_request_may_be_ignored(
    server: Server, clients: Clients, lines: int
) -> None:
    client = clients.connect(server)
    client.send(b"\r\n" * lines + get("/"))
    assert client.answer().status == (200 if lines == 1 else 400)


# Sizes -------------------------------------------------------------------------------------------


def filled(size: int) -> bytes:
    """A request whose head has just this size."""
    empty = get("/", ("X-A", ""))
    return get("/", ("X-A", "a" * (size - len(empty))))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (filled(16 * 1024), 200),
        (filled(16 * 1024 + 1), 431),
        (filled(100 * 1024), 431),
        (get("/", ("X-" + "a" * 17_000, "x")), 431),
        (get("/", *[("X-A", "a")] * 99), 200),
        (get("/", *[("X-A", "a")] * 100), 431),
        (get("/", *[("A", "")] * 1000), 431),
        (get("/?" + "a" * (8 * 1024 - 2)), 200),
        (get("/?" + "a" * (8 * 1024 - 1)), 414),
        (get("/" + "a" * 20_000), 414),
        (get("/?" + "a" * 300_000), 414),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else str(value),
)
def test_a_head_has_limits(server: Server, clients: Clients, request_: bytes, status: int) -> None:
    client = clients.connect(server)
    client.send(request_)
    assert parse_answer(client.read_until(b"\r\n\r\n")).status == status
    read_what_comes(client)
    # And in pieces.
    client = clients.connect(server)
    with REFUSED_EARLY:
        for begin in range(0, len(request_), 1000):
            client.send(request_[begin : begin + 1000])
    assert parse_answer(client.read_until(b"\r\n\r\n")).status == status


def test_a_head_that_never_ends_is_refused_at_the_limit(server: Server, clients: Clients) -> None:
    client = clients.connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    client.send(b"X-A: " + b"a" * 16 * 1024)
    assert parse_answer(client.read_until(b"\r\n\r\n")).status == 431


@pytest.mark.parametrize(
    "begun", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", get("/")[:-1]]
)
def test_a_head_that_does_not_come_in_time_is_waited_for_no_longer(
    serve: Serve, clients: Clients, begun: bytes
) -> None:
    app = App()
    app.page("/", PAGE)
    server = serve(app, handshake_timeout=0.3)
    client = clients.connect(server)
    start = time.monotonic()
    if begun:
        client.send(begun)
    assert client.read_to_end() == b""
    assert time.monotonic() - start >= 0.3
    client = clients.connect(server)
    client.send(get("/"))
    assert client.answer().body == PAGE


def test_a_head_that_drips_is_not_given_more_time(serve: Serve, clients: Clients) -> None:
    client = clients.connect(serve(App(), handshake_timeout=0.3))
    client.send(b"GET / HTTP/1.1\r\nX-A: ")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for _ in range(500):
            client.send(b"a")
            time.sleep(0.01)


def test_a_connection_that_was_served_is_not_ended_by_the_handshakes_deadline(
    serve: Serve, clients: Clients
) -> None:
    app = App()
    app.websocket("/echo")(generator_echo)
    ticks: Queue[str] = Queue()
    app.sse("/time", source=ticks)
    server = serve(app, handshake_timeout=0.1)
    client, stream = clients.websocket(server, "/echo"), clients.stream(server, "/time")
    late = clients.connect(server)
    assert late.read_to_end() == b""  # so the deadline of the others is over, too
    client.say("x")
    assert client.next_event() == "x"
    ticks.put("x")
    assert stream.hear(1) == ["x"]


# Routes ------------------------------------------------------------------------------------------


NO_UPGRADE = {
    "a page is asked for": get("/echo"),
    "another upgrade": get("/echo", ("Upgrade", "h2c"), ("Connection", "Upgrade")),
    "another method": get("/echo", method="POST"),
    "no Upgrade": upgrade("/echo", changes={"Upgrade": None}),
    "an Upgrade that only begins so": upgrade("/echo", changes={"Upgrade": "websockets"}),
    "no Connection": upgrade("/echo", changes={"Connection": None}),
    "another Connection": upgrade("/echo", changes={"Connection": "keep-alive"}),
    "no version": upgrade("/echo", changes={"Sec-WebSocket-Version": None}),
    "version 8": upgrade("/echo", changes={"Sec-WebSocket-Version": "8"}),
    "version 14": upgrade("/echo", changes={"Sec-WebSocket-Version": "14"}),
    "version 013": upgrade("/echo", changes={"Sec-WebSocket-Version": "013"}),
    "empty version": upgrade("/echo", changes={"Sec-WebSocket-Version": ""}),
    "two versions": upgrade("/echo", changes={"Sec-WebSocket-Version": "13, 8"}),
}


@pytest.mark.parametrize("name", NO_UPGRADE)
def test_a_websocket_requires_an_upgrade_to_version_13(
    server: Server, clients: Clients, name: str
) -> None:
    for answer in answers(clients, server, NO_UPGRADE[name]):
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "websocket"
        assert "Upgrade" in answer.headers.get_all("Connection", [])[0]
        assert answer.headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize(
    ("version", "status"),
    [("0.9", 505), ("1.0", 426), ("1.2", 400), ("1.10", 400), ("2.0", 505), ("3.0", 400)],
)
def test_no_other_version_of_http_is_upgraded(
    server: Server, clients: Clients, version: str, status: int
) -> None:
    for answer in answers(clients, server, upgrade("/echo", version=version)):
        assert answer.status == status


@pytest.mark.parametrize(
    "request_",
    [b"GET /\r\n\r\n", head("GET / HTTP/0.9", [HOST]), head("GET / HTTP/2.0", [HOST])],
    ids=["none", "0.9", "2.0"],
)
def test_only_version_1_of_http_is_spoken(
    server: Server, clients: Clients, request_: bytes
) -> None:
    for answer in answers(clients, server, request_):
        assert answer.status == 505


def test_a_page_may_be_read_with_http_1_0_which_knows_no_host(
    server: Server, clients: Clients
) -> None:
    for answer in answers(clients, server, head("GET / HTTP/1.0", [])):
        assert (answer.status, answer.body) == (200, PAGE)


def test_an_upgrade_is_asked_for_with_get(server: Server, clients: Clients) -> None:
    for answer in answers(clients, server, upgrade("/echo", method="POST")):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "request_",
    [get("/no"), upgrade("/no"), get("/no", method="POST")],
    ids=["GET", "upgrade", "POST"],
)
def test_what_has_no_route_is_not_found(server: Server, clients: Clients, request_: bytes) -> None:
    for answer in answers(clients, server, request_):
        assert answer.status == 404


@pytest.mark.parametrize("target", ["/", "/time"])
def test_what_is_only_read_names_the_methods(server: Server, clients: Clients, target: str) -> None:
    for answer in answers(clients, server, get(target, method="POST")):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"


# Origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "host", "origin", "admitted"),
    [
        ("/echo", "localhost:9292", None, True),
        ("/echo", "localhost:9292", "http://localhost:9292", True),
        ("/echo", "localhost:9292", "https://LOCALHOST:9292", True),
        ("/echo", "example.org", "https://example.org", True),
        ("/echo", "example.org", "https://example.org:443", True),
        ("/echo", "example.org:80", "http://example.org", True),
        ("/echo", "[::1]:9292", "http://[::1]:9292", True),
        ("/echo", "localhost:9292", "http://localhost:9293", False),
        ("/echo", "localhost:9292", "http://localhost", False),
        ("/echo", "example.org", "https://example.org:8443", False),
        ("/echo", "example.org", "http://example.org.evil.example", False),
        ("/echo", "example.org", "http://evil.example", False),
        ("/echo", "example.org", "http://evil.example/example.org", False),
        ("/echo", "example.org", "http://evil@example.org", False),
        ("/echo", "example.org", "null", False),
        ("/echo", "example.org", "", False),
        ("/echo", "example.org", "example.org", False),
        ("/echo", "example.org", "file://", False),
        ("/echo", "example.org", "file://example.org", False),
        ("/echo", "example.org", "ftp://example.org", False),
        ("/echo", "example.org", "ws://example.org", False),
        ("/echo", "example.org", "chrome-extension://example.org", False),
        ("/app", "localhost", "capacitor://localhost", True),
        ("/app", "localhost", "ionic://localhost", False),
        ("/every", "localhost", "https://evil.example", True),
        ("/site", "localhost", "https://example.com", True),
        ("/site", "localhost", "HTTPS://EXAMPLE.COM", True),
        ("/site", "localhost", "http://other.example:8080", True),
        ("/site", "localhost", "http://localhost", True),
        ("/site", "localhost", "http://example.com", False),
        ("/site", "localhost", "https://example.com:8443", False),
        ("/site", "localhost", "https://sub.example.com", False),
        ("/site", "localhost", "http://other.example", False),
        ("/open", "localhost", "https://evil.example", True),
        ("/open", "localhost", "null", True),
    ],
)
def test_only_pages_of_this_host_and_of_allowed_sites_may_connect(
    server: Server, clients: Clients, target: str, host: str, origin: str | None, admitted: bool
) -> None:
    request = upgrade(target, changes={"Host": host, "Origin": origin})
    client = clients.connect(server)
    client.send(request)
    if admitted:
        assert parse_answer(client.read_until(b"\r\n\r\n")).status == 101
    else:
        answer = client.answer()
        assert answer.status == 403
        assert answer.body == b"this Origin may not connect\n"


# Frames ------------------------------------------------------------------------------------------

KEY_BYTES = b"\x01\x82\x7f\xfc"
FRAGMENT = masked(Opcode.TEXT, "x" * 600, fin=False)
TOO_BIG = {
    "message": (masked(Opcode.BINARY, bytes(LIMIT + 1)), 1001),
    "message of which only the length has come": (b"\x82\xfe\x03\xe9", 1001),
    "message of a length of 63 bits": (b"\x81\xff\x7f" + b"\xff" * 7, (1 << 63) - 1),
    "fragments": (FRAGMENT + masked(Opcode.CONTINUATION, "x" * 401), 1001),
    "fragments of which only the length has come": (FRAGMENT + b"\x00\xfe\x01\x91", 1001),
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
    """The close frame, which no answer is owed to."""
    close = client.next_event()
    assert isinstance(close, Close)
    client.expect_end()
    return close


def breaking(clients: Clients, server: Server, frames: bytes) -> Iterator[Close]:
    """How clients that send these frames are closed: to either handler, whole and bytewise."""
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


def test_a_message_at_the_limit_is_taken(server: Server, clients: Clients) -> None:
    for target in ("/echo", "/thread"):
        client = clients.websocket(server, target)
        client.say("x" * LIMIT, "é" * (LIMIT // 2))
        client.send(FRAGMENT + masked(Opcode.CONTINUATION, "x" * 400))
        assert client.hear(3) == ["x" * LIMIT, "é" * (LIMIT // 2), "x" * LIMIT]


@pytest.mark.parametrize("name", NOT_UTF8)
def test_text_that_is_not_utf8_is_refused_at_its_first_bad_byte(
    server: Server, clients: Clients, name: str
) -> None:
    what = "a close reason" if name == "close reason" else "a text message"
    close = Close(1007, f"{what} is not valid UTF-8")
    assert set(breaking(clients, server, NOT_UTF8[name])) == {close}


@pytest.mark.parametrize("name", BROKEN)
def test_frames_that_break_a_rule_are_refused(server: Server, clients: Clients, name: str) -> None:
    for close in breaking(clients, server, BROKEN[name]):
        assert close.code == 1002
        assert close.reason


def test_a_client_that_goes_on_after_its_fault_is_heard_no_more(
    serve: Serve, clients: Clients
) -> None:
    seen: list[Any] = []

    def collect(ws: WebSocket) -> Waits:
        while True:
            seen.append((yield))

    app = App()
    app.websocket("/echo")(collect)
    server = serve(app)
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, "before") + b"\xc1\x80" + KEY_BYTES)
    assert client.next_event() == Close(
        1002, "a reserved bit is set and no extension was agreed on"
    )
    client.send(masked(Opcode.TEXT, "after") * 100)
    client.expect_end()
    wait_until(lambda: not server.clients[0].peers, "the connection is over")
    assert seen == ["before"]


def test_a_message_that_is_announced_takes_no_memory(serve: Serve, clients: Clients) -> None:
    """Its length alone, within a large limit, is no reason to make room for it."""
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
    other.say("x")
    assert other.next_event() == "x"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024

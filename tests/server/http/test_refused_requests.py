"""Requests that the server refuses: the answer, and the end of the connection."""

from __future__ import annotations

import threading
from queue import Queue
from typing import Any

import pytest

from tests.server.http.refused import HOST, PAGE, REFUSED_EARLY, answers, read_what_comes
from tests.support.clients import KEY, Client, Clients, get, head, parse_response, upgrade
from tests.support.handlers import STEP, generator_echo
from tests.support.inspection import peers_of, queued_bytes, wait_for_disconnects
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until, wait_until_stable
from wsframe.server import App, Server, Settings, WebSocket
from wsframe.server.sockets.output import HIGH_WATER
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

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
    "Host with an invalid port": head("GET / HTTP/1.1", [("Host", "a:b")]),
    "Host with a port that is too large": head("GET / HTTP/1.1", [("Host", "a:65536")]),
    "two Hosts in one": head("GET / HTTP/1.1", [("Host", "a, b")]),
    "Host twice in HTTP/1.0": head("GET / HTTP/1.0", [HOST, HOST]),
    "length that is not a number": get("/", ("Content-Length", "five")),
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
    "key that is not base64": upgrade("/echo", changes={"Sec-WebSocket-Key": "!" * 22 + "=="}),
    "key that is not ASCII": upgrade("/echo", changes={"Sec-WebSocket-Key": "é" * 22 + "=="}),
    "two keys": upgrade("/echo", ("Sec-WebSocket-Key", KEY)),
    "two keys in one": upgrade("/echo", changes={"Sec-WebSocket-Key": f"{KEY}, {KEY}"}),
    "subprotocol that is not a token": upgrade("/echo", ("Sec-WebSocket-Protocol", "a b")),
    "two origins": upgrade(
        "/site", ("Origin", "https://example.com"), ("Origin", "http://localhost")
    ),
    "two origins for a stream": get(
        "/time", ("Origin", "http://localhost"), ("Origin", "http://localhost")
    ),
}


# Data in which one server may see one request, and another two.
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
def test_a_malformed_request_is_a_bad_request(server: Server, clients: Clients, name: str) -> None:
    for answer in answers(clients, server, MALFORMED[name]):
        assert answer.status == 400
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert answer.body


@pytest.mark.parametrize("name", SMUGGLING)
def test_an_ambiguous_request_is_answered_once(server: Server, clients: Clients, name: str) -> None:
    client = clients.connect(server)
    client.send(SMUGGLING[name])
    received = client.read_to_end()
    assert received.count(b"HTTP/1.1 ") == 1
    assert parse_response(received).status == 400


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
    assert parse_response(received).body == PAGE


def unsent(server: Server) -> int:
    return sum(queued_bytes(peer) for peer in tuple(peers_of(server)))


def test_data_after_a_request_is_never_added_to_it(serve: Serve, clients: Clients) -> None:
    """This holds even while the answer waits for a client that does not read."""
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
        wait_until_stable(lambda: -unsent(server))
        return server, client, first

    # The kernel accepts this much. A little more remains unsent, and the client is still read.
    size = 1 << 24
    server, client, first = ask(size)
    taken = size - unsent(server)
    client.reset()
    size = taken + HIGH_WATER // 2
    server, client, first = ask(size)
    assert 0 < unsent(server) < HIGH_WATER
    client.send(upgrade("/b", changes={"Host": None}))  # the buffer had one before
    wait_until_stable(lambda: -unsent(server))
    assert parse_response(first + client.read_to_end()).body == bytes(size)
    assert not entered.is_set()


def test_a_refusal_closes_at_once(serve: Serve, clients: Clients) -> None:
    """The server closes at once, without waiting for the client to close."""
    server = serve(App(), close_timeout=2 * TIMEOUT, handshake_timeout=2 * TIMEOUT)
    client = clients.connect(server)
    client.send(get("/none"))
    assert client.answer().status == 404  # at its end, within TIMEOUT


@pytest.mark.parametrize("lines", [1, 2])
def test_an_empty_line_before_the_request_is_ignored(
    server: Server, clients: Clients, lines: int
) -> None:
    client = clients.connect(server)
    client.send(b"\r\n" * lines + get("/"))
    assert client.answer().status == (200 if lines == 1 else 400)


def filled(size: int) -> bytes:
    """Return a request whose head has exactly this size."""
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
def test_the_limits_of_a_head_are_kept(
    server: Server, clients: Clients, request_: bytes, status: int
) -> None:
    client = clients.connect(server)
    client.send(request_)
    assert parse_response(client.read_until(b"\r\n\r\n")).status == status
    read_what_comes(client)
    # The same in pieces.
    client = clients.connect(server)
    with REFUSED_EARLY:
        for begin in range(0, len(request_), 1000):
            client.send(request_[begin : begin + 1000])
    assert parse_response(client.read_until(b"\r\n\r\n")).status == status


LARGER: dict[str, Any] = {"max_head_size": 40_000, "max_headers": 150}
SMALLER: dict[str, Any] = {"max_head_size": 200, "max_headers": 3}


@pytest.mark.parametrize(
    ("settings", "request_", "status"),
    [
        (LARGER, filled(40_000), 200),
        (LARGER, filled(40_001), 431),
        (LARGER, get("/?" + "a" * 19_998), 200),
        (LARGER, get("/?" + "a" * 19_999), 414),
        (LARGER, get("/", *[("A", "a")] * 149), 200),
        (LARGER, get("/", *[("A", "a")] * 150), 431),
        (SMALLER, filled(200), 200),
        (SMALLER, filled(201), 431),
        (SMALLER, get("/?" + "a" * 98), 200),
        (SMALLER, get("/?" + "a" * 99), 414),
        (SMALLER, get("/", *[("A", "a")] * 2), 200),
        (SMALLER, get("/", *[("A", "a")] * 3), 431),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else None,
)
def test_the_limits_of_a_head_are_settings(
    serve: Serve, clients: Clients, settings: dict[str, Any], request_: bytes, status: int
) -> None:
    app = App()
    app.page("/", PAGE)
    server = serve(app, **settings)
    client = clients.connect(server)
    client.send(request_)
    assert parse_response(client.read_until(b"\r\n\r\n")).status == status


@pytest.mark.parametrize("name", ["max_head_size", "max_headers"])
def test_a_head_without_room_is_an_invalid_setting(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1: 0"):
        Settings(**options)


def test_a_head_that_never_ends_is_refused_at_the_limit(server: Server, clients: Clients) -> None:
    client = clients.connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    client.send(b"X-A: " + b"a" * 16 * 1024)
    assert parse_response(client.read_until(b"\r\n\r\n")).status == 431


@pytest.mark.parametrize(
    "begun", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", get("/")[:-1]]
)
def test_a_connection_without_a_head_in_time_is_closed(
    serve: Serve, clients: Clients, begun: bytes
) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))
    app.page("/", PAGE)
    server = serve(app, handshake_timeout=4)
    client = clients.connect(server)
    if begun:
        client.send(begun)
    wait_until(lambda: [peer.bytes_in for peer in peers_of(server)] == [len(begun)], "it is read")
    clock.pass_time(server, 3)
    assert len(peers_of(server)) == 1
    clock.pass_time(server, 2)
    assert client.read_to_end() == b""
    client = clients.connect(server)
    client.send(get("/"))
    assert client.answer().body == PAGE


def test_a_slow_head_gets_no_more_time(serve: Serve, clients: Clients) -> None:
    clock = ManualClock()
    server = serve(App(timing=Timing(clock=clock)), handshake_timeout=4)
    client = clients.connect(server)
    client.send(b"GET / HTTP/1.1\r\nX-A: ")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for _ in range(100):
            client.send(b"a")
            clock.pass_time(server, STEP)


def test_the_handshake_deadline_does_not_end_a_served_connection(
    serve: Serve, clients: Clients
) -> None:
    clock = ManualClock()
    app = App(timing=Timing(clock=clock))
    app.websocket("/echo")(generator_echo)
    ticks: Queue[str] = Queue()
    app.sse("/time", source=ticks)
    server = serve(app, handshake_timeout=4)
    client, stream = clients.websocket(server, "/echo"), clients.stream(server, "/time")
    late = clients.connect(server)
    wait_for_disconnects(server, 3)
    clock.pass_time(server, 5)
    assert late.read_to_end() == b""  # so the deadline of the others has expired, too
    client.send_messages("x")
    assert client.next_event() == "x"
    ticks.put("x")
    assert stream.expect(1) == ["x"]

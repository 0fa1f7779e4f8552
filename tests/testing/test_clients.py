"""The clients, against servers that send what the test decides."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias

import pytest

from tests.support.scripted import Script, ScriptedServer, Visit
from wsframe import Close, HandshakeError, Ping, Pong
from wsframe.testing import Client, Clients, SlowReader, StreamClient, WebSocketClient
from wsframe.testing.requests import get

pytestmark = pytest.mark.usefixtures("leak_check")

GET = get("/")
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!"
WRONG_KEY = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
)
Play: TypeAlias = Callable[..., ScriptedServer]


@pytest.fixture
def play() -> Iterator[Play]:
    """Start a server that runs these scripts, one per client."""
    with ExitStack() as stack:

        def start(*scripts: Script) -> ScriptedServer:
            server = ScriptedServer(*scripts)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def clients(play: Play) -> Iterator[Clients]:
    with Clients() as clients:
        yield clients


def sending(data: bytes) -> Script:
    """Return a script that answers a request with these bytes, and closes the connection."""

    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(data)

    return script


def test_a_response_ends_with_its_length_or_with_the_connection(
    play: Play, clients: Clients
) -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    scripts = (
        (head + b"Content-Length: 2\r\n\r\nab" + head + b"\r\ncd", ["ab", "cd"]),
        (head + b"Content-Length: 0\r\n\r\n", [""]),
        (head + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", ["ab"]),
        (b"HTTP/1.1 204 No Content\r\n\r\n" + head + b"\r\na", ["", "a"]),
        (head + b"Content-Length: 3\r\n\r\nab", ["the connection ended after 2 of 3 bytes: b'ab'"]),
        (head[:9], ["the connection ended before b'\\r\\n\\r\\n': b'HTTP/1.1 '"]),
        (
            b"HTTP/2 200 OK\r\n\r\n",
            ["not a response of HTTP/1.0 or HTTP/1.1: b'HTTP/2 200 OK\\r\\n\\r\\n'"],
        ),
    )
    server = play(*(sending(data) for data, _ in scripts))
    for _, expected in scripts:
        client = clients.connect(server)
        client.send(GET)
        found = []
        try:
            found += [client.response().body.decode() for _ in expected]
        except (EOFError, AssertionError) as error:
            found.append(str(error))
        assert found == expected


def test_the_last_response_announces_the_end(play: Play, clients: Clients) -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: a, close\r\n\r\nb"
    server = play(*map(sending, (last, last.replace(b"1.1", b"1.0"), last.replace(b"e", b"E"))))
    for valid in (True, False, False):
        client = clients.connect(server)
        client.send(GET)
        if valid:
            assert client.answer().body == b"b"
        else:
            with pytest.raises(
                AssertionError, match=r"expected an HTTP/1\.1 response with Connection: close"
            ):
                client.answer()


def test_a_refused_request_has_its_status_and_body(play: Play) -> None:
    server = play(*[sending(REFUSAL)] * 2)
    for kind in (WebSocketClient, StreamClient):
        with pytest.raises(HandshakeError) as caught:
            kind(server.port, "/")
        assert (caught.value.status, caught.value.body) == (403, b"no!")
        assert caught.value.answered
        assert caught.value.headers == (("Content-Length", "3"),)


def test_a_wrong_key_and_a_closed_port_are_errors(play: Play) -> None:
    with pytest.raises(AssertionError, match="Sec-WebSocket-Accept"):
        WebSocketClient(play(sending(WRONG_KEY)).port, "/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        Client(port)


def test_expect_returns_events_in_order_and_answers_pings(play: Play, clients: Clients) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.ping(b"1"))
        visit.send_messages("a", b"b", "c")
        assert visit.expect(1) == [Pong(b"1")]
        visit.send(visit.codec.pong(b"2"))
        assert visit.answer_close() == Close(1000)

    client = clients.websocket(play(script), "/")
    assert client.expect(2) == ["a", b"b"]
    assert client.expect(1, timeout=20) == ["c"]
    assert client.expect(1) == [Pong(b"2")]
    assert client.leave() == Close(1000)


def test_a_client_may_leave_pings_unanswered(play: Play, clients: Clients) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.ping(b"1"))
        visit.send(visit.codec.pong(b"2"))
        visit.send(visit.codec.close(1001))
        assert visit.expect(1) == [Close(1001)]

    client = clients.websocket(play(script), "/", answer_pings=False, bytewise=True)
    assert client.expect(1) == [Ping(b"1")]
    assert client.expect_close() == Close(1001)


def test_missing_events_are_an_error_with_the_events_before(play: Play, clients: Clients) -> None:
    def websocket(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("a")
        visit.wait_for_end()

    def stream(visit: Visit) -> None:
        visit.stream(b"data: a\n\ndata: b\n\n")
        visit.trickle(b": ")  # received bytes do not extend the time

    server = play(websocket, stream)
    client = clients.websocket(server, "/")
    with pytest.raises(TimeoutError, match=r"^received 1 of 2 events within 0\.1 s: \['a'\]$"):
        client.expect(2, timeout=0.1)
    with (
        client.timeout(0.05),
        pytest.raises(TimeoutError, match=r"^received 0 of 1 events within 0\.05 s"),
    ):
        client.expect(1)
    assert client.sock.gettimeout() == 30
    client.close()
    events = clients.stream(server, "/")
    assert events.expect(1) == ["a"]
    with pytest.raises(TimeoutError, match=r"^received 1 of 2 events within 0\.1 s: \['b'\]$"):
        events.expect(2, timeout=0.1)
    for wait in (lambda: events.expect(1), events.expect_end):
        with events.timeout(0.1), pytest.raises(TimeoutError):
            wait()
    events.close()


def test_the_end_of_a_connection_is_an_error(play: Play, clients: Clients) -> None:
    server = play(Visit.upgrade, Visit.stream)
    for client in (clients.websocket(server, "/"), clients.stream(server, "/")):
        with pytest.raises(EOFError, match="has ended"):
            client.expect(1)


def test_events_in_place_of_the_end_are_errors(play: Play, clients: Clients) -> None:
    def websocket(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("a")
        visit.send(visit.codec.close(1000))

    def stream(visit: Visit) -> None:
        visit.stream(b"data: a\n\n")

    ends: tuple[Callable[[WebSocketClient], object], ...] = (
        WebSocketClient.leave,
        WebSocketClient.expect_close,
        WebSocketClient.expect_end,
    )
    server = play(*[websocket] * len(ends), stream, stream, Visit.stream)
    for end in ends:
        with pytest.raises(AssertionError, match=r"^expected "):
            end(clients.websocket(server, "/"))
    with pytest.raises(AssertionError, match="expected the end"):
        clients.stream(server, "/").expect_end()
    with pytest.raises(AssertionError, match="expected an id field without data"):
        clients.stream(server, "/").read_opening()
    clients.stream(server, "/").expect_end()


def test_the_opening_of_a_stream_is_its_position(play: Play, clients: Clients) -> None:
    bodies = {
        b"id: 7\n\n": ["id: 7\n\n"],
        b"retry: 9\n\nid: 7\n\ndata: a\n\n": ["retry: 9\n\nid: 7\n\n", "a"],
        b"id: 7\ndata: a\n\n": [],
        b"data: a\n\n": [],
        b"retry: 9\n\nid: 7\n": [],
        b"": [],
    }
    server = play(*(partial(Visit.stream, body=body) for body in bodies))
    for expected in bodies.values():
        client = clients.stream(server, "/")
        if expected:
            assert client.read_opening().decode() == expected[0]
            assert client.last_event_id == "7"
            assert client.expect(len(expected) - 1) == expected[1:]
        else:
            with pytest.raises(AssertionError, match="expected an id field without data"):
                client.read_opening()


def test_a_stream_may_come_in_chunks(play: Play, clients: Clients) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        assert visit.request_line == "POST /ask HTTP/1.1"
        headers = ("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")
        visit.answer(200, *headers, body=b"6\r\ndata: \r\n3\r\na\n\n\r\n")
        visit.send(b"0\r\n\r\n" if whole else b"9\r\nda")

    server = play(script, script)
    for whole in (True, False):
        client = clients.stream(server, "/ask", ("Content-Length", "3"), method="POST", body=b"why")
        assert client.expect(1) == ["a"]
        if whole:
            client.expect_end()
        else:
            with pytest.raises(EOFError, match="2 of 11 bytes: b'da'"):
                client.expect(1)


def test_a_slow_reader_pauses_after_each_step(play: Play, clients: Clients) -> None:
    pauses: list[int] = []
    client = clients.connect(play(lambda visit: visit.send(b"x" * 25)))
    reader = SlowReader(client, 10, lambda: pauses.append(1))
    assert reader.read(25) == b"x" * 25
    assert len(pauses) == 3
    with pytest.raises(EOFError, match="after 0 bytes"):
        reader.read(1)

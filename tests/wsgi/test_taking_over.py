"""Connections that are taken over from WSGI servers in the test process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support.clients import Client, StreamClient, WebSocketClient, get, masked, upgrade
from tests.support.waiting import wait_until
from wsframe import Opcode
from wsframe.wsgi import EventStream, Live, WebSocket

from . import running
from .conftest import MakeLive, Open
from .running import Application

Run = Callable[[Application], AbstractContextManager[int]]

SERVERS: dict[str, Run] = {
    "wsgiref": running.wsgiref,
    "werkzeug": running.werkzeug_server,
    "waitress": running.waitress_server,
    "cheroot": running.cheroot_server,
}


def echo(ws: WebSocket, greeting: str = "") -> Generator[None, str, None]:
    if greeting:
        ws.send(greeting)
    while True:
        ws.send((yield))


def echo_in_thread(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def count(stream: EventStream, to: int) -> Iterator[int]:
    yield from range(to)


class Site:
    """The application of these tests.

    Attributes:
        pages: the number of requests for a page.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self.news = live.topic("news", history=10)
        self.pages = 0

    def __call__(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/echo":
            return self.live.websocket(echo, greeting="hello")(environ, start_response)
        if path == "/thread":
            return self.live.websocket(echo_in_thread)(environ, start_response)
        if path == "/news":
            return self.live.events(self.news)(environ, start_response)
        if path == "/count":
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return self.live.events(count, to=int(body or 3))(environ, start_response)
        if path == "/unread":
            return self.live.events(count, to=3)(environ, start_response)
        self.pages += 1
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return [b"page"]


@pytest.fixture
def site(live: Live) -> Site:
    return Site(live)


@pytest.fixture(params=SERVERS)
def port(request: pytest.FixtureRequest, site: Site) -> Iterator[int]:
    """A server with the site; the clients of a test are closed before it ends."""
    with SERVERS[request.param](site) as port:
        yield port


def test_a_websocket_is_served_by_a_generator(port: int) -> None:
    client = WebSocketClient(port, "/echo")
    assert client.expect(1) == ["hello"]
    client.send_messages("a", b"b", "x" * 100_000)
    assert client.expect(3) == ["a", b"b", "x" * 100_000]
    assert client.leave().code == 1000


def test_a_websocket_is_served_by_a_plain_function(port: int) -> None:
    client = WebSocketClient(port, "/thread")
    client.send_messages("a", "b")
    assert client.expect(2) == ["a", "b"]
    assert client.leave().code == 1000


def test_frames_that_the_server_has_read_ahead_are_received(port: int, open_client: Open) -> None:
    client = open_client(port)
    early = b"".join(masked(Opcode.TEXT, f"{number}") for number in range(20))
    client.send(upgrade("/echo") + early[:-3])
    client.send(early[-3:])
    client.read_until(b"\r\n\r\n")
    client.read_until(b"\x81\x0219")


def test_an_upgrade_follows_a_page_on_the_same_connection(port: int, open_client: Open) -> None:
    client = open_client(port)
    client.send(get("/page", ("Connection", "keep-alive")))
    head = client.read_until(b"page")
    if b"Connection: close" in head or head.startswith(b"HTTP/1.0"):
        return  # this server closes each connection
    client.send(upgrade("/echo"))
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    client.read_until(b"hello")


def test_an_upgrade_may_be_sent_before_the_page_has_arrived(port: int, open_client: Open) -> None:
    client = open_client(port)
    client.send(get("/page") + upgrade("/echo"))
    head = client.read_until(b"page")
    if b"Connection: close" in head or head.startswith(b"HTTP/1.0"):
        return  # this server closes each connection
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    client.read_until(b"hello")


def test_an_event_stream_follows_a_topic(port: int, site: Site) -> None:
    client = StreamClient(port, "/news")
    client.read_opening()
    site.news.publish("one")
    assert client.expect(1) == ["one"]
    client.close()


def test_a_request_behind_an_event_stream_is_discarded(
    port: int, site: Site, open_client: Open
) -> None:
    client = open_client(port)
    client.send(get("/count") + get("/page"))
    head, _, body = client.read_to_end().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"text/event-stream" in head
    assert b"data: 2\n\n" in body
    assert b"page" not in body
    client.close()
    wait_until(lambda: not site.live.stats().event_streams, "the stream has ended")
    assert site.pages == 0


def test_a_post_is_answered_by_an_event_stream(port: int, open_client: Open) -> None:
    client = open_client(port)
    client.send(get("/count", ("Content-Length", "1"), method="POST") + b"5")
    body = client.read_to_end()
    assert b"data: 4\n\n" in body
    assert b"data: 5\n\n" not in body


def test_an_unread_body_is_discarded(port: int, site: Site, open_client: Open) -> None:
    client = open_client(port)
    body = get("/page")
    length = ("Content-Length", str(len(body)))
    client.send(get("/unread", length, method="POST") + body)
    assert b"data: 2\n\n" in client.read_to_end()
    assert site.pages == 0


def test_a_refusal_is_an_ordinary_answer(port: int, open_client: Open) -> None:
    for request, status in (
        (upgrade("/echo", changes={"Sec-WebSocket-Key": "x"}), b"400"),
        (upgrade("/echo", ("Origin", "http://evil.example")), b"403"),
        (get("/echo", ("Connection", "close")), b"426"),
    ):
        client = open_client(port)
        client.send(request)
        head = client.read_until(b"\r\n\r\n")
        assert head.split()[1] == status
        # Otherwise closing the client would reset the connection.
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        assert len(client.receive(length)) == length


def test_the_chunks_of_a_refused_request_are_not_a_request(
    port: int, site: Site, open_client: Open
) -> None:
    client = open_client(port)
    hidden = get("/page")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    client.send(upgrade("/echo", ("Transfer-Encoding", "chunked")) + chunks)
    head = client.read_until(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    client.receive(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    if b"Connection: close" not in head and not head.startswith(b"HTTP/1.0"):
        client.send(get("/page", ("Connection", "close")))
        assert client.read_to_end().endswith(b"page")
        assert site.pages == 1


def test_many_connections_leave_nothing_behind(port: int, site: Site) -> None:
    clients = [WebSocketClient(port, "/echo") for _ in range(20)]
    for client in clients:
        assert client.expect(1) == ["hello"]
    assert site.live.stats().websockets == 20
    page = Client(port)
    page.send(get("/page", ("Connection", "close")))
    assert page.read_to_end().endswith(b"page")
    page.close()
    for client in clients:
        client.close()
    wait_until(lambda: not site.live.stats().websockets, "the connections have ended")


def test_no_thread_of_the_server_is_held(live: Live, make_live: MakeLive) -> None:
    with running.waitress_server(Site(live)) as port:  # it has two threads
        clients = [StreamClient(port, "/news") for _ in range(4)]
        page = Client(port)
        page.send(get("/page", ("Connection", "close")))
        assert page.read_to_end().endswith(b"page")
        for client in (*clients, page):
            client.close()


def test_threads_take_connections_at_the_same_time(live: Live) -> None:
    with running.wsgiref(Site(live)) as port:
        clients: list[WebSocketClient] = []

        def connect() -> None:
            for _ in range(10):
                clients.append(WebSocketClient(port, "/echo"))

        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, client in enumerate(clients):
            client.send_messages(f"{number}")
        for number, client in enumerate(clients):
            assert client.expect(2) == ["hello", f"{number}"]
            client.close()

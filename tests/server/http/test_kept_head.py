"""Long heads: the part that is kept while the connection is open, and the view of handlers."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import MessageGenerator, generator_echo, plain_echo
from tests.support.inspection import peers_of, session_of
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe.server import App, EventStream, Request, Server, WebSocket

SIZE = 12_000
HEADERS = (("Host", "localhost:81"), ("User-Agent", "agent"), ("X-Long", "a" * SIZE))
QUERY = "a=" + "b" * 3000
COMPLETE = SIZE, 3000
NOT_KEPT = (
    "the headers and the query of this request were discarded, because its head exceeds "
    "max_kept_head: read them in authorize, or before the handler first waits"
)


def look(request: Request) -> object:
    """Return the result of reading the long parts of a request; the others are always kept."""
    kept = (request.path, request.raw_path, dict(request.parameters), request.host)
    assert kept == ("/x y/z", "/x%20y/z", {"name": "z"}, "localhost:81")
    assert (request.client, request.user_agent) == ("127.0.0.1", "agent")
    try:
        return len(request.headers["X-Long"] or ""), len(request.query["a"][0])
    except RuntimeError as error:
        return str(error)


class Looks:
    """Handlers of every kind that read their request, before and after a wait."""

    def __init__(self) -> None:
        self.seen: Queue[object] = Queue()
        self.streams: Queue[EventStream] = Queue()

    def authorize(self, request: Request) -> bool:
        self.seen.put(look(request))
        return True

    def generator(self, ws: WebSocket, name: str) -> MessageGenerator:
        self.seen.put(look(ws.request))
        yield
        self.seen.put(look(ws.request))

    def function(self, ws: WebSocket, name: str) -> None:
        self.seen.put(look(ws.request))
        ws.receive()
        self.seen.put(look(ws.request))

    def stream(self, stream: EventStream, name: str) -> None:
        self.seen.put(look(stream.request))
        self.streams.put(stream)

    def events(self, stream: EventStream, name: str) -> Iterator[str]:
        self.seen.put(look(stream.request))
        yield "x"
        self.seen.put(look(stream.request))

    def expect(self, *expected: object) -> None:
        assert [self.seen.get(timeout=10) for _ in expected] == list(expected)


@pytest.fixture
def looks() -> Looks:
    return Looks()


def serve_websocket(serve: Serve, looks: Looks, kind: str, **options: Any) -> Server:
    app = App()
    app.websocket("/x y/{name}", authorize=looks.authorize)(getattr(looks, kind))
    return serve(app, **options)


def open_websocket(clients: Clients, server: Server, *, short: bool = False) -> Any:
    changes: dict[str, str | None] = dict(HEADERS)
    if short:
        changes["X-Long"] = "a"
    client = clients.connect(server)
    client.send(upgrade(f"/x%20y/z?{'a=b' if short else QUERY}", changes=changes))
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    return client


def say_hello(client: Any) -> None:
    client.send(b"\x81\x85\0\0\0\0hello")


@pytest.mark.parametrize("kind", ["generator", "function"])
def test_a_long_head_is_kept_until_the_handler_waits(
    serve: Serve, clients: Clients, looks: Looks, kind: str
) -> None:
    server = serve_websocket(serve, looks, kind)
    client = open_websocket(clients, server)
    looks.expect(COMPLETE, COMPLETE)
    if kind == "function":
        (peer,) = peers_of(server)
        wait_until(lambda: session_of(peer).awaiting_message, "the handler waits")
    say_hello(client)
    looks.expect(NOT_KEPT)


@pytest.mark.parametrize("kind", ["generator", "function"])
def test_a_head_within_the_configured_size_is_kept(
    serve: Serve, clients: Clients, looks: Looks, kind: str
) -> None:
    server = serve_websocket(serve, looks, kind, max_kept_head=16_384)
    say_hello(open_websocket(clients, server))
    looks.expect(COMPLETE, COMPLETE, COMPLETE)


def test_a_head_of_usual_size_is_kept(serve: Serve, clients: Clients, looks: Looks) -> None:
    say_hello(open_websocket(clients, serve_websocket(serve, looks, "generator"), short=True))
    looks.expect((1, 1), (1, 1), (1, 1))


def test_a_long_head_of_a_stream_is_kept_until_its_function_returns(
    serve: Serve, clients: Clients, looks: Looks
) -> None:
    app = App()
    app.sse("/x y/{name}", authorize=looks.authorize)(looks.stream)
    stream_of(clients, serve(app))
    looks.expect(COMPLETE, COMPLETE)
    stream = looks.streams.get(timeout=10)
    wait_until(lambda: look(stream.request) == NOT_KEPT, "the function has returned")
    assert stream.last_event_id == "7"


def test_a_long_head_of_a_stream_is_kept_while_its_generator_runs(
    serve: Serve, clients: Clients, looks: Looks
) -> None:
    app = App()
    app.sse("/x y/{name}", authorize=looks.authorize)(looks.events)
    stream_of(clients, serve(app))
    looks.expect(COMPLETE, COMPLETE, COMPLETE)


def stream_of(clients: Clients, server: Server) -> None:
    client = clients.connect(server)
    request = get(f"/x%20y/z?{QUERY}", ("Last-Event-ID", "7"), *HEADERS[1:])
    client.send(request.replace(b"Host: localhost", b"Host: localhost:81"))
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_the_request_log_names_the_client_of_a_long_head(
    serve: Serve, clients: Clients, looks: Looks, log: ServerLog
) -> None:
    access = logging.getLogger("wsframe.access")
    access.addHandler(log)
    access.setLevel(logging.INFO)
    try:
        client = open_websocket(clients, serve_websocket(serve, looks, "generator"))
        looks.expect(COMPLETE, COMPLETE)
        client.reset()
        assert log.expect('user_agent="agent"', logging.INFO).levelno == logging.INFO
    finally:
        access.setLevel(logging.NOTSET)
        access.removeHandler(log)


def open_generator(clients: Clients, server: Server) -> None:
    clients.websocket(server, "/generator", *HEADERS[1:])


def open_function(clients: Clients, server: Server) -> None:
    clients.websocket(server, "/function", *HEADERS[1:])


def open_stream(clients: Clients, server: Server) -> None:
    clients.stream(server, "/stream", *HEADERS[1:])


@pytest.mark.slow
@pytest.mark.parametrize("opens", [open_generator, open_function, open_stream])
def test_an_idle_connection_takes_no_more_memory_for_a_long_head(
    serve: Serve, clients: Clients, opens: Callable[[Clients, Server], None]
) -> None:
    app = App()
    app.websocket("/generator")(generator_echo)
    app.websocket("/function")(plain_echo)
    app.sse("/stream", app.topic("t"))
    server = serve(app)
    opens(clients, server)
    count = 40
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(count):
            opens(clients, server)
        kept = ("server/http/reader.py", "server/http/request.py")

        def size() -> int:
            gc.collect()
            found = tracemalloc.take_snapshot().statistics("filename")
            return sum(each.size for each in found if each.traceback[0].filename.endswith(kept))

        wait_until(lambda: size() < count * 1024, "no head is kept")
    finally:
        tracemalloc.stop()


def test_a_path_has_its_own_limit(serve: Serve, clients: Clients) -> None:
    """A handler receives it as an argument, in which a byte may take four."""
    app = App()
    app.page("/{name}", "x")
    server = serve(app)
    for size, status in {2048: 200, 2049: 414}.items():
        client = clients.connect(server)
        client.send(get("/" + "a" * (size - 1) + "?" + "b" * 5000))
        assert client.answer().status == status

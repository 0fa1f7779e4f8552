"""Apps whose handlers hold threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

from tests.support.clients import Client, Clients, get, masked, upgrade
from tests.support.handlers import Checkpoint, MessageGenerator, generator_echo
from tests.support.waiting import TIMEOUT
from wsframe import ConnectionClosed, Opcode
from wsframe.server import App, EventStream, Request, Server, WebSocket
from wsframe.server.timing import Timing

# The threads that one route or address can use in these tests, and one address of a route.
SHARE = 4


LIMITS: dict[str, Any] = {
    "max_threads": 2 * SHARE,
    "max_handler_threads": 2 * SHARE,
    "reserve_threads": 2,
    "thread_timeout": 0.0,
}


# Clients that are a trusted proxy themselves are limited only by route.
NO_ADDRESS = {**LIMITS, "trusted_proxies": ["127.0.0.1"]}


OF_RESERVE = 1  # of turns that have lost the loop, beyond that


class Attacked:
    """An app whose handlers, of every kind, wait until the test releases them.

    Args:
        clock: the clock of its deadlines.

    Attributes:
        entered: the paths of the requests whose user code has begun.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.held = Checkpoint()
        self.entered: Queue[str] = Queue()
        # On a busy machine, too, a route is suspected after three hand-offs.
        app = self.app = App(timing=Timing(handoff_window=60, clock=clock))
        app.metrics()
        app.page("/page", "page")
        app.websocket("/echo")(generator_echo)
        app.websocket("/plain")(self.plain)
        # These start on the loop every time, and lose it.
        app.websocket("/turns", blocking=False)(self.turns)
        app.websocket("/other-turns", blocking=False)(self.turns)
        app.websocket("/authorize", authorize=self.authorize)(generator_echo)
        app.sse("/events")(self.events)
        app.sse("/function")(self.function)
        for path in ("/free-plain", "/free-authorize"):
            app.websocket(path, authorize=lambda request: "anna")(self.free_plain)
        app.sse("/free-events")(self.free_events)

    def hold(self, request: Request) -> None:
        self.entered.put(request.path)
        self.held.wait()

    def plain(self, ws: WebSocket) -> None:
        self.hold(ws.request)

    def turns(self, ws: WebSocket) -> MessageGenerator:
        self.hold(ws.request)
        try:
            while True:
                ws.send((yield))
        except ConnectionClosed as end:
            self.entered.put(f"end {end.code}")
            raise

    def authorize(self, request: Request) -> bool:
        self.hold(request)
        return True

    def events(self, stream: EventStream) -> Iterator[str]:
        self.hold(stream.request)
        yield "held"

    def function(self, stream: EventStream) -> None:
        self.hold(stream.request)

    def free_plain(self, ws: WebSocket) -> None:
        ws.send("free")

    def free_events(self, stream: EventStream) -> Iterator[str]:
        yield "free"

    def until_entered(self, count: int) -> None:
        for _ in range(count):
            self.entered.get(timeout=TIMEOUT)


def request_to(path: str) -> bytes:
    return get(path) if path in ("/events", "/function", "/page") else upgrade(path)


def attack(
    clients: Clients, server: Server, path: str, count: int, source: str | None = None
) -> list[Client]:
    """Connect this number of clients, which send a request and then nothing."""
    attackers = []
    for _ in range(count):
        client = clients.connect(server, source=source)
        client.send(request_to(path))
        attackers.append(client)
    return attackers


def assert_no_thread(client: Client) -> None:
    answer = client.answer()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert answer.body == b"server is out of threads, try again later\n"


def status_of(client: Client) -> int:
    head = client.read_until(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


def assert_others_are_served(clients: Clients, server: Server, source: str | None = None) -> None:
    """Check that routes of every kind answer, except the attacked one."""
    for path in ("/free-plain", "/free-authorize"):
        client = clients.connect(server, source=source)
        client.send(upgrade(path))
        assert status_of(client) == 101
        assert client.read_until(b"free")
    stream = clients.connect(server, source=source)
    stream.send(get("/free-events"))
    assert stream.read_until(b"data: free\n\n")
    echo = clients.connect(server, source=source)
    echo.send(upgrade("/echo"))
    assert status_of(echo) == 101
    echo.send(masked(Opcode.TEXT, "hello"))
    assert echo.read_until(b"hello")
    metrics = clients.connect(server, source=source)
    metrics.send(get("/metrics"))
    assert metrics.answer().status == 200


ATTACKS = {
    "/plain": (SHARE, "/plain: a request is refused with 503, because the route uses its share"),
    "/events": (SHARE, "/events: a request is refused with 503, because the route uses its share"),
    "/authorize": (SHARE, "/authorize: a request is refused with 503"),
    "/turns": (SHARE + OF_RESERVE, "/turns: a request is refused with 503"),
    "/function": (SHARE, "/function: a request is refused with 503"),
}

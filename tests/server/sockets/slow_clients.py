"""Slow clients, and apps that send to them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.support.clients import END_OF_HEAD, Client, Clients, get, upgrade
from tests.support.handlers import STEP, MessageGenerator, generator_echo
from tests.support.inspection import peers_of, socket_of
from tests.support.serving import Serve
from tests.support.waiting import wait_until, wait_until_stable
from wsframe.progress import unacknowledged
from wsframe.server import App, EventStream, Server, WebSocket
from wsframe.server.settings import Settings
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock, SlowReader

SLOWLY = 30_000  # bytes a second


SMALL, LARGE = 1 << 14, 1 << 22  # receive buffers of clients


MUCH = 5_000_000  # more than a small receive buffer and the server's kernel buffer hold


DEFAULT = Settings()


BUFFERS = pytest.mark.parametrize(
    ("receive_buffer", "size"), [(SMALL, MUCH), (LARGE, 3_000_000)], ids=["small", "large"]
)


KINDS = {"websocket": upgrade("/websocket"), "stream": get("/stream")}


def is_acknowledged(peer: Peer) -> bool:
    """Return True unless a short message waits for its acknowledgement."""
    return not 0 < unacknowledged(socket_of(peer)) < 1000


class Scene:
    """A server that sends much at once, and whose clock the test advances."""

    def __init__(self, serve: Serve, size: int = MUCH, **options: Any) -> None:
        self.clock = ManualClock()
        self.size = size
        app = App(timing=Timing(clock=self.clock, turn_slice=60))
        app.websocket("/websocket")(self.websocket)
        app.websocket("/closes")(self.closes)
        app.websocket("/answers")(self.answers)
        app.sse("/stream")(self.stream)
        app.sse("/ends")(self.ends)
        app.sse("/silent", source=app.topic("silent"))
        app.websocket("/echo")(generator_echo)
        self.news = app.topic("news")
        app.websocket("/topic")(self.topic)
        app.page("/page", "x" * size)
        self.server: Server = serve(app, **options)

    def websocket(self, ws: WebSocket) -> MessageGenerator:
        ws.send(bytes(self.size))
        yield from generator_echo(ws)

    def topic(self, ws: WebSocket) -> MessageGenerator:
        ws.subscribe(self.news)
        yield from generator_echo(ws)

    def closes(self, ws: WebSocket) -> MessageGenerator:
        yield
        ws.send(bytes(self.size))
        ws.close(4000)

    def answers(self, ws: WebSocket) -> MessageGenerator:
        while True:
            yield
            ws.send(bytes(self.size))

    def stream(self, stream: EventStream) -> None:
        stream.send("x" * self.size)

    def ends(self, stream: EventStream) -> None:
        stream.send("x" * self.size)
        stream.close()

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(peers_of(self.server))

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(self.server, seconds)

    def until_nothing_moves(self) -> None:
        """Wait until the clients' kernels have accepted all they can (TCP probes in real time)."""
        wait_until_stable(lambda: sum(unacknowledged(socket_of(peer)) for peer in self.peers))

    def until_all_is_acknowledged(self) -> None:
        """Wait until the client's kernel has accepted everything."""
        (peer,) = self.peers
        wait_until(
            lambda: peer.bytes_out > self.size and not unacknowledged(socket_of(peer)),
            "its kernel has accepted everything",
        )

    def until_acknowledged(self) -> None:
        """Wait for the acknowledgements of short data such as pings, delayed in real time.

        It does not wait for acknowledgements of more data, which need an open window.
        """
        for peer in self.peers:
            with suppress(ValueError):  # it is closed meanwhile
                wait_until(partial(is_acknowledged, peer), "it is acknowledged")

    def expect_end(self, seconds: float) -> None:
        """Check that the server ends every connection within this time."""
        end = self.clock.now + seconds
        while not self.is_over():
            assert self.clock.now < end, "a connection is still open"
            self.pass_time(STEP)

    def is_over(self) -> bool:
        return not peers_of(self.server)

    def read_slowly(self, client: Client, size: int) -> bytearray:
        """Let the client read this number of bytes at a slow but steady pace."""
        return SlowReader(client, int(SLOWLY * STEP), self._pause).read(size)

    def _pause(self) -> None:
        self.pass_time(STEP)
        self.until_acknowledged()


def connect(clients: Clients, scene: Scene, request: bytes, **options: Any) -> Client:
    client = clients.connect(scene.server, **options)
    client.send(request)
    client.read_until(END_OF_HEAD)
    return client


def everything(client: Client) -> int:
    count = 0
    while data := client.receive():
        count += len(data)
    return count

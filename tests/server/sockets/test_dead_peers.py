"""Clients that die in every state of a connection: others are served, and nothing is left."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue

import pytest

from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, get, upgrade
from tests.support.handlers import Checkpoint, MessageGenerator, generator_echo, websocket_app
from tests.support.inspection import peers_of, wait_for_disconnects
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, EventStream, WebSocket

pytestmark = resets_under_tls

MIB = 1 << 20
MUCH = 8 * MIB  # more than the kernel takes for a client with a small buffer
END_OF_HEAD = b"\r\n\r\n"

# The bytes that the client sends, the bytes after which it dies, and whether a handler must end.
STATES: dict[str, tuple[bytes, bytes, bool]] = {
    "silent": (b"", b"", False),
    "half a head": (get("/")[:-1], b"", False),
    "a page": (get("/"), b"", False),
    "a refusal": (get("/nowhere"), END_OF_HEAD, False),
    "an idle websocket": (upgrade("/idle"), END_OF_HEAD, True),
    "half a frame": (upgrade("/idle") + b"\x81\xfe\x01", END_OF_HEAD, True),
    "a generator blocks": (upgrade("/generator-blocks"), END_OF_HEAD, True),
    "a function blocks": (upgrade("/function-blocks"), END_OF_HEAD, True),
    "a function receives": (upgrade("/function-receives"), END_OF_HEAD, True),
    "a generator sends": (upgrade("/generator-sends"), END_OF_HEAD, True),
    "a function sends": (upgrade("/function-sends"), END_OF_HEAD, True),
    "the server closes": (upgrade("/closes"), b"\x88\x02\x03\xe8", True),
    "a stream": (get("/stream"), END_OF_HEAD, False),
    "a stream's handler sends": (get("/stream-sends"), END_OF_HEAD, True),
}


class Scene:
    """An app with a handler for every state.

    Attributes:
        go: the event for which blocking handlers wait.
        ended: the path of every handler that has ended.
        begun: the path of every handler that has started to block.
    """

    def __init__(self) -> None:
        self.app = App()
        self.go = threading.Event()
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.ended: SimpleQueue[str] = SimpleQueue()
        self.app.page("/", "hello")
        self.app.sse("/stream", source=self.app.topic("silent"))
        self.app.websocket("/echo")(generator_echo)
        for handler in (
            self.idle,
            self.generator_blocks,
            self.function_blocks,
            self.function_receives,
            self.generator_sends,
            self.function_sends,
            self.closes,
        ):
            self.app.websocket("/" + handler.__name__.replace("_", "-"))(handler)
        self.app.sse("/stream-sends")(self.stream_sends)

    def idle(self, ws: WebSocket) -> MessageGenerator:
        try:
            yield from generator_echo(ws)
        finally:
            self.ended.put(ws.request.path)

    def generator_blocks(self, ws: WebSocket) -> MessageGenerator:
        self.function_blocks(ws)
        yield

    def function_blocks(self, ws: WebSocket) -> None:
        self.begun.put(ws.request.path)
        self.go.wait(TIMEOUT)
        self.ended.put(ws.request.path)

    def function_receives(self, ws: WebSocket) -> None:
        for _ in ws:
            pass
        self.ended.put(ws.request.path)

    def generator_sends(self, ws: WebSocket) -> MessageGenerator:
        try:
            ws.send(bytes(MUCH))  # raises if the client has left before
            yield from generator_echo(ws)
        finally:
            self.ended.put(ws.request.path)

    def function_sends(self, ws: WebSocket) -> None:
        try:
            for _ in range(MUCH // MIB):
                ws.send(bytes(MIB))
        finally:
            self.ended.put(ws.request.path)

    def closes(self, ws: WebSocket) -> None:
        self.ended.put(ws.request.path)

    def stream_sends(self, stream: EventStream) -> Iterator[str]:
        try:
            for _ in range(MUCH // MIB):
                yield "x" * MIB
        finally:
            self.ended.put(stream.request.path)


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_dead_client_ends_only_its_own_connection(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    secured: bool,
    state: str,
    leave: Callable[[Client], None],
) -> None:
    scene = Scene()
    server = serve(scene.app, ssl_context=certificates.server if secured else None)
    tls = certificates.client if secured else None
    other = clients.websocket(server, "/echo", tls=tls)
    stay = set(peers_of(server))
    said, until, handled = STATES[state]
    client = clients.connect(server, tls=tls, receive_buffer=1 << 16)
    if said:
        client.send(said)
    if until:
        client.read_until(until)
    if "blocks" in state:
        scene.begun.get(timeout=TIMEOUT)
    leave(client)
    other.send_messages("still there?")
    assert other.next_event() == "still there?"
    scene.go.set()
    if leave is Client.half_close:  # it may still receive data
        with suppress(ConnectionError, ssl.SSLError):
            while client.sock.recv(MIB):
                pass
    if handled:
        scene.ended.get(timeout=TIMEOUT)
    elif state == "a stream":
        wait_until(lambda: not server.stats().subscriptions, "the subscription has ended")
    wait_until(lambda: peers_of(server) == stay, "only the other connections remain")
    other.send_messages("and now?")
    assert other.next_event() == "and now?"


def test_a_client_that_resets_while_it_is_not_read_is_disconnected(
    serve: Serve, clients: Clients
) -> None:
    """The reset is not read, so that only the missing acknowledgements show it."""
    held = Checkpoint()

    def hold(ws: WebSocket) -> None:
        ws.send("." * 15_000)  # more than the client's system accepts
        held.wait()

    server = serve(websocket_app(hold), send_timeout=0.5, ping_interval=0)
    client = clients.websocket(server, "/echo", receive_buffer=4096)
    held.wait_until_reached()
    (peer,) = peers_of(server)
    client.send_messages(*["." * 60_000] * 5)
    wait_until(lambda: not peer.reading, "the inbox is full")
    client.reset()
    wait_for_disconnects(server)
    held.release()

"""The code that newcomers copy: of the README, of three pages, and the examples."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.pages import load_example, run_block
from tests.support.waiting import TIMEOUT
from tests.wsgi.running import werkzeug_server
from wsframe import (
    Close,
    Connection,
    PerMessageDeflate,
    Pong,
    Role,
    UpgradeRequest,
    encode_frame,
)
from wsframe.fields import decode_response
from wsframe.server import App


class Client:
    """A WebSocket client of few words, for one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.codec = Connection(Role.CLIENT)

    def upgrade(self, path: str) -> None:
        """Open the WebSocket."""
        request = UpgradeRequest("localhost", path, deflate=PerMessageDeflate())
        self.sock.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        agreed = request.confirm(*decode_response(head))
        self.codec = Connection(Role.CLIENT, deflate=agreed.deflate)

    def ask(self, frame: bytes) -> Any:
        """Send a frame, and return the one event that answers it."""
        self.sock.sendall(frame)
        events: list[Any] = []
        while not events:
            events = self.codec.receive(self.sock.recv(65536))
        assert len(events) == 1
        return events[0]


@contextmanager
def served(app: App, path: str) -> Iterator[Client]:
    """A client of an application that runs."""
    with app.start() as server, socket.create_connection(("localhost", server.port)) as sock:
        client = Client(sock)
        client.upgrade(path)
        yield client
        assert client.ask(client.codec.close()) == Close(1000)


@contextmanager
def in_thread(target: Any) -> Iterator[socket.socket]:
    """The other end of a socket that the target works on, in a thread."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=target, args=(theirs,))
        thread.start()
        try:
            yield ours
        finally:
            ours.close()
            thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_the_codec_of_the_readme_echoes_and_closes() -> None:
    with in_thread(run_block("Role.SERVER")["serve"]) as sock:
        client = Client(sock)
        assert client.ask(client.codec.encode("hé")) == "hé"
        assert client.ask(client.codec.encode(b"\0")) == b"\0"
        assert client.ask(client.codec.ping(b"x")) == Pong(b"x")
        assert client.ask(client.codec.close(1001)) == Close(1001)


def test_the_codec_of_the_readme_answers_a_failure() -> None:
    with in_thread(run_block("Role.SERVER")["serve"]) as sock:
        event = Client(sock).ask(encode_frame(0x1, b"\xff", masking_key=True))
        assert event == Close(1007, "a text message is not valid UTF-8")


def test_the_chat_of_the_readme_sends_its_history() -> None:
    app = run_block("PAGE")["app"]
    with served(app, "/chat") as client:
        assert client.ask(client.codec.encode("hello")) == "hello"
        app.topic("chat").publish("from a thread")
        assert client.codec.receive(client.sock.recv(65536)) == ["from a thread"]
    with served(app, "/chat") as client:
        events: list[Any] = []
        while len(events) < 2:
            events += client.codec.receive(client.sock.recv(65536))
        assert events == ["hello", "from a thread"]


def test_the_flask_application_of_the_readme_streams() -> None:
    names = run_block("Flask(")
    with (
        werkzeug_server(names["app"]) as port,
        socket.create_connection(("localhost", port)) as sock,
    ):
        sock.settimeout(TIMEOUT)
        sock.sendall(b"GET /news HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not (head := sock.recv(65536)).endswith(b"\n\n"):
            assert head
        assert names["app"].test_client().post("/news/hello").status_code == 204
        assert b"data: hello\n" in sock.recv(65536)
    names["live"].stop(0)


def test_the_page_about_serving_has_both_kinds_of_handlers() -> None:
    app = run_block("ticks", "docs/serving.md")["app"]
    with served(app, "/rooms/blue") as client:
        assert client.ask(client.codec.encode("hello")) == "blue: hello"
    with served(app, "/echo") as client:
        assert client.ask(client.codec.encode("hello")) == "hello"


def test_the_feed_of_the_page_about_compression_is_compressed() -> None:
    message = "round and round " * 20
    with served(run_block("App()", "docs/compression.md")["app"], "/feed") as client:
        client.sock.sendall(client.codec.encode(message))
        wire = b""
        while len(wire) < len(message):
            wire += client.sock.recv(65536)
        assert wire[0] == 0xC1
        assert wire[1] < 64
        events = client.codec.receive(wire)
        while len(events) < 2:
            events += client.codec.receive(client.sock.recv(65536))
        assert events == [message, message]


def test_the_client_of_its_page_sends_and_follows_events() -> None:
    client = run_block("def follow", "docs/client.md")
    served_there = run_block("ticks", "docs/serving.md")
    with served_there["app"].start() as server:
        assert client["ask"](f"ws://localhost:{server.port}/echo") == "hello"
        stream = client["follow"](f"http://localhost:{server.port}/time")
        ticking = threading.Event()

        def tick() -> None:
            while not ticking.wait(0.01):
                served_there["ticks"].put("now")

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            assert next(stream) == "now"
        finally:
            ticking.set()
            thread.join()
            stream.close()


def test_the_echo_example_echoes_both_ways() -> None:
    app = load_example("echo").app
    for path in ("/thread", "/loop"):
        with served(app, path) as client:
            assert client.ask(client.codec.encode("hello")) == "hello"
            assert client.ask(client.codec.ping()) == Pong()


def test_the_progress_example_serves_its_page() -> None:
    with (
        load_example("progress").app.start() as server,
        socket.create_connection(("localhost", server.port), TIMEOUT) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"new EventSource" in answer


def test_the_codec_example_accepts_an_upgrade_and_echoes() -> None:
    example = load_example("codec")

    def serve(sock: socket.socket) -> None:
        first = example.handshake(sock)
        assert first is not None
        example.echo(sock, first)

    with in_thread(serve) as sock:
        client = Client(sock)
        client.upgrade("/")
        assert client.ask(client.codec.encode("hello")) == "hello"
        assert client.ask(client.codec.close()) == Close(1000)


def test_the_codec_example_refuses_other_requests() -> None:
    example = load_example("codec")
    with in_thread(example.handshake) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket")


def test_the_client_example_talks_to_its_server(capsys: pytest.CaptureFixture[str]) -> None:
    example = load_example("client")
    with example.app.start() as server:
        example.talk(server.port)
    assert capsys.readouterr().out.splitlines() == [
        "WebSocket: hello",
        "EventSource: hello",
        "WebSocket: world",
        "EventSource: world",
    ]

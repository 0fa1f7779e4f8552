"""Topics: large events, which no loop compresses, for clients of every kind."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from tests.server.sessions.test_gzip_streams import Connect, gzip_clients
from tests.support.clients import Clients
from tests.support.handlers import MessageGenerator
from tests.support.receivers import ManualReceiver, manual_loops
from tests.support.serving import Serve
from tests.support.topics import log_of
from tests.support.waiting import wait_until
from wsframe import PerMessageDeflate
from wsframe.server import App, EventStream, Topic, WebSocket
from wsframe.server.routing import WITHOUT_CONTEXT
from wsframe.server.sessions import gzipped
from wsframe.server.timing import Timing
from wsframe.server.topics import encodings
from wsframe.server.topics.encodings import message_encoding
from wsframe.server.topics.entry import LARGE
from wsframe.server.topics.registry import Topics

from .test_topics import confirmed

__all__ = ["gzip_clients"]

TEXT = "\n".join(f'{number} "é" \\ \U0001f600' for number in range(10_000))
BINARY = bytes(range(256)) * 400
OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")


def serve_every_kind(serve: Serve) -> tuple[Any, Topic]:
    app = App()
    topic = app.topic("news")

    @app.sse("/one")
    def one(stream: EventStream) -> None:
        stream.subscribe(topic, after="")

    @app.sse("/many")
    def many(stream: EventStream) -> None:
        stream.subscribe("other")
        stream.subscribe(topic, after="")

    app.sse("/one/gzip", compress=True)(one)
    app.sse("/many/gzip", compress=True)(many)

    for deflate in (False, True):

        @app.websocket(f"/messages/{deflate}", deflate=deflate)
        def messages(ws: WebSocket) -> MessageGenerator:
            ws.subscribe(topic, after="")
            while True:
                yield

        @app.websocket(f"/envelopes/{deflate}", deflate=deflate)
        def envelopes(ws: WebSocket) -> MessageGenerator:
            ws.subscribe(topic, after="", envelope=True)
            while True:
                yield

    return serve(app), topic


@pytest.mark.parametrize("late", [False, True], ids=["at once", "from the history"])
def test_every_kind_of_client_receives_a_large_event(
    serve: Serve, clients: Clients, gzip_clients: Connect, late: bool
) -> None:
    server, topic = serve_every_kind(serve)
    if late:
        topic.publish(TEXT, "text")
        topic.publish(BINARY)
    streams = [
        connect(server, f"/{path}")
        for path in ("one", "many")
        for connect, path in ((clients.stream, path), (gzip_clients, f"{path}/gzip"))
    ]
    sockets: dict[str, Any] = {}
    for path in ("messages", "envelopes"):
        for deflate in (False, True):
            client = clients.websocket(server, f"/{path}/{deflate}", OFFER)
            if deflate:
                client.codec = confirmed(client)
            sockets[f"{path} {deflate}"] = client
    if not late:
        wait_until(
            lambda: (topic.stats().subscribers, topic.stats().lagging) == (8, 0),
            "all clients are subscribed",
        )
        topic.publish(TEXT, "text")
        topic.publish(BINARY)
    ids = set()
    for stream in streams:
        text, binary = stream.next_event(), stream.next_event()
        assert (text.event, text.data, binary.event) == ("text", TEXT, None)
        assert b64decode(binary.data) == BINARY
        ids.add(binary.id)
    for path, client in sockets.items():
        if path.startswith("messages"):
            assert client.expect(2) == [TEXT, BINARY]
            continue
        _, text, binary = (json.loads(str(message)) for message in client.expect(3))
        assert (text["topic"], text["event"], text["data"]) == ("news", "text", TEXT)
        assert (binary["binary"], b64decode(binary["data"])) == (True, BINARY)
        assert binary["id"] in ids


def test_no_loop_compresses_or_encodes_a_large_event(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(Timing())
    (loop,) = manual_loops(topics, 1)
    topic = topics.get("news")
    client = ManualReceiver(loop)
    client.subscribe(topic)
    loop.run()
    topic.publish("line\n" * LARGE)

    def fail(*arguments: object) -> None:
        raise AssertionError("this takes long")

    monkeypatch.setattr(encodings, "encode_event", fail)
    loop.run()
    assert client.read()[-1].data == "line\n" * LARGE
    (entry,), _ = log_of(topic).log.after(0, 1)
    monkeypatch.setattr(gzipped, "compress_block", lambda data: gzipped.store_block(short(data)))
    assert len(gzipped.GZIPPED_EVENT_STREAM.block("news", [entry])) > len(entry.payload)
    deflated = message_encoding(WITHOUT_CONTEXT, envelope=False)
    assert len(deflated.block("news", [entry])) > len(entry.payload)


def short(data: bytes) -> bytes:
    assert len(data) < LARGE
    return data


def test_clients_share_few_compressed_encodings() -> None:
    """The number does not grow with the window sizes that clients request."""
    agreed = {
        message_encoding(
            PerMessageDeflate(server_no_context_takeover=True, server_max_window_bits=bits),
            envelope=False,
        )
        for bits in range(9, 16)
    }
    assert len(agreed) == 2

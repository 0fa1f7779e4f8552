"""Event streams in gzip, for clients of every kind."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import Queue
from random import Random
from typing import Any

import aiohttp
import pytest

from tests.server.sessions.gzipped import END, TEXT, Gunzip
from tests.support.clients import Clients, StreamClient, get, parse_response
from tests.support.serving import Serve
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT, wait_until, wait_until_stable
from wsframe import EventStreamDecoder, ServerSentEvent
from wsframe.client import events
from wsframe.server import App, EventStream, Server
from wsframe.server.sessions.gzipped import Block, compress_block

GZIP = ("Accept-Encoding", "gzip, deflate, br")


class GzipClient(StreamClient):
    """A client that has received the head of a compressed stream.

    Attributes:
        compressed: all that has come of it so far.
    """

    def __init__(self, port: int, target: str, *headers: tuple[str, str], **options: Any) -> None:
        self.compressed = b""
        self.gunzip = Gunzip()
        super().__init__(port, target, GZIP, *headers, **options)
        assert self.headers["Content-Encoding"] == "gzip"
        assert self.headers["Vary"] == "Accept-Encoding"

    def receive(self, most: int = 1 << 16) -> bytes:
        """Return the next bytes, decompressed."""
        while data := super().receive(most):
            self.compressed += data
            if plain := self.gunzip.read(data):
                return plain
        return b""

    def read_plain(self, end: bytes) -> bytes:
        """Return all bytes up to these, which must be the last received so far."""
        plain = b""
        while not plain.endswith(end):
            data = self.receive()
            assert data, plain
            plain += data
        return plain

    def expect_whole(self) -> bytes:
        """Return all remaining bytes, and check the end of the stream."""
        plain = b"".join(iter(self.receive, b""))
        self.gunzip.expect_end()
        self.decoder.receive(plain)
        self.close()
        return plain


@pytest.fixture
def gzip_clients(serve: Serve) -> Iterator[Callable[..., GzipClient]]:
    """Opens compressed streams, and closes them at the end of the test."""
    with ExitStack() as stack:

        def connect(server: Server, *arguments: Any, **options: Any) -> GzipClient:
            client = GzipClient(server.port, *arguments, **options)
            stack.callback(client.close)
            return client

        yield connect


Connect = Callable[..., GzipClient]


def compressing_app() -> tuple[App, Queue[Any]]:
    app, source = App(), Queue[Any]()
    app.sse("/queue", source=source, compress=True)
    return app, source


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    "header", [None, ("Accept-Encoding", "gzip"), ("Accept-Encoding", "gzip;q=0")]
)
def test_only_clients_that_accept_gzip_get_it(
    serve: Serve,
    clients: Clients,
    method: str,
    compress: bool,
    header: tuple[str, str] | None,
) -> None:
    app = App()
    app.sse("/topic", source=app.topic("silent"), compress=compress, origins="*")
    client = clients.connect(serve(app))
    client.send(get("/topic", *([] if header is None else [header]), method=method))
    answer = parse_response(client.read_until(b"\r\n\r\n"))
    compressed = compress and header is not None and header[1] == "gzip"
    assert answer.status == 200
    assert answer.headers["Content-Encoding"] == ("gzip" if compressed else None)
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    vary = ["Accept-Encoding", "Origin"] if compress else ["Origin"]
    assert sorted(answer.headers.get_all("Vary") or []) == vary
    if method == "HEAD":
        assert client.read_to_end() == b""


def test_each_event_is_read_at_once(serve: Serve, gzip_clients: Connect) -> None:
    app, source = compressing_app()
    stream = gzip_clients(serve(app), "/queue")
    assert stream.read_plain(b"\n\n").startswith(b"retry: ")
    for item in ("x", TEXT, "ünï 🎈", {"a": 1}, "y" * 300_000):
        source.put(item)
        heard = stream.next_event().data
        assert heard == (item if isinstance(item, str) else '{"a": 1}')


def test_all_clients_receive_the_same_bytes(serve: Serve, gzip_clients: Connect) -> None:
    app, source = compressing_app()
    server = serve(app, retry=0)
    streams = [gzip_clients(server, "/queue") for _ in range(3)]
    for stream in streams:
        stream.read_plain(b"\n\n")
    opened = [len(stream.compressed) for stream in streams]
    for item in ("first", TEXT, "last"):
        source.put(item)
        for stream in streams:
            assert stream.next_event().data == item
    first, *others = (
        stream.compressed[begin:] for stream, begin in zip(streams, opened, strict=True)
    )
    assert others == [first, first]
    assert len(first) < len(TEXT)


def test_an_event_is_compressed_once(
    serve: Serve, gzip_clients: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed = Queue[bytes]()

    def compress(data: bytes) -> Block:
        if b"data" in data:
            compressed.put(data)
        return compress_block(data)

    monkeypatch.setattr("wsframe.server.sessions.gzipped.compress_block", compress)
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic, compress=True)
    server = serve(app)
    topic.publish("before", id="0")
    streams = [gzip_clients(server, "/news") for _ in range(3)]
    wait_until(lambda: topic.stats().subscribers == 3, "all are subscribed")
    topic.publish(TEXT, id="1")
    assert [stream.expect(1) for stream in streams] == [[TEXT]] * 3
    assert gzip_clients(server, "/news?lastEventId=0").expect(1) == [TEXT]
    assert [data for data in compressed.queue if b"id: 1\n" in data] == [
        ServerSentEvent(TEXT, id="1").encode()
    ]


def test_a_client_that_reconnects_gets_the_missed_events_in_one_block(
    serve: Serve, gzip_clients: Connect
) -> None:
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic, compress=True)
    server = serve(app)
    for number in range(100):
        topic.publish(f"{number} {TEXT}", id=f"n{number}")
    topic.close()
    stream = gzip_clients(server, "/news", ("Last-Event-ID", "n0"))
    assert stream.expect(99) == [f"{number} {TEXT}" for number in range(1, 100)]
    stream.expect_whole()
    assert stream.last_event_id == ":end"


def test_a_gap_is_reported(serve: Serve, gzip_clients: Connect) -> None:
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic, compress=True)
    server = serve(app)
    stream = gzip_clients(server, "/news", ("Last-Event-ID", "gone"))
    assert stream.next_event().event == "gap"
    topic.publish("next")
    assert stream.expect(1) == ["next"]


@pytest.mark.slow
def test_comments_are_compressed(serve: Serve, gzip_clients: Connect) -> None:
    app, source = compressing_app()
    server = serve(app, heartbeat=0.2, drain=0.5)
    stream = gzip_clients(server, "/queue")
    stream.read_plain(b":\n\n")
    source.put("x")
    assert stream.expect(1) == ["x"]
    stream.read_plain(b":\n\n:\n\n")
    server.stop()
    stream.expect_whole()


@pytest.mark.slow
def test_heartbeat_events_are_compressed(serve: Serve, gzip_clients: Connect) -> None:
    app, source = compressing_app()
    server = serve(app, heartbeat=0.2, heartbeat_event="beat", drain=0.5)
    stream = gzip_clients(server, "/queue")
    assert stream.next_event().event == "beat"
    source.put("x")
    while (event := stream.next_event()).event == "beat":
        pass
    assert event.data == "x"
    server.stop()
    stream.expect_whole()


@pytest.mark.slow
def test_a_stream_is_whole_when_the_server_stops(serve: Serve, gzip_clients: Connect) -> None:
    app, source = compressing_app()
    app.sse("/handler", compress=True)(lambda stream: stream.send("hello"))
    server = serve(app, drain=0.5)
    fed, handled = gzip_clients(server, "/queue"), gzip_clients(server, "/handler")
    source.put("x")
    assert fed.expect(1) == ["x"]
    assert handled.expect(1) == ["hello"]
    server.stop()
    assert fed.expect_whole() == b""
    assert handled.expect_whole() == b""


def returns(stream: EventStream) -> Iterator[str]:
    yield "one"
    yield TEXT


def closes(stream: EventStream) -> None:
    stream.send("one")
    stream.send(TEXT)
    stream.close()
    stream.close()


def says_nothing(stream: EventStream) -> Iterator[str]:
    yield from ()


@pytest.mark.parametrize("retry", [0, 2.0])
@pytest.mark.parametrize(
    ("handler", "heard", "rest"),
    [(returns, ["one", TEXT], END), (closes, ["one", TEXT], b""), (says_nothing, [], END)],
)
def test_a_stream_of_a_handler_is_whole(
    serve: Serve,
    gzip_clients: Connect,
    handler: Callable[[EventStream], object],
    heard: list[str],
    rest: bytes,
    retry: float,
) -> None:
    app = App()
    app.sse("/job", compress=True)(handler)
    stream = gzip_clients(serve(app, retry=retry), "/job")
    plain = stream.expect_whole()
    assert plain.startswith(b"retry: ") == bool(retry)
    assert [event.data for event in EventStreamDecoder().receive(plain)] == heard
    assert plain.endswith(rest)


def test_a_stream_of_many_threads_is_whole(serve: Serve, gzip_clients: Connect) -> None:
    app = App()
    topics = [app.topic(name) for name in "ab"]
    opened: Queue[EventStream] = Queue()

    @app.sse("/all", compress=True)
    def subscribe(stream: EventStream) -> None:
        for topic in topics:
            stream.subscribe(topic)
        opened.put(stream)

    server = serve(app, heartbeat=0.02)
    client = gzip_clients(server, "/all")
    stream = opened.get(timeout=TIMEOUT)
    wait_until(lambda: server.stats().subscriptions == 2, "both subscriptions have begun")

    def say(send: Callable[[str], object], name: str) -> None:
        for number in range(400):
            send(f"{name}{number}")

    says = [(stream.send, "x"), (stream.send, "y"), *((t.publish, t.name) for t in topics)]
    threads = [threading.Thread(target=say, args=pair) for pair in says]
    for thread in threads:
        thread.start()
    heard = client.expect(1600)
    for thread in threads:
        thread.join()
    for name in "xyab":
        said = [data for data in heard if data[0] == name]
        assert said == [f"{name}{number}" for number in range(400)]
    stream.close(final=True)
    assert client.expect_whole().endswith(END)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_thread_waits_while_its_client_does_not_read(serve: Serve, gzip_clients: Connect) -> None:
    noise = Random(2).randbytes(1 << 15).hex()
    sent, count = 0, 100

    def push(stream: EventStream) -> Iterator[str]:
        nonlocal sent
        for _ in range(count):
            yield noise
            sent += 1

    app = App()
    app.sse("/job", compress=True)(push)
    client = gzip_clients(serve(app), "/job", receive_buffer=1 << 16)
    wait_until_stable(lambda: sent)
    assert 0 < sent < count
    assert client.expect(count) == [noise] * count
    client.expect_whole()
    assert client.last_event_id == ":end"


def test_the_refusal_without_a_thread_is_not_compressed(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App()
    app.sse("/job", compress=True)(returns)
    server = serve(app)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    client = clients.connect(server)
    client.send(get("/job", GZIP))
    answer = client.answer()
    assert (answer.status, answer.body) == (503, b"server is out of threads, try again later\n")
    assert answer.headers["Content-Encoding"] is None


def test_the_client_of_this_package_gets_uncompressed_streams(serve: Serve) -> None:
    app = App()
    app.sse("/job", compress=True)(returns)
    with events(f"{serve(app, retry=0.01).url}/job") as stream:
        assert [event.data for event in stream] == ["one", TEXT]


def test_curl_reads_each_event_at_once(serve: Serve) -> None:
    program = shutil.which("curl")
    if program is None:
        missing_tool("curl")
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic, compress=True)
    server = serve(app, retry=0)
    options = ("--no-progress-meter", "--fail", "--compressed", "-N", "--max-time", "30")
    with subprocess.Popen(
        [program, *options, f"{server.url}/news"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline().startswith(b"id: ")
        assert curl.stdout.readline() == b"\n"
        for number in range(3):
            event = ServerSentEvent(f"{number} {TEXT}", id=f"n{number}")
            topic.publish(event)
            lines = event.encode().splitlines(keepends=True)
            assert [curl.stdout.readline() for _ in lines] == lines
        topic.close()
        assert curl.stdout.read() == END
        assert curl.wait(TIMEOUT) == 0


def test_aiohttp_reads_each_event_at_once(serve: Serve) -> None:
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic, compress=True)
    url = f"{serve(app, retry=0).url}/news"

    async def read() -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert (await answer.content.readuntil(b"\n\n")).startswith(b"id: ")
            for number in range(3):
                event = ServerSentEvent(f"{number} {TEXT}", id=f"n{number}")
                topic.publish(event)
                assert await answer.content.readuntil(b"\n\n") == event.encode()
            topic.close()
            assert await answer.content.read() == END

    asyncio.run(read())

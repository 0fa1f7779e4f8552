"""Event streams: queues that feed many, and handlers that feed one."""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable, Generator
from email.utils import parsedate_to_datetime
from logging import WARNING
from queue import Empty, Queue
from typing import Any

import pytest

from tests.server.conftest import (
    Clients,
    Serve,
    ServerLog,
    stop_within,
    until_it_stands_still,
    wait_until,
)
from tests.support.clients import TIMEOUT, Client, StreamClient
from wsframe import ServerSentEvent
from wsframe.server import App, ConnectionClosed, EventStream, Server
from wsframe.server.sessions.eventstream import EventStreamSession
from wsframe.server.topics.sources import QueueThread

# More than the kernel's own buffers hold of a connection.
MUCH = 32 << 20
CHUNK = "x" * (1 << 16)


def source_app(*paths: str) -> tuple[App, Queue[Any]]:
    app, source = App(), Queue[Any]()
    for path in paths or ("/time",):
        app.sse(path, source=source)
    return app, source


def handler_app(handler: Callable[..., Any], path: str = "/job", **options: Any) -> App:
    app = App()
    app.sse(path, **options)(handler)
    return app


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def sessions(server: Server) -> list[EventStreamSession]:
    """The sessions of this server that anything still refers to."""
    found = (item for item in gc.get_objects() if isinstance(item, EventStreamSession))
    return [session for session in found if session.peer.loop in server.loops]


def join_within(source: Queue[Any], seconds: float) -> None:
    """Queue.join, for which every item must be reported as done."""
    joining = threading.Thread(target=source.join, daemon=True)
    joining.start()
    joining.join(seconds)
    assert not joining.is_alive(), "an item was not reported as done"


# Queues ------------------------------------------------------------------------------------------


def test_the_answer_is_one_that_nobody_holds_back(serve: Serve, clients: Clients) -> None:
    app, _ = source_app()
    headers = clients.stream(serve(app), "/time").headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Connection"] == "close"
    assert parsedate_to_datetime(headers["Date"])
    assert headers["Content-Length"] is None
    assert headers["Transfer-Encoding"] is None


def test_every_item_reaches_every_client_in_order(serve: Serve, clients: Clients) -> None:
    app, source = source_app()
    server = serve(app)
    streams = [clients.stream(server, "/time") for _ in range(5)]
    for number in range(500):
        source.put(str(number))
    for stream in streams:
        assert stream.hear(500) == list(map(str, range(500)))
    join_within(source, TIMEOUT)


@pytest.mark.parametrize(
    ("item", "event"),
    [
        ("text", ServerSentEvent("text")),
        ("", ServerSentEvent("")),
        ("ünï 🎈", ServerSentEvent("ünï 🎈")),
        ("two\nlines\r\nand\rmore\n", ServerSentEvent("two\nlines\nand\nmore\n")),
        ("data: no field", ServerSentEvent("data: no field")),
        ({"a": [1, None, "é"]}, ServerSentEvent('{"a": [1, null, "\\u00e9"]}')),
        (["text"], ServerSentEvent('["text"]')),
        (42, ServerSentEvent("42")),
        ([None, True], ServerSentEvent("[null, true]")),
        (None, ServerSentEvent("null")),
        (b"\x00\xff\x10", ServerSentEvent("AP8Q")),
        (ServerSentEvent("x", event="tick", id="7"), ServerSentEvent("x", "tick", "7")),
    ],
)
def test_an_item_is_an_event_or_data_or_json(
    serve: Serve, clients: Clients, item: object, event: ServerSentEvent
) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time")
    source.put(item)
    received = stream.next_event()
    assert (received.data, received.event) == (event.data, event.event)
    assert received.id == event.id or event.id is None


def test_an_event_may_tell_how_long_to_wait_and_forget_its_id(
    serve: Serve, clients: Clients
) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time")
    stream.read_opening()
    source.put(ServerSentEvent("x", id="", retry=1500))
    assert stream.read_until(b"\n\n") == b"id: \nretry: 1500\ndata: x\n\n"


def test_a_large_event_arrives_whole(serve: Serve, clients: Clients) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time", receive_buffer=1 << 16)
    text = "".join(map(str, range(150_000)))
    source.put(text)
    assert stream.next_event().data == text


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)
NO_EVENTS = {
    "object": object(),
    "set": {"a": {1, 2}},
    "surrogate": "\ud800",
    "not a number": float("nan"),
    "contains itself": ENDLESS,
}


@pytest.mark.parametrize("item", NO_EVENTS.values(), ids=NO_EVENTS)
def test_what_is_no_event_is_logged_and_left_out(
    serve: Serve, clients: Clients, log: ServerLog, item: object
) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time")
    source.put("before")
    source.put(item)
    source.put("after")
    assert stream.hear(2) == ["before", "after"]
    record = log.expect("an item of an event source is not an event")
    assert record.exc_info is not None
    join_within(source, TIMEOUT)


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b", "\n"])
@pytest.mark.parametrize("name", ["event", "id"])
def test_an_event_that_would_forge_fields_cannot_be_made(name: str, bad: str) -> None:
    with pytest.raises(ValueError, match=f"an event's {name} must not contain"):
        ServerSentEvent("x", **{name: bad})  # type: ignore[arg-type]


def test_a_new_client_begins_with_what_comes_next(serve: Serve, clients: Clients) -> None:
    app, source = source_app()
    server = serve(app)
    for number in range(10):
        source.put(number)
    join_within(source, TIMEOUT)
    assert source.empty()
    stream = clients.stream(server, "/time")
    source.put("for you")
    assert stream.hear(1) == ["for you"]


def test_two_paths_may_share_a_queue(serve: Serve, clients: Clients) -> None:
    app, source = source_app("/time", "/clocks/{name}")
    server = serve(app)
    streams = [clients.stream(server, path) for path in ("/time", "/clocks/a", "/clocks/b")]
    for number in range(100):
        source.put(str(number))
    for stream in streams:
        assert stream.hear(100) == list(map(str, range(100)))
    for stream in streams:
        stream.close()
    stop_within(server, TIMEOUT)
    join_within(source, TIMEOUT)


def test_two_queues_do_not_mix(serve: Serve, clients: Clients) -> None:
    app, one = source_app("/one")
    other: Queue[str] = Queue()
    app.sse("/other", source=other)
    server = serve(app)
    first, second = clients.stream(server, "/one"), clients.stream(server, "/other")
    one.put("1")
    other.put("2")
    one.put("3")
    assert first.hear(2) == ["1", "3"]
    assert second.hear(1) == ["2"]


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
def test_a_client_that_leaves_is_forgotten(
    serve: Serve, clients: Clients, leave: Callable[[Client], None]
) -> None:
    app, source = source_app()
    server = serve(app)
    stays, leaves = (clients.stream(server, "/time") for _ in range(2))
    assert len(sessions(server)) == 2
    leave(leaves)
    wait_until(lambda: len(server.clients[0].peers) == 1, "the client is forgotten")
    assert server.stats().subscriptions == 1
    source.put("next")
    assert stays.hear(1) == ["next"]
    assert len(sessions(server)) == 1


def test_a_client_that_is_too_slow_is_cut_off_and_the_others_go_on(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    app, source = source_app()
    server = serve(app)
    slow = clients.stream(server, "/time", receive_buffer=1 << 16)
    fast = clients.stream(server, "/time")
    for _ in range(MUCH // len(CHUNK)):
        source.put(CHUNK)
        assert fast.hear(1) == [CHUNK]
        if len(server.clients[0].peers) == 1:
            break
    log.expect("is too slow for its event stream and is cut off", WARNING)
    source.put("next")
    assert fast.hear(1) == ["next"]
    # What came before the cut was in order; then came an end, and not a hole.
    with pytest.raises((EOFError, ConnectionResetError)):  # noqa: PT012
        while slow.hear(1) == [CHUNK]:
            pass
    again = clients.stream(server, "/time")
    source.put("welcome back")
    assert again.hear(1) == ["welcome back"]


def test_what_a_client_says_on_a_stream_is_ignored(serve: Serve, clients: Clients) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time")
    stream.send(b"GET /time HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    source.put("x")
    assert stream.hear(1) == ["x"]


def test_stop_ends_the_streams_and_what_was_put_before_it_arrives(
    serve: Serve, clients: Clients
) -> None:
    app, source = source_app()
    server = serve(app)
    streams = [clients.stream(server, "/time") for _ in range(3)]
    for number in range(100):
        source.put(str(number))
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    for stream in streams:
        assert stream.hear(100) == list(map(str, range(100)))
        stream.expect_end()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    source.put("nobody takes this")
    assert source.get_nowait() == "nobody takes this"


def test_an_item_that_the_server_has_not_yet_seen_when_it_stops_arrives(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = threading.Event()
    catch_up = QueueThread.catch_up

    def catch_up_late(thread: QueueThread, timeout: float) -> None:
        stops.set()
        catch_up(thread, timeout)

    monkeypatch.setattr(QueueThread, "catch_up", catch_up_late)

    class LateQueue(Queue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            assert stops.wait(TIMEOUT)
            return super().get(block, timeout)

    source = LateQueue()
    app = App()
    app.sse("/time", source=source)
    server = serve(app)
    stream = clients.stream(server, "/time")
    source.put("last")
    stop_within(server, TIMEOUT)
    assert stream.hear(1) == ["last"]
    stream.expect_end()


@pytest.mark.skipif(not hasattr(queue, "ShutDown"), reason="no queue can be shut down")
@pytest.mark.parametrize("immediate", [False, True])
def test_a_queue_that_is_shut_down_does_not_keep_the_server_from_its_end(
    serve: Serve, clients: Clients, immediate: bool
) -> None:
    app, source = source_app()
    server = serve(app)
    stream = clients.stream(server, "/time")
    source.put("last")
    if not immediate:
        source.shutdown()  # type: ignore[attr-defined]
    assert stream.hear(1) == ["last"]
    if immediate:
        source.shutdown(immediate=True)  # type: ignore[attr-defined]
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stream.expect_end()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()


# Handlers ----------------------------------------------------------------------------------------


def test_a_generator_streams_and_its_end_is_the_streams(serve: Serve, clients: Clients) -> None:
    def count(stream: EventStream, to: str) -> Generator[object, None, None]:
        yield "begin"
        for number in range(int(to)):
            yield {"number": number}
        yield ServerSentEvent("end", id="9")

    server = serve(handler_app(count, "/count/{to}"))
    stream = clients.stream(server, "/count/2")
    assert stream.hear(3) == ["begin", '{"number": 0}', '{"number": 1}']
    assert stream.next_event() == ServerSentEvent("end", id="9")
    stream.expect_end()


def test_a_plain_function_may_return_and_leave_the_stream_to_others(
    serve: Serve, clients: Clients
) -> None:
    opened: Queue[EventStream] = Queue()

    def subscribe(stream: EventStream) -> None:
        stream.send("hello")
        opened.put(stream)

    server = serve(handler_app(subscribe))
    client = clients.stream(server, "/job")
    assert client.hear(1) == ["hello"]
    stream = opened.get(timeout=TIMEOUT)
    wait_until(lambda: "wsframe-handler /job" not in thread_names(), "the thread has ended")
    assert not stream.closed
    for number in range(3):
        stream.send({"from": number})
    assert client.hear(3) == ['{"from": 0}', '{"from": 1}', '{"from": 2}']
    stream.send("last")
    stream.close()
    stream.close()
    assert stream.closed
    with pytest.raises(ConnectionClosed):
        stream.send("too late")
    assert client.hear(1) == ["last"]
    client.expect_end()


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([], ""),
        ([("Last-Event-ID", "41")], "41"),
        ([("last-event-id", "a b")], "a b"),
        ([("Last-Event-ID", "é🎈".encode().decode("latin-1"))], "é🎈"),
    ],
)
def test_a_handler_learns_what_the_client_saw_last(
    serve: Serve, clients: Clients, headers: list[tuple[str, str]], told: str
) -> None:
    def tell(stream: EventStream) -> Generator[str, None, None]:
        yield repr((stream.last_event_id, stream.request.path, stream.request.query))

    stream = clients.stream(serve(handler_app(tell)), "/job?a=1", *headers)
    assert stream.hear(1) == [repr((told, "/job", {"a": ["1"]}))]


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(1)])
def test_a_handler_that_raises_is_logged_and_ends_its_stream_alone(
    serve: Serve, clients: Clients, log: ServerLog, error: BaseException
) -> None:
    def fail(stream: EventStream) -> Generator[str, None, None]:
        yield "before"
        raise error

    app = handler_app(fail)
    source: Queue[str] = Queue()
    app.sse("/time", source=source)
    server = serve(app)
    other = clients.stream(server, "/time")
    stream = clients.stream(server, "/job")
    assert stream.hear(1) == ["before"]
    stream.expect_end()
    record = log.expect("the handler of /job failed")
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    source.put("still here")
    assert other.hear(1) == ["still here"]


def test_a_handler_that_sends_what_is_no_event_gets_the_error(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    def send(stream: EventStream) -> None:
        for item in (object(), {1}):
            try:
                stream.send(item)
            except TypeError:
                stream.send("refused")
        raise RuntimeError

    stream = clients.stream(serve(handler_app(send)), "/job")
    assert stream.hear(2) == ["refused", "refused"]
    stream.expect_end()
    log.expect("the handler of /job failed")


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
def test_a_handler_learns_at_the_next_item_that_its_client_has_left(
    serve: Serve, clients: Clients, leave: Callable[[Client], None]
) -> None:
    begun, ended = threading.Event(), Queue[str]()
    items: Queue[str] = Queue()

    def relay(stream: EventStream) -> Generator[str, None, None]:
        try:
            begun.set()
            while True:
                yield items.get(timeout=TIMEOUT)
        finally:
            ended.put("finally")

    server = serve(handler_app(relay))
    client = clients.stream(server, "/job")
    assert begun.wait(TIMEOUT)
    leave(client)
    wait_until(lambda: not server.clients[0].peers, "the server knows that the client has left")
    items.put("x")
    assert ended.get(timeout=TIMEOUT) == "finally"
    with pytest.raises(Empty):
        ended.get_nowait()


def test_a_thread_that_sends_learns_that_the_client_has_left(
    serve: Serve, clients: Clients
) -> None:
    ended: Queue[ConnectionClosed] = Queue()

    def push(stream: EventStream) -> None:
        try:
            while True:
                stream.send("x")
        except ConnectionClosed as end:
            ended.put(end)
            raise

    client = clients.stream(serve(handler_app(push)), "/job")
    assert client.hear(1) == ["x"]
    client.reset()
    assert ended.get(timeout=TIMEOUT).code == 1006


def test_a_thread_waits_while_its_client_does_not_read(serve: Serve, clients: Clients) -> None:
    sent = 0
    count = MUCH // len(CHUNK)
    done = threading.Event()

    def push(stream: EventStream) -> Generator[str, None, None]:
        nonlocal sent
        for _ in range(count):
            yield CHUNK
            sent += 1
        done.set()

    client = clients.stream(serve(handler_app(push)), "/job", receive_buffer=1 << 16)
    assert not done.wait(1)
    assert 0 < sent < count // 2
    assert client.hear(count) == [CHUNK] * count
    assert done.wait(TIMEOUT)
    client.expect_end()


def test_a_thread_that_waits_to_send_goes_on_when_the_end_is_known(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on sending what nobody takes."""
    opened = threading.Event()
    ended = threading.Event()
    sent = 0
    gone_on: list[int] = []
    peer_left = EventStreamSession.peer_left

    def push(stream: EventStream) -> None:
        nonlocal sent
        opened.set()
        try:
            while True:
                stream.send(CHUNK)
                sent += 1
        except ConnectionClosed:
            ended.set()

    def leave_late(self: EventStreamSession) -> None:
        before = sent
        ended.wait(0.3)
        gone_on.append(sent - before)
        peer_left(self)

    client = clients.stream(serve(handler_app(push)), "/job", receive_buffer=1 << 16)
    assert opened.wait(TIMEOUT)
    until_it_stands_still(lambda: sent)
    monkeypatch.setattr(EventStreamSession, "peer_left", leave_late)
    client.reset()
    assert ended.wait(TIMEOUT)
    assert gone_on == [0]


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_thread_that_waits_to_send_learns_of_the_end(
    serve: Serve, clients: Clients, how: str
) -> None:
    opened: Queue[EventStream] = Queue()
    ended = threading.Event()

    def push(stream: EventStream) -> None:
        opened.put(stream)
        try:
            for _ in range(MUCH // len(CHUNK)):
                stream.send(CHUNK)
        except ConnectionClosed:
            ended.set()

    client = clients.stream(serve(handler_app(push, blocking=True)), "/job", receive_buffer=1 << 16)
    stream = opened.get(timeout=TIMEOUT)
    assert not ended.wait(0.5)
    if how == "close":
        stream.close()
    else:
        client.reset()
    assert ended.wait(2)
    client.close()


def test_streams_of_handlers_do_not_mix(serve: Serve, clients: Clients) -> None:
    def count(stream: EventStream, name: str) -> Generator[str, None, None]:
        for number in range(200):
            yield f"{name} {number}"

    server = serve(handler_app(count, "/count/{name}"))
    streams: list[tuple[str, StreamClient]] = [
        (name, clients.stream(server, f"/count/{name}")) for name in "abcdef"
    ]
    for name, stream in streams:
        assert stream.hear(200) == [f"{name} {number}" for number in range(200)]
        stream.expect_end()

"""Event streams that handlers feed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from queue import Empty, Queue
from typing import Any

import pytest

from tests.server.sessions.eventstream import CHUNK, MUCH
from tests.support.clients import Client, Clients, StreamClient, get
from tests.support.handlers import Checkpoint
from tests.support.inspection import loops_of, peers_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until, wait_until_stable
from wsframe import ServerSentEvent
from wsframe.server import App, ConnectionClosed, EventStream, Server
from wsframe.server.handoff.loop import READ
from wsframe.server.sessions.eventstream_session import EventStreamSession


def handler_app(handler: Callable[..., Any], path: str = "/job", **options: Any) -> App:
    app = App()
    app.sse(path, **options)(handler)
    return app


def waits_to_send(server: Server) -> bool:
    """Return True if the handler of the only client waits until the client reads."""
    return [peer.waiting_senders for peer in peers_of(server)] == [1]


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_the_end_of_a_generator_ends_its_stream(serve: Serve, clients: Clients) -> None:
    def count(stream: EventStream, to: str) -> Generator[object, None, None]:
        yield "begin"
        for number in range(int(to)):
            yield {"number": number}
        yield ServerSentEvent("middle", event="tick")
        yield ServerSentEvent("end", id="9")

    server = serve(handler_app(count, "/count/{to}"))
    stream = clients.stream(server, "/count/2")
    assert stream.expect(3) == ["begin", '{"number": 0}', '{"number": 1}']
    assert stream.next_event() == ServerSentEvent("middle", event="tick")
    assert stream.next_event() == ServerSentEvent("end", id="9")
    stream.expect_end()


def test_a_stream_stays_open_after_its_plain_function_returns(
    serve: Serve, clients: Clients
) -> None:
    opened: Queue[EventStream] = Queue()

    def subscribe(stream: EventStream) -> None:
        stream.send("hello")
        opened.put(stream)

    server = serve(handler_app(subscribe))
    client = clients.stream(server, "/job")
    assert client.expect(1) == ["hello"]
    stream = opened.get(timeout=TIMEOUT)
    wait_until(lambda: "wsframe-handler /job" not in thread_names(), "the thread has ended")
    assert not stream.closed
    for number in range(3):
        stream.send({"from": number})
    assert client.expect(3) == ['{"from": 0}', '{"from": 1}', '{"from": 2}']
    stream.send("last")
    stream.close()
    stream.close()
    assert stream.closed
    with pytest.raises(ConnectionClosed):
        stream.send("too late")
    with pytest.raises(ConnectionClosed):
        stream.subscribe("too late")
    assert client.expect(1) == ["last"]
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
def test_a_handler_receives_the_last_event_id(
    serve: Serve, clients: Clients, headers: list[tuple[str, str]], told: str
) -> None:
    def tell(stream: EventStream) -> Generator[str, None, None]:
        yield repr((stream.last_event_id, stream.request.path, stream.request.query))

    stream = clients.stream(serve(handler_app(tell)), "/job?a=1", *headers)
    assert stream.expect(1) == [repr((told, "/job", {"a": ["1"]}))]


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(1)])
def test_an_error_of_a_handler_is_logged_and_ends_only_its_stream(
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
    assert stream.expect(1) == ["before"]
    stream.expect_end()
    record = log.expect("the handler of /job failed")
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    source.put("still here")
    assert other.expect(1) == ["still here"]


def test_sending_an_invalid_item_raises_in_the_handler(
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
    assert stream.expect(2) == ["refused", "refused"]
    stream.expect_end()
    log.expect("the handler of /job failed")


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
def test_a_generator_ends_at_the_first_item_after_its_client_has_left(
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
    wait_for_disconnects(server)
    items.put("x")
    assert ended.get(timeout=TIMEOUT) == "finally"
    with pytest.raises(Empty):
        ended.get_nowait()


def test_sending_to_a_client_that_has_left_raises(serve: Serve, clients: Clients) -> None:
    ended: Queue[ConnectionClosed] = Queue()

    def push(stream: EventStream) -> None:
        try:
            while True:
                stream.send("x")
        except ConnectionClosed as end:
            ended.put(end)
            raise

    client = clients.stream(serve(handler_app(push)), "/job")
    assert client.expect(1) == ["x"]
    client.reset()
    assert ended.get(timeout=TIMEOUT).code == 1006


@pytest.mark.slow
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

    server = serve(handler_app(push))
    client = clients.stream(server, "/job", receive_buffer=1 << 16)
    wait_until(lambda: waits_to_send(server), "it waits")
    assert 0 < sent < count // 2
    assert not done.is_set()
    assert client.expect(count) == [CHUNK] * count
    assert done.wait(TIMEOUT)
    client.expect_end()


def test_a_blocked_send_returns_only_when_the_session_has_ended(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would continue to send events to a lost client."""
    opened = threading.Event()
    ended = threading.Event()
    sent = 0
    gone_on: list[int] = []
    disconnected = EventStreamSession.disconnected

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
        disconnected(self)

    client = clients.stream(serve(handler_app(push)), "/job", receive_buffer=1 << 16)
    assert opened.wait(TIMEOUT)
    wait_until_stable(lambda: sent)
    monkeypatch.setattr(EventStreamSession, "disconnected", leave_late)
    client.reset()
    assert ended.wait(TIMEOUT)
    assert gone_on == [0]


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_blocked_send_ends_with_the_connection(serve: Serve, clients: Clients, how: str) -> None:
    opened: Queue[EventStream] = Queue()
    ended = threading.Event()

    def push(stream: EventStream) -> None:
        opened.put(stream)
        try:
            for _ in range(MUCH // len(CHUNK)):
                stream.send(CHUNK)
        except ConnectionClosed:
            ended.set()

    server = serve(handler_app(push, blocking=True), send_timeout=2 * TIMEOUT)
    client = clients.stream(server, "/job", receive_buffer=1 << 16)
    stream = opened.get(timeout=TIMEOUT)
    wait_until(lambda: waits_to_send(server), "it waits")
    assert not ended.is_set()
    if how == "close":
        stream.close()
    else:
        client.reset()
    assert ended.wait(TIMEOUT)
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
        assert stream.expect(200) == [f"{name} {number}" for number in range(200)]
        stream.expect_end()


def test_a_stream_whose_topics_were_closed_ends_after_its_handler(
    serve: Serve, clients: Clients
) -> None:
    held = Checkpoint()

    def job(stream: EventStream) -> None:
        stream.subscribe("news")
        held.wait()
        stream.send("done")

    app = handler_app(job)
    topic = app.topic("news")
    server = serve(app)
    client = clients.stream(server, "/job")
    wait_until(lambda: server.stats().subscriptions == 1, "the subscription has begun")
    topic.publish("1")
    topic.close()
    assert client.expect(1) == ["1"]
    wait_until(lambda: server.stats().subscriptions == 0, "the subscription has ended")
    held.release()
    assert client.expect(1) == ["done"]
    client.expect_end()
    assert client.last_event_id == ":end"


def test_a_stream_that_disconnects_before_its_handler_has_a_thread_does_not_start_it(
    serve: Serve, clients: Clients
) -> None:
    """Two requests pass the gate in one step, and there is one thread."""
    begin, held, started = Checkpoint(), Checkpoint(), Queue[None]()

    def job(stream: EventStream) -> None:
        started.put(None)
        held.wait()

    server = serve(handler_app(job, blocking=True), max_threads=1)
    two = [clients.connect(server) for _ in range(2)]
    wait_until(lambda: len(peers_of(server)) == 2, "both are connected")
    peers = {peer.address: peer for peer in peers_of(server)}

    def read_requests() -> None:
        begin.wait()
        for client in two:
            assert peers[client.sock.getsockname()].ready(READ) is None

    (loop,) = loops_of(server)
    loop.call_soon(read_requests)
    begin.wait_until_reached()
    for client in two:
        client.send(get("/job"))
    begin.release()
    wait_until(lambda: server.stats().handlers_waiting == 1, "the second handler waits")
    two[1].close()
    wait_until(lambda: server.stats().handlers_waiting == 0, "the second handler has ended")
    held.release()
    two[0].close()
    stop_within(server, TIMEOUT)
    assert started.qsize() == 1

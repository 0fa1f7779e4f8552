"""Event streams that queues feed."""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from logging import WARNING
from queue import Queue
from typing import Any

import pytest

from tests.server.sessions.eventstream import CHUNK, MUCH
from tests.support.clients import Client, Clients
from tests.support.inspection import loops_of, peers_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT
from wsframe import ServerSentEvent
from wsframe.server import App, Server
from wsframe.server.sessions.eventstream_session import EventStreamSession
from wsframe.server.topics.source_threads import QueueThread


def source_app(*paths: str) -> tuple[App, Queue[Any]]:
    app, source = App(), Queue[Any]()
    for path in paths or ("/time",):
        app.sse(path, source=source)
    return app, source


def sessions(server: Server) -> list[EventStreamSession]:
    """Return the sessions of this server that are still referenced."""
    # Not isinstance, because the class of an unused weak proxy cannot be read.
    found = (item for item in gc.get_objects() if issubclass(type(item), EventStreamSession))
    return [session for session in found if session.peer.loop in loops_of(server)]


def join_within(source: Queue[Any], seconds: float) -> None:
    """Wait until every item is done, as Queue.join does, but with a limit."""
    joining = threading.Thread(target=source.join, daemon=True)
    joining.start()
    joining.join(seconds)
    assert not joining.is_alive(), "an item was not reported as done"


def test_the_answer_forbids_buffering_and_caching(serve: Serve, clients: Clients) -> None:
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
        assert stream.expect(500) == list(map(str, range(500)))
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


def test_an_event_may_set_the_retry_time_and_reset_the_id(serve: Serve, clients: Clients) -> None:
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
def test_an_invalid_item_is_logged_and_dropped(
    serve: Serve, clients: Clients, log: ServerLog, item: object
) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time")
    source.put("before")
    source.put(item)
    source.put("after")
    assert stream.expect(2) == ["before", "after"]
    record = log.expect("dropping item from event source of the topic")
    assert record.exc_info is not None
    join_within(source, TIMEOUT)


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b", "\n"])
@pytest.mark.parametrize("name", ["event", "id"])
def test_an_event_cannot_contain_line_breaks_in_its_fields(name: str, bad: str) -> None:
    with pytest.raises(ValueError, match=f"an event's {name} must not contain"):
        ServerSentEvent("x", **{name: bad})  # type: ignore[arg-type]


def test_a_new_client_starts_with_the_next_event(serve: Serve, clients: Clients) -> None:
    app, source = source_app()
    server = serve(app)
    for number in range(10):
        source.put(number)
    join_within(source, TIMEOUT)
    assert source.empty()
    stream = clients.stream(server, "/time")
    source.put("for you")
    assert stream.expect(1) == ["for you"]


def test_two_paths_may_share_a_queue(serve: Serve, clients: Clients) -> None:
    app, source = source_app("/time", "/clocks/{name}")
    server = serve(app)
    streams = [clients.stream(server, path) for path in ("/time", "/clocks/a", "/clocks/b")]
    for number in range(100):
        source.put(str(number))
    for stream in streams:
        assert stream.expect(100) == list(map(str, range(100)))
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
    assert first.expect(2) == ["1", "3"]
    assert second.expect(1) == ["2"]


@pytest.mark.slow
@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
def test_a_client_that_leaves_is_forgotten(
    serve: Serve, clients: Clients, leave: Callable[[Client], None]
) -> None:
    app, source = source_app()
    server = serve(app)
    stays, leaves = (clients.stream(server, "/time") for _ in range(2))
    assert len(sessions(server)) == 2
    leave(leaves)
    wait_for_disconnects(server, 1)
    assert server.stats().subscriptions == 1
    source.put("next")
    assert stays.expect(1) == ["next"]
    assert len(sessions(server)) == 1


def test_a_client_that_is_too_slow_is_disconnected_and_others_are_not(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    app, source = source_app()
    server = serve(app)
    slow = clients.stream(server, "/time", receive_buffer=1 << 16)
    fast = clients.stream(server, "/time")
    for _ in range(MUCH // len(CHUNK)):
        source.put(CHUNK)
        assert fast.expect(1) == [CHUNK]
        if len(peers_of(server)) == 1:
            break
    log.expect("too slow for its event stream", WARNING)
    source.put("next")
    assert fast.expect(1) == ["next"]
    # The events before the disconnect are complete and in order.
    with pytest.raises((EOFError, ConnectionResetError)):  # noqa: PT012
        while slow.expect(1) == [CHUNK]:
            pass
    again = clients.stream(server, "/time")
    source.put("welcome back")
    assert again.expect(1) == ["welcome back"]


def test_data_from_the_client_of_a_stream_is_ignored(serve: Serve, clients: Clients) -> None:
    app, source = source_app()
    stream = clients.stream(serve(app), "/time")
    stream.send(b"GET /time HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    source.put("x")
    assert stream.expect(1) == ["x"]


def test_a_stop_ends_the_streams_after_the_items_put_before_it(
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
        assert stream.expect(100) == list(map(str, range(100)))
        stream.expect_end()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    source.put("no client receives this")
    assert source.get_nowait() == "no client receives this"


@pytest.mark.slow
def test_an_item_that_is_still_queued_at_a_stop_arrives(
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
    server = serve(app, drain=1)
    stream = clients.stream(server, "/time")
    source.put("last")
    stop_within(server, TIMEOUT)
    assert stream.expect(1) == ["last"]
    stream.expect_end()


@pytest.mark.skipif(not hasattr(queue, "ShutDown"), reason="needs Python 3.13: Queue.shutdown")
@pytest.mark.parametrize("immediate", [False, True])
def test_a_queue_that_is_shut_down_does_not_delay_a_stop(
    serve: Serve, clients: Clients, immediate: bool
) -> None:
    app, source = source_app()
    server = serve(app)
    stream = clients.stream(server, "/time")
    source.put("last")
    if not immediate:
        source.shutdown()  # type: ignore[attr-defined]
    assert stream.expect(1) == ["last"]
    if immediate:
        source.shutdown(immediate=True)  # type: ignore[attr-defined]
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stream.expect_end()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()

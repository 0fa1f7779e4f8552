"""Reconnecting after the end of a stream."""

from __future__ import annotations

import socket
import threading
from itertools import islice
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.client.conftest import Connect, Play
from tests.client.eventsource.helpers import data
from tests.support.ports import port
from tests.support.scripted import Visit
from tests.support.waiting import TIMEOUT
from wsframe import ServerSentEvent
from wsframe.server import App, EventStream

pytestmark = pytest.mark.one_kernel

__all__ = ["port"]


class MessageGenerator(threading.Event):
    """An event whose waits return at once, and are recorded.

    Attributes:
        enough: the number of waits after which it is set; 0 for never.
    """

    enough = 0

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        self.seconds.append(timeout)
        if len(self.seconds) == self.enough:
            self.set()
        return self.is_set()


@pytest.fixture
def waits(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[MessageGenerator]:
    """Record the waits of every stream."""
    made: list[MessageGenerator] = []

    def make() -> MessageGenerator:
        made.append(MessageGenerator())
        return made[-1]

    replaced = SimpleNamespace(Event=make, Lock=threading.Lock)
    monkeypatch.setattr(codec.client.eventsource, "threading", replaced)
    return made


def test_it_reconnects_with_the_last_id(events: Connect, play: Play) -> None:
    ids = []

    def stream(body: bytes) -> Any:
        def script(visit: Visit) -> None:
            visit.read_head()
            ids.append(visit.headers["Last-Event-ID"])
            visit.stream(body)

        return script

    server = play(
        stream(b"data: a\n\n"),
        stream("id: grün\ndata: b\n\n".encode()),
        stream(b"data: c\n\n"),  # no id, so the last one is still valid
        stream(b"id\ndata: d\n\n"),
        stream(b"data: e\n\n"),
    )
    source = events(server.http_url())
    assert data(source, 5) == ["a", "b", "c", "d", "e"]
    assert ids == [None, None, *["grün".encode().decode("latin-1")] * 2, None]


def test_an_id_that_is_not_valid_in_a_header_is_not_sent(events: Connect, play: Play) -> None:
    ids = []

    def again(visit: Visit) -> None:
        visit.read_head()
        ids.append(visit.headers["Last-Event-ID"])
        visit.stream(b"data: c\n\n")

    def first(visit: Visit) -> None:
        visit.stream(b"id: 1\ndata: a\n\nid: \x7f\ndata: b\n\n")

    source = events(play(first, again).http_url())
    assert data(source, 3) == ["a", "b", "c"]
    assert ids == ["1"]  # so the events after it are repeated
    assert source.last_event_id == "1"


def test_the_last_id_is_that_of_the_event_that_was_returned(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid\ndata: c\n\n")
        visit.wait_for_end()

    with events(play(script).http_url(), last_event_id="0") as source:
        assert [source.last_event_id] + [source.last_event_id for _ in islice(source, 3)] == [
            "0",
            "1",
            "2",
            "",
        ]


@pytest.mark.slow
def test_a_failed_connection_is_closed_before_the_next(events: Connect, play: Play) -> None:
    over = threading.Event()

    def silent(visit: Visit) -> None:
        visit.read_head()
        source.retry = 3600.0  # the delay after this connection
        visit.wait_for_end()
        over.set()

    server = play(lambda visit: visit.stream(b"data: a\n\n"), silent)
    source = events(server.http_url(), open_timeout=1)
    assert data(source, 1) == ["a"]
    waits = threading.Thread(target=lambda: list(source))
    waits.start()
    assert over.wait(TIMEOUT)
    source.close()
    waits.join()


@pytest.mark.slow
def test_it_reconnects_when_the_server_has_restarted(events: Connect, port: int) -> None:
    app = App()

    @app.sse("/count")
    def count(stream: EventStream) -> None:
        number = int(stream.last_event_id or 0) + 1
        stream.send(ServerSentEvent(str(number), id=str(number)))

    with app.start("127.0.0.1", port, drain=0.1):
        source = events(f"http://127.0.0.1:{port}/count")
        assert data(source, 1) == ["1"]
    with app.start("127.0.0.1", port, drain=0.1):
        assert data(source, 1) == ["2"]


def test_it_reconnects_when_the_connection_is_reset(events: Connect, play: Play) -> None:
    received = threading.Event()

    def first(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        assert received.wait(TIMEOUT)
        visit.reset()

    source = events(play(first, lambda visit: visit.stream(b"data: two\n\n")).http_url())
    assert data(source, 1) == ["one"]
    received.set()
    assert data(source, 1) == ["two"]


def test_a_stream_is_lost_after_read_timeout(events: Connect, play: Play) -> None:
    def first(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    def second(visit: Visit) -> None:
        visit.stream(b"data: two\n\n")

    source = events(play(first, second).http_url(), read_timeout=0.05)
    assert data(source, 2) == ["one", "two"]


def test_the_server_sets_the_reconnection_delay(
    events: Connect, play: Play, waits: list[MessageGenerator]
) -> None:
    def stream(retry: bytes) -> Any:
        return lambda visit: visit.stream(retry + b"data: x\n\n")

    server = play(
        stream(b""),
        stream(b"retry: 7000\n"),
        stream(b"retry: 0\n"),
        stream(b"retry: 99999999999999\n"),
        lambda visit: visit.answer(204),
    )
    assert data(events(server.http_url(), retry=2), 9) == ["x"] * 4
    for seconds, least in zip(waits[0].seconds, (2, 7, 0.5, 3600), strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


def test_the_delay_grows_after_failures(
    events: Connect, play: Play, waits: list[MessageGenerator]
) -> None:
    server = play(lambda visit: visit.stream(b"data: x\n\n"))
    source = events(server.http_url(), retry=1)
    waits[0].enough = 9
    assert data(source, 9) == ["x"]
    doubled = (1, 2, 4, 8, 16, 32, 60, 60, 60)
    for seconds, least in zip(waits[0].seconds, doubled, strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


@pytest.mark.parametrize("body", [b"", b"retry: 0\n\n", b": comment\n\n", b"id: 1\n\n", b"data: x"])
def test_the_delay_grows_after_streams_without_events(
    events: Connect, play: Play, waits: list[MessageGenerator], body: bytes
) -> None:
    server = play(*[lambda visit: visit.stream(body)] * 6, lambda visit: visit.answer(204))
    assert list(events(server.http_url(), retry=0)) == []
    for seconds, least in zip(waits[0].seconds, (1, 2, 4, 8, 16, 32), strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


def test_a_long_stream_without_events_is_not_a_failure(
    events: Connect,
    play: Play,
    waits: list[MessageGenerator],
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 1000, 5))  # five seconds pass between two readings of the clock
    monkeypatch.setattr(codec.client.eventsource, "monotonic", clock.__next__)
    server = play(*[lambda visit: visit.stream()] * 3, lambda visit: visit.answer(204))
    assert list(events(server.http_url(), retry=1)) == []
    assert [int(seconds or 0) for seconds in waits[0].seconds] == [1, 1, 1]


def test_a_success_resets_the_delay(
    events: Connect, play: Play, waits: list[MessageGenerator]
) -> None:
    def lost(visit: Visit) -> None:
        visit.read_head()

    server = play(
        lambda visit: visit.stream(b"data: x\n\n"),
        lost,
        lost,
        lambda visit: visit.stream(b"data: x\n\n"),
        lambda visit: visit.answer(204),
    )
    assert data(events(server.http_url(), retry=1), 9) == ["x", "x"]
    assert [int(seconds or 0) for seconds in waits[0].seconds] == [1, 2, 4, 1]


def test_failures_do_not_shorten_a_long_delay_of_the_server(
    events: Connect, play: Play, waits: list[MessageGenerator]
) -> None:
    server = play(lambda visit: visit.stream(b"retry: 100000\n\n"))
    source = events(server.http_url())
    waits[0].enough = 3
    assert list(source) == []
    assert all(100 <= (seconds or 0) <= 125 for seconds in waits[0].seconds)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_it_reconnects_after_a_temporary_error_status(
    events: Connect, play: Play, waits: list[MessageGenerator], status: int
) -> None:
    server = play(
        lambda visit: visit.stream(b"id: 1\ndata: one\n\n"),
        lambda visit: visit.send(b"HTTP/1.1 %d Busy\r\nContent-Length: 2\r\n\r\nno" % status),
        lambda visit: visit.answer(503, ("Retry-After", "7200")),
        lambda visit: visit.stream(b"data: two\n\n"),
        lambda visit: visit.answer(204),
    )
    assert data(events(server.http_url(), retry=1), 9) == ["one", "two"]
    # The limits of Retry-After, which is valid until the next stream.
    for seconds, least in zip(waits[0].seconds, (1, 2, 3600, 1), strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "40"},
        {"Retry-After": "Sun, 06 Nov 2044 08:50:17 GMT", "Date": "Sun, 06 Nov 2044 08:49:37 GMT"},
    ],
)
def test_retry_after_is_respected_in_both_forms(
    events: Connect, play: Play, waits: list[MessageGenerator], headers: dict[str, str]
) -> None:
    server = play(
        lambda visit: visit.stream(b"data: x\n\n"),
        lambda visit: visit.answer(503, *headers.items()),
        lambda visit: visit.answer(204),
    )
    assert data(events(server.http_url()), 9) == ["x"]
    assert 40 <= (waits[0].seconds[1] or 0) <= 50


@pytest.mark.slow
def test_it_reconnects_when_a_full_server_has_room(
    events: Connect, codec: ModuleType, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    app = App()

    @app.sse("/one")
    def one(stream: EventStream) -> None:
        stream.send(ServerSentEvent("one", id="1"))

    with app.start("127.0.0.1", port, drain=0.1):
        source = events(f"http://127.0.0.1:{port}/one")
        assert data(source, 1) == ["one"]
    with app.start("127.0.0.1", port, max_connections=1, drain=0.1):
        with socket.create_connection(("127.0.0.1", port)) as other:
            refused = threading.Event()
            send = codec.client.redirects.Request.send

            def send_and_make_room(*arguments: Any) -> Any:
                answer, origin = send(*arguments)
                if answer.status == 503:
                    other.close()
                    refused.set()
                return answer, origin

            monkeypatch.setattr(codec.client.redirects.Request, "send", send_and_make_room)
            assert data(source, 1) == ["one"]
        assert refused.is_set()

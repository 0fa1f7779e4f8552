"""One event stream: its events, and responses of other types."""

from __future__ import annotations

import math
from itertools import islice
from queue import Queue
from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, Play
from tests.client.eventsource.helpers import data
from tests.support.certificates import Certificates
from tests.support.scripted import Visit
from tests.support.serving import Serve
from wsframe import ServerSentEvent, __version__
from wsframe.server import App

pytestmark = pytest.mark.one_kernel


def test_the_events_of_the_server_are_returned(
    events: Connect, serve: Serve, codec: ModuleType
) -> None:
    source: Queue[object] = Queue()
    app = App()
    app.sse("/ticks", source=source)
    with events(f"http://localhost:{serve(app).port}/ticks") as ticks:
        source.put("one")
        source.put(ServerSentEvent("two\nlines", event="tick", id="7", retry=5000))
        source.put({"a": 1})
        one, two, three = islice(ticks, 3)
        assert two == codec.ServerSentEvent("two\nlines", event="tick", id="7")
        assert (one.data, three.data) == ("one", '{"a": 1}')
        assert one.id != three.id  # invented by the server
        assert (ticks.last_event_id, ticks.retry) == (three.id, 5.0)
    assert list(ticks) == []


def test_the_request_contains_all_arguments(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: x\n\n")
        assert visit.request_line == "GET /p%20q?r=%2F HTTP/1.1"
        assert visit.headers.items() == [
            ("Host", f"127.0.0.1:{server.port}"),
            ("Accept", "text/event-stream"),
            ("Accept-Encoding", "identity"),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
            ("Last-Event-ID", "grün".encode().decode("latin-1")),
            ("X-One", "1"),
            ("User-Agent", f"wsframe/{__version__}"),
        ]

    server = play(script)
    url = server.http_url("/p%20q?r=%2F")
    source = events(url, headers={"X-One": "1"}, last_event_id="grün")
    assert source.last_event_id == "grün"
    assert data(source, 1) == ["x"]


def test_the_headers_may_be_bytes(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: x\n\n")
        assert visit.headers.get_all("X-One") == ["1", "caf\xe9"]

    url = play(script).http_url()
    assert data(events(url, headers=[(b"X-One", b"1"), (b"X-One", b"caf\xe9")]), 1) == ["x"]


def test_the_event_source_is_shown_without_secrets(events: Connect, play: Play) -> None:
    server = play(lambda visit: visit.stream(b"id: 7\ndata: x\n\n"))
    host = f"127.0.0.1:{server.port}"
    source = events(f"http://user:s3cr3t@{host}/path?token=s3cr3t")
    assert data(source, 1) == ["x"]
    assert (
        repr(source) == f"EventSource('{host}', '/path', last_event_id='7', retry={source.retry})"
    )


def test_the_user_and_the_password_of_the_url_are_sent(events: Connect, play: Play) -> None:
    said = []

    def script(visit: Visit) -> None:
        visit.read_head()
        said.append(visit.headers["Authorization"])
        visit.answer(204)

    server = play(script)
    list(events(f"http://Aladdin:open%20sesame@127.0.0.1:{server.port}/"))
    assert said == ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]


def test_a_stream_byte_by_byte(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send_bytewise(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
            b": a comment\n\ndata: one\r\n\r\ndata: \xe2\x82\xac\n\n"
        )

    assert data(events(play(script).http_url()), 2) == ["one", "€"]


def test_an_incomplete_event_at_the_end_is_discarded(events: Connect, play: Play) -> None:
    def first(visit: Visit) -> None:
        visit.stream(b"id: 1\ndata: one\n\nid: 2\ndata: tw")

    def second(visit: Visit) -> None:
        visit.stream(b"id: 2\ndata: two\n\n")
        assert visit.headers["Last-Event-ID"] == "1"

    assert data(events(play(first, second).http_url()), 2) == ["one", "two"]


def test_tls_connections_are_verified(
    events: Connect, play: Play, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: secret\n\n")

    url = play(script, tls=certificates.server).http_url()
    assert data(events(url, ssl=certificates.client), 1) == ["secret"]


def test_an_event_over_the_limit_ends_the_iteration(
    events: Connect, play: Play, codec: ModuleType
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: fits\n\ndata: " + b"x" * 101)
        visit.wait_for_end()

    source = events(play(script).http_url(), max_event_size=100)
    assert data(source, 1) == ["fits"]
    with pytest.raises(codec.ProtocolError, match="limit of 100 characters"):
        next(source)
    assert list(source) == []


def test_204_ends_the_iteration(events: Connect, play: Play) -> None:
    server = play(
        lambda visit: visit.answer(204),
        lambda visit: visit.stream(b"data: one\n\n"),
        lambda visit: visit.answer(204),
    )
    assert list(events(server.http_url())) == []
    assert data(events(server.http_url()), 9) == ["one"]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 503])
def test_another_status_is_an_error(
    events: Connect, play: Play, codec: ModuleType, status: int
) -> None:
    def script(visit: Visit) -> None:
        visit.answer(status, ("X-Why", "because"), body=b"no")

    with pytest.raises(codec.HandshakeError, match=f"the server answered {status}") as caught:
        events(play(script).http_url())
    assert (caught.value.status, caught.value.headers) == (status, (("X-Why", "because"),))


@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=utf-8", ""])
def test_another_type_is_an_error(
    events: Connect, play: Play, codec: ModuleType, content_type: str
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n", content_type)

    with pytest.raises(codec.HandshakeError, match="not an event stream") as caught:
        events(play(script).http_url())
    assert caught.value.status == 502


def test_an_error_after_reconnecting_ends_the_iteration(
    events: Connect, play: Play, codec: ModuleType
) -> None:
    server = play(
        lambda visit: visit.stream(b"data: one\n\n"),
        lambda visit: visit.answer(403),
    )
    source = events(server.http_url())
    assert data(source, 1) == ["one"]
    with pytest.raises(codec.HandshakeError, match="403"):
        next(source)
    assert list(source) == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", b"220 smtp\r\n\r\n", b"x" * 70_000])
def test_the_first_connection_fails_at_once(events: Connect, play: Play, answer: bytes) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(answer)

    with pytest.raises(OSError, match=r"malformed|closed connection|reset"):
        events(play(script).http_url())


def test_a_refused_connection(events: Connect, play: Play) -> None:
    server = play()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        events(server.http_url())


def test_a_slow_head_must_be_complete_in_time(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.trickle(b"HTTP/1.1 200 OK\r\nX: ")

    with pytest.raises(TimeoutError):
        events(play(script).http_url(), open_timeout=0.3)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ws://127.0.0.1/", {}),
        ("http:///path", {}),
        ("http://127.0.0.1/#part", {}),
        ("http://127.0.0.1/", {"last_event_id": "a\nb"}),
        ("http://127.0.0.1/", {"last_event_id": "a\0b"}),
        ("http://127.0.0.1/", {"last_event_id": "a\x7fb"}),
        ("http://127.0.0.1/", {"headers": {"X": "a\r\nY: b"}}),
        ("http://127.0.0.1/", {"headers": {"not a token": ""}}),
        ("http://127.0.0.1/", {"headers": {"host": "other"}}),
        ("http://127.0.0.1/", {"headers": {"Last-Event-ID": "1"}}),
        ("http://127.0.0.1/", {"headers": {"content-length": "1"}}),
        ("http://127.0.0.1/", {"headers": {"Transfer-Encoding": "chunked"}}),
        ("http://127.0.0.1/", {"open_timeout": -1}),
        ("http://127.0.0.1/", {"open_timeout": math.nan}),
        ("http://127.0.0.1/", {"read_timeout": -1}),
        ("http://127.0.0.1/", {"read_timeout": 0}),
        ("http://127.0.0.1/", {"retry": math.nan}),
    ],
)
def test_invalid_arguments_are_raised_at_once(
    events: Connect, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        events(url, **options)

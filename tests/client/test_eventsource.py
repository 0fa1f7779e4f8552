"""An event stream that comes back by itself."""

from __future__ import annotations

import math
import socket
import threading
from importlib.metadata import version
from itertools import islice
from queue import Queue
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.servers import TIMEOUT, ScriptedServer, Visit
from wsframe import ServerSentEvent
from wsframe.server import App, EventStream

from .conftest import Beside, Certificates, Connect, Play, Serve


def data(events: Any, count: int) -> list[str]:
    """The data of the next events."""
    return [event.data for event in islice(events, count)]


class Waits(threading.Event):
    """An event that is not waited for; what it would have been is kept.

    Attributes:
        enough: after how many it is set; where that is 0, never.
    """

    enough = 0

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Wait no time at all."""
        self.seconds.append(timeout)
        if len(self.seconds) == self.enough:
            self.set()
        return self.is_set()


@pytest.fixture
def waits(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Waits]:
    """The waits of every stream that is opened."""
    made: list[Waits] = []

    def make() -> Waits:
        made.append(Waits())
        return made[-1]

    replaced = SimpleNamespace(Event=make, Lock=threading.Lock)
    monkeypatch.setattr(codec.client.eventsource, "threading", replaced)
    return made


# One stream ----------------------------------------------------------------------------------


def test_the_server_s_events_come(events: Connect, serve: Serve, codec: ModuleType) -> None:
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
        assert one.id != three.id  # which the server has made up
        assert (ticks.last_event_id, ticks.retry) == (three.id, 5.0)
    assert list(ticks) == []


def test_the_request_says_what_is_wanted(events: Connect, play: Play) -> None:
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
            ("User-Agent", f"wsframe/{version('wsframe')}"),
        ]

    server = play(script)
    url = server.http_url("/p%20q?r=%2F")
    source = events(url, headers={"X-One": "1"}, last_event_id="grün")
    assert source.last_event_id == "grün"
    assert data(source, 1) == ["x"]


def test_the_user_and_the_password_of_the_url_are_sent(events: Connect, play: Play) -> None:
    said = []

    def script(visit: Visit) -> None:
        visit.read_head()
        said.append(visit.headers["Authorization"])
        visit.answer(204)

    server = play(script)
    list(events(f"http://Aladdin:open%20sesame@127.0.0.1:{server.port}/"))
    assert said == ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]


def test_a_stream_that_comes_byte_by_byte(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send_bytewise(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
            b": a comment\n\ndata: one\r\n\r\ndata: \xe2\x82\xac\n\n"
        )

    assert data(events(play(script).http_url()), 2) == ["one", "€"]


def test_what_a_stream_ends_within_is_no_event(events: Connect, play: Play) -> None:
    def first(visit: Visit) -> None:
        visit.stream(b"id: 1\ndata: one\n\nid: 2\ndata: tw")

    def second(visit: Visit) -> None:
        visit.stream(b"id: 2\ndata: two\n\n")
        assert visit.headers["Last-Event-ID"] == "1"

    assert data(events(play(first, second).http_url()), 2) == ["one", "two"]


def test_tls(events: Connect, play: Play, certificates: Certificates) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: secret\n\n")

    url = play(script, tls=certificates.server).http_url()
    assert data(events(url, ssl=certificates.client), 1) == ["secret"]


def test_an_event_over_the_limit_is_the_end(events: Connect, play: Play, codec: ModuleType) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: fits\n\ndata: " + b"x" * 101)
        visit.wait_for_end()

    source = events(play(script).http_url(), max_event_size=100)
    assert data(source, 1) == ["fits"]
    with pytest.raises(codec.ProtocolError, match="limit of 100 characters"):
        next(source)
    assert list(source) == []


# Coming back ---------------------------------------------------------------------------------


def test_it_comes_back_with_the_last_id(events: Connect, play: Play) -> None:
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
        stream(b"data: c\n\n"),  # which names no id: the last one is still known
        stream(b"id\ndata: d\n\n"),
        stream(b"data: e\n\n"),
    )
    source = events(server.http_url())
    assert data(source, 5) == ["a", "b", "c", "d", "e"]
    assert ids == [None, None, *["grün".encode().decode("latin-1")] * 2, None]


def test_an_id_that_no_header_can_carry_is_not_sent_back(events: Connect, play: Play) -> None:
    ids = []

    def again(visit: Visit) -> None:
        visit.read_head()
        ids.append(visit.headers["Last-Event-ID"])
        visit.stream(b"data: c\n\n")

    def first(visit: Visit) -> None:
        visit.stream(b"id: 1\ndata: a\n\nid: \x7f\ndata: b\n\n")

    source = events(play(first, again).http_url())
    assert data(source, 3) == ["a", "b", "c"]
    assert ids == ["1"]  # so that what came behind it comes again
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


def test_a_connection_that_comes_to_nothing_is_closed_before_the_next(
    events: Connect, play: Play
) -> None:
    over = threading.Event()

    def silent(visit: Visit) -> None:
        visit.read_head()
        visit.wait_for_end()
        over.set()

    server = play(lambda visit: visit.stream(b"retry: 3600000\ndata: a\n\n"), silent)
    source = events(server.http_url(), open_timeout=0.2)
    assert data(source, 1) == ["a"]
    source.retry = 0.1
    source._pause.seconds = iter([0.0, 3600.0]).__next__
    waits = threading.Thread(target=lambda: list(source))
    waits.start()
    assert over.wait(TIMEOUT)
    source.close()
    waits.join()


def test_it_comes_back_when_the_server_has_started_again(events: Connect) -> None:
    app = App()

    @app.sse("/count")
    def count(stream: EventStream) -> None:
        number = int(stream.last_event_id or 0) + 1
        stream.send(ServerSentEvent(str(number), id=str(number)))

    with app.start("127.0.0.1") as server:
        source = events(f"http://127.0.0.1:{server.port}/count")
        assert data(source, 1) == ["1"]
    with app.start("127.0.0.1", server.port):
        assert data(source, 1) == ["2"]


def test_it_comes_back_when_the_connection_is_reset(events: Connect, play: Play) -> None:
    received = threading.Event()

    def first(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        assert received.wait(TIMEOUT)
        visit.reset()

    source = events(play(first, lambda visit: visit.stream(b"data: two\n\n")).http_url())
    assert data(source, 1) == ["one"]
    received.set()
    assert data(source, 1) == ["two"]


def test_a_stream_that_is_silent_for_too_long_is_lost(events: Connect, play: Play) -> None:
    def first(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    def second(visit: Visit) -> None:
        visit.stream(b"data: two\n\n")

    source = events(play(first, second).http_url(), read_timeout=0.05)
    assert data(source, 2) == ["one", "two"]


def test_the_time_between_two_tries_is_the_server_s(
    events: Connect, play: Play, waits: list[Waits]
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


def test_after_failures_it_waits_longer_and_longer(
    events: Connect, play: Play, waits: list[Waits]
) -> None:
    server = play(lambda visit: visit.stream(b"data: x\n\n"))
    source = events(server.http_url(), retry=1)
    waits[0].enough = 9
    assert data(source, 9) == ["x"]
    doubled = (1, 2, 4, 8, 16, 32, 60, 60, 60)
    for seconds, least in zip(waits[0].seconds, doubled, strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


@pytest.mark.parametrize("body", [b"", b"retry: 0\n\n", b": comment\n\n", b"id: 1\n\n", b"data: x"])
def test_streams_that_bring_no_event_make_it_wait_longer_and_longer(
    events: Connect, play: Play, waits: list[Waits], body: bytes
) -> None:
    server = play(*[lambda visit: visit.stream(body)] * 6, lambda visit: visit.answer(204))
    assert list(events(server.http_url(), retry=0)) == []
    for seconds, least in zip(waits[0].seconds, (1, 2, 4, 8, 16, 32), strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


def test_a_quiet_stream_that_was_open_for_long_is_no_failure(
    events: Connect,
    play: Play,
    waits: list[Waits],
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 1000, 5))  # five seconds pass between two looks at it
    monkeypatch.setattr(codec.client.eventsource, "monotonic", clock.__next__)
    server = play(*[lambda visit: visit.stream()] * 3, lambda visit: visit.answer(204))
    assert list(events(server.http_url(), retry=1)) == []
    assert [int(seconds or 0) for seconds in waits[0].seconds] == [1, 1, 1]


def test_a_success_after_failures_begins_anew(
    events: Connect, play: Play, waits: list[Waits]
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


def test_a_long_time_that_the_server_asked_for_is_not_shortened_by_failures(
    events: Connect, play: Play, waits: list[Waits]
) -> None:
    server = play(lambda visit: visit.stream(b"retry: 100000\n\n"))
    source = events(server.http_url())
    waits[0].enough = 3
    assert list(source) == []
    assert all(100 <= (seconds or 0) <= 125 for seconds in waits[0].seconds)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_a_server_that_is_busy_later_is_asked_again(
    events: Connect, play: Play, waits: list[Waits], status: int
) -> None:
    server = play(
        lambda visit: visit.stream(b"id: 1\ndata: one\n\n"),
        lambda visit: visit.send(b"HTTP/1.1 %d Busy\r\nContent-Length: 2\r\n\r\nno" % status),
        lambda visit: visit.answer(503, ("Retry-After", "7200")),
        lambda visit: visit.stream(b"data: two\n\n"),
        lambda visit: visit.answer(204),
    )
    assert data(events(server.http_url(), retry=1), 9) == ["one", "two"]
    # The bounds of what Retry-After can ask for, and the end of it with the next stream.
    for seconds, least in zip(waits[0].seconds, (1, 2, 3600, 1), strict=True):
        assert least <= (seconds or 0) <= 1.25 * least


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "40"},
        {"Retry-After": "Sun, 06 Nov 2044 08:50:17 GMT", "Date": "Sun, 06 Nov 2044 08:49:37 GMT"},
    ],
)
def test_retry_after_is_honoured_in_both_of_its_forms(
    events: Connect, play: Play, waits: list[Waits], headers: dict[str, str]
) -> None:
    server = play(
        lambda visit: visit.stream(b"data: x\n\n"),
        lambda visit: visit.answer(503, *headers.items()),
        lambda visit: visit.answer(204),
    )
    assert data(events(server.http_url()), 9) == ["x"]
    assert 40 <= (waits[0].seconds[1] or 0) <= 50


def test_a_server_that_is_full_gets_its_client_back(events: Connect) -> None:
    app = App()

    @app.sse("/one")
    def one(stream: EventStream) -> None:
        stream.send(ServerSentEvent("one", id="1"))

    with app.start("127.0.0.1") as server:
        source = events(f"http://127.0.0.1:{server.port}/one")
        assert data(source, 1) == ["one"]
    with app.start("127.0.0.1", server.port, max_connections=1) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as other:
            refused = threading.Event()
            asked = source._ask

            def ask() -> Any:
                answer = asked()
                if answer.status == 503:
                    other.close()
                    refused.set()
                return answer

            source._ask = ask
            assert data(source, 1) == ["one"]
        assert refused.is_set()


# What is no stream ---------------------------------------------------------------------------


def test_204_is_the_end(events: Connect, play: Play) -> None:
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

    with pytest.raises(codec.HandshakeError, match="no event stream") as caught:
        events(play(script).http_url())
    assert caught.value.status == 502


def test_an_error_on_coming_back_is_the_end(events: Connect, play: Play, codec: ModuleType) -> None:
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


def test_a_server_that_is_not_there(events: Connect, play: Play) -> None:
    server = play()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        events(server.http_url())


def test_a_head_that_trickles_has_to_come_in_time_as_a_whole(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.trickle(b"HTTP/1.1 200 OK\r\nX: ")

    with pytest.raises(TimeoutError):
        events(play(script).http_url(), open_timeout=0.3)


# Redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(events: Connect, play: Play, status: int) -> None:
    asked = []

    def redirect(visit: Visit) -> None:
        visit.read_head()
        asked.append(visit.request_line)
        visit.answer(status, ("Location", "../there?q#part"))

    def stream(visit: Visit) -> None:
        visit.read_head()
        asked.append(visit.request_line)
        visit.stream(b"data: here\n\n")
        assert visit.headers["Authorization"] == "secret"

    server = play(redirect, stream, redirect, stream)
    source = events(server.http_url("/a/b"), headers=[("Authorization", "secret")])
    assert data(source, 2) == ["here", "here"]
    # The second time it is the first URL again that is asked for.
    assert asked == ["GET /a/b HTTP/1.1", "GET /there?q HTTP/1.1"] * 2


def test_headers_of_the_caller_do_not_go_to_another_origin(events: Connect, play: Play) -> None:
    def stream(visit: Visit) -> None:
        visit.stream(b"data: there\n\n")
        assert visit.headers["Host"] == f"127.0.0.1:{there.port}"
        for name in ("Authorization", "Cookie", "X-API-Key", "X-Harmless", "Last-Event-ID"):
            assert name not in visit.headers
        assert visit.headers["User-Agent"] == "browser"

    def redirect(visit: Visit) -> None:
        visit.answer(307, ("Location", there.http_url()))
        assert visit.headers["Authorization"] == "Basic dTpw"

    there = play(stream)
    here = play(redirect)
    source = events(
        f"http://u:p@127.0.0.1:{here.port}/",
        headers={"cookie": "a=b", "x-api-key": "k", "X-Harmless": "yes", "user-agent": "browser"},
        last_event_id="7",
    )
    assert data(source, 1) == ["there"]


def test_an_id_goes_to_the_url_and_to_the_origin_that_it_came_from(
    events: Connect, play: Play
) -> None:
    asked = []

    def note(where: str, visit: Visit) -> None:
        visit.read_head()
        asked.append((where, visit.headers["Last-Event-ID"]))

    def to(server: ScriptedServer) -> Any:
        def script(visit: Visit) -> None:
            note("here", visit)
            visit.answer(307, ("Location", server.http_url()))

        return script

    def stream(where: str, body: bytes) -> Any:
        def script(visit: Visit) -> None:
            note(where, visit)
            visit.stream(body)

        return script

    there = play(stream("there", b"id: 1\ndata: a\n\n"), stream("there", b"id: 1\ndata: b\n\n"))
    elsewhere = play(stream("elsewhere", b"data: c\n\n"))
    here = play(to(there), to(there), to(elsewhere))
    assert data(events(here.http_url(), last_event_id="0"), 3) == ["a", "b", "c"]
    assert asked == [
        *[("here", "0"), ("there", None)],
        *[("here", "1"), ("there", "1")],
        *[("here", "1"), ("elsewhere", None)],
    ]


@pytest.mark.parametrize(
    "location",
    [None, "ftp://127.0.0.1/", "//[", "//a..b/", "/\u20ac", "//u:%00@a/", "/a\r\nLocation: /b"],
)
def test_redirects_to_nowhere_are_errors(
    events: Connect, play: Play, codec: ModuleType, location: str | None
) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        field = b"" if location is None else b"Location: " + location.encode() + b"\r\n"
        visit.send(b"HTTP/1.1 302 Found\r\n" + field + b"\r\n")

    with pytest.raises(codec.HandshakeError) as caught:
        events(play(script).http_url())
    assert caught.value.status == 302


def test_no_redirect_leads_away_from_tls(
    events: Connect, play: Play, codec: ModuleType, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        visit.answer(302, ("Location", f"http://127.0.0.1:{server.port}/"))

    server = play(script, tls=certificates.server)
    with pytest.raises(codec.HandshakeError, match="from https to http"):
        events(server.http_url(), ssl=certificates.client)


def test_redirects_have_an_end(events: Connect, play: Play, codec: ModuleType) -> None:
    server = play(*[lambda visit: visit.answer(302, ("Location", "/"))] * 11)
    with pytest.raises(codec.HandshakeError, match="too many redirects"):
        events(server.http_url())


# Closing -------------------------------------------------------------------------------------


def test_closing_ends_an_iteration_that_waits_for_an_event(
    events: Connect, play: Play, beside: Beside
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    source = events(play(script).http_url())
    assert data(source, 1) == ["one"]
    rest = beside(list, source)
    source.close()
    assert rest.result(TIMEOUT) == []
    source.close()


def test_closing_ends_an_iteration_that_waits_over_tls(
    events: Connect, play: Play, beside: Beside, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    source = events(play(script, tls=certificates.server).http_url(), ssl=certificates.client)
    assert data(source, 1) == ["one"]
    rest = beside(list, source)
    source.close()
    assert rest.result(TIMEOUT) == []


def test_closing_ends_an_iteration_that_waits_to_come_back(
    events: Connect, play: Play, beside: Beside
) -> None:
    server = play(lambda visit: visit.stream(b"data: one\n\n"))
    source = events(server.http_url(), retry=3600)
    assert data(source, 1) == ["one"]
    rest = beside(list, source)
    server.stop()
    source.close()
    assert rest.result(TIMEOUT) == []


def test_closing_ends_an_iteration_that_connects(
    events: Connect, play: Play, beside: Beside
) -> None:
    connected = threading.Event()

    def silent(visit: Visit) -> None:
        visit.read_head()
        connected.set()
        visit.wait_for_end()

    source = events(play(lambda visit: visit.stream(), silent).http_url())
    rest = beside(list, source)
    assert connected.wait(TIMEOUT)
    source.close()
    assert rest.result(TIMEOUT) == []


def test_closing_between_two_sockets_is_not_missed(
    events: Connect, play: Play, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = events(play(lambda visit: visit.stream()).http_url())
    dial = codec.client.http.dial

    def close_first(*arguments: Any) -> Any:
        source.close()
        return dial(*arguments)

    monkeypatch.setattr(codec.client.http, "dial", close_first)
    assert list(source) == []


def test_events_that_have_come_are_not_given_out_after_closing(events: Connect, play: Play) -> None:
    source = events(play(lambda visit: visit.stream(b"data: 1\n\ndata: 2\n\n")).http_url())
    assert data(source, 1) == ["1"]
    source.close()
    assert list(source) == []


def test_one_thread_iterates_at_a_time(events: Connect, play: Play, beside: Beside) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    source = events(play(script).http_url())
    reading = threading.Event()
    read = source._read

    def tell(answer: Any) -> None:
        reading.set()
        read(answer)

    source._read = tell
    assert data(source, 1) == ["one"]
    reading.clear()
    rest = beside(list, source)
    assert reading.wait(TIMEOUT)
    with pytest.raises(RuntimeError, match="another thread"):
        next(source)
    source.close()
    assert rest.result(TIMEOUT) == []


def test_an_iteration_that_was_interrupted_goes_on_where_it_was(
    events: Connect, play: Play, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(visit: Visit) -> None:
        visit.stream(b"id: 1\ndata: one\n\n")
        visit.wait_for_end()

    def second(visit: Visit) -> None:
        visit.stream(b"data: two\n\n")
        assert visit.headers["Last-Event-ID"] == "1"

    def interrupt(answer: object) -> bytes:
        raise KeyboardInterrupt

    source = events(play(first, second).http_url())
    assert data(source, 1) == ["one"]
    with monkeypatch.context() as patched:
        patched.setattr(codec.client.http.Response, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(source)
    assert data(source, 1) == ["two"]


# What the caller may do wrong ----------------------------------------------------------------


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
def test_what_is_wrong_with_the_arguments_is_raised_at_once(
    events: Connect, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        events(url, **options)

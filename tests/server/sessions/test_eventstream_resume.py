"""Clients that resume an event stream, the time until they reconnect, and the final end."""

from __future__ import annotations

import re
import threading
from ast import literal_eval
from collections.abc import Callable, Iterator

import pytest

from tests.server.sessions.eventstream_http import (
    FRIEND,
    FRIENDS,
    STRANGER,
    allowed,
    ask,
    shared_app,
)
from tests.support.clients import Clients, StreamClient, get
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import HandshakeError, ServerSentEvent
from wsframe.client import events
from wsframe.server import App, EventStream, Request

BALLOON = "é🎈".encode().decode("latin-1")  # as UTF-8 looks in a header


LONG_ID = "7" * 1024


def told(serve: Serve, clients: Clients, target: str, *headers: tuple[str, str]) -> str:
    """Return the last event id that the handler receives."""
    app = App()

    @app.sse("/job")
    def tell(stream: EventStream) -> None:
        stream.send(ServerSentEvent(repr(stream.last_event_id), id=stream.last_event_id))

    return str(literal_eval(clients.stream(serve(app), target, *headers).next_event().data))


@pytest.mark.parametrize(
    ("target", "header", "expected"),
    [
        ("/job", None, ""),
        ("/job", "41", "41"),
        ("/job", "a b", "a b"),
        ("/job", BALLOON, "é🎈"),
        ("/job", "a\xff\xc3", "a\ufffd\ufffd"),
        ("/job", "\xe9", "\ufffd"),
        ("/job", LONG_ID, LONG_ID),
        ("/job?lastEventId=41", None, "41"),
        ("/job?LASTEVENTID=41", None, "41"),
        ("/job?last-event-id=41", None, "41"),
        ("/job?Last-Event-ID=41", None, "41"),
        ("/job?last_event_id=41&last_event_id=42", None, "41"),
        ("/job?a=1&lastEventId=a+b%26c", None, "a b&c"),
        ("/job?lastEventId=%C3%A9%F0%9F%8E%88", None, "é🎈"),
        ("/job?lastEventId=a%FF%ED%A0%80", None, "a" + 4 * "\ufffd"),
        ("/job?lastEventId=a%00b%0Ac%0D%0Adata:+x", None, "a\ufffdb\ufffdc\ufffd\ufffddata: x"),
        (f"/job?lastEventId={LONG_ID}", None, LONG_ID),
        ("/job?lastEventId=", None, ""),
        ("/job?lastEventId=&last-event-id=41", None, "41"),
        ("/job?id=41&eventId=42&last=43", None, ""),
        ("/job?lastEventId=41", "42", "42"),
        ("/job?lastEventId=41", "", "41"),
    ],
)
def test_the_last_event_id_is_in_a_header_or_the_query(
    serve: Serve, clients: Clients, target: str, header: str | None, expected: str
) -> None:
    headers = () if header is None else (("Last-Event-ID", header),)
    assert told(serve, clients, target, *headers) == expected


@pytest.mark.parametrize(
    ("target", "header", "status"),
    [
        ("/topic", "7" * 16_384, 431),
        ("/topic", "a\0b", 400),
        ("/topic?lastEventId=" + "7" * 8192, "", 414),
    ],
)
def test_an_id_that_a_header_cannot_contain_is_refused(
    serve: Serve, clients: Clients, target: str, header: str, status: int
) -> None:
    request = get(target, ("Last-Event-ID", header))
    assert ask(clients, serve(shared_app(())), request).status == status


def test_a_topic_resumes_after_the_id_in_the_query(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic)
    server = serve(app)
    for number in range(3):
        topic.publish(str(number), id=f"n{number}")
    assert clients.stream(server, "/news?lastEventId=n0").expect(2) == ["1", "2"]


def waits(client: StreamClient) -> float:
    """Return the retry time at the beginning of the stream, in seconds."""
    said = re.fullmatch(rb"retry: ([1-9][0-9]*)\n\n", client.read_until(b"\n\n"))
    assert said is not None
    return int(said[1]) / 1000


def test_each_client_gets_another_retry_time(serve: Serve, clients: Clients) -> None:
    server = serve(shared_app(()), retry=40.0)
    streams = [clients.stream(server, target) for target in 20 * ("/topic", "/handler")]
    times = list(map(waits, streams))
    assert len(set(times)) > 20
    assert 20 <= min(times) < 35
    assert 45 < max(times) <= 60
    for stream in streams[1::2]:
        assert stream.expect(1) == ["hello"]
    assert server.stats().messages_out == 20


def test_the_default_retry_time_is_about_two_seconds(serve: Serve, clients: Clients) -> None:
    assert 1 <= waits(clients.stream(serve(shared_app(())), "/topic")) <= 3


def test_the_retry_time_can_be_disabled(serve: Serve, clients: Clients) -> None:
    stream = clients.stream(serve(shared_app(()), retry=0), "/handler")
    assert stream.read_until(b"\n\n") == b"data: hello\n\n"


def test_the_answer_to_head_has_no_body(serve: Serve, clients: Clients) -> None:
    assert ask(clients, serve(shared_app(())), get("/topic", method="HEAD")).body == b""


@pytest.mark.parametrize("retry", [float("inf"), float("nan"), -1.0])
def test_an_invalid_retry_time_is_refused(retry: float) -> None:
    with pytest.raises(ValueError, match="retry must"):
        App().start(retry=retry)


END = b"event: end\nid: :end\n\n"


COMES_BACK = ("Last-Event-ID", ":end")


def rest_of(stream: StreamClient) -> bytes:
    """Return all bytes of the stream after the retry time."""
    waits(stream)
    return stream.read_to_end()


def generator_returns(stream: EventStream) -> Iterator[str]:
    yield "last"


def generator_returns_at_once(stream: EventStream) -> Iterator[str]:
    stream.send("last")
    yield from ()


def function_closes_for_good(stream: EventStream) -> None:
    stream.send("last")
    stream.close(final=True)
    stream.close()


def generator_closes_for_good(stream: EventStream) -> Iterator[str]:
    yield "last"
    stream.close(final=True)
    raise RuntimeError("the handler's own affair")


@pytest.mark.parametrize(
    "handler",
    [generator_returns, generator_returns_at_once, function_closes_for_good],
)
def test_a_final_end_sends_the_id_that_stops_the_client(
    serve: Serve, clients: Clients, handler: Callable[[EventStream], object]
) -> None:
    app = App()
    app.sse("/job")(handler)
    server = serve(app)
    assert rest_of(clients.stream(server, "/job")) == b"data: last\n\n" + END
    answer = ask(clients, server, get("/job", COMES_BACK))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Length"] is None


def test_the_first_close_counts(serve: Serve, clients: Clients, log: ServerLog) -> None:
    app = App()
    app.sse("/job")(generator_closes_for_good)
    assert rest_of(clients.stream(serve(app), "/job")) == b"data: last\n\n" + END
    log.expect("the handler of /job failed")


def generator_fails(stream: EventStream) -> Iterator[str]:
    yield "last"
    raise ZeroDivisionError


def generator_closes(stream: EventStream) -> Iterator[str]:
    yield "last"
    stream.close()


def generator_sends_after_close(stream: EventStream) -> Iterator[str]:
    yield "last"
    stream.close()
    yield "lost"


def function_closes(stream: EventStream) -> None:
    stream.send("last")
    stream.close()
    stream.close(final=True)


@pytest.mark.parametrize(
    "handler", [generator_fails, generator_closes, generator_sends_after_close, function_closes]
)
def test_clients_reconnect_after_any_other_end(
    serve: Serve, clients: Clients, log: ServerLog, handler: Callable[[EventStream], object]
) -> None:
    app = App()
    app.sse("/job")(handler)
    assert rest_of(clients.stream(serve(app), "/job")) == b"data: last\n\n"
    if handler is generator_fails:
        log.expect("the handler of /job failed")


@pytest.mark.slow
def test_clients_reconnect_after_a_stop(serve: Serve, clients: Clients) -> None:
    begun = threading.Event()
    app = App()

    @app.sse("/job")
    def job(stream: EventStream) -> Iterator[str]:
        yield "first"
        begun.set()
        wait_until(lambda: stream.closed, "the stream is over")

    server = serve(app, drain=0.5)
    stream = clients.stream(server, "/job")
    assert begun.wait(TIMEOUT)
    server.stop()
    assert rest_of(stream) == b"data: first\n\n"


def test_a_topic_that_is_closed_ends_its_streams_for_good(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news")
    app.sse("/news", source=topic)
    server = serve(app)
    stream = clients.stream(server, "/news")
    stream.read_opening()
    before = stream.last_event_id
    topic.publish("last", id="9")
    topic.close()
    assert stream.read_to_end() == b"id: 9\ndata: last\n\n" + END
    # A client that has not received the end may receive the events before it.
    late = clients.stream(server, f"/news?lastEventId={before}")
    late.read_until(b"data: last\n\n")
    assert late.read_to_end() == END


@pytest.mark.parametrize("target", ["/topic", "/handler"])
@pytest.mark.parametrize(
    "request_",
    [
        get("{}", COMES_BACK, FRIEND),
        get("{}?lastEventId=:end", FRIEND),
        get("{}?last-event-id=%3Aend", FRIEND),
        get("{}", COMES_BACK, FRIEND, method="HEAD"),
    ],
)
def test_a_client_with_the_final_id_gets_204_from_any_server(
    serve: Serve, clients: Clients, target: str, request_: bytes
) -> None:
    server = serve(shared_app(FRIENDS))
    answer = ask(clients, server, request_.replace(b"{}", target.encode()))
    assert answer.status == 204
    assert allowed(answer)["Allow-Origin"] == FRIEND[1]
    assert server.stats().refused == {}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/nowhere", COMES_BACK), 404),
        (get("/job", COMES_BACK, method="POST"), 405),
        (get("/job", COMES_BACK, STRANGER), 403),
        (get("/job", COMES_BACK), 401),
    ],
)
def test_the_final_id_does_not_bypass_authorization(
    serve: Serve, clients: Clients, request_: bytes, status: int
) -> None:
    def authorize(request: Request) -> bool:
        raise HandshakeError(401, "log in first")

    app = App()
    app.sse("/job", authorize=authorize)(generator_returns)
    assert ask(clients, serve(app), request_).status == status


def test_the_client_of_this_package_stops_after_a_final_end(serve: Serve) -> None:
    asked = []

    def authorize(request: Request) -> bool:
        asked.append(request.headers.get("Last-Event-ID"))
        return True

    app = App()
    app.sse("/job", authorize=authorize)(generator_returns)
    server = serve(app, retry=0.01)
    with events(f"{server.url}/job") as stream:
        assert [event.data for event in stream] == ["last"]
    assert asked == [None, ":end"]

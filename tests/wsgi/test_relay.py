"""Event streams on servers without a socket: the thread of the request copies them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.log import ServerLog
from tests.support.waiting import wait_until
from wsframe.wsgi import EventStream, Live

from .arrived import Arrived, without_socket
from .conftest import MakeLive

WARNING = 30


def count(stream: EventStream, to: int = 3) -> Iterator[int]:
    yield from range(to)


@pytest.fixture
def arrived() -> Iterator[Arrived]:
    with without_socket() as arrived:
        yield arrived


def test_the_events_are_the_body(live: Live, arrived: Arrived, log: ServerLog) -> None:
    body = arrived.serve(live.events(count))
    assert arrived.status == 200
    assert arrived.header("Content-Type") == "text/event-stream; charset=utf-8"
    assert arrived.header("Connection") is None
    assert body.startswith(b"retry: ")
    assert body.endswith(b"data: 0\n\ndata: 1\n\ndata: 2\n\nevent: end\nid: :end\n\n")
    text = "each event stream holds a thread of the WSGI server, because granian has no socket"
    log.expect(text, WARNING)


def test_the_warning_about_held_threads_is_logged_once(live: Live, log: ServerLog) -> None:
    for _ in range(3):
        with without_socket() as arrived:
            arrived.serve(live.events(count))
    assert len(log.records) == 1


def test_a_stream_ends_when_the_server_closes_the_response(live: Live, arrived: Arrived) -> None:
    news = live.topic("news")
    reply = arrived.call(live.events(news))
    news.publish("one")
    data = b""
    while b"data: one\n\n" not in data:
        data += next(reply)
    reply.close()
    reply.close()
    assert list(reply) == []
    wait_until(lambda: not live.stats().event_streams, "the stream has ended")


def test_a_stream_ends_when_the_live_stops(live: Live, arrived: Arrived) -> None:
    reply = arrived.call(live.events(live.topic("news")))
    stopping = threading.Thread(target=live.stop)
    stopping.start()
    assert b"".join(reply).startswith(b"retry: ")
    reply.close()
    stopping.join()


def test_a_stream_without_a_free_thread_is_answered_with_503(
    make_live: MakeLive, log: ServerLog
) -> None:
    live = make_live(max_handler_threads=1, max_thread_share=1.0)
    released = threading.Event()

    def wait(stream: EventStream) -> Iterator[int]:
        yield 0
        released.wait(10)

    with without_socket() as first, without_socket() as second:
        reply = first.call(live.events(wait))
        assert second.serve(live.events(wait)) == b"server is out of threads, try again later\n"
        assert second.status == 503
        released.set()
        assert b"".join(reply).endswith(b"event: end\nid: :end\n\n")
    log.expect("<locals>.wait: a request is refused with 503, because", WARNING)


def test_a_framework_may_start_the_response_itself(live: Live, arrived: Arrived) -> None:
    reply = live.events(count).open(arrived.environ)
    assert (reply.status, dict(reply.headers)["X-Accel-Buffering"]) == (200, "no")
    assert b"".join(reply).endswith(b"data: 2\n\nevent: end\nid: :end\n\n")
    reply.close()


def test_a_framework_that_has_started_the_response_gets_no_body_of_another_status(
    live: Live, arrived: Arrived
) -> None:
    reply = live.events(count).open(arrived.environ)
    live.stop()
    assert b"".join(reply) == b""
    assert reply.status == 503


def test_headers_of_a_framework_are_added(live: Live, arrived: Arrived) -> None:
    reply = live.events(count).open(arrived.environ)
    reply.add_headers([("Set-Cookie", "a=1"), ("Cache-Control", "max-age=10")])
    reply.start(arrived.start_response)
    assert arrived.header("Set-Cookie") == "a=1"
    assert arrived.header("Cache-Control") == "no-store, no-transform"
    reply.close()


def test_a_process_without_descriptors_answers_503(
    live: Live, arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = live.events(count).open(arrived.environ)

    def fail() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", fail)
    reply.start(arrived.start_response)
    monkeypatch.undo()
    assert b"".join(reply) == b""
    assert arrived.status == 503
    assert arrived.header("Retry-After") == "5"

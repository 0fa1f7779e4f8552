"""Closing an event source."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, InThread, Play
from tests.client.eventsource.helpers import data
from tests.support.certificates import Certificates
from tests.support.scripted import Visit
from tests.support.waiting import TIMEOUT

pytestmark = pytest.mark.one_kernel


def test_closing_ends_an_iteration_that_waits_for_an_event(
    events: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    source = events(play(script).http_url())
    assert data(source, 1) == ["one"]
    rest = in_thread(list, source)
    source.close()
    assert rest.result(TIMEOUT) == []
    source.close()


def test_closing_ends_an_iteration_that_waits_over_tls(
    events: Connect, play: Play, in_thread: InThread, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    source = events(play(script, tls=certificates.server).http_url(), ssl=certificates.client)
    assert data(source, 1) == ["one"]
    rest = in_thread(list, source)
    source.close()
    assert rest.result(TIMEOUT) == []


def test_closing_ends_an_iteration_that_waits_to_reconnect(
    events: Connect, play: Play, in_thread: InThread
) -> None:
    server = play(lambda visit: visit.stream(b"data: one\n\n"))
    source = events(server.http_url(), retry=3600)
    assert data(source, 1) == ["one"]
    rest = in_thread(list, source)
    server.stop()
    source.close()
    assert rest.result(TIMEOUT) == []


def test_closing_ends_an_iteration_that_connects(
    events: Connect, play: Play, in_thread: InThread
) -> None:
    connected = threading.Event()

    def silent(visit: Visit) -> None:
        visit.read_head()
        connected.set()
        visit.wait_for_end()

    source = events(play(lambda visit: visit.stream(), silent).http_url())
    rest = in_thread(list, source)
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


def test_no_event_is_returned_after_closing(events: Connect, play: Play) -> None:
    source = events(play(lambda visit: visit.stream(b"data: 1\n\ndata: 2\n\n")).http_url())
    assert data(source, 1) == ["1"]
    source.close()
    assert list(source) == []


def test_one_thread_iterates_at_a_time(
    events: Connect,
    play: Play,
    in_thread: InThread,
    codec: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    source = events(play(script).http_url())
    reading = threading.Event()
    read = codec.client.http.Response.read

    def announce_and_read(answer: Any) -> Any:
        reading.set()
        return read(answer)

    monkeypatch.setattr(codec.client.http.Response, "read", announce_and_read)
    assert data(source, 1) == ["one"]
    reading.clear()
    rest = in_thread(list, source)
    assert reading.wait(TIMEOUT)
    with pytest.raises(RuntimeError, match="another thread"):
        next(source)
    source.close()
    assert rest.result(TIMEOUT) == []


def test_an_interrupted_iteration_can_be_continued(
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


def test_an_interrupted_request_is_not_repeated_unless_that_is_allowed(
    events: Connect, play: Play, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")

    def interrupt(answer: object) -> bytes:
        raise KeyboardInterrupt

    source = events(play(script).http_url(), method="POST")
    assert data(source, 1) == ["one"]
    with monkeypatch.context() as patched:
        patched.setattr(codec.client.http.Response, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(source)
    assert list(source) == []

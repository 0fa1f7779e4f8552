"""The calls that report the connections of an event source."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, Play
from tests.client.eventsource.helpers import data
from tests.support.scripted import Visit


def test_every_opened_stream_is_reported(events: Connect, play: Play) -> None:
    opened: list[str] = []
    server = play(
        lambda visit: visit.stream(b"data: one\n\n"),
        lambda visit: visit.answer(503),
        lambda visit: visit.stream(b"data: two\n\n"),
    )
    source = events(server.http_url(), on_open=lambda: opened.append("opened"))
    assert opened == ["opened"]
    assert data(source, 2) == ["one", "two"]
    assert opened == ["opened"] * 2


def test_the_reason_and_the_delay_of_every_attempt_are_reported(
    events: Connect, play: Play, codec: ModuleType
) -> None:
    def lose(visit: Visit) -> None:
        visit.read_head()
        visit.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b"b\r\ndata: two\n\n\r\n5\r\n"
        )

    reports: list[Any] = []
    server = play(
        lambda visit: visit.stream(b"data: one\n\n"),
        lambda visit: visit.answer(503, body=b"full"),
        lambda visit: visit.read_head(),
        lose,
        lambda visit: visit.stream(b"data: three\n\n"),
    )
    source = events(server.http_url(), on_reconnect=reports.append)
    assert data(source, 3) == ["one", "two", "three"]
    ended, full, gone, lost = reports
    assert [report.failures for report in reports] == [0, 1, 2, 0]
    assert ended.error is None
    assert isinstance(full.error, codec.HandshakeError)
    assert (full.error.status, full.error.body) == (503, b"full")
    assert isinstance(gone.error, OSError)
    assert isinstance(lost.error, OSError)
    assert "truncated" in str(lost.error)
    assert all(0 < report.delay < 1 for report in reports)


def test_an_error_of_the_caller_is_raised_by_the_iteration(events: Connect, play: Play) -> None:
    def stop(_: object) -> None:
        raise LookupError("enough")

    server = play(lambda visit: visit.stream(b"data: one\n\n"))
    source = events(server.http_url(), on_reconnect=stop)
    assert next(source).data == "one"
    with pytest.raises(LookupError):
        next(source)

"""Headers of handlers, of frameworks and of the settings, in the answers to requests."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from wsframe.wsgi import EventStream, Live, WebSocket

from .arrived import UPGRADE, Arrived, without_socket
from .conftest import MakeLive

HANDLER = [("X-A", "handler"), ("X-B", "handler"), ("Set-Cookie", "a=handler")]
SETTINGS = {"X-A": "settings", "X-B": "settings", "X-C": "settings", "Cache-Control": "no-cache"}
NOT_STORED = "no-store, no-transform"


def echo(ws: WebSocket) -> Generator[None, str, None]:
    while True:
        ws.send((yield))


def count(stream: EventStream) -> Iterator[int]:
    yield from range(3)


@pytest.fixture
def live(make_live: MakeLive) -> Live:
    live = make_live(headers=SETTINGS)
    for handler in (echo, count):
        live.handler(headers=HANDLER)(handler)
    return live


def taken_over(live: Live, application: Any, **changes: Any) -> list[str]:
    """Return the lines of the head that the client of a taken connection receives."""
    with Arrived(**changes) as arrived:
        reply = application.open(arrived.environ)
        reply.add_headers([("X-A", "view"), ("Set-Cookie", "a=view")])
        assert b"".join(reply) == b""
        return arrived.receive_until().decode().split("\r\n")


@pytest.mark.parametrize("kind", ["websocket", "stream", "topic"])
def test_the_view_precedes_the_handler_which_precedes_the_settings(live: Live, kind: str) -> None:
    if kind == "websocket":
        lines = taken_over(live, live.websocket(echo), **UPGRADE)
    else:
        lines = taken_over(live, live.events(count if kind == "stream" else live.topic("news")))
    handler = "settings" if kind == "topic" else "handler"
    cookies = ["Set-Cookie: a=view", "Set-Cookie: a=handler"][: 1 if kind == "topic" else 2]
    expected = ["X-A: view", f"X-B: {handler}", "X-C: settings", *cookies]
    assert sorted(line for line in lines if line.startswith(("X-A:", "X-B:", "X-C:", "Set"))) == (
        sorted(expected)
    )
    caching = [line for line in lines if line.startswith("Cache-Control")]
    assert caching == [f"Cache-Control: {'no-cache' if kind == 'websocket' else NOT_STORED}"]


def test_a_relayed_stream_has_these_headers(live: Live) -> None:
    with without_socket() as arrived:
        arrived.serve(live.events(count))
        found = {name: arrived.header(name) for name in ("X-A", "X-B", "X-C", "Cache-Control")}
    expected = {"X-A": "handler", "X-B": "handler", "X-C": "settings"}
    assert found == {**expected, "Cache-Control": NOT_STORED}


def test_the_answer_to_head_has_these_headers(live: Live) -> None:
    with Arrived(REQUEST_METHOD="HEAD") as arrived:
        arrived.serve(live.events(count))
        found = [arrived.header(name) for name in ("X-A", "X-C", "Cache-Control")]
    assert found == ["handler", "settings", NOT_STORED]


def test_refusals_and_metrics_have_the_headers_of_the_settings(live: Live) -> None:
    for application in (live.websocket(echo), live.metrics):
        with Arrived() as arrived:
            arrived.serve(application)
            assert arrived.status == (200 if application == live.metrics else 426)
            found = [arrived.header(name) for name in ("X-A", "X-B", "Cache-Control")]
            assert found == ["settings", "settings", "no-cache"]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("Connection", "close", "header Connection is set by the server"),
        ("sec-websocket-accept", "x", "header sec-websocket-accept is set by the server"),
        ("Cache-Control", "no-cache", "header Cache-Control is set by the server"),
        ("X-A", "a\nb", "must not contain control characters"),
    ],
)
def test_headers_are_checked_before_there_is_a_request(
    live: Live, name: str, value: str, error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        live.handler(headers={name: value})
    if name != "Cache-Control":
        with pytest.raises(ValueError, match=error):
            live.configure(headers={name: value})

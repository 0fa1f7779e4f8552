"""Event streams that are requested by other methods than GET."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, Play
from tests.client.eventsource.helpers import data
from tests.support.scripted import Script, Visit

BODY = b'{"prompt": "hello"}'
JSON = [("Content-Type", "application/json")]


def read_body(visit: Visit) -> None:
    """Read a request with a body, and compare it."""
    visit.read_head()
    length = int(visit.headers.get("Content-Length", "0"))
    while len(visit.unread) < length:
        visit.unread += visit.sock.recv(1 << 16)
    assert visit.unread == BODY


def posted(*events: str) -> Script:
    """Answer a POST request with a stream of these events."""

    def script(visit: Visit) -> None:
        read_body(visit)
        assert visit.request_line == "POST /answers HTTP/1.1"
        assert visit.headers["Content-Type"] == "application/json"
        visit.stream("".join(f"id: {event}\ndata: {event}\n\n" for event in events).encode())

    return script


def redirect(status: int, target: str) -> Script:
    def script(visit: Visit) -> None:
        read_body(visit)
        visit.answer(status, ("Location", target), ("Content-Length", "0"))

    return script


def test_a_post_request_has_the_body_and_is_not_repeated(events: Connect, play: Play) -> None:
    server = play(posted("one", "two"))
    source = events(server.http_url("/answers"), method="POST", body=BODY, headers=JSON)
    assert [event.data for event in source] == ["one", "two"]


def test_a_request_without_a_body_has_a_length(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        assert visit.request_line == "DELETE / HTTP/1.1"
        assert visit.headers["Content-Length"] == "0"

    source = events(play(script).http_url(), method="DELETE")
    assert [event.data for event in source] == ["one"]


def test_a_post_request_is_repeated_after_the_last_event_if_asked_for(
    events: Connect, play: Play
) -> None:
    def again(visit: Visit) -> None:
        posted("two")(visit)
        assert visit.headers["Last-Event-ID"] == "one"

    server = play(posted("one"), again)
    source = events(
        server.http_url("/answers"), method="POST", body=BODY, headers=JSON, reconnect=True
    )
    assert data(source, 2) == ["one", "two"]


@pytest.mark.parametrize("options", [{"method": "POST"}, {"reconnect": False}])
def test_a_lost_stream_that_is_not_repeated_is_an_error(
    events: Connect, play: Play, options: dict[str, Any]
) -> None:
    def script(visit: Visit) -> None:
        visit.answer(
            200,
            ("Content-Type", "text/event-stream"),
            ("Transfer-Encoding", "chunked"),
            body=b"b\r\ndata: one\n\n\r\n5\r\n",
        )

    source = events(play(script).http_url(), **options)
    assert next(source).data == "one"
    with pytest.raises(OSError, match="truncated"):
        next(source)
    assert list(source) == []


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_within_the_origin_keeps_method_and_body(
    events: Connect, play: Play, status: int
) -> None:
    server = play(redirect(status, "/answers"), posted("one"))
    source = events(server.http_url("/old"), method="POST", body=BODY, headers=JSON)
    assert [event.data for event in source] == ["one"]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_other_redirects_become_get_requests(events: Connect, play: Play, status: int) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        assert visit.request_line == "GET /new HTTP/1.1"
        assert visit.headers["Content-Type"] is None
        assert visit.headers["Content-Length"] is None

    server = play(redirect(status, "/new"), script)
    source = events(server.http_url("/old"), method="POST", body=BODY, headers=JSON)
    assert [event.data for event in source] == ["one"]


def test_a_body_is_not_sent_to_another_origin(
    events: Connect, play: Play, codec: ModuleType
) -> None:
    server = play(redirect(307, "http://other.example/"))
    with pytest.raises(codec.HandshakeError, match="a redirect of a POST request to another"):
        events(server.http_url("/old"), method="POST", body=BODY, headers=JSON)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "PO ST"}, "method of an event stream's request is not valid: 'PO ST'"),
        ({"method": "HEAD"}, "not valid: 'HEAD'"),
        ({"body": b"x"}, "a GET request must not have a body"),
        ({"method": "POST", "headers": {"Content-Length": "3"}}, "reserved"),
    ],
)
def test_invalid_requests_are_refused(
    codec: ModuleType, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        codec.client.events("http://localhost/", **options)


def test_a_text_as_body_is_refused(codec: ModuleType) -> None:
    with pytest.raises(TypeError, match="body must be bytes, not str"):
        codec.client.events("http://localhost/", method="POST", body="x")

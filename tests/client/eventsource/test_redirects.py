"""Redirects of an event source."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, Play
from tests.client.eventsource.helpers import data
from tests.support.certificates import Certificates
from tests.support.scripted import ScriptedServer, Visit

pytestmark = pytest.mark.one_kernel


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
    # The second request is sent to the first URL again.
    assert asked == ["GET /a/b HTTP/1.1", "GET /there?q HTTP/1.1"] * 2


def test_the_callers_headers_are_not_sent_to_another_origin(events: Connect, play: Play) -> None:
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


def test_an_id_is_sent_to_the_url_and_to_the_origin_that_sent_it(
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
def test_invalid_redirects_are_errors(
    events: Connect, play: Play, codec: ModuleType, location: str | None
) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        field = b"" if location is None else b"Location: " + location.encode() + b"\r\n"
        visit.send(b"HTTP/1.1 302 Found\r\n" + field + b"\r\n")

    with pytest.raises(codec.HandshakeError) as caught:
        events(play(script).http_url())
    assert caught.value.status == 302


def test_a_redirect_from_https_to_http_is_an_error(
    events: Connect, play: Play, codec: ModuleType, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        visit.answer(302, ("Location", f"http://127.0.0.1:{server.port}/"))

    server = play(script, tls=certificates.server)
    with pytest.raises(codec.HandshakeError, match="from https to http"):
        events(server.http_url(), ssl=certificates.client)


def test_too_many_redirects_are_an_error(events: Connect, play: Play, codec: ModuleType) -> None:
    server = play(*[lambda visit: visit.answer(302, ("Location", "/"))] * 11)
    with pytest.raises(codec.HandshakeError, match="too many redirects"):
        events(server.http_url())

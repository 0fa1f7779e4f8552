"""The body of a response that refuses a request, in HandshakeError."""

from __future__ import annotations

import gzip
import math
import time
from types import ModuleType
from typing import Any

import pytest

from tests.client.conftest import Connect, Play
from tests.support.scripted import Script, Visit

LIMIT = 1 << 14
LONG = b"x" * (LIMIT + 1)

Fails = Any


@pytest.fixture(params=["connect", "events"])
def refused(
    request: pytest.FixtureRequest,
    connect: Connect,
    events: Connect,
    play: Play,
    codec: ModuleType,
) -> Fails:
    """Open a connection to a server that refuses it, and return the error."""

    def fail(script: Script, **options: Any) -> Any:
        server = play(script)
        call, url = (
            (connect, server.url) if request.param == "connect" else (events, server.http_url)
        )
        with pytest.raises(codec.HandshakeError) as caught:
            call(url(), **options)
        return caught.value

    return fail


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answering(head: str, body: bytes) -> Script:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(f"HTTP/1.1 403 Forbidden\r\n{head}\r\n".encode() + body)

    return script


def holding(head: str, body: bytes) -> Script:
    """Answer, and keep the connection until the client has left."""

    def script(visit: Visit) -> None:
        answering(head, body)(visit)
        visit.wait_for_end()

    return script


@pytest.mark.parametrize(
    ("head", "sent", "body"),
    [
        ("Content-Length: 6\r\n", b"log in", b"log in"),
        ("Content-Length: 0\r\n", b"", b""),
        ("Content-Length: 6\r\n", b"log in and more", b"log in"),
        ("Transfer-Encoding: chunked\r\n", chunk(b"log ") + chunk(b"in") + b"0\r\n\r\n", b"log in"),
        (f"Content-Length: {len(LONG)}\r\n", LONG, LONG[:LIMIT]),
        ("Transfer-Encoding: chunked\r\n", chunk(LONG), LONG[:LIMIT]),
    ],
)
def test_a_body_with_a_length_is_read_up_to_its_end_or_16_kib(
    refused: Fails, head: str, sent: bytes, body: bytes
) -> None:
    error = refused(holding(head, sent))
    assert (error.status, error.body) == (403, body)
    assert error.reason == "the server answered 403"
    assert error.answered


def test_a_body_without_a_length_ends_with_the_connection(refused: Fails) -> None:
    assert refused(answering("", b"log in")).body == b"log in"


@pytest.mark.parametrize("head", ["Content-Length: 9\r\n", "Transfer-Encoding: chunked\r\n"])
def test_the_bytes_before_a_lost_connection_are_kept(refused: Fails, head: str) -> None:
    body = b"9\r\nlog" if "chunked" in head else b"log"
    assert refused(answering(head, body)).body in (b"log", b"")


def test_an_incomplete_body_is_awaited_no_longer_than_the_response(refused: Fails) -> None:
    error = refused(holding("Content-Length: 9\r\n", b"log"), open_timeout=0.2)
    assert (error.status, error.body) == (403, b"log")


def test_an_incomplete_body_is_awaited_for_two_seconds_without_a_deadline(
    refused: Fails, codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec.client.refusal, "monotonic", lambda: time.monotonic() - 1.9)
    error = refused(holding("Content-Length: 9\r\n", b"log"), open_timeout=math.inf)
    assert (error.status, error.body) == (403, b"log")


def test_a_compressed_body_is_decoded(refused: Fails) -> None:
    data = gzip.compress(b"log in")
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(data)}\r\n"
    assert refused(holding(head, data)).body == b"log in"


@pytest.mark.parametrize(
    ("coding", "body"), [("gzip", b"not gzip"), ("br", b"unknown"), ("gzip", b"")]
)
def test_a_body_that_cannot_be_decoded_does_not_hide_the_status(
    refused: Fails, coding: str, body: bytes
) -> None:
    head = f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n"
    assert refused(holding(head, body)).status == 403


def test_endless_framing_ends_at_the_limit(connect: Connect, play: Play, codec: ModuleType) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.trickle(
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 9_000
        )

    with pytest.raises(codec.HandshakeError) as caught:
        connect(play(script).url())
    assert (caught.value.status, caught.value.body) == (403, b"")


def test_a_page_instead_of_an_event_stream_is_quoted(
    events: Connect, play: Play, codec: ModuleType
) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"<h1>Log in</h1>", "text/html")

    with pytest.raises(codec.HandshakeError, match="not an event stream") as caught:
        events(play(script).http_url())
    assert (caught.value.status, caught.value.body) == (502, b"<h1>Log in</h1>")
    assert not caught.value.answered

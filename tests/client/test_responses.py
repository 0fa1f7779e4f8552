"""Responses of event streams: the framing (RFC 9112 section 6) and the content coding."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from types import ModuleType
from typing import Any

import pytest

from tests.support.scripted import Script, Visit

from .conftest import Connect, Play

pytestmark = pytest.mark.one_kernel

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = b"data: one\n\ndata: two\n\n"
LONGER = 1 << 16  # than the limit of everything that is buffered


def chunked(*chunks: bytes, extension: bytes = b"") -> bytes:
    """Encode a body in chunks; an empty chunk ends it."""
    return b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)


def respond(head: bytes, body: bytes = b"") -> Script:
    """Respond with this head and this body, then disconnect."""

    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(head + b"\r\n" + body)

    return script


def gone(visit: Visit) -> None:
    """End the stream for good."""
    visit.answer(204)


def data(source: Any, count: int = 9) -> list[str]:
    """Return the data of the events, up to this number."""
    return [event.data for event in islice(source, count)]


# Framing ------------------------------------------------------------------------------------------

UNDERSTOOD = {
    "until-the-end": (OK, EVENTS),
    "until-the-end-in-http-1.0": (OK.replace(b"1.1", b"1.0"), EVENTS),
    "length": (OK + b"Content-Length: %d\r\n" % len(EVENTS), EVENTS + b"data: no\n\n"),
    "length-twice": (OK + b"Content-Length: 22\r\n" * 2, EVENTS + b"data: no\n\n"),
    "length-listed-twice": (OK + b"Content-Length: 22, 22\r\n", EVENTS + b"data: no\n\n"),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n", chunked(EVENTS[:9], EVENTS[9:], b"")),
    "blanks-around-chunked": (OK + b"Transfer-Encoding: \t chunked \t \r\n", chunked(EVENTS, b"")),
    "chunked-in-capitals": (OK + b"TRANSFER-ENCODING: Chunked\r\n", chunked(EVENTS, b"")),
    "folded-chunked": (OK + b"Transfer-Encoding:\r\n\tchunked\r\n", chunked(EVENTS, b"")),
    "chunk-extensions": (
        OK + b"Transfer-Encoding: chunked\r\n",
        chunked(EVENTS[:9], EVENTS[9:], b"", extension=b';name="value"'),
    ),
    "trailer": (
        OK + b"Transfer-Encoding: chunked\r\n",
        chunked(EVENTS) + b"0\r\nX: data\r\n\r\ndata: no\n\n",
    ),
    "interim-responses": (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        + b"HTTP/1.1 103 Early Hints\r\nContent-Type: text/plain\r\n\r\n" * 15
        + OK,
        EVENTS,
    ),
}


@pytest.mark.parametrize(("head", "body"), UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
@pytest.mark.parametrize("bytewise", [False, True])
def test_events_come_in_every_framing(
    events: Connect, play: Play, head: bytes, body: bytes, bytewise: bool
) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        with suppress(ConnectionError):  # the client disconnects at the end of the body
            (visit.send_bytewise if bytewise else visit.send)(head + b"\r\n" + body)

    assert data(events(play(script, gone).http_url())) == ["one", "two"]


REFUSED = {
    "identity-chunked": b"Transfer-Encoding: identity, chunked\r\n",
    "gzip-chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked-twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "chunked-in-two-headers": b"Transfer-Encoding: chunked\r\n" * 2,
    "identity": b"Transfer-Encoding: identity\r\n",
    "unknown": b"Transfer-Encoding: xchunked\r\n",
    "parameter": b"Transfer-Encoding: chunked;a=b\r\n",
    "empty": b"Transfer-Encoding:\r\n",
    "length-too": b"Transfer-Encoding: chunked\r\nContent-Length: 22\r\n",
    "length-first": b"Content-Length: 22\r\nTransfer-Encoding: chunked\r\n",
}


@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("body", [EVENTS, chunked(EVENTS, b"")], ids=["plain", "chunks"])
def test_a_transfer_coding_other_than_chunked_is_rejected(
    events: Connect, play: Play, codec: ModuleType, header: bytes, body: bytes
) -> None:
    with pytest.raises(codec.HandshakeError, match="Transfer-Encoding") as caught:
        events(play(respond(OK + header, body)).http_url())
    assert caught.value.status == 502


def test_a_transfer_coding_in_http_1_0_is_rejected(
    events: Connect, play: Play, codec: ModuleType
) -> None:
    head = OK.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n"
    with pytest.raises(codec.HandshakeError, match=r"HTTP/1\.0"):
        events(play(respond(head, chunked(EVENTS, b""))).http_url())


MALFORMED = {
    "two-lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "two-lengths-in-a-list": OK + b"Content-Length: 5, 6\r\n",
    "negative-length": OK + b"Content-Length: -5\r\n",
    "length-with-a-sign": OK + b"Content-Length: +5\r\n",
    "length-in-hex": OK + b"Content-Length: 0x5\r\n",
    "empty-length": OK + b"Content-Length:\r\n",
    "endless-length": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "blank-before-the-colon": OK + b"Transfer-Encoding : chunked\r\n",
    "folded-first-header": b"HTTP/1.1 200 OK\r\n Content-Type: text/event-stream\r\n",
    "control-character": OK + b"X: \x1b[2J\r\n",
    "no-colon": OK + b"Transfer-Encoding\r\n",
    "two-types": OK + b"Content-Type: text/html\r\n",
    "another-version": OK.replace(b"1.1", b"2.0"),
    "switching-protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n",
    "endless-head": OK + b"X: " + b"x" * LONGER,
    "many-interim-responses": b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + OK,
}


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_head_is_rejected(
    events: Connect, play: Play, codec: ModuleType, head: bytes
) -> None:
    with pytest.raises((codec.HandshakeError, OSError), match=r"malformed|more than|version"):
        events(play(respond(head, EVENTS)).http_url())


def flood(data: bytes, first: bytes = b"") -> Callable[[Visit], None]:
    """Send this until the client disconnects, which it must do long before 16 MiB."""

    def send(visit: Visit) -> None:
        with suppress(ConnectionError):
            visit.send(first)
            for _ in range(256):
                visit.send(data * (LONGER // len(data)))
            raise AssertionError("the client has taken it all")

    return send


def say(data: bytes) -> Callable[[Visit], None]:
    """Send this."""
    return lambda visit: visit.send(data)


BROKEN: dict[str, Callable[[Visit], None]] = {
    "no-chunk": say(b"no chunk\r\n"),
    "cut-off-in-a-chunk": say(b"ff\r\ndata"),
    "cut-off-between-chunks": say(b""),
    "no-end-of-a-chunk": say(b"1\r\nxdata: no\n\n"),
    "negative-chunk": say(b"-1\r\nx\r\n"),
    "endless-chunk": say(b"f" * 21 + b"\r\n"),
    "endless-number": flood(b"0"),
    "endless-extension": flood(b"x", b"1;"),
    "endless-trailer": flood(b"X: y\r\n", b"0\r\n"),
    "endless-line-of-a-trailer": flood(b"y", b"0\r\nX: "),
}


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN.keys())
def test_a_malformed_body_gives_no_event_and_ends_the_connection(
    events: Connect, play: Play, breaks: Callable[[Visit], None]
) -> None:
    def first(visit: Visit) -> None:
        respond(OK + b"Transfer-Encoding: chunked\r\n", chunked(b"data: one\n\n"))(visit)
        breaks(visit)

    second = respond(OK, b"data: two\n\n")
    assert data(events(play(first, second, gone).http_url())) == ["one", "two"]


def test_a_truncated_body_ends_the_connection(events: Connect, play: Play) -> None:
    first = respond(OK + b"Content-Length: 99\r\n", b"data: one\n\ndata: no")
    second = respond(OK, b"data: two\n\n")
    assert data(events(play(first, second, gone).http_url())) == ["one", "two"]


# Content codings ----------------------------------------------------------------------------------


def deflate_raw(data: bytes, level: int = 6) -> bytes:
    """Return a deflate stream (RFC 1951) without the header and trailer of zlib."""
    packer = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODED = {
    "gzip": (b"gzip", gzip.compress(EVENTS)),
    "x-gzip": (b"X-GZip", gzip.compress(EVENTS)),
    "two-members": (b"gzip", gzip.compress(EVENTS[:9]) + gzip.compress(EVENTS[9:])),
    "deflate": (b"deflate", zlib.compress(EVENTS)),
    "deflate-without-its-frame": (b"Deflate", deflate_raw(EVENTS)),
    "deflate-without-its-frame-twice": (
        b"deflate",
        deflate_raw(EVENTS[:9]) + deflate_raw(EVENTS[9:]),
    ),
    "deflate-without-frame-and-compression": (b"deflate", deflate_raw(EVENTS, level=0)),
    "deflate-that-is-gzip": (b"deflate", gzip.compress(EVENTS)),
    "identity": (b"identity", EVENTS),
    "identity-and-gzip": (b"identity, gzip", gzip.compress(EVENTS)),
    "none": (b"", EVENTS),
}


@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED.keys())
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_compressed_body_is_decoded(
    events: Connect, play: Play, coding: bytes, body: bytes, bytewise: bool
) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        visit.send(OK + b"Content-Encoding: %b\r\n\r\n" % coding)
        (visit.send_bytewise if bytewise else visit.send)(body)

    assert data(events(play(script, gone).http_url())) == ["one", "two"]


def test_a_compressed_event_is_returned_once_it_is_flushed(events: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.read_head()
        packer = zlib.compressobj(wbits=31)
        visit.send(OK + b"Content-Encoding: gzip\r\n\r\n")
        visit.send(packer.compress(b"data: one\n\n") + packer.flush(zlib.Z_SYNC_FLUSH))
        visit.wait_for_end()

    with events(play(script).http_url()) as source:
        assert data(source, 1) == ["one"]


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"gzip, br", b"aes128gcm"])
def test_an_unknown_content_coding_is_rejected(
    events: Connect, play: Play, codec: ModuleType, coding: bytes
) -> None:
    with pytest.raises(codec.HandshakeError, match=coding.decode()) as caught:
        events(play(respond(OK + b"Content-Encoding: %b\r\n" % coding, EVENTS)).http_url())
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "body", [EVENTS, gzip.compress(b"data: no")[:-8] + bytes(8)], ids=["plain", "bad-checksum"]
)
def test_a_body_that_does_not_match_its_coding_gives_no_event(
    events: Connect, play: Play, body: bytes
) -> None:
    first = respond(OK + b"Content-Encoding: gzip\r\n", body)
    second = respond(OK, b"data: two\n\n")
    assert data(events(play(first, second, gone).http_url())) == ["two"]


def test_decompression_is_limited_to_small_pieces(codec: ModuleType) -> None:
    decoder = codec.client.content.Decoder()
    decoder.feed(gzip.compress(bytes(10 << 20)) + gzip.compress(b"the end"))
    pieces = list(iter(decoder.take, b""))
    assert b"".join(pieces) == bytes(10 << 20) + b"the end"
    assert max(map(len, pieces)) == 1 << 16

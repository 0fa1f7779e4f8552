"""Compressed data that is not valid DEFLATE or not valid text."""

from __future__ import annotations

import zlib
from types import ModuleType

import pytest

from tests.codec.deflate.helpers import COMPRESSED, NO_TAKEOVER, NOT_DEFLATE, backends, compressing
from tests.support.deflated import (
    RFC_HELLO_AGAIN,
    squeezed,
    stored,
)
from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    RSV1,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces
from tests.support.vectors import (
    INVALID_UTF8,
    TRUNCATED_UTF8,
    Bad,
)

NOT_UTF8 = ("Failure", BAD_DATA, "a text message is not valid UTF-8")


BROKEN: dict[str, bytes] = {
    "reserved-block-type": b"\x06",
    "reserved-block-type-last": b"\x07",
    "stored-length-and-its-complement": b"\x00\x05\x00\x05\x00Hello",
    "dynamic-codes-oversubscribed": bytes.fromhex("04009204000000000000"),
    "distance-before-the-beginning": RFC_HELLO_AGAIN,
    "not-compressed-at-all": b"Hello, world",
    "ones": b"\xff" * 20,
    "zlib-header": zlib.compress(b"Hello" * 20),
}


@pytest.mark.unmeasured
@ends
@backends
@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN.keys())
def test_invalid_deflate_data_fails(
    codec: ModuleType, payload: bytes, backend: str, end: End
) -> None:
    before = end.wire(COMPRESSED | TEXT, squeezed(b"before"))
    ways = {
        "one-frame": end.wire(COMPRESSED | BINARY, payload),
        "fragments": end.wire(RSV1 | TEXT, payload[:1])
        + end.wire(PING)
        + end.wire(CONTINUATION, payload[1:])
        + end.wire(FIN | CONTINUATION),
    }
    for wire in ways.values():
        for settings in ({}, NO_TAKEOVER):
            if not settings and payload == RFC_HELLO_AGAIN:
                continue  # fills the window
            for cuts in ((), range(1, len(before + wire))):
                connection = compressing(codec, end, backend=backend, **settings)
                events = receive_in_pieces(connection, before + wire, cuts)
                first, failure = (event for event in events if event != ("Ping", b""))
                assert first == "before"
                assert failure[:2] == NOT_DEFLATE[:2]
                assert failure[2].startswith(NOT_DEFLATE[2])
                assert connection.receive(end.wire(FIN | TEXT, b"after")) == []


@ends
@backends
def test_invalid_deflate_data_fails_in_an_incomplete_frame(
    codec: ModuleType, backend: str, end: End
) -> None:
    payload = stored(b"good" * 5) + b"\xff\xff\xff\xff"
    wire = end.wire(COMPRESSED | BINARY, payload, length=100_000)
    connection = compressing(codec, end, backend=backend)
    assert connection.receive(wire[:-4]) == []
    assert normals(connection.receive(wire[-4:])) == [NOT_DEFLATE]


bad_texts = pytest.mark.parametrize("bad", INVALID_UTF8.values(), ids=INVALID_UTF8)


@ends
@bad_texts
def test_text_that_inflates_to_invalid_utf8_fails(codec: ModuleType, bad: Bad, end: End) -> None:
    before = end.wire(COMPRESSED | TEXT, squeezed(b"before"))
    payload = squeezed(b"good" + bad.data)
    one = end.wire(COMPRESSED | TEXT, payload)
    binary = end.wire(COMPRESSED | BINARY, payload)
    two = end.wire(RSV1 | TEXT, payload[:3]) + end.wire(FIN | CONTINUATION, payload[3:])
    for wire in (one, two):
        for cuts in ((), range(1, len(before + wire))):
            connection = compressing(codec, end, **NO_TAKEOVER)
            assert receive_in_pieces(connection, before + wire, cuts) == ["before", NOT_UTF8]
    assert compressing(codec, end).receive(binary) == [b"good" + bad.data]


@ends
@bad_texts
def test_invalid_text_fails_at_its_first_invalid_byte(
    codec: ModuleType, bad: Bad, end: End
) -> None:
    # In the middle of a frame or a fragment that never becomes complete.
    good = "gööd".encode() + bad.data[: bad.prefix]
    payload = stored(good + bad.data[bad.prefix :] + bytes(100))
    at = payload.index(good) + len(good)
    arriving = end.wire(COMPRESSED | TEXT, payload[: at + 1], length=100_000)
    fragments = end.wire(RSV1 | TEXT, payload[:at]), end.wire(CONTINUATION, payload[at : at + 1])
    for begun, wire in ((arriving[:-1], arriving[-1:]), fragments):
        for cuts in ((), range(1, len(begun))):
            connection = compressing(codec, end)
            assert receive_in_pieces(connection, begun, cuts) == []
            assert normals(connection.receive(wire)) == [NOT_UTF8]


@ends
@pytest.mark.parametrize("data", TRUNCATED_UTF8.values(), ids=TRUNCATED_UTF8)
def test_text_must_not_end_inside_a_character(codec: ModuleType, data: bytes, end: End) -> None:
    payload = squeezed(b"good" + data)
    one = end.wire(COMPRESSED | TEXT, payload)
    two = end.wire(RSV1 | TEXT, payload) + end.wire(FIN | CONTINUATION)
    for wire in (one, two):
        for cuts in ((), range(1, len(wire))):
            assert receive_in_pieces(compressing(codec, end), wire, cuts) == [NOT_UTF8]


@ends
@pytest.mark.parametrize("text", ["x" * 200_000, "é" * 100_000, "a😀" * 40_000, "x" * 65_535 + "é"])
def test_long_text_is_checked_in_pieces(codec: ModuleType, text: str, end: End) -> None:
    payload = squeezed(text.encode())
    wire = end.wire(COMPRESSED | TEXT, payload)
    for cuts in ((), range(1, len(wire))):
        assert receive_in_pieces(compressing(codec, end), wire, cuts) == [text]
    bad = end.wire(COMPRESSED | TEXT, squeezed(text.encode() + b"\xff"))
    for cuts in ((), range(1, len(bad))):
        assert receive_in_pieces(compressing(codec, end), bad, cuts) == [NOT_UTF8]

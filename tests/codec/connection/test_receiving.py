"""Valid frames: the events that a connection returns for them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.codec.connection.helpers import check_both_ways
from tests.support.ends import (
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    SERVER,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces
from tests.support.vectors import (
    INVALID_UTF8,
    LONG_SIZES,
    RFC_FRAMES,
    SHORT_SIZES,
    VALID_UTF8,
    Bad,
    by_hand,
    payload_of,
)


def test_the_frames_of_the_rfc(codec: ModuleType) -> None:
    server, client = SERVER.connect(codec), CLIENT.connect(codec)

    def received(end: Any, name: str) -> list[Any]:
        return normals(end.receive(RFC_FRAMES[name].wire))

    assert received(client, "unmasked-text") == ["Hello"]
    assert received(server, "masked-text") == ["Hello"]
    assert received(client, "first-fragment") == []
    assert received(client, "last-fragment") == ["Hello"]
    assert received(client, "unmasked-ping") == [("Ping", b"Hello")]
    assert received(server, "masked-pong") == [("Pong", b"Hello")]
    assert received(client, "256-bytes") == [RFC_FRAMES["256-bytes"].payload]
    assert received(client, "64-KiB") == [RFC_FRAMES["64-KiB"].payload]


@pytest.mark.unmeasured
@ends
def test_messages_of_every_short_size(codec: ModuleType, end: End) -> None:
    data = b"".join(end.wire(FIN | BINARY, payload_of(size)) for size in SHORT_SIZES)
    check_both_ways(codec, end, data, [payload_of(size) for size in SHORT_SIZES])


@ends
@pytest.mark.parametrize("size", LONG_SIZES)
def test_a_message_split_around_its_header_and_its_end(
    codec: ModuleType, size: int, end: End
) -> None:
    payload = payload_of(size)
    data = end.wire(FIN | BINARY, payload) + end.wire(FIN | TEXT, b"next")
    connection = end.connect(codec)
    cuts = sorted({*range(1, 17), size // 2, *range(len(data) - 24, len(data))})
    assert receive_in_pieces(connection, data, cuts) == [payload, "next"]
    assert normals(connection.receive(data)) == [payload, "next"]


@ends
@pytest.mark.parametrize("compression", [False, True])
def test_incomplete_frames_and_messages(codec: ModuleType, end: End, compression: bool) -> None:
    deflate = codec.PerMessageDeflate() if compression else None
    connection = end.connect(codec, deflate=deflate)
    whole = end.wire(FIN | TEXT, b"x")
    assert not connection.incomplete
    for wire, incomplete in (
        (whole, False),
        (whole[:1], True),
        (whole[1:], False),
        (end.wire(TEXT, b"x"), True),
        (end.wire(PING, b""), True),
        (end.wire(FIN | CONTINUATION, b"y"), False),
        (end.wire(FIN | BINARY, bytes(200))[:-1], True),
    ):
        connection.receive(wire)
        assert connection.incomplete is incomplete


@ends
@pytest.mark.parametrize("data", VALID_UTF8.values(), ids=VALID_UTF8)
def test_text_is_str(codec: ModuleType, data: bytes, end: End) -> None:
    check_both_ways(codec, end, end.wire(FIN | TEXT, data), [data.decode()])


@ends
@pytest.mark.parametrize("data", VALID_UTF8.values(), ids=VALID_UTF8)
def test_a_character_may_be_split_between_fragments(
    codec: ModuleType, data: bytes, end: End
) -> None:
    wire = end.wire(TEXT)
    wire += b"".join(end.wire(CONTINUATION, data[i : i + 1]) for i in range(len(data)))
    wire += end.wire(FIN | CONTINUATION)
    check_both_ways(codec, end, wire, [data.decode()])


@ends
@pytest.mark.parametrize("data", INVALID_UTF8.values(), ids=INVALID_UTF8)
def test_binary_messages_are_not_checked(codec: ModuleType, data: Bad, end: End) -> None:
    wire = end.wire(FIN | BINARY, data.data) + end.wire(BINARY, data.data)
    wire += end.wire(FIN | CONTINUATION, data.data)
    check_both_ways(codec, end, wire, [data.data, data.data * 2])


@ends
def test_fragments_are_joined_to_one_message(codec: ModuleType, end: End) -> None:
    wire = b"".join(
        [
            end.wire(TEXT, b"Hel"),
            end.wire(CONTINUATION),
            end.wire(FIN | CONTINUATION, b"lo"),
            end.wire(BINARY),
            end.wire(FIN | CONTINUATION),
            end.wire(TEXT),
            end.wire(FIN | CONTINUATION),
            end.wire(BINARY, b"a"),
            end.wire(CONTINUATION, payload_of(126)),
            end.wire(FIN | CONTINUATION, payload_of(70)),
            end.wire(FIN | TEXT, b"whole"),
        ]
    )
    messages = ["Hello", b"", "", b"a" + payload_of(126) + payload_of(70), "whole"]
    check_both_ways(codec, end, wire, messages)


@ends
def test_every_fragment_is_unmasked_with_its_own_key(codec: ModuleType, end: End) -> None:
    keys = [b"abcd", b"\0\0\0\0", b"\xff\xfe\xfd\xfc"] if end.peer_key else [None] * 3
    firsts = [BINARY, CONTINUATION, FIN | CONTINUATION]
    wire = b"".join(
        by_hand(first, payload_of(7), key) for first, key in zip(firsts, keys, strict=True)
    )
    check_both_ways(codec, end, wire, [payload_of(7) * 3])


@ends
def test_control_frames_between_fragments(codec: ModuleType, end: End) -> None:
    wire = b"".join(
        [
            end.wire(TEXT, b"a\xc3"),
            end.wire(PING, b"1"),
            end.wire(CONTINUATION, b"\xa9"),
            end.wire(PONG, b"2"),
            end.wire(PING),
            end.wire(FIN | CONTINUATION, b"b"),
            end.wire(FIN | TEXT, b"c"),
        ]
    )
    pings = [("Ping", b"1"), ("Pong", b"2"), ("Ping", b"")]
    check_both_ways(codec, end, wire, [*pings, "aéb", "c"])


@ends
def test_a_close_between_fragments_discards_the_message(codec: ModuleType, end: End) -> None:
    wire = end.wire(TEXT, b"begun") + end.wire(CLOSE) + end.wire(FIN | CONTINUATION, b"on")
    check_both_ways(codec, end, wire, [("Close", 1005, "")])


@ends
@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_control_frames_are_received(codec: ModuleType, size: int, end: End) -> None:
    payload = payload_of(size)
    wire = end.wire(PING, payload) + end.wire(PONG, payload)
    check_both_ways(codec, end, wire, [("Ping", payload), ("Pong", payload)])


@ends
def test_an_empty_read_changes_nothing(codec: ModuleType, end: End) -> None:
    data = end.wire(TEXT, b"a") + end.wire(PING, b"b") + end.wire(FIN | CONTINUATION, b"c")
    connection = end.connect(codec)
    events = connection.receive(b"")
    for i in range(len(data)):
        events += connection.receive(data[i : i + 1])
        events += connection.receive(b"")
    assert normals(events) == [("Ping", b"b"), "ac"]

"""Limits on messages and frames."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.connection.helpers import LIMIT
from tests.support.ends import (
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    FIN,
    NORMAL,
    PING,
    PONG,
    SERVER,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.tools import normals
from tests.support.vectors import (
    by_hand,
    payload_of,
)


@ends
@pytest.mark.parametrize("limit", [1, 5, 125, 126, 65536])
@pytest.mark.parametrize("fragments", [1, 2, 5])
def test_a_message_may_be_as_long_as_the_limit(
    codec: ModuleType, fragments: int, limit: int, end: End
) -> None:
    def wire(size: int) -> bytes:
        step = -(-size // fragments)
        chunks = [bytes(size)[i * step : (i + 1) * step] for i in range(fragments)]
        firsts = [BINARY, *[CONTINUATION] * (fragments - 1)]
        firsts[-1] |= FIN
        return b"".join(end.wire(first, chunk) for first, chunk in zip(firsts, chunks, strict=True))

    reason = f"a message of {limit + 1} bytes or more is over the limit of {limit}"
    connection = end.connect(codec, max_message_size=limit)
    assert connection.receive(wire(limit) * 2) == [bytes(limit)] * 2
    assert normals(connection.receive(wire(limit + 1))) == [("Failure", TOO_BIG, reason)]


@ends
def test_the_limit_is_one_mebibyte_by_default(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    assert connection.receive(end.wire(FIN | BINARY, bytes(LIMIT))) == [bytes(LIMIT)]
    assert connection.receive(end.wire(FIN | BINARY, length=LIMIT)) == []


@ends
def test_the_limit_counts_bytes_of_utf_8(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec, max_message_size=4)
    wire = end.wire(FIN | TEXT, "éé".encode())
    assert connection.receive(wire) == ["éé"]
    (failure,) = connection.receive(end.wire(FIN | TEXT, "ééé".encode()))
    assert failure.code == TOO_BIG


@ends
def test_control_frames_ignore_the_message_limit(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec, max_message_size=1, max_fragments=1)
    wire = end.wire(PING, bytes(125)) + end.wire(FIN | TEXT, b"x") + end.wire(PONG, bytes(9))
    wire += end.wire(CLOSE, b"\x03\xe8why")
    expected = [("Ping", bytes(125)), "x", ("Pong", bytes(9)), ("Close", NORMAL, "why")]
    assert normals(connection.receive(wire)) == expected


@ends
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_a_message_may_have_as_many_fragments_as_the_limit(
    codec: ModuleType, limit: int, end: End
) -> None:
    connection = end.connect(codec, max_fragments=limit)
    begun = end.wire(TEXT, b"a") + end.wire(CONTINUATION, b"b") * (limit - 2)
    whole = begun + end.wire(FIN | CONTINUATION, b"c") if limit > 1 else end.wire(FIN | TEXT, b"a")
    text = "a" + "b" * (limit - 2) + "c" * (limit > 1)
    assert connection.receive(whole * 2) == [text] * 2

    up_to_the_limit = end.wire(TEXT) + end.wire(CONTINUATION) * (limit - 1)
    assert connection.receive(up_to_the_limit) == []
    assert normals(connection.receive(end.wire(PING))) == [("Ping", b"")]
    reason = f"a message in more fragments than the limit of {limit}"
    wire = end.wire(FIN | CONTINUATION, b"x")
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, reason)]


@pytest.mark.unmeasured
@pytest.mark.parametrize(("size", "fragments"), [(16, 1024), (1 << 20, 1 << 16), (32_000, 2000)])
def test_fragments_are_limited_by_default(codec: ModuleType, size: int, fragments: int) -> None:
    connection = CLIENT.connect(codec, max_message_size=size)
    assert connection.receive(b"\x02\x00" + b"\x00\x00" * (fragments - 1)) == []
    (failure,) = connection.receive(b"\x00\x00")
    assert failure.reason == f"a message in more fragments than the limit of {fragments}"


@pytest.mark.parametrize("size", [0, -1, sys.maxsize + 1])
def test_max_message_size_must_be_in_range(codec: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match=rf"^max_message_size must be 1-\d+, not {size}$"):
        SERVER.connect(codec, max_message_size=size)


@pytest.mark.parametrize("count", [0, -1])
def test_max_fragments_must_be_positive(codec: ModuleType, count: int) -> None:
    with pytest.raises(ValueError, match=rf"^max_fragments must be at least 1, not {count}$"):
        SERVER.connect(codec, max_fragments=count)


def test_the_largest_limits_are_accepted(codec: ModuleType) -> None:
    connection = CLIENT.connect(codec, max_message_size=sys.maxsize, max_fragments=1)
    assert connection.receive(b"\x82\x03abc") == [b"abc"]
    assert connection.receive(by_hand(FIN | BINARY, length=(1 << 63) - 1)) == []


def traced_peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.unmeasured
@ends
@pytest.mark.parametrize("length", [LIMIT + 1, (1 << 63) - 1, (1 << 64) - 1])
def test_no_memory_is_allocated_for_a_rejected_message(
    codec: ModuleType, length: int, end: End
) -> None:
    wire = end.wire(FIN | BINARY, b"x", length=length)
    connection = end.connect(codec)
    assert traced_peak(lambda: connection.receive(wire)) < 20_000


@pytest.mark.unmeasured
@ends
def test_no_memory_is_allocated_before_the_payload_arrives(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    wire = end.wire(FIN | BINARY, b"x", length=LIMIT)
    assert traced_peak(lambda: connection.receive(wire)) < 20_000


@ends
def test_a_long_message_in_small_reads_is_not_copied_repeatedly(
    codec: ModuleType, end: End
) -> None:
    wire = end.wire(FIN | BINARY, payload_of(LIMIT))
    connection = end.connect(codec)
    events: list[Any] = []

    def work() -> None:
        for begin in range(0, len(wire), 1024):
            events.extend(connection.receive(wire[begin : begin + 1024]))

    # The growing buffer, and the message.
    assert traced_peak(work) < 3 * LIMIT
    assert events == [payload_of(LIMIT)]


@pytest.mark.unmeasured
@ends
@pytest.mark.parametrize("first", [CLOSE, TEXT], ids=["close", "failure"])
def test_an_incomplete_message_is_freed_at_the_end(codec: ModuleType, first: int, end: End) -> None:
    wire = end.wire(BINARY, bytes(LIMIT // 2))
    connection = end.connect(codec)
    tracemalloc.start()
    try:
        assert connection.receive(wire) == []
        assert tracemalloc.get_traced_memory()[0] > LIMIT // 2
        assert len(connection.receive(end.wire(first))) == 1
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()

"""Limits on the size of decompressed messages."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable
from random import Random
from types import ModuleType
from typing import Any

import pytest

from tests.codec.deflate.helpers import COMPRESSED, NO_TAKEOVER, STEP, backends, compressing
from tests.support.deflated import (
    TAIL,
    compressor,
    squeezed,
)
from tests.support.ends import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    RSV1,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces
from tests.support.vectors import (
    payload_of,
)


def inflates_to(size: int, limit: int) -> str:
    return f"a message that inflates to {size} bytes or more is over the limit of {limit}"


LIMITS = (1, 2, 100, STEP - 1, STEP, STEP + 1, 2 * STEP, 3 * STEP + 5)


@pytest.mark.slow
@pytest.mark.unmeasured
@ends
@backends
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", ["zeros", "noise", "text"])
def test_a_message_may_inflate_to_the_limit(
    codec: ModuleType, kind: str, limit: int, backend: str, end: End
) -> None:
    data = Random(limit).randbytes(limit + 1) if kind == "noise" else b"x" * (limit + 1)
    opcode = TEXT if kind == "text" else BINARY
    fits, over = squeezed(data[:-1]), squeezed(data)
    message: Any = data[:-1].decode() if kind == "text" else data[:-1]
    ways: tuple[Callable[[bytes], bytes], ...] = (
        lambda payload: end.wire(COMPRESSED | opcode, payload),
        lambda payload: end.wire(RSV1 | opcode, payload) + end.wire(FIN | CONTINUATION),
        lambda payload: (
            end.wire(RSV1 | opcode, payload[:2]) + end.wire(FIN | CONTINUATION, payload[2:])
        ),
    )
    for way in ways:
        for step in (1000, 1 << 20):
            connection = compressing(
                codec, end, limits={"max_message_size": limit}, backend=backend, **NO_TAKEOVER
            )
            wire = way(fits) * 2
            events = receive_in_pieces(connection, wire, range(step, len(wire), step))
            assert events == [message] * 2
            wire = way(over)
            events = receive_in_pieces(connection, wire, range(step, len(wire), step))
            assert [event[:2] for event in events] == [("Failure", TOO_BIG)]
            assert re.fullmatch(inflates_to(0, limit).replace("0", r"\d+", 1), events[0][2])


@ends
def test_the_limit_counts_bytes_of_utf_8(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, limits={"max_message_size": 4})
    stream = compressor()
    wire = end.wire(COMPRESSED | TEXT, squeezed("éé".encode(), stream))
    assert connection.receive(wire) == ["éé"]
    wire = end.wire(COMPRESSED | TEXT, squeezed("ééé".encode(), stream))
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, inflates_to(6, 4))]


@ends
def test_an_uncompressed_message_has_the_limit_itself(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, limits={"max_message_size": 100})
    assert connection.receive(end.wire(FIN | BINARY, bytes(100))) == [bytes(100)]
    reason = "a message of 101 bytes or more is over the limit of 100"
    wire = end.wire(FIN | BINARY, length=101)
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, reason)]


@ends
@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
def test_a_compressed_message_may_be_longer_than_the_original(
    codec: ModuleType, limit: int, end: End
) -> None:
    # Twice the limit plus 1 KiB, for senders that flush often or compress noise.
    limits = {"max_message_size": limit, "max_fragments": 3}
    wire_limit = 2 * limit + 1024
    connection = compressing(codec, end, limits=limits)
    head = end.wire(COMPRESSED | BINARY, length=wire_limit)
    assert connection.receive(head) == []
    reason = f"a message of {wire_limit + 1} bytes or more is over the limit of {limit}"
    failure = ("Failure", TOO_BIG, reason)
    connection = compressing(codec, end, limits=limits)
    head = end.wire(COMPRESSED | BINARY, length=wire_limit + 1)
    assert normals(connection.receive(head)) == [failure]
    # The limit applies to the sum of all fragments.
    connection = compressing(codec, end, limits=limits)
    assert connection.receive(end.wire(RSV1 | BINARY, b"\0\0\0\xff\xff")) == []
    assert connection.receive(end.wire(PING, bytes(125)))
    head = end.wire(CONTINUATION, length=wire_limit - 4)
    assert normals(connection.receive(head)) == [failure]


@ends
def test_a_message_flushed_after_every_byte_fits(codec: ModuleType, end: End) -> None:
    data = payload_of(500)
    stream = compressor()
    payload = b"".join(
        stream.compress(data[i : i + 1]) + stream.flush(zlib.Z_PARTIAL_FLUSH)
        for i in range(len(data))
    )
    payload = (payload + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    assert len(payload) > len(data)
    connection = compressing(codec, end, limits={"max_message_size": len(data)})
    assert connection.receive(end.wire(COMPRESSED | BINARY, payload)) == [data]


@ends
def test_the_largest_limit_is_accepted(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, limits={"max_message_size": sys.maxsize})
    wire = end.wire(COMPRESSED | TEXT, squeezed(b"Hello"))
    assert connection.receive(wire) == ["Hello"]
    assert connection.receive(end.wire(COMPRESSED | BINARY, length=(1 << 63) - 1)) == []


@ends
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_compressed_fragments_are_limited(codec: ModuleType, limit: int, end: End) -> None:
    payload = squeezed(b"Hello")
    connection = compressing(codec, end, limits={"max_fragments": limit})
    rest = [CONTINUATION] * (limit - 1)
    firsts = [RSV1 | TEXT, *rest]
    whole = [*firsts[:-1], firsts[-1] | FIN]
    pieces = [payload, *[b""] * (limit - 1)]
    assert connection.receive(b"".join(map(end.wire, whole, pieces)) * 2) == ["Hello"] * 2
    assert connection.receive(b"".join(map(end.wire, firsts, pieces))) == []
    reason = f"a message in more fragments than the limit of {limit}"
    wire = end.wire(FIN | CONTINUATION)
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, reason)]

"""Final DEFLATE blocks within a message (RFC 7692 section 7.2.3.4)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.codec.deflate.helpers import (
    COMPRESSED,
    NO_TAKEOVER,
    NOT_DEFLATE,
    STEP,
    backends,
    compressing,
    takeovers,
)
from tests.support.deflated import (
    RFC_HELLO_AGAIN,
    ended,
    squeezed,
)
from tests.support.ends import (
    BINARY,
    CONTINUATION,
    FIN,
    RSV1,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces


@ends
@backends
@takeovers
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_stream_may_end_inside_a_message(
    codec: ModuleType, opcode: int, takeover: bool, backend: str, end: End
) -> None:
    settings = {"backend": backend, **({} if takeover else NO_TAKEOVER)}
    connection = compressing(codec, end, **settings)
    payload = ended(b"One, ") + ended(b"") + ended("zwö".encode() * 100) + squeezed(b" and three")
    data = "One, " + "zwö" * 100 + " and three"
    message: Any = data if opcode == TEXT else data.encode()
    one = end.wire(COMPRESSED | opcode, payload)
    many = [end.wire(CONTINUATION, payload[i : i + 1]) for i in range(len(payload))]
    many[0] = end.wire(RSV1 | opcode, payload[:1])
    many.append(end.wire(FIN | CONTINUATION))
    for wire in (one, b"".join(many)):
        for cuts in ((), range(1, len(wire))):
            assert receive_in_pieces(connection, wire, cuts) == [message]


@ends
@backends
def test_a_stream_that_ends_at_the_end_of_a_message(
    codec: ModuleType, backend: str, end: End
) -> None:
    # It is followed by the header of an empty block, whose rest is TAIL.
    for size in (0, 5, STEP - 1, STEP, STEP + 1, 2 * STEP):
        connection = compressing(codec, end, backend=backend)
        wire = end.wire(COMPRESSED | BINARY, ended(bytes(size)) + b"\0")
        assert connection.receive(wire * 3) == [bytes(size)] * 3


@ends
@backends
@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("content", [b"", b"ab"], ids=["empty", "full"])
def test_the_ends_of_streams_count_as_fragments(
    codec: ModuleType, content: bytes, limit: int, backend: str, end: End
) -> None:
    connection = compressing(codec, end, limits={"max_fragments": limit}, backend=backend)
    fits = end.wire(COMPRESSED | BINARY, ended(content) * limit + b"\0")
    assert connection.receive(fits * 2) == [content * limit] * 2
    over = end.wire(COMPRESSED | BINARY, ended(content) * (limit + 1) + b"\0")
    reason = f"a message in more fragments than the limit of {limit}"
    new = compressing(codec, end, limits={"max_fragments": limit}, backend=backend)
    for receiver in (connection, new):
        assert normals(receiver.receive(over)) == [("Failure", TOO_BIG, reason)]


@ends
def test_a_new_stream_has_an_empty_window(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end)
    wire = end.wire(COMPRESSED | TEXT, ended(b"Hello") + b"\0")
    assert connection.receive(wire) == ["Hello"]
    wire = end.wire(COMPRESSED | TEXT, RFC_HELLO_AGAIN)
    assert normals(connection.receive(wire)) == [NOT_DEFLATE]

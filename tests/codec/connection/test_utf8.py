"""Text that is not UTF-8 (RFC 6455 section 8.1)."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.codec.connection.helpers import byte_by_byte, check_both_ways
from tests.support.ends import (
    BAD_DATA,
    CONTINUATION,
    FIN,
    PING,
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


bad_texts = pytest.mark.parametrize("bad", INVALID_UTF8.values(), ids=INVALID_UTF8)


cut_texts = pytest.mark.parametrize("data", TRUNCATED_UTF8.values(), ids=TRUNCATED_UTF8)


@ends
@bad_texts
def test_invalid_text_in_one_frame(codec: ModuleType, bad: Bad, end: End) -> None:
    before = end.wire(FIN | TEXT, "vörher".encode())
    wire = before + end.wire(FIN | TEXT, b"good" + bad.data) + before
    check_both_ways(codec, end, wire, ["vörher", NOT_UTF8])


@ends
@bad_texts
def test_invalid_text_fails_at_its_first_invalid_byte(
    codec: ModuleType, bad: Bad, end: End
) -> None:
    # In the middle of a frame that never becomes complete.
    good = "gööd".encode() + bad.data[: bad.prefix]
    wire = end.wire(FIN | TEXT, good + bad.data[bad.prefix :], length=100_000)
    until_bad = wire[: len(wire) - len(bad.data) + bad.prefix]
    for cuts in ((), byte_by_byte(until_bad)):
        connection = end.connect(codec)
        assert receive_in_pieces(connection, until_bad, cuts) == []
        assert normals(connection.receive(wire[len(until_bad) :][:1])) == [NOT_UTF8]
        assert connection.receive(wire[len(until_bad) + 1 :] + bytes(100_000)) == []


@ends
@bad_texts
def test_invalid_text_fails_across_fragments(codec: ModuleType, bad: Bad, end: End) -> None:
    for cut in range(bad.prefix + 1):
        connection = end.connect(codec)
        good = end.wire(TEXT, b"good" + bad.data[:cut]) + end.wire(PING)
        assert normals(connection.receive(good)) == [("Ping", b"")]
        assert connection.receive(end.wire(CONTINUATION, bad.data[cut : bad.prefix])) == []
        wrong = end.wire(CONTINUATION, bad.data[bad.prefix :])
        head = len(wrong) - len(bad.data) + bad.prefix
        assert connection.receive(wrong[:head]) == []
        assert normals(connection.receive(wrong[head : head + 1])) == [NOT_UTF8]


@ends
@cut_texts
def test_text_must_not_end_inside_a_character(codec: ModuleType, data: bytes, end: End) -> None:
    check_both_ways(codec, end, end.wire(FIN | TEXT, b"good" + data), [NOT_UTF8])
    fragments = end.wire(TEXT, b"good" + data)
    assert end.connect(codec).receive(fragments) == []
    check_both_ways(codec, end, fragments + end.wire(FIN | CONTINUATION), [NOT_UTF8])


@ends
@cut_texts
def test_a_character_does_not_continue_in_the_next_message(
    codec: ModuleType, data: bytes, end: End
) -> None:
    wire = end.wire(FIN | TEXT, data) + end.wire(FIN | TEXT, b"\xa9")
    check_both_ways(codec, end, wire, [NOT_UTF8])


@pytest.mark.unmeasured
@ends
@bad_texts
def test_messages_before_invalid_text_are_returned(codec: ModuleType, bad: Bad, end: End) -> None:
    wire = b"".join(end.wire(FIN | TEXT, b"%d" % i) for i in range(50))
    wire += end.wire(PING, b"x") + end.wire(FIN | TEXT, bad.data)
    events = [*(str(i) for i in range(50)), ("Ping", b"x"), NOT_UTF8]
    check_both_ways(codec, end, wire, events)

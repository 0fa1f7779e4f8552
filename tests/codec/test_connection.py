"""Connection: every rule of RFC 6455 after the opening handshake, on both ends."""

from __future__ import annotations

import array
import ctypes
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    FIN,
    KEY,
    NORMAL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    SERVER,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces
from tests.support.vectors import (
    CLOSE_CODES_ALLOWED,
    CLOSE_CODES_REFUSED,
    INVALID_UTF8,
    LONG_SIZES,
    RFC_FRAMES,
    SHORT_SIZES,
    TRUNCATED_UTF8,
    VALID_UTF8,
    Bad,
    by_hand,
    payload_of,
)

Maker = Callable[[bytes | None], bytes]


def byte_by_byte(data: bytes) -> Iterable[int]:
    return range(1, len(data))


def frames(*parts: tuple[int, bytes]) -> Maker:
    return lambda key: b"".join(by_hand(first, payload, key) for first, payload in parts)


def frame(first: int, payload: bytes = b"", **how: int) -> Maker:
    return lambda key: by_hand(first, payload, key, **how)


def check_both_ways(codec: ModuleType, end: End, data: bytes, expected: list[Any]) -> None:
    """Expect these events of the data in one piece, and of the data byte by byte."""
    assert receive_in_pieces(end.connect(codec), data, ()) == expected
    assert receive_in_pieces(end.connect(codec), data, byte_by_byte(data)) == expected


# What is right ------------------------------------------------------------------------------------


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


@ends
def test_messages_of_every_short_size(codec: ModuleType, end: End) -> None:
    data = b"".join(end.wire(FIN | BINARY, payload_of(size)) for size in SHORT_SIZES)
    check_both_ways(codec, end, data, [payload_of(size) for size in SHORT_SIZES])


@ends
@pytest.mark.parametrize("size", LONG_SIZES)
def test_a_message_at_the_edges_cut_around_its_head_and_its_end(
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
def test_whether_a_frame_or_a_message_is_incomplete(
    codec: ModuleType, end: End, compression: bool
) -> None:
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
def test_a_character_may_be_cut_by_fragments(codec: ModuleType, data: bytes, end: End) -> None:
    wire = end.wire(TEXT)
    wire += b"".join(end.wire(CONTINUATION, data[i : i + 1]) for i in range(len(data)))
    wire += end.wire(FIN | CONTINUATION)
    check_both_ways(codec, end, wire, [data.decode()])


@ends
@pytest.mark.parametrize("data", INVALID_UTF8.values(), ids=INVALID_UTF8)
def test_binary_is_not_looked_at(codec: ModuleType, data: Bad, end: End) -> None:
    wire = end.wire(FIN | BINARY, data.data) + end.wire(BINARY, data.data)
    wire += end.wire(FIN | CONTINUATION, data.data)
    check_both_ways(codec, end, wire, [data.data, data.data * 2])


@ends
def test_fragments_make_one_message(codec: ModuleType, end: End) -> None:
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
def test_every_frame_of_a_message_has_a_mask_of_its_own(codec: ModuleType, end: End) -> None:
    keys = [b"abcd", b"\0\0\0\0", b"\xff\xfe\xfd\xfc"] if end.peer_key else [None] * 3
    firsts = [BINARY, CONTINUATION, FIN | CONTINUATION]
    wire = b"".join(
        by_hand(first, payload_of(7), key) for first, key in zip(firsts, keys, strict=True)
    )
    check_both_ways(codec, end, wire, [payload_of(7) * 3])


@ends
def test_control_frames_may_stand_between_fragments(codec: ModuleType, end: End) -> None:
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
def test_a_close_between_fragments_drops_the_message(codec: ModuleType, end: End) -> None:
    wire = end.wire(TEXT, b"begun") + end.wire(CLOSE) + end.wire(FIN | CONTINUATION, b"on")
    check_both_ways(codec, end, wire, [("Close", 1005, "")])


@ends
@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_control_frames_arrive_whole(codec: ModuleType, size: int, end: End) -> None:
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


# What is wrong ------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What the peer does against a rule, and what is said of it."""

    code: int
    reason: str
    wrong: Maker
    #: After how many bytes of ``wrong`` it must be refused; None for all of them.
    seen_at: int | None = 2
    #: What comes before and is right, and the events it gives.
    before: Maker = frames()
    events: tuple[Any, ...] = ()


OVERSIZE = "a control frame carries at most 125 bytes"
RESERVED_BIT = "a reserved bit is set and no extension was agreed on"
SHORTEST = "a payload length must use its shortest form"
HIGHEST_BIT = "the highest bit of a payload length must be 0"
LIMIT = 1 << 20


def too_big(size: int) -> str:
    return f"a message of {size} bytes or more is over the limit of 1048576"


RULES: dict[str, Rule] = {
    # RFC 6455 section 5.2
    **{
        f"rsv-{rsv}-{name}": Rule(PROTOCOL_ERROR, RESERVED_BIT, frame(first | rsv << 4, b"x"))
        for name, first in (
            ("text", FIN | TEXT),
            ("binary", FIN | BINARY),
            ("first-fragment", TEXT),
            ("ping", PING),
            ("close", CLOSE),
        )
        for rsv in (1, 2, 4, 7)
    },
    "rsv-1-continuation": Rule(
        PROTOCOL_ERROR,
        RESERVED_BIT,
        frame(FIN | CONTINUATION | 0x10, b"x"),
        before=frame(TEXT, b"x"),
    ),
    **{
        f"opcode-{opcode}": Rule(
            PROTOCOL_ERROR, f"opcode {opcode} is reserved", frame(FIN | opcode, b"x")
        )
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "opcode-3-inside-a-message": Rule(
        PROTOCOL_ERROR, "opcode 3 is reserved", frame(FIN | 3, b"x"), before=frame(TEXT, b"x")
    ),
    **{
        f"length-{size}-in-{8 * form}-bits-{name}": Rule(
            PROTOCOL_ERROR, SHORTEST, frame(first, bytes(size), length_form=form), 2 + form
        )
        for size, form in ((0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8))
        for name, first in (("text", FIN | TEXT), ("binary", FIN | BINARY), ("fragment", TEXT))
    },
    "length-not-shortest-continuation": Rule(
        PROTOCOL_ERROR,
        SHORTEST,
        frame(FIN | CONTINUATION, b"x", length_form=2),
        4,
        before=frame(TEXT, b"x"),
    ),
    "length-of-64-bits": Rule(
        PROTOCOL_ERROR, HIGHEST_BIT, frame(FIN | BINARY, length=(1 << 64) - 1), 10
    ),
    "length-just-over-63-bits": Rule(
        PROTOCOL_ERROR, HIGHEST_BIT, frame(FIN | TEXT, length=1 << 63), 10
    ),
    "length-of-64-bits-continuation": Rule(
        PROTOCOL_ERROR,
        HIGHEST_BIT,
        frame(CONTINUATION, length=1 << 63),
        10,
        before=frame(BINARY, b"x"),
    ),
    # RFC 6455 section 5.4
    "continuation-of-nothing": Rule(
        PROTOCOL_ERROR,
        "a continuation frame with no message to continue",
        frame(CONTINUATION, b"x"),
    ),
    "final-continuation-of-nothing": Rule(
        PROTOCOL_ERROR,
        "a continuation frame with no message to continue",
        frame(FIN | CONTINUATION, b"x"),
    ),
    "continuation-of-a-complete-message": Rule(
        PROTOCOL_ERROR,
        "a continuation frame with no message to continue",
        frame(FIN | CONTINUATION, b"x"),
        before=frames((TEXT, b"a"), (FIN | CONTINUATION, b"b")),
        events=("ab",),
    ),
    **{
        f"{name}-inside-a-message": Rule(
            PROTOCOL_ERROR,
            "a new message inside a fragmented one",
            frame(first, b"x"),
            before=frame(TEXT, b"begun"),
        )
        for name, first in (
            ("text", FIN | TEXT),
            ("binary", FIN | BINARY),
            ("first-fragment", BINARY),
        )
    },
    # RFC 6455 section 5.5
    **{
        f"{name}-not-final": Rule(
            PROTOCOL_ERROR, "a control frame must not be fragmented", frame(first & 0x0F, b"")
        )
        for name, first in (("close", CLOSE), ("ping", PING), ("pong", PONG))
    },
    **{
        f"{name}-of-{size}": Rule(PROTOCOL_ERROR, OVERSIZE, frame(first, bytes(size)))
        for name, first in (("close", CLOSE), ("ping", PING), ("pong", PONG))
        for size in (126, 65536)
    },
    "ping-of-125-in-16-bits": Rule(PROTOCOL_ERROR, OVERSIZE, frame(PING, b"", length_form=2)),
    "ping-of-126-inside-a-message": Rule(
        PROTOCOL_ERROR, OVERSIZE, frame(PING, bytes(126)), before=frame(TEXT, b"x")
    ),
    # RFC 6455 sections 5.5.1 and 7.4
    "close-of-half-a-code": Rule(
        PROTOCOL_ERROR,
        "a close frame's payload of 1 byte is half a code",
        frame(CLOSE, b"\x03"),
        None,
    ),
    **{
        f"close-code-{code}": Rule(
            PROTOCOL_ERROR,
            f"close code {code} must not be sent",
            frame(CLOSE, code.to_bytes(2, "big") + b"why"),
            None,
        )
        for code in CLOSE_CODES_REFUSED
    },
    **{
        f"close-reason-{name}": Rule(
            BAD_DATA,
            "a close reason is not valid UTF-8",
            frame(CLOSE, b"\x03\xe8" + data),
            None,
        )
        for name, data in (
            *((name, bad.data) for name, bad in INVALID_UTF8.items()),
            *((f"truncated-{name}", data) for name, data in TRUNCATED_UTF8.items()),
        )
    },
    # RFC 6455 section 7.4.1, code 1009
    "message-over-the-limit": Rule(
        TOO_BIG, too_big(LIMIT + 1), frame(FIN | BINARY, length=LIMIT + 1), 10
    ),
    "text-over-the-limit": Rule(
        TOO_BIG, too_big(LIMIT + 1), frame(FIN | TEXT, b"x", length=LIMIT + 1), 10
    ),
    "message-of-63-bits": Rule(
        TOO_BIG, too_big((1 << 63) - 1), frame(FIN | BINARY, length=(1 << 63) - 1), 10
    ),
    "first-fragment-over-the-limit": Rule(
        TOO_BIG, too_big(LIMIT + 1), frame(BINARY, length=LIMIT + 1), 10
    ),
    "fragments-over-the-limit": Rule(
        TOO_BIG,
        too_big(LIMIT + 1),
        frame(CONTINUATION, length=LIMIT - 2),
        10,
        before=frame(BINARY, b"abc"),
    ),
}


@ends
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_that_the_peer_breaks(codec: ModuleType, rule: Rule, end: End) -> None:
    # What comes before is delivered, Failure is the last, and nothing follows it.
    before = end.wire(FIN | TEXT, b"before") + end.wire(PING, b"too")
    before += rule.before(end.peer_key)
    wrong = rule.wrong(end.peer_key)
    events = ["before", ("Ping", b"too"), *rule.events]
    failure = ("Failure", rule.code, rule.reason)
    data = before + wrong + end.wire(FIN | TEXT, b"after")

    connection = end.connect(codec)
    assert receive_in_pieces(connection, data, ()) == [*events, failure]
    assert connection.receive(end.wire(FIN | TEXT, b"later")) == []

    # Byte by byte it is refused as soon as it can be known, and not before.
    connection = end.connect(codec)
    seen_at = len(wrong) if rule.seen_at is None else rule.seen_at
    early = before + wrong[: seen_at - 1]
    assert receive_in_pieces(connection, early, byte_by_byte(early)) == events
    assert normals(connection.receive(wrong[seen_at - 1 : seen_at])) == [failure]
    for byte in wrong[seen_at:][:300] + end.wire(FIN | TEXT, b"after"):
        assert connection.receive(bytes([byte])) == []

    # What it says fits a close frame, and the peer understands it.
    peer = end.peer.connect(codec)
    answer = connection.close(rule.code, rule.reason)
    assert normals(peer.receive(answer)) == [("Close", rule.code, rule.reason)]


FIRSTS = {
    "text": FIN | TEXT,
    "binary": FIN | BINARY,
    "fragment": TEXT,
    "ping": PING,
    "pong": PONG,
    "close": CLOSE,
}


@pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)
@pytest.mark.parametrize(
    ("end", "wrong_key", "reason"),
    [
        (SERVER, None, "a client's frame must be masked"),
        (CLIENT, KEY, "a server's frame must not be masked"),
    ],
    ids=["server-of-an-unmasked", "client-of-a-masked"],
)
def test_a_frame_masked_as_it_must_not_be(
    codec: ModuleType, end: End, wrong_key: bytes | None, reason: str, first: int
) -> None:
    # RFC 6455 section 5.1
    before = end.wire(FIN | TEXT, b"before")
    wrong = by_hand(first, b"wrong", wrong_key)
    failure = ("Failure", PROTOCOL_ERROR, reason)
    check_both_ways(codec, end, before + wrong + before, ["before", failure])
    assert normals(end.connect(codec).receive(wrong[:2])) == [failure]
    inside = end.wire(TEXT, b"begun") + by_hand(FIN | CONTINUATION, b"wrong", wrong_key)
    check_both_ways(codec, end, inside, [failure])


# Text that is not UTF-8 (RFC 6455 section 8.1) ----------------------------------------------------

NOT_UTF8 = ("Failure", BAD_DATA, "a text message is not valid UTF-8")
bad_texts = pytest.mark.parametrize("bad", INVALID_UTF8.values(), ids=INVALID_UTF8)
cut_texts = pytest.mark.parametrize("data", TRUNCATED_UTF8.values(), ids=TRUNCATED_UTF8)


@ends
@bad_texts
def test_bad_text_in_one_frame(codec: ModuleType, bad: Bad, end: End) -> None:
    before = end.wire(FIN | TEXT, "vörher".encode())
    wire = before + end.wire(FIN | TEXT, b"good" + bad.data) + before
    check_both_ways(codec, end, wire, ["vörher", NOT_UTF8])


@ends
@bad_texts
def test_bad_text_is_refused_at_its_first_bad_byte(codec: ModuleType, bad: Bad, end: End) -> None:
    # In the middle of a frame of which most has not come, and never will.
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
def test_bad_text_is_refused_across_fragments(codec: ModuleType, bad: Bad, end: End) -> None:
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
def test_a_character_does_not_go_on_in_the_next_message(
    codec: ModuleType, data: bytes, end: End
) -> None:
    wire = end.wire(FIN | TEXT, data) + end.wire(FIN | TEXT, b"\xa9")
    check_both_ways(codec, end, wire, [NOT_UTF8])


@ends
@bad_texts
def test_bad_text_does_not_hide_what_came_before_it(codec: ModuleType, bad: Bad, end: End) -> None:
    wire = b"".join(end.wire(FIN | TEXT, b"%d" % i) for i in range(50))
    wire += end.wire(PING, b"x") + end.wire(FIN | TEXT, bad.data)
    events = [*(str(i) for i in range(50)), ("Ping", b"x"), NOT_UTF8]
    check_both_ways(codec, end, wire, events)


# The closing handshake (RFC 6455 sections 5.5.1 and 7) --------------------------------------------


@ends
@pytest.mark.parametrize("code", CLOSE_CODES_ALLOWED)
def test_a_close_with_this_code_arrives(codec: ModuleType, code: int, end: End) -> None:
    payload = code.to_bytes(2, "big")
    check_both_ways(codec, end, end.wire(CLOSE, payload), [("Close", code, "")])
    why = end.wire(CLOSE, payload + "why ✓".encode())
    check_both_ways(codec, end, why, [("Close", code, "why ✓")])


@ends
def test_a_close_without_a_code_is_1005(codec: ModuleType, end: End) -> None:
    check_both_ways(codec, end, end.wire(CLOSE), [("Close", 1005, "")])


@ends
def test_a_close_with_the_longest_reason(codec: ModuleType, end: End) -> None:
    wire = end.wire(CLOSE, b"\x03\xe8" + b"r" * 123)
    check_both_ways(codec, end, wire, [("Close", NORMAL, "r" * 123)])


@ends
def test_nothing_is_read_after_a_close(codec: ModuleType, end: End) -> None:
    after = end.wire(FIN | TEXT, b"after")
    wire = end.wire(FIN | TEXT, b"before") + end.wire(CLOSE, b"\x03\xe8") + after
    connection = end.connect(codec)
    assert normals(connection.receive(wire)) == ["before", ("Close", NORMAL, "")]
    for more in (b"", after, b"\xff" * 20, end.wire(CLOSE)):
        assert connection.receive(more) == []


@ends
def test_close_flags(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    assert (connection.close_sent, connection.close_received) == (False, False)
    connection.receive(end.wire(CLOSE))
    assert (connection.close_sent, connection.close_received) == (False, True)
    connection.close()
    assert (connection.close_sent, connection.close_received) == (True, True)


@ends
def test_a_failure_is_not_a_close(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    connection.receive(end.wire(CLOSE, b"\x03"))
    assert (connection.close_sent, connection.close_received) == (False, False)


@ends
def test_messages_still_arrive_after_our_close(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    connection.close()
    wire = end.wire(FIN | TEXT, b"late") + end.wire(PING) + end.wire(CLOSE, b"\x03\xe8")
    assert normals(connection.receive(wire)) == ["late", ("Ping", b""), ("Close", NORMAL, "")]


SENDING: dict[str, Callable[[Any], bytes]] = {
    "text": lambda connection: connection.encode("text"),
    "binary": lambda connection: connection.encode(b"data"),
    "ping": lambda connection: connection.ping(b"x"),
    "pong": lambda connection: connection.pong(b"x"),
    "close": lambda connection: connection.close(1001, "again"),
}
sending = pytest.mark.parametrize("send", SENDING.values(), ids=SENDING)


@ends
@sending
def test_nothing_may_be_sent_after_our_close(
    codec: ModuleType, send: Callable[[Any], bytes], end: End
) -> None:
    connection = end.connect(codec)
    connection.close()
    for _ in range(2):
        with pytest.raises(codec.StateError, match=r"^the close frame has been sent; no"):
            send(connection)


@ends
@sending
@pytest.mark.parametrize("last", ["close", "failure"])
def test_what_came_before_the_end_can_still_be_answered(
    codec: ModuleType, last: str, send: Callable[[Any], bytes], end: End
) -> None:
    connection = end.connect(codec)
    final = end.wire(CLOSE) if last == "close" else end.wire(FIN | RSV1 | TEXT)
    events = normals(connection.receive(end.wire(FIN | TEXT, b"question") + final))
    assert [events[0], events[1][0]] == ["question", last.title()]
    assert send(connection)


def sent_by(codec: ModuleType, end: End, wire: bytes) -> list[Any]:
    """What the other end understands of these bytes."""
    return normals(end.peer.connect(codec).receive(wire))


@ends
@pytest.mark.parametrize("code", CLOSE_CODES_ALLOWED)
def test_close_sends_this_code(codec: ModuleType, code: int, end: End) -> None:
    assert sent_by(codec, end, end.connect(codec).close(code)) == [("Close", code, "")]
    wire = end.connect(codec).close(code, "grün")
    assert sent_by(codec, end, wire) == [("Close", code, "grün")]


@ends
def test_close_is_1000_by_default(codec: ModuleType, end: End) -> None:
    assert sent_by(codec, end, end.connect(codec).close()) == [("Close", NORMAL, "")]


@ends
@pytest.mark.parametrize("reason", ["r" * 123, "é" * 61 + "r"], ids=["ascii", "utf-8"])
def test_close_sends_a_reason_of_123_bytes(codec: ModuleType, reason: str, end: End) -> None:
    wire = end.connect(codec).close(NORMAL, reason)
    assert sent_by(codec, end, wire) == [("Close", NORMAL, reason)]


def test_close_frames_byte_for_byte(codec: ModuleType) -> None:
    assert SERVER.connect(codec).close() == b"\x88\x02\x03\xe8"
    assert SERVER.connect(codec).close(1001, "bye") == b"\x88\x05\x03\xe9bye"
    assert SERVER.connect(codec).close(1005) == b"\x88\x00"
    wire = CLIENT.connect(codec).close(1005)
    assert (wire[:2], len(wire)) == (b"\x88\x80", 6)


@ends
def test_every_received_close_code_can_be_returned(codec: ModuleType, end: End) -> None:
    for payload in (b"", *(code.to_bytes(2, "big") for code in CLOSE_CODES_ALLOWED)):
        connection = end.connect(codec)
        (event,) = connection.receive(end.wire(CLOSE, payload))
        wire = connection.close(event.code)
        assert sent_by(codec, end, wire) == [("Close", event.code, "")]


WRONG_CLOSES: dict[str, tuple[int, str, str]] = {
    **{
        f"code-{code}": (code, "", f"close code {code} must not be sent")
        for code in (*CLOSE_CODES_REFUSED, -1, 65536, 1 << 70)
        if code != 1005
    },
    "reason-without-a-code": (1005, "why", "a close frame without a code cannot carry a reason"),
    "reason-of-124-bytes": (1000, "r" * 124, "at most 123 bytes of UTF-8, not 124"),
    "reason-of-62-characters": (1000, "é" * 62, "at most 123 bytes of UTF-8, not 124"),
    "reason-that-is-no-text": (1000, "\ud800", "surrogates not allowed"),
}


@ends
@pytest.mark.parametrize(("code", "reason", "text"), WRONG_CLOSES.values(), ids=WRONG_CLOSES.keys())
def test_close_refuses_and_leaves_the_connection_open(
    codec: ModuleType, code: int, reason: str, text: str, end: End
) -> None:
    connection = end.connect(codec)
    with pytest.raises(ValueError, match=text):
        connection.close(code, reason)
    assert not connection.close_sent
    assert sent_by(codec, end, connection.encode("on")) == ["on"]
    assert connection.receive(end.wire(FIN | TEXT, b"on")) == ["on"]
    assert sent_by(codec, end, connection.close()) == [("Close", NORMAL, "")]


# Sending ------------------------------------------------------------------------------------------


@ends
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_encode_gives_messages_to_the_other_end(codec: ModuleType, size: int, end: End) -> None:
    connection = end.connect(codec)
    for message in (payload_of(size), "x" * size, "é" * (size // 2), bytearray(size)):
        wire = connection.encode(message)
        assert type(wire) is bytes
        expected = message if isinstance(message, str) else bytes(message)
        assert sent_by(codec, end, wire) == [expected]


@ends
def test_encode_takes_any_bytes_like_object_as_binary(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    numbers = array.array("I", [1, 2, 1 << 31])
    for message in (numbers, memoryview(numbers), memoryview(numbers).cast("B")):
        assert sent_by(codec, end, connection.encode(message)) == [numbers.tobytes()]


@ends
def test_encode_of_what_is_no_message_is_an_error(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    for message in (None, 5, ["x"]):
        with pytest.raises(TypeError, match="bytes-like object is required"):
            connection.encode(message)
    with pytest.raises(UnicodeEncodeError):
        connection.encode("\ud800")
    assert sent_by(codec, end, connection.encode("on")) == ["on"]


def test_a_server_does_not_mask_and_a_client_does(codec: ModuleType) -> None:
    # RFC 6455 section 5.1
    for send in SENDING.values():
        assert not send(SERVER.connect(codec))[1] & 0x80
        assert send(CLIENT.connect(codec))[1] & 0x80


def test_a_client_masks_every_frame_with_another_key(codec: ModuleType) -> None:
    client = CLIENT.connect(codec)
    wires = [client.encode(b""), client.encode(b""), client.ping(), client.pong(), client.close()]
    assert len({wire[2:6] for wire in wires}) == len(wires)


@ends
@pytest.mark.parametrize("name", ["ping", "pong"])
def test_ping_and_pong_carry_125_bytes(codec: ModuleType, name: str, end: End) -> None:
    connection = end.connect(codec)
    send = getattr(connection, name)
    assert sent_by(codec, end, send()) == [(name.title(), b"")]
    assert sent_by(codec, end, send(payload_of(125))) == [(name.title(), payload_of(125))]
    with pytest.raises(ValueError, match="a control frame carries at most 125 bytes, not 126"):
        send(bytes(126))
    assert sent_by(codec, end, send(b"on")) == [(name.title(), b"on")]


# Limits -------------------------------------------------------------------------------------------


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
def test_control_frames_are_not_under_the_limit(codec: ModuleType, end: End) -> None:
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


@pytest.mark.parametrize(("size", "fragments"), [(16, 1024), (1 << 20, 1 << 16), (32_000, 2000)])
def test_fragments_are_limited_by_default(codec: ModuleType, size: int, fragments: int) -> None:
    connection = CLIENT.connect(codec, max_message_size=size)
    assert connection.receive(b"\x02\x00" + b"\x00\x00" * (fragments - 1)) == []
    (failure,) = connection.receive(b"\x00\x00")
    assert failure.reason == f"a message in more fragments than the limit of {fragments}"


@pytest.mark.parametrize("size", [0, -1, sys.maxsize + 1])
def test_max_message_size_must_be_a_size(codec: ModuleType, size: int) -> None:
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


@ends
@pytest.mark.parametrize("length", [LIMIT + 1, (1 << 63) - 1, (1 << 64) - 1])
def test_no_memory_is_taken_for_what_is_refused(codec: ModuleType, length: int, end: End) -> None:
    wire = end.wire(FIN | BINARY, b"x", length=length)
    connection = end.connect(codec)
    assert traced_peak(lambda: connection.receive(wire)) < 20_000


@ends
def test_no_memory_is_taken_before_the_payload_comes(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    wire = end.wire(FIN | BINARY, b"x", length=LIMIT)
    assert traced_peak(lambda: connection.receive(wire)) < 20_000


@ends
def test_a_long_message_in_small_reads_is_not_copied_over_and_over(
    codec: ModuleType, end: End
) -> None:
    wire = end.wire(FIN | BINARY, payload_of(LIMIT))
    connection = end.connect(codec)
    events: list[Any] = []

    def work() -> None:
        for begin in range(0, len(wire), 1024):
            events.extend(connection.receive(wire[begin : begin + 1024]))

    # The message as it grows, and the message.
    assert traced_peak(work) < 3 * LIMIT
    assert events == [payload_of(LIMIT)]


@ends
@pytest.mark.parametrize("first", [CLOSE, TEXT], ids=["close", "failure"])
def test_at_the_end_a_message_that_has_begun_is_let_go(
    codec: ModuleType, first: int, end: End
) -> None:
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


# What a connection is given -----------------------------------------------------------------------


@ends
def test_the_buffer_may_be_reused(codec: ModuleType, end: End) -> None:
    data = b"".join(
        [
            end.wire(FIN | TEXT, b"text"),
            end.wire(FIN | BINARY, b"binary"),
            end.wire(PING, b"ping"),
            end.wire(TEXT, b"frag"),
            end.wire(FIN | CONTINUATION, b"ment"),
            end.wire(FIN | BINARY, payload_of(300)),
            end.wire(CLOSE, b"\x03\xe8reason"),
        ]
    )
    expected = ["text", b"binary", ("Ping", b"ping"), "fragment", payload_of(300)]
    for step in (1, 2, 3, 7, 50, len(data)):
        connection = end.connect(codec)
        buffer = bytearray(len(data))
        events: list[Any] = []
        for begin in range(0, len(data), step):
            chunk = data[begin : begin + step]
            buffer[: len(chunk)] = chunk
            with memoryview(buffer)[: len(chunk)] as view:
                events += connection.receive(view)
            buffer[:] = b"\xff" * len(buffer)
        assert normals(events) == [*expected, ("Close", NORMAL, "reason")]
        buffer.clear()  # BufferError if anything still looks into it


RELEASED = memoryview(b"")
RELEASED.release()

BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array-of-integers": lambda data: array.array("I", data),
    "view-of-integers": lambda data: memoryview(data).cast("I"),
    "two-dimensions": lambda data: memoryview(data).cast("B", (2, len(data) // 2)),
    "ctypes-in-the-other-byte-order": lambda data: (
        ctypes.c_uint.__ctype_be__ * (len(data) // 4)
    ).from_buffer_copy(data),
}


@ends
@pytest.mark.parametrize("convert", BUFFERS.values(), ids=BUFFERS)
def test_receive_takes_any_bytes_like_object(
    codec: ModuleType, convert: Callable[[bytes], Any], end: End
) -> None:
    parts = [(FIN | TEXT, b"text"), (PING, b"x"), (BINARY, b"abc"), (FIN | CONTINUATION, b"d")]
    wire = b"".join(end.wire(first, payload) for first, payload in parts) * 8
    assert len(wire) % 8 == 0
    events = ["text", ("Ping", b"x"), b"abcd"] * 8
    for cut in (0, 8, 16, 24, len(wire)):
        connection = end.connect(codec)
        received = connection.receive(convert(wire[:cut])) if cut else []
        received += connection.receive(convert(wire[cut:])) if wire[cut:] else []
        assert normals(received) == events


@ends
@pytest.mark.parametrize("state", ["between", "in-a-head", "in-a-payload", "in-a-message"])
@pytest.mark.parametrize(
    "data",
    ["text", 5, None, [1], memoryview(bytes(8))[::2], RELEASED],
    ids=["str", "int", "None", "list", "gaps", "released-view"],
)
def test_what_is_not_bytes_is_an_error_that_changes_nothing(
    codec: ModuleType, data: Any, state: str, end: End
) -> None:
    wire = end.wire(TEXT, b"ab") + end.wire(FIN | CONTINUATION, b"cd") + end.wire(PING, b"x")
    head = 6 if end.peer_key else 2
    cut = {"between": 0, "in-a-head": 1, "in-a-payload": head + 1, "in-a-message": head + 2}[state]
    connection = end.connect(codec)
    assert connection.receive(wire[:cut]) == []
    for _ in range(2):
        with pytest.raises(ValueError if data is RELEASED else TypeError):
            connection.receive(data)
    assert normals(connection.receive(wire[cut:])) == ["abcd", ("Ping", b"x")]


def test_what_is_not_bytes_is_an_error_after_the_end_too(codec: ModuleType) -> None:
    connection = CLIENT.connect(codec)
    connection.receive(b"\x88\x00")
    wrong: Any = "text"
    with pytest.raises(TypeError):
        connection.receive(wrong)


def test_role_is_one_of_two(codec: ModuleType) -> None:
    assert SERVER.connect(codec).role is codec.Role.SERVER
    assert CLIENT.connect(codec).role is codec.Role.CLIENT
    with pytest.raises(ValueError, match="is not a valid Role"):
        codec.Connection("proxy")


def test_subprotocol_is_kept(codec: ModuleType) -> None:
    assert SERVER.connect(codec).subprotocol is None
    assert SERVER.connect(codec, subprotocol="chat").subprotocol == "chat"


def test_a_connection_has_no_room_for_misspelt_attributes(codec: ModuleType) -> None:
    connection = SERVER.connect(codec)
    with pytest.raises(AttributeError):
        connection.max_message_sise = 1


# One owner at a time ------------------------------------------------------------------------------


@ends
def test_two_threads_in_receive_are_an_error_and_corrupt_nothing(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    take_messages = codec.connection.take_messages

    def waiting(*arguments: Any) -> int:
        inside.set()
        assert go_on.wait(30)
        left: int = take_messages(*arguments)
        return left

    connection = end.connect(codec)
    wire = end.wire(FIN | TEXT, b"first")
    events: list[Any] = []
    thread = threading.Thread(target=lambda: events.extend(connection.receive(wire + wire[:3])))
    with monkeypatch.context() as patch:
        patch.setattr(codec.connection, "take_messages", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"^another thread is in receive\(\)"):
                    connection.receive(end.wire(FIN | TEXT, b"second"))
        finally:
            go_on.set()
            thread.join()
    assert events == ["first"]
    assert normals(connection.receive(wire[3:] + end.wire(PING))) == ["first", ("Ping", b"")]


@pytest.mark.parametrize(
    ("end", "kernel"),
    [
        (SERVER, "take_messages"),
        (SERVER, "take_frame"),
        (SERVER, "parse_frame"),
        (SERVER, "mask"),
        (CLIENT, "take_messages"),
        (CLIENT, "take_frame"),
        (CLIENT, "parse_frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.role,
)
def test_nothing_is_read_after_an_error_that_lost_the_place(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, kernel: str, end: End
) -> None:
    # Where the next frame begins is not known any more, and what is inside one must not become one.
    def no_memory(*arguments: Any) -> Any:
        raise MemoryError

    connection = end.connect(codec)
    with monkeypatch.context() as patch:
        patch.setattr(codec.connection, kernel, no_memory)
        with pytest.raises(MemoryError):
            connection.receive(end.wire(PING, b"x") + end.wire(FIN | TEXT, b"not whole")[:-1])
    assert connection.receive(end.wire(FIN | TEXT, b"after")) == []
    assert connection.receive(end.wire(FIN | TEXT, b"after")) == []


# Any split, any stream ----------------------------------------------------------------------------


@st.composite
def messages_and_frames(draw: st.DrawFn) -> tuple[list[Any], list[tuple[int, bytes]]]:
    """The events of a stream, in normal form, and its frames: (first byte, payload)."""
    events: list[Any] = []
    parts: list[tuple[int, bytes]] = []
    controls = st.lists(
        st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)), max_size=2
    )

    def control() -> None:
        for first, payload in draw(controls):
            parts.append((first, payload))
            events.append(("Ping" if first == PING else "Pong", payload))

    for _ in range(draw(st.integers(0, 5))):
        message: Any = draw(st.text(max_size=60) | st.binary(max_size=200))
        data = message.encode() if isinstance(message, str) else message
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        for i, piece in enumerate(pieces):
            control()
            opcode = CONTINUATION if i else TEXT if isinstance(message, str) else BINARY
            parts.append((opcode | FIN * (i == len(pieces) - 1), piece))
        events.append(message)
    control()
    return events, parts


@ends
@given(data=st.data(), stream=messages_and_frames())
def test_any_split_gives_the_same_events(
    codec: ModuleType, end: End, data: st.DataObject, stream: tuple[list[Any], Any]
) -> None:
    events, parts = stream
    keys = st.binary(min_size=4, max_size=4) if end.peer_key else st.none()
    wire = b"".join(by_hand(first, payload, data.draw(keys)) for first, payload in parts)
    assert receive_in_pieces(end.connect(codec), wire, ()) == events
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    assert receive_in_pieces(end.connect(codec), wire, cuts) == events


@ends
@given(noise=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_noise_gives_the_same_events_however_it_is_cut(
    codec: ModuleType, end: End, noise: bytes, cuts: list[int]
) -> None:
    whole = receive_in_pieces(end.connect(codec), noise, ())
    assert receive_in_pieces(end.connect(codec), noise, sorted(cuts)) == whole
    for event in whole[:-1]:
        assert not isinstance(event, tuple) or event[0] in ("Ping", "Pong")


@given(
    script=st.lists(
        st.one_of(
            st.tuples(st.just("encode"), st.text(max_size=50) | st.binary(max_size=300)),
            st.tuples(st.sampled_from(["ping", "pong"]), st.binary(max_size=125)),
        )
    ),
    code=st.sampled_from(CLOSE_CODES_ALLOWED),
    reason=st.text(max_size=30),
    step=st.integers(1, 50),
)
@ends
def test_what_one_end_sends_the_other_receives(
    codec: ModuleType, end: End, script: list[Any], code: int, reason: str, step: int
) -> None:
    sender = end.connect(codec)
    receiver = end.peer.connect(codec)
    wire = b"".join(getattr(sender, name)(argument) for name, argument in script)
    wire += sender.close(code, reason)
    expected = [
        argument if name == "encode" else (name.title(), argument) for name, argument in script
    ]
    events = receive_in_pieces(receiver, wire, range(step, len(wire), step))
    assert events == [*expected, ("Close", code, reason)]
    assert (sender.close_sent, receiver.close_received) == (True, True)

"""Invalid frames: the connection fails with the close code that the RFC requires."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.codec.connection.helpers import LIMIT, byte_by_byte, check_both_ways
from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    FIN,
    KEY,
    PING,
    PONG,
    PROTOCOL_ERROR,
    SERVER,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces
from tests.support.vectors import (
    CLOSE_CODES_REFUSED,
    INVALID_UTF8,
    TRUNCATED_UTF8,
    by_hand,
)

Maker = Callable[[bytes | None], bytes]


def frames(*parts: tuple[int, bytes]) -> Maker:
    return lambda key: b"".join(by_hand(first, payload, key) for first, payload in parts)


def frame(first: int, payload: bytes = b"", **how: int) -> Maker:
    return lambda key: by_hand(first, payload, key, **how)


class Rule(NamedTuple):
    """A violation of the protocol, and the expected failure."""

    code: int
    reason: str
    wrong: Maker
    #: The number of bytes of ``wrong`` after which the connection must fail; None for all.
    seen_at: int | None = 2
    #: Valid data before it, and the events of that data.
    before: Maker = frames()
    events: tuple[Any, ...] = ()


OVERSIZE = "a control frame carries at most 125 bytes"


RESERVED_BIT = "a reserved bit is set and no extension was negotiated"


SHORTEST = "a payload length must use its shortest form"


HIGHEST_BIT = "the highest bit of a payload length must be 0"


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
        "a close frame's payload of 1 byte is too short for a close code",
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
def test_a_violation_of_the_protocol(codec: ModuleType, rule: Rule, end: End) -> None:
    # Earlier events are delivered, Failure is the last event, and nothing follows it.
    before = end.wire(FIN | TEXT, b"before") + end.wire(PING, b"too")
    before += rule.before(end.peer_key)
    wrong = rule.wrong(end.peer_key)
    events = ["before", ("Ping", b"too"), *rule.events]
    failure = ("Failure", rule.code, rule.reason)
    data = before + wrong + end.wire(FIN | TEXT, b"after")

    connection = end.connect(codec)
    assert receive_in_pieces(connection, data, ()) == [*events, failure]
    assert connection.receive(end.wire(FIN | TEXT, b"later")) == []

    # Byte by byte, the connection fails at the first possible byte, and not before.
    connection = end.connect(codec)
    seen_at = len(wrong) if rule.seen_at is None else rule.seen_at
    early = before + wrong[: seen_at - 1]
    assert receive_in_pieces(connection, early, byte_by_byte(early)) == events
    assert normals(connection.receive(wrong[seen_at - 1 : seen_at])) == [failure]
    for byte in wrong[seen_at:][:300] + end.wire(FIN | TEXT, b"after"):
        assert connection.receive(bytes([byte])) == []

    # The reason fits into a close frame, and the peer decodes it.
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
def test_a_frame_with_wrong_masking(
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

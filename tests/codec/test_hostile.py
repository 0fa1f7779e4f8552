"""The memory that hostile peers cost at most, each measured in a new process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from random import Random
from types import ModuleType

import pytest

from tests.support.deflated import TAIL, bomb, ended, squeezed
from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CLIENT,
    CONTINUATION,
    FIN,
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
from tests.support.hostile import Answer, Talk, listen
from tests.support.memory import at_most, in_fresh_process
from wsframe import Close, Failure, PerMessageDeflate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.unmeasured,
    pytest.mark.skipif(sys.platform == "win32", reason="no peak to be read"),
]

MIB = 1 << 20
# The memory of a peer besides the message: a decompressor and the output of one step, the events of
# a read, and caches of the interpreter. Observed: 0.4 MiB.
SLACK = MIB

DEFAULT_LIMIT = MIB
READS = {"1-KiB": 1 << 10, "64-KiB": 1 << 16, "whole": 1 << 30}
reads = pytest.mark.parametrize("step", READS.values(), ids=READS)

TAKEOVER = PerMessageDeflate()
NO_TAKEOVER = PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True)

INFLATES = r"a message that inflates to \d+ bytes or more is over the limit of {limit}"
TOO_LONG = r"a message of \d+ bytes or more is over the limit of {limit}"
TOO_MANY = r"a message in more fragments than the limit of {limit}"


def heard(codec: ModuleType, talks: Iterable[Talk]) -> tuple[int, list[Answer]]:
    """Return the most memory for these peers, and the answers."""
    return in_fresh_process(not codec.ACCELERATED, listen, list(talks))


MANY = 50_000  # frames: an object of 21 bytes kept for each would exceed SLACK
TOO_MANY_FOR_ANY_LIMIT = 70_000


def blocks(end: End, first: int, payload: bytes, count: int) -> list[tuple[bytes, int]]:
    """Repeat a frame, in blocks of about 256 KiB."""
    frame = end.wire(first, payload)
    block = min(count, (1 << 18) // len(frame))
    return [(frame * block, count // block), (frame * (count % block), 1)]


def refused(answer: Answer, code: int, reason: str) -> bool:
    """Return True if the peer received this failure."""
    assert isinstance(answer.last, Failure), answer
    return answer.last.code == code and bool(re.fullmatch(reason, answer.last.reason))


# Decompression ------------------------------------------------------------------------------------

large_bomb = cache(lambda: bomb(40 * MIB))  # about 40 KiB


@reads
@pytest.mark.parametrize("limit", [MIB, 8 * MIB], ids=["1-MiB", "8-MiB"])
def test_a_bomb_takes_no_more_memory_than_the_limit(
    codec: ModuleType, step: int, limit: int
) -> None:
    bombs = product((SERVER, CLIENT), (TEXT, BINARY), (TAKEOVER, NO_TAKEOVER))
    growth, answers = heard(
        codec,
        (
            Talk(
                end.role,
                [(end.wire(FIN | RSV1 | opcode, large_bomb()), 1)],
                step,
                {"max_message_size": limit, "deflate": deflate},
            )
            for end, opcode, deflate in bombs
        ),
    )
    assert all(refused(answer, TOO_BIG, INFLATES.format(limit=limit)) for answer in answers)
    assert growth < at_most(limit + SLACK)


def fragmented(end: End, payload: bytes, size: int) -> bytes:
    """Yield a compressed message in frames of this size, without the last one."""
    firsts = [RSV1 | BINARY, *[CONTINUATION] * (len(payload) // size)]
    return b"".join(
        end.wire(first, payload[i * size : (i + 1) * size]) for i, first in enumerate(firsts)
    )


@reads
def test_a_bomb_in_fragments(codec: ModuleType, step: int) -> None:
    bombs = product((SERVER, CLIENT), (10, 100, 5000, 200_000))
    growth, answers = heard(
        codec,
        (
            Talk(end.role, [(fragmented(end, large_bomb(), size), 1)], step, {"deflate": TAKEOVER})
            for end, size in bombs
        ),
    )
    assert all(refused(answer, TOO_BIG, INFLATES.format(limit=DEFAULT_LIMIT)) for answer in answers)
    assert growth < at_most(DEFAULT_LIMIT + SLACK)


@ends
@reads
def test_a_bomb_of_many_streams(codec: ModuleType, step: int, end: End) -> None:
    # RFC 7692 section 7.2.3.4: a stream may end inside a message.
    full = end.wire(FIN | RSV1 | TEXT, ended(bytes(MIB // 4)) * 40)
    empty = end.wire(FIN | RSV1 | TEXT, ended(b"") * 100_000)
    options = {"deflate": TAKEOVER, "max_fragments": 10_000}
    talks = [Talk(end.role, [(wire, 1)], step, options) for wire in (full, empty)]
    growth, (full_answer, empty_answer) = heard(codec, talks)
    assert refused(full_answer, TOO_BIG, INFLATES.format(limit=DEFAULT_LIMIT))
    assert refused(empty_answer, TOO_BIG, TOO_MANY.format(limit=10_000))
    assert growth < at_most(DEFAULT_LIMIT + SLACK)


@ends
@reads
def test_a_long_stream_that_inflates_to_nothing(codec: ModuleType, step: int, end: End) -> None:
    nothing = (b"\x00" + TAIL) * 13_000
    first, more = end.wire(RSV1 | BINARY, nothing), end.wire(CONTINUATION, nothing)
    talk = Talk(end.role, [(first, 1), (more, 1000)], step, {"deflate": TAKEOVER})
    growth, (answer,) = heard(codec, [talk])
    assert refused(answer, TOO_BIG, TOO_LONG.format(limit=DEFAULT_LIMIT))
    assert answer.at + len(more) > 2 * DEFAULT_LIMIT
    assert growth < at_most(SLACK)


# Announced lengths --------------------------------------------------------------------------------


@ends
def test_a_header_with_a_length_over_the_limit_fails_at_once(codec: ModuleType, end: End) -> None:
    begun = [
        (FIN | BINARY, b""),
        (FIN | TEXT, b""),
        (TEXT, b""),
        (FIN | CONTINUATION, end.wire(BINARY, b"begun")),
        (CONTINUATION, end.wire(TEXT, b"begun")),
        (FIN | RSV1 | TEXT, b""),
        (RSV1 | BINARY, b""),
        (CONTINUATION, end.wire(RSV1 | TEXT, squeezed(b"begun"))),
    ]
    highest_bit = "the highest bit of a payload length must be 0"
    promises = {
        (1 << 63) - 1: (TOO_BIG, TOO_LONG.format(limit=DEFAULT_LIMIT)),
        1 << 63: (PROTOCOL_ERROR, highest_bit),
        (1 << 64) - 1: (PROTOCOL_ERROR, highest_bit),
    }
    cases = list(product(begun, promises.items()))
    talks = []
    for (first, before), (length, _) in cases:
        head = end.wire(first, length=length)
        talks.append(Talk(end.role, [(before + head, 1)], 1, {"deflate": TAKEOVER}))
    growth, answers = heard(codec, talks)
    for ((_, before), (_, (code, reason))), answer in zip(cases, answers, strict=True):
        assert refused(answer, code, reason)
        assert answer.at == len(before) + 10  # not one byte later, not even for the masking key
    assert growth < at_most(SLACK)


@ends
def test_a_length_within_the_limit_takes_no_memory(codec: ModuleType, end: End) -> None:
    options = {"max_message_size": sys.maxsize, "deflate": TAKEOVER}
    heads = [
        end.wire(first, b"begun", length=sys.maxsize) for first in (BINARY, FIN | RSV1 | BINARY)
    ]
    growth, answers = heard(codec, [Talk(end.role, [(head, 1)], 7, options) for head in heads])
    assert answers == [Answer(), Answer()]
    assert growth < at_most(SLACK)


# Very many frames ---------------------------------------------------------------------------------


@ends
@pytest.mark.parametrize("limit", [DEFAULT_LIMIT, MIB // 64], ids=["default", "small"])
def test_a_message_in_many_fragments_fails(codec: ModuleType, limit: int, end: End) -> None:
    options = {"max_message_size": limit} if limit < MIB else {}
    talks = []
    for opcode, payload in product((TEXT, BINARY), (b"x", b"")):
        more = blocks(end, CONTINUATION, payload, TOO_MANY_FOR_ANY_LIMIT)
        talks.append(Talk(end.role, [(end.wire(opcode, payload), 1), *more], options=options))
    growth, answers = heard(codec, talks)
    for answer in answers:
        assert refused(answer, TOO_BIG, TOO_MANY.format(limit=max(1024, limit // 16)))
    assert growth < at_most(SLACK)


@ends
@pytest.mark.parametrize("payload", [b"x", b""], ids=["one-byte", "empty"])
def test_a_message_in_many_fragments_may_be_allowed(
    codec: ModuleType, payload: bytes, end: End
) -> None:
    parts = [
        (end.wire(TEXT), 1),
        *blocks(end, CONTINUATION, payload, MANY),
        (end.wire(FIN | CONTINUATION), 1),
    ]
    talk = Talk(end.role, parts, options={"max_fragments": MANY + 2})
    growth, (answer,) = heard(codec, [talk])
    assert answer.last == "x" * (MANY * len(payload))
    assert answer.kinds == {"str": 1}
    twice = 2 * MANY * len(payload)  # the collected message, and the delivered one
    assert growth < at_most(twice + SLACK)


@ends
def test_a_compressed_message_in_many_fragments(codec: ModuleType, end: End) -> None:
    # Stored blocks of one byte, with empty frames between them.
    count, size = 4, MANY // 10
    block = b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
    parts = [(end.wire(RSV1 | TEXT), 1)]
    for _ in range(count):
        parts += blocks(end, CONTINUATION, b"", size)
        parts += [(end.wire(CONTINUATION, block), 1), *blocks(end, CONTINUATION, b"x", size)]
    parts += [(end.wire(FIN | CONTINUATION, b"\x00"), 1)]
    options = {"max_fragments": 3 * count * size, "deflate": TAKEOVER}
    growth, (answer,) = heard(codec, [Talk(end.role, parts, options=options)])
    assert answer.last == "x" * (count * size)
    assert growth < at_most(2 * count * size + SLACK)


@ends
@pytest.mark.parametrize("first", [PING, PONG], ids=["ping", "pong"])
@pytest.mark.parametrize(
    ("size", "step", "share"), [(125, 1 << 16, 1), (125, 1 << 10, 5), (0, 1 << 16, 2)]
)
def test_many_control_frames_take_no_memory(
    codec: ModuleType, first: int, size: int, step: int, share: int, end: End
) -> None:
    count = MANY // share
    talk = Talk(end.role, blocks(end, first, bytes(size), count), step)
    growth, (answer,) = heard(codec, [talk])
    assert answer.kinds == {"Ping" if first == PING else "Pong": count}
    assert answer.most <= step // len(end.wire(first, bytes(size))) + 1
    events = 128 * answer.most  # the events of this read and of the previous one
    assert growth < at_most(events + SLACK)


@ends
@pytest.mark.parametrize("compression", [0, RSV1], ids=["plain", "compressed"])
def test_control_frames_inside_a_message_take_no_memory(
    codec: ModuleType, compression: int, end: End
) -> None:
    count = MANY // 2
    payload = squeezed(b"begun, ended") if compression else b"begun, ended"
    parts = [(end.wire(TEXT | compression, payload[:5]), 1)]
    for first in (PING, PONG):
        parts += blocks(end, first, bytes(125), count)
    parts += [(end.wire(FIN | CONTINUATION, payload[5:]), 1)]
    growth, (answer,) = heard(codec, [Talk(end.role, parts, options={"deflate": TAKEOVER})])
    assert answer.kinds == {"Ping": count, "Pong": count, "str": 1}
    assert answer.last == "begun, ended"
    assert growth < at_most(SLACK)


# Random data --------------------------------------------------------------------------------------


def noise(random: Random, end: End) -> bytes:
    """Yield random bytes."""
    return random.randbytes(2000)


def flipped(random: Random, end: End) -> bytes:
    """Yield valid frames with some flipped bits."""
    frames = bytearray(
        b"".join(
            end.wire(
                random.choice([FIN | TEXT, FIN | BINARY, PING, PONG, FIN | RSV1 | TEXT]),
                squeezed(b"x" * random.randrange(100)),
            )
            for _ in range(50)
        )
    )
    for _ in range(50):
        frames[random.randrange(len(frames))] ^= 1 << random.randrange(8)
    return bytes(frames)


def between_fragments(random: Random, end: End) -> bytes:
    """Yield a message in fragments, with random data between them."""
    first = random.choice([TEXT, BINARY])
    fragments = [end.wire(first, b"x" * 100)]
    for _ in range(50):
        fragments += [end.wire(CONTINUATION, b"x" * 100), random.randbytes(random.randrange(9))]
    return b"".join(fragments)


@ends
@pytest.mark.parametrize("garbage", [noise, flipped, between_fragments])
def test_random_data_ends_the_connection_and_more_of_it_costs_nothing(
    codec: ModuleType, garbage: Callable[[Random, End], bytes], end: End
) -> None:
    random = Random(garbage.__name__)
    # End a connection that is still valid by chance, then send much more data.
    broken = end.wire(FIN | TEXT | 0x30) * 100
    more = [(random.randbytes(1 << 16), 16), (end.wire(FIN | TEXT, b"a message") * 5000, 16)]
    talks = [
        Talk(
            end.role,
            [(garbage(random, end), 1), (broken, 1), *more],
            random.choice([1 << 10, 1 << 16]),
            {"deflate": random.choice([None, TAKEOVER, NO_TAKEOVER])},
        )
        for _ in range(50)
    ]
    growth, answers = heard(codec, talks)
    codes = {answer.last.code for answer in answers if isinstance(answer.last, Failure)}
    assert codes <= {PROTOCOL_ERROR, BAD_DATA, TOO_BIG}
    assert all(isinstance(answer.last, (Failure, Close)) for answer in answers)
    assert max(answer.at for answer in answers) < 1 << 16
    assert growth < at_most(SLACK)

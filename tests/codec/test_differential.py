"""The same bytes through both kernels: the same events and errors, and the same state afterwards.

The state of a connection is compared by its events for further input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.support.deflated import (
    RFC_HELLO_AGAIN,
    RFC_PAYLOADS,
    bomb,
    ended,
    looking_back,
    squeezed,
    stored,
)
from tests.support.tools import normals, outcome
from tests.support.vectors import (
    CLOSE_CODES_ALLOWED,
    CLOSE_CODES_REFUSED,
    INVALID_UTF8,
    TRUNCATED_UTF8,
)

pytestmark = pytest.mark.unmeasured

# `make fuzz` searches longer.
STREAMS = 5000  # of each seed
SEEDS = range(4)

TEXTS = ["", "a", "Hello, world", "x" * 130, "é", "κόσμε", "a😀b", "y" * 70 + "ü", "\0", "\uffff"]
TEXT_BYTES = [text.encode() for text in TEXTS]
BAD_TEXTS = [bad.data for bad in INVALID_UTF8.values()] + list(TRUNCATED_UTF8.values())
BLOCK = bytes(range(256)) * 600
# Most payloads are short, for speed. All forms of length and the kernels' limits are included.
SIZES = [*range(20), 31, 32, 33, 63, 64, 65, 100, 124, 125, 126, 127, 128, 129, 200, 255, 300]
LONG_SIZES = [1023, 1024, 1025, 2000, 4096, 65535, 65536, 65537, 70_000]
HUGE_LENGTHS = [1 << 16, 1 << 20, (1 << 20) + 1, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63]
HUGE_LENGTHS += [(1 << 64) - 1]


# Payloads of compressed messages; some refer back to the previous message. They are shared, because
# compressing them for each stream would take most of the time.
SQUEEZED_TEXTS = [squeezed(text) for text in TEXT_BYTES]
SQUEEZED_TEXTS += [stored("Grüße".encode() * 30), squeezed("κόσμε".encode() * 3000)]
SQUEEZED_TEXTS += [payload for payload, _ in RFC_PAYLOADS.values()] + [RFC_HELLO_AGAIN]
SQUEEZED_BAD_TEXTS = [how(b"bad: " + text) for text in BAD_TEXTS for how in (squeezed, stored)]
SQUEEZED = [
    squeezed(BLOCK[begin : begin + size]) for begin, size in ((0, 9), (5, 300), (9, 40_000))
]
SQUEEZED += [stored(BLOCK[:200]), looking_back(BLOCK[:256]), bomb(66_000), bomb(140_000)]
SQUEEZED += [ended(b"one, ") + ended(b"") + squeezed(b"two"), ended(b"") * 3 + b"\0"]
SQUEEZED_BROKEN = [
    b"\x06",
    b"\xff" * 20,
    b"Hello, world",
    bomb((1 << 20) + 1),
    squeezed(BLOCK)[:99],
]
SQUEEZED_BROKEN += [ended(b"") * 1100, squeezed(b"and then") + b"\xff", ended(b"x") + b"\xff"]

#: Negotiated settings: arguments of PerMessageDeflate.
AGREEMENTS: list[dict[str, Any]] = [
    {},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    {"server_max_window_bits": 9, "client_max_window_bits": 10, "backend": "zlib-ng"},
    {"backend": "isal"},
]


@cache
def agreement(codec: ModuleType, number: int) -> Any:
    """Return the negotiated settings; each codec has its own classes."""
    return codec.PerMessageDeflate(**AGREEMENTS[number])


class Stream(NamedTuple):
    """The data of a peer, and the kind of connection that receives it.

    Attributes:
        probe: the input after the data. The events that it causes depend on the state after the
            data: on an incomplete header, payload or message, and on the decompressor.
    """

    role: str
    limit: int
    fragments: int | None
    deflate: int | None  # among the AGREEMENTS
    data: bytes
    cuts: list[int]
    probe: bytes

    def connect(self, codec: ModuleType) -> Any:
        return codec.Connection(
            codec.Role(self.role),
            max_message_size=self.limit,
            max_fragments=self.fragments,
            deflate=None if self.deflate is None else agreement(codec, self.deflate),
        )

    def chunks(self) -> list[bytes]:
        ends = [*self.cuts, len(self.data)]
        return [self.data[a:b] for a, b in zip([0, *self.cuts], ends, strict=True)]


class Generator:
    """Generates streams of valid and invalid frames from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random
        self.masked = True
        self.deflate: int | None = None

    def below(self, number: int) -> int:
        return int(self.random() * number)

    def one_of(self, items: Any) -> Any:
        return items[int(self.random() * len(items))]

    def key(self) -> bytes:
        return int(self.random() * 0x1_0000_0000).to_bytes(4, "big")

    def frame(
        self, first: int, payload: bytes, *, form: int = 0, length: int = -1, wrong: bool = False
    ) -> bytes:
        size = len(payload) if length < 0 else length
        if not form:
            form = 1 if size < 126 else 2 if size < 65536 else 8
        if self.masked is wrong:
            bit, tail = 0, payload
        else:
            key = self.key()
            count = len(payload)
            stretched = (key * (count // 4 + 1))[:count]
            number = int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")
            bit, tail = 0x80, key + number.to_bytes(count, "big")
        if form == 1:
            return bytes((first, bit | size)) + tail
        return bytes((first, bit | (126 if form == 2 else 127))) + size.to_bytes(form, "big") + tail

    def payload(self) -> bytes:
        draw = self.random()
        size = self.one_of(SIZES) if draw < 0.99 else self.one_of(LONG_SIZES)
        begin = self.below(256)
        return BLOCK[begin : begin + size]

    def text(self) -> bytes:
        data: bytes = self.one_of(TEXT_BYTES)
        if self.random() < 0.05:
            data += self.one_of(BAD_TEXTS)
            if self.random() < 0.5:
                data += b"after"
        return data

    def control(self) -> bytes:
        size = self.below(126) if self.random() < 0.3 else self.below(8)
        return self.frame(self.one_of((0x89, 0x8A)), BLOCK[:size])

    def message(self) -> bytes:
        if self.deflate is not None and self.random() < 0.6:
            opcode, payload = self.compressed()
            return self.frame(0x80 | opcode, payload)
        if self.random() < 0.5:
            return self.frame(0x81, self.text())
        return self.frame(0x82, self.payload())

    def compressed(self) -> tuple[int, bytes]:
        """Return the first byte of a compressed message, without FIN, and its payload."""
        draw = self.random()
        if draw < 0.45:
            return 0x41, self.one_of(SQUEEZED_TEXTS)
        if draw < 0.9:
            return 0x42, self.one_of(SQUEEZED)
        if draw < 0.95:
            return 0x41, self.one_of(SQUEEZED_BAD_TEXTS)
        return self.one_of((0x41, 0x42)), self.one_of(SQUEEZED_BROKEN)

    def fragments(self) -> bytes:
        if self.deflate is not None and self.random() < 0.6:
            opcode, rest = self.compressed()
        else:
            opcode = self.one_of((1, 2))
            rest = self.text() if opcode == 1 else self.payload()
        wire = b""
        for _ in range(self.below(4)):
            cut = self.below(len(rest) + 1)
            wire += self.frame(opcode, rest[:cut])
            rest, opcode = rest[cut:], 0
            if self.random() < 0.3:
                wire += self.control()
        if self.random() < 0.1:
            return wire  # the next bytes are not part of it
        return wire + self.frame(0x80 | opcode, rest)

    def close(self) -> bytes:
        draw = self.random()
        if draw < 0.2:
            return self.frame(0x88, b"")
        if draw < 0.3:
            return self.frame(0x88, b"\x03")
        codes = CLOSE_CODES_ALLOWED if draw < 0.8 else CLOSE_CODES_REFUSED
        payload = self.one_of(codes).to_bytes(2, "big") + self.text()[:123]
        return self.frame(0x88, payload)

    def broken(self) -> bytes:
        return BROKEN[self.below(len(BROKEN))](self)

    def probe(self) -> bytes:
        """Return input that completes a header, a payload or a message."""
        draw = self.random()
        if draw < 0.25:
            return self.message() + self.message()
        if draw < 0.5:
            rest = self.text() if self.random() < 0.5 else BLOCK[: self.one_of(SIZES)]
            return self.frame(0, b"") * self.below(3) + self.frame(0x80, rest) + self.message()
        # After the rest of a payload, wherever it ends: the empty last fragment of a message.
        fragment = b"\x80\x80" if self.masked else self.one_of((b"\x80\x00", b"\x00\x80"))
        size = 400 if draw < 0.95 else 70_000 if draw < 0.995 else (1 << 20) + 100
        return bytes(fragment * (size // 2))

    def stream(self) -> Stream:
        self.masked = self.random() < 0.6
        self.deflate = self.below(len(AGREEMENTS)) if self.random() < 0.4 else None
        wire = b""
        for _ in range(1 + self.below(6)):
            draw = self.random()
            if draw < 0.62:
                wire += self.message()
            elif draw < 0.78:
                wire += self.fragments()
            elif draw < 0.88:
                wire += self.control()
            elif draw < 0.92:
                wire += self.close()
            else:
                wire += self.broken()
        draw = self.random()
        if draw < 0.12 and wire:  # a bit flips
            place = self.below(len(wire))
            flipped = wire[place] ^ 1 << self.below(8)
            wire = wire[:place] + bytes((flipped,)) + wire[place + 1 :]
        elif draw < 0.3:
            wire = wire[: self.below(len(wire) + 1)]
        elif draw < 0.33:
            wire += self.key() * 3
        draw = self.random()
        if draw < 0.05 and len(wire) < 400:
            cuts = list(range(1, len(wire)))
        else:
            cuts = sorted([self.below(len(wire) + 1) for _ in range(self.below(5))])
        return Stream(
            "server" if self.masked else "client",
            self.one_of((100, 130, 1000, 66_000, 1 << 20)) if self.random() < 0.5 else 1 << 20,
            self.one_of((1, 2, 3)) if self.random() < 0.15 else None,
            self.deflate,
            wire,
            cuts,
            self.probe(),
        )


BROKEN: list[Callable[[Generator], bytes]] = [
    lambda g: g.frame(g.one_of((0x81, 0x82, 0x01, 0x89)) | 0x10 << g.below(3), b"rsv"),
    lambda g: g.frame(g.one_of((0xC0, 0x40, 0xC9, 0xC8)), b"rsv1"),
    lambda g: g.frame(0x41, b"\xf2") + g.frame(0xC0, b"\x00\x11\x00\x00"),
    lambda g: g.frame(0x80 | g.one_of((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), b"opcode"),
    lambda g: g.frame(g.one_of((0x81, 0x82, 0x89)), b"mask", wrong=True),
    lambda g: g.frame(0x82, BLOCK[: g.one_of((0, 1, 5, 124, 125))], form=2),
    lambda g: g.frame(0x81, b"x" * g.one_of((0, 1, 125, 126, 127, 65535)), form=8),
    lambda g: g.frame(0x82, b"length", length=g.one_of(HUGE_LENGTHS)),
    lambda g: g.frame(0x81, b"length", length=g.one_of(HUGE_LENGTHS)),
    lambda g: g.frame(g.one_of((0x88, 0x89, 0x8A)), bytes(g.one_of((126, 127, 200)))),
    lambda g: g.frame(g.one_of((0x08, 0x09, 0x0A)), b"fin"),
    lambda g: g.frame(g.one_of((0x00, 0x80)), b"continuation"),
    lambda g: g.frame(0x01, b"begun") + g.frame(g.one_of((0x81, 0x82, 0x01)), b"another"),
    lambda g: g.frame(0x81, g.one_of(TEXT_BYTES) + g.one_of(BAD_TEXTS)),
    lambda g: g.frame(0x01, g.one_of(TEXT_BYTES) + g.one_of(BAD_TEXTS)),
    lambda g: g.frame(0x88, b"\x03\xe8" + g.one_of(BAD_TEXTS)),
    lambda g: g.key() + g.key(),
]


def state(connection: Any) -> tuple[bool, ...]:
    """Return the visible state of a connection between two reads."""
    return connection.incomplete, connection.close_received, connection.only_messages


def first_difference(compiled: ModuleType, pure: ModuleType, stream: Stream) -> str | None:
    """Describe the first read after which the two differ; None if they are equal."""
    one, other = stream.connect(compiled), stream.connect(pure)
    for i, chunk in enumerate([*stream.chunks(), stream.probe]):
        ours, theirs = one.receive(chunk), other.receive(chunk)
        # Messages are compared directly; the classes of other events differ in the two copies.
        if (ours != theirs and normals(ours) != normals(theirs)) or state(one) != state(other):
            return (
                f"read {i} of {stream!r}\n"
                f"compiled: {normals(ours)!r} {state(one)!r}\n"
                f"pure: {normals(theirs)!r} {state(other)!r}"
            )
    return None


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_both_kernels_return_the_same_events_for_any_stream(
    compiled: ModuleType, pure: ModuleType, seed: int
) -> None:
    generator = Generator(seed)
    for number in range(STREAMS):
        difference = first_difference(compiled, pure, generator.stream())
        if difference is not None:
            pytest.fail(f"stream {number} of seed {seed}, {difference}", pytrace=False)


#: The beginning of every reason for a failure under RFC 6455 and RFC 7692.
REASONS = {
    "RSV1 may be set only on the first frame": 1002,
    "a compressed message is not valid DEFLATE": 1007,
    "a message that inflates to ": 1009,
    "a reserved bit": 1002,
    "a client's frame must be masked": 1002,
    "a server's frame must not be masked": 1002,
    "a continuation frame with no message": 1002,
    "a new message inside": 1002,
    "a control frame must not be fragmented": 1002,
    "a control frame carries": 1002,
    "opcode ": 1002,
    "the highest bit": 1002,
    "a payload length must": 1002,
    "a close frame's payload of 1 byte": 1002,
    "close code ": 1002,
    "a text message is not": 1007,
    "a close reason is not": 1007,
    "a message of ": 1009,
    "a message in more fragments": 1009,
}


def place_of_end(codec: ModuleType, stream: Stream) -> str:
    """Return the part of a frame in which a stream of valid frames ends."""
    data, position = stream.data, 0
    while position < len(data):
        header = codec.kernels.parse_frame(data, position)
        if header is None or header[2] < 0:
            return "inside a header"
        first, second, length, position = header
        position += 4 * (second >> 7)
        if position > len(data):
            return "inside a header"
        position += length
        if position > len(data):
            return f"inside a {'control' if first & 8 else 'data'} frame's payload"
    return "after a frame"


def test_the_streams_contain_every_kind_of_event_and_failure(pure: ModuleType) -> None:
    generator = Generator(0)
    seen: Counter[str] = Counter()
    for _ in range(STREAMS):
        stream = generator.stream()
        connection = stream.connect(pure)
        events = [event for chunk in stream.chunks() for event in connection.receive(chunk)]
        for event in normals(events):
            name = event[0] if isinstance(event, tuple) else type(event).__name__
            if name == "Failure":
                begins = [reason for reason in REASONS if event[2].startswith(reason)]
                assert [REASONS[reason] for reason in begins] == [event[1]]
                name = begins[0]
            seen[name] += 1
        seen[stream.role] += 1
        seen["more than one event in a read"] += len(events) > len(stream.cuts) + 1
        seen["compression"] += stream.deflate is not None
        seen["in one read"] += not stream.cuts
        seen["byte by byte"] += len(stream.cuts) == len(stream.data) - 1 > 10
        if not (events and type(events[-1]).__name__ in ("Close", "Failure")):
            place = place_of_end(pure, stream)
            seen["to the end"] += 1
            seen[f"ended {place}"] += 1
            seen["ended between fragments"] += place == "after a frame" and connection.incomplete
            if connection.receive(stream.probe):
                seen[f"ended {place}, which the probe showed"] += 1
        seen["a long message"] += any(len(e) > 4000 for e in events if isinstance(e, bytes))
        seen["text that is not ASCII"] += any(not e.isascii() for e in events if type(e) is str)
    few = {name: count for name, count in seen.items() if count < 10}
    assert not few
    kinds = {"str", "bytes", "Ping", "Pong", "Close", "server", "client", *REASONS}
    assert kinds - set(seen) == set()


def take(codec: ModuleType, data: bytes, start: int, limit: int, masked: bool) -> Any:
    messages: list[Any] = ["there"]
    left = codec.kernels.take_messages(data, start, messages, limit, masked)
    return messages, [type(message) for message in messages], left


@pytest.mark.parametrize("seed", range(4))
def test_both_kernels_decode_the_same(compiled: ModuleType, pure: ModuleType, seed: int) -> None:
    generator = Generator(1000 + seed)
    for _ in range(2500):
        stream = generator.stream()
        data = stream.data
        start = generator.below(len(data) + 3) if generator.random() < 0.5 else 0
        limit = generator.one_of((1, 5, 125, 126, 1000, 65535, 65536, 1 << 20, (1 << 63) - 1))
        for masked in (True, False):
            ours = take(compiled, data, start, limit, masked)
            assert ours == take(pure, data, start, limit, masked), (data, start, limit, masked)
            frame = compiled.kernels.take_frame(data, start, limit, masked)
            assert frame == pure.kernels.take_frame(data, start, limit, masked), (data, start)
        for place in range(min(len(data) + 2, 40)):
            ours = compiled.kernels.parse_frame(data, place)
            assert ours == pure.kernels.parse_frame(data, place), (data, place)


@pytest.mark.parametrize("seed", range(4))
def test_both_kernels_encode_the_same(compiled: ModuleType, pure: ModuleType, seed: int) -> None:
    generator = Generator(2000 + seed)
    for _ in range(10_000):
        payload = generator.one_of(TEXTS) if generator.random() < 0.3 else generator.payload()
        key = generator.key() if generator.random() < 0.5 else None
        if generator.random() < 0.02:
            key = generator.key()[: generator.below(4)]
        opcode = generator.below(16) if generator.random() < 0.95 else generator.below(50) - 20
        rsv = generator.below(8) if generator.random() < 0.95 else generator.below(50) - 20
        fin = generator.random() < 0.8

        def encode(
            codec: ModuleType,
            opcode: int = opcode,
            payload: Any = payload,
            fin: bool = fin,
            rsv: int = rsv,
            key: bytes | None = key,
        ) -> tuple[str, object]:
            return outcome(
                lambda: codec.encode_frame(opcode, payload, fin=fin, rsv=rsv, masking_key=key)
            )

        assert encode(compiled) == encode(pure), (opcode, payload, fin, rsv, key)


@pytest.mark.parametrize("seed", range(4))
def test_both_kernels_mask_the_same(compiled: ModuleType, pure: ModuleType, seed: int) -> None:
    generator = Generator(3000 + seed)
    for _ in range(5000):
        payload = generator.payload()
        view = memoryview(payload)[generator.below(9) :]
        key = generator.key()
        assert compiled.mask(view, key) == pure.mask(view, key), (bytes(view), key)
        ours, theirs = bytearray(payload), bytearray(payload)
        begin, end = generator.below(9), len(payload) - generator.below(9)
        offset = generator.below(1 << 40)
        compiled.mask_into(memoryview(ours)[begin:end], key, offset)
        pure.mask_into(memoryview(theirs)[begin:end], key, offset)
        assert ours == theirs, (payload, begin, end, key, offset)

"""Connection on both kernels with the same bytes, and two connections with each other."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tests.codec.test_differential import Generator, state
from tests.support.deflated import TAIL, inflated, squeezed
from tests.support.tools import normals

from .inputs import Codecs, Draw

LIMITS = (1 << 20, 1, 5, 125, 126, 1000, 65535, 65536, 200_000)
# Most bytes that may be kept of an incomplete head or control frame.
KEPT = 14 + 125


def connect(codec: ModuleType, role: str, options: dict[str, Any]) -> Any:
    settings = options.get("deflate")
    deflate = None if settings is None else codec.PerMessageDeflate(**settings)
    return codec.Connection(codec.Role(role), **{**options, "deflate": deflate})


def check_stream(codecs: Codecs, data: bytes) -> None:
    """Receive arbitrary bytes."""
    draw = Draw(data)
    role = draw.one_of(("server", "client"))
    settings = draw.settings() if draw.flag() else None
    options = {
        "deflate": settings,
        "max_message_size": draw.one_of(LIMITS),
        "max_fragments": draw.one_of((None, 1, 2, 5)),
    }
    compare(codecs, role, options, draw.chunks(draw.data()))


def check_frames(codecs: Codecs, data: bytes) -> None:
    """Receive frames, most of them valid."""
    draw = Draw(data)
    settings = draw.settings() if draw.flag() else None
    stream = Frames(draw, compressed=settings is not None).stream()
    options = {
        "deflate": settings,
        "max_message_size": stream.limit,
        "max_fragments": stream.fragments,
    }
    compare(codecs, stream.role, options, stream.chunks())


class Frames(Generator):
    """The streams of the differential test with choices by the fuzzer, and compressed messages."""

    def __init__(self, draw: Draw, *, compressed: bool) -> None:
        self.random = lambda: draw.number(0xFFFF) / 0x10000
        self.masked = True
        self._compressed = compressed

    def message(self) -> bytes:
        if not self._compressed or self.random() < 0.3:
            return super().message()
        opcode, payload = (1, self.text()) if self.random() < 0.5 else (2, self.payload())
        rest = squeezed(payload[:300] * self.one_of((1, 10, 1000)))
        first, wire = 0x40 | opcode, b""
        for _ in range(self.below(3)):
            cut = self.below(len(rest) + 1)
            wire += self.frame(first, rest[:cut])
            rest, first = rest[cut:], 0
        return wire + self.frame(0x80 | first, rest)


def compare(codecs: Codecs, role: str, options: dict[str, Any], chunks: list[bytes]) -> None:
    """Check that both kernels return equal events for any chunks, and keep to the limits."""
    one, other = (connect(codec, role, options) for codec in codecs)
    events: list[Any] = []
    for chunk in chunks:
        buffer = bytearray(chunk)
        ours = one.receive(memoryview(buffer))
        buffer[:] = b"\xaa" * len(buffer)  # a caller may reuse the buffer
        theirs = other.receive(chunk)
        assert normals(ours) == normals(theirs)
        assert state(one) == state(other)
        check_kept(one, options["max_message_size"])
        events += ours
    whole = connect(codecs.compiled, role, options).receive(b"".join(chunks))
    hide = one.deflate is not None
    assert without_fault(normals(whole), hide) == without_fault(normals(events), hide)
    check_events(codecs.compiled, one, events, options["max_message_size"])


def without_fault(events: list[Any], hide: bool) -> list[Any]:
    """Return the events; with ``hide``, without the code and reason of a failure.

    The fault that is found first in a compressed message depends on how much is inflated at once.
    """
    return [event[0] if hide and event[0:1] == ("Failure",) else event for event in events]


def check_kept(connection: Any, limit: int) -> None:
    """Check that memory is bounded by the limit."""
    (kept,) = connection._kept
    assert len(kept or b"") <= KEPT
    assert len(connection._message or b"") <= limit
    if connection._inflater is not None:
        assert len(connection._inflater._rest) <= 2 * limit + 1024 + len(TAIL)


def check_events(codec: ModuleType, connection: Any, events: list[Any], limit: int) -> None:
    """Check the limit of messages, and that an end is the last event and can be answered."""
    last = (codec.Close, codec.Failure)
    for event in events:
        if isinstance(event, str):
            assert len(event.encode()) <= limit
        elif isinstance(event, bytes):
            assert len(event) <= limit
    assert not any(isinstance(event, last) for event in events[:-1])
    if events and isinstance(events[-1], last):
        assert connection.receive(b"\x81\x00") == []
        reason = events[-1].reason if isinstance(events[-1], codec.Failure) else ""
        assert connection.close(events[-1].code, reason)


# Two connections ----------------------------------------------------------------------------------


def check_talk(codecs: Codecs, data: bytes) -> None:
    """Check that one end receives the other's messages, with any agreed compression."""
    draw = Draw(data)
    role = draw.one_of(("server", "client"))
    options = {"deflate": draw.settings() if draw.number(3) < 3 else None}
    messages = [(message(draw), draw.one_of((None, True, False))) for _ in range(draw.number(6))]
    wires = [talk(codec, role, options, messages, Draw(data)) for codec in codecs]
    assert role == "client" or wires[0] == wires[1]  # a client's masking keys are random


def message(draw: Draw) -> str | bytes:
    size, times = draw.number(100), 1
    if draw.flag():
        times = draw.one_of((1, 3, 30, 1000))
    return draw.text(size) * times if draw.flag() else draw.data(size) * times


def talk(
    codec: ModuleType,
    role: str,
    options: dict[str, Any],
    messages: list[tuple[str | bytes, bool | None]],
    draw: Draw,
) -> bytes:
    """Send the messages to the other end, and return the bytes on the wire."""
    ours = connect(codec, role, options)
    theirs = connect(codec, "client" if role == "server" else "server", options)
    wire = b""
    window = Window(codec, role, options["deflate"])
    for sent, compress in messages:
        frame = ours.encode(sent, compress=compress)
        received = [event for chunk in draw.chunks(frame) for event in theirs.receive(chunk)]
        assert received == [sent]
        window.check(frame, sent)
        wire += frame
    return wire


class Window:
    """A check that an end keeps to the agreed window and context takeover."""

    def __init__(self, codec: ModuleType, role: str, settings: dict[str, Any] | None) -> None:
        self._codec = codec
        self._masked = role == "client"
        self._bits = 0 if settings is None else settings[f"{role}_max_window_bits"]
        self._takeover = settings is not None and not settings[f"{role}_no_context_takeover"]
        self._payloads: list[bytes] = []
        self._messages: list[bytes] = []

    def check(self, frame: bytes, message: str | bytes) -> None:
        taken = self._codec.kernels.take_frame(frame, 0, 1 << 30, self._masked)
        first, payload, end = taken
        assert end == len(frame)
        data = message.encode() if isinstance(message, str) else message
        if not first & 0x40:
            assert payload == data
            return
        if not self._takeover:
            self._payloads, self._messages = [], []
        self._payloads.append(payload)
        self._messages.append(data)
        if sum(map(len, self._messages)) < 5000:
            assert inflated(TAIL.join(self._payloads), self._bits) == b"".join(self._messages)

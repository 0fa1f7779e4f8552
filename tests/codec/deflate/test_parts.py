"""Compressed messages that are sent and received in parts."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate as TheirDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from tests.codec.deflate.helpers import NO_TAKEOVER, backends, compressing, takeovers
from tests.support.deflated import TAIL, inflated
from tests.support.ends import BINARY, CONTINUATION, FIN, PING, RSV1, SERVER, TEXT, End, ends
from tests.support.tools import joined, normals

WORDS = "The same words again, and the same words again. "


def settings(takeover: bool) -> dict[str, Any]:
    return {} if takeover else NO_TAKEOVER


def split(codec: ModuleType, end: End, wire: bytes) -> list[tuple[int, bytes]]:
    """Return the first byte and the payload of each frame from this end."""
    found, position = [], 0
    while position < len(wire):
        first, payload, position = codec.kernels.take_frame(
            wire, position, 1 << 30, end is not SERVER
        )
        found.append((first, payload))
    return found


@ends
@backends
@takeovers
def test_each_part_can_be_inflated_at_once(
    codec: ModuleType, takeover: bool, backend: str, end: End
) -> None:
    sender, receiver = (
        compressing(codec, each, backend=backend, **settings(takeover)) for each in (end, end.peer)
    )
    for parts in ([WORDS, "\xe9", WORDS], [WORDS.encode(), b"\0", bytes(70_000)]):
        wires = list(sender.encode_parts(parts))
        events = [normals(receiver.receive_parts(wire)) for wire in wires]
        assert events == [
            *([("Part", part, False)] for part in parts),
            [("Part", parts[0][:0], True)],
        ]
        opcode = TEXT if isinstance(parts[0], str) else BINARY
        firsts = [first for first, _ in split(codec, end, b"".join(wires))]
        assert firsts == [RSV1 | opcode, CONTINUATION, CONTINUATION, FIN | CONTINUATION]


@ends
@backends
@takeovers
def test_whole_messages_before_and_after(
    codec: ModuleType, takeover: bool, backend: str, end: End
) -> None:
    sender, receiver = (
        compressing(codec, each, backend=backend, **settings(takeover)) for each in (end, end.peer)
    )
    wire = sender.encode(WORDS * 3)
    for part in (WORDS, "", WORDS * 2):
        wire += sender.encode_part(part) + sender.ping(b"x")
    wire += sender.encode_part("end", final=True) + sender.encode(WORDS) + sender.encode(WORDS)
    expected = [WORDS * 3, *[("Ping", b"x")] * 3, f"{WORDS * 3}end", WORDS, WORDS]
    assert normals(receiver.receive(wire)) == expected


@ends
@backends
def test_without_a_context_a_message_refers_only_to_itself(
    codec: ModuleType, backend: str, end: End
) -> None:
    sender = compressing(codec, end, backend=backend, **NO_TAKEOVER)
    for _ in range(3):
        wire = b"".join(sender.encode_parts([WORDS, WORDS]))
        payload = b"".join(payload for _, payload in split(codec, end, wire))
        assert inflated(payload).decode() == WORDS * 2
        assert len(payload) < len(WORDS) + 30
        ((first, payload),) = split(codec, end, sender.encode(WORDS * 2))
        assert first == FIN | RSV1 | TEXT
        assert inflated(payload).decode() == WORDS * 2


@ends
def test_with_a_context_the_window_is_shared(codec: ModuleType, end: End) -> None:
    sender = compressing(codec, end)
    noise = Random(0).randbytes(3000)
    first = split(codec, end, sender.encode(noise))
    second = split(codec, end, b"".join(sender.encode_parts([noise, noise])))
    third = split(codec, end, sender.encode(noise))
    sizes = [sum(len(payload) for _, payload in found) for found in (first, second, third)]
    assert sizes[0] > 3000
    assert max(sizes[1:]) < 200
    payloads = [b"".join(payload for _, payload in found) for found in (first, second, third)]
    assert inflated(TAIL.join(payloads)) == noise * 4


@ends
@takeovers
def test_a_message_may_be_sent_uncompressed(codec: ModuleType, takeover: bool, end: End) -> None:
    sender, receiver = (compressing(codec, each, **settings(takeover)) for each in (end, end.peer))
    wire = sender.encode(WORDS * 2)
    plain = b"".join(sender.encode_parts([WORDS, WORDS], compress=False))
    assert split(codec, end, plain) == [
        *((TEXT, WORDS.encode()), (CONTINUATION, WORDS.encode()), (FIN | CONTINUATION, b""))
    ]
    wire += plain + sender.encode_part("x", final=True, compress=False) + sender.encode(WORDS * 2)
    assert receiver.receive(wire) == [WORDS * 2, WORDS * 2, "x", WORDS * 2]


@ends
@takeovers
def test_empty_messages_and_parts(codec: ModuleType, takeover: bool, end: End) -> None:
    sender, receiver = (compressing(codec, each, **settings(takeover)) for each in (end, end.peer))
    messages: list[Any] = [[""], ["", "a"], ["", "", ""], ["a", "", "b"], [b"", b"a", b""], [b""]]
    for parts in messages:
        wire = b"".join(sender.encode_parts(parts))
        assert receiver.receive(wire) == [parts[0][:0].join(parts)]
        assert receiver.receive(sender.encode(WORDS * 2)) == [WORDS * 2]
        assert receiver.receive(sender.encode_part(parts[-1], final=True)) == [parts[-1]]


@ends
@takeovers
def test_after_an_error_the_message_continues_with_an_empty_window(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, takeover: bool, end: End
) -> None:
    sender, receiver = (compressing(codec, each, **settings(takeover)) for each in (end, end.peer))

    def no_memory(*arguments: Any, **options: Any) -> bytes:
        raise MemoryError

    events = receiver.receive_parts(sender.encode(WORDS * 2) + sender.encode_part(WORDS))
    for final in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(codec.deflate, "encode_frame", no_memory)
            with pytest.raises(MemoryError):
                sender.encode_part("never sent " * 9, final=final)
        wire = sender.encode_part("never", final=final) + sender.ping()
        events += receiver.receive_parts(wire)
    events += receiver.receive_parts(sender.encode(WORDS * 2))
    found = [event for event in joined(events) if event != ("Ping", b"")]
    assert found == [WORDS * 2, f"{WORDS}nevernever", WORDS * 2]


@ends
@takeovers
@backends
def test_websockets_inflates_the_parts(
    codec: ModuleType, backend: str, takeover: bool, end: End
) -> None:
    sender = compressing(codec, end, backend=backend, **settings(takeover))
    theirs = TheirDeflate(not takeover, not takeover, 15, 15)
    data = b""
    for frame in [*sender.encode_parts([WORDS, "\xe9" * 500, WORDS]), sender.encode(WORDS * 2)]:
        data += parsed(frame, theirs, masked=end is not SERVER)
    assert data.decode() == WORDS + "\xe9" * 500 + WORDS + WORDS * 2


def parsed(wire: bytes, extension: Any, *, masked: bool) -> bytes:
    """Return the data of a frame, parsed by websockets."""
    reader = StreamReader()
    reader.feed_data(wire)
    try:
        next(Frame.parse(reader.read_exact, mask=masked, extensions=[extension]))
    except StopIteration as done:
        return bytes(done.value.data)
    raise AssertionError("the frame is incomplete")


PARTS = st.lists(st.text(max_size=200), min_size=1, max_size=5) | st.lists(
    st.binary(max_size=200), min_size=1, max_size=5
)


@pytest.mark.slow
@pytest.mark.unmeasured
@ends
@given(
    script=st.lists(st.tuples(PARTS, st.sampled_from([None, True, False])), max_size=5),
    takeover=st.booleans(),
    step=st.integers(1, 40),
)
def test_any_parts_are_received(
    codec: ModuleType, end: End, script: list[Any], takeover: bool, step: int
) -> None:
    sender, receiver = (
        compressing(codec, each, min_size=0, **settings(takeover)) for each in (end, end.peer)
    )

    def wires() -> Iterator[bytes]:
        for parts, compress in script:
            yield from sender.encode_parts(parts, compress=compress)
            yield sender.encode(parts[0], compress=compress)

    wire = b"".join(wires())
    expected = [each for parts, _ in script for each in (parts[0][:0].join(parts), parts[0])]
    events = []
    for begin in range(0, len(wire), step):
        events += receiver.receive_parts(wire[begin : begin + step])
    assert joined(events) == expected


@ends
def test_a_ping_between_compressed_parts(codec: ModuleType, end: End) -> None:
    sender, receiver = (compressing(codec, each) for each in (end, end.peer))
    wire = sender.encode_part(WORDS) + sender.ping(b"x") + sender.encode_part(WORDS, final=True)
    assert [first & 0x0F for first, _ in split(codec, end, wire)] == [
        TEXT,
        PING & 0x0F,
        CONTINUATION,
    ]
    assert normals(receiver.receive(wire)) == [("Ping", b"x"), WORDS * 2]

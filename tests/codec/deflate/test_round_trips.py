"""Every message is received unchanged, with any backend, fragmentation and split."""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.deflate.helpers import (
    BACKENDS,
    C_BITS,
    COMPRESSED,
    NO_TAKEOVER,
    S_BITS,
    SETTINGS,
    Read,
    compressing,
    negotiate,
    read,
    repetitive,
    takeovers,
)
from tests.support.deflated import (
    bomb,
)
from tests.support.ends import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    End,
    ends,
)
from tests.support.tools import receive_in_pieces
from tests.support.vectors import (
    by_hand,
)


@pytest.mark.slow
@pytest.mark.unmeasured
@ends
@pytest.mark.parametrize("from_backend", BACKENDS)
@pytest.mark.parametrize("to_backend", BACKENDS)
@takeovers
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_every_backend_understands_every_other(
    codec: ModuleType, bits: int, takeover: bool, to_backend: str, from_backend: str, end: End
) -> None:
    settings: dict[str, Any] = {S_BITS: bits, C_BITS: bits}
    settings |= {} if takeover else NO_TAKEOVER
    sender = compressing(codec, end, backend=from_backend, **settings)
    receiver = compressing(codec, end.peer, backend=to_backend, **settings)
    for data in repetitive(1 << bits, 40_000):
        for message in (data[:10_000], data[10_000:10_001], data[10_001:], b"", "tëxt" * 30):
            assert receiver.receive(sender.encode(message, compress=True)) == [message]


TEXTS = st.text(max_size=30).flatmap(
    lambda text: st.integers(0, 40).map(lambda times: text * times)
)


BYTES = st.binary(max_size=60).flatmap(
    lambda data: st.integers(0, 40).map(lambda times: data * times)
)


CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


def in_fragments(frame: Read, cuts: list[int]) -> list[tuple[int, bytes]]:
    """Return the frame's message in several frames: (first byte, payload)."""
    cuts = sorted(cut % (len(frame.payload) + 1) for cut in cuts)
    ends_at = [*cuts, len(frame.payload)]
    pieces = [frame.payload[a:b] for a, b in zip([0, *cuts], ends_at, strict=True)]
    firsts = [frame.first & ~FIN, *[CONTINUATION] * (len(pieces) - 1)]
    firsts[-1] |= FIN
    return list(zip(firsts, pieces, strict=True))


@pytest.mark.slow
@pytest.mark.unmeasured
@ends
@given(data=st.data(), ready=SETTINGS, offered=SETTINGS)
def test_any_fragments_and_any_split_give_the_same_events(
    codec: ModuleType,
    end: End,
    data: st.DataObject,
    ready: dict[str, Any],
    offered: dict[str, Any],
) -> None:
    settings = negotiate(codec, ready, offered)
    peer = end.peer.connect(codec, deflate=settings[end.peer])
    places = st.lists(st.integers(0, 5000), max_size=4)
    expected: list[Any] = []
    parts: list[tuple[int, bytes]] = []
    for message in data.draw(st.lists(TEXTS | BYTES, max_size=4)):
        compress = data.draw(st.sampled_from([None, True, False]))
        frame = read(peer.encode(message, compress=compress))
        for part in in_fragments(frame, data.draw(places)):
            for first, payload in data.draw(st.lists(CONTROLS, max_size=1)):
                parts.append((first, payload))
                expected.append(("Ping" if first == PING else "Pong", payload))
            parts.append(part)
        expected.append(message)
    keys = st.binary(min_size=4, max_size=4) if end.peer_key else st.none()
    wire = b"".join(by_hand(first, payload, data.draw(keys)) for first, payload in parts)
    cuts = sorted(cut % (len(wire) + 1) for cut in data.draw(st.lists(st.integers(0), max_size=9)))
    for split in ((), cuts):
        connection = end.connect(codec, deflate=settings[end])
        assert receive_in_pieces(connection, wire, split) == expected


def without_reasons(events: list[Any]) -> list[Any]:
    """Replace reasons that depend on the amount of data inflated at once."""
    return [event[:2] if isinstance(event, tuple) else event for event in events]


@ends
@given(
    noise=st.binary(max_size=200),
    cuts=st.lists(st.integers(0, 220), max_size=5),
    opcode=st.sampled_from([TEXT, BINARY]),
    backend=st.sampled_from(BACKENDS),
)
def test_random_bytes_give_the_same_events_for_any_split(
    codec: ModuleType, end: End, noise: bytes, cuts: list[int], opcode: int, backend: str
) -> None:
    wire = end.wire(COMPRESSED | opcode, noise) + end.wire(FIN | TEXT, b"after")
    whole = receive_in_pieces(compressing(codec, end, backend=backend), wire, ())
    cut = receive_in_pieces(compressing(codec, end, backend=backend), wire, sorted(cuts))
    assert without_reasons(cut) == without_reasons(whole)
    assert len(whole) == (1 if isinstance(whole[0], tuple) else 2)


def test_a_bomb_inflates_to_its_full_size() -> None:
    assert zlib.decompressobj(-15).decompress(bomb((3 << 20) + 5)) == bytes((3 << 20) + 5)

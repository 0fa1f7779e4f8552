"""The events do not depend on how the stream is split."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    CLOSE_CODES_ALLOWED,
    by_hand,
)


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


@pytest.mark.slow
@pytest.mark.unmeasured
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


@pytest.mark.slow
@pytest.mark.unmeasured
@ends
@given(noise=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_random_bytes_give_the_same_events_for_any_split(
    codec: ModuleType, end: End, noise: bytes, cuts: list[int]
) -> None:
    whole = receive_in_pieces(end.connect(codec), noise, ())
    assert receive_in_pieces(end.connect(codec), noise, sorted(cuts)) == whole
    for event in whole[:-1]:
        assert not isinstance(event, tuple) or event[0] in ("Ping", "Pong")


@pytest.mark.slow
@pytest.mark.unmeasured
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

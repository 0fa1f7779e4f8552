"""Selected cases of the reference suite, on both kernels and both ends, without the suite."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest

from tests.support.cases import CASES, Case, fail_fast, many_fragments
from tests.support.ends import BAD_DATA, SERVER, End, ends
from tests.support.tools import normals


def connect(codec: ModuleType, end: End, case: Case) -> Any:
    """Return this end, with the negotiated settings."""
    deflate = None
    if case.deflate is not None:
        deflate = codec.PerMessageDeflate(**case.deflate, min_size=0)
    return end.connect(codec, deflate=deflate)


def answer(connection: Any, event: Any) -> bytes:
    """Return the answer of an echo peer to an event, in normal form."""
    match event:
        case ("Ping", payload):
            reply: bytes = connection.pong(payload)
        case ("Pong", _):
            reply = b""
        case ("Close" | "Failure", code, _):
            reply = connection.close(code)
        case message:
            reply = connection.encode(message)
    return reply


def replies(codec: ModuleType, end: End, case: Case, pieces: Iterable[bytes]) -> tuple[Any, ...]:
    """Return the replies of an echo peer to these pieces, without close reasons."""
    connection, peer = connect(codec, end, case), connect(codec, end.peer, case)
    events = []
    for piece in pieces:
        for event in normals(connection.receive(piece)):
            events += normals(peer.receive(answer(connection, event)))
    return tuple(event[:2] if isinstance(event, tuple) else event for event in events)


@pytest.mark.unmeasured
@ends
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_server_passes_the_case(codec: ModuleType, end: End, case: Case) -> None:
    frames = case.wire(end)
    data = b"".join(frames)
    step = 1 if len(data) < 4096 else 997  # as in 1.1.8
    pieces = [data[begin : begin + step] for begin in range(0, len(data), step)]
    assert replies(codec, end, case, [data]) == case.replies
    assert replies(codec, end, case, frames) == case.replies
    assert replies(codec, end, case, pieces) == case.replies


@ends
@pytest.mark.parametrize("number", fail_fast(SERVER))
def test_invalid_text_fails_at_its_first_invalid_byte(
    codec: ModuleType, end: End, number: str
) -> None:
    good, bad = fail_fast(end)[number]
    connection = end.connect(codec)
    assert connection.receive(good) == []
    (failure,) = connection.receive(bad)
    assert failure.code == BAD_DATA


@pytest.mark.unmeasured
@ends
def test_a_message_of_4_mib_in_65536_fragments_is_received(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec, max_message_size=1 << 22)
    assert connection.receive(many_fragments(end)) == [b"\xfe" * (1 << 22)]

"""The window and the compression context (RFC 7692 section 7.1.2)."""

from __future__ import annotations

import zlib
from random import Random
from types import ModuleType
from typing import Any

import pytest

from tests.codec.deflate.helpers import (
    BACKENDS,
    C_BITS,
    COMPRESSED,
    NO_TAKEOVER,
    S_BITS,
    backends,
    compressing,
    read,
    repetitive,
    takeovers,
)
from tests.support.deflated import (
    TAIL,
    compressor,
    inflated,
    looking_back,
    squeezed,
)
from tests.support.ends import (
    BINARY,
    CLIENT,
    RSV1,
    SERVER,
    TEXT,
    End,
    ends,
)
from tests.support.tools import receive_in_pieces


@pytest.mark.parametrize("bits", range(8, 16))
def test_a_reference_beyond_the_window_is_detected(bits: int) -> None:
    # Checks the method of the tests below.
    size = 1 << bits
    data = Random(bits).randbytes(size)
    assert inflated(looking_back(data), bits) == data + data[:3]
    if bits < 15:
        data += b"x"
        assert inflated(looking_back(data), bits + 1) == data + data[:3]
        with pytest.raises(zlib.error, match="too far back"):
            inflated(looking_back(data), bits)


def check_window(codec: ModuleType, bits: int, size: int, **settings: Any) -> None:
    """Send various data as a server, and decompress it with exactly this window."""
    for data in repetitive(1 << bits, size):
        for takeover in (True, False):
            sender = compressing(
                codec,
                SERVER,
                server_max_window_bits=bits,
                server_no_context_takeover=not takeover,
                **settings,
            )
            thirds = [data[: size // 3], data[size // 3 : size // 2], data[size // 2 :]]
            frames = [read(sender.encode(third, compress=True)) for third in thirds]
            if takeover:
                assert inflated(TAIL.join(frame.payload for frame in frames), bits) == data
                continue
            for third, frame in zip(thirds, frames, strict=True):
                sent = inflated(frame.payload, bits) if frame.first & RSV1 else frame.payload
                assert sent == third


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("memory_level", [1, 8, 9])
@pytest.mark.parametrize("backend", ["zlib", "zlib-ng"])
def test_a_window_of_8_bits_is_respected(
    codec: ModuleType, backend: str, memory_level: int, level: int
) -> None:
    # No backend has a window of 8 bits for raw streams. With 9 bits, no distance may exceed 256.
    check_window(codec, 8, 1200, backend=backend, level=level, memory_level=memory_level)


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("bits", [9, 10, 12, 15])
@pytest.mark.parametrize(
    ("backend", "level"),
    [("zlib", 1), ("zlib", 9), ("zlib-ng", 1), ("zlib-ng", 9), ("isal", 0), ("isal", 3)],
)
def test_a_window_is_respected(codec: ModuleType, backend: str, level: int, bits: int) -> None:
    check_window(codec, bits, 3 * (1 << bits) // 2, backend=backend, level=level)


@ends
@takeovers
def test_each_end_respects_its_own_window(codec: ModuleType, takeover: bool, end: End) -> None:
    message = Random(0).randbytes(700) * 2  # does not help a window of less than 700 bytes
    for bits, repeats in ((9, False), (10, True)):
        names = {SERVER: S_BITS, CLIENT: C_BITS}
        settings = {names[end]: bits, names[end.peer]: 19 - bits}
        settings |= {} if takeover else NO_TAKEOVER
        frame = read(compressing(codec, end, **settings).encode(message))
        assert (len(frame.payload) < 1000) == repeats
        if frame.first & RSV1:
            assert inflated(frame.payload, bits) == message


@ends
@pytest.mark.parametrize(
    ("backend", "bits"),
    [
        (backend, bits)
        for backend in BACKENDS
        for bits in range(8, 16)
        if bits > 8 or backend != "isal"
    ],
)
def test_the_whole_window_of_the_peer_is_available(
    codec: ModuleType, backend: str, bits: int, end: End
) -> None:
    names = {SERVER: C_BITS, CLIENT: S_BITS}
    settings = {names[end]: bits, names[end.peer]: 9}
    connection = compressing(codec, end, backend=backend, **settings)
    data = Random(bits).randbytes(1 << bits)
    wire = end.wire(COMPRESSED | BINARY, looking_back(data))
    for cuts in ((), range(len(wire) - 9, len(wire))):
        assert receive_in_pieces(connection, wire, cuts) == [data + data[:3]]


@ends
@pytest.mark.parametrize("ours", [True, False], ids=["own", "others"])
@takeovers
def test_takeover_is_negotiated_for_each_direction(
    codec: ModuleType, takeover: bool, ours: bool, end: End
) -> None:
    sender = end if ours else end.peer
    settings = {f"{sender.role}_no_context_takeover": not takeover}
    connections = {role: compressing(codec, role, **settings) for role in (SERVER, CLIENT)}
    message = Random(0).randbytes(500)
    sizes = {}
    for from_end in (SERVER, CLIENT):
        wires = [connections[from_end].encode(message, compress=True) for _ in range(3)]
        sizes[from_end] = [len(wire) for wire in wires]
        assert connections[from_end.peer].receive(b"".join(wires)) == [message] * 3
    first, second, third = sizes[sender]
    assert (second < first / 5) == takeover
    assert (third < first / 5) == takeover
    first, second, third = sizes[sender.peer]
    assert max(second, third) < first / 5


@ends
@backends
def test_without_a_context_the_order_does_not_matter(
    codec: ModuleType, backend: str, end: End
) -> None:
    settings = {"backend": backend, **NO_TAKEOVER}
    sender, receiver = compressing(codec, end, **settings), compressing(codec, end.peer, **settings)
    messages = [f"message {i}, " * 20 for i in range(5)]
    wires = [sender.encode(message) for message in messages]
    assert receiver.receive(b"".join(wires[::-1] + wires[1:2])) == [*messages[::-1], messages[1]]


@ends
def test_only_the_peer_may_keep_a_context(codec: ModuleType, end: End) -> None:
    # The two directions are independent.
    connection = compressing(codec, end, **{f"{end.role}_no_context_takeover": True})
    stream = compressor()
    for _ in range(2):
        wire = end.wire(COMPRESSED | TEXT, squeezed(b"Hello" * 20, stream))
        assert connection.receive(wire) == ["Hello" * 20]
        assert read(connection.encode("Hello" * 20)).first == COMPRESSED | TEXT

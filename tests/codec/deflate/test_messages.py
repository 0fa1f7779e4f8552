"""Compressed messages and the reserved bits (RFC 7692 sections 6 and 7.2)."""

from __future__ import annotations

import zlib
from random import Random
from types import ModuleType
from typing import Any

import pytest

from tests.codec.deflate.helpers import (
    COMPRESSED,
    NO_TAKEOVER,
    NOT_DEFLATE,
    backends,
    compressing,
    peer,
    read,
    takeovers,
)
from tests.support.deflated import (
    RFC_HELLO_AGAIN,
    RFC_PAYLOADS,
    compressor,
    squeezed,
)
from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    NORMAL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals, receive_in_pieces
from tests.support.vectors import (
    VALID_UTF8,
    by_hand,
    payload_of,
)

SENTENCE = "Sphinx of black quartz, judge my vow; pack my box with five dozen liquor jugs."


def not_deflate(why: str) -> tuple[str, int, str]:
    """Return the failure for invalid DEFLATE data, with this reason."""
    return (*NOT_DEFLATE[:2], f"{NOT_DEFLATE[2]}: {why}")


def windows(bits: int) -> dict[str, int]:
    """Return settings with these windows for both directions."""
    return {"server_max_window_bits": bits, "client_max_window_bits": bits}


@ends
@backends
@pytest.mark.parametrize(("payload", "data"), RFC_PAYLOADS.values(), ids=RFC_PAYLOADS.keys())
def test_the_payloads_of_the_rfc(
    codec: ModuleType, payload: bytes, data: bytes, backend: str, end: End
) -> None:
    wire = end.wire(COMPRESSED | TEXT, payload) + end.wire(COMPRESSED | BINARY, payload)
    for cuts in ((), range(1, len(wire))):
        connection = compressing(codec, end, backend=backend, **NO_TAKEOVER)
        assert receive_in_pieces(connection, wire, cuts) == [data.decode(), data]


@ends
def test_the_frames_of_the_rfc(codec: ModuleType, end: End) -> None:
    # Section 7.2.3.1: in one frame, and in two frames with RSV1 only in the first.
    payload = RFC_PAYLOADS["one-block"][0]
    assert by_hand(COMPRESSED | TEXT, payload) == b"\xc1\x07" + payload
    two = end.wire(RSV1 | TEXT, payload[:3]) + end.wire(FIN | CONTINUATION, payload[3:])
    connection = compressing(codec, end, **NO_TAKEOVER)
    assert connection.receive(end.wire(COMPRESSED | TEXT, payload) + two) == ["Hello"] * 2


@ends
@backends
def test_the_window_of_the_rfc(codec: ModuleType, backend: str, end: End) -> None:
    # Section 7.2.3.2
    hello = end.wire(COMPRESSED | TEXT, RFC_PAYLOADS["one-block"][0])
    again = end.wire(COMPRESSED | TEXT, RFC_HELLO_AGAIN)
    connection = compressing(codec, end, backend=backend)
    assert connection.receive(hello + again + again) == ["Hello"] * 3
    connection = compressing(codec, end, backend=backend, **NO_TAKEOVER)
    failure = not_deflate(
        f"it refers to bytes before its start, against {peer(end)}_no_context_takeover"
    )
    assert normals(connection.receive(hello + again)) == ["Hello", failure]


@ends
@backends
@pytest.mark.parametrize("bits", [15, 9])
def test_the_failure_names_the_parameter_if_the_peer_keeps_its_window(
    codec: ModuleType, backend: str, bits: int, end: End
) -> None:
    # Some clients ignore client_no_context_takeover.
    sender = compressing(codec, end.peer, backend=backend)
    receiver = compressing(codec, end, backend=backend, **NO_TAKEOVER, **windows(bits))
    assert receiver.receive(sender.encode(SENTENCE)) == [SENTENCE]
    (failure,) = receiver.receive(sender.encode(SENTENCE))
    assert failure.code == BAD_DATA
    assert failure.reason.endswith(f"against {peer(end)}_no_context_takeover")
    assert codec.Connection(codec.Role.SERVER).close(failure.code, failure.reason)


@ends
@backends
def test_the_failure_names_the_parameter_if_the_peers_window_is_too_large(
    codec: ModuleType, backend: str, end: End
) -> None:
    receiver = compressing(codec, end, backend=backend, **windows(9))
    # A reference to 2,000 bytes before the first.
    compressor = zlib.compressobj(wbits=-15, zdict=SENTENCE.encode() + bytes(2000))
    payload = compressor.compress(SENTENCE.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
    (failure,) = normals(receiver.receive(end.wire(COMPRESSED | TEXT, payload[:-4])))
    assert failure == not_deflate(f"it refers further back than {peer(end)}_max_window_bits=9")


@ends
@backends
@takeovers
def test_an_empty_message_is_one_byte(
    codec: ModuleType, takeover: bool, backend: str, end: End
) -> None:
    # Section 7.2.3.6. Without context takeover an empty message is sent uncompressed.
    connection = compressing(codec, end, backend=backend, **({} if takeover else NO_TAKEOVER))
    peer = compressing(codec, end.peer, **({} if takeover else NO_TAKEOVER))
    for message, opcode in (("", TEXT), (b"", BINARY)) * 2:
        wire = connection.encode(message, compress=True)
        assert read(wire) == ((COMPRESSED | opcode, b"\0") if takeover else (FIN | opcode, b""))
        assert peer.receive(wire) == [message]
        filler = connection.encode("filler" * 30)
        assert peer.receive(filler) == ["filler" * 30]


@ends
@backends
def test_messages_of_every_kind_and_size(codec: ModuleType, backend: str, end: End) -> None:
    sizes = (0, 1, 63, 64, 65, 125, 126, 300, 65535, 65536, 65537, 131_072, 200_000)
    messages: list[Any] = [payload_of(size) for size in sizes]
    messages += [Random(size).randbytes(size) for size in sizes]
    messages += [text.decode() * 20 for text in VALID_UTF8.values()]
    for settings in ({}, NO_TAKEOVER):
        sender = compressing(codec, end, backend=backend, **settings)
        receiver = compressing(codec, end.peer, backend=backend, **settings)
        wire = b"".join(map(sender.encode, messages))
        assert receiver.receive(wire) == messages
        assert receive_in_pieces(receiver, wire[:0], ()) == []
        wire = b"".join(map(sender.encode, messages[:20]))
        assert receive_in_pieces(receiver, wire, range(1000, len(wire), 1000)) == messages[:20]


@ends
@pytest.mark.parametrize("cut", range(8))
def test_control_frames_between_compressed_fragments(codec: ModuleType, cut: int, end: End) -> None:
    payload = RFC_PAYLOADS["one-block"][0]
    wire = b"".join(
        [
            end.wire(RSV1 | TEXT, payload[:cut]),
            end.wire(PING, b"1"),
            end.wire(CONTINUATION),
            end.wire(PONG, b"2"),
            end.wire(FIN | CONTINUATION, payload[cut:]),
            end.wire(FIN | TEXT, b"plain"),
            end.wire(COMPRESSED | BINARY, payload),
        ]
    )
    expected = [("Ping", b"1"), ("Pong", b"2"), "Hello", "plain", b"Hello"]
    for cuts in ((), range(1, len(wire))):
        assert receive_in_pieces(compressing(codec, end), wire, cuts) == expected


@pytest.mark.unmeasured
@ends
@backends
@takeovers
@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_message_in_many_fragments(
    codec: ModuleType, step: int, takeover: bool, backend: str, end: End
) -> None:
    settings = {"backend": backend, **({} if takeover else NO_TAKEOVER)}
    data = b"".join(b"%d, " % (i * i) for i in range(300))
    connection = compressing(codec, end, **settings)
    stream = compressor() if takeover else None
    for _ in range(3):
        payload = squeezed(data, stream)
        pieces = [payload[i : i + step] for i in range(0, len(payload), step)]
        firsts = [RSV1 | BINARY, *[CONTINUATION] * (len(pieces) - 1)]
        firsts[-1] |= FIN
        wire = b"".join(map(end.wire, firsts, pieces))
        assert connection.receive(wire) == [data]


@ends
def test_a_close_inside_a_compressed_message(codec: ModuleType, end: End) -> None:
    payload = squeezed(b"Hello")
    wire = end.wire(RSV1 | TEXT, payload[:3]) + end.wire(CLOSE, b"\x03\xe8")
    connection = compressing(codec, end)
    assert normals(connection.receive(wire)) == [("Close", NORMAL, "")]
    assert connection.receive(end.wire(FIN | CONTINUATION, payload[3:])) == []


RESERVED = ("Failure", PROTOCOL_ERROR, "a reserved bit is set and no extension was negotiated")


ONLY_FIRST = (
    "Failure",
    PROTOCOL_ERROR,
    "RSV1 may be set only on the first frame of a message",
)


@ends
@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("first", [FIN | TEXT, BINARY, PING, CLOSE])
@pytest.mark.parametrize("compression", [True, False])
def test_reserved_bits(
    codec: ModuleType, compression: bool, first: int, rsv: int, end: End
) -> None:
    connection = compressing(codec, end) if compression else end.connect(codec)
    wire = end.wire(first | rsv << 4, RFC_PAYLOADS["one-block"][0])
    events = normals(connection.receive(wire[:2]))
    if not compression or rsv != 4:
        assert events == [RESERVED]
    elif first >= CLOSE:
        assert events == [ONLY_FIRST]
    else:
        assert events == []


@ends
@pytest.mark.parametrize("begun", [TEXT, RSV1 | TEXT], ids=["plain", "compressed"])
@pytest.mark.parametrize("fin", [0, FIN], ids=["fragment", "last"])
@pytest.mark.parametrize("whole", [True, False])
def test_rsv1_on_a_continuation_frame_fails(
    codec: ModuleType, whole: bool, fin: int, begun: int, end: End
) -> None:
    connection = compressing(codec, end)
    assert connection.receive(end.wire(begun, b"\xf2")) == []
    wire = end.wire(fin | RSV1 | CONTINUATION, b"\x48\xcd")
    assert normals(connection.receive(wire if whole else wire[:2])) == [ONLY_FIRST]


@ends
def test_an_uncompressed_message_may_follow_any(codec: ModuleType, end: End) -> None:
    # It does not enter the window (section 6.1 allows the choice for each message).
    stream = compressor()
    wire = b"".join(
        [
            end.wire(COMPRESSED | TEXT, squeezed(b"Hello", stream)),
            end.wire(FIN | TEXT, b"plain"),
            end.wire(TEXT, b"pl"),
            end.wire(FIN | CONTINUATION, b"ain"),
            end.wire(COMPRESSED | TEXT, squeezed(b"Hello", stream)),
        ]
    )
    expected = ["Hello", "plain", "plain", "Hello"]
    for cuts in ((), range(1, len(wire))):
        assert receive_in_pieces(compressing(codec, end), wire, cuts) == expected

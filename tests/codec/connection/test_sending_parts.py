"""Messages that are sent in parts: one frame for each."""

from __future__ import annotations

import array
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.codec.connection.helpers import SENDING, sent_by
from tests.support.ends import BINARY, CONTINUATION, FIN, SERVER, TEXT, End, ends
from tests.support.tools import normals
from tests.support.vectors import payload_of

IN_PARTS = "^a message is being sent in parts; no other may begin before its last part$"


def frames(codec: ModuleType, end: End, wire: bytes) -> list[tuple[int, bytes]]:
    """Return the first byte and the payload of each frame from this end."""
    found, position = [], 0
    while position < len(wire):
        first, payload, position = codec.kernels.take_frame(
            wire, position, 1 << 30, end is not SERVER
        )
        found.append((first, payload))
    return found


@ends
def test_each_part_is_one_frame(codec: ModuleType, end: End) -> None:
    texts: list[str | bytes] = ["gr\xfc\xdfe", "", " ", "\U0001f600", "x" * 70_000]
    for parts in (texts, [part.encode() for part in texts]):  # type: ignore[union-attr]
        connection = end.connect(codec)
        wires = list(connection.encode_parts(parts))
        payloads = [part.encode() if isinstance(part, str) else part for part in parts if part]
        first, *rest = payloads
        opcode = TEXT if parts is texts else BINARY
        assert frames(codec, end, b"".join(wires)) == [
            (opcode, first),
            *((CONTINUATION, payload) for payload in rest),
            (FIN | CONTINUATION, b""),
        ]
        assert len(wires) == len(payloads) + 1
        assert sent_by(codec, end, b"".join(wires)) == [parts[0][:0].join(parts)]  # type: ignore[arg-type]


@ends
def test_parts_may_be_pushed(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    wire = connection.encode_part("a") + connection.encode_part("") + connection.encode_part("b")
    wire += connection.encode_part("c", final=True) + connection.encode(b"next")
    assert frames(codec, end, wire) == [
        *((TEXT, b"a"), (CONTINUATION, b"b"), (FIN | CONTINUATION, b"c"), (FIN | BINARY, b"next"))
    ]
    wire = connection.encode_part(b"", final=True) + connection.encode_part("", final=True)
    assert frames(codec, end, wire) == [(FIN | BINARY, b""), (FIN | TEXT, b"")]
    wire = connection.encode_part(b"") + connection.encode_part(b"") + connection.encode_part(b"x")
    assert frames(codec, end, wire) == [(BINARY, b""), (CONTINUATION, b"x")]


@ends
def test_any_bytes_like_object_is_a_part(codec: ModuleType, end: End) -> None:
    numbers = array.array("I", [1, 2, 1 << 31])
    parts = [numbers, memoryview(numbers), bytearray(b"abc"), memoryview(b"")]
    wire = b"".join(end.connect(codec).encode_parts(parts))
    assert sent_by(codec, end, wire) == [numbers.tobytes() * 2 + b"abc"]


def test_a_client_masks_every_part_with_a_new_key(codec: ModuleType) -> None:
    client = codec.Connection(codec.Role.CLIENT)
    wires = list(client.encode_parts([b"", b"a", b"b", b"c", payload_of(200), b"d"]))
    assert all(wire[1] & 0x80 for wire in wires)
    assert len({wire[4:8] if wire[1] & 0x7F == 126 else wire[2:6] for wire in wires}) == 7


@ends
def test_frames_are_encoded_when_they_are_requested(codec: ModuleType, end: End) -> None:
    log: list[str] = []

    def source() -> Iterator[str]:
        for part in "abc":
            log.append(f"part {part}")
            yield part

    for wire in end.connect(codec).encode_parts(source()):
        log.append(f"frame {frames(codec, end, wire)[0][1].decode()}")
    expected = ["part a", "frame a", "part b", "frame b", "part c", "frame c", "frame "]
    assert log == expected


@ends
def test_control_frames_between_parts(codec: ModuleType, end: End) -> None:
    sender = end.connect(codec)
    parts = sender.encode_parts(["a", "b"])
    wire = next(parts) + sender.ping(b"1") + next(parts) + sender.pong(b"2") + next(parts)
    assert list(parts) == []
    wire += sender.encode("c") + sender.close()
    expected = [("Ping", b"1"), ("Pong", b"2"), "ab", "c", ("Close", 1000, "")]
    assert sent_by(codec, end, wire) == expected


# Errors -------------------------------------------------------------------------------------------

OTHERS: dict[str, Callable[[Any], object]] = {
    "text": lambda connection: connection.encode("text"),
    "binary": lambda connection: connection.encode(b"data"),
    "compressed": lambda connection: connection.encode("text", compress=True),
    "parts": lambda connection: next(connection.encode_parts(["x"])),
}
PUSHED: dict[str, Callable[[Any], object]] = {
    "part": lambda connection: connection.encode_part("x"),
    "last-part": lambda connection: connection.encode_part("x", final=True),
}


@ends
@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("other", [*OTHERS, *PUSHED])
def test_another_message_meanwhile_is_an_error(
    codec: ModuleType, other: str, compression: bool, end: End
) -> None:
    deflate = codec.PerMessageDeflate() if compression else None
    sender, receiver = (each.connect(codec, deflate=deflate) for each in (end, end.peer))
    parts = sender.encode_parts(["a", "b"])
    wire = next(parts)
    for _ in range(2):
        with pytest.raises(codec.StateError, match=IN_PARTS):
            {**OTHERS, **PUSHED}[other](sender)
    wire += b"".join(parts) + sender.encode("c")
    assert receiver.receive(wire) == ["ab", "c"]


@ends
@pytest.mark.parametrize("other", OTHERS)
def test_another_message_among_pushed_parts_is_an_error(
    codec: ModuleType, other: str, end: End
) -> None:
    sender = end.connect(codec)
    wire = sender.encode_part("a")
    with pytest.raises(codec.StateError, match=IN_PARTS):
        OTHERS[other](sender)
    wire += sender.encode_part("b", final=True) + sender.encode("c")
    assert sent_by(codec, end, wire) == ["ab", "c"]


@ends
def test_nothing_follows_the_close_frame(codec: ModuleType, end: End) -> None:
    sender = end.connect(codec)
    parts = sender.encode_parts(["a", "b"])
    wire = next(parts) + sender.close(1001)
    for send in (*SENDING.values(), *PUSHED.values()):
        with pytest.raises(codec.StateError, match=r"^the close frame has been sent"):
            send(sender)
    with pytest.raises(codec.StateError, match=r"^the close frame has been sent"):
        next(parts)
    assert sent_by(codec, end, wire) == [("Close", 1001, "")]


@ends
@pytest.mark.parametrize("parts", ["text", b"data", bytearray(b"x"), memoryview(b"x"), None, 5])
def test_one_message_is_no_iterable_of_parts(codec: ModuleType, parts: Any, end: End) -> None:
    with pytest.raises(TypeError, match=r"^parts must be an iterable with parts, "):
        end.connect(codec).encode_parts(parts)


@ends
def test_a_message_without_a_part_has_no_type(codec: ModuleType, end: End) -> None:
    sender = end.connect(codec)
    with pytest.raises(ValueError, match=r"^parts must have at least one item"):
        list(sender.encode_parts([]))
    assert sent_by(codec, end, sender.encode("on")) == ["on"]


@ends
@pytest.mark.parametrize("wrong", [b"bytes", None, 5, "\ud800"], ids=repr)
def test_a_wrong_part_leaves_the_message_open(codec: ModuleType, wrong: Any, end: End) -> None:
    sender = end.connect(codec, deflate=codec.PerMessageDeflate())
    receiver = end.peer.connect(codec, deflate=codec.PerMessageDeflate())
    if wrong != b"bytes":
        with pytest.raises((TypeError, UnicodeEncodeError)):
            sender.encode_part(wrong)
    assert receiver.receive(sender.encode("nothing was begun")) == ["nothing was begun"]
    wire = sender.encode_part("a")
    with pytest.raises((TypeError, UnicodeEncodeError)):
        sender.encode_part(wrong)
    assert receiver.receive(wire + sender.encode_part("b", final=True)) == ["ab"]


@ends
def test_the_parts_of_a_message_have_one_type(codec: ModuleType, end: End) -> None:
    sender = end.connect(codec)
    sender.encode_part("a")
    with pytest.raises(TypeError, match=r"^part must be str, as the first part, not bytes$"):
        sender.encode_part(b"b")
    sender.encode_part("a", final=True)
    parts = sender.encode_parts([b"a", "b"])
    next(parts)
    expected = "^part must be a bytes-like object, as the first part, not str$"
    with pytest.raises(TypeError, match=expected):
        next(parts)


@ends
def test_a_source_that_fails_leaves_only_the_close(codec: ModuleType, end: End) -> None:
    def source() -> Iterator[str]:
        yield "a"
        raise LookupError("the rest is lost")

    sender = end.connect(codec)
    parts = sender.encode_parts(source())
    wire = next(parts)
    with pytest.raises(LookupError):
        next(parts)
    with pytest.raises(codec.StateError, match=IN_PARTS):
        sender.encode("b")
    wire += sender.close(1011)
    assert sent_by(codec, end, wire) == [("Close", 1011, "")]


@ends
def test_concurrent_calls_are_an_error_and_corrupt_nothing(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    sender = end.connect(codec)
    inside, go_on = threading.Event(), threading.Event()
    encode_frame = codec.parts.encode_frame

    def waiting(*arguments: Any, **options: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return encode_frame(*arguments, **options)

    wires: list[bytes] = []
    thread = threading.Thread(target=lambda: wires.append(sender.encode_part("a")))
    with monkeypatch.context() as patch:
        patch.setattr(codec.parts, "encode_frame", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            for send in (*PUSHED.values(), OTHERS["parts"]):
                with pytest.raises(RuntimeError, match=r"^another thread is in encode_part\(\)"):
                    send(sender)
        finally:
            go_on.set()
            thread.join()
    wires.append(sender.encode_part("b", final=True))
    assert sent_by(codec, end, b"".join(wires)) == ["ab"]


@ends
def test_what_one_end_sends_in_parts_the_other_receives_in_parts(
    codec: ModuleType, end: End
) -> None:
    sender, receiver = end.connect(codec), end.peer.connect(codec)
    events = [
        normals(receiver.receive_parts(wire)) for wire in sender.encode_parts(["a", "\xe9", "c"])
    ]
    assert events == [
        *([("Part", part, False)] for part in ("a", "\xe9", "c")),
        [("Part", "", True)],
    ]

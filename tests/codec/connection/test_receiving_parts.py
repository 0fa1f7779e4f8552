"""Messages that are received in parts, before they are complete."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.connection.helpers import byte_by_byte
from tests.codec.test_differential import Generator
from tests.support.deflated import bomb, squeezed, stored
from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.hostile import Talk, listen
from tests.support.memory import at_most, in_fresh_process
from tests.support.tools import joined, normals
from tests.support.vectors import INVALID_UTF8, VALID_UTF8, Bad, payload_of

MIB = 1 << 20


def calls(connection: Any, data: bytes, cuts: Iterable[int] = (), **options: int) -> Any:
    """Return the events of each call, for the data split at these positions."""
    ends = [*cuts, len(data)]
    pieces = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return [connection.receive_parts(piece, **options) for piece in pieces]


def events_of(connection: Any, data: bytes, cuts: Iterable[int] = (), **options: int) -> Any:
    """Return the events of all calls."""
    return [event for call in calls(connection, data, cuts, **options) for event in call]


def seen(connection: Any, data: bytes, cuts: Iterable[int] = (), **options: int) -> Any:
    """Return the normal events of each call."""
    return [normals(call) for call in calls(connection, data, cuts, **options)]


def part(data: str | bytes, *, final: bool = False) -> tuple[str, str | bytes, bool]:
    return "Part", data, final


# Parts and whole messages -------------------------------------------------------------------------


@ends
def test_an_incomplete_message_is_returned_in_parts(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    head = len(end.wire(BINARY, b""))
    wire = end.wire(BINARY, b"abcd") + end.wire(CONTINUATION, b"ef") + end.wire(FIN, b"g")
    cuts = [1, head, head + 1, head + 3, head + 4, 2 * head + 5]
    assert seen(connection, wire, cuts) == [
        *([], [], [part(b"a")], [part(b"bc")], [part(b"d")], [part(b"e")]),
        [part(b"fg", final=True)],
    ]


@ends
def test_a_message_that_is_complete_at_once_is_whole(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    wire = b"".join(
        [
            end.wire(FIN | TEXT, b"one"),
            end.wire(TEXT, b"t"),
            end.wire(PING, b"x"),
            end.wire(FIN | CONTINUATION, b"wo"),
            end.wire(FIN | BINARY, payload_of(70_000)),
            end.wire(FIN | TEXT),
        ]
    )
    expected = ["one", ("Ping", b"x"), "two", payload_of(70_000), ""]
    assert normals(connection.receive_parts(wire)) == expected
    assert normals(connection.receive(wire)) == expected


@ends
def test_messages_around_one_in_parts(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    first = end.wire(FIN | TEXT, b"before") + end.wire(TEXT, b"a")
    second = end.wire(FIN, b"b") + end.wire(FIN | TEXT, b"between") + end.wire(BINARY, b"c")
    third = end.wire(FIN, b"d") + end.wire(FIN | TEXT, b"after")
    assert seen(connection, first + second + third, [len(first), len(first + second)]) == [
        ["before", part("a")],
        [part("b", final=True), "between", part(b"c")],
        [part(b"d", final=True), "after"],
    ]
    assert connection.receive(end.wire(FIN | TEXT, b"whole")) == ["whole"]


@ends
def test_the_last_part_may_be_empty(codec: ModuleType, end: End) -> None:
    for opcode, data in ((TEXT, "a"), (BINARY, b"a")):
        connection = end.connect(codec)
        wire, last = end.wire(opcode, b"a"), end.wire(FIN | CONTINUATION)
        assert seen(connection, wire + last, [len(wire)]) == [
            [part(data)],
            [part(data[:0], final=True)],
        ]


@ends
def test_empty_fragments_are_no_parts(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    empty = end.wire(TEXT) + end.wire(CONTINUATION)
    assert seen(connection, empty, byte_by_byte(empty)) == [[]] * len(empty)
    assert connection.receive(end.wire(FIN | CONTINUATION, b"x")) == ["x"]


@ends
def test_control_frames_between_parts(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    frames = [
        end.wire(TEXT, b"a") + end.wire(PING, b"1"),
        end.wire(PONG, b"2"),
        end.wire(CONTINUATION, b"b") + end.wire(PING, b"3") + end.wire(CONTINUATION, b"c"),
        end.wire(PING, b"4") + end.wire(FIN | CONTINUATION, b"d") + end.wire(PING, b"5"),
    ]
    assert [normals(connection.receive_parts(wire)) for wire in frames] == [
        [("Ping", b"1"), part("a")],
        [("Pong", b"2")],
        [("Ping", b"3"), part("bc")],
        [("Ping", b"4"), part("d", final=True), ("Ping", b"5")],
    ]


@ends
def test_a_minimum_size_keeps_shorter_messages_whole(codec: ModuleType, end: End) -> None:
    def sizes(size: int, step: int) -> list[int]:
        payload = payload_of(size)
        wire = end.wire(FIN | BINARY, payload)
        cuts = range(step, len(wire), step)
        events = events_of(end.connect(codec), wire, cuts, min_size=1000)
        assert joined(events) == [payload]
        return [len(getattr(event, "data", event)) for event in events]

    for size in (0, 1, 999, 1000):
        assert sizes(size, 1) == [size]
    assert sizes(1001, 1) == [1000, 1]
    assert sizes(2500, 1) == [1000, 1000, 500]
    *parts, _ = sizes(70_000, 333)
    assert all(1000 <= size < 1333 for size in parts)


@ends
@pytest.mark.parametrize("size", [0, -1])
def test_the_minimum_size_is_at_least_one(codec: ModuleType, size: int, end: End) -> None:
    connection = end.connect(codec)
    with pytest.raises(ValueError, match=f"^min_size must be at least 1, not {size}$"):
        connection.receive_parts(end.wire(FIN | TEXT, b"x"), min_size=size)
    assert connection.receive_parts(end.wire(FIN | TEXT, b"x"), min_size=5) == ["x"]


# Text ---------------------------------------------------------------------------------------------


@ends
@pytest.mark.parametrize("data", VALID_UTF8.values(), ids=VALID_UTF8)
def test_a_character_is_never_divided(codec: ModuleType, data: bytes, end: End) -> None:
    for step in (1, 2, 3):
        wire = b"".join(
            end.wire(CONTINUATION if begin else TEXT, data[begin : begin + step])
            for begin in range(0, max(len(data), 1), step)
        ) + end.wire(FIN | CONTINUATION)
        assert joined(events_of(end.connect(codec), wire, byte_by_byte(wire))) == [data.decode()]


@ends
@pytest.mark.parametrize("data", INVALID_UTF8.values(), ids=INVALID_UTF8)
def test_invalid_text_fails_at_its_first_byte(codec: ModuleType, data: Bad, end: End) -> None:
    wire = end.wire(TEXT, b"good \xc3\xa9 ") + end.wire(FIN | CONTINUATION, data.data)
    *parts, last = events_of(end.connect(codec), wire, byte_by_byte(wire))
    assert normals([last]) == [("Failure", BAD_DATA, "a text message is not valid UTF-8")]
    text = "".join(event.data for event in parts)
    assert text == "good \xe9 " + data.data[: data.prefix].decode(errors="ignore")


# Errors and the end -------------------------------------------------------------------------------


@ends
def test_receive_does_not_continue_a_message_in_parts(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    assert normals(connection.receive_parts(end.wire(TEXT, b"a"))) == [part("a")]
    for _ in range(2):
        with pytest.raises(codec.StateError, match=r"in parts: call receive_parts\(\)$"):
            connection.receive(end.wire(FIN | CONTINUATION, b"b"))
    assert connection.incomplete
    assert not connection.between_messages
    wire = end.wire(FIN | CONTINUATION, b"c")
    assert normals(connection.receive_parts(wire)) == [part("c", final=True)]
    assert connection.between_messages
    assert connection.receive(end.wire(FIN | TEXT, b"d")) == ["d"]


@ends
def test_receive_parts_continues_a_message_of_receive(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    assert connection.receive(end.wire(TEXT, b"a\xc3")) == []
    assert normals(connection.receive_parts(b"")) == [part("a")]
    wire = end.wire(FIN | CONTINUATION, b"\xa9")
    assert normals(connection.receive_parts(wire)) == [part("\xe9", final=True)]


@ends
@pytest.mark.parametrize("data", ["text", None, memoryview(bytes(8))[::2]], ids=type)
def test_another_type_is_an_error_and_changes_nothing(
    codec: ModuleType, data: Any, end: End
) -> None:
    connection = end.connect(codec)
    connection.receive_parts(end.wire(TEXT, b"a") + end.wire(CONTINUATION, b"bc")[:-1])
    with pytest.raises(TypeError, match=r"^data must be a C-contiguous bytes-like object, not "):
        connection.receive_parts(data)
    rest = end.wire(CONTINUATION, b"bc")[-1:] + end.wire(FIN)
    assert normals(connection.receive_parts(rest)) == [part("c", final=True)]


@ends
def test_the_buffer_may_be_reused(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    wire = end.wire(BINARY, payload_of(100)) + end.wire(FIN, payload_of(9))
    events = []
    for begin in range(0, len(wire), 7):
        buffer = bytearray(wire[begin : begin + 7])
        with memoryview(buffer) as view:
            events += connection.receive_parts(view)
        buffer[:] = b"\xff" * len(buffer)
        buffer.clear()  # BufferError if the buffer is still exported
    assert joined(events) == [payload_of(100) + payload_of(9)]


ENDINGS: dict[str, tuple[Callable[[End], bytes], tuple[Any, ...]]] = {
    "close": (lambda end: end.wire(CLOSE, b"\x03\xe9"), ("Close", 1001, "")),
    "failure": (
        lambda end: end.wire(FIN | TEXT, b"x"),
        ("Failure", PROTOCOL_ERROR, "a new message inside a fragmented one"),
    ),
    "long-control-frame": (
        lambda end: end.wire(PING, bytes(126)),
        ("Failure", PROTOCOL_ERROR, "a control frame carries at most 125 bytes"),
    ),
}


@ends
@pytest.mark.parametrize(("wire", "event"), ENDINGS.values(), ids=ENDINGS)
def test_a_message_without_its_last_part_ends_with_the_connection(
    codec: ModuleType, wire: Callable[[End], bytes], event: Any, end: End
) -> None:
    for before in (b"", end.wire(CONTINUATION, b"not delivered")):
        connection = end.connect(codec)
        assert normals(connection.receive_parts(end.wire(TEXT, b"a"))) == [part("a")]
        assert normals(connection.receive_parts(before + wire(end))) == [event]
        assert connection.receive_parts(end.wire(FIN | TEXT, b"x")) == []
        assert connection.receive(end.wire(FIN | TEXT, b"x")) == []
        assert connection.close(event[1])


@ends
def test_concurrent_calls_are_an_error_and_corrupt_nothing(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    connection = end.connect(codec)
    events = connection.receive_parts(end.wire(TEXT, b"a"))
    inside, go_on = threading.Event(), threading.Event()
    take_frame = codec.receiving.take_frame

    def waiting(*arguments: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return take_frame(*arguments)

    wire = end.wire(CONTINUATION, b"b")
    thread = threading.Thread(target=lambda: events.extend(connection.receive_parts(wire)))
    with monkeypatch.context() as patch:
        patch.setattr(codec.receiving, "take_frame", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            for receive in (connection.receive_parts, connection.receive):
                with pytest.raises(RuntimeError, match=r"^another thread is in receive\(\)"):
                    receive(end.wire(FIN | CONTINUATION, b"x"))
        finally:
            go_on.set()
            thread.join()
    events += connection.receive_parts(end.wire(FIN | CONTINUATION, b"c"))
    assert joined(events) == ["abc"]


@ends
def test_nothing_is_decoded_after_a_memory_error(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    def no_memory(*arguments: Any) -> Any:
        raise MemoryError

    connection = end.connect(codec)
    connection.receive_parts(end.wire(TEXT, b"a"))
    with monkeypatch.context() as patch:
        patch.setattr(codec.receiving, "take_frame", no_memory)
        with pytest.raises(MemoryError):
            connection.receive_parts(end.wire(CONTINUATION, b"b"))
    assert connection.receive_parts(end.wire(FIN | CONTINUATION, b"c")) == []
    assert connection.receive(end.wire(FIN | TEXT, b"c")) == []


# Limits -------------------------------------------------------------------------------------------


@ends
def test_the_limits_are_those_of_whole_messages(codec: ModuleType, end: End) -> None:
    limits = {"max_message_size": 10, "max_fragments": 3}
    too_long = ("Failure", TOO_BIG, "a message of 11 bytes or more is over the limit of 10")
    connection = end.connect(codec, **limits)
    assert normals(connection.receive_parts(end.wire(BINARY, bytes(9)))) == [part(bytes(9))]
    assert normals(connection.receive_parts(end.wire(CONTINUATION, bytes(2))[:2])) == [too_long]
    connection = end.connect(codec, **limits)
    frames = [end.wire(BINARY, b"a"), *[end.wire(CONTINUATION, b"b")] * 2]
    events = [normals(connection.receive_parts(frame)) for frame in frames]
    assert events == [[part(b"a")], [part(b"b")], [part(b"b")]]
    too_many = ("Failure", TOO_BIG, "a message in more fragments than the limit of 3")
    assert normals(connection.receive_parts(end.wire(FIN, b""))) == [too_many]
    # The next message has the whole limit again.
    connection = end.connect(codec, **limits)
    for _ in range(3):
        wire = end.wire(BINARY, bytes(6)) + end.wire(FIN, bytes(4))
        assert joined(events_of(connection, wire, byte_by_byte(wire))) == [bytes(10)]


@ends
def test_the_limit_of_inflated_data_counts_the_parts(codec: ModuleType, end: End) -> None:
    limit = 200_000
    deflate = codec.PerMessageDeflate()
    wire = end.wire(FIN | RSV1 | BINARY, bomb(limit)) * 2  # each message has the whole limit
    connection = end.connect(codec, deflate=deflate, max_message_size=limit)
    events = events_of(connection, wire, range(20, len(wire), 20))
    assert joined(events) == [bytes(limit)] * 2
    assert len(events) > 8
    wire = end.wire(FIN | RSV1 | BINARY, bomb(limit + 1))
    connection = end.connect(codec, deflate=deflate, max_message_size=limit)
    *parts, last = events_of(connection, wire, range(20, len(wire), 20))
    assert (type(last), last.code) == (codec.Failure, TOO_BIG)
    assert limit / 2 < sum(len(event.data) for event in parts) <= limit


@ends
def test_compressed_text_in_parts(codec: ModuleType, end: End) -> None:
    text = "gr\xfc\xdfe \U0001f600 " * 2000
    connection = end.connect(codec, deflate=codec.PerMessageDeflate())
    for payload in (squeezed(text.encode()), stored(text.encode())):
        half = len(payload) // 2
        wire = end.wire(RSV1 | TEXT, payload[:half]) + end.wire(PING, b"x")
        wire += end.wire(FIN | CONTINUATION, payload[half:])
        events = events_of(connection, wire, byte_by_byte(wire))
        assert joined(events) == [("Ping", b"x"), text]
        assert len(events) > 3


@pytest.mark.slow
@pytest.mark.unmeasured
@ends
def test_a_long_message_in_parts_takes_little_memory(codec: ModuleType, end: End) -> None:
    block = end.wire(CONTINUATION, bytes(1 << 16))
    parts = [(end.wire(BINARY), 1), (block, 1024), (end.wire(FIN | CONTINUATION), 1)]
    options = {"max_message_size": 100 * MIB}
    talk = Talk(end.role, parts, options=options, in_parts=True)
    memory, (answer,) = in_fresh_process(not codec.ACCELERATED, listen, [talk])
    assert set(answer.kinds) == {"Part"}
    assert normals([answer.last]) == [part(b"", final=True)]
    assert memory < at_most(2 * MIB)


# Any stream ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("seed", range(3))
def test_joined_parts_are_the_messages_of_receive(codec: ModuleType, seed: int) -> None:
    generator = Generator(seed)
    in_parts = 0
    for _ in range(2000):
        stream = generator.stream()
        whole, connection = stream.connect(codec), stream.connect(codec)
        least = generator.one_of((1, 1, 3, 100))
        expected: list[Any] = []
        events: list[Any] = []
        for chunk in [*stream.chunks(), stream.probe]:
            expected += whole.receive(chunk)
            events += connection.receive_parts(chunk, min_size=least)
            assert connection.incomplete == whole.incomplete
            assert connection.close_received == whole.close_received
        assert joined(events) == normals(expected), stream
        in_parts += any(isinstance(event, codec.Part) for event in events)
    assert in_parts > 200

"""Arguments of wrong types and values."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support.ends import (
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    FIN,
    NORMAL,
    PING,
    SERVER,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals
from tests.support.vectors import (
    payload_of,
)


@ends
def test_the_buffer_may_be_reused(codec: ModuleType, end: End) -> None:
    data = b"".join(
        [
            end.wire(FIN | TEXT, b"text"),
            end.wire(FIN | BINARY, b"binary"),
            end.wire(PING, b"ping"),
            end.wire(TEXT, b"frag"),
            end.wire(FIN | CONTINUATION, b"ment"),
            end.wire(FIN | BINARY, payload_of(300)),
            end.wire(CLOSE, b"\x03\xe8reason"),
        ]
    )
    expected = ["text", b"binary", ("Ping", b"ping"), "fragment", payload_of(300)]
    for step in (1, 2, 3, 7, 50, len(data)):
        connection = end.connect(codec)
        buffer = bytearray(len(data))
        events: list[Any] = []
        for begin in range(0, len(data), step):
            chunk = data[begin : begin + step]
            buffer[: len(chunk)] = chunk
            with memoryview(buffer)[: len(chunk)] as view:
                events += connection.receive(view)
            buffer[:] = b"\xff" * len(buffer)
        assert normals(events) == [*expected, ("Close", NORMAL, "reason")]
        buffer.clear()  # BufferError if the buffer is still exported


RELEASED = memoryview(b"")


RELEASED.release()


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array-of-integers": lambda data: array.array("I", data),
    "view-of-integers": lambda data: memoryview(data).cast("I"),
    "two-dimensions": lambda data: memoryview(data).cast("B", (2, len(data) // 2)),
    "ctypes-in-the-other-byte-order": lambda data: (
        ctypes.c_uint.__ctype_be__ * (len(data) // 4)
    ).from_buffer_copy(data),
}


@ends
@pytest.mark.parametrize("convert", BUFFERS.values(), ids=BUFFERS)
def test_receive_accepts_any_bytes_like_object(
    codec: ModuleType, convert: Callable[[bytes], Any], end: End
) -> None:
    parts = [(FIN | TEXT, b"text"), (PING, b"x"), (BINARY, b"abc"), (FIN | CONTINUATION, b"d")]
    wire = b"".join(end.wire(first, payload) for first, payload in parts) * 8
    assert len(wire) % 8 == 0
    events = ["text", ("Ping", b"x"), b"abcd"] * 8
    for cut in (0, 8, 16, 24, len(wire)):
        connection = end.connect(codec)
        received = connection.receive(convert(wire[:cut])) if cut else []
        received += connection.receive(convert(wire[cut:])) if wire[cut:] else []
        assert normals(received) == events


@ends
@pytest.mark.parametrize("state", ["between", "in-a-head", "in-a-payload", "in-a-message"])
@pytest.mark.parametrize(
    "data",
    ["text", 5, None, [1], memoryview(bytes(8))[::2], RELEASED],
    ids=["str", "int", "None", "list", "gaps", "released-view"],
)
def test_receive_of_another_type_is_an_error_and_changes_nothing(
    codec: ModuleType, data: Any, state: str, end: End
) -> None:
    wire = end.wire(TEXT, b"ab") + end.wire(FIN | CONTINUATION, b"cd") + end.wire(PING, b"x")
    head = 6 if end.peer_key else 2
    cut = {"between": 0, "in-a-head": 1, "in-a-payload": head + 1, "in-a-message": head + 2}[state]
    connection = end.connect(codec)
    assert connection.receive(wire[:cut]) == []
    for _ in range(2):
        with pytest.raises(ValueError if data is RELEASED else TypeError):
            connection.receive(data)
    assert normals(connection.receive(wire[cut:])) == ["abcd", ("Ping", b"x")]


def test_receive_of_another_type_is_an_error_after_the_end_too(codec: ModuleType) -> None:
    connection = CLIENT.connect(codec)
    connection.receive(b"\x88\x00")
    wrong: Any = "text"
    with pytest.raises(TypeError):
        connection.receive(wrong)


def test_role_is_one_of_two(codec: ModuleType) -> None:
    assert SERVER.connect(codec).role is codec.Role.SERVER
    assert CLIENT.connect(codec).role is codec.Role.CLIENT
    with pytest.raises(
        ValueError, match=r"^role must be Role\.SERVER or Role\.CLIENT, not 'proxy'$"
    ):
        codec.Connection("proxy")


def test_subprotocol_is_kept(codec: ModuleType) -> None:
    assert SERVER.connect(codec).subprotocol is None
    assert SERVER.connect(codec, subprotocol="chat").subprotocol == "chat"


def test_a_connection_rejects_unknown_attributes(codec: ModuleType) -> None:
    connection = SERVER.connect(codec)
    with pytest.raises(AttributeError):
        connection.max_message_sise = 1

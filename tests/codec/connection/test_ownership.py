"""A connection that several threads use at once."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from tests.support.ends import (
    CLIENT,
    FIN,
    PING,
    SERVER,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals


@ends
def test_concurrent_calls_of_receive_are_an_error_and_corrupt_nothing(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    take_messages = codec.connection.take_messages

    def waiting(*arguments: Any) -> int:
        inside.set()
        assert go_on.wait(30)
        left: int = take_messages(*arguments)
        return left

    connection = end.connect(codec)
    wire = end.wire(FIN | TEXT, b"first")
    events: list[Any] = []
    thread = threading.Thread(target=lambda: events.extend(connection.receive(wire + wire[:3])))
    with monkeypatch.context() as patch:
        patch.setattr(codec.connection, "take_messages", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"^another thread is in receive\(\)"):
                    connection.receive(end.wire(FIN | TEXT, b"second"))
        finally:
            go_on.set()
            thread.join()
    assert events == ["first"]
    assert normals(connection.receive(wire[3:] + end.wire(PING))) == ["first", ("Ping", b"")]


@pytest.mark.parametrize(
    ("end", "kernel"),
    [
        (SERVER, "take_messages"),
        (SERVER, "take_frame"),
        (SERVER, "parse_frame"),
        (SERVER, "mask"),
        (CLIENT, "take_messages"),
        (CLIENT, "take_frame"),
        (CLIENT, "parse_frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.role,
)
def test_nothing_is_decoded_after_a_memory_error(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, kernel: str, end: End
) -> None:
    # The beginning of the next frame is unknown, and payload bytes must not be decoded as frames.
    def no_memory(*arguments: Any) -> Any:
        raise MemoryError

    connection = end.connect(codec)
    with monkeypatch.context() as patch:
        module = codec.connection if kernel == "take_messages" else codec.receiving
        patch.setattr(module, kernel, no_memory)
        with pytest.raises(MemoryError):
            connection.receive(end.wire(PING, b"x") + end.wire(FIN | TEXT, b"not whole")[:-1])
    assert connection.receive(end.wire(FIN | TEXT, b"after")) == []
    assert connection.receive(end.wire(FIN | TEXT, b"after")) == []

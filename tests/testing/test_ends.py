"""The two ends of a WebSocket in memory, on both kernels."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.support.tools import normals
from wsframe import Close, Failure, Ping
from wsframe.testing import Pair


def test_messages_and_control_frames_arrive_in_any_pieces() -> None:
    for step in (0, 1, 2, 100):
        pair = Pair()
        pair.client.send("hello", b"\0")
        pair.client.ping(b"1")
        pair.client.close(1001, "bye")
        assert pair.server.expect(1, step) == ["hello"]
        assert pair.server.receive(step) == [b"\0", Ping(b"1"), Close(1001, "bye")]
        pair.server.close(1001)
        assert pair.client.receive(step) == [Close(1001)]
        assert pair.client.receive(step) == []


def test_events_that_are_missing_are_an_error() -> None:
    pair = Pair()
    pair.server.send("one", "two")
    with pytest.raises(AssertionError, match=r"received 2 of 3 expected events: \['one', 'two'\]"):
        pair.client.expect(3)


def test_a_server_fails_at_an_unmasked_frame() -> None:
    pair = Pair()
    pair.client.write(b"\x81\x01x")
    (failure,) = pair.server.receive()
    assert isinstance(failure, Failure)
    assert failure.code == 1002


def test_the_ends_may_be_given(codec: ModuleType) -> None:
    client = codec.Connection(codec.Role.CLIENT)
    pair = Pair(client, codec.Connection(codec.Role.SERVER, max_message_size=3))
    assert pair.client.connection is client
    pair.client.send("abc", "abcd")
    events = normals(pair.server.receive(step=1))
    assert events[0] == "abc"
    assert events[1][:2] == ("Failure", 1009)

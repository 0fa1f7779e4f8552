"""Sending messages and control frames."""

from __future__ import annotations

import array
from types import ModuleType

import pytest

from tests.codec.connection.helpers import SENDING, sent_by
from tests.support.ends import (
    CLIENT,
    SERVER,
    End,
    ends,
)
from tests.support.vectors import (
    payload_of,
)


@ends
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_the_other_end_receives_encoded_messages(codec: ModuleType, size: int, end: End) -> None:
    connection = end.connect(codec)
    for message in (payload_of(size), "x" * size, "é" * (size // 2), bytearray(size)):
        wire = connection.encode(message)
        assert type(wire) is bytes
        expected = message if isinstance(message, str) else bytes(message)
        assert sent_by(codec, end, wire) == [expected]


@ends
def test_encode_sends_any_bytes_like_object_as_binary(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    numbers = array.array("I", [1, 2, 1 << 31])
    for message in (numbers, memoryview(numbers), memoryview(numbers).cast("B")):
        assert sent_by(codec, end, connection.encode(message)) == [numbers.tobytes()]


@ends
def test_encode_of_another_type_is_an_error(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    for message in (None, 5, ["x"]):
        with pytest.raises(TypeError, match="bytes-like object, not "):
            connection.encode(message)
    with pytest.raises(UnicodeEncodeError):
        connection.encode("\ud800")
    assert sent_by(codec, end, connection.encode("on")) == ["on"]


def test_a_server_does_not_mask_and_a_client_does(codec: ModuleType) -> None:
    # RFC 6455 section 5.1
    for send in SENDING.values():
        assert not send(SERVER.connect(codec))[1] & 0x80
        assert send(CLIENT.connect(codec))[1] & 0x80


def test_a_client_masks_every_frame_with_a_new_key(codec: ModuleType) -> None:
    client = CLIENT.connect(codec)
    wires = [client.encode(b""), client.encode(b""), client.ping(), client.pong(), client.close()]
    assert len({wire[2:6] for wire in wires}) == len(wires)


@ends
@pytest.mark.parametrize("name", ["ping", "pong"])
def test_ping_and_pong_carry_125_bytes(codec: ModuleType, name: str, end: End) -> None:
    connection = end.connect(codec)
    send = getattr(connection, name)
    assert sent_by(codec, end, send()) == [(name.title(), b"")]
    assert sent_by(codec, end, send(payload_of(125))) == [(name.title(), payload_of(125))]
    with pytest.raises(
        ValueError, match="payload must have at most 125 bytes in a control frame, not 126"
    ):
        send(bytes(126))
    assert sent_by(codec, end, send(b"on")) == [(name.title(), b"on")]

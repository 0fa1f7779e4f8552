"""The closing handshake (RFC 6455 sections 5.5.1 and 7)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.connection.helpers import SENDING, check_both_ways, sent_by
from tests.support.ends import (
    CLIENT,
    CLOSE,
    FIN,
    NORMAL,
    PING,
    RSV1,
    SERVER,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals
from tests.support.vectors import (
    CLOSE_CODES_ALLOWED,
    CLOSE_CODES_REFUSED,
)


@ends
@pytest.mark.parametrize("code", CLOSE_CODES_ALLOWED)
def test_a_close_with_this_code_is_received(codec: ModuleType, code: int, end: End) -> None:
    payload = code.to_bytes(2, "big")
    check_both_ways(codec, end, end.wire(CLOSE, payload), [("Close", code, "")])
    why = end.wire(CLOSE, payload + "why ✓".encode())
    check_both_ways(codec, end, why, [("Close", code, "why ✓")])


@ends
def test_a_close_without_a_code_is_1005(codec: ModuleType, end: End) -> None:
    check_both_ways(codec, end, end.wire(CLOSE), [("Close", 1005, "")])


@ends
def test_a_close_with_the_longest_reason(codec: ModuleType, end: End) -> None:
    wire = end.wire(CLOSE, b"\x03\xe8" + b"r" * 123)
    check_both_ways(codec, end, wire, [("Close", NORMAL, "r" * 123)])


@ends
def test_nothing_is_decoded_after_a_close(codec: ModuleType, end: End) -> None:
    after = end.wire(FIN | TEXT, b"after")
    wire = end.wire(FIN | TEXT, b"before") + end.wire(CLOSE, b"\x03\xe8") + after
    connection = end.connect(codec)
    assert normals(connection.receive(wire)) == ["before", ("Close", NORMAL, "")]
    for more in (b"", after, b"\xff" * 20, end.wire(CLOSE)):
        assert connection.receive(more) == []


@ends
def test_close_flags(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    assert (connection.close_sent, connection.close_received) == (False, False)
    connection.receive(end.wire(CLOSE))
    assert (connection.close_sent, connection.close_received) == (False, True)
    connection.close()
    assert (connection.close_sent, connection.close_received) == (True, True)


@ends
def test_a_failure_is_not_a_close(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    connection.receive(end.wire(CLOSE, b"\x03"))
    assert (connection.close_sent, connection.close_received) == (False, False)


@ends
def test_messages_are_received_after_our_close(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)
    connection.close()
    wire = end.wire(FIN | TEXT, b"late") + end.wire(PING) + end.wire(CLOSE, b"\x03\xe8")
    assert normals(connection.receive(wire)) == ["late", ("Ping", b""), ("Close", NORMAL, "")]


sending = pytest.mark.parametrize("send", SENDING.values(), ids=SENDING)


@ends
@sending
def test_nothing_may_be_sent_after_our_close(
    codec: ModuleType, send: Callable[[Any], bytes], end: End
) -> None:
    connection = end.connect(codec)
    connection.close()
    for _ in range(2):
        with pytest.raises(codec.StateError, match=r"^the close frame has been sent; no"):
            send(connection)


@ends
@sending
@pytest.mark.parametrize("last", ["close", "failure"])
def test_messages_before_the_end_can_be_answered(
    codec: ModuleType, last: str, send: Callable[[Any], bytes], end: End
) -> None:
    connection = end.connect(codec)
    final = end.wire(CLOSE) if last == "close" else end.wire(FIN | RSV1 | TEXT)
    events = normals(connection.receive(end.wire(FIN | TEXT, b"question") + final))
    assert [events[0], events[1][0]] == ["question", last.title()]
    assert send(connection)


@ends
@pytest.mark.parametrize("code", CLOSE_CODES_ALLOWED)
def test_close_sends_this_code(codec: ModuleType, code: int, end: End) -> None:
    assert sent_by(codec, end, end.connect(codec).close(code)) == [("Close", code, "")]
    wire = end.connect(codec).close(code, "grün")
    assert sent_by(codec, end, wire) == [("Close", code, "grün")]


@ends
def test_close_is_1000_by_default(codec: ModuleType, end: End) -> None:
    assert sent_by(codec, end, end.connect(codec).close()) == [("Close", NORMAL, "")]


@ends
@pytest.mark.parametrize("reason", ["r" * 123, "é" * 61 + "r"], ids=["ascii", "utf-8"])
def test_close_sends_a_reason_of_123_bytes(codec: ModuleType, reason: str, end: End) -> None:
    wire = end.connect(codec).close(NORMAL, reason)
    assert sent_by(codec, end, wire) == [("Close", NORMAL, reason)]


def test_close_frames_byte_for_byte(codec: ModuleType) -> None:
    assert SERVER.connect(codec).close() == b"\x88\x02\x03\xe8"
    assert SERVER.connect(codec).close(1001, "bye") == b"\x88\x05\x03\xe9bye"
    assert SERVER.connect(codec).close(1005) == b"\x88\x00"
    wire = CLIENT.connect(codec).close(1005)
    assert (wire[:2], len(wire)) == (b"\x88\x80", 6)


@ends
def test_every_received_close_code_can_be_returned(codec: ModuleType, end: End) -> None:
    for payload in (b"", *(code.to_bytes(2, "big") for code in CLOSE_CODES_ALLOWED)):
        connection = end.connect(codec)
        (event,) = connection.receive(end.wire(CLOSE, payload))
        wire = connection.close(event.code)
        assert sent_by(codec, end, wire) == [("Close", event.code, "")]


WRONG_CLOSES: dict[str, tuple[int, str, str]] = {
    **{
        f"code-{code}": (code, "", f"close code {code} must not be sent")
        for code in (*CLOSE_CODES_REFUSED, -1, 65536, 1 << 70)
        if code != 1005
    },
    "reason-without-a-code": (1005, "why", "a close frame without a code cannot carry a reason"),
    "reason-of-124-bytes": (1000, "r" * 124, "at most 123 bytes of UTF-8, not 124"),
    "reason-of-62-characters": (1000, "é" * 62, "at most 123 bytes of UTF-8, not 124"),
    "reason-that-is-no-text": (1000, "\ud800", "surrogates not allowed"),
}


@ends
@pytest.mark.parametrize(("code", "reason", "text"), WRONG_CLOSES.values(), ids=WRONG_CLOSES.keys())
def test_close_with_invalid_arguments_leaves_the_connection_open(
    codec: ModuleType, code: int, reason: str, text: str, end: End
) -> None:
    connection = end.connect(codec)
    with pytest.raises(ValueError, match=text):
        connection.close(code, reason)
    assert not connection.close_sent
    assert sent_by(codec, end, connection.encode("on")) == ["on"]
    assert connection.receive(end.wire(FIN | TEXT, b"on")) == ["on"]
    assert sent_by(codec, end, connection.close()) == [("Close", NORMAL, "")]

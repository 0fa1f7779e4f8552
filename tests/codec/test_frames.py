"""The terms of RFC 6455."""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType
from typing import Any

import pytest

from tests.support.vectors import CLOSE_CODES_ALLOWED, CLOSE_CODES_REFUSED


def test_the_opcodes_are_those_of_the_rfc(codec: ModuleType) -> None:
    # RFC 6455 section 5.2
    assert issubclass(codec.Opcode, IntEnum)
    assert {opcode.name: opcode.value for opcode in codec.Opcode} == {
        "CONTINUATION": 0x0,
        "TEXT": 0x1,
        "BINARY": 0x2,
        "CLOSE": 0x8,
        "PING": 0x9,
        "PONG": 0xA,
    }


def test_the_close_codes_are_those_of_the_rfc(codec: ModuleType) -> None:
    # RFC 6455 section 11.7 and its registry
    assert issubclass(codec.CloseCode, IntEnum)
    assert {code.value: code.name for code in codec.CloseCode} == {
        1000: "NORMAL_CLOSURE",
        1001: "GOING_AWAY",
        1002: "PROTOCOL_ERROR",
        1003: "UNSUPPORTED_DATA",
        1005: "NO_STATUS_RCVD",
        1006: "ABNORMAL_CLOSURE",
        1007: "INVALID_FRAME_PAYLOAD_DATA",
        1008: "POLICY_VIOLATION",
        1009: "MESSAGE_TOO_BIG",
        1010: "MANDATORY_EXTENSION",
        1011: "INTERNAL_ERROR",
        1012: "SERVICE_RESTART",
        1013: "TRY_AGAIN_LATER",
        1014: "BAD_GATEWAY",
        1015: "TLS_HANDSHAKE",
    }


def test_close_codes_that_may_be_sent(codec: ModuleType) -> None:
    # RFC 6455 section 7.4
    may = codec.frames.is_sendable
    allowed = {code for code in range(65536) if may(code)}
    named = {int(code) for code in codec.CloseCode} - {1005, 1006, 1015}
    assert allowed == named | set(range(3000, 5000))
    assert set(CLOSE_CODES_ALLOWED) <= allowed
    assert not allowed & set(CLOSE_CODES_REFUSED)


def test_roles(codec: ModuleType) -> None:
    assert [role.name for role in codec.Role] == ["SERVER", "CLIENT"]


def test_events_match_by_position(codec: ModuleType) -> None:
    assert codec.Ping.__match_args__ == ("payload",)
    assert codec.Pong.__match_args__ == ("payload",)
    assert codec.Close.__match_args__ == ("code", "reason")
    assert codec.Failure.__match_args__ == ("code", "reason")


def test_events_are_values(codec: ModuleType) -> None:
    events: list[Any] = [
        codec.Ping(b"x"),
        codec.Pong(b"x"),
        codec.Close(1002, "x"),
        codec.Failure(1002, "x"),
    ]
    for i, event in enumerate(events):
        assert [event == other for other in events] == [i == j for j in range(4)]
        with pytest.raises(AttributeError):
            setattr(event, event.__match_args__[0], None)
        assert not hasattr(event, "__dict__")
    assert len(set(events)) == 4
    assert codec.Ping() == codec.Ping(b"")
    assert codec.Pong() == codec.Pong(b"")
    assert codec.Close() == codec.Close(1005, "")


def test_every_public_name_exists(codec: ModuleType) -> None:
    assert sorted(codec.__all__) == codec.__all__
    for name in codec.__all__:
        assert hasattr(codec, name)

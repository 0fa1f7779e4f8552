"""Errors, one class for each party at fault."""

from __future__ import annotations

import copy
from types import ModuleType

import pytest

pytestmark = pytest.mark.one_kernel


@pytest.mark.parametrize(
    "name", ["ConnectionClosed", "HandshakeError", "ProtocolError", "StateError"]
)
def test_one_class_catches_every_error(codec: ModuleType, name: str) -> None:
    assert getattr(codec, name).__mro__[1:3] == (codec.WSFrameError, Exception)


def test_a_protocol_error_has_a_code_and_a_reason(codec: ModuleType) -> None:
    error = codec.ProtocolError(codec.CloseCode.PROTOCOL_ERROR, "a rule")
    assert (error.code, error.reason) == (1002, "a rule")
    assert str(error) == "a rule (1002)"


def test_connection_closed_has_a_code_and_a_reason(codec: ModuleType) -> None:
    error = codec.ConnectionClosed(codec.CloseCode.GOING_AWAY, "the server stops")
    assert (error.code, error.reason) == (1001, "the server stops")
    assert str(error) == "1001 the server stops"
    assert str(codec.ConnectionClosed(1005)) == "1005"


def test_a_handshake_error_has_a_status_a_reason_and_headers(codec: ModuleType) -> None:
    error = codec.HandshakeError(405, "a rule", [("Allow", "GET")])
    assert (error.status, error.reason, error.headers) == (405, "a rule", (("Allow", "GET"),))
    assert str(error) == "a rule (405)"
    assert codec.HandshakeError(400, "a rule").headers == ()


def test_errors_can_be_copied(codec: ModuleType) -> None:
    # As pickle does for another process.
    error = copy.copy(codec.HandshakeError(405, "a rule", [("Allow", "GET")]))
    assert (error.status, error.reason, error.headers) == (405, "a rule", (("Allow", "GET"),))
    assert not error.answered
    error = copy.copy(codec.HandshakeError.of_response(403, [("A", "b")], b"body"))
    assert (error.status, error.headers, error.body) == (403, (("A", "b"),), b"body")
    assert error.answered
    error = copy.copy(codec.ProtocolError(1002, "a rule"))
    assert (error.code, error.reason, str(error)) == (1002, "a rule", "a rule (1002)")
    error = copy.copy(codec.ConnectionClosed(1001, "away"))
    assert (error.code, error.reason, str(error)) == (1001, "away", "1001 away")

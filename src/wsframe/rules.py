"""The rules of RFC 6455 for a single frame, and the errors of frames that break them."""

from __future__ import annotations

from functools import cache

from .errors import ProtocolError
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIRST_CONTROL_OPCODE,
    MAX_CONTROL_PAYLOAD,
    PING,
    PONG,
    RSV1,
    TEXT,
    Close,
    CloseCode,
    is_sendable,
)

# The bits of a frame's first byte.
FIN_BIT, RSV1_BIT, RSV_BITS, OPCODE_BITS = 0x80, RSV1 << 4, 0x70, 0x0F


def fault_of(first: int, in_message: bool, compression: bool) -> str | None:
    """Return the rule of RFC 6455 section 5 or RFC 7692 section 6 that this first byte violates."""
    opcode = first & OPCODE_BITS
    if first & RSV_BITS & ~RSV1_BIT or (first & RSV1_BIT and not compression):
        return "a reserved bit is set and no extension was negotiated"
    if first & RSV1_BIT and (opcode == CONTINUATION or opcode >= FIRST_CONTROL_OPCODE):
        return "RSV1 may be set only on the first frame of a message"
    if opcode == CONTINUATION and not in_message:
        return "a continuation frame with no message to continue"
    if opcode in (TEXT, BINARY) and in_message:
        return "a new message inside a fragmented one"
    if opcode in (CLOSE, PING, PONG) and not first & FIN_BIT:
        return "a control frame must not be fragmented"
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return f"opcode {opcode} is reserved"
    return None


@cache
def allowed_first_bytes(in_message: bool, compression: bool) -> frozenset[int]:
    """Return the valid first bytes."""
    return frozenset(byte for byte in range(256) if fault_of(byte, in_message, compression) is None)


def read_close(payload: bytes) -> Close:
    """Parse the payload of a close frame: nothing, or a code and a reason (section 5.5.1)."""
    if not payload:
        return Close()
    if len(payload) == 1:
        raise protocol_error("a close frame's payload of 1 byte is too short for a close code")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise protocol_error(f"close code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise not_utf8("a close reason") from None


def control_too_long() -> ProtocolError:
    return protocol_error(f"a control frame carries at most {MAX_CONTROL_PAYLOAD} bytes")


def protocol_error(rule: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, rule)


def not_utf8(what: str) -> ProtocolError:
    return ProtocolError(CloseCode.INVALID_FRAME_PAYLOAD_DATA, f"{what} is not valid UTF-8")

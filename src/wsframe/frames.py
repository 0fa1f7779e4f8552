"""The words of RFC 6455: opcodes, close codes, roles, and the events that are not messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["Close", "CloseCode", "Failure", "Opcode", "Ping", "Pong", "Role"]


class Role(Enum):
    """Which end of the connection this is: clients mask, servers do not (RFC 6455 section 5.1)."""

    SERVER = "server"
    CLIENT = "client"


class Opcode(IntEnum):
    """What a frame is (RFC 6455 section 5.2); 3-7 and 11-15 are reserved."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """Why a connection was closed: the registry of RFC 6455 section 11.7, as IANA keeps it.

    NO_STATUS_RCVD, ABNORMAL_CLOSURE and TLS_HANDSHAKE never stand on the wire.
    3000-3999 are for libraries and 4000-4999 for applications; they are plain integers.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_FRAME_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


# Plain integers: an attribute of an IntEnum costs as much as a whole frame.
CONTINUATION, TEXT, BINARY = map(int, (Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY))
CLOSE, PING, PONG = map(int, (Opcode.CLOSE, Opcode.PING, Opcode.PONG))
FIRST_CONTROL_OPCODE = 0x8
MAX_CONTROL_PAYLOAD = 125  # RFC 6455 section 5.5
RSV1 = 4  # as encode_frame counts; RFC 7692 section 6 gives it to compression


def is_sendable(code: int) -> bool:
    """Return True if a close frame may carry this code (RFC 6455 section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode_close(code: int, reason: str) -> bytes:
    """Return the payload of a close frame (RFC 6455 section 5.5.1).

    Raises:
        ValueError: the code must not be sent, or the reason is too long.
    """
    if code == CloseCode.NO_STATUS_RCVD:
        if reason:
            raise ValueError("a close frame without a code cannot carry a reason")
        return b""
    if not is_sendable(code):
        raise ValueError(f"close code {int(code)} must not be sent")
    payload = code.to_bytes(2, "big") + reason.encode()
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(
            f"a close reason must have at most 123 bytes of UTF-8, not {len(payload) - 2}"
        )
    return payload


def check_close(code: int, reason: str) -> None:
    """Check the arguments of a close frame before it is sent.

    Raises:
        ValueError: as :func:`encode_close`.
    """
    encode_close(code, reason)


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping arrived; it is owed a pong with the same payload (RFC 6455 section 5.5.2)."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong arrived (RFC 6455 section 5.5.3)."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's close frame arrived; it is owed one in return, unless ours was first.

    ``code`` is NO_STATUS_RCVD (1005) where the frame carried none (RFC 6455 section 7.1.5).
    """

    code: int = CloseCode.NO_STATUS_RCVD
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The peer broke a rule: close with this code and reason (RFC 6455 section 7.1.7)."""

    code: int
    reason: str

"""The terms of RFC 6455: opcodes, close codes, roles, and events other than messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from .arguments import check_integer, check_text
from .shown import Shown

__all__ = ["Close", "CloseCode", "Failure", "Opcode", "Part", "Ping", "Pong", "Role"]


class Role(Enum):
    """One end of a connection: clients mask their frames, servers do not (RFC 6455 section 5.1).

    >>> Connection(Role.CLIENT).encode("hello") == Connection(Role.SERVER).encode("hello")
    False
    """

    SERVER = "server"
    CLIENT = "client"


class Opcode(IntEnum):
    """The type of a frame (RFC 6455 section 5.2); 3-7 and 11-15 are reserved.

    >>> Opcode(9)
    <Opcode.PING: 9>
    """

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The reason why a connection was closed: IANA's registry of RFC 6455 section 11.7.

    NO_STATUS_RCVD, ABNORMAL_CLOSURE and TLS_HANDSHAKE are never sent in a close frame.
    The codes of libraries (3000-3999) and applications (4000-4999) are plain integers.

    >>> CloseCode(1009)
    <CloseCode.MESSAGE_TOO_BIG: 1009>
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


# Plain integers, because looking up an attribute of an IntEnum costs as much as a whole frame.
CONTINUATION, TEXT, BINARY = map(int, (Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY))
CLOSE, PING, PONG = map(int, (Opcode.CLOSE, Opcode.PING, Opcode.PONG))
NO_STATUS = int(CloseCode.NO_STATUS_RCVD)
FIRST_CONTROL_OPCODE = 0x8
MAX_CONTROL_PAYLOAD = 125  # bytes (RFC 6455 section 5.5)
RSV1 = 4  # the bit of encode_frame that marks compressed messages (RFC 7692 section 6)


def is_sendable(code: int) -> bool:
    """Return True if a close frame may carry this code (RFC 6455 section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode_close(code: int, reason: str) -> bytes:
    """Return the payload of a close frame (RFC 6455 section 5.5.1).

    Raises:
        ValueError: the code must not be sent, or the reason is too long.
    """
    check_text(reason=reason)
    if code == NO_STATUS:
        if reason:
            raise ValueError("a close frame without a code cannot carry a reason")
        return b""
    check_integer("code", code)
    if not is_sendable(code):
        raise ValueError(
            f"close code {int(code)} must not be sent; valid codes are 1000 to 1003, 1007 to 1014 "
            "and 3000 to 4999"
        )
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


@dataclass(frozen=True, slots=True, repr=False)
class Ping(Shown):
    """A received ping; answer it with a pong of the same payload (RFC 6455 section 5.5.2).

    >>> Connection(Role.CLIENT).receive(Connection(Role.SERVER).ping(b"1"))
    [Ping(payload=b'1')]

    Attributes:
        payload: at most 125 bytes.
    """

    payload: bytes = b""


@dataclass(frozen=True, slots=True, repr=False)
class Pong(Shown):
    """A received pong (RFC 6455 section 5.5.3).

    >>> Connection(Role.CLIENT).receive(Connection(Role.SERVER).pong(b"1"))
    [Pong(payload=b'1')]

    Attributes:
        payload: the payload of the ping that it answers, at most 125 bytes.
    """

    payload: bytes = b""


@dataclass(frozen=True, slots=True, repr=False)
class Close(Shown):
    """A received close frame; answer it with a close frame, unless one was already sent.

    >>> Connection(Role.CLIENT).receive(Connection(Role.SERVER).close(1001, "restart"))
    [Close(code=1001, reason='restart')]

    Attributes:
        code: the close code, a :class:`CloseCode` or another integer; NO_STATUS_RCVD (1005) if the
            frame contained none (RFC 6455 section 7.1.5).
        reason: the close reason, at most 123 bytes of UTF-8.
    """

    code: int = CloseCode.NO_STATUS_RCVD
    reason: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Failure(Shown):
    """A violation of the protocol: close with this code and reason (RFC 6455 section 7.1.7).

    >>> Connection(Role.SERVER).receive(Connection(Role.SERVER).encode("not masked"))
    [Failure(code=<CloseCode.PROTOCOL_ERROR: 1002>, reason=...)]

    Attributes:
        code: the close code to send.
        reason: the violated rule, short enough for a close frame.
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Part(Shown):
    """A part of a message, from :meth:`wsframe.Connection.receive_parts`.

    >>> client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    >>> [server.receive_parts(frame) for frame in client.encode_parts(["one"])]
    [[Part(data='one', final=False)], [Part(data='', final=True)]]

    Attributes:
        data: the part, ``str`` of a text message or ``bytes`` of a binary one; a character is
            never divided. It may be empty only if it is the last part.
        final: True for the last part of its message.
    """

    data: str | bytes
    final: bool

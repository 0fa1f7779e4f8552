"""A codec for WebSockets (RFC 6455, RFC 7692) and server-sent events (WHATWG HTML), without I/O."""

from .connection import Connection, Event
from .deflate import PerMessageDeflate
from .errors import ConnectionClosed, HandshakeError, ProtocolError, StateError, WSFrameError
from .frames import Close, CloseCode, Failure, Opcode, Ping, Pong, Role
from .handshake import Acceptance, UpgradeRequest, accept
from .kernels import ACCELERATED, accept_key, encode_frame, mask, mask_into
from .sse import EventStreamDecoder, ServerSentEvent

__all__ = [
    "ACCELERATED",
    "Acceptance",
    "Close",
    "CloseCode",
    "Connection",
    "ConnectionClosed",
    "Event",
    "EventStreamDecoder",
    "Failure",
    "HandshakeError",
    "Opcode",
    "PerMessageDeflate",
    "Ping",
    "Pong",
    "ProtocolError",
    "Role",
    "ServerSentEvent",
    "StateError",
    "UpgradeRequest",
    "WSFrameError",
    "accept",
    "accept_key",
    "encode_frame",
    "mask",
    "mask_into",
]

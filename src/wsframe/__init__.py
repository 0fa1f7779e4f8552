"""A WebSocket codec (RFC 6455) and server-sent events (WHATWG HTML section 9.2), without I/O."""

from .connection import Connection, Event
from .errors import HandshakeError, ProtocolError, StateError, WSFrameError
from .frames import Close, CloseCode, Failure, Opcode, Ping, Pong, Role
from .handshake import Acceptance, accept
from .kernels import ACCELERATED, accept_key, encode_frame, mask, mask_into
from .sse import EventStreamDecoder, ServerSentEvent

__all__ = [
    "ACCELERATED",
    "Acceptance",
    "Close",
    "CloseCode",
    "Connection",
    "Event",
    "EventStreamDecoder",
    "Failure",
    "HandshakeError",
    "Opcode",
    "Ping",
    "Pong",
    "ProtocolError",
    "Role",
    "ServerSentEvent",
    "StateError",
    "WSFrameError",
    "accept",
    "accept_key",
    "encode_frame",
    "mask",
    "mask_into",
]

r"""A codec for WebSockets (RFC 6455, RFC 7692) and server-sent events (WHATWG HTML), without I/O.

The opening handshake: a client sends ``request.encode()``, and a server ``acceptance.encode()``, or
the response of the error if the request is refused.

    >>> from wsframe import *
    >>> request = UpgradeRequest("example.com", "/chat", subprotocols=["chat"])
    >>> head = RequestDecoder().receive(request.encode())
    >>> head
    RequestHead('GET', '/chat', headers=['Host', 'Upgrade', 'Connection', ...])
    >>> acceptance = head.accept(subprotocols=["chat"])
    >>> response = ResponseDecoder().receive(acceptance.encode())
    >>> request.confirm(response.status, response.headers).subprotocol
    'chat'
    >>> try:
    ...     accept({"Host": "example.com"})
    ... except HandshakeError as error:
    ...     error.encode()
    b'HTTP/1.1 426 Upgrade Required\r\n...'

Messages and control frames: received bytes are passed to ``receive``, and the bytes that the other
methods return are sent to the other end.

    >>> client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    >>> server.receive(client.encode("hello") + client.ping(b"1"))
    ['hello', Ping(payload=b'1')]
    >>> client.receive(server.pong(b"1") + server.encode(b"bytes") + server.close(1000, "bye"))
    [Pong(payload=b'1'), b'bytes', Close(code=1000, reason='bye')]
    >>> Connection(Role.SERVER).receive(b"GET / HTTP/1.1")
    [Failure(code=<CloseCode.PROTOCOL_ERROR: 1002>, reason='a reserved bit is set and no ...')]

A message that need not fit into memory:

    >>> client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    >>> for frame in client.encode_parts(["one", "two"]):
    ...     server.receive_parts(frame)
    [Part(data='one', final=False)]
    [Part(data='two', final=False)]
    [Part(data='', final=True)]

Events of an event stream:

    >>> ServerSentEvent("hello", id="1").encode()
    b'id: 1\ndata: hello\n\n'
    >>> EventStreamDecoder().receive(b"data: hello\n\n")
    [ServerSentEvent(data='hello', event=None, id=None, retry=None)]
"""

__version__ = "0.1.0"

from .connection import Connection
from .deflate import PerMessageDeflate
from .errors import ConnectionClosed, HandshakeError, ProtocolError, StateError, WSFrameError
from .frames import Close, CloseCode, Failure, Opcode, Part, Ping, Pong, Role
from .handshake import Acceptance, UpgradeRequest, accept
from .headers import Headers
from .kernels import ACCELERATED, accept_key, encode_frame, mask, mask_into
from .receiving import Event
from .requests import RequestDecoder, RequestHead
from .responses import ResponseDecoder, ResponseHead
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
    "Headers",
    "Opcode",
    "Part",
    "PerMessageDeflate",
    "Ping",
    "Pong",
    "ProtocolError",
    "RequestDecoder",
    "RequestHead",
    "ResponseDecoder",
    "ResponseHead",
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

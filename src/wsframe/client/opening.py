"""Opening of a client's WebSocket (RFC 6455 section 4.1)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from http import HTTPStatus
from ssl import SSLContext
from time import monotonic

from ..arguments import check_integer, check_max_message_size
from ..connection import Connection
from ..deflate import PerMessageDeflate
from ..errors import HandshakeError
from ..frames import Role
from ..handshake import Acceptance, UpgradeRequest
from ..headers import Headers
from ..responses import ResponseDecoder
from .deadline import check_timeout, set_deadline
from .dial import SocketSlot, dial
from .exchange import COMPRESSED_READ_SIZE, Exchange
from .identity import with_user_agent
from .location import Location
from .refusal import read_refusal
from .transport import Transport
from .websocket import WebSocket

SCHEMES = {"ws": False, "wss": True}


def connect(
    url: str,
    *,
    subprotocols: Sequence[str] = (),
    headers: Headers = (),
    origin: str | None = None,
    deflate: PerMessageDeflate | Sequence[PerMessageDeflate] | bool = True,
    ssl: SSLContext | None = None,
    open_timeout: float = 10.0,
    close_timeout: float = 5.0,
    send_timeout: float = 30.0,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
    max_message_size: int = 1 << 20,
    max_queue: int | None = None,
) -> WebSocket:
    """Any thread: open a WebSocket. Redirects are not followed, and proxies are not used.

    Args:
        url: "ws://..." or "wss://...", without a fragment. A user and a password are sent in an
            ``Authorization`` header.
        subprotocols: the subprotocols that the client supports, in order of preference.
        headers: additional headers of the request, as (name, value) pairs or a mapping.
        origin: the value of the ``Origin`` header; None to omit it.
        deflate: the compression to offer, or several offers in order of preference; True for
            ``PerMessageDeflate()``, False for no compression.
        ssl: the context for "wss"; None for the system's certificates.
        open_timeout: the limit for connecting and the opening handshake, in seconds. It does not
            include the system's name lookup.
        close_timeout: the limit for the server to close after the client's close frame, in
            seconds, counted from its last acknowledgement of data.
        send_timeout: the longest time without an acknowledgement of sent data, in seconds. A slow
            server that continues to read never exceeds it.
        ping_interval: the longest silence of the server before it is pinged, in seconds; 0 for no
            pings. Acknowledgements count as well, but only for four intervals. Only time in which
            a thread waits in a method of the WebSocket counts.
        ping_timeout: the limit for the pong, in seconds, counted from the acknowledgement of the
            ping. The time that a server needs to read the data before the ping, at 20 KB a second,
            is added for up to 8 MiB.
        max_message_size: the maximum size of one message from the server, in bytes.
        max_queue: the maximum memory, in bytes, for received messages that no thread has taken;
            reading pauses beyond it. None for 16 times ``max_message_size``. One read may exceed it
            by 64 KiB, or by up to 16 MiB of UTF-8 in compressed messages.

    Raises:
        HandshakeError: the server rejected the request, with the status and the first bytes of its
            response; or its response violates the protocol, with status 502.
        TimeoutError: the opening exceeded ``open_timeout``.
        OSError: the host is unknown or unreachable, or its certificate is not valid
            (``ssl.SSLError``).
        ValueError: the URL is malformed, or another argument is not valid.
        TypeError: subprotocols are one ``str`` instead of a sequence.
    """
    location = Location.of(url, SCHEMES)
    request = UpgradeRequest(
        location.authority,
        location.target,
        origin=origin,
        subprotocols=subprotocols,
        deflate=PerMessageDeflate() if deflate is True else deflate or None,
        headers=with_user_agent(location.with_authorization(headers)),
    )
    open_timeout = check_timeout("open_timeout", open_timeout)
    close_timeout = check_timeout("close_timeout", close_timeout)
    send_timeout = check_timeout("send_timeout", send_timeout)
    ping_interval = check_timeout("ping_interval", ping_interval)
    ping_timeout = check_timeout("ping_timeout", ping_timeout)
    check_max_message_size(max_message_size)
    if max_queue is None:
        max_queue = 16 * max_message_size
    check_integer("max_queue", max_queue, 1)
    deadline = monotonic() + open_timeout
    slot = SocketSlot()
    try:
        sock = dial(location, deadline, ssl, slot)
        acceptance, rest = _shake_hands(sock, request, deadline)
        transport = Transport(sock)
    except BaseException:
        slot.close()
        raise
    codec = Connection(
        Role.CLIENT,
        max_message_size=max_message_size,
        deflate=acceptance.deflate,
        subprotocol=acceptance.subprotocol,
    )
    exchange = Exchange(
        transport,
        codec,
        max_queue,
        send_timeout=send_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    )
    exchange.feed(rest)
    return WebSocket(exchange, acceptance, close_timeout=close_timeout)


def _shake_hands(
    sock: socket.socket, request: UpgradeRequest, deadline: float
) -> tuple[Acceptance, bytes]:
    """Send the request; return the result of the handshake, and the bytes after the response."""
    set_deadline(sock, deadline)
    sock.sendall(request.encode())
    decoder = ResponseDecoder()
    while True:
        set_deadline(sock, deadline)
        data = sock.recv(COMPRESSED_READ_SIZE)  # frames may directly follow the head
        if not data:
            raise HandshakeError(502, "the server closed the connection before it responded")
        if (head := decoder.receive(data)) is None:
            continue
        if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return request.confirm(head.status, head.headers), decoder.rest
        body = read_refusal(sock, head, decoder.rest, deadline)
        raise HandshakeError.of_response(head.status, head.headers, body)

"""How a client's WebSocket is opened (RFC 6455 section 4.1)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from http import HTTPStatus
from ssl import SSLContext
from time import monotonic

from ..connection import Connection, check_max_message_size
from ..deflate import PerMessageDeflate
from ..errors import HandshakeError
from ..fields import Headers, decode_response
from ..frames import Role
from ..handshake import Acceptance, UpgradeRequest
from .deadline import check_timeout, set_deadline
from .dial import SocketSlot, dial
from .exchange import COMPRESSED_READ_SIZE, Exchange
from .identity import with_user_agent
from .location import Location
from .transport import Transport
from .websocket import WebSocket

SCHEMES = {"ws": False, "wss": True}
END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD_SIZE = 16384


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
    """Any thread: open a WebSocket. Redirects are not followed, and proxies not used.

    Args:
        url: "ws://..." or "wss://...", with no fragment; a user and a password in it become an
            ``Authorization`` header.
        subprotocols: those that the client speaks, in order of preference.
        headers: what the request carries besides, as (name, value) pairs, or a mapping.
        origin: what the ``Origin`` header says; None for no such header.
        deflate: the compression to offer, or several in order of preference; True for
            ``PerMessageDeflate()``, False for none.
        ssl: the context for "wss"; None for the system's certificates.
        open_timeout: how long all this may take, in seconds, but for the system's name lookup.
        close_timeout: how long the server may take to close after the client's close frame, in
            seconds, counted from its last acknowledgement of data.
        send_timeout: how long the server may acknowledge nothing of what it was sent, in seconds.
            A slow server that goes on reading is never given up.
        ping_interval: how long the server may be silent before it is sent a ping, in seconds.
            Acknowledgements count as well, but for four intervals at most. Only time in which a
            thread waits in a method of the WebSocket counts. 0 for no pings.
        ping_timeout: how long it may take to answer a ping, in seconds, counted from the ping's
            acknowledgement. A server that reads 20 KB a second has the time on top that it needs
            to read what it was sent before the ping, 8 MiB at most.
        max_message_size: the most bytes that a message of the server's may have.
        max_queue: how many bytes of memory may be taken by messages that wait to be received,
            before nothing more is read; None for 16 times ``max_message_size``. What one read
            brings may come on top: 64 KiB, but of compressed messages up to 16 MiB of UTF-8.

    Raises:
        HandshakeError: the server has refused, with the status that it answered; or its answer
            breaks a rule, with the status 502.
        TimeoutError: it took too long.
        OSError: the host is unknown or cannot be reached, or its certificate is not in order
            (``ssl.SSLError``).
        ValueError: the URL is malformed, or another argument is not in order.
        TypeError: subprotocols are one ``str`` instead of a sequence of them.
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
    if max_queue is None:
        max_queue = 16 * max_message_size
    if max_queue < 1:
        raise ValueError(f"max_queue must be at least 1, not {max_queue}")
    check_max_message_size(max_message_size)
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
    """Send the request; return what the answer means, and the bytes behind it."""
    set_deadline(sock, deadline)
    sock.sendall(request.encode())
    received = b""
    room = MAX_HEAD_SIZE
    while True:
        head, found, rest = received.partition(END_OF_HEAD)
        if len(head) > room:
            raise HandshakeError(502, f"the answer's head is over the limit of {MAX_HEAD_SIZE}")
        if found:
            status, headers = decode_response(head + found)
            if status >= 200 or status == HTTPStatus.SWITCHING_PROTOCOLS:
                return request.confirm(status, headers), rest
            # An interim response (RFC 9110 section 15.2). All of them share one limit.
            room -= len(head + found)
            received = rest
            continue
        set_deadline(sock, deadline)
        data = sock.recv(COMPRESSED_READ_SIZE)  # frames may follow the head
        if not data:
            raise HandshakeError(502, "the server left before it answered")
        received += data

"""A socket that is connected to where a URL leads."""

from __future__ import annotations

import os
import socket
import threading
from ssl import SSLContext, create_default_context
from time import monotonic

from .deadline import set_deadline
from .location import Location
from .transport import cut


class SocketSlot:
    """The one socket that a thread works with at a time, which any other thread may cut."""

    def __init__(self) -> None:
        # While it is held the socket is not closed: its number would be another's.
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._process = os.getpid()
        self._cut = False

    def use(self, sock: socket.socket) -> None:
        """The thread that works: use this socket from here on; the last one is closed.

        Raises:
            ConnectionAbortedError: the line is cut.
        """
        self.close()
        with self._lock:
            self._sock = sock
            if self._cut:
                raise ConnectionAbortedError("closed by another thread")

    def close(self) -> None:
        """The thread that works: close the socket."""
        with self._lock:
            if self._sock is not None:
                cut(self._sock, self._process)
                self._sock.close()
                self._sock = None

    def cut(self) -> None:
        """Any thread: end what is done with the socket, for good; it is still to be closed."""
        with self._lock:
            self._cut = True
            if self._sock is not None:
                cut(self._sock, self._process)


def dial(
    location: Location, deadline: float, ssl: SSLContext | None, slot: SocketSlot
) -> socket.socket:
    """Return a socket that is connected to one of the host's addresses, with TLS if it is secure.

    Args:
        location: where to connect.
        deadline: on the monotonic clock. The addresses share the time until then evenly.
        ssl: the context for TLS; None for the system's certificates.
        slot: gets the socket. The caller must close it, also when this function raises.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the host is unknown, none of its addresses can be reached, or TLS fails.
    """
    sock = _connect(location, deadline, slot)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not location.secure:
        return sock
    if ssl is None:
        ssl = create_default_context()
        ssl.set_alpn_protocols(["http/1.1"])
    secured = ssl.wrap_socket(
        sock, server_hostname=location.server_name, do_handshake_on_connect=False
    )
    slot.use(secured)
    set_deadline(secured, deadline)
    secured.do_handshake()
    return secured


def _connect(location: Location, deadline: float, slot: SocketSlot) -> socket.socket:
    infos = socket.getaddrinfo(location.node, location.port, type=socket.SOCK_STREAM)
    failure = OSError("the host has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(infos):
        now = monotonic()
        share = now + (deadline - now) / (len(infos) - tried)
        try:
            sock = socket.socket(family, kind, protocol)  # fails where IPv6 is known by name alone
            slot.use(sock)
            set_deadline(sock, share)
            sock.connect(address)
        except OSError as error:
            failure = error
        else:
            return sock
    raise failure

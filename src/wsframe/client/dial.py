"""Connecting a socket to the server of a URL."""

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
    """The holder of a thread's current socket, which any other thread may disconnect."""

    def __init__(self) -> None:
        # The lock is held while the socket is closed or cut, because its descriptor could be reused
        # meanwhile.
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._process = os.getpid()
        self._cut = False

    def use(self, sock: socket.socket) -> None:
        """The working thread: replace the current socket by a new one, and close the old one.

        Raises:
            ConnectionAbortedError: another thread has called :meth:`cut`.
        """
        self.close()
        with self._lock:
            self._sock = sock
            if self._cut:
                raise ConnectionAbortedError("another thread has closed the connection")

    def close(self) -> None:
        """The working thread: close the socket."""
        with self._lock:
            if self._sock is not None:
                cut(self._sock, self._process)
                self._sock.close()
                self._sock = None

    def cut(self) -> None:
        """Any thread: disconnect this and every later socket. It does not close them."""
        with self._lock:
            self._cut = True
            if self._sock is not None:
                cut(self._sock, self._process)


def dial(
    location: Location, deadline: float, ssl: SSLContext | None, slot: SocketSlot
) -> socket.socket:
    """Return a socket that is connected to one of the host's addresses, with TLS if required.

    Args:
        location: the location to connect to.
        deadline: a time of the monotonic clock. The addresses share the remaining time evenly.
        ssl: the context for TLS; None for the system's certificates.
        slot: the slot that receives the socket. The caller must close the slot, also after an
            error.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the host is unknown, none of its addresses is reachable, or TLS failed.
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
            sock = socket.socket(family, kind, protocol)  # this call fails on a system without IPv6
            slot.use(sock)
            set_deadline(sock, share)
            sock.connect(address)
        except OSError as error:
            failure = error
        else:
            return sock
    raise failure

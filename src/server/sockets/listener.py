"""Listening sockets: bound before anything runs, and accepted from by the loop."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from logging import ERROR

from ..forks import close_in_children, disconnect
from ..handoff.loop import READ, Loop
from ..reports.throttled import ThrottledLog

BACKLOG = 4096
LOOPBACK = ("127.0.0.1", "::1")
FREE_PORT_TRIES = 10
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# How many connections to accept, at most, before the loop looks after the others again.
ACCEPT_AT_ONCE = 64


class ListenError(OSError):
    """There, nobody can listen."""


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Take a port of every address that the host name has, all of them or none; to listen on.

    Args:
        host: a name or an address; "" for every interface. "localhost" is both loopback addresses,
            whatever the system knows of it (RFC 6761 section 6.3).
        port: 0 for one that is free, the same for all addresses.
        shared: with other processes that say so, too (SO_REUSEPORT).

    Raises:
        ListenError: the name is unknown, or the port is taken.
    """
    for _ in range(FREE_PORT_TRIES if port == 0 else 0):
        with suppress(OSError):  # the port that was free for one address was not for another
            return _bind(host, port, shared)
    try:
        return _bind(host, port, shared)
    except OSError as error:
        raise ListenError(*error.args) from None


def _bind(host: str, port: int, shared: bool) -> list[socket.socket]:
    found = [
        address
        for name in (LOOPBACK if host == "localhost" else (host or None,))
        for address in socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    ]
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            if listeners:
                port = listeners[0].getsockname()[1]
            try:
                listeners.append(_take(family, (address[0], port, *address[2:]), shared))
            except OSError as error:
                # A machine may know the name of an address family that it does not have.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        if not listeners:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be listened on")
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _take(family: int, address: tuple[object, ...], shared: bool) -> socket.socket:
    listener = close_in_children(socket.socket(family, socket.SOCK_STREAM))
    try:
        if hasattr(socket, "IPV6_V6ONLY") and family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR shares the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def bound_buffers(sock: socket.socket, size: int) -> None:
    """Bound what the kernel keeps for each connection that will be accepted.

    Accepted TCP sockets inherit these options from the one that listens, so they cost no system
    call for each connection.

    Args:
        sock: a socket that does not listen yet, because the receive buffer takes part in the
            opening of a connection (tcp(7)).
        size: of each buffer, in bytes; 0 leaves it to the system.
    """
    if not size or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # What a client does not let us send stays with us, where it is counted.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size // 4)


def prepare(sock: socket.socket) -> None:
    """Any thread: set the options of an accepted socket: it never blocks, and sends at once."""
    sock.setblocking(False)
    with suppress(OSError):  # the client may have left already, or the socket is a unix socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Listener:
    """One listening socket on a loop."""

    def __init__(
        self, loop: Loop, sock: socket.socket, opened: Callable[[socket.socket, object], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._opened = opened
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._accepting = False
        self._at_once = 1
        self._throttled = ThrottledLog()

    def open(self) -> None:
        """Owner: begin to accept."""
        self._accepting = True
        self._loop.register(self._sock, READ, self)

    def close(self) -> None:
        """Owner: accept no more."""
        if self._accepting:
            self._loop.unregister(self._sock)
        disconnect(self._sock)
        self._close_spare()

    def discard(self) -> None:
        """Any thread, instead of :meth:`open`: accept nothing, ever; the socket is its owner's."""
        self._close_spare()

    def ready(self, events: int) -> None:
        """Owner: accept what has connected; more at once for as long as more are there."""
        for _ in range(self._at_once):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._at_once = 1
                return
            except OSError as error:
                self._throttled.log(ERROR, "a connection is not accepted: %s", error)
                if error.errno in NO_MORE_FILES:
                    self._refuse()
                return
            prepare(sock)
            self._opened(sock, address)
        self._at_once = min(2 * self._at_once, ACCEPT_AT_ONCE)

    def _refuse(self) -> None:
        """Let one client go: unaccepted, it would keep the socket ready and the loop busy.

        The files have run out, and this is what one was kept in reserve for. Another thread may be
        faster to take it; then nobody is accepted for a while.
        """
        self._close_spare()
        try:
            disconnect(self._sock.accept()[0])
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._loop.unregister(self._sock)
            self._accepting = False
            self._loop.at_next_tick(self._accept_again)

    def _accept_again(self) -> None:
        if self._sock.fileno() < 0:
            return  # closed meanwhile
        if self._spare < 0:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
        self.open()

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

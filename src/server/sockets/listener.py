"""Listening sockets: binding before the server starts, and accepting connections on a loop."""

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
# The variables that the reloaders of Flask and Django set in the process that serves clients.
RELOADERS = ("WERKZEUG_RUN_MAIN", "RUN_MAIN")
# The maximum number of connections to accept before the loop serves its clients.
ACCEPT_AT_ONCE = 64

# The explanations of errors of bind(2), with the settings to change.
REMEDIES = {
    errno.EADDRINUSE: "another program has the port; stop that program, or use another port (port)",
    errno.EACCES: "the system permits this port only to privileged users; use a port above 1023 "
    "(port)",
}


class ListenError(OSError):
    """Binding the listening socket failed; the text names its address."""

    @classmethod
    def of(cls, where: str, error: OSError) -> ListenError:
        """Return the error for an address or a path."""
        text = f"cannot listen on {where}: {error.strerror or error}"
        return cls(text) if error.errno is None else cls(error.errno, text)


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Bind sockets to the same port on every address of a host name: on all of them or none.

    Args:
        host: a name or an address; "" for every interface. "localhost" means both loopback
            addresses, without asking the system (RFC 6761 section 6.3).
        port: the port; 0 for a free one, the same for all addresses.
        shared: True to share the port with other processes (SO_REUSEPORT).

    Raises:
        ListenError: the name is unknown, or the port is in use.
    """
    for _ in range(FREE_PORT_TRIES if port == 0 else 0):
        with suppress(OSError):  # the free port of one address is in use on another
            return _bind(host, port, shared)
    try:
        return _bind(host, port, shared)
    except OSError as error:
        raise _explained(error, f"{host or '*'}:{port}") from None


def _explained(error: OSError, where: str) -> ListenError:
    """Return the error for a port that cannot be used."""
    remedy = REMEDIES.get(error.errno or 0)
    reloader = next((name for name in RELOADERS if os.environ.get(name)), None)
    if error.errno == errno.EADDRINUSE and reloader is not None:
        remedy = (
            "the reloader runs the program in two processes, and the first may have the port; "
            f'start the server only if os.environ.get("{reloader}") is set'
        )
    if remedy is not None:
        error = OSError(error.errno, f"{error.strerror}: {remedy}")
    return ListenError.of(where, error)


def _bind(host: str, port: int, shared: bool) -> list[socket.socket]:
    addresses = [
        address
        for name in (LOOPBACK if host == "localhost" else (host or None,))
        for address in socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    ]
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(addresses):
            if listeners:
                port = listeners[0].getsockname()[1]
            try:
                listeners.append(_take(family, (address[0], port, *address[2:]), shared))
            except OSError as error:
                # The system may resolve a name to an unsupported address family, such as IPv6.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        if not listeners:
            raise OSError(errno.EADDRNOTAVAIL, "this system has none of the host's addresses")
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
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows, SO_REUSEADDR would share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        disable_delay(listener)
        listener.bind(address)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def bound_buffers(sock: socket.socket, size: int) -> None:
    """Limit the kernel buffers of a connection, or of a listening socket's connections.

    Accepted TCP sockets inherit these options from the listening socket, so they cost no system
    call for each connection.

    Args:
        sock: an accepted connection; or a socket that does not listen yet, because the receive
            buffer affects the opening of connections (tcp(7)).
        size: the size of each buffer, in bytes; 0 for the default of the system.
    """
    if not size or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Keep unsent data in the process, which counts it, and not in the system's buffer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size // 4)


def disable_delay(sock: socket.socket) -> None:
    """Disable the delay of small packets, on a connection or a listening socket's connections.

    Accepted sockets inherit this option.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Listener:
    """One listening socket on a loop.

    Args:
        loop: the loop.
        sock: the socket.
        opened: a function that is called with each accepted connection and its address.
        kept: True if other processes continue to listen on the socket.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        opened: Callable[[socket.socket, object], None],
        *,
        kept: bool = False,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._opened = opened
        self._kept = kept
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._accepting = False
        self._at_once = 1
        self._throttled = ThrottledLog()

    def open(self) -> None:
        """Loop owner: start to accept connections."""
        self._accepting = True
        self._loop.register(self._sock, READ, self)

    def close(self) -> None:
        """Loop owner: stop accepting connections, and close the socket."""
        self._stop_accepting()
        if self._kept:
            self._sock.close()
        else:
            disconnect(self._sock)
        self._close_spare()

    def discard(self) -> None:
        """Any thread, instead of :meth:`open`: release the spare file; the socket stays open."""
        self._close_spare()

    def ready(self, events: int) -> None:
        """Loop owner: accept a batch of connections; double the size after a full batch."""
        for _ in range(self._at_once):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._at_once = 1
                return
            except OSError as error:
                # Another process has shut down the listening socket.
                if error.errno == errno.EINVAL:
                    self._stop_accepting()
                    return
                self._throttled.log(ERROR, "failed to accept a connection: %s", error)
                if error.errno in NO_MORE_FILES:
                    self._refuse()
                return
            sock.setblocking(False)
            self._opened(sock, address)
        self._at_once = min(2 * self._at_once, ACCEPT_AT_ONCE)

    def _refuse(self) -> None:
        """Accept and close one connection, because the process has reached its open-file limit.

        Otherwise the socket would stay ready and keep the loop busy. The spare descriptor is closed
        for this. If another thread takes that descriptor first, accepting pauses until the next
        tick.
        """
        self._close_spare()
        try:
            disconnect(self._sock.accept()[0])
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._stop_accepting()
            self._loop.at_next_tick(self._accept_again)

    def _accept_again(self) -> None:
        if self._sock.fileno() < 0:
            return  # the listener was closed in the meantime
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)
        self.open()

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.unregister(self._sock)

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

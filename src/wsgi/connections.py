"""Finding the connection of a WSGI request, and taking it over from the server.

A socket is taken by duplicating its descriptor, and by putting one end of a new pair of sockets,
the *dummy*, in its place. All later system calls of the server with this descriptor use the dummy.
A read from it returns the end of the data, as if the client had disconnected. The loop discards the
data that the server sends to the dummy.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from ..server.forks import disconnect, recreate_in_children
from .environ import Environ, address_of, is_peer
from .errors import CannotTakeError, NoServerError
from .servers import Place, find
from .tls import TakenTLS, can_be_taken, is_tls

HTTP_1 = ("HTTP/1.0", "HTTP/1.1")
# The first descriptor that ``select`` does not support (FD_SETSIZE).
BEYOND_SELECT = 1024


class Replacing:
    """The lock that is held while a socket is replaced, so that no socket is taken over twice."""

    def __init__(self) -> None:
        self.after_fork()
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The constructor and the child of a fork: create a new lock."""
        self.lock: threading.Lock = threading.Lock()


replacing: Replacing = Replacing()


@dataclass(frozen=True, slots=True)
class Taken:
    """A connection that was taken over.

    Attributes:
        sock: its socket.
        address: the client's address, as ``accept`` returns it; the server's path for a unix
            socket.
        rest: the bytes after the request that the server has already read.
        other_end: the socket that is connected to the dummy.
    """

    sock: socket.socket | TakenTLS
    address: object
    rest: bytes
    other_end: socket.socket


class Connection:
    """The connection of a request, still in use by the WSGI server.

    Args:
        environ: the environment of the request.
        place: the place of the connection in the server.

    Raises:
        OSError: the socket is closed.
    """

    def __init__(self, environ: Environ, place: Place) -> None:
        self._environ = environ
        self._place = place
        self._identity = _identity(place.fileno())

    @property
    def own_versions(self) -> bool:
        """True if SERVER_PROTOCOL may differ from the HTTP version of this connection."""
        return self._place.own_versions

    def client_certificate(self) -> dict[str, Any] | None:
        """The request's thread: return the client's verified certificate; None without one."""
        sock = self._place.sock
        if can_be_taken(sock):
            with suppress(AttributeError):  # another thread of the server has ended TLS
                return sock.getpeercert() or None
        return None

    def take(self, *, upgrade: bool) -> Taken:
        """The request's thread, once: take the connection over.

        Args:
            upgrade: True if the bytes after the request belong to the connection.

        Raises:
            CannotTakeError: the server has closed the connection, or uses it for another request.
            OSError: the process has reached its open-file limit.
        """
        place = self._place
        place.prepare(upgrade)
        fd = place.fileno()
        self._check(fd)
        if is_tls(place.sock):
            address = self._address_of(place.sock)
            return self._taken(*self._take_tls(), address)
        own = _duplicate(fd)
        try:
            self._check(own.fileno())
            address = self._address_of(own)
            other_end = self._replace(fd)
        except BaseException:
            own.close()
            raise
        return self._taken(own, other_end, address)

    def _taken(
        self, sock: socket.socket | TakenTLS, other_end: socket.socket, address: object
    ) -> Taken:
        """Return the connection, with the bytes after the request that the server has read."""
        try:
            return Taken(sock, address, self._place.read_ahead(), other_end)
        except Exception as error:  # each server raises its own class of error
            disconnect(sock)
            other_end.close()
            raise CannotTakeError(
                f"the bytes after the request cannot be read from the server's buffer: {error!r}"
            ) from error

    def _check(self, fd: int) -> None:
        """Check that a descriptor still refers to the same socket as before."""
        if fd < 0 or _identity(fd) != self._identity:
            raise CannotTakeError("the server has closed the connection")

    def _address_of(self, sock: socket.socket) -> object:
        """Return the address of the client, if the socket is connected to it."""
        try:
            peer, own = sock.getpeername(), sock.getsockname()
        except OSError:
            raise CannotTakeError("the client has disconnected") from None
        if isinstance(peer, tuple):
            if is_peer(peer, self._environ):
                return peer
            if self._place.is_confirmed():
                return address_of(self._environ)
            raise CannotTakeError(
                f"the connection is to {peer[0]} port {peer[1]}, but the request is from "
                f"{self._environ.get('REMOTE_ADDR')} port {self._environ.get('REMOTE_PORT')}"
            )
        if not (peer or own):
            raise CannotTakeError("the socket was not accepted by a server")
        return os.fsdecode(peer or own)

    def _replace(self, fd: int) -> socket.socket:
        """Replace the client's socket with the dummy; return the other end of the dummy."""
        dummy, other_end = _dummy()
        try:
            os.set_blocking(dummy.fileno(), os.get_blocking(fd))
            inheritable = os.get_inheritable(fd)
            with replacing.lock:
                self._check(self._place.fileno())
                os.dup2(dummy.fileno(), fd, inheritable)
        except BaseException:
            other_end.close()
            raise
        finally:
            dummy.close()
        return other_end

    def _take_tls(self) -> tuple[TakenTLS, socket.socket]:
        """Give the dummy to the server; return the TLS socket and the other end of the dummy."""
        dummy, other_end = _dummy()
        with replacing.lock:
            if can_be_taken(self._place.sock):
                return TakenTLS(self._place.sock, dummy), other_end
        dummy.close()
        other_end.close()
        raise CannotTakeError("the connection has already been taken over")


def connection_of(environ: Environ) -> Connection:
    """The request's thread: find the connection of a request, without taking it over.

    Raises:
        CannotTakeError: the server has no socket for this request alone, or its TLS is unsupported.
        NoServerError: there is no server, as with a test client.
    """
    if environ.get("wsgi.run_once"):
        raise CannotTakeError(
            "the server runs each request in its own process (wsgi.run_once); use another server"
        )
    if not hasattr(socket, "AF_UNIX"):
        raise CannotTakeError("this system cannot replace the descriptor of a socket")
    place = find(environ)
    if place is None:
        software = environ.get("SERVER_SOFTWARE")
        if not software:
            raise NoServerError(
                "the request has no socket, as in a test client; use a server in the test, such as "
                "wsframe.testing.WSGIAppServer, or LiveServerTestCase in Django"
            )
        raise CannotTakeError(f"{software} has no socket that can be taken over")
    if not place.own_versions and environ.get("SERVER_PROTOCOL") not in HTTP_1:
        raise CannotTakeError(f"requests of {environ.get('SERVER_PROTOCOL')} share a connection")
    if place.forks and environ.get("wsgi.multiprocess"):
        raise CannotTakeError(f"{place.server} forks a process for each request")
    if place.encrypted or (is_tls(place.sock) and not can_be_taken(place.sock)):
        raise CannotTakeError(f"TLS by {place.server} cannot be taken over; use a proxy for TLS")
    try:
        return Connection(environ, place)
    except OSError:
        raise CannotTakeError("the server has closed the connection") from None


def _duplicate(fd: int) -> socket.socket:
    """Return a socket object for a duplicate of a descriptor.

    Its number is high if possible, because some servers call ``select``, which only supports the
    low ones.

    Raises:
        OSError: no descriptor is left, or this one is not a socket any more.
    """
    try:
        duplicate: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, BEYOND_SELECT)
    except OSError:  # the process must not open as many files
        duplicate = os.dup(fd)
    try:
        return socket.socket(fileno=duplicate)
    except BaseException:
        os.close(duplicate)
        raise


def _dummy() -> tuple[socket.socket, socket.socket]:
    """Return a socket whose reader finds its end, and the other end of it."""
    dummy, other_end = socket.socketpair()
    other_end.shutdown(socket.SHUT_WR)
    return dummy, other_end


def _identity(fd: int) -> tuple[int, int]:
    """Return the number of an open socket, which no other open socket has."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino

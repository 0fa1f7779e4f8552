"""Taking over the TLS connections of WSGI servers.

The state of TLS belongs to a descriptor and a Python object, so neither can be duplicated. The loop
uses the original TLS socket, but the server still has a reference to it. So the object's class is
replaced: the new class's methods use the dummy. The loop calls the methods of the original class.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from typing import Any

Socket: type[socket.socket] = socket.socket
SSLSocket: type[ssl.SSLSocket] = ssl.SSLSocket


class Retired(ssl.SSLSocket):
    """The class of a TLS socket that was taken over, whose methods the server calls with the dummy.

    Attributes:
        dummy: the socket that the server uses instead.
    """

    dummy: socket.socket

    def recv(self, *arguments: Any) -> bytes:
        """Called by the server; affects only the socket that replaces the taken one."""
        return self.dummy.recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        """Called by the server; affects only the socket that replaces the taken one."""
        return self.dummy.recv_into(*arguments)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002
        """The server: read the dummy."""
        return self.dummy.recv(len) if buffer is None else self.dummy.recv_into(buffer, len)

    def send(self, *arguments: Any) -> int:
        """Called by the server; affects only the socket that replaces the taken one."""
        return self.dummy.send(*arguments)

    def write(self, data: Any) -> int:
        """The server: send to the dummy."""
        return self.dummy.send(data)

    def sendall(self, *arguments: Any) -> None:
        """Called by the server; affects only the socket that replaces the taken one."""
        self.dummy.sendall(*arguments)

    def sendfile(self, *arguments: Any) -> int:
        """Called by the server; affects only the socket that replaces the taken one."""
        return self.dummy.sendfile(*arguments)

    def pending(self) -> int:
        """The server: return 0, because the dummy has no decrypted data."""
        return 0

    def unwrap(self) -> socket.socket:
        """The server: return the dummy, which has no TLS."""
        return self.dummy

    def shutdown(self, how: int) -> None:
        """The server: call this method of the dummy, and ignore its errors.

        cheroot would exit because of an error.
        """
        with suppress(OSError):
            self.dummy.shutdown(how)

    def settimeout(self, value: float | None) -> None:
        """Called by the server; affects only the socket that replaces the taken one."""
        self.dummy.settimeout(value)

    def gettimeout(self) -> float | None:
        """Called by the server; affects only the socket that replaces the taken one."""
        return self.dummy.gettimeout()

    def setblocking(self, flag: bool) -> None:
        """Called by the server; affects only the socket that replaces the taken one."""
        self.dummy.setblocking(flag)

    def fileno(self) -> int:
        """Called by the server; returns the descriptor of the replacing socket."""
        return self.dummy.fileno()

    def detach(self) -> int:
        """Called by the server; affects only the socket that replaces the taken one."""
        return self.dummy.detach()

    def _real_close(self, *arguments: Any) -> None:
        """The server, after closing the socket and its file objects: close the dummy."""
        self.dummy.close()


class TakenTLS:
    """A TLS socket that was taken over, with the methods that the loop uses.

    Args:
        sock: the socket, whose handshake is complete.
        dummy: the socket that the server uses from now on.
    """

    def __init__(self, sock: ssl.SSLSocket, dummy: socket.socket) -> None:
        self._sock = sock
        self._decrypts = True  # False after the end of TLS
        dummy.settimeout(sock.gettimeout())
        sock.setblocking(False)
        sock.__dict__["dummy"] = dummy
        sock.__class__ = Retired

    def fileno(self) -> int:
        """Loop owner: return the descriptor."""
        return Socket.fileno(self._sock)

    def recv_into(self, buffer: memoryview, size: int = 0, /) -> int:
        """Loop owner: receive and decrypt data; after the end of TLS, receive plain data."""
        if not self._decrypts:
            return Socket.recv_into(self._sock, buffer, size)
        try:
            return int(SSLSocket.read(self._sock, size or len(buffer), buffer))
        except ValueError:
            raise ended_by_server() from None

    def send(self, data: bytes | memoryview, /) -> int:
        """Loop owner: encrypt and send data; after the end of TLS, raise an error."""
        try:
            return SSLSocket.write(self._sock, data)
        except ValueError:
            raise ended_by_server() from None

    def pending(self) -> int:
        """Loop owner: return the number of decrypted bytes that can be read."""
        return SSLSocket.pending(self._sock)

    def unwrap(self) -> object:
        """Loop owner: send close_notify; see ``ssl.SSLSocket.unwrap``."""
        SSLSocket.unwrap(self._sock)
        self._decrypts = False
        return self._sock

    def shutdown(self, how: int, /) -> None:
        """Loop owner: shut down the socket; see ``socket.socket.shutdown``."""
        self._decrypts = False
        SSLSocket.shutdown(self._sock, how)

    def getsockopt(self, level: int, name: int, /) -> int:
        """Loop owner: call this method of the socket."""
        return Socket.getsockopt(self._sock, level, name)

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        """Loop owner: call this method of the socket."""
        Socket.setsockopt(self._sock, level, name, value)

    def close(self) -> None:
        """Loop owner: close the descriptor; the server may still refer to the object."""
        fd = super(Socket, self._sock).detach()  # the server's object stays open, with the dummy
        if fd >= 0:
            os.close(fd)


def ended_by_server() -> ConnectionAbortedError:
    """Return the error of a connection whose TLS the server ended during the takeover."""
    return ConnectionAbortedError("the WSGI server has ended TLS")


def is_tls(sock: Any) -> bool:
    """Return True if a socket is a TLS socket of Python, gevent, eventlet or pyOpenSSL."""
    return hasattr(sock, "getpeercert") or hasattr(sock, "get_peer_certificate")


def can_be_taken(sock: Any) -> bool:
    """Return True if a socket is a TLS socket of Python itself, without a replaced class."""
    return type(sock) is ssl.SSLSocket and ssl.SSLSocket.__module__ == "ssl"

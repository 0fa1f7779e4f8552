"""TLS connections of WSGI servers: the TLS socket itself is taken over.

The state of TLS belongs to a descriptor and an object, so neither can be duplicated. The object is
taken, and the server keeps a reference to it. So the object gets another class, with whose methods
the server uses the dummy. The loop calls the methods of the original class.
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
    """A TLS socket that was taken over, as its server sees it: the dummy.

    Attributes:
        dummy: the dummy.
    """

    dummy: socket.socket

    def recv(self, *arguments: Any) -> bytes:
        """The server: call the same method of the dummy."""
        return self.dummy.recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        """The server: call the same method of the dummy."""
        return self.dummy.recv_into(*arguments)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002
        """The server: read the dummy."""
        return self.dummy.recv(len) if buffer is None else self.dummy.recv_into(buffer, len)

    def send(self, *arguments: Any) -> int:
        """The server: call the same method of the dummy."""
        return self.dummy.send(*arguments)

    def write(self, data: Any) -> int:
        """The server: send to the dummy."""
        return self.dummy.send(data)

    def sendall(self, *arguments: Any) -> None:
        """The server: call the same method of the dummy."""
        self.dummy.sendall(*arguments)

    def sendfile(self, *arguments: Any) -> int:
        """The server: call the same method of the dummy."""
        return self.dummy.sendfile(*arguments)

    def pending(self) -> int:
        """The server: no data was decrypted."""
        return 0

    def unwrap(self) -> socket.socket:
        """The server: return the dummy, which has no TLS."""
        return self.dummy

    def shutdown(self, how: int) -> None:
        """The server: call the same method of the dummy, whose errors do not concern the client.

        cheroot would end because of an error.
        """
        with suppress(OSError):
            self.dummy.shutdown(how)

    def settimeout(self, value: float | None) -> None:
        """The server: call the same method of the dummy."""
        self.dummy.settimeout(value)

    def gettimeout(self) -> float | None:
        """The server: call the same method of the dummy."""
        return self.dummy.gettimeout()

    def setblocking(self, flag: bool) -> None:
        """The server: call the same method of the dummy."""
        self.dummy.setblocking(flag)

    def fileno(self) -> int:
        """The server: return the descriptor of the dummy."""
        return self.dummy.fileno()

    def detach(self) -> int:
        """The server: call the same method of the dummy."""
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
        self._decrypts = True  # until the end of TLS
        dummy.settimeout(sock.gettimeout())
        sock.setblocking(False)
        sock.__dict__["dummy"] = dummy
        sock.__class__ = Retired

    def fileno(self) -> int:
        """Owner: return the descriptor."""
        return Socket.fileno(self._sock)

    def recv_into(self, buffer: memoryview, size: int = 0, /) -> int:
        """Owner: receive data, as with a TLS socket; after the end of TLS it is not decrypted."""
        if not self._decrypts:
            return Socket.recv_into(self._sock, buffer, size)
        try:
            return int(SSLSocket.read(self._sock, size or len(buffer), buffer))
        except ValueError:
            raise ended_by_server() from None

    def send(self, data: bytes | memoryview, /) -> int:
        """Owner: encrypt and send data; unlike that of a TLS socket, never unencrypted."""
        try:
            return SSLSocket.write(self._sock, data)
        except ValueError:
            raise ended_by_server() from None

    def pending(self) -> int:
        """Owner: return the number of decrypted bytes that can be read."""
        return SSLSocket.pending(self._sock)

    def unwrap(self) -> object:
        """Owner: send close_notify, as with a TLS socket."""
        SSLSocket.unwrap(self._sock)
        self._decrypts = False
        return self._sock

    def shutdown(self, how: int, /) -> None:
        """Owner: shut down, as with a TLS socket."""
        self._decrypts = False
        SSLSocket.shutdown(self._sock, how)

    def getsockopt(self, level: int, name: int, /) -> int:
        """Owner: call this method of the socket."""
        return Socket.getsockopt(self._sock, level, name)

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        """Owner: call this method of the socket."""
        Socket.setsockopt(self._sock, level, name, value)

    def close(self) -> None:
        """Owner: close the descriptor; the server may still refer to the object."""
        fd = super(Socket, self._sock).detach()  # the server still regards it as open
        if fd >= 0:
            os.close(fd)


def ended_by_server() -> ConnectionAbortedError:
    """Return the error of a connection whose TLS the server ended during the takeover."""
    return ConnectionAbortedError("the WSGI server has ended TLS")


def is_tls(sock: Any) -> bool:
    """Return True for the TLS sockets of Python, gevent, eventlet and pyOpenSSL."""
    return hasattr(sock, "getpeercert") or hasattr(sock, "get_peer_certificate")


def can_be_taken(sock: Any) -> bool:
    """Return True for a TLS socket of Python itself, whose class has not been replaced."""
    return type(sock) is ssl.SSLSocket and ssl.SSLSocket.__module__ == "ssl"

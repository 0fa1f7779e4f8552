"""Connections on a TLS socket whose handshake the WSGI server has completed.

The TLS state is inside this ``SSLSocket``, which makes its own system calls. Two threads must not
use an ``SSLSocket`` at the same time, even if one reads and the other writes. So only the loop
owner uses it.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..handoff.loop import HANGUP, READ, WRITE
from ..pure_rounds import RECORD
from .output import Transport
from .peer import Peer

if TYPE_CHECKING:
    import socket

    from typing_extensions import TypeIs

    from ..handoff.task import Task
    from .peer import Connections
    from .session import Session


# The maximum number of bytes for one client before the loop serves others.
SEND_AT_ONCE = 256 * 1024


class SecureSocket(Transport, Protocol):
    """The methods of a TLS socket that a peer uses. Only the owner calls these methods."""

    def pending(self) -> int: ...

    def unwrap(self) -> object: ...


def is_secured(sock: socket.socket | SecureSocket) -> TypeIs[SecureSocket]:
    """Any thread: return True for a TLS socket.

    The classes of plain sockets differ if eventlet has patched the module ``socket``.
    """
    return hasattr(sock, "unwrap")


class TLSSocket:
    """A TLS socket with the methods that a peer uses. Only the owner calls its methods.

    TLS sends messages of its own, so a read may have to wait until the socket is writable, and a
    write until it is readable.

    Attributes:
        receives_on: the event that :meth:`recv_into` waits for.
        sends_on: the event that :meth:`send` waits for.
        has_pending: True if decrypted data is buffered, which the poller does not see.
    """

    __slots__ = (
        "_again",
        "_sock",
        "has_pending",
        "receives_on",
        "sends_on",
    )

    def __init__(self, sock: SecureSocket) -> None:
        self._sock = sock
        self._again = 0  # the length of a record that must be retried
        self.receives_on: int = READ
        self.sends_on: int = WRITE
        self.has_pending: bool = False

    def close_notify(self) -> bool:
        """Loop owner: send close_notify (RFC 8446 section 6.1); return False to retry later."""
        try:
            self._sock.unwrap()
        except ssl.SSLWantWriteError:
            self.sends_on = WRITE
            return False
        except (OSError, ValueError):
            pass  # close_notify was sent and not answered yet, or the client has disconnected
        return True

    def fileno(self) -> int:
        """Loop owner: return the descriptor."""
        return self._sock.fileno()

    def recv_into(self, buffer: memoryview, size: int = 0, /) -> int:
        """Loop owner: receive data into a buffer; the next call returns the rest of a record.

        The records of a long message are received in one call.
        """
        self.has_pending = False
        size = size or len(buffer)
        try:
            count = self._sock.recv_into(buffer, size)
            if count == RECORD:
                count = self._receive_more(buffer, count, size)
        except ssl.SSLWantReadError:
            self.receives_on = READ
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self.receives_on = WRITE
            raise BlockingIOError from None
        self.receives_on = READ
        self.has_pending = count == size and self._sock.pending() > 0
        return count

    def _receive_more(self, buffer: memoryview, count: int, size: int) -> int:
        """Receive the next records that have arrived; return the number of bytes."""
        with suppress(OSError):  # the next call reports the error
            while count < size and (more := self._sock.recv_into(buffer[count:size])):
                count += more
                if more % RECORD:
                    break  # the last record of a message is rarely full
        return count

    def sendmsg(self, pieces: Sequence[bytes | memoryview], ancillary: Sequence[Any], /) -> int:
        """Loop owner: send the first of the pieces; return the number of bytes sent."""
        parts: list[bytes | memoryview] = []
        room = SEND_AT_ONCE
        for piece in pieces:
            parts.append(memoryview(piece)[:room])
            room -= len(parts[-1])
            if not room:
                break
        return self.send(b"".join(parts))

    def send(self, data: bytes | memoryview, /) -> int:
        """Loop owner: send data; the next call must begin with the data that was not sent."""
        view = memoryview(data)
        sent = 0
        try:
            while sent < len(view) and sent < SEND_AT_ONCE:
                # The data is sent in records. For longer data OpenSSL would report no progress
                # until everything is sent. A record that OpenSSL has begun must be passed again
                # unchanged.
                record = view[sent : sent + (self._again or RECORD)]
                self._again = len(record)
                sent += self._sock.send(record)
                self._again = 0
        except ssl.SSLWantReadError:
            self.sends_on = READ
            return sent
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        self.sends_on = WRITE
        return sent

    def shutdown(self, how: int, /) -> None:
        """Loop owner: shut down the socket; data that is received later is not decrypted."""
        self.has_pending = False
        self._sock.shutdown(how)

    def getsockopt(self, level: int, name: int, /) -> int:
        """Loop owner: call this method of the underlying socket."""
        return self._sock.getsockopt(level, name)

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Loop owner: call this method of the underlying socket."""
        self._sock.setsockopt(level, name, value)

    def close(self) -> None:
        """Loop owner: call this method of the underlying socket."""
        self._sock.close()


class SecuredPeer(Peer):
    """A client whose TLS handshake the WSGI server has completed. Only the owner calls its methods.

    Args:
        clients: the connections of its loop.
        sock: the TLS socket, which does not block.
        address: the client's address, as the socket module returns it.
    """

    scheme = "https"

    __slots__ = ("_tls",)

    def __init__(self, clients: Connections, sock: SecureSocket, address: object) -> None:
        super().__init__(clients, sock, address)
        self._tls = TLSSocket(sock)

    def open(self, session: Session, timeout: float) -> None:
        """Loop owner: start to serve the client."""
        self.sock: Transport = self._tls
        self._tls.has_pending = True  # the WSGI server may have decrypted more than it has read
        super().open(session, timeout)

    def ready(self, events: int) -> Task | None:
        """Loop owner: read and send as far as the socket is ready; the events are a hint."""
        tls = self._tls
        crossed = tls.receives_on == WRITE or tls.sends_on == READ
        if crossed:  # the event may mean that a read or a write can continue
            events = READ | WRITE if self._reading == READ else WRITE | (events & HANGUP)
        task = super().ready(events)
        if crossed or tls.has_pending or tls.receives_on == WRITE:
            self._update_interest()
        return task

    def _wanted(self) -> int:
        tls = self._tls
        wanted = 0 if self.congested else self._reading
        if wanted == READ:
            wanted = tls.receives_on
        return wanted | tls.sends_on if self._blocked else wanted

    def _update_interest(self) -> None:
        super()._update_interest()
        # The poller does not report decrypted data, so the loop must call again.
        if self._has_pending():
            self.loop.call_soon(self._read_pending)

    def _read_pending(self) -> None:
        if self._has_pending() and (task := self.ready(READ)) is not None:
            task.schedule()

    def _has_pending(self) -> bool:
        if self.closed:
            return False
        return self._tls.has_pending and self._reading == READ and not self.congested

    def _end_of_input(self) -> None:
        if not (self._unsent or self.closed):
            self._tls.close_notify()
        super()._end_of_input()

    def _shut_write(self) -> None:
        if not self._tls.close_notify():
            self._blocked = True
            self._update_interest()
            return
        super()._shut_write()

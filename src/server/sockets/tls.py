"""TLS connections, without blocking the loop.

An ``SSLSocket`` must not be used by two threads at once, even if one reads and the other writes. No
lock is needed here, because it has one owner: the owner of the loop, or the thread of the
handshakes while a step of the handshake runs.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..forks import disconnect
from ..handoff.loop import HANGUP, READ, WRITE
from ..reports.loggers import log
from .peer import Peer

if TYPE_CHECKING:
    from ..handoff.task import Task
    from .handshakes import Handshakes
    from .peer import Connections
    from .session import Session


# The largest record (RFC 8446 section 5.1). OpenSSL does not accept a part of
# longer data: the whole call would be retried, without visible progress.
RECORD = 16 * 1024
# The number of bytes for one client before the loop serves others.
SEND_AT_ONCE = 256 * 1024


# The steps of a connection without a running step; always empty.
NO_STEP: list[None] = []


class TLSSocket:
    """A TLS socket with the methods that a peer uses. Only the owner calls its methods.

    Because of messages of TLS itself, a read may have to wait until the socket is writable, and a
    write until it is readable.

    Attributes:
        secured: True after the handshake.
        handshakes_on: the event that the handshake waits for.
        receives_on: the event that :meth:`recv_into` waits for.
        sends_on: the event that :meth:`send` waits for.
        has_pending: True if decrypted data is buffered, which the poller does not see.
    """

    __slots__ = (
        "_again",
        "_sock",
        "handshakes_on",
        "has_pending",
        "receives_on",
        "secured",
        "sends_on",
    )

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._again = 0  # the length of a record that must be retried
        self.secured = False
        self.handshakes_on = READ
        self.receives_on = READ
        self.sends_on = WRITE
        self.has_pending = False

    def shake_hands(self) -> None:
        """The thread of the handshakes: continue the handshake, as far as possible.

        Raises:
            OSError: the handshake has failed.
        """
        try:
            self._sock.do_handshake()
            self.secured = True
        except ssl.SSLWantReadError:
            self.handshakes_on = READ
        except ssl.SSLWantWriteError:
            self.handshakes_on = WRITE

    def close_notify(self) -> bool:
        """Owner: send close_notify (RFC 8446 section 6.1); return False to retry later."""
        try:
            self._sock.unwrap()
        except ssl.SSLWantWriteError:
            self.sends_on = WRITE
            return False
        except (OSError, ValueError):
            pass  # sent and not answered yet, or the client has disconnected
        return True

    def fileno(self) -> int:
        """Owner: return the descriptor."""
        return self._sock.fileno()

    def recv_into(self, buffer: memoryview, size: int = 0, /) -> int:
        """Owner: receive, as with a socket; the rest of a record is for the next call.

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
        """Receive the next records, as far as they have arrived; return the number of bytes."""
        with suppress(OSError):  # the next call reports it
            while count < size and (more := self._sock.recv_into(buffer[count:size])):
                count += more
                if more % RECORD:
                    break  # the last record of a message is rarely full
        return count

    def sendmsg(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """Owner: send the beginning of these pieces, as :meth:`send` does."""
        parts: list[bytes | memoryview] = []
        room = SEND_AT_ONCE
        for piece in pieces:
            parts.append(memoryview(piece)[:room])
            room -= len(parts[-1])
            if not room:
                break
        return self.send(b"".join(parts))

    def send(self, data: bytes | memoryview, /) -> int:
        """Owner: send, as with a socket; the data that was not sent must come first next time."""
        view = memoryview(data)
        sent = 0
        try:
            while sent < len(view) and sent < SEND_AT_ONCE:
                # A record that OpenSSL has begun must be passed again unchanged.
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
        """Owner: shut down, as with a socket; later data is not decrypted."""
        self.has_pending = False
        self._sock.shutdown(how)

    def getsockopt(self, level: int, name: int, /) -> int:
        """Owner: call this method of the underlying socket."""
        return self._sock.getsockopt(level, name)

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Owner: call this method of the underlying socket."""
        self._sock.setsockopt(level, name, value)

    def close(self) -> None:
        """Owner: call this method of the underlying socket."""
        self._sock.close()

    def into_plain(self) -> socket.socket:
        """Owner: return the underlying socket, and detach it from this object."""
        sock = socket.socket(fileno=self._sock.detach())
        sock.setblocking(False)
        return sock


class TLSPeer(Peer):
    """A client of a server with TLS. ``handshake_timeout`` includes the TLS handshake.

    Only the owner calls its methods.

    Args:
        clients: the connections of its loop.
        sock: the client's socket.
        address: the client's address, as the socket module returns it.
        context: the context that TLS uses.
        handshakes: computes the handshake.
        answer_plain_http: called by the owner to refuse a client that sends plain HTTP.
    """

    scheme = "https"

    __slots__ = ("_answer_plain_http", "_context", "_handshakes", "_step", "_tls")

    def __init__(
        self,
        clients: Connections,
        sock: socket.socket,
        address: object,
        context: ssl.SSLContext,
        handshakes: Handshakes,
        answer_plain_http: Callable[[Peer], object],
    ) -> None:
        super().__init__(clients, sock, address)
        self._answer_plain_http = answer_plain_http
        self._context = context
        self._handshakes = handshakes
        self._tls: TLSSocket | None = None
        # One item while a step of the handshake runs. The thread that pops it continues with the
        # socket: the handshake's when the step ends, or the owner when the connection ends.
        self._step: list[None] = NO_STEP

    def open(self, session: Session, timeout: float) -> None:
        """Owner: start to serve the client, with the TLS handshake."""
        assert isinstance(self.sock, socket.socket)
        try:
            sock = self._context.wrap_socket(
                self.sock, server_side=True, do_handshake_on_connect=False
            )
        except OSError:  # the client has disconnected, and wrap_socket has closed the socket
            self.abort()
            return
        self.sock = self._tls = TLSSocket(sock)
        super().open(session, timeout)

    def ready(self, events: int) -> Task | None:
        """Owner: read and send as far as the socket is ready; the events are a hint."""
        tls = self._tls
        if tls is None:
            return super().ready(events)
        if self._step or not tls.secured:
            self._begin_step(tls)
            return None
        crossed = tls.receives_on == WRITE or tls.sends_on == READ
        if crossed:  # the event may be for either direction
            events = READ | WRITE if self._reading == READ else WRITE | (events & HANGUP)
        task = super().ready(events)
        if crossed or tls.has_pending or tls.receives_on == WRITE:
            self._update_interest()
        return task

    def _begin_step(self, tls: TLSSocket) -> None:
        """Continue the handshake in its thread; the socket is not polled meanwhile."""
        if not self._step:
            self._step = [None]
            self._update_interest()
            self._handshakes.run(partial(self._take_step, tls, self._step))

    def _take_step(self, tls: TLSSocket, step: list[None]) -> None:
        """The thread of the handshakes: continue the handshake, then return the socket."""
        failure: Exception | None = None
        try:
            if step:  # otherwise the connection has ended, and the step is not worth its time
                tls.shake_hands()
        except Exception as error:  # of any kind, because other connections use this thread
            failure = error.with_traceback(None)  # which would be a reference cycle
        try:
            step.pop()
        except IndexError:  # the connection has ended meanwhile
            disconnect(tls)
        else:
            self.loop.call_soon(partial(self._end_step, tls, failure))

    def _end_step(self, tls: TLSSocket, error: Exception | None) -> None:
        """Wait for the next event of the handshake; or end it, or the connection."""
        self._step = NO_STEP
        if error is None:
            self._update_interest()
        elif not isinstance(error, OSError):
            self.loop.report_error(error, self)
        elif not self.closed:
            log.debug("%s: the TLS handshake failed: %s", self.address, error)
            if getattr(error, "reason", None) == "HTTP_REQUEST":
                self._answer_in_plain(tls)
            else:
                self.abort()

    def _disconnect(self) -> None:
        """Close the socket; during a step of the handshake, its thread does that."""
        try:
            self._step.pop()
        except IndexError:
            super()._disconnect()

    def _answer_in_plain(self, tls: TLSSocket) -> None:
        """Answer a client that sends plain HTTP, because it could not read an answer in TLS."""
        self._tls = None
        self.sock = tls.into_plain()
        self._update_interest()
        self._answer_plain_http(self)

    def _wanted(self) -> int:
        tls = self._tls
        if tls is None:
            return super()._wanted()
        if self._step:
            return 0
        if not tls.secured:
            return tls.handshakes_on
        wanted = 0 if self.congested else self._reading
        if wanted == READ:
            wanted = tls.receives_on
        return wanted | tls.sends_on if self._blocked else wanted

    def _update_interest(self) -> None:
        super()._update_interest()
        # The poller does not see pending data.
        if self._has_pending():
            self.loop.call_soon(self._read_pending)

    def _read_pending(self) -> None:
        if self._has_pending() and (task := self.ready(READ)) is not None:
            task.schedule()

    def _has_pending(self) -> bool:
        if self._tls is None or self.closed:
            return False
        return self._tls.has_pending and self._reading == READ and not self.congested

    def _end_of_input(self) -> None:
        if self._tls is not None and not self._unsent:
            self._tls.close_notify()
        super()._end_of_input()

    def _shut_write(self) -> None:
        if self._tls is not None and not self._tls.close_notify():
            self._blocked = True
            self._update_interest()
            return
        super()._shut_write()

"""Peer: the socket of one client, from the first read to the close."""

from __future__ import annotations

import socket
import struct
import typing
from collections.abc import Callable, Hashable
from contextlib import suppress
from math import inf
from random import uniform
from socket import SO_ERROR, SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from wsframe.progress import unacknowledged

from ..forks import disconnect
from ..handoff.loop import HANGUP, READ, WRITE
from ..pure_rounds import BROKEN
from ..reports.loggers import log
from .output import Output, Transport
from .record import ConnectionRecord
from .session import NO_SESSION, Session
from .states import CLOSED, FINISHING, OPEN, SHUT, PeerState

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Hashable

    from ..handoff.loop import Loop
    from ..handoff.task import Task
    from ..headers import Pairs
    from ..reports.refusals import Refusals
    from ..reports.stats import Totals
    from ..settings import Settings
    from .identities import Identities


# The number of bytes in one read before the protocol is known.
READ_SIZE = 16 * 1024
# The number of checks within ``send_timeout``, the maximum time without progress.
CHECKS = 8
# The maximum deviation of a connection's age limit from max_connection_age, as a fraction.
AGE_SPREAD = 0.1
# The value of SO_LINGER for which ``close`` discards unsent data and resets the connection.
DISCARD = struct.pack("ii", 1, 0)


class Connections(typing.Protocol):
    """The part of :class:`Clients` that one connection uses."""

    loop: Loop
    settings: Settings
    headers: Pairs
    totals: Totals
    refusals: Refusals
    identities: Identities
    sendable: threading.Condition
    network_of: Callable[[Peer], Hashable]

    def add(self, peer: Peer, /) -> None: ...

    def remove(self, peer: Peer, /) -> None: ...


class Peer(Output):
    """The socket of one client, which stays on one loop.

    A client makes progress when its system acknowledges data.

    Attributes:
        address: the client's address, as the socket module returns it.
        read_size: the maximum number of bytes of one read; 0 for the size of the loop's buffer.
        deadline: the time of the session's ``deadline_passed``, on the loop's clock.
        expires: the time at which the connection reaches its maximum age, on the loop's clock.
        identity: the text by which the application names the user; None without an identity.
        opened: the time of the accept, on the clock of ``loop.timing``.
        record: the facts about the connection beyond its socket.
        bytes_in: the number of bytes read.
        messages_in: the number of messages decoded.
        scheme: the scheme of the connection's URL, such as "https".
    """

    clients: Connections
    bytes_in: int
    limit: int
    session: Session
    state: PeerState

    scheme = "http"

    __slots__ = (
        "_interest",
        "_reading",
        "address",
        "deadline",
        "expires",
        "identity",
        "opened",
        "read_size",
        "record",
    )

    def __init__(self, clients: Connections, sock: Transport, address: object) -> None:
        super().__init__(clients, sock)
        self.address: object = address
        self.read_size: int = READ_SIZE
        self.deadline: float = inf
        self.expires: float = inf
        self.identity: str | None = None
        self.opened: float = clients.loop.timing.clock()
        self.record: ConnectionRecord = ConnectionRecord()
        self._reading = READ  # the requested event: READ, HANGUP, or 0 for none
        self._interest = 0

    # Loop owner -------------------------------------------------------------------------------

    def client_certificate(self) -> dict[str, Any] | None:
        """Loop owner: return the client's verified certificate; None without one or TLS."""
        return None

    def open(self, session: Session, timeout: float) -> None:
        """Loop owner: start to serve the client.

        Args:
            session: the first session.
            timeout: the time until its ``deadline_passed``, in seconds.
        """
        self.clients.add(self)
        if isinstance(self.sock, socket.socket):
            self.fd: int = self.sock.fileno()
        self.switch(session, timeout)
        self._update_interest()

    def switch(self, session: Session, timeout: float = inf) -> None:
        """Loop owner: replace the session."""
        self.session = session
        self.deadline = inf if timeout == inf else self.loop.clock() + timeout

    def proceed(self, session: Session, received: memoryview) -> Task | None:
        """Loop owner: use another session from now on, after data that precedes TLS.

        The deadline remains the same.

        Args:
            session: the session.
            received: its first data, a view of the beginning of the loop's buffer.

        Returns:
            The task whose turn is due because of the data, if any.
        """
        self.session = session
        return session.data_received(received) if received else None

    def due_in(self, seconds: float) -> None:
        """Loop owner: set the deadline of the session, in seconds from now."""
        self.deadline = self.loop.clock() + seconds

    def limit_age(self) -> None:
        """Loop owner: begin the time of ``max_connection_age``, random for each connection."""
        age = self.clients.settings.max_connection_age
        if age:
            age *= uniform(1 - AGE_SPREAD, 1 + AGE_SPREAD)
            self.expires = self.loop.clock() + age
            self.next_check = min(self.next_check, self.expires)

    @property
    def awaiting_request(self) -> bool:
        """Loop owner: True until a complete request has been received."""
        return self.session.awaiting_request

    @property
    def reading(self) -> bool:
        """Any thread: True while the socket is polled for data of the client."""
        return bool(self._interest & READ)

    @property
    def network(self) -> Hashable:
        """Any thread: the client network that the threads count for; None for no limit."""
        return self.clients.network_of(self)

    def pause_reading(self, *, until_hangup: bool = False) -> None:
        """Loop owner: stop reading, so that the flow control of TCP stops the client.

        Args:
            until_hangup: resume reading when the client has closed its side. Only Linux reports
                that without a read.
        """
        self._reading = HANGUP if until_hangup else 0
        self._update_interest()

    def resume_reading(self) -> None:
        """Loop owner: undo :meth:`pause_reading`."""
        self._reading = READ
        self._update_interest()

    def finish(self, *last: bytes) -> None:
        """Loop owner: send the queued frames and these last ones, then close the connection.

        The server's side is shut down first. Data that the client still sends is discarded, because
        a reset could destroy the last frames on their way (RFC 9112 section 9.6).
        """
        if self.state >= FINISHING:
            return
        self.close_send(*last)
        self.state = FINISHING
        self.due_in(self.clients.settings.close_timeout)
        self.flush()

    def abort(self) -> None:
        """Loop owner: close the socket now.

        The system still sends the data that the socket has accepted, unless
        :meth:`_discard_unacknowledged` was called.
        """
        if self.state is CLOSED:
            return
        both_ended = self._both_ended
        self.state = CLOSED
        self.clear: bool = False
        self._update_interest()
        self._disconnect(both_ended)
        self.deadline = self.next_check = self.expires = inf
        self.fd = self.limit = -1
        self._unsent = ()
        self._unsent_size = 0
        self.out.clear()
        try:
            self.session.disconnected()
        finally:
            self._notify_writers()  # called last, so that a waiting thread finds an ended session
            self.clients.remove(self)
            self.session = NO_SESSION  # break the reference cycle

    def _disconnect(self, both_ended: bool) -> None:
        """Shut the socket down, unless both sides have ended, and close it."""
        if both_ended:
            self.sock.close()
        else:
            disconnect(self.sock)

    def after_fork(self) -> None:
        """The child of a fork: close the copy of the socket; the parent keeps the connection."""
        self.state = CLOSED
        self.clear = False
        self.fd = self.limit = -1
        self.sock.close()
        self.out.clear()
        self.session.after_fork()

    def check(self, now: float) -> None:
        """Loop owner: check the progress of the client, and the age of the connection.

        Args:
            now: the time on the loop's clock.
        """
        self.check_progress(now)
        if self.expires <= now:
            self.expires = inf
            if self.state is OPEN:
                self.session.expire()
                self.flush()

    def check_progress(self, now: float) -> None:
        """Loop owner: check the data that the client has acknowledged; disconnect a stalled client.

        Args:
            now: the time on the loop's clock.
        """
        if self.state is CLOSED:
            return
        settings = self.clients.settings
        timeout = settings.send_timeout if self.state is OPEN else settings.close_timeout
        if self.bytes_out == self.acked:
            held = 0
        elif self._both_ended:
            held = self._held_at_end()
        else:
            held = unacknowledged(self.sock)
        moved = self.note(now, self.bytes_out, held, bool(self._unsent))
        if self.state is not OPEN:
            if moved:
                self.deadline = max(now, self.caught_up) + timeout
            if self._both_ended and not held:
                self.abort()  # the client has closed its side, and has acknowledged everything
        elif now - self.waiting_since >= timeout:
            self.cut_off(f"acknowledged no data for {timeout:g} s (send_timeout)")
        if self.state is not CLOSED:
            self.next_check: float = min(
                self.loop.instant(timeout / CHECKS), self.waiting_since + timeout, self.expires
            )

    def deadline_passed(self) -> None:
        """Loop owner: act on the passed deadline of the session or of the close."""
        if self.state is not OPEN:
            now = self.loop.clock()
            self.check_progress(now)  # this check can move the deadline
            if self.state is CLOSED or self.deadline > now:
                return
            self._discard_unacknowledged()
        self.deadline = inf
        if self.state >= FINISHING:
            self.abort()
            return
        self.session.deadline_passed()
        self.flush()

    def cut_off(self, why: str) -> None:
        """Loop owner: close the socket now, because the client is too slow; log the reason."""
        if self.state is not CLOSED:
            log.warning("disconnecting %s: %s", self.address, why)
            self.clients.totals.slow_clients += 1
            self._discard_unacknowledged()
            self.abort()

    def _discard_unacknowledged(self) -> None:
        """Make ``close`` reset the connection if data is unacknowledged.

        Otherwise the system would keep the data and retry for many minutes.
        """
        if self.waiting_since < inf:
            with suppress(OSError):
                self.sock.setsockopt(SOL_SOCKET, SO_LINGER, DISCARD)

    def shut_down(self) -> None:
        """Loop owner: close the connection, because the server stops.

        If the last bytes are already being sent, do nothing, because the connection closes after
        them.
        """
        if self.state < FINISHING:
            self.session.shut_down()
            self.flush()

    def close_for_good(self, code: int, reason: str) -> None:
        """Loop owner: close for good, without reconnect, because the identity was closed."""
        self.session.close_for_good(code, reason)

    def ready(self, events: int) -> Task | None:
        """Loop owner: receive and send as much as the socket permits; events are a hint."""
        if events != READ and not self._may_read(events):
            return None
        loop = self.loop
        try:
            size = self._receive(loop.buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError:
            self.abort()
            return None
        except OSError:
            size = 0
        if size:
            return self.session.data_received(loop.buffer[:size])
        self._end_of_input()
        return None

    def _receive(self, memory: memoryview) -> int:
        """Receive data once; return its size, which is 0 at the end of the client's data.

        Raises:
            BlockingIOError: there is no data now.
        """
        size = self.sock.recv_into(memory, self.read_size)
        self.bytes_in += size
        return size

    def _may_read(self, events: int) -> bool:
        """Handle the events other than READ; return True if the socket must be read, too."""
        if events == BROKEN:
            self.abort()
        if self._reading == HANGUP and events & ~WRITE:
            self.resume_reading()  # the end of the data follows the unread data
        if events & WRITE:
            self._blocked = False
            self._flush_slowly()
            self._update_interest()  # the events may have changed even if no data was unsent
        return self.state is not CLOSED and events != WRITE

    def _end_of_input(self) -> None:
        """Handle the end of the client's data; unacknowledged data is still sent."""
        self._reading = 0
        if self.state is CLOSED or not (self._unsent or self._held_at_end()):
            self.abort()
            return
        self._update_interest()
        if self.state < SHUT:
            session, self.session = self.session, NO_SESSION
            session.disconnected()
            self.finish()

    @property
    def _both_ended(self) -> bool:
        """True if neither side sends new data; the server's may be unacknowledged."""
        return self.state is SHUT and not self._reading

    def _held_at_end(self) -> int:
        """Return the number of unacknowledged bytes after the client's data; 0 after a reset.

        Linux reports a number also after a reset. A read reports no reset after the end of the
        client's data, so SO_ERROR must be read. Before that end the reset would be lost with it.
        """
        held = unacknowledged(self.sock)
        return 0 if held and self.sock.getsockopt(SOL_SOCKET, SO_ERROR) else held

    def _shut_write(self) -> None:
        """Shut down the server's side after the last data; discard data until the client closes."""
        self.state = SHUT
        session, self.session = self.session, NO_SESSION
        self._reading = READ
        self._update_interest()
        try:
            self.sock.shutdown(socket.SHUT_WR)
            self.loop.expect_data()
        except OSError:
            self.abort()
        session.disconnected()

    def _update_interest(self) -> None:
        """Poll only for events that can be handled; other events would keep the loop busy."""
        wanted = 0 if self.state is CLOSED else self._wanted()
        if wanted == self._interest:
            return
        if not self._interest:
            self.loop.register(self.sock, wanted, self)
        elif not wanted:
            self.loop.unregister(self.sock)
        else:
            self.loop.modify(self.sock, wanted)
        self._interest = wanted

    def _wanted(self) -> int:
        wanted = self._reading if not self.congested else 0
        return wanted | WRITE if self._blocked else wanted

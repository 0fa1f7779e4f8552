"""Peer: the socket of one client, its queued output, and its end."""

from __future__ import annotations

import socket
import struct
import typing
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from wsframe.progress import Progress, unacknowledged

from ..forks import disconnect
from ..handoff.loop import HANGUP, READ, SHORT_READ, WRITE
from ..reports.loggers import log
from ..timing import waitable
from .record import ConnectionRecord
from .session import NO_SESSION, Session
from .states import CLOSED, FINISHING, OPEN, SEALED, SHUT, PeerState

if TYPE_CHECKING:
    import threading

    from ..handoff.loop import Loop
    from ..handoff.task import Task
    from ..reports.refusals import Refusals
    from ..reports.stats import Totals
    from ..settings import Settings


# Back-pressure: a connection with more unsent bytes is not read, and threads that send to it wait.
HIGH_WATER = 256 * 1024
# Within a turn, only frames of more bytes are counted.
LARGE_FRAME = 4 * 1024
# The queued bytes are not counted while at most this many frames are queued, and none is large.
FEW_FRAMES = 64
# The number of bytes in one read before the protocol is known.
READ_SIZE = 16 * 1024
# The number of checks for progress in the maximum time without progress.
CHECKS = 8
# The value of SO_LINGER for which ``close`` discards unsent data and resets the connection.
DISCARD = struct.pack("ii", 1, 0)


class Transport(typing.Protocol):
    """The methods of a non-blocking socket that a peer uses. All are the owner's."""

    def fileno(self) -> int: ...

    def recv_into(self, buffer: bytearray, nbytes: int = 0, /) -> int: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def shutdown(self, how: int, /) -> None: ...

    def getsockopt(self, level: int, name: int, /) -> int: ...

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None: ...

    def close(self) -> None: ...


class Connections(typing.Protocol):
    """The connections of one loop, as far as one of them needs them; see :class:`Clients`."""

    loop: Loop
    settings: Settings
    totals: Totals
    refusals: Refusals
    sendable: threading.Condition
    network_of: Callable[[Peer], Hashable]

    def add(self, peer: Peer, /) -> None: ...

    def remove(self, peer: Peer, /) -> None: ...


class Peer(Progress):
    """The socket of one client. It stays on one loop.

    Its progress is the data that the client's system has acknowledged, on the loop's clock.

    Attributes:
        clients: the connections of its loop.
        loop: its loop.
        address: the client's address, as the socket module returns it.
        out: the queued frames, in order. The owner appends and flushes; others call :meth:`send`.
        in_turn: True while the owner runs user code of this connection; it flushes afterwards.
            False while that code runs in another thread, because such a thread must wait in
            :meth:`send`.
        stop_turn: True if the turn should end early, because too much is unsent or the connection
            ends.
        read_size: the limit on the bytes of one read; 0 for the whole buffer of the loop.
        deadline: the time of the session's ``deadline_passed``, on the loop's clock.
        next_check: the time of the next :meth:`check_progress`, on the loop's clock.
        opened: the time of the accept, on the clock of ``loop.timing``.
        record: the facts about the connection beyond its socket.
        notify_when_sent: True to call the session's ``sent_all`` once, when no data is unsent.
        bytes_in, bytes_out: the number of bytes read and sent.
        messages_in: the number of messages decoded.
        scheme: the scheme of its URLs.
        frames_out: the number of frames taken from ``out``, except the head of an answer.
        state: the state of the connection; it only ever increases.
    """

    scheme = "http"

    __slots__ = (
        "_blocked",
        "_flush_scheduled",
        "_in_turn_size",
        "_interest",
        "_reading",
        "_session",
        "_sock",
        "_unobstructed",
        "_unsent",
        "_waiting",
        "address",
        "bytes_in",
        "bytes_out",
        "clients",
        "deadline",
        "frames_out",
        "in_turn",
        "loop",
        "messages_in",
        "next_check",
        "notify_when_sent",
        "opened",
        "out",
        "read_size",
        "record",
        "state",
        "stop_turn",
    )

    def __init__(self, clients: Connections, sock: socket.socket, address: object) -> None:
        super().__init__()
        self.address = address
        self.out: list[bytes] = []
        self.in_turn = False
        self.stop_turn = False
        self.read_size = READ_SIZE
        self.deadline = inf
        self.next_check = 0.0
        self.state: PeerState = OPEN
        self.opened = clients.loop.timing.clock()
        self.record = ConnectionRecord()
        self.notify_when_sent = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in = 0
        self.frames_out = 0
        self.clients = clients
        self.loop: Loop = clients.loop
        self._sock: Transport = sock
        self._session: Session = NO_SESSION
        self._unsent: bytes | memoryview = b""
        # No data is unsent, no thread waits for the socket, and the state is OPEN.
        self._unobstructed = True
        self._blocked = False  # the socket accepted no more data
        self._reading = READ  # the requested event: READ, HANGUP, or 0 for none
        self._interest = 0
        self._flush_scheduled = False
        self._in_turn_size = 0  # bytes of large frames queued in this turn
        self._waiting = 0  # threads that wait to send; under clients.sendable

    # Owner ------------------------------------------------------------------------------------

    def open(self, session: Session, timeout: float) -> None:
        """Owner: start to serve the client.

        Args:
            session: the first session.
            timeout: the time until its ``deadline_passed``, in seconds.
        """
        self.clients.add(self)
        self.switch(session, timeout)
        self._update_interest()

    def switch(self, session: Session, timeout: float = inf) -> None:
        """Owner: use another session from now on."""
        self._session = session
        self.due_in(timeout)

    def due_in(self, seconds: float) -> None:
        """Owner: set the deadline of the session, this many seconds from now."""
        self.deadline = self.loop.clock() + seconds

    @property
    def congested(self) -> bool:
        """Owner: True if more than ``HIGH_WATER`` bytes are unsent."""
        return len(self._unsent) > HIGH_WATER

    @property
    def closed(self) -> bool:
        """Any thread: True if the socket is closed."""
        return self.state is CLOSED

    @property
    def send_closed(self) -> bool:
        """Owner: True if frames that are queued from now on are not sent."""
        return self.state is not OPEN

    @property
    def has_unsent(self) -> bool:
        """Owner: True if the socket has not accepted all the data."""
        return bool(self._unsent)

    @property
    def position(self) -> int:
        """Owner: the number of bytes sent, including bytes not yet accepted by the socket."""
        return self.bytes_out + len(self._unsent)

    @property
    def awaiting_request(self) -> bool:
        """Owner: True until a complete request has been received."""
        return self._session.awaiting_request

    @property
    def network(self) -> Hashable:
        """Any thread: the client network that its threads count for; None if not limited."""
        return self.clients.network_of(self)

    @property
    def messages_out(self) -> int:
        """Any thread: the number of messages or events handed to the socket."""
        return max(0, self.frames_out)

    def begin_answer(self, head: bytes) -> None:
        """Owner: queue the head of an answer that messages follow."""
        self.out.append(head)
        self.frames_out = -1  # the head is not a message

    def send_control(self, *frames: bytes) -> None:
        """Owner: send the queued frames, then these control frames."""
        self.queue_control(*frames)
        self.flush()

    def queue_control(self, *frames: bytes) -> None:
        """Owner: queue these control frames behind the others; :meth:`flush` sends them."""
        if self.state is OPEN:
            self._gather(*frames)

    def pause_reading(self, *, until_hangup: bool = False) -> None:
        """Owner: stop reading, so that the flow control of TCP stops the client.

        Args:
            until_hangup: resume reading when the client has closed its side. Only Linux reports
                that without a read.
        """
        self._reading = HANGUP if until_hangup else 0
        self._update_interest()

    def resume_reading(self) -> None:
        """Owner: undo :meth:`pause_reading`."""
        self._reading = READ
        self._update_interest()

    def flush(self) -> None:
        """Owner: send the queued frames, as far as the socket accepts them."""
        out = self.out
        if self._unobstructed:
            # The common case, inlined: no data is unsent, and the socket accepts everything.
            queued = len(out)  # other threads may append meanwhile
            if not queued:
                return
            data = out.pop(0) if queued == 1 else b"".join(self._take(queued))
            self.frames_out += queued
            try:
                sent = self._sock.send(data)
            except OSError:
                sent = 0
            self.bytes_out += sent
            if sent == len(data):
                self._in_turn_size = 0
                if self._waiting:
                    self._notify_writers()
                return
            self._unsent = memoryview(data)[sent:]
            self._unobstructed = False
        self._flush_slowly()

    def _flush_as_scheduled(self) -> None:
        """Owner: flush what another thread, or the handler of another connection, has queued."""
        self._flush_scheduled = False
        self.flush()

    def _flush_slowly(self) -> None:
        """Send the queued frames when the socket is full, a thread waits, or the end is near."""
        assert self.loop.owned()
        if self.state is CLOSED:
            return
        was_congested = self.congested
        if self.out and self.state is OPEN:
            self._gather()
        if self._unsent and not self._blocked:
            self._send()
        if self._blocked:
            self._update_interest()
        if self._waiting:
            self._notify_writers()
        if self.state is FINISHING and not self._unsent:
            self._shut_write()
        self._unobstructed = self.state is OPEN and not (self._unsent or self._blocked)
        if was_congested and not self.congested:
            self._session.drained()
        if self.notify_when_sent and self.state is OPEN and not self._unsent:
            self.notify_when_sent = False
            self._session.sent_all()

    def close_send(self, *last: bytes) -> None:
        """Owner: queue these last frames; frames that are appended later are not sent."""
        if self.state is not OPEN:
            return
        self._gather(*last)
        self.state = SEALED
        self.next_check = 0.0  # close_timeout applies from now on
        self._notify_writers()  # because their frames will not be sent

    def finish(self, *last: bytes) -> None:
        """Owner: send the queued frames and these last ones, then close the connection.

        Our side is shut first. Data that the client still sends is discarded, so that no reset
        destroys the last frames on their way (RFC 9112 section 9.6).
        """
        if self.state >= FINISHING:
            return
        self.close_send(*last)
        self.state = FINISHING
        self.due_in(self.clients.settings.close_timeout)
        self.flush()

    def abort(self) -> None:
        """Owner: close the socket now.

        The system still sends the data that the socket has accepted, unless
        :meth:`_discard_unacknowledged` was called.
        """
        if self.state is CLOSED:
            return
        self.state = CLOSED
        self._unobstructed = False
        self._update_interest()
        disconnect(self._sock)
        self.deadline = self.next_check = inf
        self._unsent = b""
        self.out.clear()
        try:
            self._session.disconnected()
        finally:
            self._notify_writers()  # last, so that a waiting thread finds the session ended
            self.clients.remove(self)
            self._session = NO_SESSION  # break the reference cycle

    def after_fork(self) -> None:
        """The child of a fork: close the copy of the socket; the connection is the parent's."""
        self.state = CLOSED
        self._unobstructed = False
        self._sock.close()
        self.out.clear()
        self._session.after_fork()

    def check_progress(self, now: float) -> None:
        """Owner: check the data that the client has acknowledged; disconnect a stalled client.

        Args:
            now: the time on the loop's clock.
        """
        if self.state is CLOSED:
            return
        settings = self.clients.settings
        timeout = settings.send_timeout if self.state is OPEN else settings.close_timeout
        held = unacknowledged(self._sock) if self.bytes_out != self.acked else 0
        moved = self.note(now, self.bytes_out, held, bool(self._unsent))
        if self.state is not OPEN:
            if moved:
                self.deadline = max(now, self.caught_up) + timeout
            if self.state is SHUT and not (self._reading or held):
                self.abort()  # the client has closed its side, and has acknowledged everything
        elif now - self.waiting_since >= timeout:
            self.cut_off(f"acknowledged no data for {timeout:g} s (send_timeout)")
        if self.state is not CLOSED:
            self.next_check = min(self.loop.instant(timeout / CHECKS), self.waiting_since + timeout)

    def deadline_passed(self) -> None:
        """Owner: act on the passed deadline of the session or of the close."""
        if self.state is not OPEN:
            now = self.loop.clock()
            self.check_progress(now)  # may move the deadline
            if self.state is CLOSED or self.deadline > now:
                return
            self._discard_unacknowledged()
        self.deadline = inf
        if self.state >= FINISHING:
            self.abort()
            return
        self._session.deadline_passed()
        self.flush()

    def cut_off(self, why: str) -> None:
        """Owner: close the socket now, because the client is too slow; log the reason."""
        if self.state is not CLOSED:
            log.warning("disconnecting %s: %s", self.address, why)
            self.clients.totals.slow_clients += 1
            self._discard_unacknowledged()
            self.abort()

    def _discard_unacknowledged(self) -> None:
        """Have ``close`` reset the connection if data is unacknowledged.

        Otherwise the system would keep the data and retry for many minutes.
        """
        if self.waiting_since < inf:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DISCARD)

    def shut_down(self) -> None:
        """Owner: close because the server stops; first complete an answer that is being sent."""
        if self.state < FINISHING:
            self._session.shut_down()
            self.flush()

    def ready(self, events: int) -> Task | None:
        """Owner: read and send as far as the socket is ready; the events are a hint."""
        if events != READ and not self._may_read(events):
            return None
        loop = self.loop
        try:
            size = self._sock.recv_into(loop.buffer, self.read_size)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError:
            self.abort()
            return None
        except OSError:
            size = 0
        if size:
            self.bytes_in += size
            return self._session.data_received(
                loop.received_short[size] if size < SHORT_READ else loop.received[:size]
            )
        self._end_of_input()
        return None

    def _may_read(self, events: int) -> bool:
        """Handle the events other than READ; return True if the socket must be read, too."""
        if self._reading == HANGUP and events & ~WRITE:
            self.resume_reading()  # the end comes after the unread data
        if events & WRITE:
            self._blocked = False
            self._flush_slowly()
            self._update_interest()  # even if no data was unsent
        return self.state is not CLOSED and events != WRITE

    def _notify_writers(self) -> None:
        """Wake the threads that wait to send."""
        with self.clients.sendable:
            self.clients.sendable.notify_all()

    def _gather(self, *control: bytes) -> None:
        """Append the queued frames, then these control frames, to the unsent data."""
        queued = len(self.out)
        before = [self._unsent] if self._unsent else []
        self._unsent = b"".join([*before, *self._take(queued), *control])
        self._unobstructed = False
        self.frames_out += queued
        self._in_turn_size = 0

    def _take(self, queued: int) -> list[bytes]:
        """Remove and return this many frames; other threads may append meanwhile."""
        frames = self.out[:queued]
        del self.out[:queued]
        return frames

    def _send(self) -> None:
        data = self._unsent
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.abort()
            return
        self.bytes_out += sent
        if sent == len(data):
            self._unsent = b""
            return
        if self.waiting_since == inf:
            self.next_check = 0.0  # the time without progress begins
        self._unsent = memoryview(data)[sent:]
        self._blocked = True

    def _end_of_input(self) -> None:
        """Handle the end of the client's data; unacknowledged data is still sent."""
        if self.state is CLOSED or not (self._unsent or unacknowledged(self._sock)):
            self.abort()
            return
        self._reading = 0
        self._update_interest()
        if self.state < SHUT:
            session, self._session = self._session, NO_SESSION
            session.disconnected()
            self.finish()

    def _shut_write(self) -> None:
        """Shut our side, because all data was sent; discard the client's until it closes, too."""
        self.state = SHUT
        session, self._session = self._session, NO_SESSION
        self._reading = READ
        self._update_interest()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
        session.disconnected()

    def _update_interest(self) -> None:
        """Poll only for events that can be handled; others would keep the loop busy."""
        wanted = 0 if self.state is CLOSED else self._wanted()
        if wanted == self._interest:
            return
        if not self._interest:
            self.loop.register(self._sock, wanted, self)
        elif not wanted:
            self.loop.unregister(self._sock)
        else:
            self.loop.modify(self._sock, wanted)
        self._interest = wanted

    def _wanted(self) -> int:
        wanted = self._reading if not self.congested else 0
        return wanted | WRITE if self._blocked else wanted

    # Any thread -------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Any thread: queue a frame; it is sent at the end of this turn, or soon."""
        self.out.append(frame)
        if not self.in_turn or len(frame) > LARGE_FRAME:
            self.schedule_flush(len(frame))

    def schedule_flush(self, size: int, *, wait: bool = True) -> None:
        """Any thread: make the owner flush frames that were appended to ``out``.

        Within the connection's own turn this is needed only for large frames, which are counted. A
        thread other than the owner waits while too much is unsent. The owner cannot wait: if it
        sends for another connection, a client that is too slow is disconnected.

        Args:
            size: the number of bytes appended.
            wait: False to return at once, after :meth:`wait_for_room`.
        """
        owned = self.loop.owned()
        if owned and self.in_turn:
            self._in_turn_size += size
            if self._in_turn_size > HIGH_WATER:
                self.stop_turn = True
            return
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_as_scheduled)
        if not wait:
            return
        if owned:
            if self.congested:
                # The sender must not block the loop.
                self.loop.call_soon(partial(self.cut_off, "too slow for the data sent to it"))
        elif (size > LARGE_FRAME or len(self.out) > FEW_FRAMES or self._unsent) and self._too_much:
            self._wait()

    @property
    def _too_much(self) -> bool:
        """Any thread: True if a thread that sends must wait."""
        unsent = len(self._unsent) + sum(map(len, self.out))
        return unsent > HIGH_WATER and self.state is OPEN

    def wait_for_room(self, timeout: float) -> bool:
        """Any thread: wait until a frame can be queued, or the connection has ended.

        A turn that waits here on the loop's thread loses the loop.

        Args:
            timeout: the longest time to wait, in seconds.

        Returns:
            False if the time is over and too much is still unsent.
        """
        return not self._too_much or self._wait(timeout)

    def _wait(self, timeout: float | None = None) -> bool:
        """Any thread: wait while too much is unsent; return False if the time is over first."""
        with self.clients.sendable:
            # Announce the wait, then check: no flush is missed in between.
            self._waiting += 1
            try:
                limit = None if timeout is None else waitable(timeout)
                return self.clients.sendable.wait_for(lambda: not self._too_much, limit)
            finally:
                self._waiting -= 1


def no_room(timeout: float) -> TimeoutError:
    """Return the error for a :meth:`Peer.wait_for_room` that returned False."""
    return TimeoutError(
        f"nothing was queued: more than {HIGH_WATER >> 10} KiB were unsent for {timeout:g} s"
    )

"""One client's socket: what is read from it, what waits to be sent, and how it ends."""

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


# A connection with more than this unsent is not read any more, and threads that send to it wait.
HIGH_WATER = 256 * 1024
# Within a turn only frames of more bytes are counted.
LARGE_FRAME = 4 * 1024
# As long as no more frames than these are queued, and none of them is large, nobody counts bytes.
FEW_FRAMES = 64
# How much is read at once before it is known what is spoken.
READ_SIZE = 16 * 1024
# How many times a connection is checked for progress within the time that it may stand still.
CHECKS = 8
# The value of SO_LINGER with which a socket discards its data and resets when it is closed.
DISCARD = struct.pack("ii", 1, 0)


class Transport(typing.Protocol):
    """What a peer needs of a socket that does not block; all of it is the owner's."""

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
    """One client's socket, on one loop for life.

    Its progress is what the client's system has acknowledged, on the loop's clock.

    Attributes:
        clients: the connections of its loop.
        loop: the loop it lives on.
        address: the client's, as the socket module gives it.
        out: frames to be sent, in order. The owner appends and flushes; others call :meth:`send`.
        in_turn: the owner runs user code of this connection, and flushes when that is done. Never
            set while that code has another thread, which would not wait when it should.
        halted: the turn is to end early, for too much is unsent, or the connection is over.
        read_size: how many bytes are read at once, at most; 0 for the loop's whole buffer.
        deadline: when, on the loop's clock, the protocol's ``deadline_passed`` is due.
        next_look: when the owner checks next what the client has acknowledged.
        opened: when it was accepted, on the clock of ``loop.timing``.
        record: the facts about the connection beyond its socket.
        tell_when_sent: the protocol wants to be told, once, when nothing is unsent any more.
        bytes_in, bytes_out: what was read and sent.
        messages_in: how many messages of the client were decoded.
        scheme: what its clients call what is spoken here.
        frames_out: how many items of ``out`` have been gathered, less those that are no messages.
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
        # Nothing is unsent, nobody waits for it, and there is no end in sight.
        self._unobstructed = True
        self._blocked = False  # the socket took no more
        self._reading = READ  # or 0, or LEFT
        self._interest = 0
        self._flush_scheduled = False
        self._in_turn_size = 0  # bytes of large frames queued in this turn
        self._waiting = 0  # threads, until less is unsent; under clients.sendable

    # Owner ------------------------------------------------------------------------------------

    def open(self, session: Session, timeout: float) -> None:
        """Owner: begin, with a protocol that has this many seconds for its first word."""
        self.clients.add(self)
        self.switch(session, timeout)
        self._update_interest()

    def switch(self, session: Session, timeout: float = inf) -> None:
        """Owner: speak another protocol from here on."""
        self._session = session
        self.due_in(timeout)

    def due_in(self, seconds: float) -> None:
        """Owner: have the protocol's ``deadline_passed`` called then, and not before."""
        self.deadline = self.loop.clock() + seconds

    @property
    def congested(self) -> bool:
        """Owner: whether too much is unsent."""
        return len(self._unsent) > HIGH_WATER

    @property
    def closed(self) -> bool:
        """Any thread: True if the socket is closed."""
        return self.state is CLOSED

    @property
    def send_closed(self) -> bool:
        """Owner: whether nothing more is sent than what is queued."""
        return self.state is not OPEN

    @property
    def has_unsent(self) -> bool:
        """Owner: whether the client has not taken all that was sent."""
        return bool(self._unsent)

    @property
    def position(self) -> int:
        """Owner: how many bytes were sent, counting those that the socket has not taken yet."""
        return self.bytes_out + len(self._unsent)

    @property
    def awaiting_request(self) -> bool:
        """Owner: whether the client has yet to ask for something."""
        return self._session.awaiting_request

    @property
    def network(self) -> Hashable:
        """Any thread: the client network whose share of the threads it uses, if limited."""
        return self.clients.network_of(self)

    @property
    def messages_out(self) -> int:
        """Any thread: how many messages or events were handed to the socket."""
        return max(0, self.frames_out)

    def begin_answer(self, head: bytes) -> None:
        """Owner: queue the head of an answer that messages follow."""
        self.out.append(head)
        self.frames_out = -1  # for the head is none

    def send_control(self, *frames: bytes) -> None:
        """Owner: send what is queued, and then these frames, which are no messages."""
        self.queue_control(*frames)
        self.flush()

    def queue_control(self, *frames: bytes) -> None:
        """Owner: queue these frames, which are no messages; to be flushed."""
        if self.state is OPEN:
            self._gather(*frames)

    def pause_reading(self, *, until_hangup: bool = False) -> None:
        """Owner: leave what the client sends to TCP, which will slow it down.

        Args:
            until_left: read what it has sent as soon as it has closed its side, where the system
                reports that without a read (Linux does).
        """
        self._reading = HANGUP if until_hangup else 0
        self._update_interest()

    def resume_reading(self) -> None:
        """Owner: undo :meth:`pause_reading`."""
        self._reading = READ
        self._update_interest()

    def flush(self) -> None:
        """Owner: send what is queued, as far as the socket takes it."""
        out = self.out
        if self._unobstructed:
            # The common case, written out: nothing is unsent, and the socket takes everything.
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
        """Owner: another thread has queued something, or another connection's handler."""
        self._flush_scheduled = False
        self.flush()

    def _flush_slowly(self) -> None:
        """Send what is queued where the socket, another thread or the end has a say in it."""
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
        """Owner: queue these last words; what other threads append after them is not sent."""
        if self.state is not OPEN:
            return
        self._gather(*last)
        self.state = SEALED
        self.next_check = 0.0  # from now on close_timeout counts
        self._notify_writers()  # nobody waits for what will not be sent

    def finish(self, *last: bytes) -> None:
        """Owner: send what is queued, then these last words, then nothing ever again, and close.

        Our side is closed first, and what the client still sends is read and thrown away, so that
        no reset overtakes the last words on their way (RFC 9112 section 9.6).
        """
        if self.state >= FINISHING:
            return
        self.close_send(*last)
        self.state = FINISHING
        self.due_in(self.clients.settings.close_timeout)
        self.flush()

    def abort(self) -> None:
        """Owner: close the socket now.

        The system goes on to send what it has taken. Of a client that has stopped,
        :meth:`_discard_unacknowledged` discards it first.
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
            self._notify_writers()  # only now: who waited to send is to find that it is over
            self.clients.remove(self)
            self._session = NO_SESSION  # a session and its peer would keep each other

    def after_fork(self) -> None:
        """The child of a fork: close the copy of the socket; the connection is the parent's."""
        self.state = CLOSED
        self._unobstructed = False
        self._sock.close()
        self.out.clear()
        self._session.after_fork()

    def check_progress(self, now: float) -> None:
        """Owner: check what the client has acknowledged; cut it off if it has stopped.

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
            self.cut_off(
                f"acknowledged nothing of what it was sent for {timeout:g} s (send_timeout)"
            )
        if self.state is not CLOSED:
            self.next_check = min(self.loop.instant(timeout / CHECKS), self.waiting_since + timeout)

    def deadline_passed(self) -> None:
        """Owner: the loop saw that the deadline is over."""
        if self.state is not OPEN:
            now = self.loop.clock()
            self.check_progress(now)  # which moves the deadline if the client has made progress
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
        """Owner: close the socket now, because the client is too slow."""
        if self.state is not CLOSED:
            log.warning("%s %s and is cut off", self.address, why)
            self.clients.totals.slow_clients += 1
            self._discard_unacknowledged()
            self.abort()

    def _discard_unacknowledged(self) -> None:
        """Have the socket reset when it is closed, if the client has not acknowledged everything.

        The system would keep the data, and try to send them, for many minutes.
        """
        if self.waiting_since < inf:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DISCARD)

    def shut_down(self) -> None:
        """Owner: the server stops; an answer that is on its way still arrives."""
        if self.state < FINISHING:
            self._session.shut_down()
            self.flush()

    def ready(self, events: int) -> Task | None:
        """Owner: the socket may be ready. A hint only: what counts is what it then says."""
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
        """Act on what else the socket is ready for than a read; whether to read it as well."""
        if self._reading == HANGUP and events & ~WRITE:
            self.resume_reading()  # the end is behind what has not been read
        if events & WRITE:
            self._blocked = False
            self._flush_slowly()
            self._update_interest()  # even if nothing was left to send
        return self.state is not CLOSED and events != WRITE

    def _notify_writers(self) -> None:
        """Have threads that wait look again."""
        with self.clients.sendable:
            self.clients.sendable.notify_all()

    def _gather(self, *aside: bytes) -> None:
        """Put what is queued behind what is unsent, and behind that what is no message."""
        queued = len(self.out)
        before = [self._unsent] if self._unsent else []
        self._unsent = b"".join([*before, *self._take(queued), *aside])
        self._unobstructed = False
        self.frames_out += queued
        self._in_turn_size = 0

    def _take(self, queued: int) -> list[bytes]:
        """Take so many frames; other threads may append meanwhile."""
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
            self.next_check = 0.0  # the time that it may stand still begins
        self._unsent = memoryview(data)[sent:]
        self._blocked = True

    def _end_of_input(self) -> None:
        """The client has closed its side, or is gone; what was sent still arrives if possible."""
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
        """All has gone out; what still comes is thrown away until the client closes, too."""
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
        """Wait for just what can be acted on: a socket that is always ready would spin the loop."""
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
        """Any thread: queue a frame; it goes out at the end of this turn, or else soon."""
        self.out.append(frame)
        if not self.in_turn or len(frame) > LARGE_FRAME:
            self.schedule_flush(len(frame))

    def schedule_flush(self, size: int, *, wait: bool = True) -> None:
        """Any thread: after appending to ``out``, have the owner flush it.

        Not needed within the connection's own turn, but for large frames, which are counted there.
        A thread other than the owner waits here while too much is unsent; when it is the owner, on
        behalf of another connection, a client that is too slow is cut off.

        Args:
            size: how many bytes were appended.
            wait: False to return at once whatever is unsent: :meth:`wait_for_room` came before.
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
                # The one who sends cannot wait here, and the others must not.
                self.loop.call_soon(partial(self.cut_off, "is too slow for what it is sent"))
        elif (size > LARGE_FRAME or len(self.out) > FEW_FRAMES or self._unsent) and self._too_much:
            self._wait()

    @property
    def _too_much(self) -> bool:
        """Any thread: whether one that sends has to wait."""
        unsent = len(self._unsent) + sum(map(len, self.out))
        return unsent > HIGH_WATER and self.state is OPEN

    def wait_for_room(self, timeout: float) -> bool:
        """Any thread: wait until a frame can be queued without waiting, or the connection is over.

        A turn that waits here on the loop's thread loses the loop.

        Args:
            timeout: for how long, in seconds.

        Returns:
            False if the time is over and too much is still unsent.
        """
        return not self._too_much or self._wait(timeout)

    def _wait(self, timeout: float | None = None) -> bool:
        """Any thread: wait until less is unsent, or nothing will be sent; whether that is so."""
        with self.clients.sendable:
            # Announced before it is looked at once more, so that no flush between is missed.
            self._waiting += 1
            try:
                limit = None if timeout is None else waitable(timeout)
                return self.clients.sendable.wait_for(lambda: not self._too_much, limit)
            finally:
                self._waiting -= 1


def no_room(timeout: float) -> TimeoutError:
    """What to raise where :meth:`Peer.wait_for_room` was in vain."""
    return TimeoutError(
        f"nothing was queued: for {timeout:g} seconds more than {HIGH_WATER >> 10} KiB were unsent"
    )

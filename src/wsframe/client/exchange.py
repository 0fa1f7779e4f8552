"""What goes out and what comes in on one WebSocket, by the hands of whichever threads are there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from math import inf
from sys import getsizeof
from time import monotonic

from ..connection import Connection
from ..errors import ConnectionClosed
from ..frames import PONG, Close, CloseCode, Ping, Pong
from ..kernels import encode_frame
from ..progress import Life
from .liveness import Liveness
from .transport import Transport

READ_SIZE = 1 << 16
# A byte of compressed messages may be a thousand when they are inflated. No less than a record of
# TLS, see Transport.receive.
COMPRESSED_READ_SIZE = 1 << 14
# Longer waits are done in several: every system has a longest one.
LONGEST_WAIT = 3600.0
# For so long, in seconds, messages are taken without a look at the socket.
LONGEST_NEGLECT = 1.0
# The place in the queue of the pong that is owed; which one that is, is seen when its turn comes.
PONG_DUE = b""
MAX_PONGS = 64


class Exchange:
    """One WebSocket after its handshake. It has no thread of its own.

    ``state`` guards everything. Who holds it may have the socket do what it can do at once, never
    wait. Of the threads that must wait, one lets go of it and polls the socket for all; the others
    wait for ``state``, and are notified when its poll ends: there may be news, or the poll falls to
    one of them. While a thread polls, no other reads, as that would take from under it what it
    waits for.

    Every method is to be called with ``state`` held.

    Attributes:
        state: the lock.
        codec: the connection's.
        inbox: the messages that were received, and that nobody has taken.
        end: how the connection ends; set once, when that is known.
        finished: nothing comes any more and nothing can be sent; the socket is closed.
        sent: how many of the frames that were pushed have gone.
        stalled: how long the server has taken nothing, if the connection was given up for that.
        clock: returns the time in seconds; it never decreases.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Connection,
        max_queue: int,
        *,
        send_timeout: float,
        ping_interval: float,
        ping_timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.state = threading.Condition()
        self.codec = codec
        self.inbox: deque[str | bytes] = deque()
        self.end: ConnectionClosed | None = None
        self.finished = False
        self.sent = 0
        self.stalled = ""
        self.clock = clock
        self._liveness = Liveness(
            clock,
            send_timeout=send_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        self._close_timeout: float | None = None  # once we say goodbye
        self._written = 0  # bytes that the system has taken
        self._received = 0  # bytes
        self._transport = transport
        self._max_queue = max_queue
        self._inbox_size = 0
        self._buffer = memoryview(
            bytearray(READ_SIZE if codec.deflate is None else COMPRESSED_READ_SIZE)
        )
        self._out: deque[bytes] = deque()
        self._unsent = memoryview(b"")  # of the frame that is on its way
        self._pushed = 0
        self._pongs: deque[bytes] = deque(maxlen=MAX_PONGS)  # what those say that are owed
        self._pings: dict[bytes, None] = {}  # that are not answered, in order
        self._close_frame: tuple[int, str]  # what our close frame says
        self._worked = 0.0  # when the socket was last seen to, on the clock
        self._poller: int | None = None  # the thread that polls
        self._polled_for = 0

    def push(self, frame: bytes) -> int:
        """Queue a frame, and send it now if the socket takes it.

        Returns:
            What ``sent`` will be at least when it has gone.
        """
        first = self.sent == self._pushed
        self._append(frame)
        ticket = self._pushed
        # What goes now while another polls must be nothing that anybody waits for already.
        if first or not self._poller:
            self._work()
        self._update_poll()
        return ticket

    def push_ping(self, payload: bytes) -> None:
        """Queue a ping whose answer :meth:`answered` will know of."""
        self._pings[payload] = None
        self.push(self.codec.ping(payload))

    def answered(self, payload: bytes) -> bool:
        """Whether that ping was answered, or a later one."""
        return payload not in self._pings

    def forget(self, payload: bytes) -> None:
        """Wait for the answer to that ping no longer."""
        self._pings.pop(payload, None)

    def take(self) -> str | bytes:
        """Take the first message of the inbox."""
        message = self.inbox.popleft()
        self._inbox_size -= getsizeof(message)
        self._update_poll()
        # Who is slow to take what came in one read answers pings all the same.
        if not self._poller and self.clock() - self._worked > LONGEST_NEGLECT:
            self._work()
        return message

    def wait(self, done: Callable[[], object], deadline: Callable[[], float]) -> None:
        """Wait, and move what can be moved, until this is so, as it will be when ``finished`` is.

        Args:
            done: what to wait for.
            deadline: when to give up, on ``clock``.
        """
        liveness = self._liveness
        liveness.begin()
        try:
            while not done():
                now = liveness.wake()
                if now >= liveness.next_look:
                    self._look(now)
                    if done():
                        return
                remaining = deadline() - self.clock()
                timeout = max(0.0, min(remaining, liveness.next_look - now, LONGEST_WAIT))
                liveness.sleep(now, timeout)
                if self._poller:
                    self.state.wait(timeout)
                else:
                    self._poll(timeout)
                if not remaining > 0:  # which no comparison with a timeout of NaN is
                    return
        finally:
            liveness.end()

    def wait_until_sent(self, ticket: int) -> None:
        """Wait until a frame has gone, or nothing can be sent any more.

        Args:
            ticket: what :meth:`push` returned.
        """
        self._liveness.look_soon()  # from here on the server's time counts
        self.wait(lambda: self.sent >= ticket or self.finished, lambda: inf)

    def finish_closing(self, timeout: float) -> None:
        """After ``end``: send our close frame, wait for the server to leave, and leave.

        It is the server that is to close first (RFC 6455 section 7.1.1).

        Args:
            timeout: how long the server may acknowledge nothing, in seconds.
        """
        if not (self.finished or self.codec.close_sent):
            self.push(self.codec.close(*self._close_frame))
        self._close_timeout = timeout
        leave_by = self._liveness.deadline_after(timeout)
        self.wait(lambda: self.finished, leave_by)
        self.abort("the server did not leave in time")

    def _look(self, now: float) -> None:
        """Check whether the server takes what it is sent, and answers.

        Args:
            now: the time of the liveness.
        """
        liveness, more = self._liveness, self.sent < self._pushed
        held = self._transport.unacknowledged()
        liveness.look(now, self._written, held, more=more, timeout=self._close_timeout)
        if self._close_timeout is not None:
            return
        if now >= liveness.stalls_at:
            self.stalled = (
                f"the server has acknowledged nothing for {liveness.send_timeout} seconds"
            )
            self._finish(self.stalled)
        elif self.end is None:
            received = self._received if self._may_read() else None
            match liveness.judge(now, received, more=more):
                case Life.PING_DUE:
                    self.push(self.codec.ping())
                    queued = len(self._unsent) + sum(map(len, self._out))
                    liveness.pinged(now, self._written + queued)
                case Life.OVER:
                    self._finish(f"no pong within {liveness.ping_timeout} seconds (ping_timeout)")

    def abort(self, reason: str) -> None:
        """Close the socket now.

        Args:
            reason: why, if nothing else has ended the connection.
        """
        self._finish(reason)
        # One that this thread is in itself, below a signal handler, closes the socket later.
        while self._poller not in (None, threading.get_ident()):
            self.state.wait()

    def end_with(self, code: int, reason: str, reply: str) -> None:
        """The connection is to end, with this code and reason; the first time counts.

        Args:
            code: of the server's close frame or fault, or of our close frame.
            reason: likewise.
            reply: the reason that our close frame carries.
        """
        if self.end is None:
            self.end = ConnectionClosed(code, reason)
            self._close_frame = code, reply

    def feed(self, data: bytes | memoryview) -> None:
        """Decode what has come, and put it where it belongs."""
        for event in self.codec.receive(data):
            match event:
                case str() | bytes():
                    if self.end is None:
                        self.inbox.append(event)
                        self._inbox_size += getsizeof(event)
                case Ping(payload):
                    self._queue_pong(payload)
                case Pong(payload):
                    self._answer(payload)
                    self._liveness.answered()
                case Close(code, reason):
                    self.end_with(code, reason, "")
                case failure:
                    self.end_with(failure.code, failure.reason, failure.reason)

    def _append(self, frame: bytes) -> None:
        self._pushed += 1
        self._out.append(frame)

    def _queue_pong(self, payload: bytes) -> None:
        """RFC 6455 section 5.5.3: of too many pings the last ones alone may be answered."""
        if self.codec.close_sent:
            return
        if len(self._pongs) < MAX_PONGS:
            self._append(PONG_DUE)
        self._pongs.append(payload)

    def _answer(self, payload: bytes) -> None:
        """A pong answers the earlier pings as well, which may get none of their own."""
        while payload in self._pings:
            del self._pings[next(iter(self._pings))]

    # The socket --------------------------------------------------------------------------------

    def _poll(self, timeout: float) -> None:
        """Wait for the socket, without ``state``, and do what it is ready for."""
        self._poller, self._polled_for = threading.get_ident(), self._wanted()
        try:
            self.state.release()
            ready = self._transport.poll(self._polled_for, timeout)
        finally:
            # At once, for if this is interrupted nobody is to wait for a poll that is over.
            self._poller = None
            self.state.acquire()
            self.state.notify_all()
            if self.finished and not self._poller:
                self._transport.close()
        if ready:
            self._work()

    def _wanted(self) -> int:
        """The events to poll for."""
        wanted = self._transport.receives_on if self._may_read() else 0
        return wanted | (self._transport.sends_on if self.sent < self._pushed else 0)

    def _may_read(self) -> bool:
        """Whether there is room for what comes; after the end it is thrown away."""
        return not self.finished and (self.end is not None or self._inbox_size < self._max_queue)

    def _update_poll(self) -> None:
        """Have the thread that polls do so for the right events."""
        if self._poller and self._polled_for != self._wanted():
            self._transport.wake()

    def _work(self) -> None:
        """Do what the socket can do at once."""
        try:
            self._flush()
            if not self._poller:
                self._worked = self.clock()
                self._read()
                self._flush()  # the pong
        except BaseException:
            # Out of memory, or interrupted: where the next frame begins is not known any more.
            self._finish("the client failed")
            raise

    def _flush(self) -> None:
        try:
            while self._unsent or self._begin_frame():
                size = self._transport.send(self._unsent)
                if not size:
                    return
                self._written += size
                self._unsent = self._unsent[size:]
                self.sent += not self._unsent
        except OSError as error:
            # The server's close frame may still be there to be read.
            while self._read():
                pass
            self._finish(str(error))

    def _begin_frame(self) -> bool:
        """Whether there is a frame to be sent, which then begins."""
        if not self._out:
            return False
        frame = self._out.popleft()
        if frame == PONG_DUE:
            frame = encode_frame(PONG, self._pongs.popleft(), masking_key=True)
        self._unsent = memoryview(frame)
        return True

    def _read(self) -> bool:
        """Read once; whether something came."""
        if not self._may_read():
            return False
        try:
            size = self._transport.receive(self._buffer)
        except OSError as error:
            self._finish(str(error))
            return False
        if size is None:
            return False
        if not size:
            self._finish("the server left in silence")
            return False
        self._received += size
        self.feed(self._buffer[:size])
        return True

    def _finish(self, reason: str) -> None:
        """Nothing moves any more; the thread that polls, if there is one, closes the socket."""
        if self.end is None:
            self.end = ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, reason)
        self.finished = True
        self._out.clear()
        self._unsent = memoryview(b"")
        if self._poller:
            self._transport.wake()
        else:
            self._transport.close()

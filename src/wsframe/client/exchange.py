"""Exchange: sending and receiving on one WebSocket, by any of the threads that use it."""

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
# The size of a read with compression, where one byte may inflate to a thousand. It must be at least
# the size of a TLS record, see Transport.receive.
COMPRESSED_READ_SIZE = 1 << 14
# The maximum timeout of one wait, in seconds. Operating systems limit such timeouts. A longer wait
# is a sequence of several waits.
LONGEST_WAIT = 3600.0
# The maximum time, in seconds, for which messages are taken from the inbox without using the
# socket.
LONGEST_NEGLECT = 1.0
# A placeholder in the queue for a pong; its payload is chosen when the frame is sent.
PONG_DUE = b""
MAX_PONGS = 64


class Exchange:
    """One WebSocket after its opening handshake. It has no background thread.

    The lock ``state`` protects all attributes. A thread that holds it may use the socket, but must
    not block. Of the threads that must wait, one releases the lock and polls the socket for all.
    The others wait on ``state``, and are notified when the poll ends: their condition may hold
    then, or one of them polls next. While a thread polls, no other thread reads, because that would
    consume the input that the poll waits for.

    Call every method with ``state`` held.

    Attributes:
        state: the lock, a condition.
        codec: the codec of the connection.
        inbox: the received messages that no thread has taken.
        end: the close code and reason of the connection; set once, when they are known.
        finished: True once nothing can be received or sent; the socket is closed.
        sent: the number of pushed frames that were sent.
        stalled: the reason why the connection was aborted for lack of acknowledgements, or "".
        clock: a function that returns the time in seconds, which never decreases.
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
        self.state: threading.Condition = threading.Condition()
        self.codec = codec
        self.inbox: deque[str | bytes] = deque()
        self.end: ConnectionClosed | None = None
        self.finished: bool = False
        self.sent: int = 0
        self.stalled: str = ""
        self.clock = clock
        self._liveness = Liveness(
            clock,
            send_timeout=send_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        self._close_timeout: float | None = None  # set while closing
        self._written = 0  # the number of bytes passed to the system
        self._received = 0  # bytes
        self._transport = transport
        self._max_queue = max_queue
        self._inbox_size = 0
        self._buffer = memoryview(
            bytearray(READ_SIZE if codec.deflate is None else COMPRESSED_READ_SIZE)
        )
        self._out: deque[bytes] = deque()
        self._unsent = memoryview(b"")  # the rest of the frame that is being sent
        self._pushed = 0
        self._pongs: deque[bytes] = deque(maxlen=MAX_PONGS)  # the payloads of the pongs to send
        self._pings: dict[bytes, None] = {}  # the payloads of unanswered pings, in order
        self._close_frame: tuple[int, str]  # the code and reason to send
        self._worked = 0.0  # the time of the last use of the socket, on the clock
        self._poller: int | None = None  # the identifier of the thread that polls
        self._polled_for = 0

    def push(self, frame: bytes) -> int:
        """Queue a frame, and send it now if the socket accepts it.

        Returns:
            A ticket: the frame has been sent once ``sent >= ticket``.
        """
        first = self.sent == self._pushed
        self._append(frame)
        ticket = self._pushed
        # While another thread polls for the queued frames, only that thread may send them.
        if first or not self._poller:
            self._work()
        self._update_poll()
        return ticket

    def push_ping(self, payload: bytes) -> None:
        """Queue a ping, whose answer :meth:`answered` reports."""
        self._pings[payload] = None
        self.push(self.codec.ping(payload))

    def answered(self, payload: bytes) -> bool:
        """Return True if this ping or a later one was answered."""
        return payload not in self._pings

    def forget(self, payload: bytes) -> None:
        """Remove an unanswered ping of :meth:`push_ping`."""
        self._pings.pop(payload, None)

    def take(self) -> str | bytes:
        """Remove and return the first message of the inbox."""
        message = self.inbox.popleft()
        self._inbox_size -= getsizeof(message)
        self._update_poll()
        # Pings must be answered even if the messages of one read are taken slowly.
        if not self._poller and self.clock() - self._worked > LONGEST_NEGLECT:
            self._work()
        return message

    def wait(self, done: Callable[[], object], deadline: Callable[[], float]) -> None:
        """Wait until a condition holds, and send and receive meanwhile.

        Args:
            done: a function that returns true once the condition holds; it must return true if
                ``finished`` is.
            deadline: a function that returns the time to stop waiting, on ``clock``.
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
                if not remaining > 0:  # not "remaining <= 0", which is false for a timeout of NaN
                    return
        finally:
            liveness.end()

    def wait_until_sent(self, ticket: int) -> None:
        """Wait until a frame has been sent, or the connection has ended.

        Args:
            ticket: the result of :meth:`push`.
        """
        self._liveness.look_soon()  # starts the deadline of send_timeout
        self.wait(lambda: self.sent >= ticket or self.finished, lambda: inf)

    def finish_closing(self, timeout: float) -> None:
        """Complete the closing handshake once ``end`` is set, and close the socket.

        The server should close the TCP connection first (RFC 6455 section 7.1.1).

        Args:
            timeout: the longest time without an acknowledgement from the server, in seconds.
        """
        if not (self.finished or self.codec.close_sent):
            self.push(self.codec.close(*self._close_frame))
        self._close_timeout = timeout
        leave_by = self._liveness.deadline_after(timeout)
        self.wait(lambda: self.finished, leave_by)
        self.abort("the server did not close the connection in time (close_timeout)")

    def _look(self, now: float) -> None:
        """Check the server's acknowledgements and pongs, and send a ping if it is due.

        Args:
            now: the time of :class:`Liveness`.
        """
        liveness, more = self._liveness, self.sent < self._pushed
        held = self._transport.unacknowledged()
        liveness.look(now, self._written, held, more=more, timeout=self._close_timeout)
        if self._close_timeout is not None:
            return
        if now >= liveness.stalls_at:
            timeout = liveness.send_timeout
            self.stalled = f"the server acknowledged no data for {timeout} seconds (send_timeout)"
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
            reason: the close reason, unless ``end`` is already set.
        """
        self._finish(reason)
        # If a signal handler has interrupted this thread's own poll, that poll closes the socket
        # later.
        while self._poller not in (None, threading.get_ident()):
            self.state.wait()

    def end_with(self, code: int, reason: str, reply: str) -> None:
        """Set ``end``, and the close frame to send; only the first call has an effect.

        Args:
            code: the close code of ``end`` and of the close frame.
            reason: the close reason of ``end``.
            reply: the close reason of the close frame.
        """
        if self.end is None:
            self.end = ConnectionClosed(code, reason)
            self._close_frame = code, reply

    def feed(self, data: bytes | memoryview) -> None:
        """Decode received bytes, and process the events."""
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
        """Queue a pong; of too many pings only the last are answered (RFC 6455 section 5.5.3)."""
        if self.codec.close_sent:
            return
        if len(self._pongs) < MAX_PONGS:
            self._append(PONG_DUE)
        self._pongs.append(payload)

    def _answer(self, payload: bytes) -> None:
        """Process a pong, which also answers all earlier pings (RFC 6455 section 5.5.3)."""
        while payload in self._pings:
            del self._pings[next(iter(self._pings))]

    # The socket --------------------------------------------------------------------------------

    def _poll(self, timeout: float) -> None:
        """Wait for the socket without holding ``state``, then send and receive."""
        self._poller, self._polled_for = threading.get_ident(), self._wanted()
        try:
            self.state.release()
            ready = self._transport.poll(self._polled_for, timeout)
        finally:
            # This line comes first, so that after an exception no thread waits for a finished poll.
            self._poller = None
            self.state.acquire()
            self.state.notify_all()
            if self.finished and not self._poller:
                self._transport.close()
        if ready:
            self._work()

    def _wanted(self) -> int:
        """Return the events to poll for."""
        wanted = self._transport.receives_on if self._may_read() else 0
        return wanted | (self._transport.sends_on if self.sent < self._pushed else 0)

    def _may_read(self) -> bool:
        """Return True if the inbox has room, or if messages are discarded after the end."""
        return not self.finished and (self.end is not None or self._inbox_size < self._max_queue)

    def _update_poll(self) -> None:
        """Wake the thread that polls if it must poll for other events."""
        if self._poller and self._polled_for != self._wanted():
            self._transport.wake()

    def _work(self) -> None:
        """Send and receive as much as possible without blocking."""
        try:
            self._flush()
            if not self._poller:
                self._worked = self.clock()
                self._read()
                self._flush()  # sends the pong
        except BaseException:
            # After a MemoryError or an interruption, the beginning of the next frame is unknown.
            self._finish("an exception interrupted reading or writing")
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
            # The server's close frame may still be readable.
            while self._read():
                pass
            self._finish(str(error))

    def _begin_frame(self) -> bool:
        """Begin to send the next queued frame; return False if the queue is empty."""
        if not self._out:
            return False
        frame = self._out.popleft()
        if frame == PONG_DUE:
            frame = encode_frame(PONG, self._pongs.popleft(), masking_key=True)
        self._unsent = memoryview(frame)
        return True

    def _read(self) -> bool:
        """Read once; return True if bytes were received."""
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
            self._finish("the server closed the connection without a close frame")
            return False
        self._received += size
        self.feed(self._buffer[:size])
        return True

    def _finish(self, reason: str) -> None:
        """Finish the connection; if a thread polls, that thread closes the socket."""
        if self.end is None:
            self.end = ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, reason)
        self.finished = True
        self._out.clear()
        self._unsent = memoryview(b"")
        if self._poller:
            self._transport.wake()
        else:
            self._transport.close()

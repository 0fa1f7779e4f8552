"""The sending side: replies in one write, the closing handshake, and the end of the socket."""

from __future__ import annotations

import asyncio

from wsframe import Close, Connection, Failure

from .keepalive import Keepalive
from .states import ANSWERING, CLOSING, CONNECTING, LOST, State
from .timing import Timing

# The maximum number of bytes of replies that are collected for one write.
MAX_REPLIES = 64 * 1024


class Sending(Keepalive):
    """The sending side of one connection.

    Args:
        loop: the event loop.
        ping_interval: see :class:`Keepalive`.
        ping_timeout: see :class:`Keepalive`.

    Attributes:
        timing: the durations.
        transport: the connection.
        close_timeout: the seconds that the client has to answer a close frame.
        close_timer: the timer of this limit; None while no answer is awaited.
    """

    __slots__ = (
        "_abort_timer",
        "_codec",
        "_discarded",
        "_last_from_client",
        "_late_pong",
        "_replies",
        "_replies_size",
        "_state",
        "_writable",
        "_write_paused",
        "close_timeout",
        "close_timer",
        "transport",
    )

    timing: Timing = Timing()
    transport: asyncio.Transport

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ping_interval: float | None,
        ping_timeout: float | None,
    ) -> None:
        super().__init__(loop, ping_interval, ping_timeout)
        self.close_timeout: float = self.timing.close_timeout
        self.close_timer: asyncio.TimerHandle | None = None
        self._state: State = CONNECTING
        self._codec: Connection | None = None  # None until the 101 is sent
        self._last_from_client: Close | Failure | None = None
        self._discarded = False  # True if data was discarded since the last check
        self._replies: list[bytes] = []  # the replies that are collected for one write
        self._replies_size = 0
        # The payload of the newest unanswered ping, while the client reads slowly.
        self._late_pong: bytes | None = None
        self._write_paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._abort_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Make the application's sends wait, because the client reads slowly."""
        self._write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let the application's sends continue."""
        self._write_paused = False
        self._writable.set()
        if self._late_pong is not None:
            pong, self._late_pong = self._late_pong, None
            self._answer_pings([pong])

    def _reply(self, frame: bytes, *, last: bool) -> None:
        """Send a message, together with other replies if possible.

        Args:
            frame: the reply.
            last: False if another message is ready for the application.
        """
        if not self._replies:
            # The application may wait before it takes the next message.
            self.loop.call_soon(self._flush)
        self._replies.append(frame)
        self._replies_size += len(frame)
        if last or self._replies_size > MAX_REPLIES:
            self._flush()

    def _flush(self) -> None:
        """Send the replies, if there are any."""
        if self._replies:
            data = b"".join(self._replies)
            self._replies.clear()
            self._replies_size = 0
            self.transport.write(data)

    def _answer_pings(self, payloads: list[bytes]) -> None:
        """Send pongs, or delay the newest if the client reads slowly (RFC 6455 section 5.5.3)."""
        assert self._codec is not None
        if self._write_paused:
            self._late_pong = payloads[-1]
        elif not self._codec.close_sent:
            self.transport.write(b"".join(map(self._codec.pong, payloads)))

    def _send_ping(self, payload: bytes) -> None:
        """Send a ping."""
        assert self._codec is not None
        self.transport.write(self._codec.ping(payload))

    # The closing handshake --------------------------------------------------------------------

    def _send_close(self, code: int, reason: str) -> None:
        """Send a close frame after all replies, and nothing after it.

        Raises:
            ValueError: the code must not be sent, or the reason is too long.
        """
        assert self._codec is not None
        self._replies.append(self._codec.close(code, reason))
        self._flush()
        self._state = CLOSING
        self._stop_keepalive()

    def _reply_to_close(self) -> None:
        """Answer the client's close frame, or its violation of the protocol."""
        last = self._last_from_client
        assert last is not None
        if isinstance(last, Close):
            self._send_close(last.code, "")
            self._end_transport()
        else:
            self._send_close(last.code, last.reason)
            self._discarded = True
            self._linger(self.loop.time() + self.close_timeout)

    def _await_close(self, timeout: float) -> None:
        """End the connection when the client answers the close frame, or after a time-out."""
        self._cancel_close_timer()
        self.close_timer = self.loop.call_later(timeout, self._close_overdue)

    def _close_overdue(self) -> None:
        self.close_timer = None
        if self._state is ANSWERING:
            self._reply_to_close()
        else:
            self._end_transport()

    def _linger(self, until: float) -> None:
        """After an error, discard received data until the client is silent, or until a deadline.

        Unread data would make the system reset the connection, and the client might not receive
        the close frame.
        """
        self.close_timer = None
        if self._discarded and self.loop.time() < until:
            self._discarded = False
            self.close_timer = self.loop.call_later(self.timing.linger, self._linger, until)
        else:
            self._end_transport()

    def _cancel_close_timer(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = None

    # The end ----------------------------------------------------------------------------------

    def _end_transport(self) -> None:
        """Close the socket; abort it if the client does not receive the last bytes in time."""
        self._cancel_close_timer()
        if self._abort_timer is None:
            self._state = CLOSING
            self.transport.close()
            self._abort_timer = self.loop.call_later(self.timing.flush_timeout, self._abort)

    def _abort(self) -> None:
        self.transport.abort()

    def _lost(self) -> None:
        """Release everything, because the socket is closed."""
        self._state = LOST
        self._stop_keepalive()
        self._cancel_close_timer()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._replies.clear()
        self._writable.set()  # nothing calls resume_writing any more

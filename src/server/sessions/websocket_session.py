"""The server's side of a WebSocket: frames, the closing handshake, and the checks of the client."""

from __future__ import annotations

from abc import abstractmethod
from random import random
from typing import TYPE_CHECKING, Any

from wsframe import (
    Close,
    CloseCode,
    Connection,
    ConnectionClosed,
    Failure,
    Ping,
    Pong,
    StateError,
)

from ..handoff.blocking import BlockingProfile
from ..handoff.task import BUSY, IDLE, WAITING, Task
from ..http.request import shorten
from ..reports.loggers import log
from ..sockets.peer import Peer
from ..topics.failures import log_failure
from .closing import ClosingState
from .liveness import Liveness, check_interval
from .subscriber import Subscriber

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..handoff.threads import WorkerThread
    from ..http.request import Request
    from ..topics.registry import Topics

# The size of a read with compression. It is small, because a byte may expand to a thousand bytes.
COMPRESSED_READ_SIZE = 4 * 1024
# The size of waiting messages, in bytes, from which the client is not read.
INBOX_SIZE = 256 * 1024

MESSAGES = frozenset((str, bytes))

OPEN, CLIENT_CLOSING, CLOSING, CLOSED = ClosingState


class WebSocketSession(Subscriber):
    """The server's side of one WebSocket; one subclass for each kind of handler.

    docs/design.md has the table of the transitions between the states.

    Attributes:
        closing: the state of the closing handshake; only the owner changes it.
        over: the close code and reason, set once, by the first thread that ends the connection.
            From then on, no message is sent.
        close_requested: True once the application has called close. After that, the handler
            receives no messages.
        request: the request that opened the connection.
    """

    __slots__ = (
        "_client_end",
        "_liveness",
        "_paused",
        "close_requested",
        "closing",
        "codec",
        "request",
    )

    over: ConnectionClosed | None
    work: list[Any] | None

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        topics: Topics,
        codec: Connection,
        request: Request,
    ) -> None:
        super().__init__(peer, profile, topics)
        peer.read_size = 0 if codec.deflate is None else COMPRESSED_READ_SIZE
        self.codec: Connection = codec
        self.over = None
        self.close_requested: bool = False
        self.closing: ClosingState = OPEN
        self._client_end: ConnectionClosed | None = None  # set in the state CLIENT_CLOSING
        self._liveness = Liveness(peer.loop.checked_at)
        # True if the handler's inbox is full, so that nothing is received from the client.
        self._paused = False
        self._update_limit()
        self.request: Request = request

    # Loop owner -------------------------------------------------------------------------------

    def _enter(self, state: ClosingState) -> None:
        """Loop owner: change the state of the closing handshake to a later one."""
        assert state > self.closing
        self.closing = state

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.request.path

    def shorten_request(self) -> None:
        """The turn's thread, or the owner: discard a long request head, as the handler waits."""
        shorten(self.request, self.peer.clients.settings.max_kept_head)

    @abstractmethod
    def deliver(self, messages: list[str | bytes]) -> Task | None:
        """Loop owner: deliver messages to the handler, after messages that already wait.

        The connection is not over, so the handler has not ended.

        Returns:
            The task whose turn is due and not yet scheduled, or None.
        """

    @abstractmethod
    def add_end(self, end: ConnectionClosed) -> Task | None:
        """Loop owner: deliver the connection's end to the handler, once, after all messages.

        Returns:
            The task whose turn is due and not yet scheduled, or None.
        """

    def deliver_end(self, end: ConnectionClosed) -> None:
        """Loop owner: deliver the connection's end to the handler, and schedule the due turn."""
        due = self.add_end(end)
        if due is not None:
            due.schedule()

    def messages_received(
        self, messages: list[str | bytes], rest: memoryview | None
    ) -> Task | None:
        """Loop owner: deliver messages that the loop has decoded, and decode the rest."""
        if rest is not None:
            return self._process([*messages, *self._decode(rest)])
        if self.over is not None:
            return None
        if self.state is IDLE:  # the common case avoids a further call
            self.work = messages
            return self
        return self.deliver(messages)

    def data_received(self, data: memoryview) -> Task | None:
        """Loop owner: decode the data, and deliver the completed messages."""
        return self._process(self._decode(data))

    def _decode(self, data: memoryview) -> list[Any]:
        """Loop owner: decode the data; return the events, and count the messages among them."""
        codec, peer = self.codec, self.peer
        events: list[Any] = codec.receive(data)
        self._update_limit()
        if codec.only_messages:
            peer.messages_in += len(events)
        else:
            peer.messages_in += sum(type(event) in MESSAGES for event in events)
        return events

    def _update_limit(self) -> None:
        """Loop owner: let the loop decode the next data if it begins with a frame."""
        codec, peer = self.codec, self.peer
        decodable = peer.fd >= 0 and codec.deflate is None and codec.between_messages
        peer.limit = codec.max_message_size if decodable else -1

    def _process(self, events: list[Any]) -> Task | None:
        """Loop owner: deliver the messages, and process the other events.

        Returns:
            The task whose turn is due because of the events, if any.
        """
        if not events:
            return None
        if self.codec.only_messages:
            return self.deliver(events) if self.over is None else None
        kinds = set(map(type, events))
        if Ping in kinds:
            self._answer_pings(events)
        if Pong in kinds:
            self._liveness.answered(self.peer.loop.clock(), self.peer)
        if not MESSAGES.isdisjoint(kinds) and self.over is None:
            messages = [event for event in events if type(event) in MESSAGES]
            if self.deliver(messages) is not None:
                self.schedule()
        end = events[-1]
        if isinstance(end, Failure):
            log.info("protocol error by %s: %s (%d)", self.peer.address, end.reason, end.code)
        if isinstance(end, Close | Failure):
            return self._client_closes(ConnectionClosed(end.code, end.reason))
        return None

    def disconnected(self) -> None:
        """Loop owner: end the session, because the socket has ended."""
        self._enter(CLOSED)
        if self.over is None:
            self.over = self._client_end or ConnectionClosed(
                CloseCode.ABNORMAL_CLOSURE, "the connection was lost without a close frame"
            )
        self.peer.record.end = self.over
        self.leave_topics()
        self.deliver_end(self.over)
        if self.state is BUSY:
            self.peer.loop.overdue.watch(self)

    def after_fork(self) -> None:
        """The child of a fork: end the connection for a handler that continues in the child."""
        self.over = self.over or ConnectionClosed(
            CloseCode.ABNORMAL_CLOSURE, "the connection belongs to the parent process"
        )

    def deadline_passed(self) -> None:
        """Loop owner: check an open connection, or end a closing handshake that takes too long."""
        if self.closing is OPEN:
            self._check()
        elif self.closing is CLOSING:
            self.peer.abort()
        elif not self._accepts_answers():
            assert self._client_end is not None
            self.over = self.over or self._client_end
            self.answer_client()
            self.deliver_end(self.over)

    def hold(self) -> None:
        """Loop owner: stop reading the client, because the handler waits for a thread."""
        if not self._paused:
            self.peer.pause_reading(until_hangup=True)

    def release(self) -> None:
        """Loop owner: resume reading the client, because the handler has a thread."""
        if not self._paused:
            self.peer.resume_reading()

    def start(self, worker: WorkerThread | None = None) -> None:
        """Loop owner, once: start the handler, and the periodic checks of the client."""
        super().start(worker)
        # The first check has a random delay, so that clients are not all pinged at the same time.
        self.peer.due_in(random() * check_interval(self.peer.clients.settings))

    def shut_down(self) -> None:
        """Loop owner: close, because the server stops."""
        self.close(CloseCode.GOING_AWAY, "the server is shutting down")

    def close_for_good(self, code: int, reason: str) -> None:
        """Loop owner: close, because the application has closed the identity of the connection."""
        self.request_close(code, reason)

    def expire(self) -> None:
        """Loop owner: close, because the connection has reached its maximum age."""
        age = self.peer.clients.settings.max_connection_age
        self.close(CloseCode.GOING_AWAY, f"open for about {age:g} s (max_connection_age)")

    def close(self, code: int, reason: str) -> None:
        """Loop owner: send the close frame, if it was not sent, and wait for the client's."""
        self.over = self.over or ConnectionClosed(code, reason)
        self.leave_topics()  # sends the last events, and may find that the socket is lost
        if self.closing is CLIENT_CLOSING:
            self.answer_client()
        elif self.closing is OPEN:
            self._enter(CLOSING)
            self.peer.close_send(self.codec.close(code, reason))
            self.peer.due_in(self.peer.clients.settings.close_timeout)
            self.peer.resume_reading()  # the client's close frame follows the unread data
            self.peer.flush()
        self.deliver_end(self.over)

    def handler_ended(self, error: BaseException | None) -> None:
        """Loop owner: close the connection, because the handler has returned or raised an error."""
        # A ConnectionClosed of another connection is logged like any error.
        ended = _is_end(error) and self.over is not None
        failed = error is not None and not ended
        if error is not None and failed and _is_end(error):
            # The error is logged here, because only the owner can check if this connection has
            # ended.
            self._log_failure(error)
        if self.over is not None:
            return  # an earlier close takes precedence
        if failed:
            self.close(CloseCode.INTERNAL_ERROR, "the handler failed")
        else:
            self.close(CloseCode.NORMAL_CLOSURE, "")

    def handler_raised(self, error: BaseException) -> None:
        """The turn's thread: log an error of the handler, except ConnectionClosed.

        The text of an exception comes from code of the application, which may block the thread.
        """
        if not _is_end(error):
            self._log_failure(error)

    def _log_failure(self, error: BaseException) -> None:
        """Any thread: log an error of the handler."""
        log_failure(error, "the handler of %s failed", self.path)

    def answer_client(self) -> None:
        """Loop owner: answer the client's close frame or error, and close (RFC 6455, 7.1.1)."""
        if self.closing is CLIENT_CLOSING:
            self.leave_topics()  # sends the last events, and may find that the socket is lost
        if self.closing is CLIENT_CLOSING and self._client_end is not None:
            self._enter(CLOSING)
            # The reply to a close frame repeats only its code (RFC 6455 section 5.5.1).
            reason = "" if self.codec.close_received else self._client_end.reason
            self.peer.finish(self.codec.close(self._client_end.code, reason))

    def too_slow(self, topic: str) -> None:
        """Loop owner: close the connection of a client that is too slow for a topic."""
        log.warning("closing %s: the client is too slow for topic %r", self.peer.address, topic)
        self.peer.clients.totals.slow_clients += 1
        self.close(CloseCode.TRY_AGAIN_LATER, "too slow for its topic")

    @property
    def _unread(self) -> bool:
        """Loop owner: True while the server does not read, so that silence is no fault."""
        return self._paused or self.state is WAITING

    def _check(self) -> None:
        """Loop owner: check the client, and close the connection if it is dead or too slow."""
        peer = self.peer
        peer.check_progress(peer.loop.checked_at)
        unread = self._unread
        verdict = None if peer.closed else self._liveness.check(peer, self.codec, unread=unread)
        if verdict is not None:
            self._give_up(verdict.code, verdict.reason)
        elif not peer.closed:
            interval = check_interval(peer.clients.settings)
            peer.deadline = min(peer.loop.instant(interval), self._liveness.pong_due)

    def _give_up(self, code: int, reason: str) -> None:
        """Loop owner: close the connection of a client that is dead or too slow."""
        log.info("closing %s: %s", self.peer.address, reason)
        self.close(code, reason)

    def _accepts_answers(self) -> bool:
        """Loop owner: True if a client that has sent its close frame still accepts answers."""
        now = self.peer.loop.clock()
        self.peer.check_progress(now)
        remaining = self.peer.waiting_since + self.peer.clients.settings.close_timeout - now
        if self.peer.closed or not self.peer.has_unsent or remaining <= 0:
            return False
        self.peer.due_in(remaining)
        return True

    def _client_closes(self, end: ConnectionClosed) -> Task | None:
        """Loop owner: process the client's close frame, or its protocol error.

        Returns:
            The task whose turn is due because of the event, if any.
        """
        # An answer to an earlier event may have found that the socket is lost.
        if self.closing >= CLOSING:
            self.peer.finish()
            return None
        self._enter(CLIENT_CLOSING)
        self._client_end = end
        # The time limit in which the handler may answer the messages before the close frame.
        self.peer.due_in(self.peer.clients.settings.close_timeout)
        return self.add_end(end)

    def _answer_pings(self, events: list[Any]) -> None:
        if self.closing < CLOSING:
            pings = [event for event in events if isinstance(event, Ping)]
            self.peer.send_control(*(self.codec.pong(ping.payload) for ping in pings))

    # Any thread -------------------------------------------------------------------------------

    def over_error(self) -> ConnectionClosed:
        """Any thread: return the error for a handler that uses an ended connection."""
        assert self.over is not None
        return ConnectionClosed(self.over.code, self.over.reason)

    def ping(self, payload: Buffer) -> None:
        """Any thread: queue a ping."""
        if self.over is not None:
            raise self.over_error()
        try:
            frame = self.codec.ping(payload)
        except StateError:
            raise self.over_error() from None
        self.peer.send(frame)

    def request_close(self, code: int, reason: str) -> None:
        """Any thread: make the owner close the connection after the messages sent before."""
        if self.over is None:
            self.over = ConnectionClosed(code, reason)
            self.close_requested = self.peer.stop_turn = True
            self.peer.loop.call_soon(lambda: self.close(code, reason))

    def next_message(self, timeout: float | None) -> str | bytes:
        """The handler's thread: wait for a message."""
        raise RuntimeError("a generator handler must receive with yield, and not with receive()")


def _is_end(error: BaseException | None) -> bool:
    """Return True for a ConnectionClosed.

    ``isinstance`` would run ``__getattribute__`` of the exception, which may raise.
    """
    return issubclass(type(error), ConnectionClosed)

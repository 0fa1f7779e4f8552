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
from .closing import ClosingState
from .liveness import Liveness, check_interval
from .subscriber import Subscriber

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..handoff.threads import WorkerThread
    from ..http.request import Request
    from ..topics.registry import Topics

# One byte of compressed messages may become a thousand, so little is read at once.
COMPRESSED_READ_SIZE = 4 * 1024
# Bytes of messages that wait for a handler before the client is not read any more.
INBOX_SIZE = 256 * 1024

MESSAGES = frozenset((str, bytes))

OPEN, CLIENT_CLOSING, CLOSING, CLOSED = ClosingState


class WebSocketSession(Subscriber):
    """The server's side of one WebSocket; one subclass for each kind of handler.

    docs/design.md has the table of the transitions between the states.

    Attributes:
        closing: the state of the closing handshake; only the owner changes it.
        over: the close code and reason, set once, by the first thread that ends the connection;
            nothing is sent after it.
        close_requested: the application has called close; its handler receives no more messages.
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
        self.codec = codec
        self.over = None
        self.close_requested = False
        self.closing = OPEN
        self._client_end: ConnectionClosed | None = None  # set in the state CLIENT_CLOSING
        self._liveness = Liveness(peer.loop.checked_at)
        self._paused = False  # the client is not read, because the handler has a full inbox
        self.request = request

    # Owner ------------------------------------------------------------------------------------

    def _enter(self, state: ClosingState) -> None:
        """Owner: change the state of the closing handshake, which never goes back."""
        assert state > self.closing
        self.closing = state

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.request.path

    def shorten_request(self) -> None:
        """Whoever runs the handler: it waits; a long head is not kept any more."""
        shorten(self.request, self.peer.clients.settings.max_kept_head)

    @abstractmethod
    def deliver(self, messages: list[str | bytes]) -> Task | None:
        """Owner: hand messages to the handler, after those that wait for it.

        Returns whose turn it is, if it is due and has not been asked for.
        """

    @abstractmethod
    def deliver_end(self, end: ConnectionClosed) -> None:
        """Owner: tell the handler, after that, that nothing more comes; the first time counts."""

    def data_received(self, data: memoryview) -> Task | None:
        """Owner: decode, and hand on what was completed."""
        events: list[Any] = self.codec.receive(data)
        if not events:
            return None
        if not self.codec.only_messages:
            self._act_on(events)
            return None
        self.peer.messages_in += len(events)
        if self.over is None:
            if self.state is IDLE:  # deliver in line, where nothing is in its way
                self.work = events
                return self
            self.deliver(events)
        return None

    def _act_on(self, events: list[Any]) -> None:
        """Owner: hand on the messages, and act on what else there is among them."""
        messages = [event for event in events if type(event) in MESSAGES]
        self.peer.messages_in += len(messages)
        self._answer_pings(events)
        if any(isinstance(event, Pong) for event in events):
            self._liveness.answered(self.peer.loop.clock(), self.peer)
        if messages and self.over is None and self.deliver(messages) is not None:
            self.schedule()
        match events[-1]:
            case Close(code, reason):
                self._client_closes(ConnectionClosed(code, reason))
            case Failure(code, reason):
                log.info("%s broke a rule: %s (%d)", self.peer.address, reason, code)
                self._client_closes(ConnectionClosed(code, reason))

    def disconnected(self) -> None:
        """Owner: the socket has ended, with a closing handshake or without."""
        self._enter(CLOSED)
        if self.over is None:
            self.over = self._client_end or ConnectionClosed(
                CloseCode.ABNORMAL_CLOSURE, "the client left in silence"
            )
        self.peer.record.end = self.over
        self.leave_topics()
        self.deliver_end(self.over)
        if self.state is BUSY:
            self.peer.loop.overdue.watch(self)

    def after_fork(self) -> None:
        """The child of a fork: for a handler that runs on here, the connection is over."""
        self.over = self.over or ConnectionClosed(
            CloseCode.ABNORMAL_CLOSURE, "the connection is the parent process's"
        )

    def deadline_passed(self) -> None:
        """Owner: check an open connection, or end one whose closing takes too long."""
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
        """Owner: the handler waits for a thread, and the client is not read until it has one."""
        if not self._paused:
            self.peer.pause_reading(until_hangup=True)

    def release(self) -> None:
        """Owner: the handler has got a thread."""
        if not self._paused:
            self.peer.resume_reading()

    def start(self, worker: WorkerThread | None = None) -> None:
        """Owner, once: run the handler, and look after the client from here on."""
        super().start(worker)
        # Clients that connect at the same time are not all checked, and pinged, at the same time.
        self.peer.due_in(random() * check_interval(self.peer.clients.settings))

    def shut_down(self) -> None:
        """Owner: the server stops."""
        self.close(CloseCode.GOING_AWAY, "the server stops")

    def close(self, code: int, reason: str) -> None:
        """Owner: send our close frame, unless one was sent, and wait for the client's."""
        if self.closing >= CLOSING:
            return
        self.over = self.over or ConnectionClosed(code, reason)
        self.leave_topics()
        if self.closing is CLIENT_CLOSING:
            self.answer_client()
        else:
            self._enter(CLOSING)
            self.peer.close_send(self.codec.close(code, reason))
            self.peer.due_in(self.peer.clients.settings.close_timeout)
            self.peer.resume_reading()  # the client's close frame is behind what was not read
            self.peer.flush()
        self.deliver_end(self.over)

    def handler_ended(self, error: BaseException | None) -> None:
        """Owner: the handler returned, or raised this."""
        # The end of this connection, that is; another's is an error like any.
        ended = _is_end(error) and self.over is not None
        failed = error is not None and not ended
        if failed and _is_end(error):
            # Only the owner can tell it from the end of this one.
            log.error("the handler of %s failed", self.path, exc_info=error)
        if self.over is not None:
            return  # the close that was asked for first is on its way
        if failed:
            self.close(CloseCode.INTERNAL_ERROR, "the handler failed")
        else:
            self.close(CloseCode.NORMAL_CLOSURE, "")

    def handler_raised(self, error: BaseException) -> None:
        """Whichever thread has the turn: log what the handler raised, unless that is an end.

        The text of an exception is code of the application, which may block, so that it belongs
        into the turn.
        """
        if not _is_end(error):
            log.exception("the handler of %s failed", self.path)

    def answer_client(self) -> None:
        """Owner: answer the client's close frame or fault, and close (RFC 6455 section 7.1.1)."""
        if self.closing is CLIENT_CLOSING and self._client_end is not None:
            self.leave_topics()
            self._enter(CLOSING)
            # A close frame is answered with its code alone (section 5.5.1).
            reason = "" if self.codec.close_received else self._client_end.reason
            self.peer.finish(self.codec.close(self._client_end.code, reason))

    def too_slow(self, topic: str) -> None:
        """Owner: the client has not taken this topic's events in time, and may try again later."""
        log.warning("%s is too slow for the topic %r and is closed", self.peer.address, topic)
        self.peer.clients.totals.slow_clients += 1
        self.close(CloseCode.TRY_AGAIN_LATER, "too slow for its topic")

    @property
    def _unread(self) -> bool:
        """Owner: whether the client is not read, so that its silence means nothing."""
        return self._paused or self.state is WAITING

    def _check(self) -> None:
        """Owner: check that the client is alive; close if it is not, or if it is too slow."""
        peer = self.peer
        peer.check_progress(peer.loop.checked_at)
        if peer.closed:
            return
        verdict = self._liveness.check(peer, self.codec, unread=self._unread)
        if verdict is not None:
            self._give_up(verdict.code, verdict.reason)
        elif not peer.closed:
            interval = check_interval(peer.clients.settings)
            peer.deadline = min(peer.loop.instant(interval), self._liveness.pong_due)

    def _give_up(self, code: int, reason: str) -> None:
        """Owner: close because of what the client does not do."""
        log.info("%s is closed: %s", self.peer.address, reason)
        self.close(code, reason)

    def _accepts_answers(self) -> bool:
        """Owner: after the client's close frame, whether it still takes what was sent before."""
        now = self.peer.loop.clock()
        self.peer.check_progress(now)
        left = self.peer.waiting_since + self.peer.clients.settings.close_timeout - now
        if self.peer.closed or not self.peer.has_unsent or left <= 0:
            return False
        self.peer.due_in(left)
        return True

    def _client_closes(self, end: ConnectionClosed) -> None:
        """Owner: act on the client's close frame, or its fault."""
        if self.closing is CLOSING:
            self.peer.finish()
            return
        self._enter(CLIENT_CLOSING)
        self._client_end = end
        # What came before is answered first, within that time.
        self.peer.due_in(self.peer.clients.settings.close_timeout)
        self.deliver_end(end)

    def _answer_pings(self, events: list[Any]) -> None:
        pings = [event for event in events if isinstance(event, Ping)]
        if pings and self.closing < CLOSING:
            self.peer.send_control(*(self.codec.pong(ping.payload) for ping in pings))

    # Any thread -------------------------------------------------------------------------------

    def over_error(self) -> ConnectionClosed:
        """Any thread: what to raise at a handler that goes on after the end."""
        if self.over is None:
            return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE)
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
        """Any thread: have the owner close, after what was sent before."""
        if self.over is None:
            self.over = ConnectionClosed(code, reason)
            self.close_requested = self.peer.stop_turn = True
            self.peer.loop.call_soon(lambda: self.close(code, reason))

    def next_message(self, timeout: float | None) -> str | bytes:
        """The handler's own thread: wait for a message."""
        raise RuntimeError("a generator handler receives with yield")


def _is_end(error: BaseException | None) -> bool:
    """Whether a handler has raised ConnectionClosed.

    This asks the class alone: ``isinstance`` would run code of an exception that defines
    ``__getattribute__``, and that may raise.
    """
    return issubclass(type(error), ConnectionClosed)

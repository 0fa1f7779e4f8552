"""WebSocket: what a handler sees of its connection, and the server's side of it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from math import inf
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple

from wsframe import (
    Close,
    CloseCode,
    Connection,
    ConnectionClosed,
    Failure,
    Ping,
    Pong,
    StateError,
    encode_frame,
)
from wsframe.frames import BINARY, TEXT, check_close
from wsframe.progress import Keepalive, Life

from ..handoff.turns import BUSY, IDLE, WAITING, Habit, Turns
from ..reports.loggers import log
from ..sockets.peer import LARGE_FRAME, Peer, no_room
from ..topics.encodings import message_encoding
from .subscriber import Subscriber

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..handoff.threads import Worker
    from ..http.request import Request
    from ..topics.delivery import Subscription
    from ..topics.registry import Topics
    from ..topics.topic import Topic


# A byte of compressed messages may be a thousand when they are inflated, so few are read at once.
COMPRESSED_READ_SIZE = 4 * 1024

MESSAGES = frozenset((str, bytes))
# How many times a client is checked within the shortest of its limits.
CHECKS = 4
# How many bytes a second an unfinished message must gain, once message_timeout is used up.
SLOWEST_SENDER = 1024
# How much memory messages take that wait for a handler, before the client is not read.
INBOX_SIZE = 256 * 1024


class Unfinished(NamedTuple):
    """A message that was found incomplete.

    Attributes:
        seen: when it was found first, on the loop's clock.
        number: how many messages had been completed before it.
        bytes_in: how many bytes had been read then.
    """

    seen: float
    number: int
    bytes_in: int


class WebSocket:
    """One WebSocket connection, as its handler sees it.

    A plain function iterates over it, or calls :meth:`receive`, in a thread of its own. In a
    generator function the next message is what ``yield`` gives, and the end of the connection is
    :class:`ConnectionClosed` raised there.

    Attributes:
        request: the request that opened the connection.
        subprotocol: the one that was agreed on, or None.
    """

    __slots__ = ("_compresses", "_encoding", "_peer", "_session", "request", "subprotocol")

    def __init__(self, session: WebSocketSession, request: Request) -> None:
        self.request = request
        self.subprotocol = session.codec.subprotocol
        self._session = session
        self._peer = session.peer
        deflate = session.codec.deflate
        self._compresses = deflate is not None
        # Where compression keeps a context, frames go out in the order in which they were made.
        takeover = deflate is not None and not deflate.server_no_context_takeover
        self._encoding = threading.Lock() if takeover else None

    @property
    def close_code(self) -> int | None:
        """Any thread: how the connection ended or was asked to end; None while it is open."""
        return None if self._session.over is None else self._session.over.code

    def send(
        self,
        message: str | Buffer,
        *,
        compress: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Any thread: send a message, text for ``str``, binary for bytes-like objects.

        Frames of several threads never mix. The call returns when the message is queued. Without a
        ``timeout`` a thread other than the loop's then waits while more than 256 KiB are unsent, at
        the pace of the client.

        A thread that serves several clients one after the other sends with a ``timeout``, so that
        it does not wait for the slowest of them. It then waits *before* it queues the message, and
        not afterwards. A message is queued as a whole or not at all. What is the same for many
        clients is better published to a topic, which waits for none of them.

        Args:
            message: the whole of it.
            compress: as for :meth:`wsframe.Connection.encode`.
            timeout: for how many seconds to wait while more than 256 KiB are unsent; 0 does not
                wait. None waits without a limit, but not on the loop's thread: there, in a turn of
                another connection, a client with so much unsent is cut off. What a generator sends
                is unsent until its turn ends or loses the loop. So with 0 it can queue no more than
                256 KiB in one turn, however fast the client is.

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            TimeoutError: so much was still unsent at the end of the ``timeout``. The message has
                *not* been queued; the connection stays open, and the call may be repeated.
        """
        if self._session.over is not None:
            raise self._session.over_error()
        if timeout is not None:
            self._send_in_time(message, compress, timeout)
            return
        # Connection.encode and Peer.send in line: this runs for every message, and the calls were
        # measurable.
        peer = self._peer
        if self._compresses:
            frame = self._compress(message, compress)
        else:
            frame = encode_frame(TEXT if isinstance(message, str) else BINARY, message)
            peer.out.append(frame)
        if not peer.in_turn or len(frame) > LARGE_FRAME:
            peer.kick(len(frame))

    def _send_in_time(self, message: str | Buffer, compress: bool | None, timeout: float) -> None:
        """Any thread: queue a message as soon as there is room for it."""
        peer = self._peer
        if not peer.wait_for_room(timeout):
            raise no_room(timeout)
        if self._session.over is not None:
            raise self._session.over_error()
        if self._compresses:
            frame = self._compress(message, compress)
        else:
            frame = encode_frame(TEXT if isinstance(message, str) else BINARY, message)
            peer.out.append(frame)
        peer.kick(len(frame), wait=False)

    def _compress(self, message: str | Buffer, compress: bool | None) -> bytes:
        """Any thread: queue the frame of a message where compression was agreed on."""
        try:
            with self._encoding or nullcontext():
                frame = self._session.codec.encode(message, compress=compress)
                self._peer.out.append(frame)
        except StateError:
            raise self._session.over_error() from None
        return frame

    def subscribe(
        self,
        topic: str | Topic,
        *,
        after: str | None = None,
        otherwise: str | None = None,
        envelope: bool = False,
        member: str | None = None,
    ) -> Subscription:
        """Any thread: have what is published to a topic sent, until the subscription is closed.

        It is sent beside what the handler sends, in the topic's order. A client that is too slow
        meets the topic's policy; :meth:`wsframe.server.App.topic` says which there are.

        Args:
            topic: its name, or itself; a name has at most 1,024 bytes.
            after: None begins now; an id begins with what came after that event, or says that some
                of it is gone; "" begins with all that is remembered.
            otherwise: where to begin if the topic does not know that id: None for now, "" for all
                that is remembered. There is a gap then, too. Anybody can make up an id.
            envelope: send not just the data, but a JSON object with ``topic``, ``id``, ``event``
                and ``data``, so that the client knows after what to subscribe when it comes back.
                Binary data is in base64, and ``binary`` is true. An object without data is a
                notice: of the "open" subscription, with the id to go on from while nothing has
                come; or of a "gap", with that id, and the ``oldest`` id that is left.
            member: who subscribes, for :meth:`Topic.members`.

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            StateError: it has as many subscriptions as it may (``max_subscriptions``).
            ValueError: the name is too long, or UTF-8 has no form for it.
        """
        if self._session.over is not None:
            raise self._session.over_error()
        encoding = message_encoding(self._session.codec.deflate, envelope)
        return self._session.subscribe(topic, encoding, after, otherwise, member)

    def ping(self, payload: Buffer = b"") -> None:
        """Any thread: send a ping, which the client answers by itself.

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            ValueError: the payload has more than 125 bytes.
        """
        self._session.ping(payload)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Any thread: close, after what was sent before; closing twice does nothing.

        Raises:
            ValueError: the code may not be sent, or the reason has more than 123 bytes of UTF-8.
        """
        check_close(code, reason)  # here, where the caller can catch it, and not on the loop
        self._session.request_close(code, reason)

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The handler's own thread: wait for the next message.

        Args:
            timeout: how long, in seconds; None for as long as it takes.

        Raises:
            ConnectionClosed: the connection is over, and every message was received.
            TimeoutError: no message came in time.
            RuntimeError: the handler is a generator, in which ``yield`` is what waits.
        """
        return self._session.next_message(timeout)

    def __iter__(self) -> Iterator[str | bytes]:
        """The handler's own thread: iterate over the messages until the connection is over."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message


class WebSocketSession(Subscriber):
    """The server's side of one WebSocket; one subclass for each way to run a handler.

    Attributes:
        over: set once, when the connection has ended or is asked to; nothing is sent after it.
        request: the one that opened it.
        closing: somebody has called close, and has no use for messages any more.
    """

    __slots__ = (
        "_client_end",
        "_keepalive",
        "_paused",
        "_reply",
        "_unfinished",
        "closing",
        "codec",
        "request",
    )

    over: ConnectionClosed | None

    def __init__(
        self, peer: Peer, habit: Habit, topics: Topics, codec: Connection, request: Request
    ) -> None:
        super().__init__(peer, habit, topics)
        peer.read_size = 0 if codec.deflate is None else COMPRESSED_READ_SIZE
        self.codec = codec
        self.over = None
        self.closing = False
        self._reply: tuple[int, str] | None = None  # owed to the client's close frame or fault
        self._client_end: ConnectionClosed | None = None  # by that frame or fault
        self._keepalive = Keepalive(peer.loop.checked_at)
        self._unfinished: Unfinished | None = None
        self._paused = False  # the client is not read, for too much waits for the handler
        self.request = request

    # Owner ------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.request.path

    def shorten_request(self) -> None:
        """Whoever runs the handler: it waits; a long head is not kept any more."""
        self.request.shorten(self.peer.clients.settings.max_kept_head)

    @abstractmethod
    def deliver(self, messages: list[str | bytes]) -> Turns | None:
        """Owner: hand messages to the handler, after those that wait for it.

        Returns whose turn it is, if it is due and has not been asked for.
        """

    @abstractmethod
    def deliver_end(self, end: ConnectionClosed) -> None:
        """Owner: tell the handler, after that, that nothing more comes; the first time counts."""

    def data_received(self, data: memoryview) -> Turns | None:
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
            self._keepalive.answered(self.peer.loop.clock(), self.peer)
        if messages and self.over is None and self.deliver(messages) is not None:
            self.ask()
        match events[-1]:
            case Close(code, reason):
                self._client_ends(ConnectionClosed(code, reason), "")
            case Failure(code, reason):
                log.info("%s broke a rule: %s (%d)", self.peer.address, reason, code)
                self._client_ends(ConnectionClosed(code, reason), reason)

    def peer_left(self) -> None:
        """Owner: the socket is over, with a closing handshake or without."""
        if self.over is None:
            self.over = self._client_end or ConnectionClosed(
                CloseCode.ABNORMAL_CLOSURE, "the client left in silence"
            )
        self.peer.record.end = self.over
        self.leave_topics()
        self.deliver_end(self.over)
        if self.state is BUSY:
            self.peer.loop.outlived(self)

    def after_fork(self) -> None:
        """The child of a fork: for a handler that runs on here, the connection is over."""
        self.over = self.over or ConnectionClosed(
            CloseCode.ABNORMAL_CLOSURE, "the connection is the parent process's"
        )

    def deadline_passed(self) -> None:
        """Owner: the client, or the handler of what came before its close frame, is too slow.

        Or it is time to look whether the client is still there.
        """
        if self.codec.close_sent:
            self.peer.abort()
        elif self._client_end is None:
            self._check()
        elif not self._takes_answers():
            self.over = self.over or self._client_end
            self.answer_client()
            self.deliver_end(self.over)

    def hold(self) -> None:
        """Owner: the handler waits for a thread, and the client is not read until it has one."""
        if not self._paused:
            self.peer.pause_reading(until_left=True)

    def release(self) -> None:
        """Owner: the handler has got a thread."""
        if not self._paused:
            self.peer.resume_reading()

    def begin(self, worker: Worker | None = None) -> None:
        """Owner, once: run the handler, and look after the client from here on."""
        super().begin(worker)
        # Clients that connect at the same time are not all checked, and pinged, at the same time.
        self.peer.due_in(random() * self._check_interval)

    def shut_down(self) -> None:
        """Owner: the server stops."""
        self.close(CloseCode.GOING_AWAY, "the server stops")

    def close(self, code: int, reason: str) -> None:
        """Owner: send our close frame, unless one was sent, and wait for the client's."""
        if self.codec.close_sent or self.peer.closed:
            return
        self.over = self.over or ConnectionClosed(code, reason)
        self.leave_topics()
        if self._reply is not None:
            self.answer_client()
        else:
            self.peer.seal(self.codec.close(code, reason))
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
        if self._reply is not None and not self.codec.close_sent:
            self.leave_topics()
            self.peer.finish(self.codec.close(*self._reply))

    def too_slow(self, topic: str) -> None:
        """Owner: the client has not taken this topic's events in time, and may try again later."""
        log.warning("%s is too slow for the topic %r and is closed", self.peer.address, topic)
        self.peer.clients.totals.slow_clients += 1
        self.close(CloseCode.TRY_AGAIN_LATER, "too slow for its topic")

    @property
    def _unread(self) -> bool:
        """Owner: whether the client is not read, so that its silence means nothing."""
        return self._paused or self.state is WAITING

    @property
    def _check_interval(self) -> float:
        """How often the client is checked, in seconds."""
        settings = self.peer.clients.settings
        limits = [limit for limit in (settings.ping_interval, settings.message_timeout) if limit]
        return min(limits, default=inf) / CHECKS

    def _check(self) -> None:
        """Owner: ping the client if it is silent; close if it is dead or a message takes too long.

        Whether it takes what it is sent is for the peer to check.
        """
        peer, keepalive = self.peer, self._keepalive
        settings = peer.clients.settings
        now = peer.loop.checked_at
        peer.look(now)
        if peer.closed:
            return
        if self._unread:
            keepalive.restart(now)
        elif settings.ping_interval:
            match keepalive.look(
                now,
                peer.bytes_in,
                peer,
                more=peer.has_unsent,
                interval=settings.ping_interval,
                timeout=settings.ping_timeout,
            ):
                case Life.PING_DUE:
                    peer.send_aside(self.codec.ping())
                    keepalive.pinged(now, peer.position, peer, settings.ping_timeout)
                case Life.OVER:
                    peer.clients.totals.ping_timeouts += 1
                    reason = f"no pong within {settings.ping_timeout:g} s (ping_timeout)"
                    self._give_up(CloseCode.INTERNAL_ERROR, reason)
                    return
        if settings.message_timeout and self._is_late(now):
            limit = f"{settings.message_timeout:g} s and 1 s per KiB (message_timeout)"
            self._give_up(CloseCode.POLICY_VIOLATION, f"a message took longer than {limit}")
            return
        if not peer.closed:
            peer.deadline = min(peer.loop.instant(self._check_interval), keepalive.pong_due)

    def _is_late(self, now: float) -> bool:
        """Whether a message of the client's has begun and takes too long to end."""
        peer = self.peer
        if self._unread or peer.congested or not self.codec.incomplete:
            self._unfinished = None
            return False
        if self._unfinished is None or self._unfinished.number != peer.messages_in:
            self._unfinished = Unfinished(now, peer.messages_in, peer.bytes_in)
        seconds = (peer.bytes_in - self._unfinished.bytes_in) / SLOWEST_SENDER
        return now - self._unfinished.seen >= peer.clients.settings.message_timeout + seconds

    def _give_up(self, code: int, reason: str) -> None:
        """Owner: close because of what the client does not do."""
        log.info("%s is closed: %s", self.peer.address, reason)
        self.close(code, reason)

    def _takes_answers(self) -> bool:
        """Owner: after the client's close frame, whether it still takes what was sent before."""
        now = self.peer.loop.clock()
        self.peer.look(now)
        left = self.peer.waiting_since + self.peer.clients.settings.close_timeout - now
        if self.peer.closed or not self.peer.has_unsent or left <= 0:
            return False
        self.peer.due_in(left)
        return True

    def _client_ends(self, end: ConnectionClosed, reason: str) -> None:
        if self.codec.close_sent:
            self.peer.finish()
            return
        self._reply = end.code, reason
        self._client_end = end
        # What came before is answered first, within that time.
        self.peer.due_in(self.peer.clients.settings.close_timeout)
        self.deliver_end(end)

    def _answer_pings(self, events: list[Any]) -> None:
        pings = [event for event in events if isinstance(event, Ping)]
        if pings and not self.codec.close_sent:
            self.peer.send_aside(*(self.codec.pong(ping.payload) for ping in pings))

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
            self.closing = self.peer.halted = True
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

"""Event streams: what a handler sees of one, and the server's side of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from itertools import islice
from queue import Empty, Queue, SimpleQueue
from random import uniform
from typing import TYPE_CHECKING, Any, TypeVar

from wsframe import CloseCode, ConnectionClosed, ServerSentEvent
from wsframe.fields import encode_response

from ..handoff.queues import next_item, wake
from ..handoff.turns import BUSY, ENDED, WAITING
from ..reports.loggers import log
from ..sockets.peer import Peer, no_room
from ..topics.encodings import EVENT_STREAM, EventStreamEncoding, StreamOfMany, encode_id
from ..topics.entry import as_text
from ..topics.ids import END, check_id
from ..topics.subscription import TopicSubscription
from .gzipped import GZIPPED_EVENT_STREAM, HEADER, GzipStream
from .resume import last_event_id
from .subscriber import Subscriber

if TYPE_CHECKING:
    from ..handoff.threads import Worker
    from ..handoff.turns import Habit
    from ..http.request import Request
    from ..topics.encodings import Encoding
    from ..topics.registry import Topics
    from ..topics.subscription import Subscription
    from ..topics.topic import Topic


Item = TypeVar("Item")
COMMENT = b":\n\n"


def encode_stream_head(headers: Iterable[tuple[str, str]]) -> bytes:
    """The answer that an event stream follows; its end is the end of the connection.

    Proxies are asked to hold nothing back.

    Args:
        headers: of this one.
    """
    return encode_response(
        200,
        [
            *headers,
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            ("Connection", "close"),
        ],
    )


def encode_retry(seconds: float) -> bytes:
    """A block without data, by which a client knows how long to wait before it comes back.

    Each is told another time, so that those who are cut off together do not come back together.
    """
    return f"retry: {round(1000 * seconds * uniform(0.5, 1.5))}\n\n".encode() if seconds else b""


def as_event(item: object) -> ServerSentEvent:
    """The event for an item: itself, the data that a ``str`` is, or the JSON of anything else.

    Raises:
        TypeError: JSON has no form for the item.
        ValueError: it contains itself, or a number that is none; or it has an id that no client
            could come back with.
    """
    if not isinstance(item, ServerSentEvent):
        return ServerSentEvent(as_text(item))
    if item.id is not None:
        check_id(item.id)
    return item


class EventStream:
    """One client's event stream, as its handler sees it.

    A generator function yields what is to be sent, and when it returns, that was all: the stream
    ends for good. It has a thread of its own while it runs. A plain function calls :meth:`send`,
    and the stream stays open after it, for other threads to go on with; it has a thread only if it
    blocks.

    Attributes:
        request: the request that opened the stream.
        last_event_id: the id of the last event that the client has seen; "" for a new one. By its
            ``Last-Event-ID`` header; where there is none, by a parameter of the query, whose name
            is that or ``lastEventId`` or ``last_event_id``, in any case. What cannot stand in an
            id, bytes that are not UTF-8 among it, is U+FFFD.
    """

    def __init__(self, session: EventStreamSession, request: Request) -> None:
        self.request = request
        self.last_event_id = last_event_id(request)  # once, however many topics ask for it
        self._session = session
        self._resume: str | Mapping[str, str] | None = None  # see _came_from

    @property
    def closed(self) -> bool:
        """Any thread: whether the stream is over."""
        return self._session.over

    def send(self, item: object, *, timeout: float | None = None) -> None:
        """Any thread: send an event: a ServerSentEvent, a ``str``, or anything that JSON can say.

        The call returns when the event is queued. Without a ``timeout`` a thread other than the
        loop's then waits while more than 256 KiB are unsent, at the pace of the client.

        Args:
            item: the event.
            timeout: for how many seconds to wait, before the event is queued, while more than
                256 KiB are unsent; 0 does not wait. It is for a thread that serves several clients
                one after the other. None is as in :meth:`WebSocket.send`. What a plain handler
                sends is unsent until it returns or loses the loop. So with 0 it can queue no more
                than 256 KiB, however fast the client is.

        Raises:
            ConnectionClosed: the client has left, or the stream was closed.
            TimeoutError: so much was still unsent at the end of the ``timeout``. The event has
                *not* been queued; the stream stays open, and the call may be repeated.
            TypeError: JSON has no form for the item.
            ValueError: the item contains itself, or a number that is none; or it has an id that no
                client could come back with, as in :meth:`wsframe.server.Topic.publish`.
        """
        self._session.send(as_event(item).encode(), timeout)

    def get(self, queue: Queue[Item] | SimpleQueue[Item], timeout: float | None = None) -> Item:
        """The handler's own thread: take the next item from a queue, and wait for it if need be.

        This is how a generator waits for something to send. In the queue's own ``get`` it would go
        on waiting when its client has left, and keep its thread. The wait ends within about a
        second after that. No item is taken for a client that is known to have left. Where that
        becomes known while an item is being taken from a ``SimpleQueue``, which has no other way,
        the item is put back at its end.

        Args:
            queue: a ``queue.Queue`` or one of its subclasses, or a ``queue.SimpleQueue``; any
                number of handlers and other threads may take from it.
            timeout: for how many seconds to wait; None for as long as it takes.

        Raises:
            ConnectionClosed: the client has left, or the stream was closed. A generator need not
                catch it.
            TimeoutError: there was no item in time.
            ShutDown: the queue was shut down (CPython 3.13 and later).
        """
        session = self._session
        session.waits_for = queue
        try:
            interval = session.peer.loop.timing.queue_check_interval
            return next_item(queue, lambda: session.over, timeout, interval)
        except Empty:
            if session.over:
                raise over_error() from None
            raise TimeoutError(f"no item in {timeout} seconds") from None
        finally:
            session.waits_for = None

    def subscribe(
        self, topic: str | Topic, *, after: str | None = None, member: str | None = None
    ) -> Subscription:
        """Any thread: have what is published to a topic sent, until the subscription is closed.

        It is sent beside what the handler sends, in the topic's order. A client that comes back is
        sent what it has missed; where that is not remembered any more, it is first sent an event
        "gap" whose data is JSON: the ``topic`` and the ``oldest`` id that is left. A client that is
        too slow meets the topic's policy; :meth:`wsframe.server.App.topic` says which there are.

        The id of an event stands for a place in every topic of the stream, so that a client comes
        back to all of them. Where a list of these would have more than 2,048 bytes, the id is a
        token that only this process understands, while it remembers it.

        Args:
            topic: its name, or itself; a name has at most 1,024 bytes.
            after: where a new client begins, as in :meth:`WebSocket.subscribe`: None for now, ""
                for all that is remembered. A client whose last id the topic does not know is told
                of a gap and begins there, too: anybody can make up an id.
            member: who subscribes, for :meth:`Topic.members`.

        Raises:
            ConnectionClosed: the client has left, or the stream was closed.
            StateError: the stream has as many subscriptions as it may (``max_subscriptions``).
            ValueError: the name is too long, or UTF-8 has no form for it.
        """
        if self._session.over:
            raise over_error()
        session, resume = self._session, self._came_from()
        name = topic if isinstance(topic, str) else topic.name
        seen = resume if isinstance(resume, str) else resume.get(name)
        if not seen:
            seen = after
        return session.subscribe(topic, session.encoding, seen, after, member)

    def _came_from(self) -> str | Mapping[str, str]:
        """Any thread: the id that a client comes back with, or those of several topics."""
        if self._resume is None:
            last_id = self.last_event_id
            found = self._session.topics.places.find(last_id) if last_id.startswith("?") else None
            self._resume = last_id if found is None else found
            if found:
                # As many as there may be subscriptions: a stranger may have made up any number.
                most = self._session.peer.clients.settings.max_subscriptions
                self._session.came_with = dict(islice(found.items(), most))
        return self._resume

    def close(self, *, final: bool = False) -> None:
        """Any thread: end the stream, after what was sent before; the first time counts.

        Args:
            final: end it for good. A browser comes back after any other end; after this one, it
                does so once, with ":end" for its last id, and is told by a 204 to let it be.
        """
        self._session.request_close(final=final)


NOWHERE: Mapping[str, str] = {}  # what a new client comes with


def over_error() -> ConnectionClosed:
    """What to raise at a handler that goes on after the end."""
    return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "the event stream is over")


class EventStreamSession(Subscriber):
    """The server's side of one event stream.

    Its handler has one turn. A generator's is in a thread from the beginning, for it waits inside.

    Attributes:
        over: set once, when the client has left or the stream was closed; nothing is sent after it.
        encoding: how the events of topics are sent here; the owner sets it.
        request: the one that opened it.
        waits_for: the queue that the handler's thread waits for; that thread sets it.
        came_with: where the client was in several topics when it came back; what subscribes sets
            it, and the owner leaves out what the handler has not subscribed to.
    """

    __slots__ = (
        "_complete",
        "_gzip",
        "_handler",
        "_opens",
        "_sent",
        "_topic",
        "came_with",
        "encoding",
        "request",
        "waits_for",
    )

    over: bool

    def __init__(
        self,
        peer: Peer,
        habit: Habit,
        topics: Topics,
        request: Request,
        topic: Topic | None,
        handler: Callable[..., Any] | None,
        *,
        gzip: bool,
    ) -> None:
        super().__init__(peer, habit, topics)
        self.over = False
        self.request = request
        self.waits_for: Queue[Any] | SimpleQueue[Any] | None = None
        self.came_with: Mapping[str, str] = NOWHERE
        self._topic = topic
        self._complete = False  # the topics that it was subscribed to have ended
        self._sent = 0  # bytes, when it was last looked
        self._opens = False  # the client is to be told where its subscriptions begin
        self._handler = handler
        self._gzip = GzipStream() if gzip else None
        self.encoding: EventStreamEncoding = GZIPPED_EVENT_STREAM if gzip else EVENT_STREAM

    # Owner ------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.request.path

    def opening(self) -> bytes:
        """Owner: what stands right behind the head."""
        retry = encode_retry(self.peer.clients.settings.retry)
        if self._gzip is None:
            return retry
        blocks = [HEADER]
        self._gzip.put(retry, blocks.append)
        return b"".join(blocks)

    def start(self, worker: Worker | None = None) -> None:
        """Owner: begin; the head and the opening are queued.

        Args:
            worker: the thread for a generator.
        """
        self._look_again()
        if self._topic is not None:
            subscription = EventStream(self, self.request).subscribe(self._topic)
            assert isinstance(subscription, TopicSubscription)
            if subscription.placed:
                subscription.begin()  # so that the head and what follows are sent in one piece
        if self._handler is not None:
            self.work = [None]  # there is one turn, and it is all of the handler
            self.unsettled = True
            self.begin(worker)
        else:
            self.peer.flush()
            self._shorten_request()

    def _shorten_request(self) -> None:
        self.request.shorten(self.peer.clients.settings.max_kept_head)

    def settle(self) -> None:
        """Owner: the handler is over; it has asked for the end of the stream, if it wants one."""
        self.end()
        if self.came_with:
            names = {one.topic for one in self.subscriptions}
            self.came_with = {name: self.came_with[name] for name in names & self.came_with.keys()}
            if isinstance(self.encoding, StreamOfMany):
                self.encoding.expect_only(names)
        self._shorten_request()
        if self._complete and not self.subscriptions:
            self.end_for_good()

    def subscribed(self, subscription: TopicSubscription) -> None:
        """Owner: a subscription begins; where there are several, each id tells of all."""
        several = len(self.subscriptions) > 1 or self.came_with.keys() - {subscription.topic}
        if several and not self.encoding.of_one:
            self.encoding = StreamOfMany(self.topics.places, self.came_with)
            for other in tuple(self.subscriptions):
                if other.begun and other is not subscription:
                    self.encoding.stream_start(other.topic, other.last_id)
                    other.change_encoding(self.encoding)
                    other.advance()
        subscription.change_encoding(self.encoding)

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        """Owner: a subscription begins here; those that begin together are told of by one id."""
        opening = encoding.stream_start(topic, cursor)
        if not isinstance(self.encoding, StreamOfMany):
            self.tell(opening)
        elif not self._opens:
            self._opens = True
            self.peer.loop.call_soon(self._open)

    def _open(self) -> None:
        self._opens = False
        if isinstance(self.encoding, StreamOfMany) and not self.over:
            self.tell(self.encoding.here())

    def put(self, block: bytes) -> None:
        """Owner: queue events in one piece."""
        if self._gzip is None:
            self.peer.out.append(block)
        else:
            self._gzip.put_at_once(block, self.peer.out.append)

    def tell(self, notice: bytes) -> None:
        """Owner: send what is no event."""
        if self._gzip is None:
            super().tell(notice)
        elif notice:
            self._gzip.put(notice, self.peer.queue_aside)
            self.peer.flush()

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Owner: nothing more comes of this one; if it was the last, nothing of the stream."""
        super().topic_ended(subscription)
        self._complete = not self.subscriptions
        if self._complete and (self._handler is None or self.state is ENDED):
            self.end_for_good()

    def too_slow(self, topic: str) -> None:
        """Owner: the client has not taken this topic's events in time; it comes back by itself."""
        self.peer.cut_off("is too slow for its event stream")

    def data_received(self, data: memoryview) -> None:
        """Owner: a client has nothing to say here."""

    def peer_left(self) -> None:
        """Owner: the client has left, or the stream was closed."""
        self._is_over()
        if self.state is WAITING:  # its handler has not begun
            self.end()

    def after_fork(self) -> None:
        """The child of a fork: for a handler that runs on here, the stream is over."""
        self.over = True

    def _is_over(self) -> None:
        self.over = True
        self.leave_topics()
        if self.state is BUSY:
            self.peer.loop.at_next_tick(self._wake_handler)
            self.peer.loop.outlived(self)

    def _wake_handler(self) -> None:
        """Owner: end the handler's wait for an item."""
        queue = self.waits_for
        if queue is not None and not wake(queue):
            self.peer.loop.at_next_tick(self._wake_handler)

    def deadline_passed(self) -> None:
        """Owner: send a comment, if nothing has been sent for half of the time that may be so."""
        if self._sent == self.peer.bytes_out and not self.peer.has_unsent:
            self.tell(COMMENT)
        self._look_again()

    def _look_again(self) -> None:
        self._sent = self.peer.bytes_out
        heartbeat = self.peer.clients.settings.heartbeat
        if heartbeat and not self.peer.closed:
            self.peer.due_in(heartbeat / 2)

    def shut_down(self) -> None:
        """Owner: the server stops."""
        self.finish()

    def finish(self, *last: bytes) -> None:
        """Owner: end the stream, after what was sent before and these last words."""
        self._is_over()
        if self._gzip is None:
            self.peer.finish(*last)
        else:
            self._gzip.end(b"".join(last), self.peer.seal)
            self.peer.finish()

    def end_for_good(self) -> None:
        """Owner: end the stream, after what was sent before, and have no client come back."""
        self.finish(encode_id(END))

    # Any thread -------------------------------------------------------------------------------

    def send(self, event: bytes, timeout: float | None = None) -> None:
        """Any thread: queue an event."""
        if timeout is not None and not self.peer.wait_for_room(timeout):
            raise no_room(timeout)
        if self.over:
            raise over_error()
        if self._gzip is not None:
            self.peer.kick(self._gzip.put(event, self.peer.out.append), wait=timeout is None)
        elif timeout is None:
            self.peer.send(event)
        else:
            self.peer.out.append(event)
            self.peer.kick(len(event), wait=False)

    def request_close(self, *, final: bool = False) -> None:
        """Any thread: have the owner end the stream, after what was sent before."""
        self.over = True
        self.peer.loop.call_soon(self.end_for_good if final else self.finish)

    # Whichever thread has the turn ------------------------------------------------------------

    def work_on(self, work: list[Any]) -> None:
        """Whichever thread has the turn: all of the handler."""
        assert self._handler is not None
        try:
            # Only the handler has it: here it would be kept until the garbage collector runs.
            stream = EventStream(self, self.request)
            result = self._handler(stream, **self.request.parameters)
            if not inspect.isgenerator(result):
                return
            try:
                for item in result:
                    stream.send(item)
            finally:
                result.close()
        except BaseException as error:  # SystemExit, too, ends this handler alone
            # The end of this stream is no failure; another's is one like any. The exception is
            # not asked for its class, as by isinstance, because that may raise.
            if not (issubclass(type(error), ConnectionClosed) and self.over):
                log.exception("the handler of %s failed", self.path)
            self.request_close()
        else:
            self.request_close(final=True)

"""EventStream: the interface of an event stream for handlers and other threads."""

from __future__ import annotations

from collections.abc import Mapping
from queue import Empty, Queue, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from wsframe import ServerSentEvent

from ..handoff.queues import next_item
from ..topics.entry import as_text
from ..topics.ids import check_id
from .eventstream_session import EventStreamSession, over_error
from .resume import last_event_id

if TYPE_CHECKING:
    from ..http.request import Request
    from ..sockets.identities import Identity
    from ..topics.subscription import Subscription
    from ..topics.topic import Topic

Item = TypeVar("Item")


def as_event(item: object) -> ServerSentEvent:
    """Return an event; an item that is not an event becomes its data, as ``str`` or JSON.

    Raises:
        TypeError: the item cannot be encoded as JSON.
        ValueError: the item contains a circular reference, NaN or infinity; or its id cannot be
            sent in a Last-Event-ID header.
    """
    if not isinstance(item, ServerSentEvent):
        return ServerSentEvent(as_text(item))
    if item.id is not None:
        check_id(item.id)
    return item


class EventStream:
    """One client's event stream; its handler and other threads use this object.

    A handler that is a generator function yields the events, and has its own thread until it
    returns. Then the stream ends for good. A handler that is a plain function calls :meth:`send`.
    After it returns, the stream stays open, so that other threads can send more events. A plain
    function has a thread only if it blocks.

    >>> app = App()
    >>> @app.sse("/countdown/{start}")
    ... def count_down(stream, start):
    ...     yield from range(int(start), 0, -1)
    >>> with app.start() as server, events(f"http://localhost:{server.port}/countdown/3") as stream:
    ...     [event.data for event in stream]
    ['3', '2', '1']

    Attributes:
        request: the request that opened the stream.
        last_event_id: the id of the last event that the client has received; "" for a new client.
            The client sends the id in the ``Last-Event-ID`` header, or else in a query parameter:
            ``Last-Event-ID``, ``lastEventId`` or ``last_event_id``, case-insensitively. Characters
            that an id cannot contain, and bytes that are not valid UTF-8, become U+FFFD.
    """

    def __init__(self, session: EventStreamSession, request: Request) -> None:
        self.request = request
        self.last_event_id: str = last_event_id(request)  # the id is parsed once for all topics
        self._session = session
        self._resume: str | Mapping[str, str] | None = None  # set by subscribe

    @property
    def closed(self) -> bool:
        """Any thread: True once the stream has ended or is closing."""
        return self._session.over

    def send(self, item: object, *, timeout: float | None = None) -> None:
        """Any thread: send an event: a ServerSentEvent, a ``str``, or a value to encode as JSON.

        The call queues the event and returns. Without a ``timeout``, any thread except the loop's
        waits after that until at most 256 KiB are unsent (back-pressure).

        Args:
            item: the event.
            timeout: seconds to wait, before the event is queued, while more than 256 KiB are
                unsent; 0 does not wait. Use a timeout in a thread that serves several clients in
                turn. None is as in :meth:`WebSocket.send`. A plain handler's events remain unsent
                until it returns or the loop is handed off. So with 0 it can queue at most 256 KiB,
                however fast the client is.

        Raises:
            ConnectionClosed: the client has disconnected, or the stream was closed.
            TimeoutError: more than 256 KiB were still unsent at the end of the ``timeout``. The
                event was *not* queued. The stream stays open, and the call may be repeated.
            TypeError: the item cannot be encoded as JSON.
            ValueError: the item contains a circular reference, NaN or infinity; or its id cannot be
                sent in a Last-Event-ID header, as in :meth:`wsframe.server.Topic.publish`.
        """
        self._session.send(as_event(item).encode(), timeout)

    def get(self, queue: Queue[Item] | SimpleQueue[Item], timeout: float | None = None) -> Item:
        """The handler's thread: remove and return the next item of a queue; wait for one.

        Use this method in a generator instead of ``queue.get``, which would keep the thread after
        the client has disconnected. The wait ends within about a second after that. No item is
        taken for a client that is known to have disconnected. If the client disconnects while an
        item is taken from a ``SimpleQueue``, the item is put back at the end of the queue.

        Args:
            queue: a ``queue.Queue``, an instance of a subclass, or a ``queue.SimpleQueue``. Any
                number of handlers and other threads may use it.
            timeout: the limit in seconds; None waits without a limit.

        Raises:
            ConnectionClosed: the client has disconnected, or the stream was closed. A generator
                need not catch it.
            TimeoutError: no item arrived in time.
            ShutDown: the queue was shut down (CPython 3.13 and later).
        """
        session = self._session
        session.awaited_queue = queue
        try:
            interval = session.peer.loop.timing.queue_check_interval
            return next_item(queue, lambda: session.over, timeout, interval)
        except Empty:
            if session.over:
                raise over_error() from None
            raise TimeoutError(f"no item in {timeout} seconds") from None
        finally:
            session.awaited_queue = None

    def subscribe(
        self, topic: str | Topic, *, after: str | None = None, member: str | None = None
    ) -> Subscription:
        """Any thread: send the events of a topic to the client until the subscription is closed.

        The events are sent in the order of the topic, between the events of the handler. A client
        that reconnects first receives the events that it has missed. If some of them are no longer
        in the log, it receives a "gap" event first. The data of that event is JSON, with the
        ``topic`` and the ``oldest`` id in the log. The policy of the topic applies to a client that
        is too slow; see :meth:`wsframe.server.App.topic`.

        The id of an event is a position in every topic of the stream, so that a client resumes all
        of them. If the list of these positions exceeds 2,048 bytes, the id is a token, which only
        this process can resolve, for a limited time.

        Args:
            topic: the topic, or its name, which has at most 1,024 bytes.
            after: the position for a new client: None to start with the next event, "" with the
                oldest event in the log, as in :meth:`WebSocket.subscribe`. A client
                whose last id is unknown to the topic starts at the same position, after a "gap"
                event, because a client can send any id.
            member: the name of the subscriber for :meth:`Topic.members`.

        Raises:
            ConnectionClosed: the client has disconnected, or the stream was closed.
            StateError: the stream has the maximum number of subscriptions (``max_subscriptions``).
            ValueError: the name is too long, or contains a lone surrogate, which cannot be encoded
                as UTF-8.
        """
        session = self._session
        if session.over:
            raise over_error()
        if self._resume is None:
            self._resume = session.resume_from(self.last_event_id)
        return session.subscribe_from(topic, self._resume, after, member)

    def identify(self, identity: Identity | None) -> None:
        """Any thread: set the identity by which :meth:`App.close_identity` finds this stream.

        Call it if ``authorize`` cannot return the identity, for example because a message contains
        the credentials. A closing before the call has no effect on the stream. So set the
        identity first, and check after that whether the session is still valid.

        Args:
            identity: the text, the number or the UUID that names the user: at most 512 bytes in
                UTF-8. A number is the same as its text. None removes the identity.

        Raises:
            TypeError: the identity has another type.
            ValueError: the identity is empty or too long, or contains a lone surrogate.
        """
        self._session.identify(identity)

    def close(self, *, final: bool = False) -> None:
        """Any thread: end the stream after the events sent before; a second call does nothing.

        Args:
            final: True to end the stream for good. Browsers reconnect after any end of a stream.
                After a final end the client reconnects only once, with ":end" as its last id, and
                receives 204, which stops it. htmx stops before that, with ``hx-sse:close="end"``.
        """
        self._session.request_close(final=final)

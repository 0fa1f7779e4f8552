"""An event stream, as its handler and other threads use it."""

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
    from ..topics.subscription import Subscription
    from ..topics.topic import Topic

Item = TypeVar("Item")


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
        self._resume: str | Mapping[str, str] | None = None  # by subscribe

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
        session = self._session
        if session.over:
            raise over_error()
        if self._resume is None:
            self._resume = session.resume_from(self.last_event_id)
        return session.subscribe_from(topic, self._resume, after, member)

    def close(self, *, final: bool = False) -> None:
        """Any thread: end the stream, after what was sent before; the first time counts.

        Args:
            final: end it for good. A browser comes back after any other end; after this one, it
                does so once, with ":end" for its last id, and is told by a 204 to let it be.
        """
        self._session.request_close(final=final)

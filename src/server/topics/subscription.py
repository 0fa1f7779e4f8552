"""Subscriptions, and the interfaces of the topic, the session and the loop that they use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from wsframe.closing import Closing

from ..pure_rounds import IncompleteBlock
from .encodings import Encoding


class Subscription(Closing, ABC):
    """A subscription of one client to one topic.

    :meth:`WebSocket.subscribe` and :meth:`EventStream.subscribe` return it. It is a context
    manager, whose exit ends the subscription. The end of the connection also ends it.

    >>> app = App()
    >>> @app.websocket("/news")
    ... def news(ws):
    ...     with ws.subscribe("news") as subscription:
    ...         ws.send(f"You follow {subscription.topic}.")
    ...         yield
    >>> with app.start() as server, connect(f"ws://localhost:{server.port}/news") as ws:
    ...     ws.receive()
    'You follow news.'

    Attributes:
        dropped: the number of events that the client has lost because it was too slow, or that
            newer events of their key have replaced.
    """

    __slots__ = ()

    dropped: int

    @property
    @abstractmethod
    def topic(self) -> str:
        """Any thread: the name of the topic."""

    @property
    @abstractmethod
    def last_id(self) -> str:
        """Any thread: the id after which to subscribe again, to continue from here."""

    @abstractmethod
    def close(self) -> None:
        """Any thread: end the subscription; closing twice does nothing."""


class EventLoop(Protocol):
    """The loop of some receivers; one thread at a time owns it."""

    def owned(self) -> bool:
        """Any thread: return True if the calling thread is the owner."""

    def call_soon(self, function: Callable[[], object], /) -> None:
        """Any thread, also in a signal handler: queue ``function`` for the owner."""

    def slow_down(
        self, reason: object, when_over: Callable[[Callable[[], object]], object], /
    ) -> None:
        """Loop owner: start no further turn of the current connection until the wait is over.

        Args:
            reason: an object that identifies the cause of the wait. when_over: a function that is
                called with another function; any thread calls the latter to end the wait.
        """

    def send_block(
        self, peers: list[Any], block: bytes, count: int, /
    ) -> Sequence[IncompleteBlock]:
        """Loop owner: send the same data to several sockets that have no unsent data.

        Args:
            peers: the sockets, from :attr:`Receiver.peer`.
            block: the data.
            count: the number of messages or events in the block.

        Returns:
            The sockets that the caller must serve, by their number in the list; see
            :data:`IncompleteBlock`. A loop may leave all of them to the caller.
        """

    def call_safely(self, function: Callable[..., Any], /, *arguments: object) -> None:
        """Loop owner: call ``function``; an exception ends only the connection concerned."""

    def report_error(self, error: Exception, source: object = None, /) -> None:
        """Loop owner: log an internal error, and end the connection concerned."""


class ReceiverSocket(Protocol):
    """The socket of a receiver, with its queue of unsent bytes; the owner uses it.

    Attributes:
        frames_out: the number of messages and events sent.
        notify_when_sent: True to advance the receiver's subscriptions once, when all data has been
            sent.
    """

    frames_out: int
    notify_when_sent: bool

    @property
    def closed(self) -> bool:
        """Any thread: True after the connection has ended."""

    @property
    def send_closed(self) -> bool:
        """Loop owner: True if the socket accepts no more data to send."""

    @property
    def has_unsent(self) -> bool:
        """Loop owner: True if the socket has not accepted all bytes."""

    def sent_partly(self, items: Any, sent: int, /) -> None:
        """Loop owner: keep the unsent part of a block, as ``send_block`` has returned it."""

    def flush(self) -> None:
        """Loop owner: send as many queued bytes as the socket accepts."""

    def abort(self) -> None:
        """Loop owner: drop the connection."""


class DeliveryTotals(Protocol):
    """The counters of one loop that topics increment.

    Attributes:
        subscriptions: current subscriptions.
        topic_events: events sent.
    """

    subscriptions: int
    topic_events: int


class Receiver(Protocol):
    """The recipient of a topic's events: one client's session; the owner of its loop uses it."""

    @property
    def loop(self) -> EventLoop:
        """Any thread: the loop of its connection."""

    @property
    def peer(self) -> ReceiverSocket:
        """Any thread: its socket."""

    @property
    def totals(self) -> DeliveryTotals:
        """Any thread: the counters of its loop."""

    @property
    def network(self) -> Hashable:
        """Any thread: the client's network; None if it has none, as with Unix sockets."""

    def is_subscribed(self, topic: str) -> bool:
        """Loop owner: return True if a subscription to this topic has not ended."""

    def subscribed(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: record that a subscription begins."""

    def open_at(self, topic: str, cursor: str, encoding: Encoding, /) -> None:
        """Loop owner: send the id at which a subscription begins."""

    def put(self, block: bytes, /) -> None:
        """Loop owner: queue encoded events."""

    def send_notice(self, notice: bytes, /) -> None:
        """Loop owner: send bytes that do not belong to an event; do nothing if they are empty."""

    def topic_ended(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: end a subscription whose topic was closed, after its last event."""

    def unsubscribed(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: record that a subscription has ended."""

    def too_slow(self, topic: str, /) -> None:
        """Loop owner: close the connection of a client that was too slow for a topic."""


class SubscribedTopic(Protocol):
    """The topic of a subscription."""

    @property
    def name(self) -> str:
        """Any thread: the name of the topic."""

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Any thread: the lock of the topic."""

    def entered(self) -> bool:
        """Any thread: return True if the calling thread holds the lock."""

    def cursor(self, position: int, /) -> str:
        """Under the lock: return the id with which a client resumes after a position."""

    def remove(self, subscription: TopicSubscription, /) -> None:
        """Any thread: end a subscription; later calls do nothing."""


class LoopDelivery(Protocol):
    """The delivery of a topic's events on one loop: see ``delivery.py``."""

    loop: EventLoop
    base: int
    offset: int
    subscriptions: int

    def schedule(self) -> None:
        """Any thread, under the topic's lock: schedule the delivery of new entries."""

    def encodings(self) -> list[Encoding]:
        """Any thread: return the encodings of the subscriptions that are caught up."""

    def expect(self, subscription: TopicSubscription, /) -> None:
        """Any thread, under the topic's lock: keep the entries after a subscription's position."""

    def has_begun(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: stop keeping entries for a new subscription."""

    def advance(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: send as many of a subscription's next entries as the socket accepts."""

    def finish(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: send as many of the published entries as the socket accepts."""

    def start_lagging(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: change a subscription from caught up to lagging."""

    def forget(self, subscription: TopicSubscription, /) -> None:
        """Loop owner: remove a subscription."""


class TopicSubscription(Subscription):
    """The server's side of a subscription: a position in a topic's log.

    Attributes:
        state: the topic.
        receiver: the session.
        peer: its socket.
        loop: the loop of its connection.
        member: the name for :meth:`Topic.members`; None for an anonymous subscriber.
        encoding: the encoding of events for this client; only the owner uses it.
        delivery: the delivery that sends the events; None before the subscription is added to the
            topic.
        begun: True after the owner has begun to send; only the owner uses it.
        caught_up: True if the client was sent all entries up to the loop's common position; only
            the owner uses it.
        position: the position of the last entry that the client was sent, or has missed.
        placed: True if the position is known; under the topic's lock.
        missed: True if events before the position were lost, and the client must be sent a gap;
            under the topic's lock.
        over: True if the subscription has ended or must end; set before the topic removes it.
        removed: True after the topic has removed the subscription; the topic's lock protects this.
    """

    __slots__ = (
        "_ended",
        "begun",
        "caught_up",
        "delivery",
        "dropped",
        "encoding",
        "loop",
        "member",
        "missed",
        "over",
        "peer",
        "placed",
        "position",
        "receiver",
        "removed",
        "state",
    )

    def __init__(
        self, state: SubscribedTopic, receiver: Receiver, encoding: Encoding, member: str | None
    ) -> None:
        self.state: SubscribedTopic = state
        self.receiver: Receiver = receiver
        self.peer: ReceiverSocket = receiver.peer
        self.loop: EventLoop = receiver.loop
        self.member: str | None = member
        self.encoding: Encoding = encoding
        self.delivery: LoopDelivery | None = None
        self.begun: bool = False
        self.caught_up: bool = False
        self.position: int = 0
        self.placed: bool = False
        self.missed: bool = False
        self.dropped: int = 0
        self.over: bool = False
        self.removed: bool = False
        self._ended = False

    @property
    def topic(self) -> str:
        """Any thread: the name of the topic."""
        return self.state.name

    @property
    def last_id(self) -> str:
        """Any thread: the id after which to subscribe again, to continue from here."""
        with self.state.lock:
            return self.state.cursor(self.position)

    def close(self) -> None:
        """Any thread: end the subscription; closing twice does nothing."""
        self.over = True
        if not self.state.entered():  # otherwise the owner removes it
            self.state.remove(self)
        self.loop.call_soon(self._close)

    # Loop owner -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Loop owner: start to send the entries after the position; later calls do nothing."""
        if self.begun:
            return
        if self.delivery is None or self.over or self.peer.send_closed:
            self.end()
            return
        self.begun = True
        self.receiver.totals.subscriptions += 1
        self.receiver.subscribed(self)
        if not self.missed:  # a gap would contain this id, too
            self.receiver.open_at(self.topic, self.last_id, self.encoding)
        self.advance()
        self.delivery.has_begun(self)

    def advance(self) -> None:
        """Loop owner: send the next entries, unless the client is caught up."""
        if self.delivery is not None and self.begun and not self.caught_up:
            self.delivery.advance(self)

    def change_encoding(self, encoding: Encoding) -> None:
        """Loop owner: send later events in another encoding."""
        if self.delivery is not None and self.caught_up:
            self.delivery.start_lagging(self)
        self.encoding = encoding

    def too_slow(self) -> None:
        """Loop owner: end the subscription, because the log no longer has its next entry."""
        if not self._ended:
            self.end()
            self.receiver.too_slow(self.topic)

    def finish(self) -> None:
        """Loop owner: before the subscription ends, send all entries published so far."""
        if self.delivery is not None and self.begun and not (self.over or self.peer.send_closed):
            self.delivery.finish(self)

    def end(self) -> None:
        """Loop owner: remove the subscription everywhere."""
        if self._ended:
            return
        self.over = self._ended = True
        self.state.remove(self)
        self.receiver.unsubscribed(self)
        if self.begun:
            self.receiver.totals.subscriptions -= 1
        if self.delivery is not None:
            self.delivery.forget(self)

    def _close(self) -> None:
        self.end()
        if not self.receiver.is_subscribed(self.topic):
            self.encoding.forget(self.topic)

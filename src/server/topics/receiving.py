"""The subscriptions of one client: the common base of WebSockets' and streams' receivers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING

from wsframe import StateError

from .subscription import DeliveryTotals, EventLoop, ReceiverSocket, TopicSubscription

if TYPE_CHECKING:
    from .encodings import Encoding
    from .registry import Topics
    from .topic import Topic

# The number of subscriptions that are ended before the loop serves other clients.
END_SLICE = 64


class TopicReceiver(ABC):
    """The base of receivers: :class:`wsframe.server.topics.subscription.Receiver`.

    Attributes:
        peer: the socket of the client.
        subscriptions: the open subscriptions; any thread appends, only the owner removes.
        topics: the topics of the app.
    """

    __slots__ = ()

    peer: ReceiverSocket
    subscriptions: list[TopicSubscription]
    topics: Topics

    @property
    @abstractmethod
    def loop(self) -> EventLoop:
        """Any thread: the loop of the connection."""

    @property
    @abstractmethod
    def totals(self) -> DeliveryTotals:
        """Any thread: the counters of the loop."""

    @property
    @abstractmethod
    def network(self) -> Hashable:
        """Any thread: the network of the client; None if it has none."""

    @property
    @abstractmethod
    def max_subscriptions(self) -> int:
        """Any thread: the maximum number of subscriptions of the client."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Any thread: the path and the address of the client, for errors."""

    def is_subscribed(self, topic: str) -> bool:
        """Loop owner: return True if a subscription to this topic has not ended."""
        return any(subscription.topic == topic for subscription in self.subscriptions)

    def subscribe(
        self,
        topic: str | Topic,
        encoding: Encoding,
        after: str | None,
        otherwise: str | None,
        member: str | None,
    ) -> TopicSubscription:
        """Any thread: start a subscription at a position in the log that this call determines.

        Raises:
            StateError: the connection has the maximum number of subscriptions.
            ValueError: the name of the topic is invalid.
        """
        most = self.max_subscriptions
        if len(self.subscriptions) >= most:
            raise StateError(
                f"cannot subscribe {self.description} to more topics: the connection has {most} "
                "subscriptions (max_subscriptions)"
            )
        log = self.topics.find(topic)
        subscription = TopicSubscription(log, self, encoding, member)
        self.subscriptions.append(subscription)
        try:
            log.add(subscription, after, otherwise)
        except BaseException:
            self.loop.call_soon(subscription.end)
            raise
        if subscription.placed:
            self.loop.call_soon(subscription.begin)
        if self.peer.closed:  # the loop may have ended, and then makes no more queued calls
            subscription.close()
        return subscription

    def subscribed(self, subscription: TopicSubscription) -> None:  # noqa: B027 - only streams do
        """Loop owner: prepare for the start of a subscription."""

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        """Loop owner: send the notice, if any, of the position where a subscription starts."""
        self.send_notice(encoding.stream_start(topic, cursor))

    def unsubscribed(self, subscription: TopicSubscription) -> None:
        """Loop owner: remove a subscription that has ended."""
        self.subscriptions.remove(subscription)

    def leave_topics(self) -> None:
        """Loop owner: send as many of the published events as possible; end all subscriptions."""
        for subscription in tuple(self.subscriptions):
            subscription.finish()
        for number, subscription in enumerate(tuple(self.subscriptions)):
            if number < END_SLICE:
                subscription.end()
            else:  # the rest ends later, so that other connections are served in between
                subscription.over = True
                self.loop.call_soon(subscription.end)

    def sent_all(self) -> None:
        """Loop owner: send more events, from each topic in turn, because all data was sent."""
        if self.subscriptions:
            self.subscriptions.append(self.subscriptions.pop(0))
        for subscription in tuple(self.subscriptions):
            subscription.advance()

    @abstractmethod
    def put(self, block: bytes) -> None:
        """Loop owner: queue several encoded messages as one block."""

    @abstractmethod
    def send_notice(self, notice: bytes) -> None:
        """Loop owner: send a notice, which does not count as a message."""

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Loop owner: end the subscription to a topic that was closed."""
        subscription.end()

    @abstractmethod
    def too_slow(self, topic: str) -> None:
        """Loop owner: disconnect a client that is too slow for a topic."""

"""The subscriptions of one connection to topics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING

from wsframe import ConnectionClosed, StateError

from ..addresses import client_network
from ..handoff.task import Task
from ..sockets.session import Session
from ..topics.subscription import TopicSubscription

if TYPE_CHECKING:
    from ..handoff.blocking import BlockingProfile
    from ..handoff.loop import Loop
    from ..reports.stats import Totals
    from ..sockets.peer import Peer
    from ..topics.encodings import Encoding
    from ..topics.registry import Topics
    from ..topics.topic import Topic


# The number of subscriptions that are ended in one call of the loop.
END_SLICE = 64


class Subscriber(Session, Task):
    """A session that can subscribe to topics.

    Attributes:
        subscriptions: the open subscriptions; any thread appends, only the owner removes.
        over: true once the session has ended or is closing.
        topics: the topics of the app.
    """

    __slots__ = ("over", "subscriptions", "topics")

    peer: Peer
    over: ConnectionClosed | bool | None

    def __init__(self, peer: Peer, profile: BlockingProfile, topics: Topics) -> None:
        super().__init__(peer, profile)
        self.topics = topics
        self.subscriptions: list[TopicSubscription] = []

    @property
    def loop(self) -> Loop:
        """Any thread: the loop of the connection."""
        return self.peer.loop

    @property
    def totals(self) -> Totals:
        """Any thread: the counters of the loop."""
        return self.peer.clients.totals

    @property
    def network(self) -> Hashable:
        """Any thread: the network of the client; None for a Unix socket."""
        request = self.peer.record.request
        return None if request is None else client_network(request.client)

    def is_subscribed(self, topic: str) -> bool:
        """Owner: return True if a subscription to this topic has not ended."""
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
        most = self.peer.clients.settings.max_subscriptions
        if len(self.subscriptions) >= most:
            raise StateError(
                f"{self.path} cannot subscribe {self.peer.address} to more topics: the connection "
                f"has {most} subscriptions (max_subscriptions)"
            )
        log = self.topics.find(topic)
        subscription = TopicSubscription(log, self, encoding, member)
        self.subscriptions.append(subscription)
        try:
            log.add(subscription, after, otherwise)
        except BaseException:
            self.peer.loop.call_soon(subscription.end)
            raise
        if subscription.placed:
            self.peer.loop.call_soon(subscription.begin)
        if self.peer.closed:  # the loop may never run another call
            subscription.close()
        return subscription

    def subscribed(self, subscription: TopicSubscription) -> None:
        """Owner: prepare for the start of a subscription."""

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        """Owner: send the notice, if any, of the position where a subscription starts."""
        self.send_notice(encoding.stream_start(topic, cursor))

    def unsubscribed(self, subscription: TopicSubscription) -> None:
        """Owner: remove a subscription that has ended."""
        self.subscriptions.remove(subscription)

    def leave_topics(self) -> None:
        """Owner: send the events published before, as far as possible; end all subscriptions."""
        for subscription in tuple(self.subscriptions):
            subscription.finish()
        for number, subscription in enumerate(tuple(self.subscriptions)):
            if number < END_SLICE:
                subscription.end()
            else:  # later, so that other connections are served in between
                subscription.over = True
                self.peer.loop.call_soon(subscription.end)

    def sent_all(self) -> None:
        """Owner: send more events, of each topic in turn, because no data is unsent."""
        if self.subscriptions:
            self.subscriptions.append(self.subscriptions.pop(0))
        for subscription in tuple(self.subscriptions):
            subscription.advance()

    def put(self, block: bytes) -> None:
        """Owner: queue several messages in one block."""
        self.peer.out.append(block)

    def send_notice(self, notice: bytes) -> None:
        """Owner: send a notice, which does not count as a message."""
        if notice:
            self.peer.send_control(notice)

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Owner: end the subscription to a topic that was closed."""
        subscription.end()

    @abstractmethod
    def too_slow(self, topic: str) -> None:
        """Owner: disconnect a client that is too slow for a topic."""

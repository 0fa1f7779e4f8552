"""What a connection has to do with topics, of either kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING

from wsframe import ConnectionClosed, StateError

from ..addresses import client_network
from ..handoff.task import Task
from ..sockets.peer import Session
from ..topics.subscription import TopicSubscription

if TYPE_CHECKING:
    from ..handoff.blocking import BlockingProfile
    from ..handoff.loop import Loop
    from ..reports.stats import Totals
    from ..sockets.peer import Peer
    from ..topics.encodings import Encoding
    from ..topics.registry import Topics
    from ..topics.topic import Topic


# How many subscriptions are ended at once.
END_SLICE = 64


class Subscriber(Session, Task):
    """A connection that can be subscribed to topics.

    Attributes:
        subscriptions: those that have not ended; any thread appends, the owner removes.
        over: true when it has ended or is asked to.
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
        """Any thread: the loop of its connection."""
        return self.peer.loop

    @property
    def totals(self) -> Totals:
        """Any thread: the counters of its loop."""
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
        """Any thread: begin a subscription, at a place in the log that is fixed here and now.

        Raises:
            StateError: the connection has as many subscriptions as it may.
            ValueError: the name of the topic is not allowed.
        """
        most = self.peer.clients.settings.max_subscriptions
        if len(self.subscriptions) >= most:
            raise StateError(
                f"{self.path} has {most} subscriptions for {self.peer.address} already, as many as "
                "one connection may have (max_subscriptions)"
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
        if self.peer.closed:  # and its loop may have made its last call
            subscription.close()
        return subscription

    def subscribed(self, subscription: TopicSubscription) -> None:
        """Owner: a subscription begins."""

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        """Owner: a subscription begins here, of which the client may have to be told."""
        self.tell(encoding.stream_start(topic, cursor))

    def unsubscribed(self, subscription: TopicSubscription) -> None:
        """Owner: a subscription has ended."""
        self.subscriptions.remove(subscription)

    def leave_topics(self) -> None:
        """Owner: end all subscriptions; what was published before is sent, if it can be."""
        for subscription in tuple(self.subscriptions):
            subscription.finish()
        for number, subscription in enumerate(tuple(self.subscriptions)):
            if number < END_SLICE:
                subscription.end()
            else:  # so that others are not held up
                subscription.over = True
                self.peer.loop.call_soon(subscription.end)

    def sent_all(self) -> None:
        """Owner: the client has taken all that it was sent; send it more, of each topic in turn."""
        if self.subscriptions:
            self.subscriptions.append(self.subscriptions.pop(0))
        for subscription in tuple(self.subscriptions):
            subscription.advance()

    def put(self, block: bytes) -> None:
        """Owner: queue messages in one piece."""
        self.peer.out.append(block)

    def tell(self, notice: bytes) -> None:
        """Owner: send what is no message."""
        if notice:
            self.peer.send_control(notice)

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Owner: nothing more comes of this one."""
        subscription.end()

    @abstractmethod
    def too_slow(self, topic: str) -> None:
        """Owner: the client has not taken this topic's events in time, and is to be let go."""

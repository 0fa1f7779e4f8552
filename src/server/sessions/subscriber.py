"""The subscriptions of one connection to topics."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from wsframe import ConnectionClosed

from ..addresses import client_network
from ..handoff.task import Task
from ..sockets.identities import Identity, check_identity
from ..sockets.session import Session
from ..topics.receiving import TopicReceiver

if TYPE_CHECKING:
    from ..handoff.blocking import BlockingProfile
    from ..handoff.loop import Loop
    from ..reports.stats import Totals
    from ..sockets.peer import Peer
    from ..topics.registry import Topics
    from ..topics.subscription import TopicSubscription


class Subscriber(TopicReceiver, Session, Task):
    """A session that can subscribe to topics.

    Attributes:
        over: true once the session has ended or is closing.
    """

    __slots__ = ("over", "subscriptions", "topics")

    peer: Peer
    over: ConnectionClosed | bool | None

    def __init__(self, peer: Peer, profile: BlockingProfile, topics: Topics) -> None:
        super().__init__(peer, profile)
        self.topics: Topics = topics
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

    @property
    def max_subscriptions(self) -> int:
        """Any thread: the maximum number of subscriptions."""
        return self.peer.clients.settings.max_subscriptions

    @property
    def description(self) -> str:
        """Any thread: the connection's path and the client's address, for the log."""
        return f"{self.peer.address} on {self.path}"

    def identify(self, identity: Identity | None) -> None:
        """Any thread: set the identity of the connection."""
        text = None if identity is None else check_identity(identity)
        self.peer.clients.identities.assign_soon(self.peer, text)

    def put(self, block: bytes) -> None:
        """Loop owner: queue several encoded messages as one block."""
        self.peer.out.append(block)

    def send_notice(self, notice: bytes) -> None:
        """Loop owner: send a notice, which does not count as a message."""
        if notice:
            self.peer.send_control(notice)

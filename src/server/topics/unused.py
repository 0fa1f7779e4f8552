"""The topics without subscribers, kept for clients that may reconnect."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from .entry import size_of
from .sizes import Sizes
from .state import TopicState

# The fraction of both limits for topics to which only one client was ever subscribed.
SHARE_OF_A_CLIENT = 1 / 8
# The memory of a topic without its events and its name, in bytes.
TOPIC_COST = 2048


class _Kept(NamedTuple):
    until: float
    size: int
    client: Hashable
    orders: tuple[OrderedDict[TopicState, None], ...]  # the orders that contain the topic


class _Client:
    """The topics to which only one client has been subscribed."""

    def __init__(self) -> None:
        self.order: OrderedDict[TopicState, None] = OrderedDict()
        self.size = 0


class Unused:
    """The topics without subscribers, each until its events have expired, up to a limit.

    Topics without events are deleted first, because no event is lost. The topics of a single client
    have a separate limit, so that names which the client makes up do not displace other topics.

    Not thread-safe: the registry uses it in one thread at a time.

    Args:
        sizes: the sizes of the app's topics.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._max_topics = sizes.max_unused
        self._max_bytes = sizes.max_unused_bytes
        self._kept: dict[TopicState, _Kept] = {}
        # The least recently used topic is the first.
        self._with_events: OrderedDict[TopicState, None] = OrderedDict()
        self._without: OrderedDict[TopicState, None] = OrderedDict()
        self._clients: dict[Hashable, _Client] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, topic: TopicState, now: float) -> None:
        """Keep a topic as the most recently used one, and drop topics beyond the limits."""
        self.drop(topic)
        log, client = topic.log, topic.client
        orders = [self._with_events if len(log) else self._without]
        size = TOPIC_COST + size_of(topic.name) + log.cost + log.encodings_cost
        if client is not None:
            own = self._clients.setdefault(client, _Client())
            own.size += size
            orders.append(own.order)
        for order in orders:
            order[topic] = None
        self._kept[topic] = _Kept(now + log.bounds.max_age, size, client, tuple(orders))
        self._size += size
        self._drop_old(now)
        if client is not None:
            self._hold_to_its_share(client)
        while len(self._kept) > self._max_topics or self._size > self._max_bytes:
            self.drop(next(iter(self._without or self._with_events)))

    def drop(self, topic: TopicState) -> None:
        """Remove a topic, if it is kept."""
        kept = self._kept.pop(topic, None)
        if kept is None:
            return
        self._size -= kept.size
        for order in kept.orders:
            del order[topic]
        own = self._clients.get(kept.client)
        if own is not None:
            own.size -= kept.size
            if not own.order:
                del self._clients[kept.client]

    def _drop_old(self, now: float) -> None:
        for order in (self._without, self._with_events):
            while order:
                oldest = next(iter(order))
                if self._kept[oldest].until > now:
                    break
                self.drop(oldest)

    def _hold_to_its_share(self, client: Hashable) -> None:
        while (own := self._clients.get(client)) is not None and (
            len(own.order) > self._max_topics * SHARE_OF_A_CLIENT
            or own.size > self._max_bytes * SHARE_OF_A_CLIENT
        ):
            self.drop(next(iter(own.order)))

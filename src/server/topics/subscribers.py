"""The subscribers of a topic: adding them, placing them in the log, and removing them."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import partial

from .cursors import EpochIds
from .delivery import Delivery
from .lagging import Lagging
from .shared import Replica, SharedLog
from .state import Registry, TopicState
from .subscription import TopicSubscription


class SubscribedLog(TopicState, Replica):
    """A topic's log with its subscribers.

    Args:
        name: the name of the topic.
        registry: the topics of the app.
        shared: the broker, or the log of this process.
    """

    client: Hashable

    def __init__(self, name: str, registry: Registry, shared: SharedLog) -> None:
        super().__init__(name, registry)
        self._shared = shared
        self._ids = shared.ids()
        self._known = False  # True if the log is complete; valid while the topic has subscribers
        # The subscriptions without a position, with their arguments and the time at which they must
        # begin.
        self._unplaced: list[tuple[TopicSubscription, str | None, str | None, float]] = []
        self._first_client: Hashable = None

    def add(
        self, subscription: TopicSubscription, after: str | None, otherwise: str | None = None
    ) -> None:
        """Any thread, once: begin a subscription after this id; see :meth:`WebSocket.subscribe`.

        If its position is unknown, it begins as soon as the position is known. If a signal handler
        or a finalizer calls this and has interrupted a method of the topic, the owner adds it.
        """
        loop, member = subscription.loop, subscription.member
        if self.entered():
            loop.call_soon(partial(self._add_later, subscription, after, otherwise))
            return
        with self.lock:
            self._drain_posted()
            if subscription.removed:  # the connection has ended in the meantime
                return
            if member is not None:
                self._shared.join(self, member)
            if not self._subscribers:
                self._known = self._shared.follow(self)
            self._note_client(subscription)
            self._subscribers += 1
            if loop not in self._deliveries:
                self._deliveries[loop] = Delivery(self, loop, subscription.receiver.totals)
            subscription.delivery = self._deliveries[loop]
            subscription.delivery.subscriptions += 1
            self.trim()
            if not self._place(subscription, after, otherwise):
                until = self.timing.clock() + self.timing.position_timeout
                self._unplaced.append((subscription, after, otherwise, until))
        self._registry.is_used(self)

    def _add_later(
        self, subscription: TopicSubscription, after: str | None, otherwise: str | None
    ) -> None:
        """The owner of the subscription: add it."""
        try:
            self.add(subscription, after, otherwise)
        except BaseException:
            subscription.end()
            raise
        if subscription.placed:
            subscription.begin()

    def _note_client(self, subscription: TopicSubscription) -> None:
        client = subscription.receiver.network
        if self._first_client is None:
            self.client = self._first_client = client
        elif client != self._first_client:
            self.client = None

    def remove(self, subscription: TopicSubscription) -> None:
        """Any thread: end a subscription; later calls do nothing."""
        with self.lock:
            self._remove(subscription)
            self.trim()  # drop the entries that were kept for this subscription
            unused = not self._subscribers
        if unused:
            self._registry.keep(self)

    def _remove(self, subscription: TopicSubscription) -> None:
        delivery, member = subscription.delivery, subscription.member
        if delivery is None or subscription.removed:
            subscription.removed = True
            return
        subscription.removed = True
        if self._deliveries.get(delivery.loop) is not delivery:
            return  # in the child of a fork, the subscriber belongs to the parent
        self.unmark_lagging(subscription)
        if not subscription.placed:
            self._unplaced = [other for other in self._unplaced if other[0] is not subscription]
        delivery.subscriptions -= 1
        if not delivery.subscriptions:
            del self._deliveries[delivery.loop]
            self._taken.notify_all()
        if member is not None:
            self._shared.leave(self, member)
        self._subscribers -= 1
        if not self._subscribers:
            self._shared.unfollow(self)

    def _place(
        self, subscription: TopicSubscription, after: str | None, otherwise: str | None
    ) -> bool:
        """Set the position of a subscription; return False if it is unknown."""
        log, position = self.log, None
        if not self._known:
            return False
        if after:
            position = self._ids.position(log, after)
            if position is None:
                position = log.position_of(after)
            elif position > log.head:
                return False
            subscription.missed = position is None or position < log.floor
        if position is None:  # a new client, or one with an unknown id
            newcomer = otherwise if after else after
            position = log.end if newcomer is None else log.begin()
        position = max(position, log.floor)
        subscription.position = min(position, log.end)
        subscription.placed = True
        self.mark_lagging(subscription)
        assert subscription.delivery is not None
        subscription.delivery.expect(subscription)
        return True

    def place(self) -> None:
        """The broker's thread: begin subscriptions with a known position or an expired wait."""
        if not self._unplaced:  # the common case: no subscription waits
            return
        with self.lock:
            unplaced, self._unplaced = self._unplaced, []
            for subscription, after, otherwise, until in unplaced:
                if not self._place(subscription, after, otherwise):
                    if self.timing.clock() < until or not self._known:
                        self._unplaced.append((subscription, after, otherwise, until))
                        continue
                    # No event with the client's last id has arrived in time, so this log does not
                    # contain it.
                    self._place(subscription, otherwise, None)
                    subscription.missed = True
                subscription.loop.call_soon(subscription.begin)

    # The child of a fork ----------------------------------------------------------------------

    def after_fork(self) -> None:
        """The child of a fork: drop the parent's subscribers, and create new ids and locks.

        If another thread was in the middle of a change, the child begins with an empty log.
        """
        torn = self.entered() or not self.lock.acquire(blocking=False)
        self.lock: threading.RLock = threading.RLock()
        self._taken = threading.Condition(self.lock)
        self._posted = []
        self._trim_scheduled = False
        self._unplaced = []
        self._deliveries = {}
        self._lagging = Lagging()
        self._subscribers = 0
        self._known = False
        if torn:
            self._renew_log(self.log.floor_id)
        if isinstance(self._ids, EpochIds):
            self._ids.begin_anew()

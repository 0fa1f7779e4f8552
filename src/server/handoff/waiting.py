"""Waiting room: the fair order in which turns and requests of routes and clients get a thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias

from .quotas import Holder, Shortage

__all__ = ["Waiter", "WaitingRoom"]


class Waiter(Protocol):
    """A turn or a request that can wait for a thread."""

    @property
    def needs_thread(self) -> bool:
        """True if the turn or request must run in a thread; False if it may begin on the loop."""

    def resume(self) -> None:
        """Loop owner: continue, because a thread is free."""


Queue: TypeAlias = "OrderedDict[Waiter, None]"


class WaitingRoom:
    """The turns and requests of one loop that wait for a thread. Only the owner calls its methods.

    Routes alternate, and client networks alternate within a route. Waiters of one network are
    served in order. Every operation takes constant time, except that :meth:`next` takes one step
    for each route, and for each network that uses its share.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, OrderedDict[Hashable, Queue]] = OrderedDict()
        self._holders: dict[Waiter, Holder] = {}

    def __len__(self) -> int:
        """Any thread: return the number of waiters."""
        return len(self._holders)

    def add(self, waiter: Waiter, holder: Holder) -> None:
        """Loop owner: add a waiter behind the others of the same route and network."""
        self._holders[waiter] = holder
        networks = self._queues.setdefault(holder.route, OrderedDict())
        networks.setdefault(holder.network, OrderedDict())[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        """Loop owner: remove a turn or a request, if it waits."""
        holder = self._holders.pop(waiter, None)
        if holder is None:
            return
        networks = self._queues[holder.route]
        queue = networks[holder.network]
        del queue[waiter]
        if not queue:
            del networks[holder.network]
        if not networks:
            del self._queues[holder.route]

    def next(self, shortage: Callable[[Waiter, Holder], Shortage | None]) -> Waiter | None:
        """Loop owner: remove and return the next waiter for which a thread is free, if any.

        Args:
            shortage: a function that returns the reason why no thread is free for a holder; None if
                a thread is free.
        """
        for route, networks in self._queues.items():
            for network, queue in networks.items():
                waiter = next(iter(queue))
                reason = shortage(waiter, Holder(route, network))
                if reason is None:
                    # After this waiter, those of other routes and other networks are resumed first.
                    self._queues.move_to_end(route)
                    networks.move_to_end(network)
                    self.discard(waiter)
                    return waiter
                if reason not in (Shortage.NETWORK, Shortage.PART):
                    break  # no thread is free for the other networks of the route either
        return None

"""What waits for a thread: fair to routes, and within a route to client addresses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias

from .quotas import Holder, Shortage

__all__ = ["Waiter", "WaitingRoom"]


class Waiter(Protocol):
    """What can wait for a thread."""

    @property
    def needs_thread(self) -> bool:
        """True if it must run in a thread of its own; otherwise it may begin on the loop."""

    def resume(self) -> None:
        """Owner: a thread is free; go on."""


Queue: TypeAlias = "OrderedDict[Waiter, None]"


class WaitingRoom:
    """The turns and requests of one loop that wait for a thread; all methods are the owner's.

    Routes take turns, and within a route the client addresses do; those of one address are served
    in the order in which they came. Every operation takes constant time, except for one step for
    each route, and for each address that uses its share, in :meth:`next`.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, OrderedDict[Hashable, Queue]] = OrderedDict()
        self._holders: dict[Waiter, Holder] = {}

    def __len__(self) -> int:
        """Any thread: how many wait."""
        return len(self._holders)

    def add(self, waiter: Waiter, holder: Holder) -> None:
        """Owner: let it wait behind the others of the same route and address."""
        self._holders[waiter] = holder
        addresses = self._queues.setdefault(holder.route, OrderedDict())
        addresses.setdefault(holder.network, OrderedDict())[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        """Owner: it waits no longer, if it did."""
        holder = self._holders.pop(waiter, None)
        if holder is None:
            return
        addresses = self._queues[holder.route]
        queue = addresses[holder.network]
        del queue[waiter]
        if not queue:
            del addresses[holder.network]
        if not addresses:
            del self._queues[holder.route]

    def next(self, shortage: Callable[[Waiter, Holder], Shortage | None]) -> Waiter | None:
        """Owner: remove and return the next one that finds a thread; None if none does.

        Args:
            shortage: returns why a waiter of this holder finds no thread; None if it does.
        """
        for route, addresses in self._queues.items():
            for network, queue in addresses.items():
                waiter = next(iter(queue))
                lacking = shortage(waiter, Holder(route, network))
                if lacking is None:
                    # The next one of another route, or of another address, comes first then.
                    self._queues.move_to_end(route)
                    addresses.move_to_end(network)
                    self.discard(waiter)
                    return waiter
                if lacking not in (Shortage.NETWORK, Shortage.PART):
                    break  # the other addresses of the route lack it as well
        return None

"""Quotas: the number of threads for one kind of work, for one route and for one client.

A client decides how long a connection lasts, and often how long a handler blocks. So each route and
each client network gets only a share of the threads, and one network only that share of a route's
share. If a client occupies all the threads of its network on a route, other routes still serve that
client, and the route still serves other clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple


class Holder(NamedTuple):
    """The route and the client that a thread works for.

    Attributes:
        route: the route whose code the thread runs.
        network: the client's IPv4 address, or its IPv6 network of 64 bits; None if it is not
            limited.
    """

    route: Hashable
    network: Hashable


def name_of(route: Hashable) -> object:
    """Return the name of a route for the log."""
    return getattr(route, "path", route)


class Shortage(Enum):
    """The reason why no thread is free."""

    ALL = "all threads are busy"
    ROUTE = "the route uses its share of the threads"
    NETWORK = "the client's network uses its share of the threads"
    PART = "the client's network uses its share of the route's threads"
    SYSTEM = "the system cannot start another thread"


class Quota(NamedTuple):
    """A limit on the threads of one kind of work.

    Attributes:
        setting: the name of the setting that defines the limit.
        limit: the number of threads.
        share: the maximum number of threads for one route, and for one client network.
        part: the maximum number of threads for one client network on one route.
    """

    setting: str
    limit: int
    share: int
    part: int

    @classmethod
    def of(cls, setting: str, limit: int, share: float) -> Quota:
        """Return a quota in which each route and network has a share, at least one thread."""
        return cls(setting, limit, max(1, int(limit * share)), max(1, int(limit * share**2)))

    def explain(self, shortage: Shortage) -> str:
        """Return the text of a shortage, with the limit and the settings, for the log."""
        match shortage:
            case Shortage.ALL:
                return f"{shortage.value} ({self.setting}={self.limit})"
            case Shortage.SYSTEM:
                return str(shortage.value)
            case _:
                share = self.part if shortage is Shortage.PART else self.share
                limits = f"{share} of {self.setting}={self.limit}"
                return f"{shortage.value} ({limits}; max_thread_share)"


class Usage:
    """The threads in use for one kind of work. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self.busy: int = 0
        self._routes: Counter[Hashable] = Counter()
        self._networks: Counter[Hashable] = Counter()
        self._parts: Counter[Hashable] = Counter()

    def add(self, holder: Holder) -> None:
        """Count a thread that starts to work for a holder."""
        self.busy += 1
        self._routes[holder.route] += 1
        if holder.network is not None:
            self._networks[holder.network] += 1
            self._parts[holder] += 1

    def remove(self, holder: Holder) -> None:
        """Subtract a thread that has worked for a holder."""
        self.busy -= 1
        _count_down(self._routes, holder.route)
        if holder.network is not None:
            _count_down(self._networks, holder.network)
            _count_down(self._parts, holder)

    def shortage(self, quota: Quota, holder: Holder) -> Shortage | None:
        """Return the limit that one more thread would exceed; None if the quota allows it."""
        if self.busy >= quota.limit:
            return Shortage.ALL
        if self._routes[holder.route] >= quota.share:
            return Shortage.ROUTE
        if holder.network is None:
            return None
        if self._networks[holder.network] >= quota.share:
            return Shortage.NETWORK
        return Shortage.PART if self._parts[holder] >= quota.part else None


def _count_down(counter: Counter[Hashable], key: Hashable) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]

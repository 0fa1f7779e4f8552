"""Quotas: how many threads all work of one kind may use, and how many of them one route or client.

A stranger decides how long a connection lasts, and often how long a handler blocks. So no route and
no client address gets more than a share of the threads, and one address gets no more than that
share of a route's. When a stranger holds all that one address may have of a route, other routes go
on for the same address, and the route goes on for others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple


class Holder(NamedTuple):
    """On whose behalf a thread works.

    Attributes:
        route: the route whose code it runs.
        network: the client's address, or its IPv6 network of 64 bits; None if it is not limited.
    """

    route: Hashable
    network: Hashable


def name_of(route: Hashable) -> object:
    """What to call a route in the log."""
    return getattr(route, "path", route)


class Shortage(Enum):
    """Why work gets no thread now."""

    ALL = "all threads are in use"
    ROUTE = "the route uses its share of the threads"
    NETWORK = "the client's address uses its share of the threads"
    PART = "the client's address uses its share of the route's threads"
    SYSTEM = "the system starts no more threads"


class Quota(NamedTuple):
    """A limit on the threads of one kind of work.

    Attributes:
        setting: the setting that it comes from.
        limit: how many threads there may be.
        share: how many of them one route may use, and one client address.
        part: how many of them one client address may use on one route.
    """

    setting: str
    limit: int
    share: int
    part: int

    @classmethod
    def of(cls, setting: str, limit: int, share: float) -> Quota:
        """A quota of which each route and address has this share, but at least one thread."""
        return cls(setting, limit, max(1, int(limit * share)), max(1, int(limit * share**2)))

    def explain(self, shortage: Shortage) -> str:
        """What to write into the log: the shortage, the limit and the settings."""
        match shortage:
            case Shortage.ALL:
                return f"{shortage.value} ({self.setting}: {self.limit})"
            case Shortage.SYSTEM:
                return str(shortage.value)
            case _:
                share = self.part if shortage is Shortage.PART else self.share
                limits = f"{share} of {self.setting}, which is {self.limit}"
                return f"{shortage.value} ({limits}; max_thread_share)"


class Usage:
    """How many threads do one kind of work now. Not thread-safe: its owner has a lock."""

    def __init__(self) -> None:
        self.busy = 0
        self._routes: Counter[Hashable] = Counter()
        self._networks: Counter[Hashable] = Counter()
        self._parts: Counter[Hashable] = Counter()

    def add(self, holder: Holder) -> None:
        """A thread begins to work for this holder."""
        self.busy += 1
        self._routes[holder.route] += 1
        if holder.network is not None:
            self._networks[holder.network] += 1
            self._parts[holder] += 1

    def remove(self, holder: Holder) -> None:
        """A thread ends its work for this holder."""
        self.busy -= 1
        _count_down(self._routes, holder.route)
        if holder.network is not None:
            _count_down(self._networks, holder.network)
            _count_down(self._parts, holder)

    def shortage(self, quota: Quota, holder: Holder) -> Shortage | None:
        """What this holder exceeds with one thread more; None if the quota allows it."""
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

"""The clients of Django's caches, which handlers borrow for one turn.

Django keeps cache clients in context variables, and each handler has its own context. So each idle
handler would keep a connection to Redis or memcached. With borrowed clients, the number of
connections is the largest number of turns that have run at the same time.
"""

from __future__ import annotations

from collections import deque

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

from ..server.forks import recreate_in_children


class Caches:
    """The pool of cache clients that no turn uses."""

    def __init__(self) -> None:
        self.after_fork()
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The constructor and the child of a fork: begin with an empty pool."""
        self._free: deque[dict[str, BaseCache]] = deque()

    def borrow(self) -> None:
        """The turn's thread: install cache clients from the pool for this turn."""
        try:
            clients = self._free.pop()
        except IndexError:
            return
        for alias, client in clients.items():
            caches[alias] = client

    def take_back(self) -> None:
        """The turn's thread: close the cache clients as after a request, and keep them."""
        connections = caches._connections  # type: ignore[attr-defined]
        used = {alias: caches[alias] for alias in caches if hasattr(connections, alias)}
        if used:
            caches.close_all()
            self._free.append(used)
            for alias in used:
                del caches[alias]


free_caches: Caches = Caches()

"""Who may come in: so many connections in all, and so many of one address that have yet to ask."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Hashable
from contextlib import suppress
from logging import WARNING
from typing import TYPE_CHECKING

from ..addresses import client_network, client_of
from ..reports.throttled import ThrottledLog

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from .peer import Peer

# Files that are kept for other things than connections.
SPARE_FILES = 32
# How many that are turned away may wait, at once, until they have read why.
LINGERING = SPARE_FILES // 2
# How many sockets Python's select() can wait for on Windows.
WITHOUT_RESOURCES = 512


class Admission:
    """Counts the connections of all loops; every method is for any thread.

    Args:
        max_connections: how many there may be; 0 for as many as the process may have files, but
            for a reserve.
        max_handshakes: how many of one address may be without a complete request; 0 for half of
            the connections.
    """

    def __init__(self, max_connections: int, max_handshakes: int) -> None:
        self.max_connections = max_connections or max(1, _max_files() - SPARE_FILES)
        self.max_handshakes = max_handshakes or max(1, self.max_connections // 2)
        self._lock = threading.Lock()  # for all that follows
        self._count = 0
        self._unfinished: dict[Peer, Hashable] = {}
        self._handshakes: Counter[Hashable] = Counter()
        self._turned_away: set[Peer] = set()
        self._throttled = ThrottledLog()

    def enter(self, peer: Peer) -> bool:
        """Let a new connection in, if there is room."""
        network = client_network(client_of(peer.address))
        with self._lock:
            room = self._count < self.max_connections
            may_ask = network is None or self._handshakes[network] < self.max_handshakes
            if room and may_ask:
                if network is not None:
                    self._handshakes[network] += 1
                    self._unfinished[peer] = network
                self._count += 1
                return True
        if room:
            self._throttled.log(
                WARNING,
                "no more connections of %s: %d have yet to ask for something",
                peer.address,
                self.max_handshakes,
            )
        else:
            self._throttled.log(WARNING, "no more connections: there are %d", self.max_connections)
        return False

    def may_linger(self, peer: Peer) -> bool:
        """Whether one that was not let in may stay until it has read why."""
        with self._lock:
            if len(self._turned_away) >= LINGERING:
                return False
            self._turned_away.add(peer)
            return True

    def request_complete(self, peer: Peer) -> None:
        """Note that a connection's request is complete."""
        with self._lock:
            self._end_handshake(peer)

    def leave(self, peer: Peer) -> None:
        """Note that a connection is over, whether it was let in or not."""
        with self._lock:
            if peer in self._turned_away:
                self._turned_away.discard(peer)
                return
            self._end_handshake(peer)
            self._count -= 1

    def _end_handshake(self, peer: Peer) -> None:
        network = self._unfinished.pop(peer, None)
        if network is not None:
            self._handshakes[network] -= 1
            if not self._handshakes[network]:
                del self._handshakes[network]


def allow_all_files() -> None:
    """Any thread: let the process have as many files as the system allows it.

    What is set is often 1,024, for the sake of programs that call ``select``.
    """
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(ValueError, OSError):  # macOS names a limit that it does not keep
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _max_files() -> int:
    if resource is None:
        return WITHOUT_RESOURCES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft

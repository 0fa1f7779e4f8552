"""Admission: the limits on all connections, and on one network's connections without a request."""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable
from contextlib import suppress
from logging import WARNING
from typing import TYPE_CHECKING

from wsframe.headers import encode_response

from ..addresses import client_network, client_of
from ..headers import layered
from ..reports.throttled import ThrottledLog

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from .peer import Connections, Peer

# The number of file descriptors that are reserved for other purposes than connections.
SPARE_FILES = 32
# The maximum number of refused connections that stay open until the client has read the answer.
LINGERING = SPARE_FILES // 2
# The headers of the answer to a connection beyond a limit.
UNAVAILABLE = [("Retry-After", "5"), ("Content-Length", "0"), ("Connection", "close")]
# The number of sockets that Python's select() supports on Windows.
WITHOUT_RESOURCES = 512


class Admission:
    """The counts of the connections on all loops. Any thread may call the methods.

    Args:
        max_connections: the limit on connections; 0 for the open-file limit minus 32.
        max_handshakes: the limit on connections of one network without a complete request; 0 for
            half of ``max_connections``.
    """

    def __init__(self, max_connections: int, max_handshakes: int) -> None:
        self.max_connections: int = max_connections or max(1, max_files() - SPARE_FILES)
        self.max_handshakes: int = max_handshakes or max(1, self.max_connections // 2)
        self._lock = threading.Lock()  # protects the following attributes
        self._count = 0
        self._unfinished: dict[Peer, Hashable] = {}
        self._handshakes: dict[Hashable, int] = {}
        self._turned_away: set[Peer] = set()
        self._throttled = ThrottledLog()

    @property
    def count(self) -> int:
        """The number of admitted connections."""
        return self._count

    def enter(self, peer: Peer, *, with_address: bool = True) -> bool:
        """Count a new connection; return False if a limit is reached, which is logged.

        Args:
            peer: the connection.
            with_address: False if the address of the client is not known yet. A call of
                :meth:`enter_address` may follow.
        """
        with self._lock:
            room = self._count < self.max_connections
            admitted = room and (not with_address or self._begin_handshake(peer))
            self._count += admitted
        if not admitted:
            self._log(peer, room=room)
        return admitted

    def enter_address(self, peer: Peer) -> bool:
        """Count an admitted connection for its address; return False as :meth:`enter` does."""
        with self._lock:
            admitted = self._begin_handshake(peer)
        if not admitted:
            self._log(peer, room=True)
        return admitted

    def _log(self, peer: Peer, *, room: bool) -> None:
        """Log that a limit is reached: that of an address, or that of all connections."""
        if room:
            self._throttled.log(
                WARNING,
                "refusing %s: %d connections of this client's network have not sent a request yet "
                "(max_handshakes_per_address)",
                peer.address,
                self.max_handshakes,
            )
        else:
            self._throttled.log(
                WARNING,
                "refusing %s: %d connections are open (max_connections)",
                peer.address,
                self.max_connections,
            )

    def may_linger(self, peer: Peer, *, admitted: bool = False) -> bool:
        """Return True if a refused connection may stay open until the client reads the answer.

        Args:
            peer: the connection.
            admitted: True if it was counted by :meth:`enter`. It no longer counts if it lingers.
        """
        with self._lock:
            if len(self._turned_away) >= LINGERING:
                return False
            self._turned_away.add(peer)
            self._count -= admitted
            return True

    def request_complete(self, peer: Peer) -> None:
        """Count the connection as one with a complete request."""
        with self._lock:
            self._end_handshake(peer)

    def leave(self, peer: Peer) -> None:
        """Subtract a connection that has ended, whether it was admitted or not."""
        with self._lock:
            if peer in self._turned_away:
                self._turned_away.discard(peer)
                return
            self._end_handshake(peer)
            self._count -= 1

    def _begin_handshake(self, peer: Peer) -> bool:
        """Count a connection for its network; return False if that has reached its limit."""
        network = client_network(client_of(peer.address))
        if network is None:
            return True
        count = self._handshakes.get(network, 0)
        if count >= self.max_handshakes:
            return False
        self._handshakes[network] = count + 1
        self._unfinished[peer] = network
        return True

    def _end_handshake(self, peer: Peer) -> None:
        network = self._unfinished.pop(peer, None)
        if network is not None:
            self._handshakes[network] -= 1
            if not self._handshakes[network]:
                del self._handshakes[network]


def unavailable(clients: Connections) -> bytes:
    """Any thread: return the answer to a connection of this loop that is beyond a limit."""
    return encode_response(503, layered(UNAVAILABLE, clients.headers))


def allow_all_files() -> None:
    """Any thread: raise the open-file limit of the process to the hard limit.

    The soft limit is often 1024, because ``select`` does not support higher descriptors.
    """
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(ValueError, OSError):  # macOS rejects the hard limit that it reports itself
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_files() -> int:
    """Any thread: return the open-file limit of the process."""
    if resource is None:
        return WITHOUT_RESOURCES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft

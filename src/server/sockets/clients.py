"""The connections of one loop: their set, deadlines and totals, and their shutdown."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from wsframe.headers import pairs

from ..reports.refusals import Refusals
from ..reports.stats import EVENT_STREAM, REQUEST, WEBSOCKET, Stats, Totals
from .identities import Identities
from .shutdown import PacedShutdown

if TYPE_CHECKING:
    from ..handoff.loop import Loop
    from ..headers import Pairs
    from ..settings import Settings
    from .peer import Peer

# The maximum number of connections whose deadlines are checked between two polls of the sockets.
SWEEP_BATCH = 512


class Clients:
    """The connections of one loop.

    Args:
        loop: the loop that serves them.
        settings: the server's settings.
        on_disconnect: a function that the owner calls with each connection that has ended.
        network_of: a function that returns the client network of a connection, for the limit on
            threads of one network; None if this connection is not limited.
        on_identity: a function that the owner calls when a connection gets an identity.

    Attributes:
        loop, settings, network_of: the arguments.
        headers: the headers of every answer, from the settings.
        peers: the open connections; only the owner changes the set.
        totals: counters over all connections, including ended ones.
        refusals: counters of the refused requests.
        identities: the open connections by their identity.
        sendable: the condition that is notified when bytes that other threads have queued were
            sent.
    """

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        on_disconnect: Callable[[Peer], object] = lambda peer: None,
        network_of: Callable[[Peer], Hashable] = lambda peer: None,
        on_identity: Callable[[], object] = lambda: None,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.headers: Pairs = tuple(pairs(settings.headers))
        self.peers: set[Peer] = set()
        self.totals: Totals = Totals()
        self.refusals: Refusals = Refusals()
        self.identities: Identities = Identities(loop, on_identity)
        self.sendable: threading.Condition = threading.Condition()
        self.network_of = network_of
        self._on_disconnect = on_disconnect
        self._when_empty: Callable[[], object] | None = None
        self._shutdown: PacedShutdown | None = None
        self._sweep: Iterator[Peer] | None = None
        loop.tick = self._tick
        loop.on_task_end = self._check_empty

    def add(self, peer: Peer) -> None:
        """Loop owner: add a new connection."""
        assert self.loop.owned()
        self.loop.start_ticks()
        with self.totals.lock:
            self.peers.add(peer)
            self.totals.accepted += 1

    def remove(self, peer: Peer) -> None:
        """Loop owner: remove a connection that has ended."""
        assert self.loop.owned()
        with self.totals.lock:
            self.peers.discard(peer)
            self.totals.take_over(peer)
        self.identities.remove(peer)
        self._on_disconnect(peer)
        self._check_empty()

    def for_each_peer(self, function: Callable[[Peer], object]) -> None:
        """Loop owner: call ``function`` with each connection; an error ends only that one."""
        for peer in tuple(self.peers):
            self.loop.call_safely(function, peer)

    def shut_down_paced(self, spread: float, phase: float) -> None:
        """Loop owner: begin to close the connections one by one; see :class:`PacedShutdown`.

        A connection without a request is served if its request arrives soon, and otherwise closed.
        Browsers (RFC 9110 section 9.2.2) and proxies repeat an unread request on another
        connection.
        """
        grace = min(spread, self.loop.timing.request_grace)
        self._shutdown = PacedShutdown(self.peers, spread, phase, self.loop.clock(), grace)
        self.loop.tick_soon()

    def when_empty(self, function: Callable[[], object]) -> None:
        """Loop owner: call ``function`` as soon as no connection is open and no user code runs."""
        self._when_empty = function
        self._check_empty()

    def _check_empty(self) -> None:
        if self._when_empty is not None and not self.peers and not self.loop.unfinished:
            self._when_empty()

    def _tick(self, now: float) -> float | None:
        """Loop owner: check the deadlines of some connections.

        Returns:
            The pause until the next call, in seconds; None if there are no connections.
        """
        timing = self.loop.timing
        if self._sweep is None:
            if self._shutdown is not None:
                for peer in self._shutdown.due(now):
                    self.loop.call_safely(peer.shut_down)
            self._sweep = iter(tuple(self.peers))
        peers = list(islice(self._sweep, SWEEP_BATCH))
        for peer in peers:
            if peer.next_check <= now:
                self.loop.call_safely(peer.check, now)
            if peer.deadline <= now:
                self.loop.call_safely(peer.deadline_passed)
        if len(peers) == SWEEP_BATCH:
            return 0
        self._sweep = None
        if not self.peers:
            return None
        return timing.sweep_interval if self._shutdown is None else timing.paced_shutdown_interval

    def open_peers(self) -> set[Peer]:
        """Any thread: return the open connections."""
        with self.totals.lock:
            return self.peers.copy()

    def stats(self) -> Stats:
        """Any thread: the statistics of this loop and its connections."""
        totals = self.totals
        # A connection that ends during this call must be counted exactly once, so that no sum
        # decreases.
        with totals.lock:
            peers = self.peers.copy()
            messages_in, messages_out = totals.messages_in, totals.messages_out
            bytes_in, bytes_out = totals.bytes_in, totals.bytes_out
        kinds = Counter(peer.record.kind for peer in peers)
        return Stats(
            requests=kinds[REQUEST],
            websockets=kinds[WEBSOCKET],
            event_streams=kinds[EVENT_STREAM],
            accepted=totals.accepted,
            refused=dict(self.refusals.by_status),
            refused_for=dict(self.refusals.by_reason),
            messages_in=messages_in + sum(peer.messages_in for peer in peers),
            messages_out=messages_out + sum(peer.messages_out for peer in peers),
            bytes_in=bytes_in + sum(peer.bytes_in for peer in peers),
            bytes_out=bytes_out + sum(peer.bytes_out for peer in peers),
            handoffs=self.loop.handoffs,
            handlers_waiting=len(self.loop.waiting),
            orphaned_handlers=len(self.loop.overdue),
            loops=1,
            slow_clients=totals.slow_clients,
            ping_timeouts=totals.ping_timeouts,
            subscriptions=totals.subscriptions,
            topic_events=totals.topic_events,
        )

    def after_fork(self) -> None:
        """The child of a fork: close the copies of the sockets, after the loop's own copies."""
        self.sendable = threading.Condition()  # a thread of the parent may hold the old condition
        self.totals.lock = threading.Lock()
        peers, self.peers = self.peers, set()
        for peer in peers:
            peer.after_fork()

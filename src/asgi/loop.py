"""AsyncioLoop: an adapter from an asyncio event loop to the interface that topics require."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from ..server.handoff.safe_calls import SafeCalls
from ..server.pure_rounds import IncompleteBlock
from ..server.sockets.identities import Connection, Identities
from ..server.sockets.snapshot import ConnectionInfo
from ..server.topics.registry import Topics as Registry
from .sends import Sends
from .stopping import server_stops

# The number of streams that one callback of the event loop ends.
STOP_SLICE = 64


class OpenStream(Connection, Protocol):
    """The methods of a stream that its loop and :class:`Topics` call."""

    def finish(self, *last: bytes) -> None:
        """Loop owner: end the stream after the queued events and the argument's bytes."""

    def info(self, now: float) -> ConnectionInfo:
        """Any thread: return the facts about the stream at a time on the clock of its topics."""


class BlockReceiver(Protocol):
    """The methods and attributes of a client that its loop uses.

    Attributes:
        frames_out: the number of events sent.
    """

    frames_out: int

    @property
    def send_closed(self) -> bool:
        """Loop owner: True if the client accepts no more data to send."""

    @property
    def has_unsent(self) -> bool:
        """Loop owner: True while a send is not complete."""

    def send(self, data: bytes) -> bool:
        """Loop owner: send data, while no other send runs; return True if the send is complete."""


class LoopTotals:
    """The counters of one loop.

    Attributes:
        subscriptions: current subscriptions.
        topic_events: events sent.
    """

    def __init__(self) -> None:
        self.subscriptions = 0
        self.topic_events = 0


class AsyncioLoop(SafeCalls):
    """One event loop and its streams; its owner is the thread that runs it, outside of tasks.

    While the loop has streams, it is one of the registry's loops.

    Args:
        loop: the event loop.
        registry: the topics of the streams.

    Attributes:
        loop: the event loop.
        sends: starts the sends to clients.
        streams: the open streams; only the owner changes the set.
        identities: the open streams by their identity.
        totals: the counters that topics increment.
    """

    place = "an event stream"

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: Registry) -> None:
        self.loop = loop
        self.sends: Sends = Sends(loop)
        self.streams: set[OpenStream] = set()
        self.identities: Identities = Identities(self, registry.closings.follow)
        self.totals: LoopTotals = LoopTotals()
        self._registry = registry
        self._calls: deque[Callable[[], object]] = deque()
        self._scheduled = False  # True if the event loop will run _run_calls
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def running(cls, registry: Registry) -> AsyncioLoop:
        """The thread of an event loop: return the object for it, a new one if it has no streams."""
        running = asyncio.get_running_loop()
        for loop in registry.loops:
            if isinstance(loop, cls) and loop.loop is running:
                return loop
        return cls(running, registry)

    # Any thread -------------------------------------------------------------------------------

    def owned(self) -> bool:
        """Any thread: return True if the calling thread runs the event loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread, also in a signal handler: queue ``function`` for the owner."""
        self._calls.append(function)
        if self._scheduled:
            return
        self._scheduled = True
        try:
            self.loop.call_soon_threadsafe(self._make_calls)
        except RuntimeError:  # the event loop was closed, and its streams with it
            self._leave()
            self._calls.clear()

    # Loop owner -------------------------------------------------------------------------------

    def slow_down(
        self, reason: object, when_over: Callable[[Callable[[], object]], object]
    ) -> None:
        """Loop owner: do nothing, because a coroutine that publishes cannot be delayed."""

    def send_block(
        self, peers: list[BlockReceiver], block: bytes, count: int
    ) -> Sequence[IncompleteBlock]:
        """Loop owner: send the same data to several clients that have no unsent data.

        Returns:
            The clients that the data was not sent to, and the clients whose sends are not complete.
        """
        incomplete: list[IncompleteBlock] = []
        for number, client in enumerate(peers):
            if client.has_unsent or client.send_closed:
                incomplete.append((number, None, 0))
                continue
            client.frames_out += count
            if not client.send(block):
                incomplete.append((number, (), 0))
        return incomplete

    def add(self, stream: OpenStream) -> None:
        """Loop owner: add a stream."""
        if not self.streams:
            self._registry.add_loop(self)
            self._registry.closings.add(self.identities.close_soon)
            self._watch()
        self.streams.add(stream)

    def discard(self, stream: OpenStream) -> None:
        """Loop owner: remove a stream."""
        self.identities.remove(stream)
        self.streams.remove(stream)
        if not self.streams:
            self._leave()
            self.sends.close()
            assert self._timer is not None
            self._timer.cancel()

    def end_streams(self) -> None:
        """Loop owner: end all streams; their clients reconnect to another server, or later."""
        self._end(tuple(self.streams))

    def _end(self, streams: tuple[OpenStream, ...]) -> None:
        for stream in streams[:STOP_SLICE]:
            self.call_safely(stream.finish)
        if streams[STOP_SLICE:]:
            self.call_soon(partial(self._end, streams[STOP_SLICE:]))

    def _leave(self) -> None:
        """Any thread: leave the registry, which makes no more calls."""
        self._registry.remove_loop(self)
        self._registry.closings.remove(self.identities.close_soon)

    def _watch(self) -> None:
        """Check periodically if the ASGI server is stopping."""
        if server_stops():
            self.end_streams()
        self._timer = self.loop.call_later(self._registry.timing.sweep_interval, self._watch)

    def _make_calls(self) -> None:
        """Call the queued functions; functions that are queued meanwhile run in the next round."""
        self._scheduled = False
        for _ in range(len(self._calls)):
            self.call_safely(self._calls.popleft())

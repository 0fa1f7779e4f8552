"""The I/O loop: one thread on one selector, and the only one that touches sockets.

The rules of ownership, which every method's first words refer to:

- *owner*: only the thread that runs the loop may call it. It alone reads, writes, registers and
  closes sockets, runs the codec's receiving side and looks at deadlines. Asserted, but for -O.
- *any thread*: appends to a queue of the loop or of a connection, and wakes the loop if it sleeps.
"""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .peer import Peer

log = logging.getLogger("wsframe.server")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

RECEIVE_BUFFER = 256 * 1024
SWEEP_INTERVAL = 0.5  # seconds between two looks at the deadlines


class Loop:
    """One I/O loop.

    Attributes:
        peers: the connections that live on this loop; the owner's to look at.
        buffer: where every read of the loop goes; what is to be kept of it is copied.
        sendable: guards the bytes that other threads have queued; notified when some have gone out.
        send_timeout: how long a client may take nothing of what waits for it, in seconds.
    """

    def __init__(self, send_timeout: float) -> None:
        self.send_timeout = send_timeout
        self.peers: set[Peer] = set()
        self.buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self.sendable = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._selector.register(self._wakened, READ, self._drain_waker)
        self._calls: deque[Callable[[], object]] = deque()
        # Has one item while the owner is about to sleep; whoever pops it wakes the owner.
        self._asleep: list[None] = []
        self._when_empty: Callable[[], object] | None = None
        self._running = True
        self._owner = 0
        self._thread = threading.Thread(target=self._run, name="wsframe-loop", daemon=True)

    def start(self) -> None:
        """Any thread, once: start the loop's thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Any thread but the owner, once: stop the loop, and wait for its thread.

        A handler that blocks it for longer than that many seconds is logged with what it is doing,
        and the thread is left behind.
        """
        self.call_soon(self._end)
        self._thread.join(timeout)
        frame = sys._current_frames().get(self._owner)
        if frame is not None:  # it has not ended
            stack = "".join(traceback.format_stack(frame))
            log.error("a handler blocks the loop, which is left behind:\n%s", stack)

    def owned(self) -> bool:
        """Any thread: whether the calling thread is the owner."""
        return threading.get_ident() == self._owner

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread: have the owner call this, after what was asked for before."""
        self._calls.append(function)
        try:
            self._asleep.pop()
            self._waker.send(b"\0")
        except (IndexError, OSError):
            return  # it does not sleep, or has ended

    def register(self, sock: socket.socket, events: int, ready: Callable[[int], object]) -> None:
        """Owner: call ``ready(events)`` when the socket is, until told otherwise."""
        assert self.owned()
        self._selector.register(sock, events, ready)

    def modify(self, sock: socket.socket, events: int, ready: Callable[[int], object]) -> None:
        """Owner: change what is waited for."""
        assert self.owned()
        self._selector.modify(sock, events, ready)

    def unregister(self, sock: socket.socket) -> None:
        """Owner: wait for this socket no longer."""
        assert self.owned()
        self._selector.unregister(sock)

    def add(self, peer: Peer) -> None:
        """Owner: a connection begins."""
        assert self.owned()
        self.peers.add(peer)

    def remove(self, peer: Peer) -> None:
        """Owner: a connection is over."""
        assert self.owned()
        self.peers.discard(peer)
        if not self.peers and self._when_empty is not None:
            self._when_empty()

    def for_each_peer(self, tell: Callable[[Peer], object]) -> None:
        """Owner: call this for every connection, whatever happens to one of them."""
        for peer in tuple(self.peers):
            self._survive(tell, peer)

    def when_empty(self, function: Callable[[], object]) -> None:
        """Owner: call this as soon as no connection is left."""
        self._when_empty = function
        if not self.peers:
            function()

    def _end(self) -> None:
        self._running = False

    def _drain_waker(self, events: int) -> None:
        self._wakened.recv(64)

    def _run(self) -> None:
        self._owner = threading.get_ident()
        select = self._selector.select
        next_sweep = 0.0
        while self._running:
            # To announce sleep first and then look once more is what loses no wake-up.
            self._asleep.append(None)
            timeout = 0.0 if self._calls else SWEEP_INTERVAL if self.peers else None
            ready = select(timeout)
            self._asleep.clear()
            for key, events in ready:
                self._survive(key.data, events)
            for _ in range(len(self._calls)):
                self._survive(self._calls.popleft())
            if self.peers and (now := monotonic()) >= next_sweep:
                next_sweep = now + SWEEP_INTERVAL
                for peer in [peer for peer in self.peers if peer.deadline <= now]:
                    self._survive(peer.deadline_passed)
                for peer in [peer for peer in self.peers if peer.send_deadline <= now]:
                    self._survive(peer.stalled)
        self._owner = 0  # a thread that is started later may get the same identifier
        self._selector.close()
        self._waker.close()
        self._wakened.close()

    def _survive(self, function: Callable[..., object], *arguments: object) -> None:
        """One connection's fault must not end the others."""
        try:
            function(*arguments)
        except Exception:
            log.exception("a defect in the server")
            peer = getattr(function, "__self__", None)
            if peer in self.peers:
                self._survive(peer.abort)

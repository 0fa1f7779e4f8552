"""Sinks: sockets whose received data is discarded until their other end is closed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..forks import close_in_children
from ..handoff.loop import READ

if TYPE_CHECKING:
    from ..handoff.loop import Loop


class Sinks:
    """The sinks of one loop. The end of the loop closes all of them.

    Args:
        loop: the loop, before its start.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: set[Sink] = set()
        loop.at_end(self._close)

    def add(self, sock: socket.socket) -> None:
        """Loop owner: discard the data of a socket until its other end is closed, then close it."""
        sink = Sink(sock, self._loop, self._open.discard)
        self._open.add(sink)
        self._loop.register(sock, READ, sink)

    def _close(self) -> None:
        """Loop owner, at the end of the loop: close the sockets."""
        for sink in self._open:
            sink.sock.close()
        self._open.clear()


class Sink:
    """One socket whose data is discarded. Only the owner calls its methods.

    Attributes:
        sock: the socket.
    """

    def __init__(
        self, sock: socket.socket, loop: Loop, when_closed: Callable[[Sink], object]
    ) -> None:
        self.sock: socket.socket = close_in_children(sock)
        self._loop = loop
        self._when_closed = when_closed
        sock.setblocking(False)

    def ready(self, events: int) -> None:
        """Loop owner: discard received data; ``events`` may be outdated, so they are ignored."""
        try:
            size = self.sock.recv_into(self._loop.buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._loop.unregister(self.sock)
            self._when_closed(self)
            self.sock.close()

"""The poller: the files that a loop waits for, and the memory for the data of one round."""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from .. import pure_rounds, rounds
from ..pure_rounds import Incomplete, IncompleteBlock, Received
from ..rounds import Wire

__all__ = ["HANGUP", "READ", "WRITE", "Poller"]

# The events to wait for, and the events of a ready file: epoll's numbers, on every system.
READ, WRITE = 0x001, 0x004
# The event that the client has closed its side; earlier data may be unread. Only epoll reports it.
HANGUP = 0x2000

# The size of the memory for the data of one round, in bytes. One client may use half of it.
BUFFER_SIZE = 512 * 1024
# The size of the memory in which one client's short messages are joined, in bytes.
SCRATCH_SIZE = 256 * 1024


class Poller:
    """The files that a loop waits for. Only the owner calls its methods.

    The poller uses epoll, or else the selectors module. With epoll, the compiled functions of
    :mod:`wsframe.server.rounds` make the system calls, if they were built.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(BUFFER_SIZE)
        self._scratch = bytearray(SCRATCH_SIZE)
        self._wires: list[Wire | None] = []  # the connections by descriptor
        # epoll is missing on other systems than Linux, and if gevent or eventlet has removed it.
        self._files: Any = select.epoll() if hasattr(select, "epoll") else Selector()
        #: Loop owner: change the events of a file.
        self.modify: Callable[[int, int], object] = self._files.modify
        self._io: Any = rounds.chosen if rounds.usable() else pure_rounds
        #: Loop owner: wait for some seconds, receive and decode; see ``pure_rounds.receive``.
        self.receive: Callable[[float | None], tuple[list[Received], list[tuple[int, int]]]]
        self.receive = partial(self._io.receive, self._files, self._wires, self._buffer)

    def register(self, fd: int, events: int, wire: Wire | None = None) -> None:
        """Loop owner: wait for events of a file.

        Args:
            fd: the file's descriptor.
            events: ``READ``, ``WRITE`` and ``HANGUP``, combined with ``|``.
            wire: the connection, if the file is its socket.
        """
        self._files.register(fd, events)
        if wire is not None:
            self._wires += [None] * (fd + 1 - len(self._wires))
            self._wires[fd] = wire

    def unregister(self, fd: int) -> None:
        """Loop owner: stop waiting for events of a file."""
        if fd < len(self._wires):
            self._wires[fd] = None
        self._files.unregister(fd)

    def wire(self, fd: int) -> Any:
        """Loop owner: return the registered connection with this descriptor; None without one."""
        return self._wires[fd] if fd < len(self._wires) else None

    def close(self) -> None:
        """Loop owner: close the poller's own file."""
        self._files.close()

    def send(self, connections: list[Wire]) -> list[Incomplete]:
        """Loop owner: send queued items; see :func:`wsframe.server.pure_rounds.send`."""
        incomplete: list[Incomplete] = self._io.send(connections, self._scratch)
        return incomplete

    def send_block(
        self, connections: list[Wire], block: bytes, count: int
    ) -> list[IncompleteBlock]:
        """Loop owner: send the same data; see :func:`wsframe.server.pure_rounds.send_block`."""
        incomplete: list[IncompleteBlock] = self._io.send_block(connections, block, count)
        return incomplete


class Selector:
    """A selector of the standard library, with the methods and the events of epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close: Callable[[], None] = self._selector.close

    def register(self, fd: int, events: int) -> None:
        """Loop owner: wait for events of a file, except ``HANGUP``, unknown to selectors."""
        wanted = selectors.EVENT_READ if events & READ else 0
        wanted |= selectors.EVENT_WRITE if events & WRITE else 0
        if wanted:
            self._selector.register(fd, wanted)

    def unregister(self, fd: int) -> None:
        """Loop owner: stop waiting for events of a file."""
        with suppress(KeyError):  # a file without requested events is not registered
            self._selector.unregister(fd)

    def modify(self, fd: int, events: int) -> None:
        """Loop owner: change the events of a file."""
        self.unregister(fd)
        self.register(fd, events)

    def poll(self, timeout: float | None, at_most: int) -> list[tuple[int, int]]:
        """Loop owner: return the ready files with their events.

        Args:
            timeout: the longest time to wait, in seconds; None for no limit.
            at_most: unused, because selectors have no such limit.
        """
        ready = []
        for key, mask in self._selector.select(timeout):
            events = READ if mask & selectors.EVENT_READ else 0
            events |= WRITE if mask & selectors.EVENT_WRITE else 0
            ready.append((key.fd, events))
        return ready

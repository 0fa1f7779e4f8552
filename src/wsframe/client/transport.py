"""A connected socket, plain or TLS, that never makes a thread wait but where it asks to."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
from contextlib import suppress

from ..progress import unacknowledged
from ..waker import Waker

# SSLSocket.shutdown would have another thread go on without TLS.
_shutdown = socket.socket.shutdown
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# The most that a record of TLS has (RFC 8446 section 5.1). More in one call is not sent in part: it
# would be encrypted and sent, and not be seen to be, until all of it is.
RECORD = 1 << 14

# What waits for few sockets at the least cost: no file of its own, no limit on their numbers.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def cut(sock: socket.socket, process: int) -> None:
    """End a connection; its descriptor is still to be closed.

    ``close`` alone ends nothing while a child process holds a copy of the descriptor. A child that
    closes its own copy leaves the connection to its parent.

    Args:
        process: the number of the process that has connected.
    """
    if process == os.getpid():
        with suppress(OSError):  # it is not connected any more
            _shutdown(sock, socket.SHUT_RDWR)


class Transport:
    """A connected socket of this object's own.

    The caller sees to it that only one thread at a time is in any method but :meth:`poll`, which
    one thread may be in besides.

    Attributes:
        receives_on: the event that :meth:`receive` has to wait for; with TLS it may be WRITE.
        sends_on: the event that :meth:`send` has to wait for; with TLS it may be READ.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.receives_on = READ
        self.sends_on = WRITE
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._process = os.getpid()
        self._events = 0  # that the socket is registered for
        self._waker = Waker()
        self._selector = Selector()
        self._selector.register(self._waker, READ)

    def receive(self, buffer: memoryview) -> int | None:
        """Take what has come.

        Args:
            buffer: of 16 KiB and more, which is what a record of TLS can have (RFC 8446 section
                5.1): what is left of one is where :meth:`poll` does not see it.

        Returns:
            The number of bytes; 0 at the end; None if nothing is there.

        Raises:
            OSError: the connection is lost.
        """
        try:
            return self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            self.receives_on = READ
        except ssl.SSLWantWriteError:
            self.receives_on = WRITE
        return None

    def send(self, data: memoryview) -> int:
        """Send as much as the socket takes at once; what is left is to be sent next.

        Returns:
            The number of bytes.

        Raises:
            OSError: the connection is lost.
        """
        try:
            return self._sock.send(data if self._tls is None else data[:RECORD])
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.sends_on = WRITE
        except ssl.SSLWantReadError:
            self.sends_on = READ
        return 0

    def unacknowledged(self) -> int:
        """How many bytes the system has taken, and the server has not acknowledged."""
        return unacknowledged(self._sock)

    def poll(self, events: int, timeout: float) -> bool:
        """Wait until the socket is ready for one of these events, until :meth:`wake`, or so long.

        Returns:
            Whether the socket is ready.
        """
        if events != self._events:
            self._register(events)
        ready = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._sock:
                ready = True
            else:
                self._waker.drain()
        return ready

    def wake(self) -> None:
        """End the :meth:`poll` that another thread is in."""
        self._waker.wake()

    def close(self) -> None:
        """Close the socket; nobody is in :meth:`poll`."""
        if self._tls is not None and self._process == os.getpid():
            with suppress(OSError, ValueError):  # says goodbye if that takes no waiting
                self._tls.unwrap()
        cut(self._sock, self._process)
        for resource in (self._selector, self._sock, self._waker):
            resource.close()

    def _register(self, events: int) -> None:
        if not self._events:
            self._selector.register(self._sock, events)
        elif not events:
            self._selector.unregister(self._sock)
        else:
            self._selector.modify(self._sock, events)
        self._events = events

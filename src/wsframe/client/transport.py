"""A connected socket, plain or TLS, that blocks a thread only in :meth:`Transport.poll`."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
from contextlib import suppress

from ..progress import unacknowledged
from ..waker import Waker

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# The size of the largest TLS record (RFC 8446 section 5.1). A call with more data reports no
# progress until all of its records are sent.
RECORD = 1 << 14

# The cheapest selector for few sockets, which uses no descriptor and supports high descriptors.
Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


def cut(sock: socket.socket, process: int) -> None:
    """Disconnect a socket; the caller must still close it.

    ``close`` alone does not disconnect while a child process holds a copy of the descriptor. A
    child that closes its own copy must not disconnect its parent.

    Args:
        sock: the socket.
        process: the id of the process that connected the socket.
    """
    if process == os.getpid():
        with suppress(OSError):  # the socket is no longer connected
            if isinstance(sock, ssl.SSLSocket):
                # SSLSocket.shutdown is not called, because another thread would continue without
                # TLS.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            else:
                sock.shutdown(socket.SHUT_RDWR)


class Transport:
    """A connected socket, which this object owns.

    Only one thread at a time may be in its methods. One more thread may be in :meth:`poll`.

    Attributes:
        receives_on: the event that :meth:`receive` waits for; with TLS it may be WRITE.
        sends_on: the event that :meth:`send` waits for; with TLS it may be READ.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.receives_on: int = READ
        self.sends_on: int = WRITE
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._process = os.getpid()
        self._events = 0  # the events for which the socket is registered
        self._waker = Waker()
        self._selector = Selector()
        self._selector.register(self._waker, READ)

    def receive(self, buffer: memoryview) -> int | None:
        """Receive available bytes.

        Args:
            buffer: a buffer of at least 16 KiB, the largest TLS record (RFC 8446 section 5.1),
                because :meth:`poll` does not see the rest of a record.

        Returns:
            The number of bytes; 0 at the end of the input; None if no bytes are available.

        Raises:
            OSError: the connection was lost.
        """
        try:
            return self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            self.receives_on = READ
        except ssl.SSLWantWriteError:
            self.receives_on = WRITE
        return None

    def send(self, data: memoryview) -> int:
        """Send as much as the socket accepts without blocking; the rest must be sent next.

        Returns:
            The number of bytes.

        Raises:
            OSError: the connection was lost.
        """
        try:
            return self._sock.send(data if self._tls is None else data[:RECORD])
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.sends_on = WRITE
        except ssl.SSLWantReadError:
            self.sends_on = READ
        return 0

    def unacknowledged(self) -> int:
        """Return the number of sent bytes that the server has not acknowledged."""
        return unacknowledged(self._sock)

    def poll(self, events: int, timeout: float) -> bool:
        """Wait until the socket is ready for one of these events, :meth:`wake`, or the timeout.

        Returns:
            True if the socket is ready.
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
        """End the :meth:`poll` of another thread."""
        self._waker.wake()

    def close(self) -> None:
        """Close the socket. No thread may be in :meth:`poll`."""
        if self._tls is not None and self._process == os.getpid():
            with suppress(OSError, ValueError):  # close_notify is sent unless that would block
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

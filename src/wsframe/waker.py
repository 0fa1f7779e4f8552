"""Waker: a socket pair that wakes a thread which polls sockets."""

from __future__ import annotations

import socket

__all__ = ["Waker"]


class Waker:
    """A socket pair: :meth:`wake` makes one end readable, which ends a poll of it.

    Args:
        blocking: True if :meth:`drain` waits for a wake-up.
    """

    __slots__ = ("_receiver", "_sender")

    def __init__(self, *, blocking: bool = False) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(blocking)
        self._sender.setblocking(False)

    def fileno(self) -> int:
        """Any thread: return the descriptor to poll; it is readable after a wake-up."""
        return self._receiver.fileno()

    def sender_fileno(self) -> int:
        """Any thread: return the descriptor to write to, for :func:`signal.set_wakeup_fd`."""
        return self._sender.fileno()

    def wake(self) -> None:
        """Any thread, also in a signal handler: wake the thread that polls; a no-op once closed."""
        try:
            self._sender.send(b"\0")
        except OSError:
            return  # the waker is closed, or full of earlier wake-ups

    def drain(self) -> bytes:
        """The thread that polls: take the wake-ups, and return the bytes that made them.

        A blocking waker waits for the first one.
        """
        try:
            return self._receiver.recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Any thread: close both sockets of the pair; a later :meth:`wake` does nothing."""
        self._receiver.close()
        self._sender.close()

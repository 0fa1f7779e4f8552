"""The poller: epoll on Linux, otherwise the selectors module."""

from __future__ import annotations

import select
import selectors
import sys

if sys.platform == "linux":
    READ, WRITE = select.EPOLLIN, select.EPOLLOUT
    # The client has closed its side; earlier data may still be unread.
    HANGUP = select.EPOLLRDHUP

    class Poller:
        """The files to wait for, with their events. Only the owner calls its methods.

        Epoll is used directly, because the selectors module makes an object for each ready file.
        """

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.register = self._epoll.register
            self.modify = self._epoll.modify
            self.unregister = self._epoll.unregister
            self.close = self._epoll.close
            #: (timeout in seconds or None) -> the ready files, with their events.
            self.poll = self._epoll.poll

else:
    READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
    HANGUP = 0  # selectors do not report this event

    class Poller:
        """The files to wait for, with their events. Only the owner calls its methods."""

        def __init__(self) -> None:
            self._selector = selectors.DefaultSelector()
            self.register = self._selector.register
            self.modify = self._selector.modify
            self.unregister = self._selector.unregister
            self.close = self._selector.close

        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            """Return the ready files with their events, after at most this many seconds."""
            return [(key.fd, events) for key, events in self._selector.select(timeout)]

"""Which files are ready: epoll where there is one, else what the selectors module finds."""

from __future__ import annotations

import select
import selectors
import sys

if sys.platform == "linux":
    READ, WRITE = select.EPOLLIN, select.EPOLLOUT
    # The other end has closed its side, whatever it has sent before that is not read yet.
    HANGUP = select.EPOLLRDHUP

    class Poller:
        """What is to be waited for, file by file. All methods are the loop's owner's.

        Epoll itself: the selectors module would make objects for each file that is ready.
        """

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.register = self._epoll.register
            self.modify = self._epoll.modify
            self.unregister = self._epoll.unregister
            self.close = self._epoll.close
            #: (timeout in seconds or None) -> the files that are ready, with what for.
            self.poll = self._epoll.poll

else:
    READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
    HANGUP = 0  # nothing reports that

    class Poller:
        """What is to be waited for, file by file. All methods are the loop's owner's."""

        def __init__(self) -> None:
            self._selector = selectors.DefaultSelector()
            self.register = self._selector.register
            self.modify = self._selector.modify
            self.unregister = self._selector.unregister
            self.close = self._selector.close

        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            """The files that are ready, with what for; at most after this many seconds."""
            return [(key.fd, events) for key, events in self._selector.select(timeout)]

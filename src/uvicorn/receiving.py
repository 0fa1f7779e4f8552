"""The receiving side: the events that wait for the application, and back-pressure on the client."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

from .sending import Sending

#: An event of ASGI.
Event: TypeAlias = "dict[str, Any]"

# The number of messages that an application takes before other connections run.
MAX_TURN = 256
# The maximum number of bytes of messages that are read while the application is busy.
MAX_READ_AHEAD = 256 * 1024


class Receiving(Sending):
    """The receiving side of one connection.

    Reading is paused while a message waits and the application processes another one. If the
    application is busy for long, up to ``ws_max_queue`` messages are read ahead.

    Args:
        loop: the event loop.
        max_queue: the maximum number of messages that wait (``ws_max_queue``).
        ping_interval: see :class:`Keepalive`.
        ping_timeout: see :class:`Keepalive`.
    """

    __slots__ = (
        "_behind",
        "_end",
        "_max_queue",
        "_messages",
        "_read_ahead_timer",
        "_waiter",
        "_waiting_size",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_queue: int,
        ping_interval: float | None,
        ping_timeout: float | None,
    ) -> None:
        super().__init__(loop, ping_interval, ping_timeout)
        self._max_queue = max_queue
        # The events for the application: websocket.connect, and the waiting messages.
        self._messages: deque[str | bytes | Event] = deque()
        self._end: Event | None = None  # the last event
        self._waiter: asyncio.Future[None] | None = None
        # True from the first message that waits until the application has taken all
        self._behind = False
        self._waiting_size = 0  # the total size of the waiting messages, in bytes
        self._read_ahead_timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _caught_up(self) -> None:
        """Add messages or call :meth:`_resume`: the application has taken the last message."""

    @abstractmethod
    def _end_taken(self) -> None:
        """Process the end, because the application takes the last event."""

    async def receive(self) -> Event:
        """Wait for the next event (ASGI ``receive``); the last event is returned repeatedly."""
        messages = self._messages
        if len(messages) >= MAX_TURN and not len(messages) % MAX_TURN:
            await asyncio.sleep(0)  # let other connections have their turn
        while not messages:
            if self._end is not None:
                self._end_taken()
                return dict(self._end)
            waiter: asyncio.Future[None] = self.loop.create_future()
            if self._waiter is None or self._waiter.done():
                self._waiter = waiter
            else:  # another task of the application waits for an event, too
                self._waiter.add_done_callback(partial(_wake, waiter))
            await waiter
        message = messages.popleft()
        if self._behind and not messages:
            self._forget_backlog()
            self._caught_up()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        if type(message) is bytes:
            return {"type": "websocket.receive", "bytes": message}
        assert isinstance(message, dict)
        return message

    def _put(self, messages: Sequence[str | bytes]) -> None:
        """Add received messages."""
        self._messages.extend(messages)
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._hold_back(messages)
        else:
            self._waiter = None
            waiter.set_result(None)

    def _hold_back(self, messages: Sequence[str | bytes]) -> None:
        """Pause reading, because messages wait for the application."""
        self._waiting_size += sum(map(len, messages))
        if not self._behind:
            self._behind = True
            delay = self.timing.read_ahead_after
            self._read_ahead_timer = self.loop.call_later(delay, self._read_ahead)
        if self._read_ahead_timer is not None or self._is_full():
            self._pause()

    def _put_end(self, event: Event) -> None:
        """Add the last event, after all messages; later calls do nothing."""
        if self._end is None:
            self._end = event
            if self._waiter is not None:
                _wake(self._waiter)

    def _pause(self) -> None:
        """Pause reading until the application has taken all messages."""
        self._behind = True
        if not self.read_paused:
            self.read_paused: bool = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        """Resume reading from the socket."""
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _forget_backlog(self) -> None:
        """Reset the state of reading ahead."""
        self._behind = False
        self._waiting_size = 0
        if self._read_ahead_timer is not None:
            self._read_ahead_timer.cancel()
            self._read_ahead_timer = None

    def _is_full(self) -> bool:
        """Return True if nothing more may be read ahead."""
        return len(self._messages) >= self._max_queue or self._waiting_size >= MAX_READ_AHEAD

    def _read_ahead(self) -> None:
        """Read ahead, because the application has been busy for a long time."""
        self._read_ahead_timer = None
        if not self._is_full():
            self._resume()


def _wake(waiter: asyncio.Future[None], *_: object) -> None:
    """Wake a task that waits for an event."""
    if not waiter.done():
        waiter.set_result(None)

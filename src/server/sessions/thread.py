"""WebSocket handlers that are plain functions, each in its own thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from sys import getsizeof
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsframe import ConnectionClosed

from ..timing import waitable
from .websocket import WebSocket
from .websocket_session import INBOX_SIZE, WebSocketSession

if TYPE_CHECKING:
    from wsframe import Connection

    from ..handoff.blocking import BlockingProfile
    from ..http.request import Request
    from ..sockets.peer import Peer
    from ..topics.registry import Topics


class ThreadSession(WebSocketSession):
    """A WebSocket session whose handler is a plain function, which runs in its own thread."""

    over: ConnectionClosed | None

    __slots__ = (
        "_batch",
        "_delivered",
        "_end_queued",
        "_handler",
        "_has_waited",
        "_inbox",
        "_outcome",
        "_ready_signal",
        "_received",
        "_waiting",
    )

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        topics: Topics,
        codec: Connection,
        request: Request,
        handler: Callable[..., object],
    ) -> None:
        super().__init__(peer, profile, topics, codec, request)
        self._handler = partial(handler, **request.parameters)
        # Items with the messages of one read, and their size in bytes. The last item is the end of
        # the connection, and is never removed.
        self._inbox: list[tuple[list[str | bytes], int] | ConnectionClosed] = []
        self._ready_signal = peer.loop.wakes.new_signal()  # wakes the handler's thread
        self._waiting: list[None] = []  # not empty while the handler waits, or is about to wait
        # Only the handler's thread uses these: the rest of the last item, and True after its first
        # wait.
        self._batch: Iterator[str | bytes] = iter(())
        self._has_waited = False
        self.work: list[Any] | None = [None]  # the work of the only turn
        self._end_queued = False
        self._delivered = 0  # the number of bytes put into the inbox; only the owner uses it
        # The number of bytes taken from the inbox; only the handler's thread writes it.
        self._received = 0
        self._outcome: BaseException | None = None

    @property
    def awaiting_message(self) -> bool:
        """Any thread: True while the handler's thread waits for a message, or is about to wait."""
        return bool(self._waiting)

    # Loop owner -------------------------------------------------------------------------------

    def finish_turn(self) -> None:
        """Loop owner: close the connection, because the handler has returned or raised."""
        self.end()
        error, self._outcome = self._outcome, None
        self.handler_ended(error)

    def deliver(self, messages: list[str | bytes]) -> None:
        """Loop owner: queue the messages; stop reading the client while the queue is full."""
        size = sum(map(getsizeof, messages))
        self._put((messages, size))
        self._delivered += size
        if self._delivered - self._received >= INBOX_SIZE:
            self.peer.pause_reading()
            self._paused = True
            self._resume_if_drained()  # the thread may have emptied the queue meanwhile

    def add_end(self, end: ConnectionClosed) -> None:
        """Loop owner: queue the end of the connection after the messages."""
        if not self._end_queued:
            self._end_queued = True
            self._put(end)

    def after_fork(self) -> None:
        """The child of a fork: end the connection for the handler that has forked."""
        super().after_fork()
        assert self.over is not None
        self._inbox.append(self.over)

    def _put(self, item: tuple[list[str | bytes], int] | ConnectionClosed) -> None:
        self._inbox.append(item)
        # A thread that does not wait checks the inbox before its next wait. Each woken thread wakes
        # the next one, so a needless wake-up would delay the others.
        if self._waiting:
            self._waiting.clear()
            self.peer.loop.wakes.add(self._ready_signal)

    def _resume_if_drained(self) -> None:
        if self._paused and self._delivered - self._received <= INBOX_SIZE // 2:
            self._paused = False
            self.peer.resume_reading()

    # The handler's thread ----------------------------------------------------------------------

    def work_on(self, work: list[Any]) -> None:
        """The handler's thread: run the handler."""
        try:
            result = self._handler(WebSocket(self, self.request))
            if inspect.isgenerator(result):
                result.close()
                raise TypeError(
                    "the handler has returned a generator: register the generator function itself"
                )
        except BaseException as error:  # even SystemExit ends only this handler
            self._outcome = error
            self.handler_raised(error)
        following = self.peer.loop.wakes.after(self._ready_signal)
        if following is not None:
            following.set()

    def next_message(self, timeout: float | None) -> str | bytes:
        """The handler's thread: wait for a message."""
        for message in self._batch:
            return message
        if not self._inbox:
            self._wait(timeout)
        item = self._inbox[0]
        if isinstance(item, ConnectionClosed):
            self.over = self.over or item
            self.peer.loop.call_soon(self.answer_client)
            raise self.over_error()
        self._inbox.pop(0)
        messages, size = item
        self._received += size
        if self._paused:
            self.peer.loop.call_soon(self._resume_if_drained)
        if len(messages) == 1:
            return messages[0]
        self._batch = iter(messages)
        return next(self._batch)

    def _wait(self, timeout: float | None) -> None:
        """The handler's thread: wait until the inbox has an item."""
        if not self._has_waited:
            self._has_waited = True
            self.shorten_request()
        deadline = None if timeout is None else monotonic() + timeout
        # The wait is announced before the inbox is checked again; otherwise a wake-up could be
        # lost.
        self._waiting.append(None)
        while not self._inbox:
            remaining = None if deadline is None else waitable(deadline - monotonic())
            following = self.peer.loop.wakes.after(self._ready_signal)
            if not self._ready_signal.wait(remaining, following):
                break
            self._waiting.append(None)  # the signal may belong to an item that was received before
        self._waiting.clear()
        if not self._inbox:
            raise TimeoutError(f"no message within {timeout} seconds")

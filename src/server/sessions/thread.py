"""WebSocket handlers that are plain functions: each runs in a thread of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
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
    """A handler that is a plain function: its one turn is all of it, in a thread of its own."""

    __slots__ = (
        "_batch",
        "_delivered",
        "_end_queued",
        "_handler",
        "_inbox",
        "_outcome",
        "_ready_signal",
        "_received",
        "_waits",
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
        # The messages of one read, with their size; the end comes last, and stays.
        self._inbox: list[tuple[list[str | bytes], int] | ConnectionClosed] = []
        # What the thread waits for; a lock would do, and was seen to cost 4 KiB more a thread.
        self._ready_signal: SimpleQueue[None] = SimpleQueue()
        self._waits: list[None] = []  # has something while it does, or is about to
        self._batch: Iterator[str | bytes] = iter(())  # the handler's thread's
        self.work = [None]  # there is one turn
        self._end_queued = False
        self._delivered = 0  # bytes, in all; the owner's
        self._received = 0  # of these; the handler's thread's
        self._outcome: BaseException | None = None

    # Owner ------------------------------------------------------------------------------------

    def finish_turn(self) -> None:
        """Owner: the handler has returned, or raised."""
        self.end()
        error, self._outcome = self._outcome, None
        self.handler_ended(error)

    def deliver(self, messages: list[str | bytes]) -> None:
        """Owner: queue the messages; past the bound, the client is not read."""
        if self._end_queued:
            return
        size = sum(map(getsizeof, messages))
        self._put((messages, size))
        self._delivered += size
        if self._delivered - self._received >= INBOX_SIZE:
            self.peer.pause_reading()
            self._paused = True
            self._resume_if_drained()  # the thread may have drained it just before

    def deliver_end(self, end: ConnectionClosed) -> None:
        """Owner: queue the end, behind the messages."""
        if not self._end_queued:
            self._end_queued = True
            self._put(end)

    def after_fork(self) -> None:
        """The child of a fork: for the handler that has forked, the connection is over."""
        super().after_fork()
        assert self.over is not None
        self._inbox.append(self.over)

    def _put(self, item: tuple[list[str | bytes], int] | ConnectionClosed) -> None:
        self._inbox.append(item)
        # Who does not wait looks there before it does, and would be slow to wake the next.
        if self._waits:
            self._waits.clear()
            self.peer.loop.wake_soon(self._ready_signal)

    def _resume_if_drained(self) -> None:
        if self._paused and self._delivered - self._received <= INBOX_SIZE // 2:
            self._paused = False
            self.peer.resume_reading()

    # The handler's own thread ------------------------------------------------------------------

    def work_on(self, work: list[Any]) -> None:
        """The handler's own thread: all of the handler."""
        try:
            result = self._handler(WebSocket(self, self.request))
            if inspect.isgenerator(result):
                result.close()
                raise TypeError("a handler that waits at yield must be a generator function itself")
        except BaseException as error:  # SystemExit, too, ends this handler alone
            self._outcome = error
            self.handler_raised(error)

    def next_message(self, timeout: float | None) -> str | bytes:
        """The handler's own thread: wait for a message."""
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
        self._batch = iter(messages)
        return next(self._batch)

    def _wait(self, timeout: float | None) -> None:
        """The handler's own thread: wait until there is something in the inbox."""
        self.shorten_request()
        deadline = None if timeout is None else monotonic() + timeout
        # To announce it first and then look once more is what loses no wake-up.
        self._waits.append(None)
        while not self._inbox:
            left = None if deadline is None else waitable(deadline - monotonic())
            try:
                self._ready_signal.get(timeout=left)
            except Empty:
                break
            self._waits.append(None)  # it may have been told of what it had seen already
            self.peer.loop.wake_next()
        self._waits.clear()
        if not self._inbox:
            raise TimeoutError(f"no message within {timeout} seconds")

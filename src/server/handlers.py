"""How WebSocket handlers run: generators on the loop, plain functions in threads of their own."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import Empty, SimpleQueue
from sys import getsizeof
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsframe import ConnectionClosed

from .websocket import CLOSE_TIMEOUT, WebSocketSession

if TYPE_CHECKING:
    from wsframe import Connection

    from .http import Request
    from .peer import Peer
    from .threads import HandlerThreads

log = logging.getLogger("wsframe.server")

# How much memory messages take that wait for a handler's thread, before the client is not read.
INBOX_SIZE = 256 * 1024


class GeneratorSession(WebSocketSession):
    """A handler that is a generator: it runs on the loop's thread, and waits at ``yield``."""

    def start(self, handler: Callable[..., Any]) -> None:
        """Owner: run to the first ``yield``."""
        self._handler: Generator[None, str | bytes, object] = handler(
            self.ws, **self.ws.request.parameters
        )
        self._running = True
        self._turn(self._handler.send, (None,))

    def deliver(self, messages: list[str | bytes]) -> None:
        """Owner: resume it with each message."""
        if self._running:
            self._turn(self._handler.send, messages)

    def deliver_end(self, end: ConnectionClosed) -> None:
        """Owner: raise the end at its ``yield``, so that its ``finally`` runs."""
        if self._running:
            self._turn(self._handler.throw, (self.over_error(),))
        if self._running:
            self._running = False
            log.error("the handler of %s yields after the end", self.ws.request.path)
            self._close_handler()

    def client_closed(self, end: ConnectionClosed) -> None:
        """Owner: at once, for what came before was answered in its turn."""
        self.over = self.over or end
        self.answer_client()
        self.deliver_end(end)

    def _turn(self, resume: Callable[[Any], object], values: Sequence[Any]) -> None:
        """Owner: run the user's code for this connection; nowhere else does any run on the loop.

        This is the place where a handler that blocks is to lose the loop to another thread.
        """
        peer = self.peer
        outer, peer.in_turn = peer.in_turn, True
        try:
            for value in values:
                if resume(value) is not None:
                    raise TypeError("a WebSocket handler yields nothing; it sends with ws.send")
                if self.over is not None:
                    break
        except StopIteration:
            self._end(None)
        except BaseException as error:  # SystemExit, too, ends this handler alone
            self._end(error)
        finally:
            peer.in_turn = outer

    def _end(self, error: BaseException | None) -> None:
        self._running = False
        self._close_handler()  # which is over, unless the error was raised out here
        self.handler_ended(error)

    def _close_handler(self) -> None:
        try:
            self._handler.close()
        except BaseException:
            log.exception("the handler of %s does not end", self.ws.request.path)


class ThreadSession(WebSocketSession):
    """A handler that is a plain function: it runs in a thread of its own, and waits there."""

    def __init__(
        self, peer: Peer, codec: Connection, request: Request, threads: HandlerThreads
    ) -> None:
        super().__init__(peer, codec, request)
        self._threads = threads

    def start(self, handler: Callable[..., Any]) -> None:
        """Owner: start the thread."""
        # The messages of one read, with their size; the end comes last.
        self._inbox: SimpleQueue[tuple[list[str | bytes], int] | ConnectionClosed] = SimpleQueue()
        self._batch: Iterator[str | bytes] = iter(())  # the handler's thread's
        self._end_queued = False
        self._paused = False
        self._delivered = 0  # bytes, in all; the owner's
        self._received = 0  # of these; the handler's thread's
        self._threads.run(self.ws.request.path, lambda: self._run(handler))

    def deliver(self, messages: list[str | bytes]) -> None:
        """Owner: queue the messages; past the bound, the client is not read."""
        if self._end_queued:
            return
        size = sum(map(getsizeof, messages))
        self._inbox.put((messages, size))
        self._delivered += size
        if self._delivered - self._received >= INBOX_SIZE:
            self.peer.pause_reading()
            self._paused = True
            self._resume_if_drained()  # the thread may have drained it just before

    def deliver_end(self, end: ConnectionClosed) -> None:
        """Owner: queue the end, behind the messages."""
        if not self._end_queued:
            self._end_queued = True
            self._inbox.put(end)

    def client_closed(self, end: ConnectionClosed) -> None:
        """Owner: when the handler has come to the end of its messages, or takes too long."""
        self.peer.deadline = monotonic() + CLOSE_TIMEOUT
        self.deliver_end(end)

    def deadline_passed(self) -> None:
        """Owner: the handler, or the client, took too long to close."""
        if self.codec.close_sent:
            self.peer.abort()
        else:
            self.over = self.over or self._client_end
            self.answer_client()

    def _resume_if_drained(self) -> None:
        if self._paused and self._delivered - self._received <= INBOX_SIZE // 2:
            self._paused = False
            self.peer.resume_reading()

    # The handler's own thread ------------------------------------------------------------------

    def _run(self, handler: Callable[..., Any]) -> None:
        error: BaseException | None = None
        try:
            result = handler(self.ws, **self.ws.request.parameters)
            if inspect.isgenerator(result):
                result.close()
                raise TypeError("a handler that waits at yield must be a generator function itself")
        except BaseException as raised:  # SystemExit, too, ends this handler alone
            error = raised
        self.peer.loop.call_soon(lambda: self.handler_ended(error))

    def next_message(self, timeout: float | None) -> str | bytes:
        """The handler's own thread: wait for a message."""
        for message in self._batch:
            return message
        try:
            item = self._inbox.get(timeout=timeout)
        except Empty:
            raise TimeoutError(f"no message in {timeout} seconds") from None
        if isinstance(item, ConnectionClosed):
            self._inbox.put(item)  # for the next call
            self.over = self.over or item
            self.peer.loop.call_soon(self.answer_client)
            raise self.over_error()
        messages, size = item
        self._received += size
        if self._paused:
            self.peer.loop.call_soon(self._resume_if_drained)
        self._batch = iter(messages)
        return next(self._batch)

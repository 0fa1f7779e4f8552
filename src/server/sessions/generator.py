"""WebSocket handlers that are generators, which run in turns on the loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from wsframe import ConnectionClosed

from ..handoff.task import ENDED, HELD, IDLE, WAITING
from ..http.request import is_longer
from ..reports.loggers import log
from ..topics.failures import log_failure
from .websocket import WebSocket
from .websocket_session import INBOX_SIZE, WebSocketSession

if TYPE_CHECKING:
    from wsframe import Connection

    from ..handoff.blocking import BlockingProfile
    from ..handoff.task import Task
    from ..http.request import Request
    from ..sockets.peer import Peer
    from ..topics.registry import Topics


class GeneratorSession(WebSocketSession):
    """A WebSocket session whose handler is a generator, which waits at ``yield`` without a thread.

    Each turn resumes the generator with the messages received so far. The last turn raises
    ConnectionClosed at the ``yield``, so that ``finally`` clauses run.
    """

    __slots__ = ("_end", "_ending", "_held", "_outcome", "_remaining")

    over: ConnectionClosed | None
    state: Any

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        topics: Topics,
        codec: Connection,
        request: Request,
        handler: Callable[..., Generator[None, str | bytes, object]],
    ) -> None:
        super().__init__(peer, profile, topics, codec, request)
        # Only the handler refers to the WebSocket. A reference from the session would form a cycle,
        # which the garbage collector would have to free.
        self.generator: Any = handler(WebSocket(self, request), **request.parameters)
        self.work = [None]  # the first turn runs the handler to its first yield
        self.needs_finish: bool = is_longer(request, peer.clients.settings.max_kept_head)
        self._held = 0  # the size of the messages that wait for a turn, in bytes
        self._end: ConnectionClosed | None = None
        self._ending = False
        # The results of a turn. The turn's thread writes them; the owner reads them afterwards.
        self._remaining: Sequence[Any] = ()
        self._outcome: BaseException | None = None

    # Loop owner -------------------------------------------------------------------------------

    def deliver(self, messages: list[str | bytes]) -> Task | None:
        """Loop owner: schedule a turn for the messages, or keep them during a turn."""
        if self.state is IDLE:
            self.work = messages
            return self
        self.work = [*(self.work or ()), *messages]
        self._held += sum(map(getsizeof, messages))
        if self._held >= INBOX_SIZE and not self._paused:
            self._paused = self.needs_finish = True
            self.peer.pause_reading()
        return None

    def add_end(self, end: ConnectionClosed) -> Task | None:
        """Loop owner: schedule the last turn, after the messages."""
        if self._never_started:
            self.end()
            self.generator.close()
            return None
        if self._end is None:
            self._end = end
            self.needs_finish = True  # another turn must follow a turn that is queued or running
        if self.state is WAITING:
            self.peer.loop.slowdowns.resume(self)
        if self.state is HELD:
            if self.over is None:
                # The handler answers waiting messages only as fast as the client receives.
                return None
            if self.close_requested:
                self.work = None
        if self.state is IDLE:
            return self
        self.schedule()
        return None

    @property
    def _never_started(self) -> bool:
        """Loop owner: True if the client disconnected while the handler waited for a thread."""
        waits = self.state is WAITING and self.peer.closed
        return waits and inspect.getgeneratorstate(self.generator) == inspect.GEN_CREATED

    def drained(self) -> None:
        """Loop owner: schedule a turn for messages that waited until the client received data."""
        if self.state is HELD:
            self.schedule()

    def next_batch(self) -> list[Any] | None:
        """Loop owner: return the next messages; after the last one, the handler's error."""
        if self.state is ENDED:
            return None
        work = super().next_batch()
        if work is None and self._end is not None and not self._ending:
            if self.over is None:
                self.over = self._end
                self.answer_client()
            self._ending = True
            work = [self.over_error()]
        return work

    def finish_turn(self) -> None:
        """Loop owner: end the task if the handler has ended; otherwise schedule the next turn."""
        self.peer.stop_turn = False
        self.shorten_request()
        if self._outcome is not None:
            self.end()
            error, self._outcome = self._outcome, None
            self.handler_ended(None if type(error) is StopIteration else error)
            return
        if self._remaining:
            self.work = [*self._remaining, *(self.work or ())]
            self._remaining = ()
        if self.close_requested:
            self.work = None
        if self.work is None:
            self._held = 0
            if self._paused:
                self._paused = False
                self.peer.resume_reading()
        # After a later turn, reading resumes or the end is delivered.
        self.needs_finish = self._paused or self._end is not None
        if self._end is None and self.over is None and self.peer.loop.slowdowns.delays(self):
            self.state = WAITING
            self.hold()
        elif self.work is not None and self.peer.congested and self.over is None:
            self.state = HELD
        elif self.work is not None or self._end is not None:
            self.schedule()

    # The turn's thread ------------------------------------------------------------------------

    def run(self, work: list[Any]) -> None:
        """The turn's thread: resume the handler with each message, or raise the end in it."""
        yielded: object = None
        error: BaseException | None = None
        remaining = iter(work)
        try:
            if len(work) == 1:
                # No frame may refer to the exception, whose traceback would form a reference cycle.
                yielded = self.context.run(self._resume(), next(remaining))
            else:
                yielded = self.context.run(self.work_on, remaining)
        except BaseException as raised:  # even SystemExit ends only this handler
            error = raised
        if self.peer.stop_turn or yielded is not None or error is not None or self._ending:
            self.after_resume(yielded, error, list(remaining))
            error, work = None, []  # the traceback also refers to this frame

    def _resume(self) -> Callable[[Any], object]:
        """The turn's thread: return the method that resumes the handler with an item of work."""
        generator: Generator[None, Any, object] = self.generator
        return generator.throw if self._ending else generator.send

    def work_on(self, work: Iterator[Any]) -> object:  # type: ignore[override]
        """The turn's thread: resume the handler with each message.

        Returns:
            None, or the value that the handler has yielded by mistake.
        """
        resume, peer = self._resume(), self.peer
        for message in work:
            yielded = resume(message)
            if yielded is not None or peer.stop_turn:
                return yielded
        return None

    def after_resume(
        self, yielded: object, error: BaseException | None, remaining: list[Any]
    ) -> None:
        """The turn's thread: process the handler's reaction to the last message of a turn.

        :func:`wsframe.server.rounds.run_turns` calls this method in a turn on the loop, unless the
        handler has waited at ``yield`` after each message.

        Args:
            yielded: the value that the handler has yielded.
            error: the exception that the handler has raised; StopIteration if it has ended.
            remaining: the messages that are left, because the turn should end early.
        """
        if error is None and yielded is not None:
            error = TypeError("a WebSocket handler must yield nothing: send with ws.send")
        elif error is None and self._ending:
            log.error(
                "the handler of %s must return after ConnectionClosed, but has yielded again",
                self.path,
            )
            error = StopIteration()
        self.needs_finish = True
        if error is None:
            self._remaining = remaining
            return
        remaining.clear()  # the traceback refers to frames that refer to the list
        self._outcome = error
        if type(error) is not StopIteration:
            self.handler_raised(error)
        self._close()

    def _close(self) -> None:
        """The turn's thread: close the generator if another error has ended the turn."""
        try:
            self.context.run(self.generator.close)
        except BaseException as error:
            text = "the handler of %s did not end when its generator was closed"
            log_failure(error, text, self.path)

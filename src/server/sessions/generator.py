"""WebSocket handlers that are generators: they run in turns, on the loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from wsframe import ConnectionClosed

from ..handoff.task import ENDED, HELD, IDLE, WAITING
from ..http.request import is_longer
from ..reports.loggers import log
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
    """A handler that is a generator: it waits at ``yield``, where it holds no thread.

    Each turn resumes it with the messages that are there; the last one raises the end at its
    ``yield``, so that its ``finally`` runs.
    """

    __slots__ = ("_end", "_generator", "_held", "_left", "_outcome", "_resume", "_saying_goodbye")

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
        # Only the handler refers to the WebSocket: kept here, it would wait for the garbage
        # collector, with all that it refers to.
        self._generator = handler(WebSocket(self, request), **request.parameters)
        self._resume: Callable[[Any], object] = self._generator.send
        self.work = [None]  # the first turn runs to the first yield
        self.needs_finish = is_longer(request, peer.clients.settings.max_kept_head)
        self._held = 0  # bytes of messages that had to wait for a turn
        self._end: ConnectionClosed | None = None
        self._saying_goodbye = False
        # What has become of a turn; whoever has it writes, the owner reads when it is over.
        self._left: Sequence[Any] = ()
        self._outcome: BaseException | None = None

    # Owner ------------------------------------------------------------------------------------

    def deliver(self, messages: list[str | bytes]) -> Task | None:
        """Owner: have a turn with them; while one is under way, they wait."""
        if self.state is IDLE:
            self.work = messages
            return self
        if self.state is not ENDED:
            self.work = [*(self.work or ()), *messages]
            self._held += sum(map(getsizeof, messages))
            if self._held >= INBOX_SIZE and not self._paused:
                self._paused = self.needs_finish = True
                self.peer.pause_reading()
        return None

    def deliver_end(self, end: ConnectionClosed) -> None:
        """Owner: have a last turn."""
        if self._not_entered:
            self.end()
            self._generator.close()
            return
        if self._end is None:
            self._end = end
            self.needs_finish = True  # if a turn is queued or under way, another has to follow
        if self.state is WAITING:
            self.peer.loop.resume_slowed(self)
        if self.state is HELD:
            if self.over is None:
                return  # what was said before the end is answered as the client takes the answers
            if self.close_requested:
                self.work = None
        self.schedule()

    @property
    def _not_entered(self) -> bool:
        """Whether the client left before the handler could begin, which waits for a thread."""
        waits = self.state is WAITING and self.peer.closed
        return waits and inspect.getgeneratorstate(self._generator) == inspect.GEN_CREATED

    def drained(self) -> None:
        """Owner: the client has taken what was too much; its next messages can be answered."""
        if self.state is HELD:
            self.schedule()

    def next_batch(self) -> list[Any] | None:
        """Owner: the messages that have come; when there is none any more, the end."""
        if self.state is ENDED:
            return None
        work = super().next_batch()
        if work is None and self._end is not None and not self._saying_goodbye:
            if self.over is None:
                self.over = self._end
                self.answer_client()
            self._saying_goodbye = True
            self._resume = self._generator.throw
            work = [self.over_error()]
        return work

    def finish_turn(self) -> None:
        """Owner: end with the handler, or go on with what was left and what came meanwhile."""
        self.peer.stop_turn = False
        self.shorten_request()
        if self._outcome is not None:
            self.end()
            error, self._outcome = self._outcome, None
            self.handler_ended(None if type(error) is StopIteration else error)
            return
        if self._left:
            self.work = [*self._left, *(self.work or ())]
            self._left = ()
        if self.close_requested:
            self.work = None
        if self.work is None:
            self._held = 0
            if self._paused:
                self._paused = False
                self.peer.resume_reading()
        # What cannot be done yet is to be done after the next turn.
        self.needs_finish = self._paused or self._end is not None
        if self._end is None and self.over is None and self.peer.loop.is_slowed(self):
            self.state = WAITING
            self.hold()
        elif self.work is not None and self.peer.congested and self.over is None:
            self.state = HELD
        elif self.work is not None or self._end is not None:
            self.schedule()

    # Whichever thread has the turn ------------------------------------------------------------

    def run(self, work: list[Any]) -> None:
        """Whichever thread has the turn: resume the handler with each message, or with the end."""
        try:
            if len(work) == 1:  # as most turns have, which need no call more
                said = self.context.run(self._resume, work[0])
            else:
                said = self.context.run(self.work_on, work)
            if said is not None:
                raise TypeError("a WebSocket handler yields nothing; it sends with ws.send")
            if self._saying_goodbye:
                log.error("the handler of %s yields after the end", self.path)
                raise StopIteration
            if self.peer.stop_turn:
                self.needs_finish = True
        except BaseException as error:  # SystemExit, too, ends this handler alone
            self._outcome = error
            self.needs_finish = True
            work = []  # the traceback of what it had in it refers to this frame
            if type(error) is not StopIteration:
                self.handler_raised(error)
            self.context.run(self._close)

    def work_on(self, work: list[Any]) -> object:
        """Whichever thread has the turn: resume the handler until it yields anything but None."""
        resume, peer = self._resume, self.peer
        messages = iter(work)
        for message in messages:
            said = resume(message)
            if said is not None:
                return said
            if peer.stop_turn:
                self._left = list(messages)
                break
        return None

    def _close(self) -> None:
        """Have the generator end; it has, unless the error was raised out here."""
        try:
            self._generator.close()
        except BaseException:
            log.exception("the handler of %s does not end", self.path)

"""Event streams whose handler is a generator or a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wsframe import ConnectionClosed

from ..handoff.task import ENDED
from ..topics.encodings import StreamOfMany
from ..topics.failures import log_failure
from .eventstream import EventStream
from .eventstream_session import EventStreamSession

if TYPE_CHECKING:
    from ..handoff.blocking import BlockingProfile
    from ..handoff.threads import WorkerThread
    from ..http.request import Request
    from ..sockets.peer import Peer
    from ..topics.registry import Topics


class EventStreamHandler(EventStreamSession):
    """An event stream with a handler, which runs as one turn.

    The turn of a generator runs in its own thread, because the generator waits for events.
    """

    resumed: Mapping[str, str]

    __slots__ = ("_handler",)

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        topics: Topics,
        request: Request,
        handler: Callable[..., Any],
        *,
        gzip: bool,
        heartbeat: bytes | None = None,
    ) -> None:
        super().__init__(peer, profile, topics, request, gzip=gzip, heartbeat=heartbeat)
        self._handler = handler

    # Loop owner -------------------------------------------------------------------------------

    def start_handler(self, worker: WorkerThread | None) -> None:
        """Loop owner, once: start the handler, after the head and the opening were queued.

        Args:
            worker: the thread for a generator; None for a plain function.
        """
        self.begin_heartbeat()
        self.work: list[Any] | None = [None]  # the work of the only turn
        self.needs_finish = True
        self.start(worker)

    @property
    def handler_ended(self) -> bool:
        """Loop owner: True if the handler will send nothing more."""
        return self.state is ENDED

    def finish_turn(self) -> None:
        """Loop owner: clean up after the handler; its thread has closed the stream if necessary."""
        self.end()
        if self.resumed:
            names = {one.topic for one in self.subscriptions}
            self.resumed = {name: self.resumed[name] for name in names & self.resumed.keys()}
            if isinstance(self.encoding, StreamOfMany):
                self.encoding.expect_only(names)
        self.shorten_request()
        if self._complete and not self.subscriptions:
            self.end_for_good()

    # The turn's thread ------------------------------------------------------------------------

    def work_on(self, work: list[Any]) -> None:
        """The turn's thread: run the handler."""
        try:
            # Only the handler refers to the EventStream, so that no reference cycle exists.
            stream = EventStream(self, self.request)
            result = self._handler(stream, **self.request.parameters)
            if not inspect.isgenerator(result):
                return
            try:
                for item in result:
                    stream.send(item)
            finally:
                result.close()
        except BaseException as error:  # even a SystemExit ends only this handler
            # A ConnectionClosed of another stream is a failure. isinstance() would run code of the
            # exception, which may raise.
            if not (issubclass(type(error), ConnectionClosed) and self.over):
                log_failure(error, "the handler of %s failed", self.path)
            self.request_close()
        else:
            self.request_close(final=True)

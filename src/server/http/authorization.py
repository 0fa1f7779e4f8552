"""The application's word on a request, before it is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsframe import HandshakeError

from ..handoff.turns import Habit, Turns
from ..reports.loggers import log
from ..sockets.peer import Peer
from .request import Request, refuse

UNJUDGED = HandshakeError(500, "the request could not be judged")


class Authorization(Turns):
    """One call of a route's ``authorize``, which is a turn like any: it may block.

    Args:
        peer: the connection, from which nothing is read meanwhile.
        habit: what is known of this hook on this loop.
        request: in order so far.
        hook: the route's.
        go_on: called by the owner with what the hook has returned, if that is true.
    """

    __slots__ = ("_error", "_go_on", "_hook", "_request", "_returned")

    def __init__(
        self,
        peer: Peer,
        habit: Habit,
        request: Request,
        hook: Callable[[Request], object],
        go_on: Callable[[], None],
    ) -> None:
        super().__init__(peer, habit)
        self._request = request
        self._hook = hook
        self._go_on = go_on
        self._error: BaseException | None = None
        self.work = [None]
        self.unsettled = True

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self._request.path

    def work_on(self, work: list[Any]) -> None:
        """Whichever thread has the turn: call the hook."""
        try:
            self._request.identity = self._hook(self._request)
        except BaseException as error:  # SystemExit, too, ends this request alone
            self._error = error

    def settle(self) -> None:
        """Owner: go on with the request, or refuse it."""
        self.end()
        if self.peer.closed:
            return
        try:
            if isinstance(self._error, HandshakeError):
                raise self._error
            if self._error is not None:
                log.error("the authorize of %s failed", self.path, exc_info=self._error)
                raise UNJUDGED
            if not self._request.identity:
                raise HandshakeError(403, "this is not for you")
            self.peer.resume_reading()
            self._go_on()
        except HandshakeError as error:
            with_body = self._request.method != "HEAD"
            try:
                refuse(self.peer, error, with_body=with_body)
            except (TypeError, ValueError):  # its status or a header is none
                log.exception("the answer of the authorize of %s cannot be sent", self.path)
                refuse(self.peer, UNJUDGED, with_body=with_body)

    def refuse(self) -> bool:
        """Owner: there is no thread; a hook may be run on the loop."""
        return False

"""The application's decision on a request, before it is answered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, cast

from wsframe import HandshakeError

from ..handoff.turns import BUSY, ENDED, WAITING, Habit, Turns
from ..http.refusals import RefusalError
from ..http.request import Request
from ..reports.loggers import log
from ..reports.refusals import AUTHORIZE, FAILED
from ..sockets.peer import Peer
from .gate import PendingRequest

AUTHORIZATION_FAILED = RefusalError(500, "authorization check failed", kind=FAILED)
FORBIDDEN = RefusalError(
    403, "forbidden", kind=AUTHORIZE, advice="authorize returned a false value."
)


class Authorization(PendingRequest, Turns):
    """One call of a route's ``authorize``, which is a turn like any: it may block.

    If the client leaves before the call has begun, there will be no call.

    Args:
        peer: the connection, from which nothing is read meanwhile.
        habit: what is known of this hook on this loop.
        request: in order so far.
        route: the route that the hook is for.
        hook: the route's.
        proceed: called by the owner with what the hook has returned, if that is true.
    """

    peer: Peer

    __slots__ = ("_admitted", "_hook", "_proceed", "_refusal", "_request", "_route")

    def __init__(
        self,
        peer: Peer,
        habit: Habit,
        request: Request,
        route: Hashable,
        hook: Callable[[Request], object],
        proceed: Callable[[], None],
    ) -> None:
        super().__init__(peer, habit)
        self._request = request
        self._proceed = proceed
        self._route = route
        self._hook = hook
        self._admitted = False
        self._refusal: HandshakeError | None = None
        self.work = [None]
        self.unsettled = True

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self._request.path

    @property
    def route(self) -> Hashable:
        """Any thread: the route that the hook is for; other routes may have the same hook."""
        return self._route

    def enter(self) -> None:
        """Owner, once: call the hook as soon as there is a thread for it."""
        self.stop_reading()
        self.begin()

    @property
    def waits(self) -> bool:
        """Owner: whether the hook has yet to get a thread."""
        return self.state is WAITING

    def hold(self) -> None:
        """Owner: no thread is free for the hook."""
        self.wait_for_thread()

    def peer_left(self) -> None:
        """Owner: there is nobody to answer."""
        super().peer_left()
        if self.state is BUSY:
            self.peer.loop.outlived(self)

    def cancel(self) -> bool:
        """Owner: do not call the hook, unless that has begun."""
        if self.state in (BUSY, ENDED):
            return False
        self.end()
        return True

    def work_on(self, work: list[Any]) -> None:
        """Whichever thread has the turn: call the hook."""
        try:
            identity = self._request.identity = self._hook(self._request)
            self._admitted = bool(identity)
        except BaseException as error:  # SystemExit, too, ends this request alone
            self._refusal = AUTHORIZATION_FAILED
            # isinstance would ask the exception for its class, which may raise.
            if issubclass(type(error), HandshakeError):
                self._refusal = cast(HandshakeError, error)
                # An application may raise one error again and again, which collects a traceback
                # each time, and with it this request.
                error.__traceback__ = None
            else:
                log.exception("the authorize of %s failed", self.path)

    def settle(self) -> None:
        """Owner: go on with the request, or refuse it."""
        self.end()
        if self.peer.closed:
            return
        error = self._answer()
        if error is None:
            self.proceed()
            return
        try:
            self.refuse(error, FAILED if error is AUTHORIZATION_FAILED else AUTHORIZE)
        except (TypeError, ValueError):  # its status or a header is none
            log.exception("the answer of the authorize of %s cannot be sent", self.path)
            self.refuse(AUTHORIZATION_FAILED)

    def _answer(self) -> HandshakeError | None:
        """Owner: the refusal that has come of the hook. It is not raised, see ``work_on``."""
        if self._refusal is not None:
            return self._refusal
        return None if self._admitted else FORBIDDEN

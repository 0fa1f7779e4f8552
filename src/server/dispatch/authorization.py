"""The call of a route's ``authorize`` function, which accepts or refuses a request."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, cast

from wsframe import HandshakeError

from ..handoff.blocking import BlockingProfile
from ..handoff.task import BUSY, ENDED, WAITING, Task
from ..handoff.threads import WorkerThread
from ..headers import ON_PAGES, added_headers
from ..http.refusals import RefusalError
from ..http.request import Request
from ..reports.loggers import log
from ..reports.refusals import AUTHORIZE, FAILED
from ..sockets.peer import Peer
from ..topics.failures import log_failure
from .gate import PendingRequest

AUTHORIZATION_FAILED = RefusalError(500, "authorization check failed", kind=FAILED)
FORBIDDEN = RefusalError(
    403, "forbidden", kind=AUTHORIZE, advice="authorize returned a false value."
)


class Authorization(PendingRequest, Task):
    """One call of a route's ``authorize`` function, as a turn, which may block.

    If the client disconnects before the call has started, the hook is not called.

    Args:
        peer: the connection, which is not read during the call.
        profile: the blocking profile of the hook on this loop.
        request: the valid request.
        route: the route of the request.
        hook: the ``authorize`` of the route.
        proceed: a function that the owner calls if the hook has returned a true value.
    """

    peer: Peer

    __slots__ = ("_admitted", "_hook", "_proceed", "_refusal", "_request", "_route")

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        request: Request,
        route: Hashable,
        hook: Callable[[Request], object],
        proceed: Callable[[], None],
    ) -> None:
        super().__init__(peer, profile)
        self._request = request
        self._proceed = proceed
        self._route = route
        self._hook = hook
        self._admitted = False
        self._refusal: HandshakeError | None = None
        self.work: list[Any] | None = [None]
        self.needs_finish = True

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self._request.path

    @property
    def route(self) -> Hashable:
        """Any thread: the route of the request; other routes may share the hook."""
        return self._route

    def start(self, worker: WorkerThread | None = None) -> None:
        """Loop owner, once: call the hook as soon as a thread is free for it."""
        self.stop_reading()
        super().start(worker)

    @property
    def waits(self) -> bool:
        """Loop owner: True while the hook waits for a thread."""
        return self.state is WAITING

    def hold(self) -> None:
        """Loop owner: wait for a thread, because no thread is free for the hook."""
        self.wait_for_thread()

    def disconnected(self) -> None:
        """Loop owner: cancel the call, or let one that has started end by itself."""
        super().disconnected()
        if self.state is BUSY:
            self.peer.loop.overdue.watch(self)

    def cancel(self) -> None:
        """Loop owner: cancel the call, unless it has started."""
        if self.state not in (BUSY, ENDED):
            self.end()

    def work_on(self, work: list[Any]) -> None:
        """The turn's thread: call the hook."""
        try:
            identity = self._request.identity = self._hook(self._request)
            self._admitted = bool(identity)
        except BaseException as error:  # even a SystemExit ends only this request
            self._refusal = AUTHORIZATION_FAILED
            # isinstance() could run code of the exception, which may raise.
            if issubclass(type(error), HandshakeError):
                self._refusal = cast(HandshakeError, error)
                # An application may raise the same object repeatedly. Each raise would add a
                # traceback to the object, which would keep this request in memory.
                error.__traceback__ = None
            else:
                log_failure(error, "the authorize function of %s failed", self.path)

    def finish_turn(self) -> None:
        """Loop owner: answer the request, unless the client has disconnected.

        If the hook has returned a true value, the route answers. Otherwise the answer is an error.
        """
        self.end()
        if self.peer.closed:
            return
        error = self._answer()
        if error is None:
            self.proceed()
            return
        try:
            added_headers(error.headers, ON_PAGES)
            self.refuse(error, FAILED if error is AUTHORIZATION_FAILED else AUTHORIZE)
        except (TypeError, ValueError):  # the status or a header of the answer is invalid
            log.exception(
                "the authorize function of %s raised an answer that cannot be sent", self.path
            )
            self.refuse(AUTHORIZATION_FAILED)

    def _answer(self) -> HandshakeError | None:
        """Loop owner: return the hook's refusal, or None. It is never raised; see ``work_on``."""
        if self._refusal is not None:
            return self._refusal
        return None if self._admitted else FORBIDDEN

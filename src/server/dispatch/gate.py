"""Requests that wait: for the application's decision, or for a thread that runs their handler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from math import inf

from wsframe import HandshakeError

from ..http.answers import refuse
from ..http.refusals import no_thread
from ..http.request import Request
from ..sockets.peer import Peer, Protocol


class PendingRequest(Protocol):
    """A request that is valid and not answered yet; all methods are the owner's.

    What its client sends meanwhile stays unread. When the client leaves, the request is dropped.

    Attributes:
        peer: the connection.
    """

    __slots__ = ()  # so that it can be combined with Turns

    peer: Peer
    credit: float  # as that of Turns
    _request: Request
    _proceed: Callable[[], None]  # answers; what it raises as HandshakeError is the answer

    @property
    @abstractmethod
    def waits(self) -> bool:
        """Owner: whether it waits for a thread."""

    @abstractmethod
    def cancel(self) -> bool:
        """Owner: wait no longer, unless user code has begun; whether it had not."""

    def stop_reading(self) -> None:
        """Owner: leave what the client sends unread from here on."""
        self.peer.switch(self)
        self.peer.pause_reading(until_left=True)

    def wait_for_thread(self) -> None:
        """Owner: from now on wait for a thread, for at most ``thread_timeout``."""
        if self.peer.deadline == inf:
            self.peer.due_in(self.peer.clients.settings.thread_timeout)

    def proceed(self) -> None:
        """Owner: answer the request."""
        self.peer.resume_reading()
        try:
            self._proceed()
        except HandshakeError as error:
            self.refuse(error)

    def refuse(self, error: HandshakeError, kind: str | None = None) -> None:
        """Owner: answer with the error."""
        request = self._request
        refuse(self.peer, error, request=request, with_body=request.method != "HEAD", kind=kind)

    def data_received(self, data: memoryview) -> None:
        """Owner: read only to find the end behind it, because the client has left."""

    def peer_left(self) -> None:
        """Owner: there is nobody to answer."""
        self.cancel()

    def deadline_passed(self) -> None:
        """Owner: no thread was free in time, unless one has just come free."""
        if not self.waits:
            return
        loop = self.peer.loop
        reason = loop.lack_of(self.credit, self.peer, self.route)
        timeout = self.peer.clients.settings.thread_timeout
        if self.cancel():
            loop.log_refusal(self.route, f"{reason} for {timeout:g} s (thread_timeout)")
            self.refuse(no_thread())

    def shut_down(self) -> None:
        """Owner: the server stops; the request has no answer and may be sent again."""
        self.peer.abort()

    @property
    @abstractmethod
    def route(self) -> Hashable:
        """Any thread: the route that answers the request."""


class Gate(PendingRequest):
    """A request whose handler runs by turns, until the first of them finds a thread."""

    __slots__ = ("_proceed", "_request", "_route", "credit", "peer")

    def __init__(
        self,
        peer: Peer,
        request: Request,
        route: Hashable,
        credit: float,
        proceed: Callable[[], None],
    ) -> None:
        self.peer = peer
        self._request = request
        self._proceed = proceed
        self._route = route
        self.credit = credit

    @property
    def route(self) -> Hashable:
        """Any thread: the route that answers the request."""
        return self._route

    def enter(self) -> None:
        """Owner: answer the request, at once if there is a thread."""
        if self.peer.loop.wait_for_thread(self, self.peer, self._route):
            self.stop_reading()
            self.wait_for_thread()
        else:
            self._proceed()

    def resume(self) -> None:
        """Owner: there is a thread now."""
        self.proceed()

    @property
    def waits(self) -> bool:
        """Owner: whether it waits for a thread, as it does until it is resumed."""
        return True

    def cancel(self) -> bool:
        """Owner: wait no longer; no user code has begun."""
        self.peer.loop.waiting.discard(self)
        return True

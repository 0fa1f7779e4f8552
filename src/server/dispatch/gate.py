"""Requests that wait: for ``authorize``, or for a thread for their handler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from math import inf

from wsframe import HandshakeError

from ..http.answers import refuse
from ..http.refusals import no_thread
from ..http.request import Request
from ..sockets.peer import Peer
from ..sockets.session import Session


class PendingRequest(Session):
    """A valid request that was not answered yet. Only the loop's owner calls its methods.

    Data that the client sends before the answer stays unread. If the client disconnects, the
    request is cancelled.

    Attributes:
        peer: the connection.
    """

    __slots__ = ()  # empty, so that a subclass can also inherit from Task

    peer: Peer
    needs_thread: bool  # see Task.needs_thread
    _request: Request
    # A function that answers the request; a HandshakeError becomes the answer.
    _proceed: Callable[[], None]

    @property
    @abstractmethod
    def waits(self) -> bool:
        """Loop owner: True while the request waits for a thread."""

    @abstractmethod
    def cancel(self) -> None:
        """Loop owner: cancel the wait, unless user code has started."""

    def stop_reading(self) -> None:
        """Loop owner: stop reading from the client until the answer."""
        self.peer.switch(self)
        self.peer.pause_reading(until_hangup=True)

    def wait_for_thread(self) -> None:
        """Loop owner: limit the wait for a thread to ``thread_timeout``."""
        if self.peer.deadline == inf:
            self.peer.due_in(self.peer.clients.settings.thread_timeout)

    def proceed(self) -> None:
        """Loop owner: answer the request."""
        self.peer.resume_reading()
        try:
            self._proceed()
        except HandshakeError as error:
            self.refuse(error)

    def refuse(self, error: HandshakeError, kind: str | None = None) -> None:
        """Loop owner: answer with an error."""
        request = self._request
        refuse(self.peer, error, request=request, with_body=request.method != "HEAD", kind=kind)

    def data_received(self, data: memoryview) -> None:
        """Loop owner: ignore data, which is read only to detect a disconnect of the client."""

    def disconnected(self) -> None:
        """Loop owner: cancel the request, because its client has disconnected."""
        self.cancel()

    def deadline_passed(self) -> None:
        """Loop owner: refuse the request if it still waits for a thread."""
        if not self.waits:
            return
        loop = self.peer.loop
        reason = loop.waiting.explain(self.needs_thread, self.peer, self.route)
        timeout = self.peer.clients.settings.thread_timeout
        self.cancel()
        loop.waiting.log_refusal(self.route, f"{reason} for {timeout:g} s (thread_timeout)")
        self.refuse(no_thread())

    def shut_down(self) -> None:
        """Loop owner: close the connection without an answer; the client may repeat its request."""
        self.peer.abort()

    @property
    @abstractmethod
    def route(self) -> Hashable:
        """Any thread: the route that answers the request."""


class Gate(PendingRequest):
    """A request that waits until a thread is free for the first turn of its handler."""

    __slots__ = ("_proceed", "_request", "_route", "needs_thread", "peer")

    def __init__(
        self,
        peer: Peer,
        request: Request,
        route: Hashable,
        needs_thread: bool,
        proceed: Callable[[], None],
    ) -> None:
        self.peer: Peer = peer
        self._request = request
        self._proceed = proceed
        self._route = route
        self.needs_thread: bool = needs_thread

    @property
    def route(self) -> Hashable:
        """Any thread: the route that answers the request."""
        return self._route

    def start(self) -> None:
        """Loop owner: answer the request as soon as a thread is free."""
        if self.peer.loop.waiting.wait_if_needed(self, self.peer, self._route):
            self.stop_reading()
            self.wait_for_thread()
        else:
            self._proceed()

    def resume(self) -> None:
        """Loop owner: answer the request, because a thread is free."""
        self.proceed()

    @property
    def waits(self) -> bool:
        """Loop owner: True, because the request waits until it is resumed."""
        return True

    def cancel(self) -> None:
        """Loop owner: cancel the wait, because no user code has started."""
        self.peer.loop.waiting.discard(self)

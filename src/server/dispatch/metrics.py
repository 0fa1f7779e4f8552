"""A request for the metrics, until they are known: other processes may have to be asked first."""

from __future__ import annotations

from functools import partial

from ..http.answers import respond
from ..reports.stats import CONTENT_TYPE
from ..sockets.peer import Peer, Protocol
from .routes import MetricsRoute


class PendingMetrics(Protocol):
    """A request for the metrics; all methods but :meth:`tell` are the owner's.

    Args:
        peer: the connection.
        with_body: whether the answer has a body, which one to HEAD has not.
    """

    __slots__ = ("_peer", "_with_body")

    def __init__(self, peer: Peer, with_body: bool) -> None:
        self._peer = peer
        self._with_body = with_body

    def enter(self, route: MetricsRoute) -> None:
        """Owner: ask for the metrics."""
        self._peer.switch(self, self._peer.loop.timing.metrics_timeout)
        route.ask(self.tell)

    def tell(self, text: bytes | None) -> None:
        """Any thread: answer with these metrics; None if they cannot be had."""
        self._peer.loop.call_soon(partial(self._answer, text))

    def data_received(self, data: memoryview) -> None:
        """Owner: a client that waits has nothing to say."""

    def peer_left(self) -> None:
        """Owner: there is nobody to answer."""

    def deadline_passed(self) -> None:
        """Owner: the supervisor of this worker hangs."""
        self._answer(None)

    def shut_down(self) -> None:
        """Owner: the server stops; the request has no answer and may be sent again."""
        self._peer.abort()

    def _answer(self, text: bytes | None) -> None:
        peer, with_body = self._peer, self._with_body
        if peer.closed:
            return
        if text is None:
            reason = b"the metrics of the other processes are not available\n"
            respond(peer, 503, reason, headers=[("Retry-After", "5")], with_body=with_body)
        else:
            respond(peer, 200, text, content_type=CONTENT_TYPE, with_body=with_body)

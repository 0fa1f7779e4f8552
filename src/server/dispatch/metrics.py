"""A request that waits for the metrics, which may come from other processes."""

from __future__ import annotations

from functools import partial

from ..http.answers import respond
from ..reports.stats import CONTENT_TYPE
from ..sockets.peer import Peer
from ..sockets.session import Session
from .routes import MetricsRoute


class PendingMetrics(Session):
    """A request for the metrics. Only the owner calls its methods, except :meth:`receive`.

    Args:
        peer: the connection.
        with_body: False for the answer to a HEAD request.
    """

    __slots__ = ("_peer", "_with_body")

    def __init__(self, peer: Peer, with_body: bool) -> None:
        self._peer = peer
        self._with_body = with_body

    def start(self, route: MetricsRoute) -> None:
        """Owner: collect the metrics, and answer with them."""
        self._peer.switch(self, self._peer.loop.timing.metrics_timeout)
        route.request(self.receive)

    def receive(self, text: bytes | None) -> None:
        """Any thread: answer with these metrics; None if they are not available."""
        self._peer.loop.call_soon(partial(self._answer, text))

    def data_received(self, data: memoryview) -> None:
        """Owner: ignore data; a connection serves one request."""

    def disconnected(self) -> None:
        """Owner: do nothing, because a later answer to a closed connection is dropped."""

    def deadline_passed(self) -> None:
        """Owner: answer with 503, because the supervisor did not answer in time."""
        self._answer(None)

    def shut_down(self) -> None:
        """Owner: close the connection without an answer; the client may repeat its request."""
        self._peer.abort()

    def _answer(self, text: bytes | None) -> None:
        peer, with_body = self._peer, self._with_body
        if peer.send_closed:  # the client has its answer, or has disconnected
            return
        if text is None:
            reason = b"the metrics of the other processes are not available\n"
            respond(peer, 503, reason, headers=[("Retry-After", "5")], with_body=with_body)
        else:
            respond(peer, 200, text, content_type=CONTENT_TYPE, with_body=with_body)

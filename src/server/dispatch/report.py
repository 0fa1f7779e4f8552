"""A request that waits for a report, such as metrics of several processes."""

from __future__ import annotations

from functools import partial

from ..http.answers import respond
from ..sockets.peer import Peer
from ..sockets.session import Session
from .routes import Report, ReportRoute

# The answer's headers if the report is not available in time.
RETRY = [("Retry-After", "5")]


class PendingReport(Session):
    """A request for a report. Only the owner calls its methods, except :meth:`receive`.

    Args:
        peer: the connection.
        route: the route of the request.
        with_body: False for the answer to a HEAD request.
    """

    __slots__ = ("_peer", "_route", "_with_body")

    def __init__(self, peer: Peer, route: ReportRoute, with_body: bool) -> None:
        self._peer = peer
        self._route = route
        self._with_body = with_body

    def start(self) -> None:
        """Loop owner: request the report, and answer with it."""
        self._peer.switch(self, self._peer.loop.timing.report_timeout)
        self._route.request(self.receive)

    def receive(self, report: Report | None) -> None:
        """Any thread: answer with a report; None means that no report is available."""
        self._peer.loop.call_soon(partial(self._answer, report))

    def data_received(self, data: memoryview) -> None:
        """Loop owner: ignore received data, because a connection serves one request."""

    def disconnected(self) -> None:
        """Loop owner: do nothing, because a later answer to a closed connection is dropped."""

    def deadline_passed(self) -> None:
        """Loop owner: answer with 503, because the report is late."""
        self._answer(None)

    def shut_down(self) -> None:
        """Loop owner: close the connection without an answer; the client may repeat its request."""
        self._peer.abort()

    def _answer(self, report: Report | None) -> None:
        peer = self._peer
        if peer.send_closed:  # the client was answered, or has disconnected
            return
        report = report or self._route.missing
        headers = [("Cache-Control", "no-store"), *(RETRY if report.status == 503 else ())]
        respond(
            peer,
            report.status,
            report.body,
            content_type=report.content_type,
            headers=headers,
            with_body=self._with_body,
        )

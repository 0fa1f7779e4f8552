"""The checks that a WebSocket client answers pings and completes its messages."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from wsframe import CloseCode
from wsframe.progress import Keepalive, Life

if TYPE_CHECKING:
    from wsframe import Connection

    from ..settings import Settings
    from ..sockets.peer import Peer

# The number of checks within the shortest time limit.
CHECKS = 4
# The minimum rate of an incomplete message after message_timeout, in bytes per second.
SLOWEST_SENDER = 1024


class Unfinished(NamedTuple):
    """A message that was found incomplete.

    Attributes:
        seen: the time of the first check that found the message incomplete, on the loop's clock.
        number: the number of messages completed before this one.
        bytes_in: the number of bytes read until that check.
    """

    seen: float
    number: int
    bytes_in: int


class Verdict(NamedTuple):
    """The reason to close a connection, and the close code for it."""

    code: int
    reason: str


class Liveness(Keepalive):
    """The checks of one client; only the owner calls its methods."""

    __slots__ = ("_unfinished",)

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self._unfinished: Unfinished | None = None

    def check(self, peer: Peer, codec: Connection, *, unread: bool) -> Verdict | None:
        """Loop owner: ping a silent client, and check the time limits of its pong and its message.

        Before this call, :meth:`Peer.check_progress` must check that the client accepts data.

        Args:
            peer: the connection.
            codec: the codec of the connection.
            unread: True while the server does not read from the client, so that silence is not a
                fault.

        Returns:
            The reason to close the connection; None if there is no reason.
        """
        settings = peer.clients.settings
        now = peer.loop.checked_at
        if unread:
            self.restart(now)
        elif settings.ping_interval:
            match self.look(
                now,
                peer.bytes_in,
                peer,
                more=peer.has_unsent,
                interval=settings.ping_interval,
                timeout=settings.ping_timeout,
            ):
                case Life.PING_DUE:
                    peer.send_control(codec.ping())
                    self.pinged(now, peer.position, peer, settings.ping_timeout)
                case Life.OVER:
                    peer.clients.totals.ping_timeouts += 1
                    reason = f"no pong within {settings.ping_timeout:g} s (ping_timeout)"
                    return Verdict(CloseCode.INTERNAL_ERROR, reason)
        if settings.message_timeout:
            if unread or peer.congested or not codec.incomplete:
                self._unfinished = None
            elif self._is_late(peer, now):
                limit = f"{settings.message_timeout:g} s and 1 s per KiB (message_timeout)"
                reason = f"a message took longer than {limit}"
                return Verdict(CloseCode.POLICY_VIOLATION, reason)
        return None

    def _is_late(self, peer: Peer, now: float) -> bool:
        """Return True if the client's incomplete message exceeds its time limit."""
        if self._unfinished is None or self._unfinished.number != peer.messages_in:
            self._unfinished = Unfinished(now, peer.messages_in, peer.bytes_in)
        seconds = (peer.bytes_in - self._unfinished.bytes_in) / SLOWEST_SENDER
        return now - self._unfinished.seen >= peer.clients.settings.message_timeout + seconds


def check_interval(settings: Settings) -> float:
    """Return the seconds between two checks of a client; inf if no time is limited."""
    return min(settings.ping_interval or inf, settings.message_timeout or inf) / CHECKS

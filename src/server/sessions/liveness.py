"""The checks of a WebSocket client: that it answers pings, and completes its messages."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from wsframe import CloseCode
from wsframe.progress import Keepalive, Life

if TYPE_CHECKING:
    from wsframe import Connection

    from ..settings import Settings
    from ..sockets.peer import Peer

# The number of checks within the shortest of the limits.
CHECKS = 4
# Bytes per second that an incomplete message must gain once message_timeout is used up.
SLOWEST_SENDER = 1024


class Unfinished(NamedTuple):
    """A message that was found incomplete.

    Attributes:
        seen: the time of the first check that found it, on the loop's clock.
        number: the number of messages completed before it.
        bytes_in: the number of bytes read until then.
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
        """Owner: ping a silent client, and check the time of its ping and its message.

        Call :meth:`Peer.check_progress` before, which checks that the client accepts data.

        Args:
            peer: the connection.
            codec: its codec.
            unread: True if the client is not being read, so that its silence means nothing.

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
        """Return True if the incomplete message of the client takes too long."""
        if self._unfinished is None or self._unfinished.number != peer.messages_in:
            self._unfinished = Unfinished(now, peer.messages_in, peer.bytes_in)
        seconds = (peer.bytes_in - self._unfinished.bytes_in) / SLOWEST_SENDER
        return now - self._unfinished.seen >= peer.clients.settings.message_timeout + seconds


def check_interval(settings: Settings) -> float:
    """Return the seconds between two checks of a client; inf if nothing is limited."""
    return min(settings.ping_interval or inf, settings.message_timeout or inf) / CHECKS

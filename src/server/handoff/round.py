"""The round: what a loop has received and not delivered yet, and the answers to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pure_rounds import Received
    from .blocking import BlockingProfile
    from .poller import Poller
    from .task import TaskPeer

# Answers are collected for at most this time, in seconds, to send them in one call. A turn that
# takes longer makes its route slow: then the answers of others are sent before its turns begin.
COLLECT_TIME = 0.0001


class Round:
    """One round of a loop. Only the owner calls its methods.

    A round belongs to the loop. If a turn loses the loop, the next owner continues the same round:
    it sends the answers, then processes the remaining turns, messages and files. Each client's
    messages are delivered in order, because nothing is received before all earlier messages were
    delivered.

    Args:
        poller: the poller of the loop.
        clock: returns the time in seconds.
        call_safely: calls a function; an error ends only the connection whose method it is.

    Attributes:
        received: the messages that were received and not delivered.
        ready: the other ready files, with their events.
        turns: the number of queued turns that belong to this round.
        answered: the connections whose answers are not sent yet.
    """

    __slots__ = (
        "_call_safely",
        "_clock",
        "_poller",
        "_send_by",
        "_turn_ended",
        "answered",
        "ready",
        "received",
        "turns",
    )

    def __init__(
        self, poller: Poller, clock: Callable[[], float], call_safely: Callable[..., None]
    ) -> None:
        self.received: Iterator[Received] = iter(())
        self.ready: Iterator[tuple[int, int]] = iter(())
        self.turns = 0
        self.answered: list[Any] = []  # each is a Wire and a TaskPeer
        self._poller = poller
        self._clock = clock
        self._call_safely = call_safely
        self._turn_ended = 0.0  # the end of the last turn, or the beginning of the round
        self._send_by = 0.0  # the time when the collected answers must be sent

    def receive(self, timeout: float | None) -> bool:
        """Owner: begin a round: poll, and receive from the sockets that are ready.

        Args:
            timeout: the longest time to wait, in seconds; None for no limit.

        Returns:
            True if a file was ready.
        """
        received, ready = self._poller.receive(timeout)
        self.received, self.ready = iter(received), iter(ready)
        self._turn_ended = now = self._clock()
        self._send_by = now + COLLECT_TIME
        return bool(received or ready)

    def end_turn(self, peer: TaskPeer, profile: BlockingProfile) -> None:
        """Owner: collect the answers of a turn; send all if the first one has waited long enough.

        Args:
            peer: the connection of the turn.
            profile: the profile of its route.
        """
        self.answered.append(peer)
        now = self._clock()
        if now >= self._send_by:
            profile.slow = now - self._turn_ended >= COLLECT_TIME
            self.send_answers()
        else:
            profile.slow = False
            self._turn_ended = now

    def send_answers(self) -> None:
        """Owner: send the collected answers."""
        if self.answered:
            answered, self.answered = self.answered, []
            for peer, items, sent in self._poller.send(answered):
                self._call_safely(peer.sent_partly, items, sent)
        self._turn_ended = now = self._clock()
        self._send_by = now + COLLECT_TIME

    def clear(self) -> None:
        """The child of a fork: forget everything."""
        self.received, self.ready = iter(()), iter(())
        self.turns = 0
        self.answered = []

"""The round: the received messages that were not yet delivered, and the answers to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pure_rounds import Received
    from .blocking import BlockingProfile
    from .poller import Poller
    from .task import TaskPeer


class Found(Enum):
    """The result of a poll."""

    NOTHING = "no file is ready"
    FILES = "files are ready"
    MESSAGES = "messages were received"


# Module-level names, because looking up a member of an enum is slower.
NOTHING, FILES, MESSAGES = Found

# The maximum time, in seconds, for which answers are collected to send them in one call. A longer
# turn makes its route slow: then the answers of others are sent before its turns begin.
COLLECT_TIME = 0.0001


class Round:
    """One round of a loop. Only the owner calls its methods.

    A round belongs to the loop. If a turn loses the loop, the next owner continues the same round:
    it sends the answers, then processes the remaining turns, messages and files. Each client's
    messages are delivered in order, because nothing is received before all earlier messages were
    delivered.

    Args:
        poller: the poller of the loop.
        clock: a function that returns the time in seconds.
        call_safely: a function that calls another one, whose errors end only its connection.

    Attributes:
        received: the messages that were received and not delivered.
        ready: the ready files whose data was not received, with their events.
        turns: the number of queued turns that belong to this round.
        answered: the connections whose answers are not sent yet.
        clock: returns the time in seconds.
        turn_ended: the end of the last turn, or the beginning of the round.
        send_by: the time when the collected answers must be sent.
    """

    __slots__ = (
        "_call_safely",
        "_poller",
        "answered",
        "clock",
        "ready",
        "received",
        "send_by",
        "turn_ended",
        "turns",
    )

    def __init__(
        self, poller: Poller, clock: Callable[[], float], call_safely: Callable[..., None]
    ) -> None:
        self.received: Iterator[Received] = iter(())
        self.ready: Iterator[tuple[int, int]] = iter(())
        self.turns: int = 0
        self.answered: list[Any] = []  # each item is a Wire and a TaskPeer
        self._poller = poller
        self.clock: Callable[[], float] = clock
        self._call_safely = call_safely
        self.turn_ended: float = 0.0
        self.send_by: float = 0.0

    def receive(self, timeout: float | None) -> Found:
        """Loop owner: begin a round: poll, and receive from the sockets that are ready.

        Args:
            timeout: the longest time to wait, in seconds; None for no limit.
        """
        received, ready = self._poller.receive(timeout)
        self.received, self.ready = iter(received), iter(ready)
        self.turn_ended = now = self.clock()
        self.send_by = now + COLLECT_TIME
        if received:
            return MESSAGES if received[0][1] else FILES
        return FILES if ready else NOTHING

    def begin_turns(self) -> None:
        """Loop owner: start to measure the time of turns."""
        self.turn_ended = now = self.clock()
        self.send_by = now + COLLECT_TIME

    def end_turn(self, peer: TaskPeer, profile: BlockingProfile) -> None:
        """Loop owner: collect the answers of a turn; send all if the first has waited enough.

        Args:
            peer: the connection of the turn.
            profile: the profile of its route.
        """
        self.answered.append(peer)
        now = self.clock()
        if now >= self.send_by:
            profile.slow = now - self.turn_ended >= COLLECT_TIME
            self.send_answers()
        else:
            profile.slow = False
            self.turn_ended = now

    def send_answers(self) -> None:
        """Loop owner: send the collected answers."""
        self.end()
        self.begin_turns()

    def end(self) -> None:
        """Loop owner: send the remaining answers, because all turns of the round have ended."""
        if self.answered:
            answered, self.answered = self.answered, []
            for peer, items, sent in self._poller.send(answered):
                self._call_safely(peer.sent_partly, items, sent)

    def clear(self) -> None:
        """The child of a fork: forget everything."""
        self.received, self.ready = iter(()), iter(())
        self.turns = 0
        self.answered = []

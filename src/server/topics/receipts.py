"""The outcome of publishing an event."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Published:
    """Whom an event reaches, of the clients of this process.

    Attributes:
        reached: subscribers that are sent it right away.
        queued: subscribers that are sent it when they have taken what was before it.
        dropped: subscribers that lose an event, or their connection, because they are too slow.
    """

    reached: int = 0
    queued: int = 0
    dropped: int = 0


class Fate(Enum):
    """What has become of an event."""

    WAITING = "it waits for Redis"
    ACCEPTED = "Redis has it"
    REFUSED = "Redis refuses the topic"
    UNFIT = "Redis refuses the event, and would always do so"
    LOST = "the program gave it up before Redis had answered"


class Receipt:
    """Tells whoever waits for it what has become of an event."""

    def __init__(self) -> None:
        self.fate = Fate.WAITING
        self._settled = threading.Event()

    def settle(self, fate: Fate) -> None:
        """The writer, or who ends it, once: the event is settled."""
        self.fate = fate
        self._settled.set()

    def wait(self, timeout: float) -> bool:
        """Any thread: wait until the event is settled; False if it is not in time."""
        return self._settled.wait(timeout)

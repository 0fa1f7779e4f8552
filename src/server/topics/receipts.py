"""The outcome of publishing an event."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Published:
    """The subscribers that an event reaches in this process.

    Without a running server in this process, all numbers are 0. Over Redis, the servers of other
    processes send the event to their own subscribers, which are not counted. Without Redis, a topic
    belongs to one process, so another process must send the event to that one, for example over
    HTTP.

    >>> App().topic("news").publish("hello")
    Published(reached=0, queued=0, dropped=0)

    Attributes:
        reached: the number of subscribers that are sent the event at once.
        queued: the number of subscribers that are sent the event after earlier events.
        dropped: the number of subscribers that lose an event, or their connection, because they are
            too slow.
    """

    reached: int = 0
    queued: int = 0
    dropped: int = 0


class Fate(Enum):
    """The result of storing an event in a shared log."""

    WAITING = "the event waits for the broker"
    ACCEPTED = "the broker has stored the event"
    REFUSED = "the broker rejects the topic"
    UNFIT = "the broker rejects the event, and always will"
    LOST = "the program has dropped the event before the broker replied"


class Receipt:
    """The result of one event, which any thread may wait for."""

    def __init__(self) -> None:
        self.fate: Fate = Fate.WAITING
        self._settled = threading.Event()

    def settle(self, fate: Fate) -> None:
        """The broker's thread, once: set the result."""
        self.fate = fate
        self._settled.set()

    def wait(self, timeout: float) -> bool:
        """Any thread: wait for the result; return False if it is not set in time."""
        return self._settled.wait(timeout)

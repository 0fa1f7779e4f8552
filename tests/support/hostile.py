"""What a peer sends to a Connection, and what comes of it, for :mod:`.memory` to measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.waiting import TIMEOUT
from wsframe import Close, Connection, ConnectionClosed, Event, Failure, Role
from wsframe.client import connect

from .memory import Growth


@dataclass(frozen=True)
class Talk:
    """What one peer sends.

    Args:
        role: of the end that it is sent to.
        parts: blocks of bytes, and how many times each is sent.
        step: how many bytes are read at once, of one block.
        options: of that end.
    """

    role: str
    parts: list[tuple[bytes, int]]
    step: int = 1 << 16
    options: dict[str, Any] = field(default_factory=dict)

    def reads(self) -> Iterator[memoryview]:
        """The bytes, as they arrive."""
        for block, times in self.parts:
            view = memoryview(block)
            for _ in range(times):
                for begin in range(0, len(view), self.step):
                    yield view[begin : begin + self.step]


@dataclass
class Answer:
    """What comes of it.

    Attributes:
        last: the last event.
        at: how many bytes had been read then.
        kinds: how many events there were of each type, by its name.
        most: how many came of one read at most.
    """

    last: Event | None = None
    at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    most: int = 0


def listen(talks: Iterable[Talk]) -> tuple[int, list[Answer]]:
    """Hear one peer after the other; how much memory that takes at most, and every answer."""
    with Growth() as growth:
        answers = [_hear(talk) for talk in talks]
    return growth.size, answers


def _hear(talk: Talk) -> Answer:
    connection = Connection(Role(talk.role), **talk.options)
    answer = Answer()
    size = 0
    for data in talk.reads():
        events = connection.receive(data)
        size += len(data)
        if events:
            assert not isinstance(answer.last, (Close, Failure)), "the end was not the end"
            answer.last, answer.at = events[-1], size
            answer.kinds.update(type(event).__name__ for event in events)
            answer.most = max(answer.most, len(events))
    return answer


@dataclass
class Visited:
    """What becomes of a client.

    Attributes:
        growth: how much memory it takes at most.
        received: the messages that it has received.
        code: how the connection ended.
        reason: likewise.
    """

    growth: int
    received: list[str | bytes]
    code: int | None
    reason: str | None


def visit(url: str, message: bytes) -> Visited:
    """Connect to a server, send this, and receive until the end."""
    ws = connect(url, close_timeout=TIMEOUT)
    with Growth() as growth:
        with suppress(ConnectionClosed):
            ws.send(message)
        received = list(ws)
    return Visited(growth.size, received, ws.close_code, ws.close_reason)

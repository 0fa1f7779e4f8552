"""Input from a peer to a Connection, and its result, for the measurements of :mod:`.memory`."""

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
    """The input from one peer.

    Args:
        role: the role of the end that receives it.
        parts: blocks of bytes, each with the number of times that it is sent.
        step: the most bytes of one read, all from one block.
        options: the arguments of the receiving Connection.
    """

    role: str
    parts: list[tuple[bytes, int]]
    step: int = 1 << 16
    options: dict[str, Any] = field(default_factory=dict)

    def reads(self) -> Iterator[memoryview]:
        """Yield the bytes of each read."""
        for block, times in self.parts:
            view = memoryview(block)
            for _ in range(times):
                for begin in range(0, len(view), self.step):
                    yield view[begin : begin + self.step]


@dataclass
class Answer:
    """The result of the input.

    Attributes:
        last: the last event.
        at: the number of bytes read up to the last event.
        kinds: the number of events of each type, by its name.
        most: the most events of one read.
    """

    last: Event | None = None
    at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    most: int = 0


def listen(talks: Iterable[Talk]) -> tuple[int, list[Answer]]:
    """Receive from one peer after the other; return the most memory, and all answers."""
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
    """The result of a client.

    Attributes:
        growth: the most memory that it takes.
        received: the received messages.
        code: the close code.
        reason: the close reason.
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

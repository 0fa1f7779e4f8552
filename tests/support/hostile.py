"""Input from a peer to a Connection, and its result, for the measurements of :mod:`.memory`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsframe import Close, Connection, Event, Failure, Part, Role

from .memory import Growth


@dataclass(frozen=True)
class Talk:
    """The input from one peer.

    Args:
        role: the role of the end that receives it.
        parts: blocks of bytes, each with the number of times that it is sent.
        step: the most bytes of one read, all from one block.
        options: the arguments of the receiving Connection.
        in_parts: True to receive incomplete messages in parts.
    """

    role: str
    parts: list[tuple[bytes, int]]
    step: int = 1 << 16
    options: dict[str, Any] = field(default_factory=dict)
    in_parts: bool = False

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

    last: Event | Part | None = None
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
    receive: Callable[[memoryview], Sequence[Event | Part]] = (
        connection.receive_parts if talk.in_parts else connection.receive
    )
    answer = Answer()
    size = 0
    for data in talk.reads():
        events = receive(data)
        size += len(data)
        if events:
            assert not isinstance(answer.last, (Close, Failure)), "the end was not the end"
            answer.last, answer.at = events[-1], size
            answer.kinds.update(type(event).__name__ for event in events)
            answer.most = max(answer.most, len(events))
    return answer

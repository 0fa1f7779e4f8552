"""A mixed load of pages, kept connections, WebSockets and streams, by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from time import monotonic

from .data import content
from .exchanges import expect_closing_handshake, expect_numbers, expect_page, publish
from .kinds import Kind
from .running import Running
from .wire import Stream, Wire, WrongError, echo, message, request, upgrade

THREADS = 16
# The most bytes of a page, a body or a message; some are larger than a socket's buffer.
LARGEST = 200_000


@dataclass
class Outcome:
    """The result of a load.

    Attributes:
        connections: the number of connections.
        compared: the number of compared pages, echoes and streams.
        wrong: descriptions of wrong bytes.
        errors: descriptions of failed connections.
    """

    connections: int = 0
    compared: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Visitor:
    """The clients of one thread, which connect one after another.

    Args:
        server: the server.
        seed: the seed of all random choices.
        end: the time at which it stops.
    """

    def __init__(self, server: Running, seed: int, end: float) -> None:
        self.outcome = Outcome()
        self._server = server
        self._random = Random(seed)
        self._end = end
        self._topic = f"load-{seed}"
        self._published = 0

    def run(self) -> None:
        """Connect again and again, until the end or the third fault."""
        outcome = self.outcome
        while monotonic() < self._end and len(outcome.wrong) + len(outcome.errors) < 3:
            action = self._random.choice(ACTIONS)
            try:
                with self._server.connect() as wire:
                    outcome.connections += 1
                    # cheroot keeps ten connections, and closes the others after a response.
                    if all(self.page(wire) for _ in range(self._pages_before(self._server.kind))):
                        action(self, wire)
            except WrongError as error:
                outcome.wrong.append(f"{action.__name__}: {error}")
            except (OSError, EOFError) as error:
                outcome.errors.append(f"{action.__name__}: {error!r}")

    def page(self, wire: Wire) -> bool:
        """Compare a page; return False if the server then closes the connection."""
        kept = expect_page(wire, self._size())
        self.outcome.compared += 1
        return kept

    def body(self, wire: Wire) -> None:
        """Compare a page that contains the body of the request."""
        body = content(self._size())
        wire.send(request("/body", method="POST", body=body))
        wire.expect_page(body)
        self.outcome.compared += 1

    def generator(self, wire: Wire) -> None:
        """Compare the echoes of a generator."""
        self._echo(wire, "/echo")

    def plain(self, wire: Wire) -> None:
        """Compare the echoes of a plain function."""
        self._echo(wire, "/plain")

    def numbers(self, wire: Wire) -> None:
        """Compare an event stream of a handler."""
        number = self._random.randrange(300)
        wire.send(request(f"/count?number={number}"))
        expect_numbers(wire, number)
        self.outcome.compared += 1

    def words(self, wire: Wire) -> None:
        """Compare an event stream that is the response to a body."""
        text = " ".join(str(self._random.random()) for _ in range(self._random.randrange(1, 300)))
        wire.send(request("/words", method="POST", body=text.encode()))
        stream = Stream(wire)
        stream.expect(*text.split())
        stream.expect_end()
        self.outcome.compared += 1

    def topic(self, wire: Wire) -> None:
        """Compare the events of a topic that this thread publishes; then abort the stream."""
        wire.send(request(f"/topic?name={self._topic}"))
        stream = Stream(wire)
        stream.wait_for_position()
        for _ in range(self._random.randrange(1, 5)):
            self._published += 1
            event = f"event {self._published}"
            publish(self._server, self._topic, event)
            stream.expect(event)
            self.outcome.connections += 1
            self.outcome.compared += 1
        wire.reset()

    def _echo(self, wire: Wire, target: str) -> None:
        first = self._payload()
        head = upgrade(target)
        if self._server.kind.takes_read_ahead and self._random.random() < 0.5:
            frame = message(first)
            cut = self._random.randrange(len(frame) + 1)
            wire.send(head + frame[:cut])
            wire.send(frame[cut:])
            wire.expect_upgrade()
        else:
            wire.send(head)
            wire.expect_upgrade()
            wire.send(message(first))
        wire.expect(echo(first))
        self.outcome.compared += 1
        for _ in range(self._random.randrange(30)):
            payload = self._payload()
            wire.send(message(payload))
            wire.expect(echo(payload))
            self.outcome.compared += 1
        if self._random.random() < 0.7:
            expect_closing_handshake(wire)
        else:
            wire.reset()

    def _pages_before(self, kind: Kind) -> int:
        return self._random.randrange(3) if kind.keeps_alive else 0

    def _size(self) -> int:
        return int(LARGEST ** self._random.random())

    def _payload(self) -> str | bytes:
        size = self._size()
        return content(size) if self._random.random() < 0.5 else "text" * (size // 4)


ACTIONS: tuple[Callable[[Visitor, Wire], object], ...] = (
    Visitor.page,
    Visitor.body,
    Visitor.generator,
    Visitor.generator,
    Visitor.plain,
    Visitor.numbers,
    Visitor.words,
    Visitor.topic,
)


def run(server: Running, seconds: float, seed: int = 1) -> Outcome:
    """Return the result of a load of so many seconds."""
    end = monotonic() + seconds
    visitors = [Visitor(server, THREADS * seed + number, end) for number in range(THREADS)]
    threads = [threading.Thread(target=visitor.run) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Outcome()
    for visitor in visitors:
        total.connections += visitor.outcome.connections
        total.compared += visitor.outcome.compared
        total.wrong += visitor.outcome.wrong
        total.errors += visitor.outcome.errors
    return total

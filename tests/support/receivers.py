"""A receiver of topics' events without a connection: what a topic requires of one, and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import Any

from wsframe import EventStreamDecoder, ServerSentEvent
from wsframe.server import Topic
from wsframe.server.pure_rounds import IncompleteBlock
from wsframe.server.topics.encodings import EVENT_STREAM, Encoding
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.subscription import TopicSubscription

from .topics import log_of

EVERYTHING = 1 << 30
_networks = count()


class ManualLoop:
    """A loop whose calls are made when the test makes them.

    Attributes:
        calls: the scheduled calls, in order.
        is_owner: the result of :meth:`owned`; True, because the test's thread makes the calls.
        waits: the reasons for which the connection of the running turn waits.
    """

    def __init__(self) -> None:
        self.calls: deque[Callable[[], object]] = deque()
        self.is_owner = True
        self.waits: list[object] = []

    def owned(self) -> bool:
        return self.is_owner

    def call_soon(self, function: Callable[[], object]) -> None:
        self.calls.append(function)

    def slow_down(
        self, reason: object, when_over: Callable[[Callable[[], object]], object]
    ) -> None:
        self.waits.append(reason)
        when_over(lambda: self.waits.remove(reason))

    def send_block(
        self, peers: Sequence[Any], block: bytes, count: int
    ) -> Sequence[IncompleteBlock]:
        return [(number, None, 0) for number in range(len(peers))]

    def call_safely(self, function: Callable[..., Any], *arguments: object) -> None:
        function(*arguments)

    def report_error(self, error: Exception, source: object = None) -> None:
        raise error

    def run(self) -> None:
        """Make all calls, and the calls that they schedule."""
        while self.calls:
            self.calls.popleft()()


class ManualSocket:
    """A socket that accepts a number of bytes; the client reads when the test does.

    Attributes:
        out: queued blocks.
        unread: accepted bytes that the client has not read.
    """

    def __init__(self, room: int) -> None:
        self.frames_out = 0
        self.notify_when_sent = False
        self.closed = False
        self.out: list[bytes] = []
        self.unread = bytearray()
        self._room = room
        self._unsent = b""

    @property
    def send_closed(self) -> bool:
        return self.closed

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def flush(self) -> None:
        self.frames_out += len(self.out)
        data = self._unsent + b"".join(self.out)
        self.out.clear()
        accepted = self._room - len(self.unread)
        self.unread += data[:accepted]
        self._unsent = data[accepted:]

    def sent_partly(self, items: object, sent: int) -> None:
        raise AssertionError("its loop sends no blocks")

    def abort(self) -> None:
        self.closed = True


class Totals:
    """The counters of a loop."""

    def __init__(self) -> None:
        self.subscriptions = 0
        self.topic_events = 0


class ManualReceiver:
    """A client that is sent the events of topics as an event stream.

    Args:
        loop: the loop of the client.
        room: the number of unread bytes that its socket accepts.

    Attributes:
        slow: the topics that it was too slow for.
        ended: the topics that were closed.
    """

    def __init__(self, loop: ManualLoop, room: int = EVERYTHING) -> None:
        self.loop = loop
        self.peer = ManualSocket(room)
        self.totals = Totals()
        self.network: Hashable = f"network {next(_networks)}"
        self.subscriptions: list[TopicSubscription] = []
        self.slow: list[str] = []
        self.ended: list[str] = []
        self._decoder = EventStreamDecoder()

    @property
    def last_id(self) -> str:
        """The id of the last event that the client has read."""
        return self._decoder.last_event_id

    def subscribe(
        self, topic: Topic, after: str | None = None, member: str | None = None
    ) -> TopicSubscription:
        """Subscribe to a topic; its loop must run before events come."""
        log = log_of(topic)
        subscription = TopicSubscription(log, self, EVENT_STREAM, member)
        self.subscriptions.append(subscription)
        log.add(subscription, after)
        if subscription.placed:
            self.loop.call_soon(subscription.begin)
        return subscription

    def read(self, size: int = EVERYTHING) -> list[ServerSentEvent]:
        """Read some bytes; return the events that are complete with them."""
        received = bytes(self.peer.unread[:size])
        del self.peer.unread[:size]
        self.peer.flush()
        if self.peer.notify_when_sent and not self.peer.has_unsent:
            self.peer.notify_when_sent = False
            for subscription in tuple(self.subscriptions):
                subscription.advance()
        return self._decoder.receive(received)

    def texts(self) -> list[str]:
        """Read everything; return the data of the events."""
        events = []
        while self.peer.unread:
            events += self.read()
        return [event.data for event in events]

    # The side of the topic ------------------------------------------------------------------------

    def is_subscribed(self, topic: str) -> bool:
        return any(one.topic == topic for one in self.subscriptions)

    def subscribed(self, subscription: TopicSubscription) -> None: ...

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        self.send_notice(encoding.stream_start(topic, cursor))

    def put(self, block: bytes) -> None:
        self.peer.out.append(block)

    def send_notice(self, notice: bytes) -> None:
        if notice:
            self.peer.out.append(notice)
            self.peer.flush()

    def topic_ended(self, subscription: TopicSubscription) -> None:
        self.ended.append(subscription.topic)
        subscription.end()

    def unsubscribed(self, subscription: TopicSubscription) -> None:
        self.subscriptions.remove(subscription)

    def too_slow(self, topic: str) -> None:
        self.slow.append(topic)
        self.peer.abort()


def manual_loops(topics: Topics, count: int) -> list[ManualLoop]:
    """Give an app's topics loops."""
    loops = [ManualLoop() for _ in range(count)]
    topics.loops = tuple(loops)
    return loops

"""Topics against a simple model, with events in any order.

Connections are real except their sockets, which are buffers; loops only make calls. The test
decides when a call is made, when a client reads, and the time. So the received events can be
compared with the published ones: all of them, in order, without duplicates, and a gap exactly where
events are missing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.polling import StubPoller
from tests.support.receivers import ManualLoop
from tests.support.topics import position_of
from wsframe import EventStreamDecoder, ServerSentEvent
from wsframe.server.handoff.blocking import BlockingProfile
from wsframe.server.handoff.loop import WRITE, Loop
from wsframe.server.http.request import Request
from wsframe.server.pure_rounds import IncompleteBlock
from wsframe.server.sessions.eventstream import EventStream
from wsframe.server.sessions.eventstream_session import EventStreamSession
from wsframe.server.settings import Settings
from wsframe.server.sockets.clients import Clients as Connections
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing
from wsframe.server.topics.ids import END
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.sizes import Sizes
from wsframe.server.topics.state import Policy
from wsframe.server.topics.subscription import TopicSubscription
from wsframe.server.topics.topic_log import TopicLog
from wsframe.testing import ManualClock

# The limits of one delivery, small enough for the examples to exceed them.
SMALL = Sizes(piece=400, pieces=2, fanout_batch=1, spare_positions=1)
EVERYTHING = 1 << 30

NAMES = ["a", "b"]
SIZES = st.lists(st.sampled_from([0, 10, 150, 500, 2000]), min_size=1, max_size=6)
POLICIES: list[Policy] = ["disconnect", "drop-oldest", "latest"]


class FakeLoop(ManualLoop):
    """A loop for sockets: its calls are made one by one, when the test makes them."""

    def __init__(self, topics: Topics) -> None:
        super().__init__()
        self.timing = topics.timing
        self.clock = topics.timing.clock
        self.topics = topics
        self.unfinished: set[object] = set()
        self.poller = StubPoller()
        self.clients = Connections(cast(Loop, self), Settings(heartbeat=0))

    def register(self, *ignored: object) -> None: ...

    modify = unregister = start_ticks = expect_data = register

    def send_block(
        self, peers: Sequence[Any], block: bytes, count: int
    ) -> Sequence[IncompleteBlock]:
        return self.poller.send_block(peers, block, count)


class FakeSocket:
    """A socket that accepts so many bytes until the client reads them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.unread = bytearray()

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        taken = bytes(data[: self.room - len(self.unread)])
        if not taken:
            raise BlockingIOError
        self.unread += taken
        return len(taken)

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...


class Client:
    """A client that reconnects repeatedly, with its last event id.

    Attributes:
        names: the topics that it is subscribed to.
        after: the beginning in topics that its last id does not contain.
        seen: the last event of each topic that it has received, or knows to be lost; None while it
            does not know where it begins.
        came_with: the topics in its last id when it reconnected.
        left: the topics that it has unsubscribed since it connected.
        ambiguous: True if it reconnected to several topics with the id of one.
    """

    def __init__(self, loop: FakeLoop, names: list[str], after: str | None, room: int) -> None:
        self._loop = loop
        self._room = room
        self.names = names
        self.after = after
        self.last_id = ""
        self.seen: dict[str, int | None] = {}
        self.came_with: set[str] = set()
        self.left: set[str] = set()
        self.ambiguous = False
        self.subscriptions: dict[str, TopicSubscription] = {}

    def connect(self) -> None:
        """Connect and subscribe."""
        self.sock = FakeSocket(self._room)
        self.peer = Peer(self._loop.clients, cast(Any, self.sock), "client")
        self.decoder = EventStreamDecoder(last_event_id=self.last_id)
        headers = [("Last-Event-ID", self.last_id)] if self.last_id else []
        request = Request("GET", "/", headers, "1.1", "client", "http")
        profile = BlockingProfile("/", None, self.peer.loop.timing)
        session = EventStreamSession(self.peer, profile, self._loop.topics, request, gzip=False)
        self.peer.open(session, 10)
        self.peer.begin_answer(b"")
        session.open()
        self.left.clear()
        self.came_with = names_in(self.last_id)
        self.ambiguous = len(self.names) > 1 and self.last_id[:1] not in ("", "?")
        stream = EventStream(session, request)
        self.subscriptions = {
            name: position_of(stream.subscribe(name, after=self.after)) for name in self.names
        }

    def read(self, count: int) -> list[ServerSentEvent]:
        """Read so many bytes from the socket."""
        if self.peer.closed:
            return []
        received = bytes(self.sock.unread[:count])
        del self.sock.unread[:count]
        events = self.decoder.receive(received)
        self.last_id = self.decoder.last_event_id
        if received:
            self.peer.ready(WRITE)
        return events


class Model(RuleBasedStateMachine):
    """Two topics, on two loops, with a few clients."""

    def __init__(self, policy: Policy, with_ids: bool, clock: ManualClock) -> None:
        super().__init__()
        self.policy = policy
        self.with_ids = with_ids
        self.clock = clock
        self.clients: list[Client] = []
        self.topics = Topics(Timing(clock=clock), sizes=SMALL)
        self.loops = [FakeLoop(self.topics) for _ in range(2)]
        self.topics.loops = tuple(self.loops)
        self.by_name: dict[str, TopicLog] = {}
        self.published: dict[str, list[str]] = {name: [] for name in NAMES}  # the keys
        self.closed: set[str] = set()

    @initialize(
        history=st.sampled_from([0, 1, 3, 100]),
        max_bytes=st.sampled_from([0, 600, 3000, 1 << 20]),
    )
    def begin(self, history: int, max_bytes: int) -> None:
        for name in NAMES:
            self.by_name[name] = self.topics.get(name, history, max_bytes, 100.0, self.policy)

    # Rules ----------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), sizes=SIZES, key=st.sampled_from("xyz"))
    def publish(self, name: str, sizes: list[int], key: str) -> None:
        if name in self.closed:
            return
        topic, published = self.by_name[name], self.published[name]
        for size in sizes:
            number = len(published)
            event_id = f"{name}&={number}" if self.with_ids and number % 2 else None
            published.append(key)
            published_to = topic.publish(f"{name} {number} ".ljust(size, "."), id=event_id, key=key)
            assert published_to.reached + published_to.queued == sum(
                one.state is topic and not one.removed
                for client in self.clients
                for one in client.subscriptions.values()
            )

    @precondition(lambda self: len(self.clients) < 8)
    @rule(
        names=st.permutations(NAMES),
        count=st.integers(1, len(NAMES)),
        after=st.sampled_from([None, ""]),
        room=st.sampled_from([300, 1000, 5000, EVERYTHING]),
    )
    def new_client(self, names: list[str], count: int, after: str | None, room: int) -> None:
        client = Client(self.loops[len(self.clients) % 2], names[:count], after, room)
        self.clients.append(client)
        self.connect(client)

    def connect(self, client: Client) -> None:
        if client.last_id == END:
            return  # the server would answer 204
        known = dict(parse_qsl(client.last_id[1:])) if client.last_id[:1] == "?" else client.names
        for name in client.names:
            if not client.last_id or name not in known:
                newest = len(self.published[name]) - 1
                client.seen[name] = newest if client.after is None else None
        client.connect()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        """Drop the connection with the bytes in flight, and reconnect."""
        client = data.draw(st.sampled_from(self.clients))
        client.peer.abort()
        self.connect(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.clients)).peer.abort()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if not client.peer.closed and len(client.names) > 1:
            client.subscriptions[client.names[0]].close()
            client.left.add(client.names[0])

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def shut_down(self, data: st.DataObject) -> None:
        """End a stream; earlier events are sent before the end."""
        client = data.draw(st.sampled_from(self.clients))
        if client.peer.closed:
            return
        behind = {name for name, one in client.subscriptions.items() if not one.caught_up}
        client.peer.shut_down()
        if not client.peer.has_unsent:
            self.let_read(client, EVERYTHING)
            for name in set(client.names) - behind - client.left:
                assert not self.missing(client, name)

    @rule(which=st.integers(0, 1), count=st.integers(1, 10))
    def make_calls(self, which: int, count: int) -> None:
        calls = self.loops[which].calls
        for _ in range(min(count, len(calls))):
            calls.popleft()()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), count=st.sampled_from([1, 100, 1000, EVERYTHING]))
    def read(self, data: st.DataObject, count: int) -> None:
        self.let_read(data.draw(st.sampled_from(self.clients)), count)

    @rule()
    def time_passes(self) -> None:
        self.clock.now += 60

    @rule(name=st.sampled_from(NAMES), history=st.sampled_from([0, 2, 50]))
    def configure(self, name: str, history: int) -> None:
        self.by_name[name].configure(history=history)

    @rule(name=st.sampled_from(NAMES))
    def close_topic(self, name: str) -> None:
        self.by_name[name].close()
        self.closed.add(name)

    # Checks -------------------------------------------------------------------------------------

    def let_read(self, client: Client, count: int) -> bool:
        """Have a client read, and compare its events with the published ones."""
        something = bool(client.sock.unread) and not client.peer.closed
        for event in client.read(count):
            self.take(client, event)
        if client.last_id == END:
            for name in set(client.names) - client.left:
                assert name in self.closed
                assert not self.missing(client, name)
        else:
            assert names_in(client.last_id) >= client.came_with - client.left
        return something

    def take(self, client: Client, event: ServerSentEvent) -> None:
        assert event.id is not None
        is_gap = event.event == "gap"
        name = json.loads(event.data)["topic"] if is_gap else event.data.split()[0]
        cursors = dict(parse_qsl(event.id[1:])) if event.id[:1] == "?" else {name: event.id}
        here, seen = number_before(cursors[name]), client.seen[name]
        if is_gap:
            # The ids of publishers are forgotten with events that a newer one has replaced.
            if not (client.ambiguous or (self.policy == "latest" and self.with_ids)):
                assert seen is None or here > seen, "a gap where nothing is missing"
        else:
            assert here == int(event.data.split()[1])
            assert seen is None or here > seen, "an event came twice"
            assert not self.missing(client, name, here), "events are missing without a gap"
        client.seen[name] = here
        for other, cursor in cursors.items():
            assert not self.missing(client, other, number_before(cursor) + 1)

    def missing(self, client: Client, name: str, end: int | None = None) -> list[int]:
        """Return the events before one that a client should have received and has not."""
        seen, keys = client.seen[name], self.published[name]
        missing = [] if seen is None else range(len(keys))[seen + 1 : end]
        if self.policy != "latest":
            return list(missing)
        return [number for number in missing if keys[number] not in keys[number + 1 :]]

    @rule()
    def settle(self) -> None:
        """After all calls and reads no connected client misses an event."""
        busy = True
        while busy:
            busy = False
            for loop in self.loops:
                while loop.calls:
                    busy = True
                    loop.calls.popleft()()
            for client in self.clients:
                busy = self.let_read(client, EVERYTHING) or busy
        for client in self.clients:
            for name, subscription in client.subscriptions.items():
                assert subscription.removed or not self.missing(client, name)
        for topic in self.by_name.values():
            assert len(topic.log) <= topic.log.bounds.history
            assert topic.log.size <= topic.log.bounds.max_bytes
            assert topic.stats().lagging == 0

    @invariant()
    def lagging_subscriptions_are_counted(self) -> None:
        for topic in self.by_name.values():
            waiting, stats = topic.lagging_by_position(), topic.stats()
            assert all(waiting.values())
            assert stats.lagging == sum(waiting.values()) <= stats.subscribers
            assert all(position >= topic.log.floor for position in waiting)

    def teardown(self) -> None:
        """After a last reconnect each client has received all events; then nothing remains."""
        for client in self.clients:
            if client.peer.closed:
                self.connect(client)
        self.settle()
        for client in self.clients:
            client.peer.abort()
        self.settle()
        for topic in self.by_name.values():
            assert topic.stats().subscribers == 0
            assert not topic.is_delivered
            assert not topic.lagging_by_position()
        for loop in self.loops:
            assert not loop.clients.peers
            assert not loop.clients.totals.subscriptions


def names_in(last_id: str) -> set[str]:
    """Return the topics in a composed id."""
    return set(dict(parse_qsl(last_id[1:]))) if last_id[:1] == "?" else set()


def number_before(cursor: str) -> int:
    """Return the number of the last event before the position of an id."""
    name, _, number = cursor.partition("&=")
    return int(number) if name in NAMES else int(cursor.rpartition("-")[2]) - 1


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("with_ids", [False, True], ids=["own ids", "chosen ids"])
@pytest.mark.parametrize("policy", POLICIES)
def test_against_the_model(
    policy: Policy, with_ids: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "wsframe.server")  # slow clients are expected here
    clock = ManualClock()
    run_state_machine_as_test(cast(Any, lambda: Model(policy, with_ids, clock)))


# By hand ------------------------------------------------------------------------------------------


def new_loops(count: int) -> tuple[FakeLoop, ...]:
    """Return loops of one app."""
    topics = Topics(Timing(), sizes=replace(SMALL, pieces=1))
    loops = tuple(FakeLoop(topics) for _ in range(count))
    topics.loops = loops
    return loops


def test_topics_of_one_client_take_turns() -> None:
    """A topic with more events than the client reads leaves room for the other."""
    (loop,) = new_loops(1)
    flood = loop.topics.get("flood", max_bytes=5000, policy="drop-oldest")
    news = loop.topics.get("news")
    client = Client(loop, ["flood", "news"], None, 2000)
    client.connect()
    received = []
    for number in range(50):
        flood.publish("x" * 1000)
        flood.publish("x" * 1000)
        if number == 10:
            news.publish("news")
        loop.run()
        received += [event.data for event in client.read(1000)]
    assert "news" in received
    assert flood.stats().dropped

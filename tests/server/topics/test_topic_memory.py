"""The memory of topics, with any events and any slow clients."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from tests.support.clients import Clients
from tests.support.inspection import topics_of
from tests.support.serving import Serve
from tests.support.topics import log_of
from wsframe.server import App
from wsframe.server.handoff.blocking import BlockingProfile
from wsframe.server.http.request import Request
from wsframe.server.sessions.eventstream import EventStream
from wsframe.server.sessions.eventstream_session import EventStreamSession
from wsframe.server.sockets.peer import Peer
from wsframe.server.timing import Timing
from wsframe.server.topics.encodings import message_encoding
from wsframe.server.topics.registry import Topics

from .test_topic_model import EVERYTHING, Client, FakeLoop, FakeSocket

MIB = 1 << 20


class GzipClient(Client):
    """A client whose stream is compressed; it does not decode the stream."""

    def connect(self) -> None:
        self.sock = FakeSocket(self._room)
        self.peer = Peer(self._loop.clients, cast(Any, self.sock), "client")
        request = Request("GET", "/", [], "1.1", "client", "http")
        profile = BlockingProfile("/", None, self.peer.loop.timing)
        session = EventStreamSession(self.peer, profile, self._loop.topics, request, gzip=True)
        self.peer.open(session, 10)
        session.open()
        EventStream(session, request).subscribe("news")


def one_loop(**options: Any) -> FakeLoop:
    topics = Topics(Timing(), **options)
    loop = FakeLoop(topics)
    topics.loops = (loop,)
    return loop


def make_calls(loop: FakeLoop, clients: list[Client]) -> None:
    while loop.calls:
        loop.calls.popleft()()
    for client in clients:  # read, and drop the bytes
        if client.sock.room == EVERYTHING:
            client.sock.unread.clear()


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """Return the increase of the used memory since the beginning, in bytes."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()


# The number of events of a kind, and the bound of their topic.
PUBLISHED: dict[str, tuple[int, int, Callable[[int], dict[str, Any]]]] = {
    "empty": (15_000, 0, lambda number: {"data": ""}),
    "one byte": (15_000, 0, lambda number: {"data": b"x"}),
    "ids and keys": (15_000, 0, lambda number: {"data": "", "id": f"my-{number}", "key": "k" * 9}),
    "long names": (
        4000,
        0,
        lambda number: {"data": "", "event": "e" * 999, "id": f"{number:0999}"},
    ),
    "64 KiB": (250, MIB, lambda number: {"data": f"{number}".ljust(65536)}),
    "wide characters": (100, MIB, lambda number: {"data": f"\U0001f600{number}".ljust(65536, "x")}),
    "1 MiB": (15, MIB, lambda number: {"data": f"{number}".ljust(MIB)}),
    "lines": (20, MIB, lambda number: {"data": f"{number}".ljust(MIB // 3, "\n")}),
}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("what", PUBLISHED)
def test_the_memory_of_a_topic_is_limited(memory: Callable[[], int], what: str) -> None:
    loop = one_loop()
    count, max_bytes, options = PUBLISHED[what]
    topic = loop.topics.get("news", 100_000, max_bytes, policy="drop-oldest")
    slow = Client(loop, ["news"], None, 100)
    clients = [slow, Client(loop, ["news"], None, EVERYTHING)]
    if max_bytes:
        clients.append(GzipClient(loop, ["news"], None, EVERYTHING))
    for client in clients:
        client.connect()
    make_calls(loop, clients)
    for number in range(count):
        topic.publish(**options(number))
        if number % 10 == 0:
            make_calls(loop, clients)
            slow.read(50)
    assert memory() <= 3 * max_bytes + 8 * MIB
    assert topic.stats().subscribers == len(clients)


def test_a_caught_up_client_loses_events_that_its_loop_did_not_take_in_time() -> None:
    """The loop may be blocked, and a turn may publish more than the topic keeps."""
    loop = one_loop()
    topic = loop.topics.get("news", policy="drop-oldest", max_bytes=0)
    client = Client(loop, ["news"], None, EVERYTHING)
    client.connect()
    make_calls(loop, [])
    client.read(EVERYTHING)
    for number in range(100):
        topic.publish(f"{number}".ljust(65536))
    make_calls(loop, [])
    events = client.read(EVERYTHING)
    assert events[0].event == "gap"
    assert [int(event.data) for event in events[1:]] == list(range(101 - len(events), 100))
    assert topic.stats().dropped == 101 - len(events)
    assert topic.publish("next").reached == 1


def test_the_memory_of_all_topics_is_limited_and_small_ones_keep_their_events() -> None:
    loop = one_loop(memory=4 * MIB)
    clients = [Client(loop, [name], None, EVERYTHING) for name in "abcdefgh"]
    for client in clients:
        client.connect()
    small, *large = (loop.topics.get(name) for name in "abcdefgh")
    small.publish("first")
    for _ in range(20):
        for topic in large:
            topic.publish("x" * 65536)
            make_calls(loop, clients)
    small.publish("second")
    assert loop.topics.weight <= 8 * MIB
    assert small.stats().history == 2
    assert all(topic.stats().history > 1 for topic in large)


def test_the_memory_of_forgotten_topics_is_freed() -> None:
    app = App()
    for number in range(10):
        topic = app.topic(f"{number}", max_age=0.0)
        topic.publish("x" * 1000)
    del topic
    app.topic("last", max_age=0.0).publish("")
    gc.collect()
    assert topics_of(app).weight < 1000


def test_an_event_that_is_too_large_in_one_encoding_is_rejected() -> None:
    topic = App().topic("news", max_bytes=0)
    limit = 2 * MIB
    for small in ("x" * limit, "\n" * (limit // 7), b"x" * (limit // 4 * 3), '"' * (limit // 2)):
        topic.publish(small)
    large: list[str | bytes] = ["x" * (limit + 1), "\n" * (limit // 2), b"x" * limit]
    for data in [*large, "\r" * (limit // 2), "\1" * (limit // 2), "é" * limit]:
        with pytest.raises(ValueError, match="event too large for the topic 'news'"):
            topic.publish(data)
    assert topic.stats().published == 4


def test_encodings_are_forgotten_before_events() -> None:
    topic = App().topic("news", history=1000)
    encodings = [message_encoding(None, envelope) for envelope in (False, True)]
    for _ in range(15):
        topic.publish("x" * 65536)
    entries, _ = log_of(topic).log.after(0, log_of(topic).log.head)
    for entry in entries:
        for encoding in encodings:
            assert encoding.block("news", [entry])
        log_of(topic).log.count_encodings([entry])
    assert log_of(topic).log.encodings_cost <= log_of(topic).log.bounds.encodings_cost
    assert [bool(entry.encoded) for entry in entries[:1] + entries[-1:]] == [False, True]
    assert topic.stats().history == 15


def test_unneeded_entries_are_forgotten_in_small_steps(serve: Serve, clients: Clients) -> None:
    """Forgetting the entries of a disconnected client must not delay the others."""
    loop = one_loop()
    topic = loop.topics.get("news", 0, 64 * MIB, policy="drop-oldest")
    slow = Client(loop, ["news"], None, 100)
    slow.connect()
    make_calls(loop, [])
    for _ in range(5000):
        topic.publish("x")
    slow.peer.abort()
    steps = 0
    while loop.calls:
        before = topic.stats().history
        loop.calls.popleft()()
        assert before - topic.stats().history <= 1000
        steps += 1
    assert steps > 5
    assert topic.stats().history == 0

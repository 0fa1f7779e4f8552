"""Topics over the interface of a broker: two processes share the logs of a broker in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Queue
from typing import cast

import pytest

from tests.support.broker import Broker, MemoryLog
from tests.support.clients import Clients
from tests.support.inspection import topics_of
from tests.support.log import ServerLog
from tests.support.receivers import ManualReceiver, manual_loops
from tests.support.serving import Serve
from tests.support.topics import replica
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import StateError
from wsframe.server import App, BrokerUnavailable, Topic
from wsframe.server.timing import Timing
from wsframe.server.topics.entry import as_entry
from wsframe.server.topics.receipts import Fate, Receipt
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.shared import LocalLog, Replica, SharedLog
from wsframe.testing import ManualClock


@dataclass
class Process:
    """The topics of one process, with one loop.

    Attributes:
        log: the connection to the broker.
        clock: the clock of the topics.
    """

    log: MemoryLog
    clock: ManualClock

    def __post_init__(self) -> None:
        self.topics = Topics(Timing(clock=self.clock))
        self.topics.share(self.log)
        (self.loop,) = manual_loops(self.topics, 1)

    def topic(self) -> Topic:
        return self.topics.get("news")

    def client(self, after: str | None = None, member: str | None = None) -> ManualReceiver:
        """A client that is subscribed, and whose place in the log is known."""
        client = ManualReceiver(self.loop)
        client.subscribe(self.topic(), after, member)
        self.settle()
        return client

    def settle(self) -> None:
        """Wait until the broker's thread has nothing to do, and make the calls of the loop."""
        assert self.log.flush(TIMEOUT)
        self.loop.run()


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    for log in tuple(broker.processes):
        log.disconnect()


@pytest.fixture
def here(broker: Broker) -> Process:
    return Process(MemoryLog(broker), ManualClock())


@pytest.fixture
def there(broker: Broker) -> Process:
    """Another process."""
    return Process(MemoryLog(broker), ManualClock())


def settle(*processes: Process) -> None:
    for process in processes * 2:  # what one has published the other is to deliver
        process.settle()


def test_an_event_reaches_the_clients_of_all_processes(here: Process, there: Process) -> None:
    clients = here.client(), there.client()
    here.topic().publish("1")
    settle(here, there)
    there.topic().publish("2")
    settle(here, there)
    assert [client.texts() for client in clients] == [["1", "2"], ["1", "2"]]


def test_all_processes_use_the_same_ids(here: Process, there: Process) -> None:
    first = here.client()
    here.topic().publish("1")
    settle(here)
    assert first.texts() == ["1"]
    second = there.client(after=first.last_id)  # a client that reconnects to another process
    here.topic().publish("2")
    settle(here, there)
    assert second.texts() == ["2"]


def test_a_later_subscriber_is_sent_the_history(here: Process, there: Process) -> None:
    here.topic().publish("1")
    here.topic().publish("2")
    settle(here)
    assert there.client(after="").texts() == ["1", "2"]
    assert there.client().texts() == []


def test_a_publisher_needs_no_subscriber(here: Process, there: Process) -> None:
    topic = here.topic()
    published = topic.publish("1")
    assert (published.reached, published.queued) == (0, 0)
    settle(here)
    assert topic.stats().published == 1
    assert there.client(after="").texts() == ["1"]


def test_a_subscription_waits_for_an_event_that_this_process_has_not_read(
    here: Process, there: Process
) -> None:
    first, _ = here.client(), there.client()
    resume = there.log.pause()
    here.topic().publish("1")
    settle(here)
    assert first.texts() == ["1"]
    second = ManualReceiver(there.loop)
    subscription = second.subscribe(there.topic(), first.last_id)
    there.loop.run()
    assert not subscription.placed
    resume.set()
    there.topic().publish("2")
    settle(there, here)
    assert second.texts() == ["2"]


def test_a_subscription_waits_for_as_many_events_as_it_takes(here: Process) -> None:
    here.client()
    here.topic().publish("1")
    settle(here)
    client = ManualReceiver(here.loop)
    subscription = client.subscribe(here.topic(), "3-0")
    here.topic().publish("2")
    settle(here)
    assert not subscription.placed
    for text in ("3", "4"):
        here.topic().publish(text)
        settle(here)
    assert client.texts() == ["4"]


def test_a_subscription_may_end_before_its_position_is_known(here: Process) -> None:
    resume = here.log.pause()
    clients = [ManualReceiver(here.loop) for _ in range(2)]
    for client in clients:
        client.subscribe(here.topic())
    clients[0].subscriptions[0].close()
    here.loop.run()
    before = here.topic().stats()
    resume.set()
    settle(here)
    after = here.topic().stats()
    assert [(stats.subscribers, stats.lagging) for stats in (before, after)] == [(1, 1), (1, 0)]
    here.topic().publish("1")
    settle(here)
    assert [client.texts() for client in clients] == [[], ["1"]]


def test_a_subscription_that_interrupts_a_method_begins_when_its_position_is_known(
    here: Process,
) -> None:
    resume = here.log.pause()
    client, topic = ManualReceiver(here.loop), here.topics.get("news")
    with topic.lock:  # as in a signal handler
        subscription = client.subscribe(topic)
    subscribers = [topic.stats().subscribers]
    here.loop.run()
    subscribers.append(topic.stats().subscribers)
    begun = [subscription.begun]
    resume.set()
    settle(here)
    begun.append(subscription.begun)
    assert (subscribers, begun) == ([0, 1], [False, True])
    here.topic().publish("1")
    settle(here)
    assert client.texts() == ["1"]


def test_an_id_of_no_process_is_a_gap(here: Process) -> None:
    here.client()
    here.topic().publish("1")
    settle(here)
    client = ManualReceiver(here.loop)
    subscription = client.subscribe(here.topic(), "1000-0")
    settle(here)
    assert not subscription.placed
    here.clock.now += Timing().position_timeout
    here.topic().publish("2")
    settle(here)
    (gap,) = client.read()
    assert (gap.event, json.loads(gap.data)["topic"]) == ("gap", "news")


@pytest.mark.parametrize("after", ["not an id", "1-0"])
def test_an_id_that_the_log_has_not_or_not_any_more_is_a_gap(here: Process, after: str) -> None:
    here.client()
    here.topics.get("news", history=1)
    for number in range(3):
        here.topic().publish(f"{number}")
    settle(here)
    gap = here.client(after).read()[0]
    assert (gap.event, json.loads(gap.data)["oldest"]) == ("gap", "3-0")


def test_a_log_of_the_newest_events_is_shared(here: Process, there: Process) -> None:
    for process in (here, there):
        process.topics.get("news", policy="latest")
    first = here.client()
    for text in ("a1", "b1", "a2"):
        here.topic().publish(text, key=text[0])
        settle(here)
    assert first.texts() == ["a1", "b1", "a2"]
    # Its last event was replaced before this process loaded the log.
    second = there.client(after="1-0")
    assert second.texts() == ["b1", "a2"]
    assert there.topic().stats().history == 2
    there.topic().publish("b2", key="b")
    settle(there, here)
    assert [client.texts() for client in (first, second)] == [["b2"], ["b2"]]


def test_lost_entries_are_a_gap(here: Process) -> None:
    client = here.client()
    log = here.topics.get("news")
    log.lose("5-0", "7-0")
    here.loop.run()
    (gap,) = client.read()
    assert (gap.event, gap.id) == ("gap", "5-0")
    assert json.loads(gap.data) == {"topic": "news", "oldest": "7-0"}


def test_members_of_all_processes(here: Process, there: Process) -> None:
    clients = here.client(member="ann"), there.client(member="bob"), there.client(member="ann")
    assert here.topic().members() == there.topic().members() == ["ann", "bob"]
    clients[0].subscriptions[0].close()
    assert here.topic().members() == ["ann", "bob"]
    clients[2].subscriptions[0].close()
    assert here.topic().members() == ["bob"]


class Interrupted:
    """A replica whose first use runs foreign code, as a finalizer does at any place."""

    def __init__(self, foreign: Callable[[], object]) -> None:
        self._foreign = foreign

    def __hash__(self) -> int:
        foreign, self._foreign = self._foreign, lambda: None
        foreign()
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


def test_a_member_of_one_topic_does_not_wait_for_another_topic() -> None:
    log, joined, in_time = LocalLog(), threading.Event(), list[bool]()

    def join_another_topic() -> None:
        log.join(cast(Replica, Interrupted(joined.clear)), "bob")
        joined.set()

    def wait_for_another_topic() -> None:
        threading.Thread(target=join_another_topic, daemon=True).start()
        in_time.append(joined.wait(TIMEOUT))

    topic = cast(Replica, Interrupted(wait_for_another_topic))
    log.join(topic, "ann")
    assert in_time == [True]
    assert log.members(topic) == ["ann"]
    log.leave(topic, "ann")
    assert log.members(topic) == []


def test_a_topic_that_is_closed_is_closed_in_all_processes(here: Process, there: Process) -> None:
    clients = here.client(), there.client()
    here.topic().publish("1")
    settle(here)
    there.topic().close()
    settle(there, here)
    for client in clients:
        assert client.texts() == ["1"]
        assert client.ended == ["news"]
    for process in (here, there):
        with pytest.raises(StateError, match="is closed"):
            process.topic().publish("2")


def test_a_topic_without_subscribers_is_not_followed(here: Process, there: Process) -> None:
    client = there.client()
    client.subscriptions[0].close()
    there.settle()
    here.topic().publish("1")
    settle(here, there)
    assert there.topic().stats().history == 0
    assert there.client(after="").texts() == ["1"]


def test_a_handler_that_publishes_too_fast_is_slowed_down(here: Process) -> None:
    here.log.capacity = 2
    resume = here.log.pause()
    for number in range(3):
        assert not here.loop.waits
        here.topic().publish(str(number))
    assert here.loop.waits == [here.topics.get("news")]
    resume.set()
    settle(here)
    assert not here.loop.waits


def test_a_thread_that_publishes_too_fast_waits(here: Process) -> None:
    here.log.capacity = 0
    here.loop.is_owner = False
    here.topic().publish("1")
    settle(here)
    client = here.client(after="")
    assert client.texts() == ["1"]


def test_a_log_without_limits_always_has_room() -> None:
    log, topic, calls = LocalLog(), replica("news"), list[str]()
    assert not log.is_crowded(topic)
    log.when_room(topic, lambda: calls.append("now"))
    assert calls == ["now"]


def test_flush_raises_if_the_broker_does_not_reply(broker: Broker) -> None:
    app, log = App(), MemoryLog(broker)
    topics_of(app).share(log)
    resume = log.pause()
    with pytest.raises(BrokerUnavailable, match=r"no acknowledgement for 0\.01 seconds"):
        app.flush(0.01)
    resume.set()
    app.flush(TIMEOUT)


def test_a_receipt_is_settled_by_the_broker(here: Process) -> None:
    receipt = Receipt()
    resume = here.log.pause()
    here.topics.get("news").submit(as_entry("1"), receipt)
    fates = [receipt.fate]
    resume.set()
    assert receipt.wait(TIMEOUT)
    assert [*fates, receipt.fate] == [Fate.WAITING, Fate.ACCEPTED]


def test_a_topic_that_is_in_use_cannot_be_shared(broker: Broker) -> None:
    topics = Topics(Timing())
    topics.get("news").publish("1")
    with pytest.raises(RuntimeError, match="already in use"):
        topics.share(MemoryLog(broker))


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_log_without_channels_refuses_a_channel(is_shared: bool, broker: Broker) -> None:
    log: SharedLog = MemoryLog(broker) if is_shared else LocalLog()
    topics = Topics(Timing())
    topics.share(log)
    with pytest.raises(
        RuntimeError, match="the topic 'news' to a channel: it is not kept in Redis"
    ):
        topics.get("news").subscribe_pubsub("prices")


def test_servers_share_their_topics(
    broker: Broker, serve: Serve, clients: Clients, log: ServerLog
) -> None:
    """The same through apps, servers, sockets and a source."""
    apps = [App(), App()]
    streams = []
    source: Queue[str] = Queue()
    for app in apps:
        topics_of(app).share(MemoryLog(broker))
        app.sse("/news", source=app.topic("news"))
        stream = clients.stream(serve(app), "/news")
        stream.read_opening()
        streams.append(stream)
    apps[0].topic("news").feed(source)
    source.put("1")
    wait_until(
        lambda: all(app.topic("news").stats().history == 1 for app in apps),
        "the event has arrived",
    )
    apps[1].topic("news").publish("2")
    for stream in streams:
        assert stream.expect(2) == ["1", "2"]
    assert not log.records

"""The delivery of a topic's events on one loop, step by step."""

from __future__ import annotations

from tests.support.receivers import ManualLoop, ManualReceiver, manual_loops
from wsframe.server.timing import Timing
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.sizes import DEFAULT_SIZES, Sizes

# To send little at once, and to one client.
SMALL = Sizes(piece=400, pieces=1, fanout_batch=1)


def new_loops(count: int, sizes: Sizes = DEFAULT_SIZES) -> tuple[Topics, list[ManualLoop]]:
    """The topics of an app, and its loops."""
    topics = Topics(Timing(), sizes=sizes)
    return topics, manual_loops(topics, count)


def listeners(
    topics: Topics, loop: ManualLoop, count: int, after: str | None = None
) -> list[ManualReceiver]:
    """Clients that are subscribed to one topic, and accept all bytes at once."""
    clients = [ManualReceiver(loop) for _ in range(count)]
    for client in clients:
        client.subscribe(topics.get("news"), after)
    return clients


def test_a_subscription_that_ends_during_a_fan_out_is_sent_all_events() -> None:
    topics, (loop,) = new_loops(1, SMALL)
    topic = topics.get("news")
    clients = listeners(topics, loop, 3)
    loop.run()
    topic.publish("1")
    loop.calls.popleft()()  # which sends to one of them
    topic.publish("2")
    for client in clients:
        client.subscriptions[0].finish()
        assert client.texts() == ["1", "2"]


def test_a_subscription_that_begins_during_a_fan_out_misses_no_event() -> None:
    topics, (loop,) = new_loops(1, SMALL)
    topic = topics.get("news")
    listeners(topics, loop, 3)
    loop.run()
    topic.publish("1")
    loop.calls.popleft()()
    topic.publish("2")
    (new,) = listeners(topics, loop, 1)  # whose position is past the loop's
    loop.run()
    topic.publish("3")
    loop.run()
    assert new.texts() == ["3"]


def test_events_before_a_subscription_begins_are_kept() -> None:
    """A new client is not too slow, however short the history is."""
    topics, (loop,) = new_loops(1)
    topic = topics.get("news", history=0, max_bytes=100)
    listeners(topics, loop, 1)
    loop.run()
    topic.publish("x" * 200)
    (new,) = listeners(topics, loop, 1)
    topic.publish("y" * 200)
    loop.run()
    assert new.texts() == ["y" * 200]
    assert not topic.log.size


def test_the_history_is_kept_until_a_subscription_begins() -> None:
    """The other loop has not taken the event, so the log still has it."""
    topics, (mine, other) = new_loops(2)
    topic = topics.get("news", history=5, max_bytes=100)
    listeners(topics, mine, 1)
    listeners(topics, other, 1)
    mine.run()
    other.run()
    topic.publish("x" * 200)
    mine.run()
    (new,) = listeners(topics, mine, 1, after="")
    other.run()
    mine.run()
    assert new.texts() == ["x" * 200]
    assert not topic.log.size


def test_a_fan_out_keeps_the_events_that_it_sends() -> None:
    """A client that lags continues from the log, although other clients have begun meanwhile."""
    topics, (loop,) = new_loops(1, SMALL)
    topic = topics.get("news", history=0, max_bytes=1000, policy="drop-oldest")
    clients = listeners(topics, loop, 3)
    loop.run()
    topic.publish("1")
    topic.publish("x" * 2000)
    loop.calls.popleft()()
    listeners(topics, loop, 1)
    loop.calls.rotate(1)
    loop.calls.popleft()()  # the new one begins
    assert topic.stats().history == 2
    loop.run()
    assert topic.stats().history == 0
    assert all(client.texts() == ["1", "x" * 2000] for client in clients)


def test_a_slow_client_is_sent_the_events_after_it_has_read() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("news")
    client = ManualReceiver(loop, room=1000)
    client.subscribe(topic)
    loop.run()
    for number in range(3):
        topic.publish(f"{number}".ljust(1000, "."))
        loop.run()
    assert topic.stats().lagging == 1
    assert [text[0] for text in client.texts()] == ["0", "1", "2"]
    loop.run()
    assert topic.stats().lagging == 0
    assert client.totals.topic_events == 3


def test_a_client_that_is_too_slow_is_disconnected() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("news", max_bytes=1000)
    client = ManualReceiver(loop, room=100)
    client.subscribe(topic)
    loop.run()
    for _ in range(5):
        topic.publish("x" * 900)
        loop.run()
    assert client.slow == ["news"]
    assert client.peer.closed
    assert topic.stats().subscribers == client.totals.subscriptions == 0


def test_the_owner_of_a_loop_never_waits_for_loops() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("news")
    client = ManualReceiver(loop)
    client.subscribe(topic)
    loop.run()
    for number in range(300):  # more than a publishing thread may be ahead of a loop
        topic.publish(f"{number}".ljust(1000, "."))
    loop.run()
    assert len(client.texts()) == 300

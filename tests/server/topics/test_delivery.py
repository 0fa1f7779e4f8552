"""The delivery of a topic's events on one loop, step by step."""

from __future__ import annotations

from tests.support.receivers import ManualLoop, ManualReceiver, ManualSocket, manual_loops
from tests.support.topics import log_of
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


def test_a_lagging_subscription_that_ends_is_sent_all_events() -> None:
    topics, (loop,) = new_loops(1, SMALL)
    topic = topics.get("news", history=5)
    texts = [str(number).ljust(300, ".") for number in range(5)]
    for text in texts:
        topic.publish(text)
    (client,) = listeners(topics, loop, 1, after="")
    loop.calls.popleft()()  # which sends one piece
    assert topic.stats().lagging == 1
    client.subscriptions[0].finish()
    assert client.texts() == texts


def test_a_subscription_that_ends_is_sent_no_more_than_the_socket_accepts() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("news")
    client = ManualReceiver(loop, room=100)
    client.subscribe(topic)
    loop.run()
    for text in ("x" * 200, "y"):
        topic.publish(text)
        loop.run()
    client.subscriptions[0].finish()
    assert client.totals.topic_events == 1


class ClosingReceiver(ManualReceiver):
    """A client whose subscription another thread closes while an event is sent."""

    def put(self, block: bytes) -> None:
        super().put(block)
        self.subscriptions[0].close()


def test_a_subscription_that_is_closed_while_it_is_sent_an_event_does_not_lag() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("news")
    client = ClosingReceiver(loop, room=100)
    client.subscribe(topic)
    loop.run()
    topic.publish("x" * 200)
    loop.run()
    assert (topic.stats().subscribers, topic.stats().lagging) == (0, 0)
    assert client.texts() == ["x" * 200]


def test_a_client_that_was_too_slow_is_sent_nothing_more() -> None:
    """It receives no event after the gap, although its loop has not disconnected it yet."""
    topics, (loop,) = new_loops(1)
    topic = topics.get("news", max_bytes=1000)
    client = ManualReceiver(loop, room=100)
    client.subscribe(topic)
    loop.run()
    for number in range(5):
        topic.publish(str(number).ljust(900, "."))
        if not topic.stats().subscribers:
            break
        loop.run()
    assert [text[0] for text in client.texts()] == ["0"]
    loop.run()
    assert client.slow == ["news"]
    assert client.peer.closed


def test_a_subscription_that_ends_meanwhile_is_not_too_slow() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("news", max_bytes=1000)
    client = ManualReceiver(loop, room=100)
    subscription = client.subscribe(topic)
    loop.run()
    for _ in range(5):
        topic.publish("x" * 900)
        if not topic.stats().subscribers:
            break
        loop.run()
    assert subscription.removed
    subscription.end()
    loop.run()
    assert client.slow == []
    assert not client.peer.closed


def test_a_value_that_is_replaced_before_it_is_sent_is_counted() -> None:
    topics, (loop,) = new_loops(1)
    topic = topics.get("prices", policy="latest")
    client = ManualReceiver(loop)
    subscription = client.subscribe(topic)
    loop.run()
    for price in ("1", "2", "3"):
        topic.publish(price, key="tea")
    loop.run()
    assert client.texts() == ["3"]
    assert subscription.dropped == topic.stats().dropped == topics.dropped == 2


class BrokenReceiver(ManualReceiver):
    """A client that cannot be sent events."""

    def put(self, block: bytes) -> None:
        raise RuntimeError("broken")


class ReportingLoop(ManualLoop):
    """A loop that ends the connection of an error, and continues."""

    def report_error(self, error: Exception, source: object = None) -> None:
        assert str(error) == "broken"
        assert isinstance(source, ManualSocket)
        source.abort()


def test_an_error_of_one_client_does_not_keep_events_from_others() -> None:
    topics, loop = Topics(Timing()), ReportingLoop()
    topics.loops = (loop,)
    clients = [kind(loop) for kind in (ManualReceiver, BrokenReceiver, ManualReceiver)]
    for client in clients:
        client.subscribe(topics.get("news"))
    loop.run()
    topics.get("news").publish("1")
    loop.run()
    assert [client.peer.closed for client in clients] == [False, True, False]
    assert clients[0].texts() == clients[2].texts() == ["1"]


def test_only_clients_that_still_wait_are_too_slow_for_a_loop_that_was_overtaken() -> None:
    topics, (loop,) = new_loops(1, SMALL)
    topic = topics.get("news", max_bytes=1000)
    clients = listeners(topics, loop, 3)
    loop.run()
    for number in range(40):  # more than the log may keep, even for its loops
        topic.publish(str(number).ljust(1 << 16, "."))
    loop.calls.popleft()()  # which disconnects one of them
    (slow,) = (client for client in clients if client.subscriptions[0].removed)
    finishing, closing = (client for client in clients if client is not slow)
    finishing.subscriptions[0].finish()
    closing.subscriptions[0].close()
    end = loop.calls.pop()  # the owner ends the closed subscription after the fan-out
    loop.run()
    end()
    loop.run()
    assert [client.slow for client in (slow, finishing, closing)] == [["news"], [], []]
    assert finishing.texts()[-1][:2] == "39"
    assert closing.texts() == []
    assert topic.stats().dropped == 1


def test_a_client_that_lags_is_counted_at_its_position() -> None:
    topics, (loop,) = new_loops(1)
    slow, quick = ManualReceiver(loop, room=100), ManualReceiver(loop)
    topic = topics.get("news")
    for client in (slow, quick):
        client.subscribe(topic)
    loop.run()
    assert log_of(topic).lagging_by_position() == {}
    for _ in range(3):
        topic.publish("x" * 100)
        loop.run()
    ((_, count),) = log_of(topic).lagging_by_position().items()
    assert count == 1
    assert len(slow.texts()) == 3
    assert log_of(topic).lagging_by_position() == {}

"""Adding subscriptions to a topic, and removing them, step by step."""

from __future__ import annotations

import threading

import pytest

from tests.support.handlers import Checkpoint
from tests.support.receivers import ManualLoop, ManualReceiver, manual_loops
from wsframe.server.timing import Timing
from wsframe.server.topics.encodings import EVENT_STREAM
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.shared import LocalLog, Replica
from wsframe.server.topics.subscription import TopicSubscription
from wsframe.server.topics.topic_log import TopicLog


def new_topic() -> tuple[TopicLog, ManualLoop]:
    topics = Topics(Timing())
    (loop,) = manual_loops(topics, 1)
    return topics.get("news"), loop


def counts(topic: TopicLog) -> tuple[int, int]:
    """Return the numbers of subscriptions, and of lagging ones."""
    return topic.stats().subscribers, topic.stats().lagging


def test_a_subscription_whose_connection_has_just_ended_is_not_added() -> None:
    topic, loop = new_topic()
    client = ManualReceiver(loop)
    subscription = TopicSubscription(topic, client, EVENT_STREAM, None)
    client.subscriptions.append(subscription)
    subscription.end()
    topic.add(subscription, None)
    assert counts(topic) == (0, 0)
    assert not subscription.placed
    assert not topic.is_delivered


def test_the_owner_adds_a_subscription_that_interrupts_a_method_of_the_topic() -> None:
    topic, loop = new_topic()
    client = ManualReceiver(loop)
    with topic.lock:  # as in a signal handler that has interrupted a method
        client.subscribe(topic)
        assert counts(topic) == (0, 0)
    loop.run()
    topic.publish("1")
    loop.run()
    assert client.texts() == ["1"]


class RefusingLog(LocalLog):
    """A broker that cannot store the names of members."""

    def join(self, replica: Replica, member: str) -> None:
        raise ValueError("cannot store a name")


def test_a_refused_subscription_that_has_interrupted_a_method_ends() -> None:
    topics = Topics(Timing())
    topics.share(RefusingLog())
    (loop,) = manual_loops(topics, 1)
    topic = topics.get("news")
    client = ManualReceiver(loop)
    with topic.lock:
        client.subscribe(topic, member="ann")
    with pytest.raises(ValueError, match="cannot store a name"):
        loop.run()
    assert client.subscriptions == []
    assert counts(topic) == (0, 0)


def test_a_child_of_a_fork_may_close_a_subscription_of_its_parent() -> None:
    """It belongs to the parent's client, so the topic in the child does not count it."""
    topics = Topics(Timing())
    (loop,) = manual_loops(topics, 1)
    topic = topics.get("news")
    subscription = ManualReceiver(loop).subscribe(topic, member="ann")
    loop.run()
    topic.after_fork()
    topics.local.after_fork()
    ManualReceiver(loop).subscribe(topic, member="bob")
    loop.run()
    subscription.close()
    assert counts(topic) == (1, 0)
    assert topic.members() == ["bob"]


@pytest.mark.parametrize("interrupts", [True, False])
def test_a_child_that_is_forked_during_a_change_begins_with_an_empty_log(interrupts: bool) -> None:
    """The fork interrupts a method, as in a signal handler, or another thread is in one."""
    topic, loop = new_topic()
    topic.publish("before")
    if interrupts:
        with topic.lock:
            topic.after_fork()
    else:
        changing = Checkpoint()

        def change() -> None:
            with lock:
                changing.wait()

        lock = topic.lock
        thread = threading.Thread(target=change)
        thread.start()
        changing.wait_until_reached()
        topic.after_fork()
        changing.release()
        thread.join()
    topic.publish("after")
    client = ManualReceiver(loop)
    client.subscribe(topic, after="")
    loop.run()
    assert client.texts() == ["after"]


def test_a_child_that_is_forked_between_changes_keeps_the_log() -> None:
    topic, loop = new_topic()
    topic.publish("before")
    topic.after_fork()
    client = ManualReceiver(loop)
    client.subscribe(topic, after="")
    loop.run()
    assert client.texts() == ["before"]

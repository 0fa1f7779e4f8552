"""The engine of topics, behind what users see of it."""

from __future__ import annotations

from wsframe.server import Subscription, Topic
from wsframe.server.timing import Timing
from wsframe.server.topics.registry import Topics
from wsframe.server.topics.subscription import TopicSubscription
from wsframe.server.topics.topic_log import TopicLog


def log_of(topic: Topic) -> TopicLog:
    """Return a topic's engine."""
    assert isinstance(topic, TopicLog)
    return topic


def position_of(subscription: Subscription) -> TopicSubscription:
    """Return the server's side of a subscription."""
    assert isinstance(subscription, TopicSubscription)
    return subscription


def replica(name: str) -> TopicLog:
    """Return a topic of its own."""
    return Topics(Timing()).get(name)

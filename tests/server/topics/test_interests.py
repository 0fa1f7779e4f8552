"""The interests of a process in Redis: changes, and the threads that make them."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from typing import Any, cast

from tests.support.topics import replica
from tests.support.waiting import TIMEOUT
from wsframe.server.topics.redis.interests import FollowRequest, Interests, Presence
from wsframe.server.topics.topic_log import TopicLog


class InterruptedReplica:
    """A replica whose name is looked up while a finalizer waits for the lock of another topic."""

    def __init__(self, other: TopicLog) -> None:
        self.entered = threading.Event()
        self._other = other

    @property
    def name(self) -> str:
        self.entered.set()
        with self._other.lock:
            return "interrupted"


def test_changes_under_a_topics_lock_do_not_wait_for_a_finalizer() -> None:
    """The finalizer runs in a method of the interests, and waits for the topic's lock."""
    interests, topic = Interests(10), replica("news")
    interrupted = InterruptedReplica(topic)
    request = FollowRequest(cast(Any, interrupted))
    writer = threading.Thread(target=interests.done, args=(request,), daemon=True)

    def change() -> None:
        with topic.lock:
            writer.start()
            assert interrupted.entered.wait(TIMEOUT)
            for _ in range(2):
                interests.follow(topic)
                interests.join("news", "ann")
                interests.leave("news", "ann")
                interests.unfollow(topic)
            interests.begin()
            interests.forget_soon()
            interests.follow(topic)
            interests.join("news", "bob")

    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    for thread in (changing, writer):
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "deadlock"
    # The changes were made in order.
    assert [request.topic for request in interests.followed().values()] == [topic]
    following, presence = interests.tasks()
    assert isinstance(following, FollowRequest)
    assert isinstance(presence, Presence)
    assert following.topic is topic
    assert (presence.topic, presence.present, presence.members) == ("news", True, ["bob"])


def test_changes_of_interrupting_code_are_applied_afterwards() -> None:
    """A finalizer may interrupt a method of its own thread."""
    interests, topic = Interests(10), replica("news")

    class Interrupting:
        @property
        def name(self) -> str:
            interests.join("news", "ann")
            interests.follow(topic)
            assert not interests  # its changes are pending
            return "other"

    interests.follow(cast(Any, Interrupting()))
    assert set(interests.followed()) == {"other", "news"}
    (presence,) = (task for task in interests.tasks() if isinstance(task, Presence))
    assert presence.members == ["ann"]


def test_presence_is_awaited_with_pending_changes() -> None:
    interests = Interests(10)
    interests.join("news", "ann")
    waiting = threading.Thread(target=partial(interests.wait_for_presence, "news", TIMEOUT))
    waiting.start()
    (task,) = interests.tasks()
    interests.done(task)
    waiting.join(TIMEOUT)
    assert not waiting.is_alive()
    assert not interests


def test_changes_of_members_use_bounded_memory_while_redis_is_unavailable() -> None:
    interests, topic = Interests(10), replica("news")
    interests.follow(topic)
    for number in range(100):
        interests.join("news", f"member {number}")
        interests.unfollow(topic)
        interests.follow(topic)
        interests.leave("news", f"member {number}")
    following, leaving = interests.tasks()
    assert isinstance(following, FollowRequest)
    assert isinstance(leaving, Presence)
    assert not leaving.present
    assert len(leaving.members) == 10


def test_changes_take_effect_although_no_thread_reads_them() -> None:
    """Otherwise they would use memory until the end of an outage of Redis."""
    interests, topic = Interests(10), replica("news")
    known = weakref.ref(topic)
    interests.follow(topic)
    interests.unfollow(topic)
    del topic
    gc.collect()
    assert known() is None


def test_a_topic_that_was_replaced_does_not_end_its_successor() -> None:
    interests, old, new = Interests(10), replica("news"), replica("news")
    interests.unfollow(old)  # it was not followed yet
    for topic in (old, new):
        interests.follow(topic)
    interests.unfollow(old)
    assert [request.topic for request in interests.followed().values()] == [new]


def test_a_rejected_request_is_repeated_later() -> None:
    interests, topic = Interests(10), replica("news")
    interests.follow(topic)
    (request,) = interests.tasks()
    interests.done(request, refused=True)
    assert not interests.tasks()
    interests.try_again()
    assert interests.tasks() == [request]


def test_a_member_that_leaves_while_redis_replies_is_removed_afterwards() -> None:
    interests = Interests(10)
    interests.join("news", "ann")
    (joining,) = interests.tasks()
    interests.leave("news", "ann")
    interests.done(joining)
    (leaving,) = interests.tasks()
    assert isinstance(leaving, Presence)
    assert (leaving.present, leaving.members) == (False, ["ann"])

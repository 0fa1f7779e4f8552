"""The interests of a process in Redis: changes, and the threads that make them."""

from __future__ import annotations

from tests.support.topics import replica
from wsframe.server.topics.redis.interests import FollowRequest, Interests, Presence


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

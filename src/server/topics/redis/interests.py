"""The interests of a process in Redis: the topics that it follows, and the members that it has."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..shared import Replica


@dataclass(eq=False)
class FollowRequest:
    """A request to follow a topic; each call of ``follow`` makes a new one."""

    topic: Replica


@dataclass(eq=False)
class Presence:
    """A change in the presence of a topic's members.

    Attributes:
        topic: the name of the topic.
        present: True to add the members, False to remove them.
        members: the names of the members.
    """

    topic: str
    present: bool
    members: list[str]


class Interests:
    """The followed topics, the members, and the changes that Redis has not received yet.

    Args:
        max_leaving: the maximum number of members that wait for their removal.
    """

    def __init__(self, max_leaving: int) -> None:
        self._max_leaving = max_leaving
        self._changed = threading.Condition()  # its lock guards all attributes
        self._followed: dict[str, FollowRequest] = {}
        self._requests: dict[str, FollowRequest] = {}
        self._refused: dict[str, FollowRequest] = {}  # rejected requests, for a later retry
        self._present: Counter[tuple[str, str]] = Counter()
        self._presence: dict[tuple[str, str], bool] = {}

    # Any thread -------------------------------------------------------------------------------

    def follow(self, topic: Replica) -> None:
        """Any thread: load a topic, and append new entries to it."""
        with self._changed:
            self._followed[topic.name] = self._requests[topic.name] = FollowRequest(topic)

    def unfollow(self, topic: Replica) -> None:
        """Any thread: stop following a topic."""
        with self._changed:
            request = self._followed.get(topic.name)
            if request is not None and request.topic is topic:
                del self._followed[topic.name]
                self._requests.pop(topic.name, None)
                self._refused.pop(topic.name, None)

    def followed(self) -> dict[str, FollowRequest]:
        """Any thread: return the followed topics by name."""
        with self._changed:
            return dict(self._followed)

    def join(self, topic: str, member: str) -> None:
        """Any thread: add a member."""
        with self._changed:
            self._present[topic, member] += 1
            self._presence[topic, member] = True

    def leave(self, topic: str, member: str) -> None:
        """Any thread: undo one call of :meth:`join`."""
        here = (topic, member)
        with self._changed:
            self._present[here] -= 1
            if self._present[here] > 0:
                return
            del self._present[here]
            self._presence.pop(here, None)
            if len(self._presence) < self._max_leaving:
                self._presence[here] = False

    def wait_for_presence(self, topic: str, timeout: float) -> None:
        """Any thread: wait until Redis has the members that the topic has in this process."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(name != topic for name, _ in self._presence), timeout
            )

    def __bool__(self) -> bool:
        """Any thread: True if Redis has not received all changes."""
        return bool(self._requests or self._presence)

    # When the threads start and stop ----------------------------------------------------------

    def begin(self) -> None:
        """Any thread: request all followed topics again, because the threads start again."""
        with self._changed:
            for name, request in self._followed.copy().items():
                self._followed[name] = self._requests[name] = FollowRequest(request.topic)

    def withdraw(self) -> None:
        """Any thread: remove all members of this process."""
        with self._changed:
            self._presence.update(dict.fromkeys(self._present, False))

    def forget(self) -> None:
        """Any thread: drop all changes that Redis has not received."""
        with self._changed:
            self._presence.clear()
            self._changed.notify_all()

    # The writer -------------------------------------------------------------------------------

    def renew(self) -> None:
        """The writer: send the presence of all members again."""
        with self._changed:
            self._presence.update(dict.fromkeys(self._present, True))

    def try_again(self) -> None:
        """The writer: repeat the rejected requests."""
        with self._changed:
            for name, request in self._refused.copy().items():
                self._requests.setdefault(name, request)
            self._refused.clear()

    def tasks(self, *, requests: bool = True) -> list[FollowRequest | Presence]:
        """The writer: return the changes of presence, and the requests if they are wanted."""
        with self._changed:
            groups: dict[tuple[str, bool], list[str]] = {}
            for (topic, member), present in self._presence.copy().items():
                groups.setdefault((topic, present), []).append(member)
            return [
                *(self._requests.values() if requests else ()),
                *(
                    Presence(topic, present, members)
                    for (topic, present), members in groups.items()
                ),
            ]

    def done(self, task: FollowRequest | Presence, *, refused: bool = False) -> None:
        """The writer: record the reply of Redis to a task."""
        with self._changed:
            if isinstance(task, FollowRequest):
                name = task.topic.name
                if self._requests.get(name) is task:
                    del self._requests[name]
                    if refused:
                        self._refused[name] = task
            else:
                for member in task.members:
                    if self._presence.get((task.topic, member)) is task.present:
                        del self._presence[task.topic, member]
                self._changed.notify_all()

"""What a process wants of the topics in Redis: which it follows, and which members it has."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..shared import Replica

# How many members may wait to be removed. The others are left to expire.
MAX_LEAVING = 10_000


@dataclass(eq=False)
class FollowRequest:
    """A topic that is to be followed, from this call of ``follow`` on."""

    topic: Replica


@dataclass(eq=False)
class Presence:
    """Members of a topic who are to be there, or not any more."""

    topic: str
    there: bool
    members: list[str]


class Interests:
    """Which topics are followed, who is there, and what of it Redis has yet to be told."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # its lock guards all of it
        self._followed: dict[str, FollowRequest] = {}
        self._requests: dict[str, FollowRequest] = {}
        self._refused: dict[str, FollowRequest] = {}  # requests that are tried again later
        self._present: Counter[tuple[str, str]] = Counter()
        self._presence: dict[tuple[str, str], bool] = {}

    # Any thread -------------------------------------------------------------------------------

    def follow(self, topic: Replica) -> None:
        """Any thread: have a topic loaded, and what comes appended."""
        with self._changed:
            self._followed[topic.name] = self._requests[topic.name] = FollowRequest(topic)

    def unfollow(self, topic: Replica) -> None:
        """Any thread: nobody is subscribed to it any more."""
        with self._changed:
            request = self._followed.get(topic.name)
            if request is not None and request.topic is topic:
                del self._followed[topic.name]
                self._requests.pop(topic.name, None)
                self._refused.pop(topic.name, None)

    def followed(self) -> dict[str, FollowRequest]:
        """Any thread: the topics that are followed, by name."""
        with self._changed:
            return dict(self._followed)

    def join(self, topic: str, member: str) -> None:
        """Any thread: a member is there."""
        with self._changed:
            self._present[topic, member] += 1
            self._presence[topic, member] = True

    def leave(self, topic: str, member: str) -> None:
        """Any thread: a member has left; it may be there more than once."""
        here = (topic, member)
        with self._changed:
            self._present[here] -= 1
            if self._present[here] > 0:
                return
            del self._present[here]
            self._presence.pop(here, None)
            if len(self._presence) < MAX_LEAVING:
                self._presence[here] = False

    def wait_for_presence(self, topic: str, timeout: float) -> None:
        """Any thread: wait until Redis has been told which members the topic has here."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(name != topic for name, _ in self._presence), timeout
            )

    def __bool__(self) -> bool:
        """Any thread: whether there is something that Redis has yet to be told."""
        return bool(self._requests or self._presence)

    # When a run begins and ends ---------------------------------------------------------------

    def begin(self) -> None:
        """Any thread: Redis is asked for all that is followed, and not for the run before."""
        with self._changed:
            for name, request in self._followed.copy().items():
                self._followed[name] = self._requests[name] = FollowRequest(request.topic)

    def withdraw(self) -> None:
        """Any thread: nobody is to be there any more."""
        with self._changed:
            self._presence.update(dict.fromkeys(self._present, False))

    def forget(self) -> None:
        """Any thread: Redis is told nothing more."""
        with self._changed:
            self._presence.clear()
            self._changed.notify_all()

    # The writer -------------------------------------------------------------------------------

    def renew(self) -> None:
        """The writer: Redis is to be told again who is there."""
        with self._changed:
            self._presence.update(dict.fromkeys(self._present, True))

    def try_again(self) -> None:
        """The writer: ask again for the topics that were refused."""
        with self._changed:
            for name, request in self._refused.copy().items():
                self._requests.setdefault(name, request)
            self._refused.clear()

    def tasks(self, *, requests: bool = True) -> list[FollowRequest | Presence]:
        """The writer: what Redis has yet to be asked for, if that is wanted, or told."""
        with self._changed:
            groups: dict[tuple[str, bool], list[str]] = {}
            for (topic, member), there in self._presence.copy().items():
                groups.setdefault((topic, there), []).append(member)
            return [
                *(self._requests.values() if requests else ()),
                *(Presence(topic, there, members) for (topic, there), members in groups.items()),
            ]

    def done(self, task: FollowRequest | Presence, *, refused: bool = False) -> None:
        """The writer: Redis has answered."""
        with self._changed:
            if isinstance(task, FollowRequest):
                name = task.topic.name
                if self._requests.get(name) is task:
                    del self._requests[name]
                    if refused:
                        self._refused[name] = task
            else:
                for member in task.members:
                    if self._presence.get((task.topic, member)) is task.there:
                        del self._presence[task.topic, member]
                self._changed.notify_all()

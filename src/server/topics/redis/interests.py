"""The interests of a process in Redis: its followed topics, and the members of topics."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..shared import Replica


@dataclass(eq=False)
class FollowRequest:
    """A request to follow a topic; each call of ``follow`` creates a new request."""

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

    The methods for callers under a topic's lock never wait. Another thread may be in a method of
    this class, and may run a finalizer there that waits for the topic's lock. So these methods
    only append their change. Every other method applies the pending changes first, in order.

    Args:
        max_leaving: the maximum number of members that wait for their removal.
    """

    def __init__(self, max_leaving: int) -> None:
        self._max_leaving = max_leaving
        self._pending: deque[Callable[[], None]] = deque()  # any thread appends changes
        # The lock protects all attributes below. It is reentrant, because a signal handler or a
        # finalizer may interrupt any statement.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._is_applying = False
        self._followed: dict[str, FollowRequest] = {}
        self._requests: dict[str, FollowRequest] = {}
        # The rejected requests, which are retried later.
        self._refused: dict[str, FollowRequest] = {}
        self._present: Counter[tuple[str, str]] = Counter()
        self._presence: dict[tuple[str, str], bool] = {}

    # Any thread, under a topic's lock -----------------------------------------------------------

    def follow(self, topic: Replica) -> None:
        """Any thread, without waiting: load a topic, and append new entries to it."""
        self._change(partial(self._follow, FollowRequest(topic)))

    def unfollow(self, topic: Replica) -> None:
        """Any thread, without waiting: stop following a topic."""
        self._change(partial(self._unfollow, topic))

    def join(self, topic: str, member: str) -> None:
        """Any thread, without waiting: add a member."""
        self._change(partial(self._join, (topic, member)))

    def leave(self, topic: str, member: str) -> None:
        """Any thread, without waiting: undo one call of :meth:`join`."""
        self._change(partial(self._leave, (topic, member)))

    def begin(self) -> None:
        """Any thread, without waiting: request all followed topics again, for new threads."""
        self._change(self._begin)

    def forget_soon(self) -> None:
        """Any thread, without waiting: drop all changes that Redis has not received."""
        self._change(self._forget)

    def _change(self, change: Callable[[], None]) -> None:
        """Append a change, and apply it if no thread holds the lock."""
        self._pending.append(change)
        # The method that holds the lock may miss the change, but each later method applies it. So
        # the list of pending changes stays short, also during an outage of Redis.
        owned = self._lock._is_owned()  # type: ignore[attr-defined]
        if not owned and self._lock.acquire(blocking=False):
            try:
                self._apply()
            finally:
                self._lock.release()

    # Under the lock ---------------------------------------------------------------------------

    def _apply(self) -> None:
        """Apply the pending changes in order, unless this thread is already applying them."""
        if self._is_applying:
            return
        self._is_applying = True
        try:
            while self._pending:
                self._pending.popleft()()
        finally:
            self._is_applying = False

    def _follow(self, request: FollowRequest) -> None:
        name = request.topic.name
        self._followed[name] = self._requests[name] = request

    def _unfollow(self, topic: Replica) -> None:
        request = self._followed.get(topic.name)
        if request is not None and request.topic is topic:
            del self._followed[topic.name]
            self._requests.pop(topic.name, None)
            self._refused.pop(topic.name, None)

    def _join(self, here: tuple[str, str]) -> None:
        self._present[here] += 1
        self._presence[here] = True

    def _leave(self, here: tuple[str, str]) -> None:
        self._present[here] -= 1
        if self._present[here] > 0:
            return
        del self._present[here]
        self._presence.pop(here, None)
        if len(self._presence) < self._max_leaving:
            self._presence[here] = False

    def _begin(self) -> None:
        for name, request in self._followed.copy().items():
            self._followed[name] = self._requests[name] = FollowRequest(request.topic)

    def _forget(self) -> None:
        self._presence.clear()
        self._changed.notify_all()

    def _has_presence(self, topic: str) -> bool:
        self._apply()
        return all(name != topic for name, _ in self._presence)

    # Any thread, without a topic's lock ---------------------------------------------------------

    def followed(self) -> dict[str, FollowRequest]:
        """Any thread: return the followed topics by name."""
        with self._lock:
            self._apply()
            return dict(self._followed)

    def wait_for_presence(self, topic: str, timeout: float) -> bool:
        """Any thread: wait until Redis has the members that the topic has in this process.

        Args:
            topic: the name of the topic.
            timeout: the longest time to wait, in seconds.

        Returns:
            False if Redis has not received all changes in that time.
        """
        with self._changed:
            return self._changed.wait_for(partial(self._has_presence, topic), timeout)

    def __bool__(self) -> bool:
        """Any thread: True if Redis has not received all changes."""
        with self._lock:
            self._apply()
            return bool(self._requests or self._presence)

    def withdraw(self) -> None:
        """Any thread: remove all members of this process."""
        with self._lock:
            self._apply()
            self._presence.update(dict.fromkeys(self._present, False))

    def forget(self) -> None:
        """Any thread: drop all changes that Redis has not received."""
        with self._lock:
            self._apply()
            self._forget()

    # The writer's thread
    # -------------------------------------------------------------------------------

    def renew(self) -> None:
        """The writer: send the presence of all members again."""
        with self._lock:
            self._apply()
            self._presence.update(dict.fromkeys(self._present, True))

    def try_again(self) -> None:
        """The writer: repeat the rejected requests."""
        with self._lock:
            self._apply()
            for name, request in self._refused.copy().items():
                self._requests.setdefault(name, request)
            self._refused.clear()

    def tasks(self, *, requests: bool = True) -> list[FollowRequest | Presence]:
        """The writer: return the changes of presence, and the follow requests if wanted."""
        with self._lock:
            self._apply()
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
        with self._lock:
            self._apply()
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

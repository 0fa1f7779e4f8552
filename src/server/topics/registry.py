"""The topics of an app, by their names."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any
from weakref import WeakValueDictionary

from ..forks import recreate_in_children
from ..reports.loggers import log
from ..reports.throttled import ThrottledLog
from ..timing import Timing
from .entry import check_name
from .errors import EventsLost
from .places import Places
from .shared import LocalLog, SharedLog
from .sources import Publishable, Sources
from .state import Policy, TopicState
from .subscription import EventLoop
from .topic import Topic
from .topic_log import TopicLog
from .unused import Unused

# How many bytes of memory all logs may take.
MEMORY = 256 << 20


class Topics:
    """Makes topics as they are asked for, and forgets those that nobody has a use for.

    A topic lives while somebody is subscribed to it or holds it, and then for its ``max_age``, so
    that a client which comes back finds it even if nothing was published. One that was configured
    before the app is started lives as long as that.

    Args:
        timing: the app's.
        memory: how many bytes of memory the logs may take before each is held to its fair share.

    Attributes:
        timing: the same.
        shared: where their logs are, if other processes share them.
        loops: those of the app's servers.
        sources: what feeds them from beside.
        places: where streams of several topics are.
        late: logs events that come after the end of their topic.
        weight: bytes of memory that all logs take.
        published, dropped: events, as in :class:`wsframe.server.Stats`.
    """

    def __init__(self, timing: Timing, memory: int = MEMORY) -> None:
        self.timing = timing
        self.local = LocalLog()
        self.shared: SharedLog = self.local
        self.loops: tuple[EventLoop, ...] = ()
        self.sources = Sources(timing)
        self.places = Places()
        self.late = ThrottledLog()
        self.published = 0
        self.dropped = 0
        self.weight = 0
        self._memory = memory
        self._make_locks()
        self._all: WeakValueDictionary[str, TopicLog] = WeakValueDictionary()
        self._added: dict[str, TopicLog] = {}  # that are about to be in it
        self._declared: set[TopicLog] = set()
        self._fixed = False
        self._unused = Unused()  # under the lock of what keeps them
        # Which topics have got or lost their last subscriber, in order. Any thread appends; whoever
        # has the lock carries it out, so that nobody waits for another thread.
        self._changes: deque[tuple[TopicState, bool]] = deque()
        recreate_in_children(self)

    def _make_locks(self) -> None:
        # Under it there is nothing but additions, so a signal handler of the same thread may enter.
        self._tally = threading.RLock()
        self._naming = threading.RLock()
        self._keeping = threading.Lock()

    def after_fork(self) -> None:
        """The child of a fork: have no loops, and locks that no thread of the parent has."""
        self.loops = ()
        self.places = Places()
        self._make_locks()

    def share(self, shared: SharedLog) -> None:
        """Any thread: keep the logs there, before there is anything in them.

        Raises:
            RuntimeError: a topic is in use already.
        """
        with self._naming:
            self.shared = shared
            for topic in tuple(self._all.values()):
                topic.share(shared)

    def begin(self) -> None:
        """Any thread, once for each server: it starts.

        Raises:
            BrokerRefused: the topics cannot be kept in their Redis.
        """
        self.shared.check()
        self.sources.start()
        self.shared.begin()

    def add_loop(self, loop: EventLoop) -> None:
        """Any thread: a loop is about to run."""
        with self._naming:
            self.loops = (*self.loops, loop)

    def remove_loop(self, loop: EventLoop) -> None:
        """Any thread: a loop does not run any more."""
        with self._naming:
            self.loops = tuple(other for other in self.loops if other is not loop)

    def catch_up(self, timeout: float) -> None:
        """Any thread: wait until what sources have by now is published."""
        self.sources.catch_up(timeout)

    def end(self, timeout: float) -> None:
        """Any thread, once for each server: it has stopped; what it published is to be sent yet."""
        if self.sources.stop():
            try:
                self.shared.end(timeout)
            except EventsLost as error:
                log.error("at the end of the server %s", error)

    def fix(self) -> None:
        """Any thread: the app starts; a topic that is configured later is forgotten like any."""
        self._fixed = True

    def get(
        self,
        name: str,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> TopicLog:
        """Any thread: the topic of this name."""
        topic = self._all.get(name)
        if topic is None:
            name = str.__str__(name)
            check_name("a topic", name)
            with self._naming:
                topic = self._add(name)
        if (history, max_bytes, max_age, policy) != (None,) * 4:
            topic.configure(history, max_bytes, max_age, policy)
            if not self._fixed:
                self._declared.add(topic)
        return topic

    def _add(self, name: str) -> TopicLog:
        """Under the lock: add a topic, once, even if a signal handler does so in the middle."""
        new = TopicLog(name, self, self.shared)
        # From here on whoever interrupts this finds the same topic.
        topic = self._added.setdefault(name, new)
        topic = self._all.get(name) or topic
        self._all[name] = topic
        self._added.pop(name, None)
        return topic

    def find(self, topic: str | Topic) -> TopicLog:
        """Any thread: the topic of this name; or of this object."""
        if isinstance(topic, str):
            return self.get(topic)
        assert isinstance(topic, TopicLog)
        return topic

    def unnamed(self, name: str) -> TopicLog:
        """Any thread: a topic that cannot be found by its name, and that no broker has."""
        return TopicLog(name, self, self.local)

    def feed(self, source: Any, topic: Publishable) -> None:
        """Any thread: publish the items of a source to a topic.

        Raises:
            TypeError: it is neither a queue nor an iterable.
            ValueError: it feeds a topic already.
        """
        self.sources.add(source, topic)

    def fed_by(self, source: object) -> Topic | None:
        """Any thread: the topic that a source feeds, if there is one."""
        topic = self.sources.topic_of(source)
        return topic if isinstance(topic, Topic) else None

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread, in any context: have the owner of a loop call this, if there is a loop."""
        for loop in self.loops[:1]:
            loop.call_soon(function)

    def keep(self, topic: TopicState) -> None:
        """Any thread, in any context: it has no subscriber; keep it while one may come back."""
        self._changes.append((topic, True))
        self._tend()

    def is_used(self, topic: TopicState) -> None:
        """Any thread, in any context: somebody is subscribed to it."""
        self._changes.append((topic, False))
        self._tend()

    def _tend(self) -> None:
        """Keep what is unused, within the bounds."""
        while self._changes and self._keeping.acquire(blocking=False):
            try:
                while self._changes:
                    topic, unused = self._changes.popleft()
                    if unused:
                        self._unused.keep(topic, self.timing.clock())
                    else:
                        self._unused.drop(topic)
            finally:
                self._keeping.release()

    def count(self, published: int = 0, dropped: int = 0, weight: int = 0) -> None:
        """Any thread, in any context: count events, those that subscribers lost, and memory."""
        with self._tally:
            self.published += published
            self.dropped += dropped
            self.weight += weight

    def fair_share(self) -> float:
        """Any thread, in any context: how much memory the entries of one topic may take now."""
        if self.weight <= self._memory:
            return inf
        return self._memory / max(1, len(self._all) - len(self._unused))

    def __len__(self) -> int:
        """Any thread: how many there are."""
        return len(self._all)

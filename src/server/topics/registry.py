"""The topics of an app, by their names."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any
from weakref import WeakValueDictionary

from ..forks import recreate_in_children
from ..reports.loggers import background, log
from ..reports.throttled import ThrottledLog
from ..timing import Timing
from .closings import CLOSINGS, Closings
from .entry import check_name
from .errors import EventsLost
from .places import Places
from .shared import LocalLog, SharedLog
from .sizes import DEFAULT_SIZES, Sizes
from .source_threads import Publishable
from .sources import Sources
from .state import Policy, TopicState
from .subscription import EventLoop
from .topic import Topic
from .topic_log import TopicLog
from .unused import Unused

# The default memory of all logs, in bytes.
MEMORY = 256 << 20


class Topics:
    """The registry of an app's topics, which creates them on demand and forgets unused ones.

    A topic exists while it has subscribers or is referenced, and then for its ``max_age``. So a
    client that reconnects finds it even without events. A topic that was configured before the app
    is started exists as long as the app.

    Args:
        timing: the durations of the app.
        memory: the memory that the logs may take, see the attribute ``memory``.
        sizes: the sizes of the topics.

    Attributes:
        timing: the durations of the app.
        sizes: the sizes of the topics.
        local: the logs of topics that no other process shares.
        shared: the broker of all other topics; ``local`` without a broker.
        loops: the loops of the app's servers.
        sources: the queues and iterables that feed topics.
        places: the positions of streams with several topics.
        closings: the closings of identities.
        late: logs events that were published to a closed topic.
        memory: the bytes of memory that the logs may take before each is limited to a fair share.
        weight: the memory of all logs, in bytes.
        published: events published, as in :class:`wsframe.server.Stats`.
        dropped: events lost by subscribers, as in :class:`wsframe.server.Stats`.
    """

    def __init__(self, timing: Timing, memory: int = MEMORY, sizes: Sizes = DEFAULT_SIZES) -> None:
        self.timing: Timing = timing
        self.sizes = sizes
        self.local: LocalLog = LocalLog()
        self.shared: SharedLog = self.local
        self.loops: tuple[EventLoop, ...] = ()
        self.sources: Sources = Sources(timing)
        self.places: Places = Places(self.sizes)
        self.closings: Closings = Closings(self)
        self.late: ThrottledLog = ThrottledLog()
        self.published: int = 0
        self.dropped: int = 0
        self.weight: int = 0
        self.memory = memory
        self._begun = False  # True after begin_once; protected by self._starting
        self._make_locks()
        self._all: WeakValueDictionary[str, TopicLog] = WeakValueDictionary()
        self._added: dict[str, TopicLog] = {}  # the topics that are being added to self._all
        self._declared: set[TopicLog] = set()
        self._fixed = False
        # Contains one item until the first event of an app without a server; see expect_server.
        self._unserved_token: list[None] = []
        self._divided = False  # True if a topic that is not shared must be logged
        self._unused = Unused(sizes)  # protected by self._keeping
        # Topics that have gained their first subscriber or lost their last one, in order. Any
        # thread appends; the thread with the lock processes them, so that no other thread waits.
        self._changes: deque[tuple[TopicState, bool]] = deque()
        recreate_in_children(self)

    def _make_locks(self) -> None:
        # This lock protects only additions. It is reentrant, because a signal handler may add a
        # topic.
        self._tally = threading.RLock()
        self._naming = threading.RLock()
        self._keeping = threading.Lock()
        self._starting = threading.Lock()

    def after_fork(self) -> None:
        """The child of a fork: drop the parent's loops, and make new locks."""
        self.loops = ()
        self.places = Places(self.sizes)
        self._begun = False
        self._make_locks()

    def share(self, shared: SharedLog) -> None:
        """Any thread: use a broker, while all topics are empty.

        Raises:
            RuntimeError: a topic has events or subscribers.
        """
        with self._naming:
            self.shared = shared
            for topic in tuple(self._all.values()):
                topic.share(shared)

    def use_timing(self, timing: Timing) -> None:
        """Any thread, while no server runs: use another clock in all topics; for tests."""
        with self._naming:
            self.timing = timing
            for topic in tuple(self._all.values()):
                topic.use_timing(timing)

    def begin(self) -> None:
        """Any thread, once for each server, when it starts: start sources and the broker.

        Raises:
            BrokerRefused: the broker does not support topics.
        """
        self.shared.check()
        self.sources.start()
        self.shared.begin()

    @property
    def begun(self) -> bool:
        """Any thread: True after :meth:`begin_once`."""
        return self._begun

    def begin_once(self) -> None:
        """Any thread: as :meth:`begin`, for clients without a server; later calls do nothing.

        Raises:
            BrokerRefused: the broker does not support topics.
        """
        with self._starting:
            if not self._begun:
                self.fix()
                self.begin()
                self._begun = True

    def end_once(self, timeout: float) -> None:
        """Any thread: undo :meth:`begin_once`; without it, do nothing.

        Raises:
            EventsLost: the broker has rejected events, or has not acknowledged them in time.
        """
        with self._starting:
            if self._begun:
                self._begun = False
                self._stop(timeout)

    def add_loop(self, loop: EventLoop) -> None:
        """Any thread: add a loop that is about to run."""
        with self._naming:
            self.loops = (*self.loops, loop)

    def remove_loop(self, loop: EventLoop) -> None:
        """Any thread: remove a loop that has ended."""
        with self._naming:
            self.loops = tuple(other for other in self.loops if other is not loop)

    def catch_up(self, timeout: float) -> None:
        """Any thread: wait until the present items of all sources are published."""
        self.sources.catch_up(timeout)

    def end(self, timeout: float) -> None:
        """Any thread, once for each server, when it has stopped: stop sources and the broker."""
        try:
            self._stop(timeout)
        except EventsLost as error:
            log.error("the server has stopped, and %s", error)

    def _stop(self, timeout: float) -> None:
        if self.sources.stop():
            self.closings.unfollow()
            self.shared.end(timeout)

    def fix(self) -> None:
        """Any thread: from now on, delete topics without use even if they are configured later."""
        self._fixed = True

    def divide(self) -> None:
        """The main thread: other processes serve the same clients; log the first local topic."""
        with self._naming:
            self._divided = self.shared is self.local
            if self._all:
                self._log_local()

    def _log_local(self) -> None:
        """Under the lock: log once that topics are local, if other processes serve clients."""
        if self._divided:
            self._divided = False
            log.warning(
                "topics are used in several workers without Redis: an event reaches only the "
                "clients of the worker that publishes it. Use --redis, or one process"
            )

    def get(
        self,
        name: str,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> TopicLog:
        """Any thread: return the topic with a name; the other arguments configure the topic."""
        topic = self._all.get(name)
        if topic is None:
            name = str.__str__(name)
            check_name("a topic", name)
            if name == CLOSINGS:
                raise ValueError(f"the name {CLOSINGS!r} is reserved for App.close_identity")
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
        # From this line on, a signal handler that interrupts this thread finds the same topic.
        topic = self._added.setdefault(name, new)
        topic = self._all.get(name) or topic
        self._all[name] = topic
        self._added.pop(name, None)
        self._log_local()
        return topic

    def find(self, topic: str | Topic) -> TopicLog:
        """Any thread: return the implementation of a topic, by its name or object.

        Raises:
            TypeError: the argument is neither a name nor a topic of an app.
            ValueError: the name is invalid.
        """
        if isinstance(topic, str):
            return self.get(topic)
        if not isinstance(topic, TopicLog):
            raise TypeError(f"expected the name of a topic or a Topic, got {topic!r}")
        return topic

    def unnamed(self, name: str) -> TopicLog:
        """Any thread: return a new topic that is neither registered under its name nor shared."""
        return TopicLog(name, self, self.local)

    def feed(self, source: Any, topic: Publishable) -> None:
        """Any thread: publish the items of a source to a topic.

        Raises:
            TypeError: the source is neither a queue nor an iterable.
            ValueError: the source feeds a topic already.
        """
        self.sources.add(source, topic)

    def fed_by(self, source: object) -> Topic | None:
        """Any thread: return the topic that a source feeds; None if it feeds no topic."""
        topic = self.sources.topic_of(source)
        return topic if isinstance(topic, Topic) else None

    def call_soon(self, function: Callable[[], object]) -> None:
        """Any thread, also in a signal handler: let a loop, if any, call ``function``."""
        for loop in self.loops[:1]:
            loop.call_soon(function)

    def keep(self, topic: TopicState) -> None:
        """Any thread, also in a signal handler: keep an unused topic for later subscribers."""
        self._changes.append((topic, True))
        self._tend()

    def is_used(self, topic: TopicState) -> None:
        """Any thread, also in a signal handler: record that a topic has a subscriber."""
        self._changes.append((topic, False))
        self._tend()

    def _tend(self) -> None:
        """Process the changes, unless another thread does."""
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
        """Any thread, also in a signal handler: count events, lost events, and memory."""
        with self._tally:
            self.published += published
            self.dropped += dropped
            self.weight += weight

    def expect_server(self) -> None:
        """Any thread: log the first event without subscribers if no server of the app starts.

        Such a program publishes for the clients of another process, which it cannot reach without a
        broker.
        """
        self._unserved_token.append(None)

    def reaches_none(self, name: str) -> None:
        """Any thread, also in a signal handler: an event of a topic has reached no subscriber.

        A program may publish before it starts its server, so the line is logged later, or at the
        end of the program.
        """
        if not self._fixed and self._unserved_token:
            self._unserved_token.clear()
            background.call_later(self.timing.unserved_delay, partial(self._log_unserved, name))

    def _log_unserved(self, name: str) -> None:
        if not self._fixed:
            log.warning(
                "the topic %.100r has no subscribers, because no server of its App has started in "
                "this process; without Redis no other process receives its events: App(redis=...)",
                name,
            )

    def fair_share(self) -> float:
        """Any thread, also in a signal handler: return the memory that one topic may use."""
        if self.weight <= self.memory:
            return inf
        return self.memory / max(1, len(self._all) - len(self._unused))

    def __len__(self) -> int:
        """Any thread: return the number of topics."""
        return len(self._all)

"""The closings of identities, which all processes of an application receive."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from logging import ERROR, WARNING
from math import inf
from secrets import token_hex
from time import monotonic
from typing import Any, Protocol, TypeAlias

from wsframe.frames import check_close

from ..forks import recreate_in_children
from ..reports.throttled import ThrottledLog
from ..sockets.identities import check_identity
from .entry import Entry
from .ids import place_of
from .log import Bounds
from .receipts import Published
from .shared import SharedLog

# The topic of the closings; no topic of an application can have this name.
CLOSINGS = "\0closed identities"
# Closings are remembered for this time, in seconds, and at most this many of them.
MEMORY = 60.0
MAX_REMEMBERED = 10_000

#: A function that closes the connections of an identity with a close code and a reason.
Close: TypeAlias = "Callable[[str, int, str], object]"
#: A function that sends a closing to other processes, as the message of :class:`Closings`.
Forward: TypeAlias = "Callable[[str], object]"


class Logs(Protocol):
    """The logs of topics, as :class:`Topics` has them.

    Attributes:
        local: the logs that only this process has.
        shared: the logs of the broker; ``local`` without a broker.
    """

    @property
    def local(self) -> SharedLog: ...

    shared: SharedLog


class Closings:
    """The closings of identities: to the loops of this process, and to the other processes.

    A message for other processes is JSON: a list of the sending process, the identity, the close
    code and the reason. With a broker the messages are the entries of a topic, so that a process
    which has lost its connection receives them later. A process follows the topic while one of its
    connections has an identity. Without a broker :attr:`forward` sends the messages.

    Closings are remembered for a minute, so that a request is refused that was authorized before a
    closing and is answered after it.

    Args:
        logs: the logs of the application's topics.

    Attributes:
        name, bounds, latest_only: as in :class:`Replica`.
        forward: sends a message to the other processes if there is no broker.
    """

    name = CLOSINGS
    bounds: Bounds = Bounds(history=1000)
    latest_only = False

    def __init__(self, logs: Logs) -> None:
        self.forward: Forward = lambda message: None
        self._logs = logs
        self._log = ThrottledLog()
        self.after_fork()
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The child of a fork, and at the beginning: this process has no loops."""
        self._process = token_hex(8)
        # Reentrant, because a signal handler may close an identity.
        self._lock = threading.RLock()  # protects _receivers, _latest and _order
        self._receivers: tuple[Close, ...] = ()
        self._latest: dict[str, float] = {}  # the times of the latest closings
        self._order: deque[tuple[float, str]] = deque()  # all closings, the oldest first
        self._following = False
        self._since = (0, 0)  # earlier closings concern none of the connections
        self._seen = (0, 0)  # the place of the newest entry in the log; (0, 0) before it is loaded

    # Any thread -------------------------------------------------------------------------------

    def add(self, receiver: Close) -> None:
        """Any thread: call this function with each closing."""
        with self._lock:
            self._receivers = (*self._receivers, receiver)

    def remove(self, receiver: Close) -> None:
        """Any thread: undo :meth:`add`."""
        with self._lock:
            self._receivers = tuple(each for each in self._receivers if each != receiver)

    def close(self, identity: str, code: int, reason: str) -> None:
        """Any thread: close the connections of an identity, in all processes.

        Raises:
            BrokerUnavailable, BrokerRefused: the connections in this process are closed, and the
                broker does not accept the closing for the others.
        """
        self.receive(identity, code, reason)
        message = json.dumps([self._process, identity, code, reason])
        shared = self._logs.shared
        if shared is self._logs.local:
            self.forward(message)
        else:
            shared.publish(self, Entry(message))

    def receive(self, identity: str, code: int, reason: str) -> None:
        """Any thread: close the connections of an identity, in this process."""
        self._remember(identity)  # first, so that no loop misses both the time and the call
        for receiver in self._receivers:
            receiver(identity, code, reason)

    def receive_message(self, message: object) -> None:
        """Any thread: receive the message of another process; log and drop an invalid one."""
        try:
            process, closing = _decoded(message)
        except (RecursionError, TypeError, ValueError) as error:
            text = "dropping an invalid closing of an identity by another process: %s"
            self._log.log(ERROR, text, error)
            return
        if process != self._process:
            self.receive(*closing)

    def closed_since(self, identity: str, moment: float) -> bool:
        """Any thread: return True if an identity was closed after this monotonic time.

        If another process has closed it, and the closing arrives after this call, the identity's
        connections are closed then.
        """
        self._follow(moment)
        return self._latest.get(identity, -inf) > moment

    def _remember(self, identity: str) -> None:
        """Any thread: note the time of a closing, and forget the oldest ones."""
        now = monotonic()
        with self._lock:
            self._latest[identity] = now
            self._order.append((now, identity))
            while True:  # it ends at this closing at the latest
                # Removed before the check, because a signal handler may remove others meanwhile.
                moment, oldest = first = self._order.popleft()
                if moment >= now - MEMORY and len(self._order) < MAX_REMEMBERED:
                    self._order.appendleft(first)
                    break
                if self._latest.get(oldest) == moment:
                    del self._latest[oldest]

    def follow(self) -> None:
        """Any thread: receive the closings of other processes; without a broker, do nothing."""
        self._follow(monotonic())

    def _follow(self, moment: float) -> None:
        """Any thread: receive the closings of other processes after this monotonic time."""
        if not self._following and self._logs.shared is not self._logs.local:
            self._following = True
            since = time.time() - (monotonic() - moment)
            self._since, self._seen = (int(since * 1000), -1), (0, 0)
            self._logs.shared.follow(self)

    def unfollow(self) -> None:
        """Any thread: undo :meth:`follow`, because the last server has stopped."""
        if self._following:
            self._following = False
            self._logs.shared.unfollow(self)

    # The thread of the broker: the methods of a Replica -----------------------------------------

    def load(self, floor_id: str, entries: Sequence[Entry]) -> None:
        """Any thread: receive the closings that are newer than those received before."""
        newest = place_of(entries[-1].stream_id if entries else floor_id)
        if newest < self._seen:
            self.lose(floor_id, "")
        after = max(self._since, self._seen)
        self.append([entry for entry in entries if place_of(entry.stream_id) > after])
        self._seen = newest

    def append(self, entries: Sequence[Entry]) -> Published:
        """Any thread: receive closings."""
        for entry in entries:
            self._seen = place_of(entry.stream_id)
            if entry.oldest is not None:
                self.lose(entry.stream_id, entry.oldest)
            else:
                self.receive_message(entry.payload)
        return Published(0, 0, 0)

    def lose(self, floor_id: str, oldest: str) -> None:
        """Any thread: log that closings may be lost."""
        self._log.log(
            WARNING,
            "closings of identities may be lost, because the broker has lost or dropped a part of "
            "its log: connections of these identities are still open; close the identities again",
        )

    def place(self) -> None:
        """Any thread: do nothing, because nothing waits for an entry."""


def _decoded(message: Any) -> tuple[object, tuple[str, int, str]]:
    """Return the process that has sent a message, and the closing.

    Raises:
        RecursionError, TypeError, ValueError: the message is invalid.
    """
    content = json.loads(message)
    if not (isinstance(content, list) and len(content) == 4):
        raise ValueError("expected a list of process, identity, close code and reason")
    process, identity, code, reason = content
    if type(code) is not int or type(reason) is not str:
        raise TypeError(
            "expected an int as close code and a str as reason, got "
            f"{type(code).__name__} and {type(reason).__name__}"
        )
    check_close(code, reason)
    return process, (check_identity(identity), code, reason)

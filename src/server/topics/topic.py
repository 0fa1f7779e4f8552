"""Topics, as users see them: events are published to a name, and many clients are subscribed to it.

**A topic is a log, a subscription is a position in it, and to deliver is to move it forward.** A
new client, one that comes back for what it missed, and one that is too slow are the same: they are
not at the end of the log. So one lock, the topic's, makes the step from past to present exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .receipts import Published

if TYPE_CHECKING:
    from queue import Queue


@dataclass(frozen=True)
class TopicStats:
    """The numbers of a topic in this process.

    Attributes:
        subscribers: how many there are.
        lagging: how many of them have not been sent all yet.
        published: events, ever.
        dropped: how many events subscribers have lost, or connections, because they were too slow.
        history: events that are kept.
        history_bytes: bytes of them.
    """

    subscribers: int
    lagging: int
    published: int
    dropped: int
    history: int
    history_bytes: int


class Topic(ABC):
    """A name that events are published to; from :meth:`wsframe.server.App.topic`.

    Attributes:
        name: what it is called.
    """

    name: str

    @abstractmethod
    def publish(
        self,
        data: object,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's name in the standard
        *,
        key: str | None = None,
    ) -> Published:
        """Any thread: send an event to all subscribers, of either kind, in the same order to all.

        Slow clients hold nobody up. A thread that publishes faster than the server can send waits
        for it; the server's own loop does not.

        Args:
            data: a ``str``; bytes, which WebSockets get as a binary message and event streams in
                base64; a :class:`wsframe.ServerSentEvent`; or anything that JSON can say.
            event: the type that an ``EventSource`` listens for; "message" if left out.
            id: what a client says that comes back; unlike those of the other events. By default it
                is made up. It has at most 1,024 bytes, no control character, and no blank at either
                end, so that a header can hold it; it does not begin with "?", and is not ":end".
            key: what it is the newest news of, for the policy "latest". It has at most 1,024 bytes,
                as ``event`` has.

        Raises:
            TypeError: JSON has no form for the data.
            ValueError: it contains itself, or a number that is none; or UTF-8 has no form for what
                is text; or CR, LF or NUL stand in ``event``; or the id is not allowed; or a name is
                too long; or the event, as it is sent to any kind of client, has more bytes than
                ``max_bytes`` and 2 MiB.
            StateError: the topic was closed.
            BrokerUnavailable: Redis is away or too slow, and as much waits for it as may.
            BrokerRefused: Redis cannot be used, or has refused this topic just now.
        """

    @abstractmethod
    def feed(self, source: Queue[Any] | Iterable[Any]) -> None:
        """Any thread: publish what comes out of a queue or another iterable.

        One thread takes the items, while a server of the app runs. An item that is no event is
        logged and left out. Over Redis, at most 100 items of a queue are taken that Redis has not
        accepted yet: while it is away the queue keeps the others, and its ``task_done`` is called
        for what was accepted. A queue has ``get(timeout=...)``, which raises ``queue.Empty``.

        Raises:
            TypeError: it is neither a queue nor an iterable.
            ValueError: it feeds a topic already.
        """

    @abstractmethod
    def subscribe_pubsub(self, channel: str) -> None:
        """Any thread: publish what other programs say on a channel of Redis, by a plain PUBLISH.

        It is published once, however many processes listen, while a server of the app runs in at
        least one of them; text as text, what is no UTF-8 as bytes. Redis keeps nothing of what is
        said on a channel: what comes while the connection to it is lost, or until another process
        has taken the place of one that died, is lost. What must not be is published to the topic.

        Raises:
            RuntimeError: the topic is not in a Redis.
            ValueError: UTF-8 has no form for the name.
        """

    @abstractmethod
    def close(self) -> None:
        """Any thread: say that nothing more comes; closing twice does nothing.

        When they have been sent what came before, event streams that are subscribed to nothing else
        end for good: their clients do not come back.

        Raises:
            BrokerUnavailable: as :meth:`publish`.
        """

    @abstractmethod
    def members(self) -> list[str]:
        """Any thread: who is subscribed, of those that have said who they are, in order of name.

        Over Redis it asks Redis, and may wait for it.

        Raises:
            BrokerUnavailable: there is no answer from Redis.
        """

    @abstractmethod
    def stats(self) -> TopicStats:
        """Any thread, in any context: what it has done and does, in numbers."""

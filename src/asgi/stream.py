"""Stream: the receiver of topics for one event stream in an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import copy_context
from logging import WARNING
from typing import NamedTuple

from ..server.addresses import UNIX, client_network, client_of
from ..server.reports.text import printable
from ..server.reports.throttled import ThrottledLog
from ..server.sessions.eventstream_session import encode_retry
from ..server.sockets.snapshot import ConnectionInfo
from ..server.topics.encodings import EVENT_STREAM, EventStreamEncoding, encode_end
from ..server.topics.registry import Topics as Registry
from ..server.topics.stream_receiver import NO_POSITIONS, StreamReceiver
from ..server.topics.subscription import TopicSubscription
from ..server.topics.topic import Topic
from .client import Client
from .loop import AsyncioLoop, LoopTotals
from .sends import Send

# The maximum length of a path in a log line, in characters.
LONGEST_PATH = 200

_slow = ThrottledLog()


class Options(NamedTuple):
    """The options of an event stream; see :class:`wsframe.asgi.EventStream`."""

    after: str | None
    member: str | None
    identity: str | None
    retry: float
    heartbeat: float
    beat: bytes
    send_timeout: float


class Stream(StreamReceiver):
    """One event stream; only the owner of its loop uses it, except as stated.

    Args:
        registry: the topics.
        options: the options.
        scope: the scope of the request.
        send: the ASGI ``send`` function of the request.
        ended: a function that is called once, when the stream has ended before the request.

    Attributes:
        error: the error of the ASGI server that has ended the stream; None without an error.
        identity: the text of the stream's identity; None without one.
    """

    __slots__ = (
        "_beats",
        "_client",
        "_ended",
        "_loop",
        "_opened",
        "_options",
        "_path",
        "_timer",
        "encoding",
        "error",
        "identity",
        "opening_scheduled",
        "over",
        "peer",
        "resumed",
        "subscriptions",
        "topics",
    )

    peer: Client

    def __init__(
        self,
        registry: Registry,
        options: Options,
        scope: Mapping[str, object],
        send: Send,
        ended: Callable[[], object],
    ) -> None:
        self.topics: Registry = registry
        self.subscriptions: list[TopicSubscription] = []
        self.encoding: EventStreamEncoding = EVENT_STREAM
        self.over: bool = False
        self.resumed: Mapping[str, str] = NO_POSITIONS
        self.opening_scheduled: bool = False
        self.error: BaseException | None = None
        self.identity: str | None = None
        self._ended = ended
        self._options = options
        self._path = str(scope["path"])
        self._client = client_in(scope)
        self._opened = registry.timing.clock()
        self._loop = AsyncioLoop.running(registry)
        self.peer = Client(
            self._loop,
            send,
            copy_context(),
            options.send_timeout,
            sent_all=self.sent_all,
            ended=self._client_ended,
            stuck=self._client_stuck,
        )
        self._beats = 0  # the number of sends at the last heartbeat check
        self._timer: asyncio.TimerHandle | None = None

    # The request's task -----------------------------------------------------------------------

    def enter(self) -> None:
        """The request's task: let closings of the identity find the stream from now on."""
        self._loop.add(self)
        self._loop.identities.assign(self, self._options.identity)

    def open(self, topics: Sequence[Topic], last_id: str) -> None:
        """The request's task: subscribe to the topics, from the client's last event id."""
        self.peer.out.append(encode_retry(self._options.retry))
        resume = self.resume_from(last_id)
        if not isinstance(resume, str):
            resume = {each.name: resume[each.name] for each in topics if each.name in resume}
            self.resumed = resume
        for topic in topics:
            self.subscribe_from(topic, resume, self._options.after, self._options.member)
        # Send the head even if Redis has not returned the positions yet.
        self._loop.call_soon(self.peer.flush)
        self._begin_heartbeat()

    def close(self) -> None:
        """The request's task: end the stream, because the request ends."""
        self.peer.close()
        self._leave()
        self._loop.discard(self)

    # The methods of a Receiver, which topics call ---------------------------------------------

    @property
    def loop(self) -> AsyncioLoop:
        """Any thread: the loop on which the request runs."""
        return self._loop

    @property
    def totals(self) -> LoopTotals:
        """Any thread: the counters of the loop."""
        return self._loop.totals

    @property
    def network(self) -> Hashable:
        """Any thread: the network of the client; None for a Unix socket."""
        try:
            return client_network(self._client)
        except OSError:  # a test client or a middleware has set a name instead of an address
            return self._client

    @property
    def max_subscriptions(self) -> int:
        """Any thread: the maximum number of subscriptions, which is unlimited here."""
        return 1 << 16

    @property
    def description(self) -> str:
        """Any thread: the stream's path and the client's address, for the log."""
        client = "a local client" if self._client == UNIX else self._client
        return f"{client} on {printable(self._path, LONGEST_PATH)}"

    def put(self, block: bytes) -> None:
        """Loop owner: queue several encoded events as one block."""
        self.peer.out.append(block)

    def send_notice(self, notice: bytes) -> None:
        """Loop owner: send a notice, which does not count as an event."""
        if notice and not self.peer.send_closed:
            self.peer.out.append(notice)
            self.peer.flush()

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Loop owner: end a subscription; end the stream for good after its last subscription."""
        super().topic_ended(subscription)
        if not self.subscriptions:
            self.finish(encode_end())

    def too_slow(self, topic: str) -> None:
        """Loop owner: end the stream of a client that is too slow; it reconnects automatically."""
        self.finish()

    def finish(self, *last: bytes) -> None:
        """Loop owner: end the stream after the queued events and the argument's bytes."""
        self._leave()
        self.peer.finish(*last)

    # The methods of an OpenStream, which the loop calls ----------------------------------------

    @property
    def closed(self) -> bool:
        """Any thread: True after the end of the stream."""
        return self.peer.closed

    def close_for_good(self, code: int, reason: str) -> None:
        """Loop owner: end the stream for good, because the application has closed its identity."""
        self.finish(encode_end())

    def info(self, now: float) -> ConnectionInfo:
        """Any thread: return the facts about the stream at a time on the clock of its topics."""
        seconds, unsent = max(0.0, now - self._opened), self.peer.unsent
        return ConnectionInfo(
            "event_stream", self._path, self._client, self.identity, seconds, unsent
        )

    # Loop owner -------------------------------------------------------------------------------

    def _leave(self) -> None:
        self.over = True
        self.leave_topics()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_heartbeat(self) -> None:
        """Send a heartbeat if no data was sent since the last check."""
        self._beats = self.peer.sends
        if self._options.heartbeat:
            self._timer = self._loop.loop.call_later(self._options.heartbeat / 2, self._beat)

    def _beat(self) -> None:
        if self._beats == self.peer.sends and not self.peer.has_unsent:
            self.send_notice(self._options.beat)
        self._begin_heartbeat()

    def _client_ended(self, error: BaseException | None) -> None:
        """End the stream, because the response is complete or the client has disconnected."""
        if not isinstance(error, OSError):  # an OSError reports a lost connection
            self.error = error
        self._leave()
        self._ended()

    def _client_stuck(self) -> None:
        _slow.log(
            WARNING,
            "closing the event stream of %s: the client accepted no data for %g s (send_timeout)",
            self.description,
            self._options.send_timeout,
        )


def client_in(scope: Mapping[str, object]) -> str:
    """Return the address of the client of a request; "unix" if it has none."""
    client = scope.get("client")
    return client_of(tuple(client) if isinstance(client, list) else client)

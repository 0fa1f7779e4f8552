"""Channels of Redis: a message that another program sends with PUBLISH is published to a topic.

Every process receives the message, and the holder of a lease publishes it. Each change of the
lease is a message on another channel. Redis sends all messages to all processes in the same order.
So all processes agree on the holder at each message, even a process that was suspended for a while,
and no message is published twice.

The lease is a key in a database of Redis; the name of its channel contains the number of the
database, because channels are shared by all databases.

Redis does not store messages. They are lost while a connection is lost. When the holder of the
lease dies they are lost until another process has the lease, about ``Timing.lease_ttl`` seconds
later. A process that stops releases the lease, and then no message is lost: the other processes
keep the messages until one of them has the lease.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from logging import ERROR
from math import inf
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis

from wsframe import WSFrameError

from ...reports.throttled import ThrottledLog
from . import scripts
from .faults import Fault, fault_of
from .wrong_types import explained

if TYPE_CHECKING:
    from .connection import RedisConnection

MAX_KEPT = 1000  # the maximum number of messages that are kept while no process holds the lease


@dataclass(frozen=True)
class Feed:
    """A channel that feeds a topic.

    Attributes:
        channel: the name of the channel.
        topic: the name of the topic.
        publish: a function that publishes a message to the topic.
    """

    channel: str
    topic: str
    publish: Callable[[str | bytes], object] = field(compare=False)


class Channels:
    """The channels that feed topics, while a server runs; one thread, and two connections.

    Args:
        connection: the connection to Redis.
        feeds: the list of feeds, to which :meth:`add` appends.
    """

    def __init__(self, connection: RedisConnection, feeds: list[Feed]) -> None:
        self._connection = connection
        self._feeds = feeds
        self._lock = threading.Lock()
        self._wanted = False
        self._run: tuple[threading.Thread, threading.Event] | None = None

    def add(self, channel: str, topic: str, publish: Callable[[str | bytes], object]) -> None:
        """Any thread: feed a topic from a channel; a repeated call does nothing.

        Raises:
            ValueError: a name contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        channel.encode()
        topic.encode()
        feed = Feed(channel, topic, publish)
        with self._lock:
            if feed not in self._feeds:
                self._feeds.append(feed)
            self._run_if_wanted()

    def start(self) -> None:
        """Any thread: start to listen."""
        with self._lock:
            self._wanted = True
            self._run_if_wanted()

    def stop(self) -> None:
        """Any thread: publish all received messages, and let other processes publish later ones."""
        with self._lock:
            self._wanted = False
            run, self._run = self._run, None
        if run is not None:
            thread, stop = run
            stop.set()
            self._connection.join(thread)

    def _run_if_wanted(self) -> None:
        if self._wanted and self._feeds and self._run is None:
            stop = threading.Event()
            listen = partial(self._listen, holder=token_hex(8), stop=stop)
            thread = threading.Thread(
                target=self._connection.run_until_stopped,
                args=("channels", listen, stop),
                name="wsframe-redis-channels",
                daemon=True,
            )
            thread.start()
            self._run = thread, stop

    # The listening thread
    # ---------------------------------------------------------------------------

    def _listen(
        self, client: Any, succeeded: Callable[[], None], holder: str, stop: threading.Event
    ) -> None:
        with client.pubsub() as pubsub:
            listener = _Listener(self._connection, client, pubsub, holder)
            while not stop.is_set():
                listener.listen_to(tuple(self._feeds))
                listener.hold_leases()
                listener.receive(self._connection.timing.channel_read_timeout)
                succeeded()
            listener.release_leases()


@dataclass(eq=False)
class _FeedState:
    """The state of a feed in one process after the last received message.

    Attributes:
        feed: the channel and its topic.
        lease: the key of the lease.
        changes: the channel of the changes of the lease.
        is_subscribed: True if both subscriptions are confirmed.
        holds_lease: True if this process holds the lease, and publishes the messages.
        awaits_lease: True if this connection has acquired the lease, but the message about it has
            not arrived.
        kept: messages received since the lease was released; None while a process holds it.
        is_refused: True if Redis has rejected one of the subscriptions.
    """

    feed: Feed
    lease: str
    changes: str
    is_subscribed: bool = False
    holds_lease: bool = False
    awaits_lease: bool = False
    kept: list[bytes] | None = None
    is_refused: bool = False


class _Listener:
    """Receives messages over one connection to Redis, and manages leases over another.

    The process that holds the lease of a channel publishes the messages of that channel.

    Args:
        connection: the address and the settings of the Redis server.
        client: the client whose connection acquires and renews the leases.
        pubsub: the connection that receives the messages.
        holder: the name of this process in the leases.
    """

    def __init__(self, connection: RedisConnection, client: Any, pubsub: Any, holder: str) -> None:
        self._connection = connection
        self._client = client
        self._pubsub = pubsub
        self._holder = holder
        self._states: dict[Feed, _FeedState] = {}
        self._by_channel: dict[bytes, list[_FeedState]] = {}
        self._by_lease: dict[bytes, _FeedState] = {}
        # The feeds of the subscriptions that Redis has not confirmed yet, in order.
        self._unconfirmed: deque[_FeedState] = deque()
        self._renew = -inf
        self._last_word = monotonic()
        self._errors = ThrottledLog()

    def listen_to(self, feeds: Iterable[Feed]) -> None:
        """Subscribe to the channels of feeds, unless they are already subscribed."""
        for feed in feeds:
            if feed not in self._states:
                lease = self._connection.lease(feed.topic, feed.channel)
                state = _FeedState(feed, lease, self._connection.channel(lease))
                self._states[feed] = state
                self._by_lease[state.changes.encode()] = state
                self._by_channel.setdefault(feed.channel.encode(), []).append(state)
                # With this order, a process that receives lease changes also receives messages.
                for channel in (feed.channel, state.changes):
                    self._pubsub.subscribe(channel)
                    self._unconfirmed.append(state)

    def hold_leases(self) -> None:
        """Acquire free leases and renew those held, if the interval has passed."""
        now, timing = monotonic(), self._connection.timing
        if now < self._renew:
            return
        if now - self._last_word > timing.redis_timeout:
            raise redis.TimeoutError(
                f"Redis sent no message and no ping reply for {timing.redis_timeout} s"
            )
        self._renew = now + timing.lease_renewal
        self._pubsub.ping()
        held = [state for state in self._states.values() if state.is_subscribed]
        pipe = self._client.pipeline(transaction=False)
        for state in held:
            # After a reconnect, the holder of a lease must receive another message about it.
            again = int(not state.holds_lease)
            arguments = (self._holder, round(timing.lease_ttl * 1000), again, state.changes)
            pipe.eval(scripts.TAKE, 1, state.lease, *arguments)
        replies = pipe.execute(raise_on_error=False)
        self._check(held, replies)
        for state, reply in zip(held, replies, strict=True):
            state.awaits_lease = reply == 1 and not state.holds_lease

    def _check(self, feeds: Iterable[_FeedState], replies: Iterable[object]) -> None:
        """Log the errors of single leases; raise an error that concerns all, such as READONLY."""
        for state, reply in zip(feeds, replies, strict=True):
            if isinstance(reply, Exception):
                if fault_of(reply) is not Fault.ITEM:
                    raise reply
                self._errors.log(
                    ERROR,
                    "Redis rejected a command for the lease of channel %r: %s",
                    state.feed.channel,
                    explained(self._client, reply, {state.lease: "string"}),
                )

    def receive(self, timeout: float) -> None:
        """Wait for a message, and process it."""
        try:
            message = self._pubsub.get_message(timeout=timeout)
        except redis.ResponseError as error:
            # Redis can only reject a subscription here, and replies to subscriptions in order.
            if fault_of(error) is not Fault.ITEM or not self._unconfirmed:
                raise
            state = self._unconfirmed.popleft()
            state.is_refused = True
            self._errors.log(
                ERROR,
                "Redis rejected the subscription to channel %r: %s",
                state.feed.channel,
                error,
            )
            return
        if message is None:
            return
        self._last_word = monotonic()
        kind, channel, data = message["type"], message["channel"], message["data"]
        changed = self._by_lease.get(channel) if channel else None
        if kind == "subscribe":
            self._unconfirmed.popleft()
            if changed is not None and not changed.is_refused:
                changed.is_subscribed = True
                self._renew = -inf
        elif kind == "message" and changed is not None:
            self._lease_changes(changed, data)
        elif kind == "message":
            for state in self._by_channel.get(channel, ()):
                if state.holds_lease:
                    self._publish(state.feed, data)
                elif state.kept is not None and len(state.kept) < MAX_KEPT:
                    state.kept.append(data)
                elif state.kept is not None:
                    name = state.feed.channel
                    self._errors.log(
                        ERROR,
                        "dropping message from Redis channel %r: no process has held the lease "
                        "for %d messages",
                        name,
                        MAX_KEPT,
                    )

    def _lease_changes(self, state: _FeedState, holder: bytes) -> None:
        """Record the new holder of a lease. The holder is empty if the lease was released."""
        kept, state.kept = state.kept, None
        state.holds_lease = holder == self._holder.encode()
        if state.holds_lease:
            state.awaits_lease = False
            for data in kept or ():
                self._publish(state.feed, data)
        elif not holder:
            state.kept = []
            self._renew = -inf

    def _publish(self, feed: Feed, data: bytes) -> None:
        message: str | bytes = data
        with suppress(UnicodeDecodeError):  # a message that is not UTF-8 is binary
            message = data.decode()
        try:
            feed.publish(message)
        except (WSFrameError, ValueError) as error:
            self._errors.log(
                ERROR, "dropping message from Redis channel %r: %s", feed.channel, error
            )

    def release_leases(self) -> None:
        """Release the leases of all channels.

        The messages that Redis delivered before the release are published first.
        """
        held = [state for state in self._states.values() if state.is_subscribed]
        pipe = self._client.pipeline(transaction=False)
        for state in held:
            pipe.eval(scripts.GIVE_BACK, 1, state.lease, self._holder, state.changes)
        replies = pipe.execute(raise_on_error=False)
        self._check(held, replies)
        for state, reply in zip(held, replies, strict=True):
            state.awaits_lease = reply == 1 and state.awaits_lease
        timing = self._connection.timing
        until = monotonic() + timing.redis_timeout
        while any(state.holds_lease or state.awaits_lease for state in held):
            if monotonic() >= until:
                return
            self.receive(timing.channel_read_timeout)

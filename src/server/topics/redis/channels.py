"""Channels of Redis: a message that another program sends with PUBLISH is published to a topic.

Every process receives it, and the one that holds a lease publishes it. That a lease is taken or
given back is published on a channel, too. Redis sends everything to everybody in the same order, so
all agree who held the lease when a message came, however late they come to it: nothing is published
twice, even by a process that was suspended for a while.

The lease is a key, and belongs to a database of Redis; its channel has the number of the database
in its name. The channel of the messages belongs to none.

Redis does not keep messages. So they are lost while a connection is, and, when the process that
holds the lease dies, until another has it, which takes some ``Timing.lease_ttl`` seconds. One that
stops gives it back, and then nothing is lost: the others keep what comes until one of them has it.
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

if TYPE_CHECKING:
    from .connection import RedisConnection

MAX_KEPT = 1000  # messages that are kept until somebody has the lease


@dataclass(frozen=True)
class Feed:
    """A channel that feeds a topic."""

    channel: str
    topic: str
    publish: Callable[[str | bytes], object] = field(compare=False)


class Channels:
    """The channels that feed topics, while a server runs; one thread, and two connections.

    Args:
        connection: to Redis.
        feeds: those that there are; more are added to it.
    """

    def __init__(self, connection: RedisConnection, feeds: list[Feed]) -> None:
        self._connection = connection
        self._feeds = feeds
        self._lock = threading.Lock()
        self._wanted = False
        self._run: tuple[threading.Thread, threading.Event] | None = None

    def add(self, channel: str, topic: str, publish: Callable[[str | bytes], object]) -> None:
        """Any thread: have a channel feed a topic; what does so already does it once.

        Raises:
            ValueError: UTF-8 has no form for a name.
        """
        channel.encode()
        topic.encode()
        feed = Feed(channel, topic, publish)
        with self._lock:
            if feed not in self._feeds:
                self._feeds.append(feed)
            self._run_if_wanted()

    def start(self) -> None:
        """Any thread: listen, from now on."""
        with self._lock:
            self._wanted = True
            self._run_if_wanted()

    def stop(self) -> None:
        """Any thread: publish what was said by now, and leave what comes to other processes."""
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
            listen = partial(self._listen, who=token_hex(8), stop=stop)
            thread = threading.Thread(
                target=self._connection.keep_on,
                args=("channels", listen, stop),
                name="wsframe-redis-channels",
                daemon=True,
            )
            thread.start()
            self._run = thread, stop

    # Its own thread ---------------------------------------------------------------------------

    def _listen(
        self, client: Any, works: Callable[[], None], who: str, stop: threading.Event
    ) -> None:
        with client.pubsub() as pubsub:
            listener = _Listener(self._connection, client, pubsub, who)
            while not stop.is_set():
                listener.listen_to(tuple(self._feeds))
                listener.hold_leases()
                listener.hear(self._connection.timing.channel_read_timeout)
                works()
            listener.give_leases_back()


@dataclass(eq=False)
class _Heard:
    """What a connection has heard of a feed.

    Attributes:
        lease: the key.
        changes: the channel on which it is published who holds the lease.
        all: whether it hears all that is said by now.
        mine: whether what is said now is to be published here.
        unconfirmed: the lease was held, and given back, before the message that it was taken came.
        kept: what was said since the lease was given back; None if somebody has it.
        is_refused: Redis does not let one of the channels be heard.
    """

    feed: Feed
    lease: str
    changes: str
    all: bool = False
    mine: bool = False
    unconfirmed: bool = False
    kept: list[bytes] | None = None
    is_refused: bool = False


class _Listener:
    """Listens by one connection, and holds leases by another.

    Args:
        connection: to Redis.
        client: by which it holds leases.
        pubsub: by which it listens.
        who: who is to hold the leases.
    """

    def __init__(self, connection: RedisConnection, client: Any, pubsub: Any, who: str) -> None:
        self._connection = connection
        self._client = client
        self._pubsub = pubsub
        self._who = who
        self._heard: dict[Feed, _Heard] = {}
        self._by_channel: dict[bytes, list[_Heard]] = {}
        self._by_lease: dict[bytes, _Heard] = {}
        # Subscriptions that Redis has not confirmed yet, in order: whom they are for.
        self._unconfirmed: deque[_Heard] = deque()
        self._renew = -inf
        self._last_word = monotonic()
        self._trouble = ThrottledLog()

    def listen_to(self, feeds: Iterable[Feed]) -> None:
        """Listen to these, too."""
        for feed in feeds:
            if feed not in self._heard:
                lease = self._connection.lease(feed.topic, feed.channel)
                heard = _Heard(feed, lease, self._connection.channel(lease))
                self._heard[feed] = heard
                self._by_lease[heard.changes.encode()] = heard
                self._by_channel.setdefault(feed.channel.encode(), []).append(heard)
                # In this order: who hears of the lease hears what is published.
                for channel in (feed.channel, heard.changes):
                    self._pubsub.subscribe(channel)
                    self._unconfirmed.append(heard)

    def hold_leases(self) -> None:
        """Take those that nobody has, and keep those that are held; if it is time to."""
        now, timing = monotonic(), self._connection.timing
        if now < self._renew:
            return
        if now - self._last_word > timing.redis_timeout:
            raise redis.TimeoutError("nothing is heard from the channels")
        self._renew = now + timing.lease_renewal
        self._pubsub.ping()
        held = [heard for heard in self._heard.values() if heard.all]
        pipe = self._client.pipeline(transaction=False)
        for heard in held:
            # Who has held it by a connection before this has to hear anew where it begins.
            again = int(not heard.mine)
            arguments = (self._who, round(timing.lease_ttl * 1000), again, heard.changes)
            pipe.eval(scripts.TAKE, 1, heard.lease, *arguments)
        self._check(held, pipe.execute(raise_on_error=False))

    def _check(self, feeds: Iterable[_Heard], replies: Iterable[object]) -> None:
        """Log what Redis refuses of a lease; raise what concerns all of them, such as READONLY."""
        for heard, reply in zip(feeds, replies, strict=True):
            if isinstance(reply, Exception):
                if fault_of(reply) is not Fault.ITEM:
                    raise reply
                self._trouble.log(
                    ERROR, "Redis refuses the lease of channel %r: %s", heard.feed.channel, reply
                )

    def hear(self, timeout: float) -> None:
        """Wait for a message, and do with it what is to be done."""
        try:
            message = self._pubsub.get_message(timeout=timeout)
        except redis.ResponseError as error:
            # Only a subscription can be refused here, and they are answered in order.
            if fault_of(error) is not Fault.ITEM or not self._unconfirmed:
                raise
            heard = self._unconfirmed.popleft()
            heard.is_refused = True
            self._trouble.log(ERROR, "Redis refuses the channel %r: %s", heard.feed.channel, error)
            return
        if message is None:
            return
        self._last_word = monotonic()
        kind, channel, data = message["type"], message["channel"], message["data"]
        told = self._by_lease.get(channel) if channel else None
        if kind == "subscribe":
            self._unconfirmed.popleft()
            if told is not None and not told.is_refused:
                told.all = True
                self._renew = -inf
        elif kind == "message" and told is not None:
            self._lease_changes(told, data)
        elif kind == "message":
            for heard in self._by_channel.get(channel, ()):
                if heard.mine:
                    self._publish(heard.feed, data)
                elif heard.kept is not None and len(heard.kept) < MAX_KEPT:
                    heard.kept.append(data)
                elif heard.kept is not None:
                    name = heard.feed.channel
                    self._trouble.log(ERROR, "a message of channel %r is lost: no lease", name)

    def _lease_changes(self, heard: _Heard, holder: bytes) -> None:
        """From here on this one holds it, or, if it is empty, nobody."""
        kept, heard.kept = heard.kept, None
        heard.mine = holder == self._who.encode()
        if heard.mine:
            heard.unconfirmed = False
            for data in kept or ():
                self._publish(heard.feed, data)
        elif not holder:
            heard.kept = []
            self._renew = -inf

    def _publish(self, feed: Feed, data: bytes) -> None:
        message: str | bytes = data
        with suppress(UnicodeDecodeError):  # then it is binary
            message = data.decode()
        try:
            feed.publish(message)
        except (WSFrameError, ValueError) as error:
            self._trouble.log(ERROR, "a message of channel %r is lost: %s", feed.channel, error)

    def give_leases_back(self) -> None:
        """Have another process publish what comes from here on, and publish what came before."""
        held = [heard for heard in self._heard.values() if heard.all]
        pipe = self._client.pipeline(transaction=False)
        for heard in held:
            pipe.eval(scripts.GIVE_BACK, 1, heard.lease, self._who, heard.changes)
        replies = pipe.execute(raise_on_error=False)
        self._check(held, replies)
        for heard, reply in zip(held, replies, strict=True):
            heard.unconfirmed = reply == 1 and not heard.mine
        timing = self._connection.timing
        until = monotonic() + timing.redis_timeout
        while any(heard.mine or heard.unconfirmed for heard in held) and monotonic() < until:
            self.hear(timing.channel_read_timeout)

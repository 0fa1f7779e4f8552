"""Channels of Redis: what another program says with a plain PUBLISH is published to a topic.

Every process hears it, and one of them, who holds a lease, publishes it. When a lease is taken or
given back, that is said on a channel, too. Redis says everything to everybody in the same order, so
all agree who held the lease when a message came, however late they come to it: nothing is published
twice, even by a process that was suspended for a while.

Redis does not keep what is said on a channel. So it is lost while a connection is, and, when the
process that holds the lease dies, until another has it, which takes some LEASE seconds. One that
stops gives it back, and then nothing is lost: the others keep what comes until one of them has it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from logging import ERROR
from math import inf
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis

from wsframe import WSFrameError

from ..reports.complaint import Complaint
from . import scripts
from .link import ANSWER_TIME, Link

if TYPE_CHECKING:
    from .topic import Topic

# How long a lease is held without a word of its holder, in seconds; and how often that speaks.
LEASE = 3.0
RENEWAL = 1.0
LISTEN = 0.2  # how long to listen before looking whether there is something else to do
MAX_KEPT = 1000  # messages that are kept until somebody has the lease


@dataclass(frozen=True)
class Feed:
    """A channel that feeds a topic."""

    channel: str
    topic: Topic


class Channels:
    """The channels that feed topics, while a server runs; one thread, and two connections.

    Args:
        link: to Redis.
        feeds: those that there are; more are added to it.
    """

    def __init__(self, link: Link, feeds: list[Feed]) -> None:
        self._link = link
        self._feeds = feeds
        self._lock = threading.Lock()
        self._wanted = False
        self._run: tuple[threading.Thread, threading.Event] | None = None

    def add(self, channel: str, topic: Topic) -> None:
        """Any thread: have a channel feed a topic; what does so already does it once.

        Raises:
            ValueError: UTF-8 has no form for a name.
        """
        channel.encode()
        topic.name.encode()
        feed = Feed(channel, topic)
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
            self._link.join(thread)

    def _run_if_wanted(self) -> None:
        if self._wanted and self._feeds and self._run is None:
            stop = threading.Event()
            listen = partial(self._listen, who=token_hex(8), stop=stop)
            thread = threading.Thread(
                target=self._link.keep_on,
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
            listener = _Listener(self._link, client, pubsub, who)
            while not stop.is_set():
                listener.listen_to(tuple(self._feeds))
                listener.hold_leases()
                listener.hear(LISTEN)
                works()
            listener.give_leases_back()


@dataclass(eq=False)
class _Heard:
    """What a connection has heard of a feed.

    Attributes:
        lease: the key, and the channel that tells of it.
        all: whether it hears all that is said by now.
        mine: whether what is said now is to be published here.
        kept: what was said since the lease was given back; None if somebody has it.
    """

    feed: Feed
    lease: str
    all: bool = False
    mine: bool = False
    kept: list[bytes] | None = None


class _Listener:
    """Listens by one connection, and holds leases by another.

    Args:
        link: to Redis.
        client: by which it holds leases.
        pubsub: by which it listens.
        who: who is to hold the leases.
    """

    def __init__(self, link: Link, client: Any, pubsub: Any, who: str) -> None:
        self._link = link
        self._client = client
        self._pubsub = pubsub
        self._who = who
        self._heard: dict[Feed, _Heard] = {}
        self._by_channel: dict[bytes, list[_Heard]] = {}
        self._by_lease: dict[bytes, _Heard] = {}
        self._renew = -inf
        self._last_word = monotonic()
        self._trouble = Complaint()

    def listen_to(self, feeds: Iterable[Feed]) -> None:
        """Listen to these, too."""
        for feed in feeds:
            if feed not in self._heard:
                lease = self._link.key(feed.topic.name, f"from:{feed.channel}")
                self._heard[feed] = heard = _Heard(feed, lease)
                self._by_lease[lease.encode()] = heard
                self._by_channel.setdefault(feed.channel.encode(), []).append(heard)
                # In this order: who hears of the lease hears what is said.
                self._pubsub.subscribe(feed.channel)
                self._pubsub.subscribe(lease)

    def hold_leases(self) -> None:
        """Take those that nobody has, and keep those that are held; if it is time to."""
        now = monotonic()
        if now < self._renew:
            return
        if now - self._last_word > ANSWER_TIME:
            raise redis.TimeoutError("nothing is heard from the channels")
        self._renew = now + RENEWAL
        self._pubsub.ping()
        pipe = self._client.pipeline(transaction=False)
        for heard in self._heard.values():
            if heard.all:
                # Who has held it by a connection before this has to hear anew where it begins.
                again = int(not heard.mine)
                pipe.eval(scripts.TAKE, 1, heard.lease, self._who, round(LEASE * 1000), again)
        for reply in pipe.execute(raise_on_error=False):
            if isinstance(reply, Exception):
                self._trouble.log(ERROR, "Redis refuses the lease of a channel: %s", reply)

    def hear(self, timeout: float) -> None:
        """Wait for a message, and do with it what is to be done."""
        message = self._pubsub.get_message(timeout=timeout)
        if message is None:
            return
        self._last_word = monotonic()
        kind, channel, data = message["type"], message["channel"], message["data"]
        told = self._by_lease.get(channel) if channel else None
        if kind == "subscribe" and told is not None:
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

    def _lease_changes(self, heard: _Heard, holder: bytes) -> None:
        """From here on this one holds it, or, if it is empty, nobody."""
        kept, heard.kept = heard.kept, None
        heard.mine = holder == self._who.encode()
        if heard.mine:
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
            feed.topic.publish(message)
        except WSFrameError as error:
            self._trouble.log(ERROR, "what channel %r says is lost: %s", feed.channel, error)

    def give_leases_back(self) -> None:
        """Have another process publish what comes from here on, and publish what came before."""
        for heard in self._heard.values():
            if heard.all:
                self._client.eval(scripts.GIVE_BACK, 1, heard.lease, self._who)
        until = monotonic() + ANSWER_TIME
        while any(heard.mine for heard in self._heard.values()) and monotonic() < until:
            self.hear(LISTEN)

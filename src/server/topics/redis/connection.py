"""The connections to a Redis: how they are made, checked, and made again when they are lost."""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'topics over Redis need redis-py: pip install "wsframe[redis]"', name="redis"
    ) from error

from ...reports.loggers import log
from ..errors import BrokerRefused
from . import scripts
from .faults import Fault, fault_of, is_wrong_node

if TYPE_CHECKING:
    from ...timing import Timing

OLDEST = (6, 2)  # the oldest Redis that has all commands
# Braces enclose a topic's name in its keys; a pattern of an access control list is to stay plain.
_PREFIX = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class RedisConnection:
    """Where Redis is, what the keys there begin with, and whether it can be used now.

    Args:
        url: as :class:`wsframe.server.topics.redis.RedisStreams` has it.
        prefix: what all keys and channels begin with.
        timing: the app's.

    Attributes:
        largest: how many bytes one value in a command may have; 0 while that is not known.

    Raises:
        ValueError: the URL is not one of a Redis, or the prefix is not allowed.
    """

    def __init__(self, url: str, prefix: str, timing: Timing) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(
                "the prefix of keys in Redis has 1 to 64 of the characters A-Z, a-z, 0-9 and "
                f"._:/-, not {prefix!r}"
            )
        self.timing = timing
        self.largest = 0
        self._url = url
        self._prefix = prefix
        self._options = _options(url)
        self._lock = threading.Lock()
        self._lost: dict[str, str] = {}  # the threads that wait for it, and why
        self._refusals: dict[str, str] = {}  # those of them that it refuses, and why
        self._generation = 0  # of connections: one that is older may be to a replica
        self._clients: dict[threading.Thread, Any] = {}
        # Raises what is wrong with the URL. It also imports what would be imported late, as the
        # codec is for the name of a host: what a thread is importing while the process forks stays
        # half a module in the child, and may stay locked.
        codecs.lookup("idna")
        connection = self.client("check").connection_pool.make_connection()
        # A channel belongs to no database, so its name has the number of the database.
        self._suffix = f"@{connection.db}"

    @property
    def away(self) -> bool:
        """Any thread: whether a thread waits for Redis."""
        return bool(self._lost)

    @property
    def refusal(self) -> str:
        """Any thread: why this Redis cannot be used at all; "" if that is not so."""
        return next(iter(tuple(self._refusals.values())), "")

    def client(self, name: str) -> Any:
        """Any thread: a client, to be closed; Redis lists it by this name."""
        # What a lost connection means is decided here, so redis-py is to try nothing again.
        return redis.Redis.from_url(
            self._url,
            protocol=2,
            client_name=f"wsframe-{name}",
            socket_timeout=self.timing.redis_timeout,
            socket_connect_timeout=self.timing.redis_timeout,
            retry=Retry(NoBackoff(), 0),
            **self._options,
        )

    def key(self, topic: str, kind: str = "") -> str:
        """Any thread: a key of a topic."""
        return f"{self._prefix}{{{topic}}}" + (f":{kind}" if kind else "")

    def lease(self, topic: str, channel: str) -> str:
        """Any thread: the key of the lease of a channel that feeds a topic."""
        return self.key(topic, f"from:{quote(channel, safe='')}")

    def channel(self, key: str) -> str:
        """Any thread: the channel on which changes of a key are published."""
        return key + self._suffix

    def key_of(self, channel: bytes) -> str:
        """Any thread: the key whose changes are published on a channel."""
        return channel.decode().removesuffix(self._suffix)

    def wake_channel(self, publisher: str) -> str:
        """Any thread: the channel by which one thread of a process wakes another that listens."""
        return f"{self._prefix}wake:{publisher}"

    def examine(self, client: Any) -> None:
        """A thread with a new connection: check that topics can be kept in this Redis.

        Raises:
            BrokerRefused: they cannot, and that lasts.
            redis.RedisError: they cannot now.
        """
        client.ping()
        about: dict[str, Any] = {}
        with suppress(redis.exceptions.NoPermissionError):  # an access control list may forbid it
            about = client.info()
        mode = about.get("redis_mode", about.get("server_mode"))
        if mode == "cluster" or about.get("cluster_enabled"):
            raise BrokerRefused(
                "this Redis runs in cluster mode (cluster-enabled yes), which is not supported: "
                "name a Redis without it"
            )
        if mode == "sentinel":
            raise BrokerRefused(
                "this is a Sentinel, which is not supported: name the Redis that it watches"
            )
        version = re.match(r"(\d+)\.(\d+)", str(about.get("redis_version", "")))
        if version and tuple(map(int, version.groups())) < OLDEST:
            raise BrokerRefused(
                f"this Redis has version {about['redis_version']}: "
                f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"
            )
        if about.get("role") == "slave":
            raise redis.exceptions.ReadOnlyError("this Redis is a replica: READONLY")
        try:
            for script in (scripts.PUBLISH, scripts.OPEN, scripts.JOIN, scripts.TAKE):
                client.script_load(script)
            client.eval(scripts.MEMBERS, 1, self.key("", "members"))
            client.publish(self.wake_channel("check"), "")
        except redis.exceptions.NoPermissionError as error:
            raise BrokerRefused(
                f"Redis refuses the user of the URL what topics need: {error}. An access control "
                f"list has to allow the keys ~{self._prefix}*, the channels &{self._prefix}* and "
                "the commands of scripts, streams, hashes, strings, sorted sets and channels"
            ) from error
        with suppress(redis.ResponseError, ValueError, TypeError):
            self.largest = int(client.config_get("proto-max-bulk-len")["proto-max-bulk-len"])

    def check(self) -> None:
        """Any thread: connect once.

        Raises:
            BrokerRefused: this Redis cannot be used. One that is away is no error.
        """
        client = self.client("check")
        try:
            self.examine(client)
        except BrokerRefused:
            raise
        except Exception as error:
            if fault_of(error) is Fault.REFUSAL:
                raise BrokerRefused(str(error)) from error
        finally:
            with suppress(Exception):
                client.close()

    def keep_on(
        self,
        name: str,
        act: Callable[[Any, Callable[[], None]], None],
        stop: threading.Event,
    ) -> None:
        """A thread of this name: act with a client, and again with a new one, until it is to stop.

        ``act`` calls its second argument whenever all has worked. That raises ConnectionError when
        another thread has found out that the node is not the primary any more.
        """
        timing = self.timing
        pause = timing.redis_min_backoff
        generation = 0

        def works() -> None:
            nonlocal pause
            if generation != self._generation:
                raise redis.ConnectionError("the Redis is a replica now")
            pause = timing.redis_min_backoff
            self._found(name)

        while not stop.is_set():
            client = self._clients[threading.current_thread()] = self.client(name)
            generation = self._generation
            try:
                self.examine(client)
                act(client, works)
            except Exception as error:
                if not stop.is_set():
                    self._miss(name, error)
            finally:
                with suppress(Exception):
                    client.close()
            # Processes that have lost it together do not come back together.
            wait = timing.redis_refused_backoff if name in self._refusals else pause
            stop.wait(wait * (0.5 + random()))
            pause = min(2 * pause, timing.redis_max_backoff)
        self._forget(name)
        self._clients.pop(threading.current_thread(), None)

    def join(self, *threads: threading.Thread) -> None:
        """Any thread: wait for the end of threads that are to stop; not for a Redis that hangs."""
        patience = self.timing.redis_stop_timeout
        until = monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
            while thread.is_alive():
                with suppress(Exception):
                    self._clients[thread].close()  # so that what it waits for fails
                thread.join(patience)

    def _miss(self, name: str, error: Exception) -> None:
        fault = Fault.REFUSAL if isinstance(error, BrokerRefused) else fault_of(error)
        with self._lock:
            # Of an outage the first thread that notices it speaks for all.
            news = str(error) not in self._lost.values()
            news = news and not (fault is Fault.OUTAGE and self._lost)
            self._lost[name] = str(error)
            self._refusals.pop(name, None)
            if fault is Fault.REFUSAL:
                self._refusals[name] = str(error)
            if is_wrong_node(error):
                self._generation += 1
        if not news:
            return
        if fault is Fault.REFUSAL:
            log.error("topics cannot be kept in this Redis: %s", error)
        elif fault is Fault.OUTAGE:
            log.warning("Redis is away or not ready: %s", error)
        elif isinstance(error, redis.RedisError):
            log.error("Redis does not do what topics need: %s", error)
        else:
            log.error("a defect in the topics over Redis", exc_info=error)

    def _found(self, name: str) -> None:
        if name in self._lost:
            self._forget(name)
            if not self._lost:
                log.warning("Redis is back")

    def _forget(self, name: str) -> None:
        with self._lock:
            self._lost.pop(name, None)
            self._refusals.pop(name, None)


def _options(url: str) -> dict[str, Any]:
    """What redis-py is told besides the URL.

    Before version 6 it compares the name in a certificate with the host's only if it is asked to.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return {}
    wanted = parse_qs(parts.query).get("ssl_cert_reqs", ["required"])[-1]
    return {"ssl_check_hostname": wanted.lower() != "none"}

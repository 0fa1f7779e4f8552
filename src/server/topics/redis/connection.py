"""The connections to a Redis server: connecting, checking and reconnecting."""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from logging import ERROR, WARNING
from math import inf
from random import random
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...reports.loggers import log
from ...reports.throttled import ThrottledLog
from ..errors import BrokerRefused, BrokerUnavailable
from . import scripts
from .faults import Fault, fault_of, is_wrong_node

if TYPE_CHECKING:
    from ...timing import Timing

OLDEST = (6, 2)  # the oldest supported version of Redis
# The commands that an access control list must allow, as rules of ACL SETUSER.
PERMISSIONS = (
    "+@connection +@keyspace +@string +@hash +@sortedset +@stream +@pubsub +@scripting +time"
)
# The characters of a valid prefix. Braces enclose a topic's name in its keys, and others would
# change the meaning of a pattern in an access control list.
_PREFIX = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class RedisConnection:
    """The address of a Redis server, the names of keys there, and its availability.

    Args:
        url: the URL, as in :class:`wsframe.server.topics.redis.streams.RedisStreams`.
        prefix: the prefix of all keys and channels.
        timing: the durations of the app.

    Attributes:
        address: the host and port, or the path of the unix socket, without a password.
        largest: the maximum size of one value in a command, in bytes; 0 while it is unknown.

    Raises:
        ValueError: the URL is not a URL of Redis, or the prefix contains an invalid character.
    """

    def __init__(self, url: str, prefix: str, timing: Timing) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(
                "invalid prefix of Redis keys: expected 1 to 64 of the characters A-Z, a-z, 0-9 "
                f"and ._:/-, got {prefix!r}"
            )
        self.timing = timing
        self.largest: int = 0
        self._url = url
        self._prefix = prefix
        self._options = _options(url)
        self._lock = threading.Lock()
        self._failures: dict[str, str] = {}  # the temporary errors, by the name of the thread
        self._refusals: dict[str, str] = {}  # the permanent errors, by the name of the thread
        self._next_report = -inf  # the time after which an outage is logged again
        # A connection may be lost and restored many times a second.
        self._states = ThrottledLog(timing.log_throttle)
        self._unexpected = ThrottledLog(timing.log_throttle)
        self._generation = 0  # a connection of an older generation may lead to a replica
        self._clients: dict[threading.Thread, Any] = {}
        # This call raises an error for an invalid URL, and causes all late imports. A module that a
        # thread imports during a fork would remain incomplete in the child.
        codecs.lookup("idna")
        connection = self.client("check").connection_pool.make_connection()
        # All databases share channels, so the name of a channel contains the database's number.
        self._suffix = f"@{connection.db}"
        self.address: str = _address(connection)

    @property
    def failing(self) -> tuple[str, ...]:
        """Any thread: the names of the threads that cannot use Redis."""
        return tuple(self._failures)

    @property
    def unavailable(self) -> bool:
        """Any thread: True while a thread cannot use Redis."""
        return bool(self._failures)

    @property
    def refusal(self) -> str:
        """Any thread: the reason why Redis permanently rejects all commands; "" without one."""
        return next(iter(tuple(self._refusals.values())), "")

    def client(self, name: str) -> Any:
        """Any thread: return a client, which the caller closes, with a name for CLIENT LIST."""
        # redis-py must not retry, because this class handles lost connections.
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
        """Any thread: return a key of a topic."""
        return f"{self._prefix}{{{topic}}}" + (f":{kind}" if kind else "")

    def log_keys(self, topic: str) -> dict[str, str]:
        """Any thread: return the keys of a topic's log, and their types."""
        return {self.key(topic): "stream", self.key(topic, "meta"): "hash"}

    def members_key(self, topic: str) -> dict[str, str]:
        """Any thread: return the key of a topic's members, and its type."""
        return {self.key(topic, "members"): "zset"}

    def lease(self, topic: str, channel: str) -> str:
        """Any thread: return the key of the lease of a channel that feeds a topic."""
        return self.key(topic, f"from:{quote(channel, safe='')}")

    def channel(self, key: str) -> str:
        """Any thread: return the channel on which changes of a key are published."""
        return key + self._suffix

    def key_of(self, channel: bytes) -> str:
        """Any thread: return the key whose changes are published on a channel."""
        return channel.decode().removesuffix(self._suffix)

    def wake_channel(self, publisher: str) -> str:
        """Any thread: return the channel on which a process wakes its own reader."""
        return f"{self._prefix}wake:{publisher}"

    def examine(self, client: Any) -> None:
        """A thread with a new connection: check that this Redis supports topics.

        Raises:
            BrokerRefused: this Redis does not support topics. redis.RedisError: Redis cannot be
                used at the moment.
        """
        try:
            self._examine(client)
        except redis.exceptions.NoPermissionError as error:
            raise BrokerRefused(
                f"the Redis user of the URL lacks permissions that topics require: {error}. Its "
                f"access control list must allow ~{self._prefix}* &{self._prefix}* {PERMISSIONS}"
            ) from None
        with suppress(redis.ResponseError, ValueError, TypeError):
            self.largest = int(client.config_get("proto-max-bulk-len")["proto-max-bulk-len"])

    def _examine(self, client: Any) -> None:
        client.ping()
        about: dict[str, Any] = {}
        with suppress(redis.exceptions.NoPermissionError):
            # An access control list may forbid the command.
            about = client.info()
        mode = about.get("redis_mode", about.get("server_mode"))
        if mode == "cluster" or about.get("cluster_enabled"):
            raise BrokerRefused(
                "this Redis runs in cluster mode (cluster-enabled yes), which is not supported: "
                "use a Redis without cluster mode"
            )
        if mode == "sentinel":
            raise BrokerRefused(
                "this is a Sentinel, which is not supported: use the URL of the Redis that it "
                "monitors"
            )
        version = re.match(r"(\d+)\.(\d+)", str(about.get("redis_version", "")))
        if version and tuple(map(int, version.groups())) < OLDEST:
            raise BrokerRefused(
                f"this Redis has version {about['redis_version']}: "
                f"{OLDEST[0]}.{OLDEST[1]} or newer is required"
            )
        if about.get("role") == "slave":
            raise redis.exceptions.ReadOnlyError(
                "this Redis is a replica, which accepts no events (READONLY)"
            )
        for script in (scripts.PUBLISH, scripts.OPEN, scripts.JOIN, scripts.TAKE):
            client.script_load(script)
        # The permission to run scripts is checked with a key that no program can have written.
        client.eval(scripts.MEMBERS, 1, self.key("", f"check:{token_hex(8)}"))
        client.publish(self.wake_channel("check"), "")

    def check(self) -> None:
        """Any thread: connect once; an unreachable Redis is no error.

        Raises:
            BrokerRefused: this Redis does not support topics.
        """
        try:
            self.try_to_connect()
        except BrokerRefused:
            raise
        except BrokerUnavailable as error:
            text = "Redis at %s is unavailable; topics connect when they are used: %s"
            log.warning(text, self.address, error)
            self._next_report = monotonic() + self.timing.redis_report_interval
        except Exception as error:
            log.warning("the check of Redis at %s has failed: %s", self.address, error)

    def try_to_connect(self) -> None:
        """Any thread: connect once.

        Raises:
            BrokerRefused: this Redis does not support topics.
            BrokerUnavailable: Redis is unreachable; the text is only the reason.
        """
        client = self.client("check")
        try:
            self.examine(client)
        except BrokerRefused:
            raise
        except Exception as error:
            fault = fault_of(error)
            if fault is Fault.REFUSAL:
                raise BrokerRefused(str(error)) from None
            if fault is Fault.OUTAGE:
                raise BrokerUnavailable(str(error)) from None
            raise
        finally:
            with suppress(Exception):
                client.close()

    def run_until_stopped(
        self,
        name: str,
        act: Callable[[Any, Callable[[], None]], None],
        stop: threading.Event,
    ) -> None:
        """A thread of this name: call ``act`` with a client, and reconnect after each error.

        ``act`` calls its second argument after each successful round. That call raises
        ConnectionError after another thread has found that the server is now a replica.

        Args:
            name: the name of the thread, for the name of the connection.
            act: a function that works with a client until ``stop`` is set.
            stop: the event that ends this method.
        """
        timing = self.timing
        pause = timing.redis_min_backoff
        generation = 0

        def succeeded() -> None:
            nonlocal pause
            if generation != self._generation:
                raise redis.ConnectionError("this Redis has become a replica")
            pause = timing.redis_min_backoff
            self._report_success(name)

        while not stop.is_set():
            client = self._clients[threading.current_thread()] = self.client(name)
            generation = self._generation
            try:
                self.examine(client)
                act(client, succeeded)
            except Exception as error:
                if not stop.is_set():
                    self._report_failure(name, error)
            finally:
                with suppress(Exception):
                    client.close()
            # A random factor, so that processes which were disconnected together do not reconnect
            # together.
            wait = timing.redis_refused_backoff if name in self._refusals else pause
            stop.wait(wait * (0.5 + random()))
            pause = min(2 * pause, timing.redis_max_backoff)
        self._forget(name)
        self._clients.pop(threading.current_thread(), None)

    def join(self, *threads: threading.Thread) -> None:
        """Any thread: wait for stopping threads; close their connections if Redis hangs."""
        timeout = self.timing.redis_stop_timeout
        until = monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
            while thread.is_alive():
                with suppress(Exception):
                    self._clients[thread].close()  # the pending call of the thread then fails
                thread.join(timeout)

    def _report_failure(self, name: str, error: Exception) -> None:
        fault = Fault.REFUSAL if isinstance(error, BrokerRefused) else fault_of(error)
        with self._lock:
            if fault is Fault.OUTAGE:
                # The first thread that notices an outage logs it, and one thread repeats the line.
                now = monotonic()
                is_new = now >= self._next_report
                if is_new:
                    self._next_report = now + self.timing.redis_report_interval
            else:
                is_new = str(error) not in self._failures.values()
            self._failures[name] = str(error)
            self._refusals.pop(name, None)
            if fault is Fault.REFUSAL:
                self._refusals[name] = str(error)
            if is_wrong_node(error):
                self._generation += 1
        if not is_new:
            return
        if fault is Fault.REFUSAL:
            log.error("Redis at %s does not support topics: %s", self.address, error)
        elif fault is Fault.OUTAGE:
            text = "Redis at %s is unavailable; reconnecting until it answers, and events wait: %s"
            self._states.log(WARNING, text, self.address, error)
        elif isinstance(error, redis.RedisError):
            text = "unexpected error of Redis at %s, reconnecting: %s"
            self._unexpected.log(ERROR, text, self.address, error)
        else:
            log.error("internal error in topics over Redis (please report this)", exc_info=error)

    def _report_success(self, name: str) -> None:
        is_restored = name in self._failures
        if is_restored:
            self._forget(name)
        if not self._failures:
            self._next_report = -inf
            if is_restored:
                self._states.log(WARNING, "reconnected to Redis at %s", self.address)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._failures.pop(name, None)
            self._refusals.pop(name, None)


def _address(connection: Any) -> str:
    """Return the address of a connection of redis-py."""
    if isinstance(connection, redis.UnixDomainSocketConnection):
        return str(connection.path)
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{host}:{connection.port}"


def _options(url: str) -> dict[str, Any]:
    """Return the options of redis-py besides the URL.

    Before version 6 redis-py compares the name in a certificate with the host only on request.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return {}
    wanted = parse_qs(parts.query).get("ssl_cert_reqs", ["required"])[-1]
    return {"ssl_check_hostname": wanted.lower() != "none"}

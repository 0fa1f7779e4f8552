"""The connections to a Redis: how they are made, and made again when they are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from random import random
from time import monotonic
from typing import Any

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'topics over Redis need redis-py: pip install "wsframe[redis]"', name="redis"
    ) from error

from ..reports.loggers import log

ANSWER_TIME = 5.0  # how long Redis may take for an answer, in seconds
PATIENCE = 2.0  # and how long when nobody needs it any more
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)


class Link:
    """Where Redis is, and whether it is there.

    Args:
        url: as :class:`wsframe.server.topics.redis.RedisStreams` has it.
        prefix: what all keys begin with.

    Raises:
        ValueError: it is no URL of a Redis.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._lock = threading.Lock()
        self._lost: dict[str, str] = {}  # the threads that wait for it, and why
        self._clients: dict[threading.Thread, Any] = {}
        # Raises what is wrong with the URL; and has redis-py import what it imports late, for what
        # a thread is importing stays half a module in the child of a fork.
        self.client("check").connection_pool.make_connection()

    @property
    def away(self) -> bool:
        """Any thread: whether somebody waits for it."""
        return bool(self._lost)

    def client(self, name: str) -> Any:
        """Any thread: a client, to be closed; Redis lists it by this name."""
        # What a lost connection means is ours to say, so redis-py is to try nothing again.
        return redis.Redis.from_url(
            self._url,
            protocol=2,
            client_name=f"wsframe-{name}",
            socket_timeout=ANSWER_TIME,
            socket_connect_timeout=ANSWER_TIME,
            retry=Retry(NoBackoff(), 0),
        )

    def key(self, topic: str, kind: str = "") -> str:
        """Any thread: a key of a topic; all of them are at one place, in a cluster, too."""
        return f"{self._prefix}{{{topic}}}" + (f":{kind}" if kind else "")

    def wake_channel(self, publisher: str) -> str:
        """Any thread: the channel by which one thread of a process wakes another that listens."""
        return f"{self._prefix}wake:{publisher}"

    def keep_on(
        self,
        name: str,
        act: Callable[[Any, Callable[[], None]], None],
        stop: threading.Event,
    ) -> None:
        """A thread of this name: act with a client, and again with a new one, until it is to stop.

        What is acted with tells by its second argument whenever all works.
        """
        pause = SHORTEST_PAUSE

        def works() -> None:
            nonlocal pause
            pause = SHORTEST_PAUSE
            self._found(name)

        while not stop.is_set():
            client = self._clients[threading.current_thread()] = self.client(name)
            try:
                client.ping()
                act(client, works)
            except Exception as error:
                if not stop.is_set():
                    self._miss(name, error)
            finally:
                with suppress(Exception):
                    client.close()
            # Processes that have lost it together do not come back together.
            stop.wait(pause * (0.5 + random()))
            pause = min(2 * pause, LONGEST_PAUSE)
        self._forget(name)
        self._clients.pop(threading.current_thread(), None)

    def join(self, *threads: threading.Thread) -> None:
        """Any thread: wait for the end of threads that are to stop; not for a Redis that hangs."""
        until = monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
            while thread.is_alive():
                with suppress(Exception):
                    self._clients[thread].close()  # so that what it waits for fails
                thread.join(PATIENCE)

    def _miss(self, name: str, error: Exception) -> None:
        with self._lock:
            first = not self._lost
            told = name in self._lost or str(error) in self._lost.values()
            self._lost.setdefault(name, str(error))
        if told:
            return
        if isinstance(error, AWAY) and not isinstance(error, redis.AuthenticationError):
            if first:
                log.warning("Redis is away: %s", error)
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


def is_refusal(answer: object) -> bool:
    """Whether Redis refuses what it was asked, and would again; else it is just not ready."""
    return isinstance(answer, redis.exceptions.NoPermissionError) or (
        isinstance(answer, redis.ResponseError) and "WRONGTYPE" in str(answer)
    )

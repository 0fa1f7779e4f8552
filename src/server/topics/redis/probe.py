"""The check that Redis answers at the moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import redis

from .connection import RedisConnection

# The maximum number of requests that wait for a check. Further ones receive the last result.
MAX_WAITING = 1000


class Probe:
    """The thread that checks on request that Redis answers.

    One check runs at a time, and its result is valid for ``redis_probe_lifetime``. So many requests
    cause few checks.

    Args:
        connection: the address of Redis.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()  # guards the following attributes
        self._waiting: list[Callable[[bool], object]] = []  # not empty while the thread runs
        self._answers = False
        self._valid_until = 0.0

    def request(self, answer: Callable[[bool], object]) -> None:
        """Any thread: call ``answer``, at once or in another thread; True if Redis answers."""
        with self._lock:
            known = monotonic() < self._valid_until or len(self._waiting) >= MAX_WAITING
            first = not (known or self._waiting)
            if not known:
                self._waiting.append(answer)
        if known:
            answer(self._answers)
        elif first:
            try:
                threading.Thread(target=self._run, name="wsframe-redis-probe", daemon=True).start()
            except RuntimeError:  # the system cannot start a thread
                self._finish(answers=False)

    def _run(self) -> None:
        self._finish(answers=self._ping() and not self._connection.refusal)

    def _finish(self, *, answers: bool) -> None:
        with self._lock:
            self._answers = answers
            self._valid_until = monotonic() + self._connection.timing.redis_probe_lifetime
            waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(answers)

    def _ping(self) -> bool:
        client = self._connection.client("probe")
        try:
            client.ping()
        except redis.exceptions.NoPermissionError:
            # Redis has answered, but an access control list forbids the command.
            return True
        except Exception:  # also a ValueError, which an invalid host or reply raises
            return False
        finally:
            with suppress(Exception):
                client.close()
        return True

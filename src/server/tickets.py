"""Tickets: credentials in the URL, for clients that cannot set headers."""

from __future__ import annotations

import base64
import hmac
import logging
import os
import struct
import time
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from wsframe import HandshakeError

from .http.request import Request
from .reports.throttled import ThrottledLog
from .service import REDIS_PREFIX
from .timing import Timing
from .topics.errors import BrokerUnavailable

MIN_SECRET = 16  # bytes
# The maximum size in bytes of UTF-8, so that a ticket fits into a request target.
MAX_IDENTITY = 512
# The fields of a ticket: the time of its expiry in milliseconds since 1970, and a random number.
HEAD = struct.Struct(">Q16s")
SIGNATURE = 32  # the size of an HMAC with SHA-256, in bytes
MAX_TICKET = (SIGNATURE + HEAD.size + MAX_IDENTITY) * 4 // 3 + 2
# The additional time for which used tickets are stored, in seconds, because clocks differ.
SKEW = 60.0
# The number of attempts: Redis closes idle connections, so the first attempt may fail without a
# cause.
ATTEMPTS = 2


class Tickets:
    """Signed tickets, each valid once and for a short time.

    Scripts in a page cannot set the headers of a WebSocket, and cookies are not sent to another
    site. So a view that has authenticated the user issues a ticket, and the page opens the
    WebSocket with the ticket in its query. Objects with the same secret accept each other's
    tickets::

        tickets = Tickets(os.environ["TICKET_SECRET"])

        @app.websocket("/chat", authorize=tickets.authorize)  # /chat?ticket=...
        def chat(ws):
            ws.send(f"Welcome, {ws.request.identity}")

    A URL may be logged by proxies. So a ticket expires soon, and is accepted once. Used tickets are
    stored in this object, or in Redis. Several processes require Redis: otherwise each of them
    accepts a ticket once.

        >>> tickets = Tickets("a secret of 16 bytes or more")
        >>> ticket = tickets.issue("ann")
        >>> tickets.redeem(ticket)
        'ann'
        >>> tickets.redeem(ticket) is None
        True

    Args:
        secret: the key of the signatures, of at least 16 bytes. A sequence of keys permits a
            change: the first signs, and tickets of all are accepted.
        max_age: validity of a ticket, in seconds. The clocks of several machines may differ by at
            most a minute.
        redis: URL of a Redis that remembers the used tickets, as for :class:`App`.
        redis_prefix: prefix of the names of keys in Redis.
        max_used: maximum number of used tickets in the memory of this object, of some 200 bytes
            each; a further ticket is refused. Only valid tickets are counted. The number has no
            effect with Redis.
        clock: a function that returns the time in seconds since 1970; for tests.

    Raises:
        ModuleNotFoundError: redis-py is not installed.
        ValueError: a secret is too short, there is no secret, a number is not positive, or the URL
            or the prefix is not valid.
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        max_age: float = 30.0,
        redis: str | None = None,
        redis_prefix: str = REDIS_PREFIX,
        max_used: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secrets = [secret] if isinstance(secret, (str, bytes)) else secret
        self._keys = [_key(each) for each in secrets]
        if not self._keys:
            raise ValueError("secret must not be an empty sequence")
        for name, value in (("max_age", max_age), ("max_used", max_used)):
            if not value > 0:
                raise ValueError(f"{name} must be positive: {value!r}")
        self._max_age = max_age
        self._max_used = max_used
        self._clock = clock
        # No lock protects these, because a finalizer may interrupt any call and use another ticket.
        # Each operation on them is atomic.
        self._used: dict[bytes, object] = {}
        self._expiries: list[tuple[float, bytes]] = []  # the heap of expiry times
        self._log = ThrottledLog()
        self._outages = ThrottledLog()
        self._prefix = redis_prefix
        self._redis: Any = None
        if redis is not None:
            from .topics.redis.connection import RedisConnection

            connection = RedisConnection(redis, redis_prefix, Timing())
            self._redis, self._address = connection.client("tickets"), connection.address

    def issue(self, identity: str) -> str:
        """Any thread: return a new ticket, of characters that a URL may contain unchanged.

        Args:
            identity: the text that the ticket proves, such as the name of a user: at most 512 bytes
                in UTF-8. The ticket contains it in readable form.

        Raises:
            ValueError: the identity is empty or too long, or contains a lone surrogate.
        """
        name = identity.encode()
        if not 0 < len(name) <= MAX_IDENTITY:
            raise ValueError(f"identity must have 1 to {MAX_IDENTITY} bytes in UTF-8: {len(name)}")
        expiry = int((self._clock() + self._max_age) * 1000)
        body = HEAD.pack(expiry, os.urandom(16)) + name
        return base64.urlsafe_b64encode(_sign(self._keys[0], body) + body).rstrip(b"=").decode()

    def redeem(self, ticket: str) -> str | None:
        """Any thread: return the identity of a ticket; None if it is forged, expired or used.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        body = self._verified(ticket)
        if body is None:
            return None
        milliseconds, number = HEAD.unpack_from(body)
        now, expiry = self._clock(), milliseconds / 1000
        if now >= expiry or not self._use(number, expiry + SKEW, now):
            return None
        return body[HEAD.size :].decode()

    def authorize(self, request: Request) -> str | None:
        """Any thread: redeem the ticket in a request's query; the ``authorize`` of a route.

        The parameter has the name "ticket". The result becomes ``request.identity``.

        Raises:
            HandshakeError: 503, because Redis does not answer.
        """
        found = request.query.get("ticket", [])
        if len(found) != 1:
            return None
        try:
            return self.redeem(found[0])
        except BrokerUnavailable as error:
            # The error's text contains the address of Redis, which the client must not receive.
            self._outages.log(logging.WARNING, "%s", error)
            raise HandshakeError(
                503, "tickets cannot be checked at the moment", [("Retry-After", "1")]
            ) from error

    def close(self) -> None:
        """Any thread: close the connections to Redis; the next ticket opens them again."""
        if self._redis is not None:
            self._redis.close()

    def _verified(self, ticket: str) -> bytes | None:
        """Any thread: return the data of a ticket with a valid signature; otherwise None."""
        if len(ticket) > MAX_TICKET:
            return None
        try:
            data = base64.b64decode(f"{ticket}{'=' * (-len(ticket) % 4)}", b"-_", validate=True)
        except ValueError:
            return None
        signature, body = data[:SIGNATURE], data[SIGNATURE:]
        valid = [hmac.compare_digest(signature, _sign(key, body)) for key in self._keys]
        return body if any(valid) else None

    def _use(self, number: bytes, until: float, now: float) -> bool:
        """Any thread: mark a ticket as used until its expiry; return True the first time."""
        if self._redis is not None:
            return self._use_in_redis(number, int((until - now) * 1000))
        self._forget(now)
        if len(self._used) >= self._max_used:
            self._log.log(
                logging.WARNING,
                "refusing a ticket: %d used tickets are remembered (max_used)",
                self._max_used,
            )
            return False
        use = object()
        if self._used.setdefault(number, use) is not use:
            return False
        heappush(self._expiries, (until, number))
        return True

    def _use_in_redis(self, number: bytes, milliseconds: int) -> bool:
        """Any thread: mark a ticket as used in Redis; return True the first time.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        from redis.exceptions import RedisError

        problem: RedisError | None = None
        for _ in range(ATTEMPTS):
            try:
                key = f"{self._prefix}ticket:{number.hex()}"
                return bool(self._redis.set(key, b"", nx=True, px=milliseconds))
            except RedisError as error:
                problem = error
        raise BrokerUnavailable(
            f"cannot redeem a ticket, because Redis at {self._address} has failed: {problem}"
        ) from None

    def _forget(self, now: float) -> None:
        """Any thread: forget used tickets that have expired."""
        while True:
            try:
                until, number = heappop(self._expiries)
            except IndexError:
                return
            if until > now:
                heappush(self._expiries, (until, number))
                return
            del self._used[number]


def _key(secret: str | bytes) -> bytes:
    """Return a key that is derived for tickets, so that the secret can have other uses, too."""
    secret = secret.encode() if isinstance(secret, str) else secret
    if len(secret) < MIN_SECRET:
        raise ValueError(f"secret must have at least {MIN_SECRET} bytes: {len(secret)}")
    return hmac.digest(secret, b"wsframe ticket 1", "sha256")


def _sign(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")

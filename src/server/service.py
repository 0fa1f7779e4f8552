"""A service: its topics, and the servers that serve its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from wsframe import CloseCode
from wsframe.frames import check_close

from .reports.loggers import background
from .reports.stats import Stats, total
from .server import Server
from .sockets.identities import Identity, check_identity
from .sockets.snapshot import ConnectionInfo
from .timing import Timing
from .topics.errors import BrokerUnavailable
from .topics.registry import MEMORY, Topics
from .topics.sizes import Sizes
from .topics.state import Policy
from .topics.topic import Topic

# The default prefix of the names of keys in Redis.
REDIS_PREFIX = "wsframe:"
# The default time limit for Redis's acknowledgement of published events, in seconds.
FLUSH_TIMEOUT = 5.0


class Service:
    """The topics of an application, and the servers that serve its clients.

    The arguments are those of :class:`wsframe.server.App`.
    """

    def __init__(
        self,
        *,
        redis: str | None = None,
        redis_prefix: str = REDIS_PREFIX,
        topic_memory: int = MEMORY,
        timing: Timing | None = None,
        topic_sizes: Sizes | None = None,
    ) -> None:
        self._servers: list[Server] = []
        self._timing = timing or Timing()
        self._topic_sizes = topic_sizes or Sizes()
        self._topics = Topics(self._timing, sizes=self._topic_sizes)
        self.limit_topics(topic_memory)
        if redis is not None:
            self.share_topics(redis, redis_prefix)

    def topic(
        self,
        name: str,
        *,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> Topic:
        """Any thread: return the topic with a name; the first call creates the topic.

        A topic keeps its latest events for clients that reconnect. A topic is deleted when it has
        no subscribers and all of its events have expired, or when very many other topics have been
        used since. Its next events then have new ids. A configuration that is set before the app
        starts is permanent; a later one is deleted with the topic.

        Args:
            name: any text of at most 1,024 bytes in UTF-8. A handler that gets names from clients
                must check them.
            history: maximum number of events that are kept (256).
            max_bytes: maximum size of these events, in bytes (1 MiB). The same amount may wait for
                a slow client. The topic uses at most three times this memory plus 8 MiB. So it may
                keep fewer than ``history`` events if they are very small.
            max_age: maximum age of these events, in seconds (300).
            policy: treatment of clients that are slower than these limits permit. "disconnect", the
                default, closes a WebSocket with 1013, and ends an event stream, whose client
                reconnects and receives the rest. "drop-oldest" drops the oldest events and sends
                the client a notice of the gap. "latest" keeps only the newest event of each
                ``key``, so that a client never lags further, and a new client can begin with these
                events.

        Raises:
            ValueError: the name is too long or contains a lone surrogate, which cannot be encoded
                as UTF-8; a number is negative; the policy is unknown; or "latest" is set after
                events were published.
        """
        return self._topics.get(name, history, max_bytes, max_age, policy)

    def share_topics(self, redis: str, prefix: str = REDIS_PREFIX) -> None:
        """Store the topics' logs in a Redis; this must be called before any topic is used.

        The arguments are ``redis`` and ``redis_prefix`` of :class:`App`.
        """
        from .topics.redis.streams import RedisStreams

        self._topics.share(RedisStreams(redis, prefix, self._timing, self._topic_sizes))

    def limit_topics(self, memory: int) -> None:
        """Any thread: limit the memory of all logs to a number of bytes.

        The argument is ``topic_memory`` of :class:`App`.

        Raises:
            ValueError: the number is not positive.
        """
        if memory <= 0:
            raise ValueError(f"topic_memory must be positive: {memory!r}")
        self._topics.memory = memory

    def use_clock(self, clock: Callable[[], float]) -> Callable[[], float]:
        """Any thread, while no server runs: replace the clock that times deadlines and ages.

        This method is for tests. All topics, and all servers that start later, use the new clock.
        The connection to Redis, if any, continues to use the previous clock.

        Returns:
            The previous clock.

        Raises:
            RuntimeError: a server of the app is running.
        """
        if any(server.running for server in self._servers):
            raise RuntimeError("cannot replace the clock: stop the server first")
        previous = self._timing.clock
        self._timing = replace(self._timing, clock=clock)
        self._topics.use_timing(self._timing)
        return previous

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Any thread: wait until Redis, if it is used, has acknowledged all published events.

        Raises:
            BrokerUnavailable: some events are not acknowledged after ``timeout`` seconds.
            EventsLost: Redis has rejected events since the last call.
        """
        shared = self._topics.shared
        if not shared.flush(timeout):
            reason = shared.trouble or f"no acknowledgement for {timeout} seconds"
            raise BrokerUnavailable(f"published events were not acknowledged by Redis: {reason}")

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Any thread: send all published events to Redis, and close the connections to it.

        The last server that stops calls this method, and so does the exit of the program. A program
        that only publishes should call it to receive an error, because an error at the exit is only
        printed.

        Raises:
            RuntimeError: a server of the app is running.
            EventsLost: Redis has rejected events, or has not acknowledged them in time.
        """
        if any(server.running for server in self._servers):
            raise RuntimeError("cannot close the app: stop its server first")
        self._topics.end_once(timeout)
        self._topics.shared.close(timeout)
        background.close()

    def stats(self) -> Stats:
        """Any thread: return the statistics of the app's topics and servers in this process."""
        return self._stats_of(server for server in self._servers if server.running)

    def connections(self) -> list[ConnectionInfo]:
        """Any thread: return the open WebSockets and event streams of this process.

        The call takes some microseconds for each, and pauses often, so that it delays no loop.
        """
        running = (server for server in self._servers if server.running)
        return [info for server in running for info in server.connections()]

    def close_identity(
        self,
        identity: Identity,
        *,
        code: int = CloseCode.POLICY_VIOLATION,
        reason: str = "",
    ) -> None:
        """Any thread: close all WebSockets and event streams of a user, in all processes.

        Use it when a session ends or a user is banned. End the session *before* the call, so that
        ``authorize``, or the application's own check, refuses the clients that reconnect. A request
        that has arrived before the call and is answered after it is refused with 403. If its
        process receives the closing later, the connection is closed then.

        A WebSocket is closed with the code and the reason. An event stream ends for good: its
        client reconnects at most once, and receives 204. Many connections are closed in steps,
        between which the loop serves others. The call returns at once.

        The closing reaches the other workers, and over Redis all processes. A process that has lost
        its connection to Redis receives it after it has reconnected, up to five minutes later. It
        closes all connections that are open when it arrives.

        Args:
            identity: the text, the number or the UUID that names the user: the value that
                ``authorize`` has returned, or that :meth:`WebSocket.identify` was called with, or
                the argument ``identity`` of a response. A number is the same as its text.
            code: the close code of WebSockets.
            reason: the close reason, of at most 123 bytes in UTF-8.

        Raises:
            BrokerUnavailable, BrokerRefused: the connections of this process are closed, and Redis
                does not accept the closing for the others.
            TypeError: the identity has another type.
            ValueError: the identity is empty or too long, the code must not be sent, or the reason
                is too long.
        """
        check_close(code, reason)
        self._topics.closings.close(check_identity(identity), int(code), reason)

    def _add_server(self, server: Server) -> None:
        """Any thread: add a started server to the list, and remove stopped servers."""
        self._servers = [*(other for other in self._servers if other.running), server]

    def _stats_of(self, servers: Iterable[Server]) -> Stats:
        return replace(
            total(server.stats() for server in servers),
            processes=1,
            topics=len(self._topics),
            published=self._topics.published,
            dropped_events=self._topics.dropped,
            lost_log_records=background.lost.total(),
        )

"""The application: its routes and topics, and how it is served."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from .dispatch.routes import MetricsRoute
from .logs.stderr import configure_by_default
from .reports.loggers import background
from .reports.stats import Stats, encode, total
from .routing import Routing
from .running import run
from .server import Server
from .settings import Settings
from .sockets.listener import bind
from .sockets.unix import UnixFile
from .timing import Timing
from .topics.errors import BrokerUnavailable
from .topics.registry import MEMORY, Topics
from .topics.sizes import Sizes
from .topics.state import Policy
from .topics.topic import Topic
from .workers.worker import MetricsCallback, SupervisorLink

# The address that :meth:`App.run` and the command line listen on by default.
HOST, PORT = "localhost", 9292
# The default prefix of an app's keys in Redis.
REDIS_PREFIX = "wsframe:"
# Seconds to wait for the acknowledgement of published events.
FLUSH_TIMEOUT = 5.0

Function = TypeVar("Function", bound=Callable[[], object])


class App(Routing):
    """An application: its routes, its topics, and how they are served.

    Routes are added before the app starts, by one thread. A path may have parameters in braces,
    ``"/rooms/{room}"``; a handler gets each as a keyword argument. If several paths match, a path
    without parameters has precedence, then the order of registration decides. An upgrade request
    goes to the first WebSocket among them, any other request to the first page or event stream.

    Args:
        redis: URL of a Redis 6.2 or newer that stores the logs of topics, such as
            redis://user:password@host:6379/0. All processes with the same URL and prefix share
            them. It may also be rediss://... for TLS, or unix:///path. None keeps the logs in this
            process.
        redis_prefix: prefix of the names of all keys and channels in Redis. Apps with the same
            prefix in the same database share their topics. It has 1 to 64 of the characters A-Z,
            a-z, 0-9 and ``._:/-``.
        topic_memory: maximum memory for the logs of all topics in this process, in bytes. When it
            is exceeded, a new event reduces its topic to an equal share of the memory. Topics with
            smaller logs are not affected.
        timing: the durations that no setting changes, and the clock; for tests.
        topic_sizes: the sizes of topics that no setting changes; for tests.

    Raises:
        ModuleNotFoundError: redis-py is not installed.
        ValueError: the URL or the prefix is not valid, or ``topic_memory`` is not positive.
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
        if topic_memory <= 0:
            raise ValueError(f"topic_memory must be positive: {topic_memory!r}")
        self._on_start: list[Callable[[], object]] = []
        self._servers: list[Server] = []
        self._link: SupervisorLink | None = None  # None outside a worker
        self._timing = timing or Timing()
        self._topic_sizes = topic_sizes or Sizes()
        super().__init__(Topics(self._timing, topic_memory, self._topic_sizes))
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
        """Any thread: return the topic of this name, which is created at its first use.

        A topic keeps its latest events for clients that reconnect. It is forgotten when it has no
        subscribers and all of its events have expired, or when very many other topics have been
        used since. Its next events then have new ids. A configuration that is set before the app
        starts is permanent; a later one is forgotten with the topic.

        Args:
            name: any text of at most 1,024 bytes in UTF-8. A handler that gets names from clients
                must check them.
            history: maximum number of events that are kept (256).
            max_bytes: maximum size of these events, in bytes (1 MiB). The same amount may wait for
                a slow client. In memory the topic takes at most three times as much, and 8 MiB. So
                it may keep fewer than ``history`` events if they are very small.
            max_age: maximum age of these events, in seconds (300).
            policy: treatment of clients that are slower than these limits permit. "disconnect", the
                default, ends an event stream, which reconnects and is sent the rest, and closes a
                WebSocket with 1013. "drop-oldest" drops the oldest events and sends the client a
                notice of the gap. "latest" keeps only the newest event of each ``key``, so that a
                client never lags further, and a new client can begin with these events.

        Raises:
            ValueError: the name is too long or contains a lone surrogate, which cannot be encoded
                as UTF-8; a number is negative; the policy is unknown; or "latest" is set after
                events were published.
        """
        return self._topics.get(name, history, max_bytes, max_age, policy)

    def share_topics(self, redis: str, prefix: str = REDIS_PREFIX) -> None:
        """Keep the topics' logs in this Redis; must be called before any topic is used.

        The arguments are ``redis`` and ``redis_prefix`` of :class:`App`.
        """
        from .topics.redis.streams import RedisStreams

        self._topics.share(RedisStreams(redis, prefix, self._timing, self._topic_sizes))

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

        The last server that stops does this, and so does the exit of the program. A program that
        only publishes should call this method to get the error: an error at exit is printed and
        does not change the exit code.

        Raises:
            RuntimeError: a server of the app is running.
            EventsLost: Redis has rejected events, or has not acknowledged them in time.
        """
        if any(server.running for server in self._servers):
            raise RuntimeError("cannot close the app: stop its server first")
        self._topics.shared.close(timeout)
        background.close()

    def on_start(self, function: Function) -> Function:
        """Call a function wherever the app is served, before the first connection; a decorator.

        The function starts things that run beside the server, such as a thread that fills a queue.
        It is called without arguments in every process that serves: in the thread that called
        :meth:`start` or :meth:`run`, or in a worker's main thread. An exception ends the start.

        Raises:
            RuntimeError: the app has been started.
            TypeError: the function is a coroutine function.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError("a function for on_start must not be a coroutine function")
        self._routes.check_not_frozen()
        self._on_start.append(function)
        return function

    def metrics(self, path: str = "/metrics") -> None:
        """Answer a path with :meth:`stats` in the OpenMetrics format, which Prometheus reads.

        Each of several workers answers for all of them. A worker that does not answer the others
        within a second counts as missing, and its last numbers are used. The counters of workers
        that have ended are kept. A topic counts once for each worker that uses it.

        The metrics are public unless a proxy restricts access to the path.

        Raises:
            ValueError: the path is malformed or taken.
            RuntimeError: the app has been started; its routes cannot be changed.
        """
        self._routes.add(path, MetricsRoute(self._request_metrics))

    def _request_metrics(self, callback: MetricsCallback) -> None:
        """Any thread: call the callback with the metrics, at once or later."""
        if self._link is None:
            callback(encode(self.stats()))
        else:
            self._link.request(callback)

    def stats(self) -> Stats:
        """Any thread: return the statistics of the app's topics and servers in this process."""
        return self._stats_of(server for server in self._servers if server.running)

    def _stats_of(self, servers: Iterable[Server]) -> Stats:
        return replace(
            total(server.stats() for server in servers),
            processes=1,
            topics=len(self._topics),
            published=self._topics.published,
            dropped_events=self._topics.dropped,
            lost_log_records=background.lost.total(),
        )

    def start(self, host: str = HOST, port: int = 0, **options: Any) -> Server:
        """Start a server in threads of its own; return when it accepts connections.

        Args:
            host: name or address to listen on; a name means all of its addresses; "" means all
                interfaces.
            port: port to listen on; 0 for a free one.
            **options: the fields of :class:`wsframe.server.Settings`.

        Raises:
            OSError: the host is unknown, the port or the unix socket is in use, or a file is
                missing or invalid.
            TypeError: an option does not exist.
            ValueError: the value of an option is not valid.
            BrokerRefused: Redis does not support what topics require.
        """
        return serve(self, host, port, Settings(**options))

    def run(self, host: str = HOST, port: int = PORT, *, workers: int = 0, **options: Any) -> None:
        """Serve until SIGINT (Ctrl-C) or SIGTERM; a second signal forces the end with exit code 1.

        A signal during the functions of :meth:`on_start` ends them with an exception that is not an
        ``Exception``; then this method returns.

        This method raises the process's limit of open files to the maximum that the system permits.
        It logs to standard error, unless the program has configured :mod:`logging`. When the server
        stops, clients are closed over most of ``drain``; see :meth:`Server.stop`.

        It must be called in the main thread, where Python runs signal handlers.

        Args:
            host: as for :meth:`start`.
            port: as for :meth:`start`.
            workers: number of processes that share the port, each replaced when it ends; 0 to serve
                in this process. They are forked by this call. Threads that were started before do
                not run in them; start threads in a function of :meth:`on_start`. Each worker has
                its own copy of all objects, so an item that this process puts on a queue reaches no
                worker.
            **options: as for :meth:`start`.

        Raises:
            OSError: as for :meth:`start`; or this system does not support workers.
            TypeError, ValueError: as for :meth:`start`.
            RuntimeError: this is not the main thread.
            SystemExit: no worker could be started, or a second signal has forced the end.
        """
        settings = Settings(**options)
        configure_by_default()
        run(partial(serve, self), host, port, workers, settings)


def serve(
    app: App,
    host: str,
    port: int,
    settings: Settings,
    *,
    link: SupervisorLink | None = None,
    interrupting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Server:
    """Start a server of an app; the arguments are as for ``running.StartServer``."""
    app._routes.freeze()
    app._topics.fix()
    file = None
    if settings.unix is None:
        sockets = bind(host, port, shared=link is not None)
    else:
        host, file = "", UnixFile(settings.unix, settings.unix_mode, settings.unix_group)
        sockets = [file.sock]
    try:
        with interrupting():
            for function in app._on_start:
                function()
        server = Server(app._routes, host, sockets, settings, app._topics, app._timing, file)
        app._servers = [*(other for other in app._servers if other.running), server]
        app._link = link
        if link is not None:
            link.attach(server, lambda: app._stats_of([server]))
        return server
    except BaseException:
        if file is not None:
            file.remove()
        for sock in sockets:
            sock.close()
        raise

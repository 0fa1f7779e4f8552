"""App: what answers on which path, and how it is started."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from queue import Queue
from typing import Any, Literal, TypeVar, overload

from wsframe import PerMessageDeflate
from wsframe.connection import check_max_message_size
from wsframe.fields import check_field
from wsframe.handshake import check_choices
from wsframe.origins import check_origins

from .dispatch.routes import Authorize, EventRoute, MetricsRoute, PageRoute, Routes, WebSocketRoute
from .http.paths import Path
from .logs.stderr import configure_by_default
from .reports.loggers import background
from .reports.stats import Stats, encode, total
from .running import run
from .server import Server
from .settings import Settings
from .sockets.listener import bind
from .sockets.unix import UnixFile
from .timing import Timing
from .topics.errors import BrokerUnavailable
from .topics.registry import MEMORY, Topics
from .topics.sources import check_source
from .topics.state import Policy
from .topics.topic import Topic
from .workers.worker import MetricsCallback, SupervisorLink

# Compression that keeps nothing between two messages, so that an idle connection costs nothing.
WITHOUT_CONTEXT = PerMessageDeflate(
    server_no_context_takeover=True, client_no_context_takeover=True
)

# What the keys of an app in Redis begin with.
REDIS_PREFIX = "wsframe:"

Function = TypeVar("Function", bound=Callable[[], object])
Handler = TypeVar("Handler", bound=Callable[..., Any])


class App:
    """The routes of an application.

    They are added before it is started, by one thread. A path may have parameters in braces,
    ``"/rooms/{room}"``; a handler gets each as a keyword argument. Where several paths match, one
    without parameters comes first, then the others in the order in which they were added. An
    upgrade request goes to the first WebSocket among them, any other request to the first page or
    event stream.

    Args:
        redis: where the topics' logs are, so that several processes share them: the URL of a Redis
            6.2 or newer, as in "redis://user:password@host:6379/0", "rediss://..." for TLS,
            "unix:///path". None for logs in this process, which need nothing.
        redis_prefix: what the names of all keys and channels begin with there ("wsframe:"). Apps
            with the same prefix in the same database share their topics. It has 1 to 64 of the
            characters A-Z, a-z, 0-9 and ``._:/-``.
        topic_memory: how many bytes of memory the logs of all topics may take in this process. Past
            it, a topic that is published to keeps no more than its share, equal for all topics in
            use; those that have less are not affected.
        timing: the durations that no setting changes, and the clock; for tests.

    Raises:
        ModuleNotFoundError: redis-py is needed, and not installed.
        ValueError: the URL is none of these, or the prefix is not allowed, or ``topic_memory`` is
            not positive.
    """

    def __init__(
        self,
        *,
        redis: str | None = None,
        redis_prefix: str = REDIS_PREFIX,
        topic_memory: int = MEMORY,
        timing: Timing | None = None,
    ) -> None:
        if topic_memory <= 0:
            raise ValueError(f"topic_memory must be positive: {topic_memory!r}")
        self._routes = Routes()
        self._on_start: list[Callable[[], object]] = []
        self._servers: list[Server] = []
        self._link: SupervisorLink | None = None  # of a worker
        self._timing = timing or Timing()
        self._topics = Topics(self._timing, topic_memory)
        if redis is not None:
            self.share_topics(redis, redis_prefix)

    def websocket(
        self,
        path: str,
        *,
        subprotocols: Sequence[str] = (),
        origins: Sequence[str] | Literal["*"] = (),
        max_message_size: int = 1 << 20,
        deflate: PerMessageDeflate | bool = False,
        blocking: bool | None = None,
        authorize: Authorize | None = None,
    ) -> Callable[[Handler], Handler]:
        """Register the handler of a path's WebSockets, ``handler(ws, **parameters)``; a decorator.

        A plain function gets a thread of its own. A generator function waits at ``yield``, which
        holds no thread. Between two waits it runs on the I/O loop's thread, or, if it blocks, in
        another: what is bound to a thread lives from one ``yield`` to the next, and handlers of
        different connections may run at the same time. When a handler returns, the connection is
        closed with 1000; when it raises, with 1011.

        Args:
            path: begins with a slash.
            subprotocols: those that the handler speaks; the client's first that is among them is
                agreed on.
            origins: the web sites whose pages may connect besides the server's own, as in
                "https://example.com"; "*" for all. Each must be just what browsers send: scheme
                and host in lower case, without a path, and without the scheme's own port. Other
                schemes than http and https match only if they are named here.
            max_message_size: the most bytes that a client's message may have.
            deflate: whether messages may be compressed, for clients that can. True keeps nothing
                between two messages, at either end; a PerMessageDeflate says it in detail. A
                context that is kept compresses better, and takes some 300 KiB a connection.
            blocking: True for a generator that blocks at nearly every message, which then never
                begins on the loop; False for one that never does, whatever was seen of others of
                the route. By default that is learned. A plain function has a thread anyway.
            authorize: called with the :class:`Request` before it is answered, and may block. What
                it returns becomes ``request.identity``; if that is false, the answer is 403. It may
                raise :class:`wsframe.HandshakeError` for another answer.

        Raises:
            ValueError: the path is malformed or taken, the size is not positive, a subprotocol
                is not a token, or an origin can never match.
            RuntimeError: the app has been started; its routes are fixed then.
            TypeError: the handler does not take these arguments, or is a coroutine function; or
                subprotocols or origins are one ``str`` instead of a sequence of them.
        """
        check_choices(subprotocols, origins)
        check_max_message_size(max_message_size)
        settings = WITHOUT_CONTEXT if deflate is True else deflate or None

        def register(handler: Handler) -> Handler:
            _check_handler(handler, path)
            route = WebSocketRoute(
                path,
                handler,
                tuple(subprotocols),
                origins,
                max_message_size,
                settings,
                blocking,
                authorize,
            )
            self._routes.add(path, route)
            return handler

        return register

    @overload
    def sse(
        self,
        path: str,
        *,
        origins: Sequence[str] | Literal["*"] = (),
        compress: bool = False,
        blocking: bool | None = None,
        authorize: Authorize | None = None,
    ) -> Callable[[Handler], Handler]: ...

    @overload
    def sse(
        self,
        path: str,
        source: Topic | Queue[Any] | Iterable[Any],
        *,
        origins: Sequence[str] | Literal["*"] = (),
        compress: bool = False,
        authorize: Authorize | None = None,
    ) -> None: ...

    def sse(
        self,
        path: str,
        source: Topic | Queue[Any] | Iterable[Any] | None = None,
        *,
        origins: Sequence[str] | Literal["*"] = (),
        compress: bool = False,
        blocking: bool | None = None,
        authorize: Authorize | None = None,
    ) -> Callable[[Handler], Handler] | None:
        """Register a path's event streams.

        With a ``source``, every client is subscribed to a topic: that :class:`Topic`, or one of the
        path's own that is fed from a queue or another iterable by one thread, while the app is
        served: a ServerSentEvent as it is, a ``str`` as data, anything else as JSON. A client that
        comes back is sent what it has missed; a new one begins with what comes next.

        Without, a decorator for a handler, ``handler(stream, **parameters)``. A generator function
        yields such items, and has a thread of its own. When it returns, it has said all, and the
        stream ends for good; when it raises, or calls ``stream.close()`` before it returns, the
        client comes back, and it begins again. A plain function sends items with ``stream.send``,
        and the stream stays open after it; it gets one of the ``max_threads`` for as long as it
        blocks, so one that runs as long as its stream should be a generator. Either learns that its
        client has left when it sends. A generator that waits for an item of a queue calls
        ``stream.get(queue)``, which ends then, too; any other wait needs a time-out, and a look at
        ``stream.closed``.

        ``origins``, ``blocking`` and ``authorize`` are as for :meth:`websocket`. A page of another
        site that ``origins`` admits may read the streams, and set headers (CORS); its browser sends
        cookies along, if the page asks for that, where ``origins`` names the site.

        ``compress`` is for clients that take gzip, as all browsers do. Each event is compressed by
        itself, once for all clients, and is read as soon as it is there.

        Raises:
            ValueError: the path is malformed or taken, or an origin can never match.
            RuntimeError: the app has been started; its routes are fixed then.
            TypeError: the handler does not take these arguments, or is a coroutine function; or
                the source is nothing that can be one; or origins are one ``str`` instead of a
                sequence of them.
        """
        check_origins(origins)
        if source is not None:
            # Routes that share a queue share its topic.
            known = source if isinstance(source, Topic) else self._topics.fed_by(source)
            if known is None:
                check_source(source)
            topic = known or self._topics.unnamed(path)
            route = EventRoute(path, None, topic, origins, compress, None, authorize)
            self._routes.add(path, route)
            if known is None:
                self._topics.feed(source, self._topics.find(topic))
            return None

        def register(handler: Handler) -> Handler:
            _check_handler(handler, path)
            route = EventRoute(path, handler, None, origins, compress, blocking, authorize)
            self._routes.add(path, route)
            return handler

        return register

    def page(
        self, path: str, body: str | bytes, *, content_type: str = "text/html; charset=utf-8"
    ) -> None:
        """Answer a path with a fixed page.

        Raises:
            ValueError: the path is malformed or taken, or the content type cannot be a header.
            RuntimeError: the app has been started; its routes are fixed then.
        """
        check_field("Content-Type", content_type)
        encoded = body.encode() if isinstance(body, str) else bytes(body)
        self._routes.add(path, PageRoute(encoded, content_type))

    def topic(
        self,
        name: str,
        *,
        history: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        policy: Policy | None = None,
    ) -> Topic:
        """Any thread: the topic of this name, for publishing; it exists as soon as it is named.

        A topic remembers its latest events, so that clients can come back for what they have
        missed. It is forgotten when nobody has been subscribed to it, or published, for so long
        that all of its events are too old, or when very many others have been used since: its next
        events have ids that no client has seen. What is configured before the app is started stays;
        later, a configuration is forgotten with the topic.

        Args:
            name: any text of at most 1,024 bytes in UTF-8; a handler that takes names from clients
                says which are allowed.
            history: how many events are kept (256).
            max_bytes: how many bytes of them (1 MiB). As much may wait for a slow client. In memory
                the topic takes at most three times as much, and 8 MiB: of very small events it may
                keep fewer than ``history``.
            max_age: how old they may be, in seconds (300).
            policy: what becomes of a client that is slower than that. By default "disconnect": an
                event stream is cut off, and comes back for the rest by itself; a WebSocket is
                closed with 1013. With "drop-oldest" it misses the oldest events, and is told of the
                gap. With "latest" only the newest event of each ``key`` is kept at all, so that a
                client is never further behind than that, and a new one can begin with them.

        Raises:
            ValueError: UTF-8 has no form for the name, or it is too long; a number is negative, the
                policy is unknown, or "latest" comes too late for what was published.
        """
        return self._topics.get(name, history, max_bytes, max_age, policy)

    def share_topics(self, redis: str, prefix: str = REDIS_PREFIX) -> None:
        """Keep the topics' logs in this Redis; before any of them is used, as :class:`App` says."""
        from .topics.redis.streams import RedisStreams

        self._topics.share(RedisStreams(redis, prefix, self._timing))

    def flush(self, timeout: float = 5.0) -> None:
        """Any thread: wait until Redis has all that was published before; without Redis, return.

        Raises:
            BrokerUnavailable: some of it still waits for Redis after ``timeout`` seconds.
            EventsLost: Redis has refused events since the last call.
        """
        shared = self._topics.shared
        if not shared.flush(timeout):
            reason = shared.trouble or f"Redis has not acknowledged all in {timeout} seconds"
            raise BrokerUnavailable(f"published events still wait for Redis: {reason}")

    def close(self, timeout: float = 5.0) -> None:
        """Any thread: have what was published sent to Redis, and let go of it.

        The last server that stops does this, and so does the end of the program. A program that
        only publishes calls it to get the error: one that is raised while the program ends is
        printed, and does not change its exit code.

        Raises:
            RuntimeError: a server of the app runs.
            EventsLost: Redis has refused events, or has not acknowledged them in time.
        """
        if any(server.running for server in self._servers):
            raise RuntimeError("a server of the app runs: stop it first")
        self._topics.shared.close(timeout)
        background.close()

    def on_start(self, function: Function) -> Function:
        """Have a function called wherever the app is served, before it takes connections.

        A decorator. The function starts what lives beside the server, such as a thread that fills a
        queue. It is called without arguments in every process that serves, in the thread that
        called :meth:`start` or :meth:`run`, or a worker's main one. What it raises ends the start.

        Raises:
            RuntimeError: the app has been started.
            TypeError: it is a coroutine function.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError("what is called on start must be a plain function")
        self._routes.check_not_frozen()
        self._on_start.append(function)
        return function

    def metrics(self, path: str = "/metrics") -> None:
        """Answer a path with :meth:`stats` in the format of OpenMetrics, which Prometheus reads.

        Each of several workers answers for all of them. A worker that does not answer the others
        within a second counts as missing, and its last numbers stand for it. The counters of
        workers that have ended are kept. A topic counts once for each worker that knows of it.

        It is a route like any, so that it is there if it is asked for, and where. Whoever may not
        read the numbers must be kept off it by a proxy.

        Raises:
            ValueError: the path is malformed or taken.
            RuntimeError: the app has been started; its routes are fixed then.
        """
        self._routes.add(path, MetricsRoute(self._request_metrics))

    def _request_metrics(self, callback: MetricsCallback) -> None:
        """Any thread: call this with the metrics, at once or later."""
        if self._link is None:
            callback(encode(self.stats()))
        else:
            self._link.request(callback)

    def stats(self) -> Stats:
        """Any thread: what the app's servers in this process, and its topics, have done and do."""
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

    def start(self, host: str = "localhost", port: int = 0, **options: Any) -> Server:
        """Start a server in threads of its own, and return when it accepts connections.

        Args:
            host: the name or address to listen on, with all addresses that it has; "" for every
                interface.
            port: 0 for one that is free.
            **options: the fields of :class:`wsframe.server.Settings`.

        Raises:
            OSError: the host is unknown, or the port or the unix socket is taken, or a file is
                missing or wrong.
            TypeError: there is no such option.
            ValueError: an option's value makes no sense.
            BrokerRefused: the topics cannot be kept in their Redis.
        """
        return serve(self, host, port, Settings(**options))

    def run(
        self, host: str = "localhost", port: int = 9292, *, workers: int = 0, **options: Any
    ) -> None:
        """Serve until SIGINT (Ctrl-C) or SIGTERM; a second one forces the end, with exit code 1.

        One that comes while functions of :meth:`on_start` run ends these, by an exception that is
        no ``Exception``, and this method returns.

        From here on the process may have as many files as the system allows it, and the log goes to
        standard error, unless the program has configured :mod:`logging`. Clients are told
        that the server stops over most of ``drain``; see :meth:`Server.stop`.

        To be called in the main thread, where Python runs signal handlers.

        Args:
            host: as in :meth:`start`.
            port: as in :meth:`start`.
            workers: how many processes of their own to serve in, which share the port; one that
                dies is replaced. They are forked here and now: a thread that was started before
                does not live in them, which is what :meth:`on_start` is for; and each has its own
                copy of everything, so that what is put on a queue here reaches nobody.
            **options: as in :meth:`start`.

        Raises:
            OSError: as :meth:`start`; or this system cannot have workers.
            TypeError, ValueError: as :meth:`start`.
            RuntimeError: this is not the main thread.
            SystemExit: no worker could be started, or they were forced to end.
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
    """Start a server of an app; the arguments are those of ``running.StartServer``."""
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


def _check_handler(handler: Callable[..., Any], path: str) -> None:
    """Find out now, not when the first client comes, whether the handler can be called."""
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        raise TypeError(f"the handler of {path!r} must be a plain or a generator function")
    parameters = dict.fromkeys(Path(path).parameters, "")
    try:
        inspect.signature(handler).bind(None, **parameters)
    except TypeError as error:
        wanted = ", ".join(("the connection", *parameters))
        raise TypeError(f"the handler of {path!r} must take {wanted}: {error}") from None

"""Live: WebSockets and event streams inside a WSGI application."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from logging import WARNING
from typing import Any, TypeVar, Unpack

from wsframe import HandshakeError, PerMessageDeflate
from wsframe.fields import Fields
from wsframe.headers import Headers, pairs
from wsframe.origins import check_origins

from ..server.dispatch.routes import Routes, check_handler
from ..server.forks import recreate_in_children
from ..server.headers import layered
from ..server.hosts import Hosts
from ..server.http.answers import report
from ..server.http.host_policy import HostPolicy
from ..server.http.proxies import Proxies
from ..server.http.refusals import VALUE
from ..server.http.request import Request
from ..server.options import CommonOptions, ServerOptions
from ..server.reports.refusals import Refusals
from ..server.reports.stats import CONTENT_TYPE, Stats, encode, total
from ..server.reports.text import printable
from ..server.reports.throttled import ThrottledLog
from ..server.server import Server
from ..server.service import REDIS_PREFIX, Service
from ..server.settings import Settings
from ..server.sockets.admission import max_files
from ..server.sockets.identities import Identity
from ..server.sockets.listening import Listening
from ..server.timing import Timing
from ..server.topics.registry import MEMORY
from ..server.topics.sizes import Sizes
from ..server.topics.topic import Topic
from . import flask_views
from .advice import Advice
from .application import Application
from .environ import Environ, Pairs, StartResponse, address_of, request_of
from .handlers import Handlers, Origins, checked_options
from .process import ProcessServer
from .replies import Answer, Reply
from .siblings import Siblings

# Settings that do not apply, because the WSGI server accepts connections and starts processes.
NOT_APPLICABLE = ServerOptions.__optional_keys__ - CommonOptions.__optional_keys__

# The fraction of the open-file limit for connections that are taken over. At the limit, servers
# such as gunicorn exit with an error.
SHARE_OF_FILES = 0.75

# The number of the next Live. All processes load the same program, so a Live has the same number in
# each of them.
numbers: Iterator[int] = itertools.count()

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Live(Service):
    """WebSockets and event streams for a WSGI application, in its own processes.

    A view checks its request as usual, and returns :meth:`websocket` or :meth:`events`, which are
    WSGI applications. The connection is then taken from the WSGI server, and served by a loop of
    its own, so that it uses no thread of that server. The loop of a process starts with the first
    connection. When the process ends, WebSockets are closed with 1001 over most of ``drain``.

    >>> live = Live()
    >>> def echo(ws):
    ...     while True:
    ...         message = yield
    ...         ws.send(message)
    >>> application = live.websocket(echo)

    Args:
        redis: as for :class:`wsframe.server.App`; required if several processes share topics.
        redis_prefix: as for :class:`wsframe.server.App`.
        topic_memory: as for :class:`wsframe.server.App`.
        origins: other web sites whose pages may connect, for topics and for handlers without
            this option; see :meth:`handler`.
        timing: as for :class:`wsframe.server.App`.
        topic_sizes: as for :class:`wsframe.server.App`.
        **settings: fields of :class:`wsframe.server.Settings`, except settings of listening
            sockets, TLS and worker processes. ``hosts`` is "*" by default, because the application
            decides which hosts it serves. ``max_connections`` is three quarters of the open-file
            limit by default, because the WSGI server needs files as well.

    Raises:
        ModuleNotFoundError: redis-py is not installed.
        TypeError: a setting does not exist or does not apply, or origins are one ``str``.
        ValueError: a value is not valid.
    """

    # The place of the setting origins, for the log.
    origins_setting: str = "the origins of Live or of the handler"

    def __init__(
        self,
        *,
        redis: str | None = None,
        redis_prefix: str = REDIS_PREFIX,
        topic_memory: int = MEMORY,
        origins: Origins = (),
        timing: Timing | None = None,
        topic_sizes: Sizes | None = None,
        **settings: Unpack[CommonOptions],
    ) -> None:
        super().__init__(timing=timing, topic_sizes=topic_sizes)
        self._handlers = Handlers()
        self._refusals = Refusals()
        self._not_taken = ThrottledLog()
        self._process = ProcessServer(self._start, self.stop)
        self.configure(
            redis=redis,
            redis_prefix=redis_prefix,
            topic_memory=topic_memory,
            origins=origins,
            **settings,
        )
        self._siblings = Siblings(
            next(numbers), self._process_stats, self._timing, self._topics.closings.receive_message
        )
        self._topics.closings.forward = self._siblings.send_closing
        self._advice = Advice(self._has_local_topics)
        self.after_fork()
        recreate_in_children(self)

    def after_fork(self) -> None:
        """The child of a fork, and at the beginning: make new locks, and forget the parent."""
        self._refusing = threading.Lock()  # protects self._refusals
        for part in (self._handlers, self._siblings, self._advice):
            part.after_fork()

    # For applications -------------------------------------------------------------------------

    def handler(
        self,
        *,
        subprotocols: Sequence[str] = (),
        origins: Origins | None = None,
        deflate: PerMessageDeflate | bool = False,
        max_message_size: int = 1 << 20,
        blocking: bool | None = None,
        headers: Headers = (),
        heartbeat_event: str | None = None,
    ) -> Callable[[Handler], Handler]:
        """Set the options of a handler; a decorator.

        The options are those of :meth:`wsframe.server.App.websocket`. Event streams use only
        ``origins``, ``blocking``, ``headers`` and ``heartbeat_event``. They must not depend on the
        request, because each set of options is kept, with a quota and a blocking profile of its
        own.

        Args:
            subprotocols: supported subprotocols.
            origins: other web sites whose pages may connect; None for those of :class:`Live`.
            deflate: True or a PerMessageDeflate to permit compression.
            max_message_size: maximum size of a received message, in bytes.
            blocking: True for a generator that blocks at nearly every message; False for one that
                never blocks.
            headers: headers of the 101, or of the 200 of an event stream. Headers of the view's
                response, such as cookies, take precedence.
            heartbeat_event: type of the event that a silent event stream sends, as for
                :meth:`wsframe.server.App.sse`; without effect if the setting ``heartbeat`` is 0.

        Raises:
            ValueError: the size is not positive, a subprotocol is not a token, or an origin can
                never match; or the server sets a header itself, or its name or value is not valid.
            TypeError: subprotocols or origins are one ``str`` instead of a sequence.
        """
        options = checked_options(
            subprotocols=subprotocols,
            origins=origins,
            deflate=deflate,
            max_message_size=max_message_size,
            blocking=blocking,
            headers=headers,
            heartbeat_event=heartbeat_event,
        )

        def register(handler: Handler) -> Handler:
            self._handlers.set(handler, options)
            return handler

        return register

    def websocket(
        self, handler: Callable[..., Any], /, *, identity: Identity | None = None, **arguments: Any
    ) -> Any:
        """Any thread: return a WSGI application that opens WebSockets for a handler.

        Args:
            handler: a plain or a generator function, as for :meth:`wsframe.server.App.websocket`;
                it is called with the WebSocket and the arguments.
            identity: the text, number or UUID of the user, by which :meth:`close_identity` finds
                the connections; None for no identity. It becomes ``request.identity``.
            **arguments: the arguments.

        Raises:
            TypeError: the handler does not accept these arguments or is a coroutine function.
        """
        check_handler(handler, arguments)
        route = self._handlers.websocket(handler)
        return self.respond(Application(self, route, handler, None, arguments, identity))

    def events(
        self,
        source: Topic | Callable[..., Any],
        /,
        *,
        identity: Identity | None = None,
        **arguments: Any,
    ) -> Any:
        """Any thread: return a WSGI application that opens event streams.

        Args:
            source: a topic, to which each client is subscribed; or a handler, as for
                :meth:`wsframe.server.App.sse`, which is called with the stream and the arguments.
            identity: the text, number or UUID of the user, by which :meth:`close_identity` finds
                the connections; None for no identity. It becomes ``request.identity``.
            **arguments: the arguments of the handler.

        Raises:
            TypeError: the handler does not accept these arguments or is a coroutine function; or
                there are arguments for a topic.
        """
        if isinstance(source, Topic):
            if arguments:
                raise TypeError(f"a topic has no arguments: {', '.join(arguments)}")
            route = self._handlers.stream(None)
            return self.respond(Application(self, route, None, source, {}, identity))
        check_handler(source, arguments)
        route = self._handlers.stream(source)
        return self.respond(Application(self, route, source, None, arguments, identity))

    def metrics(self, environ: Environ, start_response: StartResponse) -> Reply:
        """A WSGI application that replies with the statistics in the OpenMetrics format.

        On Linux, the statistics are the sums over all processes of the WSGI server. A process that
        does not answer within a second is counted as missing. Each process counts the topics that
        it uses.
        """
        several = environ.get("wsgi.multiprocess")
        body = encode(self._siblings.collect() if several else self.stats())
        headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
        return Answer(200, layered(headers, self.headers), body)(environ, start_response)

    def stats(self) -> Stats:
        """Any thread: return the statistics of the topics and connections in this process."""
        return self._with_refusals(super().stats())

    def stop(self, drain: float | None = None) -> None:
        """Any thread except those of wsframe: close all connections, and accept no new ones.

        WebSockets are closed with 1001, and event streams end. An exit of the process calls this
        method through :mod:`atexit`. Only a program that ends its processes otherwise must call it.

        Args:
            drain: the seconds for closing; by default the setting ``drain``. Most of this time is
                used to close the connections one by one.
        """
        self._process.stop(self._settings.drain if drain is None else drain)
        self._siblings.end()

    def reopen(self) -> None:
        """Any thread, after :meth:`stop`: accept connections again; for tests.

        Topics keep their events. The statistics of connections begin at zero.

        Raises:
            RuntimeError: :meth:`stop` was not called, and connections have been opened.
        """
        self._process.reopen()
        self._siblings.after_fork()

    # For integrations with frameworks ---------------------------------------------------------

    def configure(
        self,
        *,
        redis: str | None = None,
        redis_prefix: str = REDIS_PREFIX,
        topic_memory: int = MEMORY,
        origins: Origins = (),
        **settings: Unpack[CommonOptions],
    ) -> None:
        """Any thread, before the first connection: replace the arguments of the constructor.

        If ``redis`` is omitted, the Redis of the constructor remains in use.

        Raises:
            ModuleNotFoundError: redis-py is not installed.
            RuntimeError: connections have been opened, or a topic has events.
            TypeError: a setting does not exist or does not apply, or origins are one ``str``.
            ValueError: a value is not valid.
        """
        if self._process.server is not None:
            raise RuntimeError(
                "cannot configure this Live after its first connection; configure it before"
            )
        unusable = NOT_APPLICABLE.intersection(settings)
        if unusable:
            raise TypeError(f"settings that the WSGI server decides: {', '.join(sorted(unusable))}")
        check_origins(origins)
        settings.setdefault("hosts", ("*",))
        checked = Settings(**settings)
        self.limit_topics(topic_memory)
        if redis is not None:
            self.share_topics(redis, redis_prefix)
        self._settings = checked
        self._handlers.set_origins(origins)
        proxies = Proxies(checked.trusted_proxies)
        self._host_policy = HostPolicy(proxies, Hosts(checked.hosts), self.origins_setting)

    def respond(self, application: Application) -> Any:
        """Any thread: return the value that the calling view must return.

        In a Flask view the value is a Flask response, otherwise the application itself.
        """
        return flask_views.response_to(application) if flask_views.in_view() else application

    def bind(
        self, handler: Callable[..., Any], arguments: dict[str, Any], environ: Environ
    ) -> Callable[..., Any]:
        """The request's thread: return the function that is called with the connection.

        For a generator function, the owner of the loop calls the result, which returns a generator.
        The generator's turns run in the context of the connection. The result for a plain function
        is called in a turn or a thread, also in the context of the connection.
        """
        return partial(handler, **arguments)

    def check_origin(
        self, environ: Environ, request: Request, fields: Fields, origins: Origins
    ) -> str | None:
        """The request's thread: check the Origin of a request.

        Returns:
            The origin if it is in ``origins``; None for the same site, or without ``Origin``.

        Raises:
            HandshakeError: the origin is not allowed (403), or there is more than one (400).
        """
        return self._host_policy.check_origin(request, fields, origins)

    def check_host(self, request: Request, fields: Fields) -> Fields:
        """The request's thread: check the host, and apply the headers of trusted proxies.

        Returns:
            The headers; ``Host`` is the host that the client has addressed.

        Raises:
            HandshakeError: the host is not served (421), or a header is malformed (400).
        """
        return self._host_policy.check_host(request, fields)

    # For the WSGI applications that methods of this class return ------------------------------

    @property
    def settings(self) -> Settings:
        """Any thread: the settings of all connections."""
        return self._settings

    @property
    def headers(self) -> Pairs:
        """Any thread: the headers of every answer, from the settings."""
        return pairs(self._settings.headers)

    def server(self, environ: Environ) -> Server:
        """The request's thread: return the server of this process; start it if necessary.

        Raises:
            HandshakeError: the process is exiting, or the server cannot start (503).
        """
        server = self._process.get()
        if environ.get("wsgi.multiprocess"):
            self._siblings.begin()
        self._advice.opening(environ, server)
        return server

    def request_of(self, environ: Environ, version: str) -> tuple[Request, Fields]:
        """The request's thread: return the request of an environment, and its headers.

        Raises:
            HandshakeError: the request is malformed (400), or exceeds a limit (414, 431).
        """
        return request_of(environ, http_version=version, settings=self._settings)

    def refused(self, environ: Environ, request: Request | None, error: HandshakeError) -> None:
        """The request's thread: count and log a refusal."""
        line = f"{environ.get('REQUEST_METHOD')} {environ.get('PATH_INFO')}"
        with self._refusing:
            report(self._refusals, error, request, line=line, address=address_of(environ))

    def not_taken(self, request: Request, reason: str) -> None:
        """The request's thread: log that a connection was not taken over."""
        text = "the connection of %s was not taken over: %s"
        self._not_taken.log(WARNING, text, printable(request.path, VALUE), reason)

    def relaying(self, problem: str) -> None:
        """The request's thread: warn that an event stream holds a thread of the WSGI server."""
        self._advice.relaying(problem)

    def _start(self) -> Server:
        self._topics.fix()
        most = self._settings.max_connections or max(1, int(SHARE_OF_FILES * max_files()))
        settings = replace(self._settings, max_connections=most)
        server = Server(Routes(), Listening(), settings, self._topics, self._timing)
        self._add_server(server)
        return server

    def _process_stats(self) -> Stats:
        """Any thread: return the statistics of this process, also after the stop of its server."""
        server = self._process.server
        return self._with_refusals(self._stats_of([] if server is None else [server]))

    def _with_refusals(self, stats: Stats) -> Stats:
        refused = Stats(
            refused=dict(self._refusals.by_status), refused_for=dict(self._refusals.by_reason)
        )
        return total([stats, refused])

    def _has_local_topics(self) -> bool:
        return self._topics.shared is self._topics.local and len(self._topics) > 0

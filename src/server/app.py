"""The application: its routes and topics, and how it is served."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar, Unpack

from .dispatch.routes import Report, ReportRoute
from .logs.stderr import configure_by_default
from .options import ServerOptions
from .reports.stats import CONTENT_TYPE, encode
from .routing import Routing
from .running import activate, run
from .server import Server
from .service import REDIS_PREFIX, Service
from .settings import Settings
from .sockets.listening import Listening, listen
from .timing import Timing
from .topics.registry import MEMORY
from .topics.sizes import Sizes
from .workers.worker import SupervisorLink

# The address that :meth:`App.run` and the command line listen on by default.
HOST, PORT = "localhost", 9292

Function = TypeVar("Function", bound=Callable[[], object])


class App(Service, Routing):
    """An application: its routes, its topics, and how they are served.

    Routes are added before the app starts, by one thread. A path may have parameters in braces,
    ``"/rooms/{room}"``; a handler gets each as a keyword argument. If several paths match, a path
    without parameters has precedence, then the order of registration decides. An upgrade request
    goes to the first WebSocket among them, any other request to the first page or event stream.

    >>> app = App()
    >>> @app.websocket("/rooms/{room}")
    ... def talk(ws, room):
    ...     while True:
    ...         message = yield
    ...         ws.send(f"{room}: {message}")
    >>> with app.start() as server, connect(f"ws://localhost:{server.port}/rooms/tea") as ws:
    ...     ws.send("hello")
    ...     ws.receive()
    'tea: hello'

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
        Service.__init__(
            self,
            redis=redis,
            redis_prefix=redis_prefix,
            topic_memory=topic_memory,
            timing=timing,
            topic_sizes=topic_sizes,
        )
        Routing.__init__(self, self._topics)
        self._topics.expect_server()
        self._on_start: list[Callable[[], object]] = []
        self._link: SupervisorLink | None = None  # None outside of a worker process

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
        missing = Report(503, b"the metrics of the other processes are not available\n")
        self._routes.add(path, ReportRoute(self._request_metrics, missing))

    def health(self, path: str = "/health", *, redis: bool = False) -> None:
        """Answer a path with 200 while this process serves, and with 503 once it begins to stop.

        A stop begins ``stop_delay`` before the server refuses clients, so a load balancer that asks
        for this path can choose another server in time. The Host of the request must be one of
        ``hosts``.

        Args:
            path: the path.
            redis: True for a 503 also while Redis, which stores the topics, does not answer. The
                process still serves its clients at that time, and continues with Redis by itself.
                So such a path is for the decision to send new clients, and not for a restart.

        Raises:
            ValueError: the path is malformed or taken.
            RuntimeError: the app has been started; its routes cannot be changed.
        """
        missing = Report(503, b"Redis does not answer\n")
        self._routes.add(path, ReportRoute(partial(self._request_health, redis), missing))

    def _request_metrics(self, callback: Callable[[Report | None], object]) -> None:
        """Any thread: call the callback with the metrics, at once or later."""

        def answer(metrics: bytes | None) -> None:
            callback(None if metrics is None else Report(200, metrics, CONTENT_TYPE))

        if self._link is None:
            answer(encode(self.stats()))
        else:
            self._link.request(answer)

    def _request_health(self, redis: bool, callback: Callable[[Report | None], object]) -> None:
        """Any thread: call the callback with the health of this process, at once or later."""
        if any(server.stopping and server.running for server in self._servers):
            callback(Report(503, b"stopping\n"))
        elif redis:
            self._topics.shared.probe(
                lambda answers: callback(Report(200, b"ok\n") if answers else None)
            )
        else:
            callback(Report(200, b"ok\n"))

    def start(self, host: str = HOST, port: int = 0, **options: Unpack[ServerOptions]) -> Server:
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
        settings = Settings(**options)
        return serve(self, partial(listen, host, port, settings), settings)

    def run(
        self,
        host: str = HOST,
        port: int = PORT,
        *,
        workers: int = 0,
        **options: Unpack[ServerOptions],
    ) -> None:
        """Serve until SIGINT (Ctrl-C) or SIGTERM; a second signal forces the end with exit code 1.

        A signal during the functions of :meth:`on_start` ends them with an exception that is not an
        ``Exception``; then this method returns.

        This method raises the process's limit of open files to the maximum that the system permits.
        It logs to standard error, unless the program has configured :mod:`logging`. When the server
        stops, clients are closed over most of ``drain``; see :meth:`Server.stop`.

        Sockets that a service manager passes to the process (``LISTEN_FDS``) take the place of
        ``host``, ``port`` and ``unix``. The manager is notified (``NOTIFY_SOCKET``) when the server
        is ready and when it stops, and of its progress (``WATCHDOG_USEC``).

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
        settings = activate(Settings(**options))
        self._topics.fix()  # also in the parent of workers
        configure_by_default()
        run(partial(serve, self), host, port, workers, settings)


def serve(
    app: App,
    open_sockets: Callable[[], Listening],
    settings: Settings,
    *,
    link: SupervisorLink | None = None,
    interrupting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Server:
    """Start a server of an app; the arguments are as for ``running.StartServer``."""
    app._routes.freeze()
    app._topics.fix()
    listening = open_sockets()
    try:
        with interrupting():
            for function in app._on_start:
                function()
        server = Server(app._routes, listening, settings, app._topics, app._timing)
        app._add_server(server)
        app._link = link
        if link is not None:
            link.attach(server, lambda: app._stats_of([server]), app._topics.closings)
            if not link.alone:
                app._topics.divide()
        return server
    except BaseException:
        listening.close()
        raise

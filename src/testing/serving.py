"""Applications that are served in the test's process, with their clients."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Unpack
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from wsframe.closing import Closing

from .client import Client
from .clients import ClientOptions, Clients, StreamOptions, WebSocketOptions
from .ports import ReservedPort
from .stream import StreamClient
from .waiting import PAUSE, TIMEOUT
from .websocket import WebSocketClient

if TYPE_CHECKING:
    from wsframe.server import App, Server
    from wsframe.server.options import ServerOptions

    from .clock import ManualClock

# The time limit of a server's stop, in seconds; it includes the setting drain.
STOP_TIMEOUT = 2 * TIMEOUT
# The interval at which wsgiref checks if it must stop, in seconds.
POLL = 0.02


def stop_within(server: Server, seconds: float, clients: Clients | None = None) -> None:
    """Stop a server.

    Args:
        server: the server.
        seconds: the time limit of the stop.
        clients: clients that receive data and answer close frames while the server stops.

    Raises:
        AssertionError: the server does not stop within the time limit.
    """
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    deadline = time.monotonic() + seconds
    while clients is not None and stopping.is_alive() and time.monotonic() < deadline:
        clients.receive_available()
        stopping.join(PAUSE)
    stopping.join(max(0.0, deadline - time.monotonic()))
    if stopping.is_alive():
        raise AssertionError(f"the server did not stop within {seconds:g} s")


class LocalServer(Closing):
    """A server on this machine with its clients, which are closed before it stops.

    Example::

        assert isinstance(server, LocalServer)
        assert server.websocket("/echo").leave().code == 1000

    Attributes:
        port: its port.
    """

    port: int

    def __init__(self) -> None:
        self._clients = Clients()

    def connect(self, **options: Unpack[ClientOptions]) -> Client:
        """Connect a socket, and send nothing."""
        return self._clients.connect(self, **options)

    def websocket(
        self, target: str, *headers: tuple[str, str], **options: Unpack[WebSocketOptions]
    ) -> WebSocketClient:
        """Open a WebSocket; the arguments are those of :class:`WebSocketClient`."""
        return self._clients.websocket(self, target, *headers, **options)

    def stream(
        self, target: str, *headers: tuple[str, str], **options: Unpack[StreamOptions]
    ) -> StreamClient:
        """Open an event stream; the arguments are those of :class:`StreamClient`."""
        return self._clients.stream(self, target, *headers, **options)

    def close(self) -> None:
        """Close all clients; a subclass then stops the server."""
        self._clients.close()


class AppServer(LocalServer):
    """An app that is served in this process, on a port of its own; a context manager.

    The app is not changed, so several tests may serve the same app, one after the other.

    Example::

        with AppServer(app, ping_interval=5) as server:
            client = server.websocket("/echo")
            server.restart()
            client.expect_close()

    Args:
        app: the app.
        host: the address to listen on.
        port: the port; 0 for one that no other test uses.
        clock: a clock for the app while it is served; by default the app keeps its own.
        **settings: the fields of :class:`wsframe.server.Settings`. By default there is one loop,
            on every Python.

    Attributes:
        port: the port, which stays the same across restarts.
        server: the running server, or the stopped one.

    Raises:
        RuntimeError: a clock is given, and another server already serves the app.
    """

    server: Server

    def __init__(
        self,
        app: App,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: ManualClock | None = None,
        **settings: Unpack[ServerOptions],
    ) -> None:
        super().__init__()
        self._app = app
        self._host = host
        self._clock = clock
        self._settings: ServerOptions = {"loops": 1, **settings}
        with ExitStack() as undo:
            if clock is not None:
                undo.callback(app.use_clock, app.use_clock(clock))
            self.port: int = port or undo.enter_context(ReservedPort(host))
            self.start()
            undo.callback(self.stop)
            undo.callback(super().close)
            self._undo = undo.pop_all()

    @property
    def url(self) -> str:
        """The URL, as in "http://127.0.0.1:12345"."""
        return self.server.url

    @property
    def connections(self) -> int:
        """The number of open connections."""
        stats = self.server.stats()
        return stats.requests + stats.websockets + stats.event_streams

    def start(self) -> None:
        """Start a server of the app on the port, after :meth:`stop`.

        Raises:
            OSError: a server already runs on the port.
        """
        self.server = self._app.start(self._host, self.port, **self._settings)

    def stop(self) -> None:
        """Stop the server gracefully; a second call does nothing.

        This call also runs the clients of this object, so no other thread may use them meanwhile.
        Afterwards each client has received a close frame, or the end of its stream.

        Raises:
            AssertionError: the server does not stop.
        """
        stop_within(self.server, STOP_TIMEOUT, self._clients)

    def restart(self) -> None:
        """Stop the server, and start another one on the same port.

        The topics of the app keep their events, as those in Redis do when a process restarts.
        """
        self.stop()
        self.start()

    def pass_time(self, seconds: float) -> None:
        """Advance the clock; see :meth:`ManualClock.pass_time`.

        Raises:
            RuntimeError: the constructor was called without a clock.
        """
        if self._clock is None:
            raise RuntimeError(
                "pass_time() requires a manual clock: AppServer(app, clock=ManualClock())"
            )
        self._clock.pass_time(self.server, seconds)

    def close(self) -> None:
        """Close the clients, stop the server, and release the port."""
        self._undo.close()


class Stoppable(Protocol):
    """The interface of a ``Live``, whose connections were taken over from a WSGI server.

    Example::

        def close_all(live: Stoppable) -> None:
            live.stop(drain=0.0)
            live.reopen()

        close_all(Live())
    """

    def stop(self, drain: float | None = None) -> None:
        """Close all connections, and accept no new ones."""

    def reopen(self) -> None:
        """Accept connections again."""


class WSGIAppServer(LocalServer):
    """A WSGI application that wsgiref serves in this process; a context manager.

    Example::

        live = Live()
        application = live.websocket(handler)
        with WSGIAppServer(application, live) as server:
            client = server.websocket("/")

    Args:
        application: the application.
        live: the ``Live`` of :mod:`wsframe.wsgi`, :mod:`wsframe.flask` or :mod:`wsframe.django`. At
            the end all its connections are closed, and its threads stop. The next test may use it
            again. Its topics keep their events. By default it is the ``Live`` of a Flask
            application.

    Attributes:
        port: the port on 127.0.0.1.
    """

    def __init__(self, application: Callable[..., Any], live: Stoppable | None = None) -> None:
        super().__init__()
        extensions: dict[str, Any] = getattr(application, "extensions", {})  # of Flask
        self._live: Stoppable | None = extensions.get("wsframe") if live is None else live
        self._server = _ThreadedServer(("127.0.0.1", 0), _QuietHandler)
        self._server.set_app(application)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL,))
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL, as in "http://127.0.0.1:12345"."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Close the clients, stop the server, and close the connections of the ``Live``."""
        super().close()
        if self._live is not None:
            self._live.stop(0.0)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self._live is not None:
            self._live.reopen()


class ServeApp(Protocol):
    """Serve an app until the end of the test; the type of the fixture ``serve_app``.

    Example::

        def test_the_echo(serve_app: ServeApp) -> None:
            client = serve_app(app).websocket("/echo")
            client.send_messages("hello")
            assert client.expect(1) == ["hello"]
    """

    def __call__(
        self,
        app: App,
        host: str = ...,
        port: int = ...,
        *,
        clock: ManualClock | None = ...,
        **settings: Unpack[ServerOptions],
    ) -> AppServer:
        """Return the server; the arguments are those of :class:`AppServer`."""


class ServeWSGI(Protocol):
    """Serve a WSGI application until the end of the test; the type of ``serve_wsgi``.

    Example::

        def test_the_echo(serve_wsgi: ServeWSGI) -> None:
            live = Live()
            client = serve_wsgi(live.websocket(handler), live).websocket("/")
            client.send_messages("hello")
            assert client.expect(1) == ["hello"]
    """

    def __call__(
        self, application: Callable[..., Any], live: Stoppable | None = ...
    ) -> WSGIAppServer:
        """Return the server; the arguments are those of :class:`WSGIAppServer`."""


class _QuietHandler(WSGIRequestHandler):
    """A request handler of wsgiref that does not log requests."""

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


class _ThreadedServer(socketserver.ThreadingMixIn, WSGIServer):
    """The server of wsgiref, with a thread for each connection."""

    daemon_threads = True

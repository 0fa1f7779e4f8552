"""Sock: a replacement for Flask-Sock with the same interface."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

from flask import Blueprint, Flask, current_app, request

from wsframe import CloseCode, ConnectionClosed

from ..server import WebSocket
from ..server.dispatch.routes import check_kind
from ..server.http.paths import check_path_type
from ..wsgi.handlers import checked_options
from .live import EXTENSION, Live, websocket_with

# Flask-Sock's key in ``app.config``, and the options in its value.
CONFIGURATION = "SOCK_SERVER_OPTIONS"
USED = frozenset(("max_message_size", "ping_interval", "subprotocols"))
UNUSED = frozenset(("event_class", "receive_bytes", "selector_class", "thread_class"))
# The blueprint's name is part of endpoints, which programs pass to ``url_for``.
BLUEPRINT = "__flask_sock"

MAX_MESSAGE_SIZE = 1 << 20

Handler = TypeVar("Handler", bound=Callable[..., Any])


class SockClosed(ConnectionClosed):
    """The connection is closed; the exception has the attributes of Flask-Sock's ConnectionClosed.

    Attributes:
        code: the close code.
        reason: the close code, as in Flask-Sock.
        message: the close reason; None if the peer has sent no close code.
    """

    reason: int  # type: ignore[assignment]

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.reason = code
        unsent = code in (CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE)
        self.message: str | None = None if unsent else message

    def __str__(self) -> str:
        return f"Connection closed: {int(self.code)} {self.message or ''}".rstrip()


class SockWebSocket:
    """A WebSocket with the methods of Flask-Sock's WebSocket.

    >>> def echo(ws):
    ...     while ws.connected:
    ...         ws.send(ws.receive())

    Attributes:
        environ: the environment of the request (PEP 3333).
        subprotocol: the negotiated subprotocol, or None.
        websocket: the same connection, with all methods of :class:`wsframe.server.WebSocket`.
    """

    def __init__(self, websocket: WebSocket, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.subprotocol: str | None = websocket.subprotocol
        self.websocket = websocket

    @property
    def connected(self) -> bool:
        """Any thread: True until the connection ends, or :meth:`close` is called."""
        return self.websocket.close_code is None

    def send(self, data: object) -> None:
        """Any thread: send ``bytes`` as a binary message, and anything else as text.

        Raises:
            ConnectionClosed: the connection has ended, or :meth:`close` was called.
        """
        try:
            self.websocket.send(data if isinstance(data, bytes) else str(data))
        except ConnectionClosed as error:
            raise SockClosed(error.code, error.reason) from None

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The handler's thread: wait for the next message.

        Args:
            timeout: the limit in seconds; 0 does not wait, and None waits without a limit.

        Returns:
            The message; None if it did not arrive in time.

        Raises:
            ConnectionClosed: the connection has ended, and every message was received.
        """
        try:
            return self.websocket.receive(timeout)
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            raise SockClosed(error.code, error.reason) from None

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Any thread: close the connection, after the messages sent before.

        Args:
            reason: the close code; 1000 by default.
            message: the close reason.

        Raises:
            ConnectionClosed: the connection has ended, or this method was called before.
            ValueError: the code must not be sent, or the reason exceeds 123 bytes of UTF-8.
        """
        code = self.websocket.close_code
        if code is not None:
            raise SockClosed(code, self.websocket.close_reason or "")
        self.websocket.close(reason or CloseCode.NORMAL_CLOSURE, message or "")


class Sock:
    """A Flask extension with the interface of Flask-Sock.

    A handler is a plain or a generator function. A plain function occupies a thread of wsframe, and
    no thread of the WSGI server, until it returns. It keeps the contexts of its request until then.
    A generator function, which receives with ``yield``, occupies no thread.

    The :class:`wsframe.flask.Live` in ``app.extensions["wsframe"]`` opens the connections; it is
    added if it is missing. The configuration ``SOCK_SERVER_OPTIONS`` may set ``subprotocols``,
    ``max_message_size``, and, before :meth:`init_app`, ``ping_interval``. Applications that share
    a Live have one ``ping_interval``, and options of their own otherwise.

    >>> app = Flask("app")
    >>> sock = Sock(app)
    >>> @sock.route("/echo")
    ... def echo(ws):
    ...     while True:
    ...         ws.send(ws.receive())

    Args:
        app: the application; None to call :meth:`init_app` later.

    Raises:
        TypeError: as for :meth:`init_app`.
        ValueError: as for :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.app: Flask | None = None
        self.bp: Blueprint | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Any thread: register the extension, and the routes defined without an application.

        Raises:
            TypeError: an option does not exist, or a value has the wrong type.
            ValueError: a value is not valid, or the application's Live has another
                ``ping_interval``.
        """
        options = _options(app)
        interval = options.get("ping_interval")
        if EXTENSION not in app.extensions:
            Live(app, **({} if interval is None else {"ping_interval": interval}))
        _check_interval(options, app.extensions[EXTENSION])
        if self.bp is not None:
            app.register_blueprint(self.bp)
        self.app = app

    def route(
        self, path: str, bp: Blueprint | None = None, **options: Any
    ) -> Callable[[Handler], Handler]:
        """Register a handler; a decorator.

        Args:
            path: the path, with variables as in ``app.route``. The handler is called with the
                WebSocket and the variables.
            bp: the blueprint of the route; by default the route belongs to the application.
            **options: options of ``app.route``.

        Raises:
            TypeError: the handler is a coroutine function, or the path is missing.
        """
        check_path_type(path, "sock.route")

        def register(handler: Handler) -> Handler:
            owner = bp or self.app or self.bp
            if owner is None:
                owner = self.bp = Blueprint(BLUEPRINT, __name__)
            owner.route(path, **{**options, "websocket": True})(_view_of(handler))
            return handler

        return register


def _view_of(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the view for a handler."""
    live_handler = _live_handler(handler)

    @functools.wraps(handler)
    def view(**variables: Any) -> Any:
        options = _options(current_app)
        subprotocols = options.get("subprotocols") or ()
        live: Live = current_app.extensions[EXTENSION]
        _check_interval(options, live)
        checked = checked_options(
            subprotocols=(subprotocols,) if isinstance(subprotocols, str) else subprotocols,
            max_message_size=options.get("max_message_size") or MAX_MESSAGE_SIZE,
        )
        return websocket_with(live, checked, live_handler, variables)

    return view


def _live_handler(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler that a Live calls.

    Raises:
        TypeError: the handler is a coroutine function.
    """
    check_kind(handler)

    @functools.wraps(handler)
    def function(ws: WebSocket, **variables: Any) -> object:
        return handler(SockWebSocket(ws, request.environ), **variables)

    @functools.wraps(handler)
    def generator(ws: WebSocket, **variables: Any) -> Generator[Any, Any, object]:
        return (yield from handler(SockWebSocket(ws, request.environ), **variables))

    return generator if inspect.isgeneratorfunction(handler) else function


def _options(app: Flask) -> Mapping[str, Any]:
    """Return the options in an application's configuration.

    Raises:
        TypeError: an option does not exist.
    """
    options: Mapping[str, Any] = app.config.get(CONFIGURATION) or {}
    unknown = options.keys() - USED - UNUSED
    if unknown:
        raise TypeError(
            f"app.config[{CONFIGURATION!r}] has unknown options: {', '.join(sorted(unknown))}"
        )
    return options


def _check_interval(options: Mapping[str, Any], live: Live) -> None:
    """Check that the interval of pings in the options is that of the connections.

    Raises:
        ValueError: it has no effect, because the Live of the application has another interval.
    """
    interval, used = options.get("ping_interval"), live.settings.ping_interval
    if interval not in (None, used):
        raise ValueError(
            f"ping_interval={interval!r} in app.config[{CONFIGURATION!r}] has no effect, because "
            f"the Live of this application has ping_interval={used!r}, for the connections of all "
            "its applications: remove the option, and set WSFRAME_PING_INTERVAL or "
            "Live(ping_interval=)"
        )

"""Live: WebSockets and event streams in Flask applications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from flask import Flask, Response, current_app, has_request_context

from wsframe import PerMessageDeflate
from wsframe.headers import Headers

from .. import wsgi
from ..server import Topic
from ..server.sockets.identities import Identity
from ..server.timing import Timing
from ..server.topics.sizes import Sizes
from ..wsgi.application import Application
from ..wsgi.environ import Environ
from ..wsgi.handlers import Options, Origins, code_of
from ..wsgi.surroundings import surrounded
from .configuration import arguments_in, differing, keys_of
from .contexts import Contexts

# The key of a Live in ``app.extensions``.
EXTENSION = "wsframe"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Live(wsgi.Live):
    """A Flask extension for WebSockets and event streams.

    A view returns :meth:`websocket` or :meth:`events`, after it has checked the request. The
    handler of the connection runs after the request. It can use ``request``, ``session``, ``g``,
    ``current_app`` and ``url_for``. Several applications may share one Live and its topics.

    An idle connection holds no context. While a handler waits, its application context is popped,
    so functions of ``teardown_appcontext`` are called, which release connections to a database.
    A handler waits at ``yield``, in ``ws.receive()`` and in ``stream.get()``.

    An exception of a handler is logged, and sent with the signal ``got_request_exception``.

    >>> app = Flask("app")
    >>> live = Live(app)
    >>> @app.get("/news")
    ... def news():
    ...     return live.events(live.topic("news"))

    Args:
        app: the application; None to call :meth:`init_app` later.
        timing: as for :class:`wsframe.server.App`.
        topic_sizes: as for :class:`wsframe.server.App`.
        **arguments: the other arguments of :class:`wsframe.wsgi.Live`. They take precedence over
            the configuration of the application, see :meth:`init_app`.

    Raises:
        ModuleNotFoundError: redis-py is not installed.
        TypeError: a setting does not exist or does not apply, or origins are one ``str``.
        ValueError: a value is not valid.
    """

    origins_setting: str = "WSFRAME_ORIGINS in app.config, or to the origins of the handler"

    def __init__(
        self,
        app: Flask | None = None,
        *,
        timing: Timing | None = None,
        topic_sizes: Sizes | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(timing=timing, topic_sizes=topic_sizes, **arguments)
        self._arguments = arguments
        # The configuration of the applications; None before init_app.
        self._config: dict[str, Any] | None = None
        self._keeping: set[object] = set()  # the code objects of handlers with keep_context
        # True after the configuration of an application was compared with self._config in a view.
        self._compared = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Any thread: register the extension, and read the configuration of the application.

        The key of an argument of :class:`wsframe.wsgi.Live` is ``WSFRAME_`` and the argument's name
        in upper case, such as ``WSFRAME_PING_INTERVAL``.

        Raises:
            ModuleNotFoundError: redis-py is not installed.
            RuntimeError: connections have been opened, or a topic has events.
            TypeError: a value has the wrong type.
            ValueError: a value is not valid, a key does not exist, or another application of this
                Live has another configuration.
        """
        config = arguments_in(app.config)
        if self._config is None:
            if config:
                self.configure(**{**config, **self._arguments})
            self._config = config
        elif config != self._config:
            names = keys_of(differing(config, self._config))
            raise ValueError(
                f"the applications that share a Live must have the same app.config values: {names}"
            )
        app.extensions[EXTENSION] = self

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
        keep_context: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Set the options of a handler; a decorator.

        Args:
            subprotocols, origins, deflate, max_message_size, blocking, headers, heartbeat_event: as
                for :meth:`wsframe.wsgi.Live.handler`.
            keep_context: True to keep the application context while the handler waits, so that
                the functions of ``teardown_appcontext`` are called only at its end. This saves a
                few microseconds for each message, but the context's resources, such as a connection
                to a database, are held until the handler ends.

        Raises:
            ValueError: as for :meth:`wsframe.wsgi.Live.handler`.
            TypeError: as for :meth:`wsframe.wsgi.Live.handler`.
        """
        set_options = super().handler(
            subprotocols=subprotocols,
            origins=origins,
            deflate=deflate,
            max_message_size=max_message_size,
            blocking=blocking,
            headers=headers,
            heartbeat_event=heartbeat_event,
        )

        def register(handler: Handler) -> Handler:
            change = self._keeping.add if keep_context else self._keeping.discard
            change(code_of(handler))
            return set_options(handler)

        return register

    def websocket(
        self, handler: Callable[..., Any], /, *, identity: Identity | None = None, **arguments: Any
    ) -> Response:
        """Any thread: return a response that opens a WebSocket and runs a handler.

        The arguments and errors are those of :meth:`wsframe.wsgi.Live.websocket`. Outside of a
        view, the result is a WSGI application.

        Raises:
            RuntimeError: :meth:`init_app` was not called.
        """
        response: Response = super().websocket(handler, identity=identity, **arguments)
        return response

    def events(
        self,
        source: Topic | Callable[..., Any],
        /,
        *,
        identity: Identity | None = None,
        **arguments: Any,
    ) -> Response:
        """Any thread: return a response that opens event streams.

        The arguments and errors are those of :meth:`wsframe.wsgi.Live.events`. Outside of a view,
        the result is a WSGI application.

        Raises:
            RuntimeError: :meth:`init_app` was not called.
        """
        response: Response = super().events(source, identity=identity, **arguments)
        return response

    def respond(self, application: Application) -> Any:
        """Any thread: return the view's result for a WSGI application.

        Raises:
            RuntimeError: :meth:`init_app` was not called, or the configuration has changed since.
        """
        if self._config is None:
            raise RuntimeError("this Live has no Flask application: call live.init_app(app) first")
        if not self._compared and has_request_context():
            self._check_unchanged(self._config)
        return super().respond(application)

    def bind(
        self, handler: Callable[..., Any], arguments: dict[str, Any], environ: Environ
    ) -> Callable[..., Any]:
        """The request's thread: return a function that runs the handler for one connection.

        The function's argument is the connection. The handler runs in new Flask contexts with the
        request and the ``g`` of the view. Outside of a view, it runs without Flask contexts.
        """
        if not has_request_context():
            return super().bind(handler, arguments, environ)
        contexts = Contexts(keep=code_of(handler) in self._keeping)
        return surrounded(partial(handler, **arguments), contexts)

    def _check_unchanged(self, config: dict[str, Any]) -> None:
        """The request's thread: check once that the configuration is as in :meth:`init_app`.

        Raises:
            RuntimeError: a value was set after :meth:`init_app`, so it has no effect.
        """
        names = keys_of(differing(arguments_in(current_app.config), config))
        if names:
            raise RuntimeError(
                f"app.config values were set after Live(app), and have no effect: {names}; set "
                "them before Live(app) or live.init_app(app)"
            )
        self._compared = True


def websocket_with(
    live: Live, options: Options, handler: Callable[..., Any], arguments: dict[str, Any]
) -> Response:
    """The request's thread: as :meth:`Live.websocket`, with the options of this request's route.

    The handler keeps its context, as with ``keep_context``.

    Raises:
        RuntimeError: as for :meth:`Live.respond`.
    """
    live._keeping.add(code_of(handler))
    route = live._handlers.websocket(handler, options)
    response: Response = live.respond(Application(live, route, handler, None, arguments, None))
    return response

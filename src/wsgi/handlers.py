"""The options and the routes of the handlers that a :class:`~wsframe.wsgi.Live` serves."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from wsframe import PerMessageDeflate
from wsframe.arguments import check_max_message_size
from wsframe.handshake import check_choices
from wsframe.headers import Headers

from ..server.dispatch.routes import EventRoute, WebSocketRoute
from ..server.headers import ON_CONNECTIONS, Pairs, added_headers
from ..server.heartbeats import encode_heartbeat
from ..server.routing import WITHOUT_CONTEXT

Origins: TypeAlias = "Sequence[str] | Literal['*']"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a handler; see :meth:`wsframe.wsgi.Live.handler`."""

    subprotocols: Sequence[str] = ()
    origins: Origins | None = None
    max_message_size: int = 1 << 20
    deflate: PerMessageDeflate | None = None
    blocking: bool | None = None
    headers: Pairs = ()
    heartbeat: bytes | None = None


DEFAULT = Options()


def checked_options(
    *,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    deflate: PerMessageDeflate | bool = False,
    max_message_size: int = 1 << 20,
    blocking: bool | None = None,
    headers: Headers = (),
    heartbeat_event: str | None = None,
) -> Options:
    """Any thread: check the arguments of :meth:`wsframe.wsgi.Live.handler`, and return the options.

    Raises:
        ValueError: as for :meth:`wsframe.wsgi.Live.handler`.
        TypeError: as for :meth:`wsframe.wsgi.Live.handler`.
    """
    check_choices(subprotocols, () if origins is None else origins)
    check_max_message_size(max_message_size)
    return Options(
        tuple(subprotocols),
        origins if origins is None or origins == "*" else tuple(origins),
        max_message_size,
        WITHOUT_CONTEXT if deflate is True else deflate or None,
        blocking,
        added_headers(headers, ON_CONNECTIONS),
        None if heartbeat_event is None else encode_heartbeat(heartbeat_event),
    )


class Handlers:
    """The table of routes, with the code and the options of a handler as the key.

    A program may define a handler again for each request, for example in a view. All functions with
    the same code and options share one route. So the number of routes is bounded, unless an option
    depends on the request.
    """

    def __init__(self) -> None:
        self._origins: Origins = ()
        self._options: dict[object, Options] = {}
        self._websockets: dict[tuple[object, Options], WebSocketRoute] = {}
        self._streams: dict[tuple[object, Options], EventRoute] = {}
        self.after_fork()

    def set_origins(self, origins: Origins) -> None:
        """Any thread: set the default origins, for topics and for handlers without that option."""
        with self._lock:
            self._origins = origins
            self._websockets.clear()
            self._streams.clear()

    def set(self, handler: Callable[..., Any], options: Options) -> None:
        """Any thread: set the options of a handler."""
        self._options[code_of(handler)] = options

    def websocket(
        self, handler: Callable[..., Any], options: Options | None = None
    ) -> WebSocketRoute:
        """Any thread: return the route for WebSockets with this handler.

        Args:
            handler: the handler.
            options: the options of the route; None for those of the handler.
        """
        code = code_of(handler)
        options = options or self._options.get(code, DEFAULT)
        route = self._websockets.get((code, options))
        if route is None:
            with self._lock:
                new = WebSocketRoute(
                    _name_of(code),
                    handler,
                    options.subprotocols,
                    self._origins if options.origins is None else options.origins,
                    options.max_message_size,
                    options.deflate,
                    options.blocking,
                    None,
                    options.headers,
                )
                route = self._websockets.setdefault((code, options), new)
        return route

    def stream(self, handler: Callable[..., Any] | None) -> EventRoute:
        """Any thread: return the route for event streams with this handler; None for a topic."""
        code = None if handler is None else code_of(handler)
        options = self._options.get(code, DEFAULT)
        route = self._streams.get((code, options))
        if route is None:
            with self._lock:
                origins = self._origins if options.origins is None else options.origins
                name = "the event streams of topics" if handler is None else _name_of(code)
                new = EventRoute(
                    *(name, handler, None, origins, False, options.blocking, None),
                    headers=options.headers,
                    heartbeat=options.heartbeat,
                )
                route = self._streams.setdefault((code, options), new)
        return route

    def after_fork(self) -> None:
        """The child of a fork, and at the beginning: make a new lock."""
        self._lock = threading.Lock()


def _name_of(code: Any) -> str:
    """Return the name of a code object or a class, for the log."""
    return str(getattr(code, "co_qualname", None) or code.__qualname__)


def code_of(handler: Any) -> Any:
    """Any thread: return the code of a function, a method or a partial.

    For any other callable, its class is returned.
    """
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = inspect.unwrap(handler)
    function = getattr(handler, "__func__", handler)
    return getattr(function, "__code__", type(handler))

"""Live for Django: handlers and topics as views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from .. import wsgi
from ..server.dispatch.routes import EventRoute, WebSocketRoute, check_kind
from ..server.sockets.identities import Identity
from ..server.topics.topic import Topic
from .views import View, respond


class Live(wsgi.Live):
    """WebSockets and event streams for a Django project, in the processes of its WSGI server.

    :meth:`websocket` and :meth:`events` return views, for a URLconf. Another view can also call
    such a view after its own checks. All middleware applies to the request and the response.

    >>> live = Live()
    >>> @live.websocket
    ... def echo(request, ws):
    ...     while True:
    ...         message = yield
    ...         ws.send(message)
    >>> urlpatterns = [path("echo/", echo)]

    Args:
        **options: the arguments of :class:`wsframe.wsgi.Live`. The arguments take precedence over
            the dictionary ``WSFRAME`` in Django's settings.

    Raises:
        ImproperlyConfigured: an option does not exist or does not apply, or a value is not valid.
        ModuleNotFoundError: redis-py is not installed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**{**getattr(settings, "WSFRAME", {}), **options})
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"Live cannot use settings.WSFRAME: {error}") from error

    def websocket(
        self, handler: Callable[..., Any], /, *, identity: Identity | None = None, **arguments: Any
    ) -> View:
        """Any thread: return a view that opens WebSockets for a handler; also a decorator.

        The view passes the keyword arguments of a URLconf to the handler.

        Args:
            handler: a plain or a generator function, as for :meth:`wsframe.server.App.websocket`.
                It is called with a copy of the request, the WebSocket and the arguments. While the
                handler waits, it holds no connection to a database.
            identity: the text, number or UUID of the user, by which :meth:`close_identity` finds
                the connections; None for no identity. It becomes ``request.identity``.
            **arguments: the arguments.

        Raises:
            TypeError: the handler is a coroutine function.
        """
        check_kind(handler)
        return self._view(handler, arguments, identity, lambda: self._handlers.websocket(handler))

    def events(
        self,
        source: Topic | Callable[..., Any],
        /,
        *,
        identity: Identity | None = None,
        **arguments: Any,
    ) -> View:
        """Any thread: return a view that opens event streams; also a decorator.

        Args:
            source: a topic, to which each client is subscribed; or a handler, as for
                :meth:`wsframe.server.App.sse`, which is called as in :meth:`websocket`.
            identity: the text, number or UUID of the user, by which :meth:`close_identity` finds
                the connections; None for no identity. It becomes ``request.identity``.
            **arguments: the arguments of the handler.

        Raises:
            TypeError: the handler is a coroutine function, or there are arguments for a topic.
        """
        if isinstance(source, Topic):
            if arguments:
                raise TypeError(f"a topic has no arguments: {', '.join(arguments)}")
            return self._view(source, {}, identity, lambda: self._handlers.stream(None))
        check_kind(source)
        return self._view(source, arguments, identity, lambda: self._handlers.stream(source))

    def metrics_view(self, request: HttpRequest) -> HttpResponseBase:
        """A view that replies with the statistics in the OpenMetrics format.

        The statistics are those of :meth:`wsframe.wsgi.Live.metrics`.
        """
        reply = self.metrics(request.META, lambda *_: lambda data: None)
        return HttpResponse(b"".join(reply), headers=dict(reply.headers))

    def _view(
        self,
        source: Topic | Callable[..., Any],
        arguments: dict[str, Any],
        identity: Identity | None,
        route: Callable[[], WebSocketRoute | EventRoute],
    ) -> View:
        def view(request: HttpRequest, /, **parameters: Any) -> HttpResponseBase:
            return respond(self, request, route(), source, {**arguments, **parameters}, identity)

        if not isinstance(source, Topic):
            functools.update_wrapper(view, source)
        return view

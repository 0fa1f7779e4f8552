"""Views that open connections, and the responses of these views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from wsframe import HandshakeError
from wsframe.fields import Fields

from ..server.dispatch.routes import EventRoute, WebSocketRoute, check_handler
from ..server.http.request import Request
from ..server.server import Server
from ..server.sockets.identities import Identity
from ..server.topics.topic import Topic
from ..wsgi.application import Application, Opener
from ..wsgi.environ import Environ, Pairs
from ..wsgi.handlers import Origins
from ..wsgi.replies import Answer, Reply, Takeover
from ..wsgi.surroundings import surrounded
from .origins import check_site
from .requests import kept_request, read_short_body, resolved
from .turns import Turns

NEEDS_WSGI = (
    "wsframe.django requires a WSGI server, which passes on the connection of a request, but this "
    "request has arrived over ASGI. Serve get_wsgi_application(), for example with gunicorn "
    "--worker-class gthread"
)
# The number of a handler's arguments before the URL's arguments.
BEFORE = ("the request", "the connection")


class View(Protocol):
    """The type of a Django view that opens a connection.

    >>> live = Live()
    >>> def news(request, topic):
    ...     return live.events(live.topic(topic))(request)
    """

    def __call__(self, request: HttpRequest, /, **parameters: Any) -> HttpResponseBase: ...


class Visit:
    """A Django request whose connection a Live opens.

    Args:
        live: the object that opens connections.
        request: the request.
    """

    def __init__(self, live: Opener, request: WSGIRequest) -> None:
        self._request = request
        self.headers: Pairs = live.headers
        self.server: Callable[[Environ], Server] = live.server
        self.request_of: Callable[[Environ, str], tuple[Request, Fields]] = live.request_of
        self.check_host: Callable[[Request, Fields], Fields] = live.check_host
        self.refused: Callable[[Environ, Request | None, HandshakeError], None] = live.refused
        self.not_taken: Callable[[Request, str], None] = live.not_taken
        self.relaying: Callable[[str], None] = live.relaying

    def bind(
        self, handler: Callable[..., Any], arguments: dict[str, Any], environ: Environ, /
    ) -> Callable[..., Any]:
        """The request's thread: return the function that is called with the connection."""
        request = kept_request(self._request)
        loaded = {name: resolved(value) for name, value in arguments.items()}
        return surrounded(partial(handler, request, **loaded), Turns(request))

    def check_origin(
        self, environ: Environ, request: Request, fields: Fields, origins: Origins, /
    ) -> str | None:
        """The request's thread: check the Origin; see :func:`check_site`."""
        return check_site(self._request, fields, origins)


def respond(
    live: Opener,
    request: HttpRequest,
    route: WebSocketRoute | EventRoute,
    source: Topic | Callable[..., Any],
    arguments: dict[str, Any],
    identity: Identity | None,
) -> HttpResponseBase:
    """The request's thread, in a view: return the response that opens a connection.

    Args:
        live: the object that opens the connection.
        request: the request.
        route: the options of the connection.
        source: the handler, or the topic of an event stream.
        arguments: the arguments of the handler.
        identity: the identity of the connection; None for no identity.

    Raises:
        DisallowedHost: the Host is not one of ``ALLOWED_HOSTS``; Django answers with 400.
        ImproperlyConfigured: the request has arrived over ASGI.
        TypeError: the handler does not accept these arguments.
    """
    if not isinstance(request, WSGIRequest):
        raise ImproperlyConfigured(NEEDS_WSGI)
    # Django's test client sends no Host header.
    environ = {"HTTP_HOST": request.get_host(), **request.environ}
    handler = topic = None
    if isinstance(source, Topic):
        topic = source
    else:
        handler = source
        check_handler(handler, arguments, before=BEFORE)
    application = Application(Visit(live, request), route, handler, topic, arguments, identity)
    reply = application.open(environ, read_short_body(request))
    if isinstance(reply, Answer):
        return _with_headers(HttpResponse(reply.body, status=reply.status), reply)
    kind = LiveResponse if isinstance(reply, Takeover) else ReplyResponse
    return _with_headers(kind(reply), reply)


class ReplyResponse(StreamingHttpResponse):
    """The response that streams a reply.

    If a middleware has changed the status, the middleware has refused the request. Then the body is
    empty.

    Args:
        reply: the reply.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply, status=reply.status)
        self._reply = reply

    def __iter__(self) -> Iterator[bytes]:
        """The request's thread: return an iterator over the parts of the body."""
        return self._parts() if self.status_code == self._reply.status else iter(())

    def _parts(self) -> Iterator[bytes]:
        return super().__iter__()


class LiveResponse(ReplyResponse):
    """The response that takes the connection over when the server iterates over its body.

    Middleware may wrap the empty content, and add headers for the client.
    """

    def _parts(self) -> Iterator[bytes]:
        cookies = (("Set-Cookie", morsel.OutputString()) for morsel in self.cookies.values())
        self._reply.add_headers([*self.items(), *cookies])
        return iter(self._reply)


def _with_headers(response: HttpResponseBase, reply: Reply) -> HttpResponseBase:
    """Return a Django response with the headers of a reply."""
    for name, value in reply.headers:
        response[name] = value
    if response.streaming:
        # An encoding of the whole body, such as gzip, would delay the events.
        response["Content-Encoding"] = "identity"
    return response

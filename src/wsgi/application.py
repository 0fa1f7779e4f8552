"""The WSGI application that opens the connections of one handler or topic."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from wsframe import HandshakeError, accept
from wsframe.fields import Fields

from ..server.dispatch.opening import Opening
from ..server.dispatch.routes import EventRoute, WebSocketRoute
from ..server.headers import layered
from ..server.http.cors import cors_headers, preflight_headers
from ..server.http.host_policy import with_proxy_advice
from ..server.http.refusals import RefusalError
from ..server.http.request import Request
from ..server.reports.refusals import UPGRADE
from ..server.server import Server
from ..server.sessions.eventstream_session import STREAM_HEADERS
from ..server.sessions.resume import last_event_id
from ..server.sockets.identities import Identity, check_identity
from ..server.topics.ids import END
from ..server.topics.topic import Topic
from .body import Readable, discard_body, discard_refused
from .connections import Connection, connection_of
from .environ import Environ, Pairs, StartResponse
from .errors import CannotTakeError, NoServerError
from .handlers import Origins
from .relay import Relay
from .replies import Answer, Reply, Takeover

# A server on which connections can be taken over, named as advice in the log.
ADVICE = "Run the application with gunicorn --worker-class gthread, for example."
# The headers for the WSGI server and middleware; the client does not receive these headers.
WITHOUT_BODY = [("Content-Type", "text/plain")]


class Opener(Protocol):
    """The object that opens connections for applications; see :class:`wsframe.wsgi.Live`."""

    @property
    def headers(self) -> Pairs: ...

    def server(self, environ: Environ, /) -> Server: ...

    def bind(
        self, handler: Callable[..., Any], arguments: dict[str, Any], environ: Environ, /
    ) -> Callable[..., Any]: ...

    def request_of(self, environ: Environ, version: str, /) -> tuple[Request, Fields]: ...

    def check_host(self, request: Request, fields: Fields, /) -> Fields: ...

    def check_origin(
        self, environ: Environ, request: Request, fields: Fields, origins: Origins, /
    ) -> str | None: ...

    def refused(
        self, environ: Environ, request: Request | None, error: HandshakeError, /
    ) -> None: ...

    def not_taken(self, request: Request, reason: str, /) -> None: ...

    def relaying(self, problem: str, /) -> None: ...


class Application:
    """A WSGI application; :meth:`wsframe.wsgi.Live.websocket` and ``events`` return it.

    >>> application = Live().events(Live().topic("news"))
    >>> callable(application)
    True

    Args:
        live: the object that opens the connections.
        route: the options of the connections.
        handler: the handler; None for a topic.
        topic: the topic, without a handler.
        arguments: the arguments of the handler, by name.
        identity: the identity of the connections; None for no identity.
    """

    def __init__(
        self,
        live: Opener,
        route: WebSocketRoute | EventRoute,
        handler: Callable[..., Any] | None,
        topic: Topic | None,
        arguments: dict[str, Any],
        identity: Identity | None,
    ) -> None:
        self._identity = None if identity is None else check_identity(identity)
        self._live = live
        self._route = route
        self._handler = handler
        self._topic = topic
        self._arguments = arguments

    @property
    def __name__(self) -> str:
        """Any thread: raise the error for an application in the place of a view.

        Flask reads this attribute of a view function.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(
            "live.websocket(handler) and live.events(source) are not decorators of a view: call "
            "them in a view, which returns the result"
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Reply:
        """The request's thread: reply to a request (PEP 3333)."""
        return self.open(environ)(environ, start_response)

    def open(self, environ: Environ, body: Readable | None = None) -> Reply:
        """The request's thread: check a request, and return the reply to it.

        An invalid or forbidden request is refused here, with an ordinary answer. For any other
        request, the connection is taken over when the server iterates over the reply.

        Args:
            environ: the environment of the request.
            body: the framework's reader of the body, which ends with it; None without one.
        """
        reply = self._reply(environ, body)
        if isinstance(reply, Answer):
            reply.headers = layered(reply.headers, self._live.headers)
        return reply

    def _reply(self, environ: Environ, body: Readable | None) -> Reply:
        arrival = Arrival(environ, body)
        try:
            arrival.read(self._live)
            if isinstance(self._route, WebSocketRoute):
                return self._open_websocket(arrival, self._route)
            return self._open_stream(arrival, self._route)
        except HandshakeError as error:
            self._live.refused(environ, arrival.request, error)
            if error.status != 413:  # for 413, the body has been read up to the limit
                discard_refused(environ)
            return Answer.refusal(error, with_body=environ["REQUEST_METHOD"] != "HEAD")

    def _open_websocket(self, arrival: Arrival, route: WebSocketRoute) -> Reply:
        environ, request, fields = arrival.environ, arrival.request, arrival.fields
        assert request is not None
        try:
            acceptance = accept(
                fields,
                method=request.method,
                http_version=request.http_version,
                subprotocols=route.subprotocols,
                origins="*",  # the Origin is checked below, with advice for the log
                deflate=route.deflate,
            )
        except HandshakeError as error:
            raise with_proxy_advice(error, fields) from None
        self._live.check_origin(environ, request, fields, route.origins)
        if arrival.connection is None:
            reason = f"WebSockets are not possible: {arrival.problem}"
            raise RefusalError(501, reason, kind=UPGRADE, advice=ADVICE)
        server = self._live.server(environ)
        opening = self._opening(environ, request, acceptance=acceptance)
        return self._takeover(server, arrival.connection, opening, WITHOUT_BODY)

    def _open_stream(self, arrival: Arrival, route: EventRoute) -> Reply:
        environ, request, fields = arrival.environ, arrival.request, arrival.fields
        assert request is not None
        origin = self._live.check_origin(environ, request, fields, route.origins)
        headers = cors_headers(origin, route.origins)
        stream_headers = [*STREAM_HEADERS, *headers]
        try:
            allowed = preflight_headers(request.method, fields) if route.origins else None
            if allowed is not None:
                return Answer(204, (*headers, *allowed))
            if last_event_id(request) == END:
                return Answer(204, (*headers, ("Cache-Control", "no-store")))
            if request.method == "HEAD":
                return Answer(200, layered(stream_headers, route.headers))
            if arrival.connection is not None:
                discard_body(environ, arrival.body)
            server = self._live.server(environ)
        except HandshakeError as error:
            # The CORS headers let the page read the answer.
            error.headers = (*error.headers, *headers)
            raise
        opening = self._opening(environ, request, headers=headers)
        if arrival.connection is None:
            self._live.relaying(arrival.problem)
            return Relay(server, opening)
        return self._takeover(server, arrival.connection, opening, stream_headers)

    def _takeover(
        self, server: Server, connection: Connection, opening: Opening, headers: Pairs
    ) -> Takeover:
        on_failure = partial(self._live.not_taken, opening.request)
        return Takeover(server, connection, opening, headers, on_failure)

    def _opening(self, environ: Environ, request: Request, **more: Any) -> Opening:
        request.identity = self._identity
        handler = self._handler
        if handler is not None:
            handler = self._live.bind(handler, self._arguments, environ)
        generator = inspect.isgeneratorfunction(self._handler)
        return Opening(request, self._route, handler, self._topic, generator=generator, **more)


class Arrival:
    """A received request and its connection.

    Args:
        environ: its environment.
        body: the framework's reader of its body.

    Attributes:
        environ, body: the arguments.
        connection: the connection of the request; None if it cannot be taken over.
        problem: the reason why the connection cannot be taken over.
        request: the parsed request; None until its headers have been read.
        fields: the request's headers; ``Host`` is the host that the client has addressed.
    """

    def __init__(self, environ: Environ, body: Readable | None) -> None:
        self.environ: Environ = environ
        self.body = body
        self.connection: Connection | None = None
        self.problem: str = ""
        self.request: Request | None = None
        self.fields: Fields = Fields(())

    def read(self, live: Opener) -> None:
        """The request's thread: find the connection, and read and check the request.

        Raises:
            HandshakeError: the request is not valid.
        """
        version = str(self.environ.get("SERVER_PROTOCOL", "")).partition("/")[2] or "1.0"
        try:
            self.connection = connection_of(self.environ)
        except CannotTakeError as error:
            self.problem = str(error)
            if isinstance(error, NoServerError):
                # Django's test client sets the key to True, although there is one process.
                self.environ = {**self.environ, "wsgi.multiprocess": False}
        else:
            version = "1.1" if self.connection.own_versions else version
        self.request, fields = live.request_of(self.environ, version)
        if self.connection is not None:
            self.request.client_certificate = self.connection.client_certificate()
        self.fields = live.check_host(self.request, fields)

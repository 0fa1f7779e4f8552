"""The registration of an application's handlers and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from queue import Queue
from typing import Any, Literal, TypeVar, overload

from wsframe import PerMessageDeflate
from wsframe.arguments import check_max_message_size
from wsframe.handshake import check_choices
from wsframe.headers import Headers, check_field
from wsframe.origins import check_origins

from .dispatch.routes import Authorize, EventRoute, PageRoute, Routes, WebSocketRoute, check_handler
from .headers import ON_CONNECTIONS, ON_PAGES, added_headers
from .heartbeats import encode_heartbeat
from .http.paths import Path, check_path_type
from .topics.registry import Topics
from .topics.sources import check_source
from .topics.topic import Topic

# Compression without context takeover, so that an idle connection needs no memory for it.
WITHOUT_CONTEXT = PerMessageDeflate(
    server_no_context_takeover=True, client_no_context_takeover=True
)

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Routing:
    """The registration of an :class:`App`'s handlers and pages, by one thread, before its start.

    Args:
        topics: the topics of the app.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._routes = Routes()

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
        headers: Headers = (),
    ) -> Callable[[Handler], Handler]:
        """Register the handler of a path's WebSockets, ``handler(ws, **parameters)``; a decorator.

        A plain function gets a thread of its own. A generator function waits at ``yield``, which
        uses no thread. Between two waits it runs on the I/O loop's thread or, if it blocks, in
        another thread. So thread-local objects are valid only from one ``yield`` to the next.
        Handlers of different connections may run at the same time. The connection is closed with
        1000 when the handler returns, and with 1011 when it raises an exception.

        Args:
            path: the path, which begins with a slash.
            subprotocols: supported subprotocols. The server chooses the first one in the client's
                list that it supports.
            origins: web sites, besides the server's own, whose pages may connect, such as
                "https://example.com"; "*" for all. Each must be exactly as browsers send it:
                scheme and host in lower case, without a path, and without the default port of the
                scheme. Other schemes than http and https match only if they are listed.
            max_message_size: maximum size of a received message, in bytes.
            deflate: True permits compression without context takeover, which needs no memory
                between two messages. A PerMessageDeflate sets the parameters in detail. Context
                takeover compresses better and needs about 300 KiB per connection.
            blocking: True for a generator that blocks at nearly every message: its turns always
                run in a thread of their own. False for one that never blocks: its first turn always
                begins on the loop. By default the server learns which handlers block. The option
                has no effect on plain functions.
            authorize: a function that is called with the :class:`Request` before the answer; it may
                block. Its result becomes ``request.identity``. A false result is answered with 403.
                The function may raise :class:`wsframe.HandshakeError` for another answer.
            headers: headers of the 101 response, as a mapping or (name, value) pairs. They take
                precedence over the setting ``headers``. For headers that depend on the request,
                such as cookies, ``authorize`` calls :meth:`Request.add_header`.

        Raises:
            ValueError: the path is malformed or taken, the size is not positive, a subprotocol is
                not a token, or an origin can never match; or the server sets a header itself, or
                its name or value is not valid.
            RuntimeError: the app has been started; its routes cannot be changed.
            TypeError: the handler does not accept these arguments or is a coroutine function, or
                subprotocols or origins are one ``str`` instead of a sequence, or the path is
                missing.
        """
        check_path_type(path, "app.websocket")
        pattern = Path(path)
        check_choices(subprotocols, origins)
        check_max_message_size(max_message_size)
        settings = WITHOUT_CONTEXT if deflate is True else deflate or None
        further = added_headers(headers, ON_CONNECTIONS)

        def register(handler: Handler) -> Handler:
            check_handler(handler, pattern.parameters, path=path)
            route = WebSocketRoute(
                path,
                handler,
                tuple(subprotocols),
                origins,
                max_message_size,
                settings,
                blocking,
                authorize,
                further,
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
        headers: Headers = (),
        heartbeat_event: str | None = None,
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
        headers: Headers = (),
        heartbeat_event: str | None = None,
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
        headers: Headers = (),
        heartbeat_event: str | None = None,
    ) -> Callable[[Handler], Handler] | None:
        """Register a path's event streams.

        With a ``source``, every client is subscribed to a topic. The source is a :class:`Topic`, or
        a queue or another iterable. One thread reads the queue or the iterable while the app is
        served and publishes its items to a topic of the path: a ServerSentEvent as it is, a ``str``
        as data, anything else as JSON. A client that reconnects is sent the events that it has
        missed; a new client is sent only new events.

        Without a source, this is a decorator for a handler, ``handler(stream, **parameters)``. A
        generator function yields items of these types and has a thread of its own. When it returns,
        the stream ends and the client does not reconnect. When it raises an exception, or calls
        ``stream.close()`` before it returns, the client reconnects and the handler starts again.

        A plain function sends items with ``stream.send``, and the stream stays open after it
        returns. It uses one of the ``max_threads`` while it blocks, so a handler that runs as long
        as its stream should be a generator.

        A handler notices that its client has disconnected when it sends. A generator that waits for
        an item of a queue should call ``stream.get(queue)``, which ends when the client
        disconnects. Any other wait needs a time-out and a check of ``stream.closed``.

        ``origins``, ``blocking`` and ``authorize`` are as for :meth:`websocket`, and so is
        ``headers``, for the 200 response. A page of another
        site in ``origins`` may read the streams and set headers (CORS). Its browser sends cookies
        if the page requests that and ``origins`` lists the site.

        ``compress`` permits gzip for clients that accept it, as all browsers do. Each event is
        compressed once for all clients, and clients can decode it as soon as it arrives.

        ``heartbeat_event`` replaces the setting of this name: the type of the event that a silent
        stream sends, "" for a comment, or None for the setting. It has no effect if the setting
        ``heartbeat`` is 0.

        Raises:
            ValueError: the path is malformed or taken, an origin can never match, a header cannot
                be set, as for :meth:`websocket`, or the type of heartbeats is not valid.
            RuntimeError: the app has been started; its routes cannot be changed.
            TypeError: the handler does not accept these arguments or is a coroutine function, the
                source has an unsupported type, or origins are one ``str`` instead of a sequence.
        """
        check_path_type(path, "app.sse")
        pattern = Path(path)
        check_origins(origins)
        further = added_headers(headers, ON_CONNECTIONS)
        heartbeat = None if heartbeat_event is None else encode_heartbeat(heartbeat_event)
        if source is not None:
            # Several routes with the same queue share one topic.
            known = source if isinstance(source, Topic) else self._topics.fed_by(source)
            if known is None:
                check_source(source)
            topic = known or self._topics.unnamed(path)
            route = EventRoute(
                *(path, None, topic, origins, compress, None, authorize),
                headers=further,
                heartbeat=heartbeat,
            )
            self._routes.add(path, route)
            if known is None:
                self._topics.feed(source, self._topics.find(topic))
            return None

        def register(handler: Handler) -> Handler:
            check_handler(handler, pattern.parameters, path=path)
            route = EventRoute(
                *(path, handler, None, origins, compress, blocking, authorize),
                headers=further,
                heartbeat=heartbeat,
            )
            self._routes.add(path, route)
            return handler

        return register

    def page(
        self,
        path: str,
        body: str | bytes,
        *,
        content_type: str = "text/html; charset=utf-8",
        headers: Headers = (),
    ) -> None:
        """Register a fixed page at a path.

        Args:
            path: the path.
            body: the content; a ``str`` is encoded in UTF-8.
            content_type: the media type of the content.
            headers: further headers, such as Cache-Control, as a mapping or (name, value) pairs.
                They take precedence over the setting ``headers``.

        Raises:
            ValueError: the path is malformed or taken; the content type is not a valid header
                value; or the server sets a header itself, or its name or value is not valid.
            RuntimeError: the app has been started; its routes cannot be changed.
        """
        check_field("Content-Type", content_type)
        encoded = body.encode() if isinstance(body, str) else bytes(body)
        further = added_headers(headers, ON_PAGES)
        self._routes.add(path, PageRoute(encoded, content_type, further))

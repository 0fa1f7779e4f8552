"""The dispatcher: from a request to a fixed answer, or to the session that takes the connection."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from wsframe import Acceptance, Connection, HandshakeError, Role, accept
from wsframe.handshake import wants_upgrade
from wsframe.origins import check_host

from ..http.answers import respond, respond_without_content
from ..http.cors import cors_headers, preflight_headers
from ..http.host_policy import with_proxy_advice
from ..http.reader import RequestReader
from ..http.refusals import RefusalError, no_thread
from ..http.request import set_pattern
from ..reports.refusals import PATH
from ..reports.stats import EVENT_STREAM, WEBSOCKET
from ..sessions.eventstream_handler import EventStreamHandler
from ..sessions.eventstream_session import EventStreamSession, encode_stream_head
from ..sessions.generator import GeneratorSession
from ..sessions.gzipped import accepts_gzip
from ..sessions.resume import last_event_id
from ..sessions.thread import ThreadSession
from ..topics.ids import END
from .authorization import Authorization
from .gate import Gate
from .metrics import PendingMetrics
from .routes import EventRoute, MetricsRoute, PageRoute, Routes, WebSocketRoute

if TYPE_CHECKING:
    from wsframe.fields import Fields

    from ..handoff.threads import WorkerThread
    from ..http.host_policy import HostPolicy
    from ..http.request import Request
    from ..sockets.peer import Peer
    from ..topics.registry import Topics


class Dispatcher:
    """Answers the request of each connection.

    One dispatcher serves all loops, because it has no state.

    Args:
        routes: the routes of the app.
        host_policy: the hosts that are served, and the trusted proxies.
        topics: the topics to which sessions subscribe.
        on_request: called with the peer as soon as its request is complete.
    """

    def __init__(
        self,
        routes: Routes,
        host_policy: HostPolicy,
        topics: Topics,
        on_request: Callable[[Peer], object],
    ) -> None:
        self._routes = routes
        self._host_policy = host_policy
        self._topics = topics
        self._on_request = on_request

    def open(self, peer: Peer, timeout: float) -> None:
        """Owner: read the request of a new connection, and answer it.

        Args:
            peer: the connection.
            timeout: seconds for the complete head of the request (``handshake_timeout``).
        """
        peer.open(RequestReader(peer, partial(self._dispatch, peer)), timeout)

    def _dispatch(self, peer: Peer, request: Request, fields: Fields, rest: memoryview) -> None:
        """Owner: answer the request by its route.

        Args:
            peer: the connection.
            request: its request.
            fields: the headers of the request.
            rest: the bytes received after the head.

        Raises:
            HandshakeError: the answer is this error.
        """
        self._on_request(peer)
        peer.record.request = request
        if request.http_version not in ("1.0", "1.1"):
            raise HandshakeError(505, "unsupported HTTP version: use HTTP/1.1")
        if request.http_version == "1.1" or fields.items("host"):
            check_host(fields)
        fields = self._host_policy.check_host(request, fields)
        found = self._routes.find(request.path, wants_upgrade(fields))
        if found is None:
            raise RefusalError(404, "no route matches this path", kind=PATH)
        route, pattern = found
        set_pattern(request, pattern)
        if isinstance(route, WebSocketRoute):
            self._upgrade(peer, request, fields, bytes(rest), route)
            return
        if isinstance(route, EventRoute):
            origin = self._host_policy.check_origin(request, fields, route.origins)
            peer.record.cors_headers = cors_headers(origin, route.origins)
            allowed = preflight_headers(request.method, fields) if route.origins else None
            if allowed is not None:
                respond_without_content(peer, allowed)
                return
        if request.method not in ("GET", "HEAD"):
            raise HandshakeError(
                405, "method not allowed: use GET or HEAD", [("Allow", "GET, HEAD")]
            )
        with_body = request.method == "GET"
        if isinstance(route, PageRoute):
            respond(peer, 200, route.body, content_type=route.content_type, with_body=with_body)
        elif isinstance(route, MetricsRoute):
            PendingMetrics(peer, with_body).start(route)
        else:
            gzip = route.compress and accepts_gzip(fields)
            proceed = partial(self._open_stream, peer, request, route, gzip)
            self._authorize(peer, request, route, proceed)

    def _upgrade(
        self, peer: Peer, request: Request, fields: Fields, rest: bytes, route: WebSocketRoute
    ) -> None:
        """Owner: check an upgrade request, and open the WebSocket once it is authorized."""
        try:
            acceptance = accept(
                fields,
                method=request.method,
                http_version=request.http_version,
                subprotocols=route.subprotocols,
                origins="*",  # the host policy checks the Origin, with advice for the log
                deflate=route.deflate,
            )
        except HandshakeError as error:
            raise with_proxy_advice(error, fields) from None
        self._host_policy.check_origin(request, fields, route.origins)
        proceed = partial(self._open_websocket, peer, request, rest, route, acceptance)
        if inspect.isgeneratorfunction(route.handler):
            proceed = partial(self._pass_gate, peer, request, route, proceed)
        self._authorize(peer, request, route, proceed)

    def _authorize(
        self,
        peer: Peer,
        request: Request,
        route: WebSocketRoute | EventRoute,
        proceed: Callable[[], None],
    ) -> None:
        """Owner: proceed at once, or as soon as the ``authorize`` of the route permits it."""
        if route.authorize is None:
            proceed()
            return
        # The key is the id, because a callable need not be hashable.
        profile = peer.loop.profile(id(route.authorize), None)
        Authorization(peer, profile, request, route, route.authorize, proceed).start()

    def _pass_gate(
        self,
        peer: Peer,
        request: Request,
        route: WebSocketRoute | EventRoute,
        proceed: Callable[[], None],
    ) -> None:
        """Owner: proceed as soon as a thread is free for the first turn of the handler."""
        needs_thread = peer.loop.profile(route, route.blocking).needs_thread()
        Gate(peer, request, route, needs_thread, proceed).start()

    def _thread_for(self, peer: Peer, route: WebSocketRoute | EventRoute) -> WorkerThread:
        """Owner: return a thread that a handler keeps for as long as its connection lasts."""
        worker = peer.loop.engage(peer, route)
        if worker is None:
            raise no_thread()
        return worker

    def _open_websocket(
        self,
        peer: Peer,
        request: Request,
        rest: bytes,
        route: WebSocketRoute,
        acceptance: Acceptance,
    ) -> None:
        """Owner: answer with 101, and start the WebSocket with the bytes that follow the head."""
        codec = Connection(
            Role.SERVER,
            max_message_size=route.max_message_size,
            deflate=acceptance.deflate,
            subprotocol=acceptance.subprotocol,
        )
        kind = GeneratorSession if inspect.isgeneratorfunction(route.handler) else ThreadSession
        profile = peer.loop.profile(route, route.blocking)
        session = kind(peer, profile, self._topics, codec, request, route.handler)
        head = acceptance.encode()
        worker = self._thread_for(peer, route) if kind is ThreadSession else None
        peer.switch(session)
        peer.record.subprotocol = acceptance.subprotocol
        peer.record.kind, peer.record.status = WEBSOCKET, 101
        peer.begin_answer(head)
        session.start(worker)
        if rest:
            session.data_received(memoryview(rest))

    def _open_stream(self, peer: Peer, request: Request, route: EventRoute, gzip: bool) -> None:
        """Owner: start an event stream, or answer HEAD, or a client whose stream has ended."""
        if last_event_id(request) == END:
            respond_without_content(peer, [("Cache-Control", "no-store")])
            return
        headers = list(peer.record.cors_headers)
        if route.compress:
            headers.append(("Vary", "Accept-Encoding"))
        if gzip:
            headers.append(("Content-Encoding", "gzip"))
        head = encode_stream_head(headers)
        if request.method == "HEAD":
            peer.record.status = 200
            peer.finish(head)
            return
        start = partial(self._start_stream, peer, request, route, gzip, head)
        if route.handler is None or inspect.isgeneratorfunction(route.handler):
            start()
        else:
            self._pass_gate(peer, request, route, start)

    def _start_stream(
        self, peer: Peer, request: Request, route: EventRoute, gzip: bool, head: bytes
    ) -> None:
        """Owner: answer with 200 and this head, and start the event stream."""
        profile = peer.loop.profile(route, route.blocking)
        session: EventStreamSession
        if route.handler is None:
            session = EventStreamSession(
                peer, profile, self._topics, request, route.topic, gzip=gzip
            )
        else:
            session = EventStreamHandler(
                peer, profile, self._topics, request, route.handler, gzip=gzip
            )
        head += session.opening()
        lasts = inspect.isgeneratorfunction(route.handler)
        worker = self._thread_for(peer, route) if lasts else None
        peer.switch(session)
        peer.record.kind, peer.record.status = EVENT_STREAM, 200
        peer.begin_answer(head)
        session.open(worker)

"""The dispatcher: the step from a request to a fixed answer or a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from wsframe import Connection, HandshakeError, Role
from wsframe.handshake import check_upgrade, negotiate, wants_upgrade
from wsframe.headers import encode_response
from wsframe.origins import check_host

from ..headers import Pairs, layered
from ..http.answers import refuse, respond, respond_without_content
from ..http.cors import cors_headers, preflight_headers
from ..http.host_policy import with_proxy_advice
from ..http.reader import RequestReader
from ..http.refusals import RefusalError, no_thread
from ..http.request import set_pattern, take_headers
from ..reports.refusals import AUTHORIZE, PATH
from ..reports.stats import EVENT_STREAM, WEBSOCKET
from ..sessions.eventstream_handler import EventStreamHandler
from ..sessions.eventstream_session import EventStreamSession, encode_stream_head
from ..sessions.generator import GeneratorSession
from ..sessions.gzipped import accepts_gzip
from ..sessions.resume import last_event_id
from ..sessions.thread import ThreadSession
from ..sockets.identities import identity_of
from ..sockets.session import NO_SESSION
from ..topics.ids import END
from .authorization import Authorization
from .gate import Gate
from .opening import Opening, stream_opening, websocket_opening
from .report import PendingReport
from .routes import EventRoute, PageRoute, ReportRoute, Routes, WebSocketRoute

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
        on_request: a function that is called with the peer as soon as the peer's request is
            complete.
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
        """Loop owner: read the request of a new connection, and answer it.

        Args:
            peer: the connection.
            timeout: seconds for the complete head of the request (``handshake_timeout``).
        """
        peer.open(self.reader(peer), timeout)

    def reader(self, peer: Peer) -> RequestReader:
        """Loop owner: return the session that reads the request of a connection, and answers it."""
        return RequestReader(peer, partial(self._dispatch, peer))

    def begin(self, peer: Peer, opening: Opening) -> None:
        """Loop owner: answer a request that a WSGI server has received and checked."""
        peer.open(NO_SESSION, inf)
        self._on_request(peer)
        request = peer.record.request = opening.request
        peer.record.headers = opening.headers
        try:
            self._proceed(peer, opening)
        except HandshakeError as error:
            refuse(peer, error, request=request, with_body=request.method != "HEAD")
        except Exception as error:
            peer.loop.report_error(error, peer)

    def _dispatch(self, peer: Peer, request: Request, fields: Fields, rest: memoryview) -> None:
        """Loop owner: answer the request by its route.

        Args:
            peer: the connection.
            request: its request.
            fields: the headers of the request.
            rest: the bytes received after the head.

        Raises:
            HandshakeError: the request is refused with this error.
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
            peer.record.headers = cors_headers(origin, route.origins)
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
            respond(
                peer,
                200,
                route.body,
                content_type=route.content_type,
                headers=route.headers,
                with_body=with_body,
            )
        elif isinstance(route, ReportRoute):
            PendingReport(peer, route, with_body).start()
        else:
            gzip = route.compress and accepts_gzip(fields)
            self._authorize(peer, stream_opening(request, route, gzip=gzip))

    def _upgrade(
        self, peer: Peer, request: Request, fields: Fields, rest: bytes, route: WebSocketRoute
    ) -> None:
        """Loop owner: check an upgrade request, and open the WebSocket once it is authorized."""
        try:
            key = check_upgrade(fields, request.method, request.http_version)
        except HandshakeError as error:
            raise with_proxy_advice(error, fields) from None
        self._host_policy.check_origin(request, fields, route.origins)
        acceptance = negotiate(fields, key, route.subprotocols, route.deflate)
        self._authorize(peer, websocket_opening(request, route, acceptance, rest))

    def _authorize(self, peer: Peer, opening: Opening) -> None:
        """Loop owner: proceed at once, or as soon as the ``authorize`` of the route permits it."""
        route = opening.route
        proceed = partial(self._proceed, peer, opening)
        if route.authorize is None:
            proceed()
            return
        # The key is the id of the hook, because a callable need not be hashable.
        profile = peer.loop.profile(id(route.authorize), None)
        Authorization(peer, profile, opening.request, route, route.authorize, proceed).start()

    def _proceed(self, peer: Peer, opening: Opening) -> None:
        """Loop owner: open the connection, or answer a request that needs no session."""
        if opening.acceptance is None:
            self._open_stream(peer, opening)
        elif opening.generator:
            self._pass_gate(peer, opening, partial(self._open_websocket, peer, opening))
        else:
            self._open_websocket(peer, opening)

    def _pass_gate(self, peer: Peer, opening: Opening, proceed: Callable[[], None]) -> None:
        """Loop owner: proceed as soon as a thread is free for the first turn of the handler."""
        route = opening.route
        needs_thread = peer.loop.profile(route, route.blocking).needs_thread()
        Gate(peer, opening.request, route, needs_thread, proceed).start()

    def _thread_for(self, peer: Peer, opening: Opening) -> WorkerThread:
        """Loop owner: return a thread that a handler keeps for as long as its connection lasts."""
        worker = peer.loop.engage(peer, opening.route)
        if worker is None:
            raise no_thread()
        return worker

    def _identity(self, opening: Opening) -> str | None:
        """Loop owner: return the identity of a request; None without one.

        Raises:
            RefusalError: it was closed after the request had arrived, and perhaps been authorized.
        """
        identity = identity_of(opening.request.identity)
        if identity and self._topics.closings.closed_since(identity, opening.arrived):
            advice = "The application has closed the identity since the request arrived."
            raise RefusalError(403, "forbidden", kind=AUTHORIZE, advice=advice)
        return identity

    def _open_websocket(self, peer: Peer, opening: Opening) -> None:
        """Loop owner: answer with 101, and start the WebSocket with the bytes after the head."""
        request, route, acceptance = opening.request, opening.route, opening.acceptance
        assert acceptance is not None
        assert opening.handler is not None
        assert isinstance(route, WebSocketRoute)
        codec = Connection(
            Role.SERVER,
            max_message_size=route.max_message_size,
            deflate=acceptance.deflate,
            subprotocol=acceptance.subprotocol,
        )
        identity = self._identity(opening)
        kind = GeneratorSession if opening.generator else ThreadSession
        profile = peer.loop.profile(route, route.blocking)
        session = kind(peer, profile, self._topics, codec, request, opening.handler)
        further = _further_headers(peer, opening)
        head = encode_response(101, layered(acceptance.headers, *further))
        worker = None if opening.generator else self._thread_for(peer, opening)
        peer.switch(session)
        peer.record.subprotocol = acceptance.subprotocol
        peer.record.kind, peer.record.status = WEBSOCKET, 101
        peer.limit_age()
        peer.clients.identities.assign(peer, identity)
        peer.begin_answer(head)
        peer.loop.expect_data()
        session.start(worker)
        if opening.rest:
            session.data_received(memoryview(opening.rest))

    def _open_stream(self, peer: Peer, opening: Opening) -> None:
        """Loop owner: start an event stream, or answer HEAD, or a client whose stream has ended."""
        request, route = opening.request, opening.route
        assert isinstance(route, EventRoute)
        if last_event_id(request) == END:
            respond_without_content(peer, [("Cache-Control", "no-store")])
            return
        vary = [("Vary", "Accept-Encoding")] if route.compress else []
        coding = [("Content-Encoding", "gzip")] if opening.gzip else []
        head = encode_stream_head(*_further_headers(peer, opening), vary, coding)
        if request.method == "HEAD":
            peer.record.status = 200
            peer.finish(head)
            return
        start = partial(self._start_stream, peer, opening, head)
        if opening.handler is None or opening.generator:
            start()
        else:
            self._pass_gate(peer, opening, start)

    def _start_stream(self, peer: Peer, opening: Opening, head: bytes) -> None:
        """Loop owner: answer with 200 and this head, and start the event stream."""
        request, route = opening.request, opening.route
        assert isinstance(route, EventRoute)
        identity = self._identity(opening)
        profile = peer.loop.profile(route, route.blocking)
        session: EventStreamSession
        if opening.handler is None:
            session = EventStreamSession(
                *(peer, profile, self._topics, request),
                gzip=opening.gzip,
                heartbeat=route.heartbeat,
            )
            start = partial(session.open, opening.topic)
        else:
            session = EventStreamHandler(
                *(peer, profile, self._topics, request, opening.handler),
                gzip=opening.gzip,
                heartbeat=route.heartbeat,
            )
            worker = self._thread_for(peer, opening) if opening.generator else None
            start = partial(session.start_handler, worker)
        head += session.opening()
        peer.switch(session)
        peer.record.kind, peer.record.status = EVENT_STREAM, 200
        peer.limit_age()
        peer.clients.identities.assign(peer, identity)
        peer.begin_answer(head)
        start()


def _further_headers(peer: Peer, opening: Opening) -> tuple[Pairs, Pairs, Pairs]:
    """Loop owner, once: return the headers to add to the 101 or 200, the most specific first.

    They are those of the request, of the route and of the settings.
    """
    of_request = (*peer.record.headers, *take_headers(opening.request))
    return of_request, opening.route.headers, peer.clients.headers

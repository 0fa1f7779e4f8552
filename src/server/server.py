"""A server that runs: its loop, its listeners, the threads of its handlers, and its end."""

from __future__ import annotations

import inspect
import os
import socket
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from time import monotonic
from urllib.parse import quote

from wsframe import Acceptance, Connection, HandshakeError, Role, accept
from wsframe.fields import Fields, encode_response
from wsframe.handshake import wants_upgrade
from wsframe.origins import check_host

from .dispatch.authorization import Authorization
from .dispatch.gate import Gate
from .dispatch.metrics import PendingMetrics
from .dispatch.routes import EventRoute, MetricsRoute, PageRoute, Routes, WebSocketRoute
from .forks import disconnect, give_up_in_children
from .handoff.loop import READ, Loop
from .handoff.monitor import Monitor
from .handoff.threads import Threads, Worker, has_gil
from .http.audience import Audience, explained
from .http.cors import preflight, sharing
from .http.hosts import hosts_of
from .http.proxies import UNIX, Proxies
from .http.refusals import RefusalError, no_thread
from .http.request import Request, RequestReader, respond, respond_without_content
from .reports.loggers import background
from .reports.refusals import CONNECTIONS, PATH
from .reports.stats import EVENT_STREAM, WEBSOCKET, Stats, of_loop, total
from .sessions.eventstream import EventStreamSession, encode_stream_head
from .sessions.generator import GeneratorSession
from .sessions.gzipped import accepts_gzip
from .sessions.resume import last_event_id
from .sessions.thread import ThreadSession
from .settings import Settings
from .sockets.admission import Admission, origin_of
from .sockets.certificate import tls_context
from .sockets.listener import BACKLOG, Listener, bound_buffers
from .sockets.peer import Peer
from .sockets.tls import TLSPeer
from .sockets.unix import UnixFile
from .timing import Timing, waitable
from .topics.ids import END
from .topics.registry import Topics

NO_ROOM = encode_response(
    503,
    [("Retry-After", "5"), ("Content-Length", "0"), ("Connection", "close")],
)


class Server:
    """What :meth:`wsframe.server.App.start` returns: a server that runs in threads of its own.

    A context manager; leaving it stops the server.

    Attributes:
        host: the name or address it was given; "" where it listens on a unix socket.
        port: the one it listens on; 0 then.
        settings: what else it was told.
        loops: its I/O loops.
    """

    def __init__(
        self,
        routes: Routes,
        host: str,
        sockets: Sequence[socket.socket],
        settings: Settings,
        topics: Topics,
        timing: Timing,
        file: UnixFile | None = None,
    ) -> None:
        self._tls = tls_context(settings)
        for sock in sockets:
            bound_buffers(sock, settings.socket_buffer)
            sock.listen(BACKLOG)
        self.host = host
        self.port: int = sockets[0].getsockname()[1] if file is None else 0
        self._file = file
        self.settings = settings
        self._timing = timing
        self._started = monotonic()
        self._routes = routes
        self._topics = topics
        self._proxies = Proxies(settings.trusted_proxies)
        self._audience = Audience(self._proxies, hosts_of(settings.hosts, host, sockets))
        self._monitor = Monitor(timing)
        self._admission = Admission(settings.max_connections, settings.max_handshakes_per_address)
        loops = settings.loops or natural_loops()
        self._threads = Threads(settings, loops, timing)
        left = self._admission.leave
        self.loops = tuple(
            Loop(settings, timing, self._threads, self._monitor, left, topics, self._origin)
            for _ in range(loops)
        )
        self._next_loop = cycle(self.loops)
        self._listeners = [Listener(self.loops[0], sock, self._accepted) for sock in sockets]
        self._lock = threading.Lock()  # for _stopping
        self._stopping = False
        self._stopped = threading.Event()
        give_up_in_children(self)
        with ExitStack() as undo:  # if the system has no thread left for one of these
            for listener in self._listeners:
                undo.callback(listener.discard)
            for loop in self.loops:
                undo.callback(loop.discard)
            undo.callback(lambda: self._threads.close(monotonic() + self._timing.cut_off))
            for loop in self.loops:
                loop.start()
                undo.callback(loop.stop, self._timing.cut_off)
            self._monitor.start(self.loops)
            undo.callback(self._monitor.stop)
            topics.begin()
            undo.callback(topics.end, 0.0)
            undo.pop_all()
        for listener in self._listeners:
            self.loops[0].call_soon(listener.open)

    @property
    def url(self) -> str:
        """Any thread: where the server is, as in "http://localhost:9292".

        Of a unix socket it is "http+unix://" and the percent-encoded path.
        """
        if self._file is not None:
            scheme = "http" if self._tls is None else "https"
            return f"{scheme}+unix://{quote(self._file.path, safe='')}"
        return url(self.host, self.port, secured=self._tls is not None)

    @property
    def running(self) -> bool:
        """Any thread: whether it has not stopped yet."""
        return not self._stopped.is_set()

    def stats(self) -> Stats:
        """Any thread: what the server has done and does, in numbers."""
        workers, handlers = self._threads.counts()
        return replace(
            total(map(of_loop, self.loops)),
            uptime=monotonic() - self._started,
            threads=workers + self._topics.sources.running() + 1,  # the monitor's
            handlers_in_threads=handlers,
        )

    def __enter__(self) -> Server:
        """Any thread: the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Any thread but those of the server: stop."""
        self.stop()

    def stop(self, drain: float | None = None, *, spread: float = 0.0) -> None:
        """Any thread but those of the server: stop, and return when all is over.

        No connection is accepted any more, WebSockets are closed with 1001, event streams end, and
        the handlers are told. What is not over after ``drain`` seconds is cut off. Stopping twice
        waits for the first.

        Args:
            drain: how long to wait for clients and handlers, in seconds; by default what the server
                was started with.
            spread: over how many seconds to tell the clients, one after the other in random order,
                so that they do not come back all at once. A client whose turn has not come is
                served on, its handler hears of nothing, and ``drain`` does not wait for it either.

        Raises:
            ValueError: the spread is negative.
            RuntimeError: a handler calls it.
        """
        if spread < 0:
            raise ValueError(f"spread must not be negative: {spread!r}")
        if self._threads.running_here():
            raise RuntimeError("a handler cannot wait for its own end; stop from another thread")
        with self._lock:
            first, self._stopping = not self._stopping, True
        if not first:
            self._stopped.wait()
            return
        deadline = monotonic() + waitable(self.settings.drain if drain is None else drain)
        gone = [threading.Event() for _ in self.loops]
        try:
            if self._file is not None:
                self._file.remove()
            for listener in self._listeners:
                self.loops[0].call_soon(listener.close)
            self._topics.catch_up(max(0.0, deadline - monotonic()))
            # Behind what the listeners have dealt out before.
            self.loops[0].call_soon(partial(self._say_goodbye, spread, gone))
            _wait_for_all(gone, deadline)
        finally:
            self._topics.end(max(0.0, deadline - monotonic()))
            for loop in self.loops:
                loop.call_soon(partial(loop.for_each_peer, Peer.abort))
            _wait_for_all(gone, max(deadline, monotonic() + self._timing.cut_off))
            for loop in self.loops:
                loop.stop(self._timing.cut_off)
            self._monitor.stop()
            self._threads.close(max(deadline, monotonic() + self._timing.cut_off))
            background.close(self._timing.log_flush)
            self._stopped.set()

    def after_fork(self) -> None:
        """The child of a fork: the server runs in the parent; here it has stopped."""
        self._stopping = True
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()
        for loop in self.loops:
            loop.after_fork()
        self._threads.after_fork()

    # Owner ------------------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, address: object) -> None:
        """Owner of the first loop: deal a connection to a loop."""
        if self._file is not None and not address:
            address = self._file.path  # the clients of a unix socket rarely have one
        loop = next(self._next_loop)
        if self._tls is None:
            peer = Peer(loop, sock, address)
        else:
            peer = TLSPeer(loop, sock, address, self._tls)
        if not self._admission.enter(peer):
            self._turn_away(sock, address)
        elif loop.owned():
            self._connected(peer)
        else:
            loop.call_soon(partial(self._connected, peer))

    def _turn_away(self, sock: socket.socket, address: object) -> None:
        """Owner of the first loop: let a client go, and tell it why if that costs little."""
        loop = self.loops[0]
        loop.refusals.count(503, CONNECTIONS)
        peer = Peer(loop, sock, address)
        if self._tls is not None:
            disconnect(sock)
        elif self._admission.may_linger(peer):
            loop.add(peer)
            peer.finish(NO_ROOM)
        else:
            with suppress(OSError):
                sock.send(NO_ROOM)
            disconnect(sock)

    def _connected(self, peer: Peer) -> None:
        peer.open(RequestReader(peer, partial(self._answer, peer)), self.settings.handshake_timeout)
        peer.loop.survive(peer.ready, READ)  # what is asked is often there already

    def _answer(self, peer: Peer, request: Request, fields: Fields, rest: memoryview) -> None:
        """Answer the request on its route, or hand the connection to what its route speaks."""
        self._admission.has_asked(peer)
        peer.request = request
        if request.http_version not in ("1.0", "1.1"):
            raise HandshakeError(505, "HTTP/1.1 is spoken here")
        if request.http_version == "1.1" or fields.items("host"):
            check_host(fields)
        fields = self._audience.addressed(request, fields)
        found = self._routes.find(request.path, wants_upgrade(fields))
        if found is None:
            advice = "No route has this path."
            raise RefusalError(404, "nothing is here", kind=PATH, advice=advice)
        route, request.pattern = found
        if isinstance(route, WebSocketRoute):
            self._upgrade(peer, request, fields, rest, route)
            return
        if isinstance(route, EventRoute):
            origin = self._audience.check_origin(request, fields, route.origins)
            peer.sharing = sharing(origin, route.origins)
            allowed = preflight(request.method, fields) if route.origins else None
            if allowed is not None:
                respond_without_content(peer, allowed)
                return
        if request.method not in ("GET", "HEAD"):
            raise HandshakeError(405, "this resource is only read", [("Allow", "GET, HEAD")])
        with_body = request.method == "GET"
        if isinstance(route, PageRoute):
            respond(peer, 200, route.body, content_type=route.content_type, with_body=with_body)
        elif isinstance(route, MetricsRoute):
            PendingMetrics(peer, with_body).enter(route)
        else:
            gzip = route.compress and accepts_gzip(fields)
            go_on = partial(self._open_stream, peer, request, route, gzip)
            self._authorize(peer, request, route, go_on)

    def _upgrade(
        self,
        peer: Peer,
        request: Request,
        fields: Fields,
        rest: memoryview,
        route: WebSocketRoute,
    ) -> None:
        try:
            acceptance = accept(
                fields,
                method=request.method,
                http_version=request.http_version,
                subprotocols=route.subprotocols,
                origins="*",  # which is checked with advice for the log
                deflate=route.deflate,
            )
        except HandshakeError as error:
            raise explained(error, fields) from None
        self._audience.check_origin(request, fields, route.origins)
        go_on = partial(self._open_websocket, peer, request, bytes(rest), route, acceptance)
        if inspect.isgeneratorfunction(route.handler):
            go_on = partial(self._pass_gate, peer, request, route, go_on)
        self._authorize(peer, request, route, go_on)

    def _authorize(
        self,
        peer: Peer,
        request: Request,
        route: WebSocketRoute | EventRoute,
        go_on: Callable[[], None],
    ) -> None:
        """Go on at once, or when the application has said that it may be so."""
        if route.authorize is None:
            go_on()
            return
        habit = peer.loop.habit(id(route.authorize), None)  # it may have no hash
        Authorization(peer, habit, request, route, route.authorize, go_on).enter()

    def _pass_gate(
        self,
        peer: Peer,
        request: Request,
        route: WebSocketRoute | EventRoute,
        go_on: Callable[[], None],
    ) -> None:
        """Go on as soon as a thread is free for the first turn of the handler."""
        credit = peer.loop.habit(route, route.blocking).credit()
        Gate(peer, request, route, credit, go_on).enter()

    def _thread_for(self, peer: Peer, route: WebSocketRoute | EventRoute) -> Worker:
        """Return a thread for a handler that keeps it for as long as the connection lasts."""
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
        codec = Connection(
            Role.SERVER,
            max_message_size=route.max_message_size,
            deflate=acceptance.deflate,
            subprotocol=acceptance.subprotocol,
        )
        kind = GeneratorSession if inspect.isgeneratorfunction(route.handler) else ThreadSession
        session = kind(peer, peer.loop.habit(route, route.blocking), codec, request, route.handler)
        head = acceptance.encode()
        worker = self._thread_for(peer, route) if kind is ThreadSession else None
        peer.switch(session)
        peer.subprotocol = acceptance.subprotocol
        peer.begin_answer(WEBSOCKET, 101, head)
        session.begin(worker)
        if rest:
            session.data_received(memoryview(rest))

    def _open_stream(self, peer: Peer, request: Request, route: EventRoute, gzip: bool) -> None:
        if last_event_id(request) == END:
            respond_without_content(peer, [("Cache-Control", "no-store")])
            return
        headers = list(peer.sharing)
        if route.compress:
            headers.append(("Vary", "Accept-Encoding"))
        if gzip:
            headers.append(("Content-Encoding", "gzip"))
        head = encode_stream_head(headers)
        if request.method == "HEAD":
            peer.status = 200
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
        habit = peer.loop.habit(route, route.blocking)
        session = EventStreamSession(peer, habit, request, route.topic, route.handler, gzip=gzip)
        head += session.opening()
        lasts = inspect.isgeneratorfunction(route.handler)
        worker = self._thread_for(peer, route) if lasts else None
        peer.switch(session)
        peer.begin_answer(EVENT_STREAM, 200, head)
        session.start(worker)

    def _origin(self, peer: Peer) -> Hashable:
        """Any thread: which client address the threads that work for this connection count for.

        None for a unix socket, and for a trusted proxy that does not report the address.
        """
        client = peer.request.client if peer.request is not None else UNIX
        if client == UNIX or self._proxies.trust(client):
            return None
        return origin_of((client,))

    def _say_goodbye(self, spread: float, gone: list[threading.Event]) -> None:
        """Owner of the first loop: have every loop tell its clients."""
        for number, (loop, event) in enumerate(zip(self.loops, gone, strict=True)):
            loop.call_soon(partial(loop.say_goodbye, spread, number / len(self.loops)))
            loop.call_soon(partial(loop.when_empty, event.set))


def url(host: str, port: int, *, secured: bool) -> str:
    """Where a server is that listens there."""
    host = host or "localhost"
    return f"{'https' if secured else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def natural_loops() -> int:
    """As many loops as can run at once: one where there is a GIL."""
    return 1 if has_gil() else os.cpu_count() or 1


def _wait_for_all(events: Iterable[threading.Event], deadline: float) -> None:
    for event in events:
        event.wait(max(0.0, deadline - monotonic()))

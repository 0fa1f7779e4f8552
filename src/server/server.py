"""A server that runs: its loop, its listeners, the threads of its handlers, and its end."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import TracebackType

from wsframe import Connection, HandshakeError, Role, accept
from wsframe.handshake import check_host

from .eventstream import EventStreamSession, Feed, encode_stream_head
from .handlers import GeneratorSession, ThreadSession
from .http import Request, RequestReader, respond
from .listener import Listener, bind
from .loop import Loop
from .peer import Peer, Protocol
from .routes import EventRoute, PageRoute, Routes, WebSocketRoute
from .threads import HandlerThreads
from .websocket import WebSocketSession

# How long handlers, and then the loop, have to end when all are cut off, in seconds.
CUT_OFF_TIME = 1.0


class Server:
    """What :meth:`wsframe.server.App.start` returns: a server that runs in threads of its own.

    A context manager; leaving it stops the server.

    Attributes:
        host: the name or address it was given.
        port: the one it listens on.
        loop: its I/O loop.
    """

    def __init__(
        self,
        routes: Routes,
        host: str,
        port: int,
        *,
        drain: float,
        handshake_timeout: float,
        send_timeout: float,
    ) -> None:
        sockets = bind(host, port)
        self.host = host
        self.port: int = sockets[0].getsockname()[1]
        self.loop = Loop(send_timeout)
        self._routes = routes
        self._drain = drain
        self._handshake_timeout = handshake_timeout
        self._listeners = [Listener(self.loop, sock, self._connected) for sock in sockets]
        self._feeds = {
            route: Feed(self.loop, route.source)
            for route in routes.event_routes()
            if route.source is not None
        }
        self._threads = HandlerThreads(self.loop)
        self._lock = threading.Lock()  # for _stopping
        self._stopping = False
        self._stopped = threading.Event()
        self.loop.start()
        for feed in self._feeds.values():
            feed.start()
        for listener in self._listeners:
            self.loop.call_soon(listener.open)

    @property
    def url(self) -> str:
        """Any thread: where the server is, as in "http://localhost:9292"."""
        host = self.host or "localhost"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> Server:
        """Any thread: the server itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Any thread but those of the server: stop."""
        self.stop()

    def stop(self, drain: float | None = None) -> None:
        """Any thread but those of the server: stop, and return when all is over.

        No connection is accepted any more, WebSockets are closed with 1001, event streams end, and
        the handlers are told. What is not over after ``drain`` seconds is cut off. Stopping twice
        waits for the first.

        Args:
            drain: how long to wait for clients and handlers, in seconds; by default what the server
                was started with.

        Raises:
            RuntimeError: a handler calls it.
        """
        if self.loop.owned() or self._threads.running_here():
            raise RuntimeError("a handler cannot wait for its own end; stop from another thread")
        with self._lock:
            first, self._stopping = not self._stopping, True
        if not first:
            self._stopped.wait()
            return
        deadline = monotonic() + (self._drain if drain is None else drain)
        try:
            for feed in self._feeds.values():
                feed.stop()
            gone = threading.Event()
            self.loop.call_soon(lambda: self._say_goodbye(gone))
            gone.wait(max(0.0, deadline - monotonic()))
        finally:
            self.loop.call_soon(lambda: self.loop.for_each_peer(Peer.abort))
            self._threads.join(max(deadline, monotonic() + CUT_OFF_TIME))
            self.loop.stop(CUT_OFF_TIME)
            self._stopped.set()

    # Owner ------------------------------------------------------------------------------------

    def _connected(self, sock: socket.socket, address: object) -> None:
        peer = Peer(self.loop, sock, address)
        reader = RequestReader(peer, lambda request, rest: self._answer(peer, request, rest))
        peer.open(reader, self._handshake_timeout)

    def _answer(self, peer: Peer, request: Request, rest: memoryview) -> None:
        """Answer the request on its route, or hand the connection to what its route speaks."""
        if request.http_version not in ("1.0", "1.1"):
            raise HandshakeError(505, "HTTP/1.1 is spoken here")
        if request.http_version == "1.1" or "Host" in request.headers:
            check_host(request.headers.items())
        found = self._routes.find(request.path, request.wants_upgrade())
        if found is None:
            raise HandshakeError(404, "nothing is here")
        route, request.parameters = found
        if isinstance(route, WebSocketRoute):
            self._upgrade(peer, request, rest, route)
            return
        if request.method not in ("GET", "HEAD"):
            raise HandshakeError(405, "this resource is only read", [("Allow", "GET, HEAD")])
        with_body = request.method == "GET"
        if isinstance(route, PageRoute):
            respond(peer, 200, route.body, content_type=route.content_type, with_body=with_body)
        elif with_body:
            self._open_stream(peer, request, route)
        else:
            peer.finish(encode_stream_head())

    def _upgrade(
        self, peer: Peer, request: Request, rest: memoryview, route: WebSocketRoute
    ) -> None:
        acceptance = accept(
            request.headers.items(),
            method=request.method,
            http_version=request.http_version,
            subprotocols=route.subprotocols,
            origins=route.origins,
            deflate=route.deflate,
        )
        codec = Connection(
            Role.SERVER,
            max_message_size=route.max_message_size,
            deflate=acceptance.deflate,
            subprotocol=acceptance.subprotocol,
        )
        session: WebSocketSession
        if inspect.isgeneratorfunction(route.handler):
            session = GeneratorSession(peer, codec, request)
        else:
            session = ThreadSession(peer, codec, request, self._threads)
        self._begin(peer, session, acceptance.encode(), partial(session.start, route.handler))
        if rest:
            session.data_received(rest)

    def _open_stream(self, peer: Peer, request: Request, route: EventRoute) -> None:
        session = EventStreamSession(peer, request, self._feeds.get(route), self._threads)
        self._begin(peer, session, encode_stream_head(), partial(session.start, route.handler))

    def _begin(
        self,
        peer: Peer,
        session: Protocol,
        head: bytes,
        start: Callable[[], None],
    ) -> None:
        peer.switch(session)
        peer.out.append(head)
        try:
            start()
        except RuntimeError:
            peer.out.clear()
            raise HandshakeError(
                503, "no thread is left for this", [("Retry-After", "5")]
            ) from None

    def _say_goodbye(self, gone: threading.Event) -> None:
        for listener in self._listeners:
            listener.close()
        self.loop.for_each_peer(Peer.shut_down)
        self.loop.when_empty(gone.set)

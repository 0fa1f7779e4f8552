"""A server that runs: its loop, its listeners, the threads of its handlers, and its end."""

from __future__ import annotations

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

from wsframe.fields import encode_response

from .addresses import UNIX, client_network
from .dispatch.dispatcher import Dispatcher
from .dispatch.routes import Routes
from .forks import disconnect, release_in_children
from .handoff.loop import READ, Loop
from .handoff.monitor import Monitor
from .handoff.threads import Threads, has_gil
from .hosts import hosts_of
from .http.answers import refuse_plain_http
from .http.host_policy import HostPolicy
from .http.proxies import Proxies
from .logs import access
from .reports.loggers import background
from .reports.refusals import CONNECTIONS
from .reports.stats import Stats, total
from .settings import Settings
from .sockets.admission import Admission
from .sockets.certificate import tls_context
from .sockets.clients import Clients
from .sockets.listener import BACKLOG, Listener, bound_buffers, prepare
from .sockets.peer import Peer
from .sockets.tls import TLSPeer
from .sockets.unix import UnixFile
from .timing import Timing, waitable
from .topics.registry import Topics

SERVICE_UNAVAILABLE = encode_response(
    503,
    [("Retry-After", "5"), ("Content-Length", "0"), ("Connection", "close")],
)


class Server:
    """What :meth:`wsframe.server.App.start` returns: a server that runs in threads of its own.

    A context manager; leaving it stops the server.

    Attributes:
        host: the name or address it was given; "" where it listens on a unix socket.
        port: the one it listens on; 0 for a unix socket, or without a listener.
        settings: what else it was told.
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
        self.port: int = sockets[0].getsockname()[1] if sockets and file is None else 0
        self._file = file
        self.settings = settings
        self._timing = timing
        self._started = monotonic()
        self._topics = topics
        self._proxies = Proxies(settings.trusted_proxies)
        self._monitor = Monitor(timing)
        self._admission = Admission(settings.max_connections, settings.max_handshakes_per_address)
        host_policy = HostPolicy(self._proxies, hosts_of(settings.hosts, host, sockets))
        self._dispatcher = Dispatcher(routes, host_policy, topics, self._admission.has_asked)
        loops = settings.loops or default_loop_count()
        self._threads = Threads(
            loops,
            timing,
            max_threads=settings.max_threads,
            max_handler_threads=settings.max_handler_threads,
            reserve_threads=settings.reserve_threads,
            max_thread_share=settings.max_thread_share,
        )
        self._loops = tuple(Loop(timing, self._threads, self._monitor) for _ in range(loops))
        self._clients = tuple(
            Clients(loop, settings, self._disconnected, self._network_of) for loop in self._loops
        )
        for loop in self._loops:
            topics.add_loop(loop)
            loop.at_end(partial(topics.remove_loop, loop))
        self._next_clients = cycle(self._clients)
        self._listeners = [Listener(self._loops[0], sock, self._accepted) for sock in sockets]
        self._lock = threading.Lock()  # for _stopping
        self._stopping = False
        self._stopped = threading.Event()
        release_in_children(self)
        with ExitStack() as undo:  # if the system has no thread left for one of these
            for listener in self._listeners:
                undo.callback(listener.discard)
            for loop in self._loops:
                undo.callback(loop.discard)
            undo.callback(lambda: self._threads.close(monotonic() + self._timing.handler_grace))
            for loop in self._loops:
                loop.start()
                undo.callback(loop.stop, self._timing.handler_grace)
            self._monitor.start(self._loops)
            undo.callback(self._monitor.stop)
            topics.begin()
            undo.callback(topics.end, 0.0)
            undo.pop_all()
        for listener in self._listeners:
            self._loops[0].call_soon(listener.open)

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
            total(clients.stats() for clients in self._clients),
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
        gone = [threading.Event() for _ in self._loops]
        try:
            if self._file is not None:
                self._file.remove()
            for listener in self._listeners:
                self._loops[0].call_soon(listener.close)
            self._topics.catch_up(max(0.0, deadline - monotonic()))
            # Behind what the listeners have dealt out before.
            self._loops[0].call_soon(partial(self._shut_down_paced, spread, gone))
            _wait_for_all(gone, deadline)
        finally:
            self._topics.end(max(0.0, deadline - monotonic()))
            for clients in self._clients:
                clients.loop.call_soon(partial(clients.for_each_peer, Peer.abort))
            _wait_for_all(gone, max(deadline, monotonic() + self._timing.handler_grace))
            for loop in self._loops:
                loop.stop(self._timing.handler_grace)
            self._monitor.stop()
            self._threads.close(max(deadline, monotonic() + self._timing.handler_grace))
            background.close(self._timing.log_flush_timeout)
            self._stopped.set()

    def adopt(self, sock: socket.socket, address: object) -> None:
        """Any thread: serve the client of a socket that was accepted elsewhere.

        The server owns the socket from here on, and closes it. This is engine-level: bytes that
        were read from the socket before are lost.

        Args:
            sock: a connected stream socket, from which nothing has been read. With a certificate
                in the settings, the client is expected to begin a TLS handshake.
            address: the client's address, as ``accept`` returns it.

        Raises:
            RuntimeError: the server stops, or has stopped; the socket remains the caller's.
        """
        prepare(sock)
        with self._lock:  # stop() closes only the connections that were queued before it
            if self._stopping:
                raise RuntimeError("the server is shutting down and adopts no connections")
            self._loops[0].call_soon(partial(self._accepted, sock, address))

    def call_when_each_loop_turns(self, function: Callable[[], object]) -> None:
        """Any thread: call this once every loop has run a call, in the thread of the last.

        This is engine-level: it shows whether a handler holds one of the loops.
        """
        remaining = [None] * len(self._loops)

        def turned() -> None:
            remaining.pop()
            if not remaining:
                function()

        for loop in self._loops:
            loop.call_soon(turned)

    def after_fork(self) -> None:
        """The child of a fork: the server runs in the parent; here it has stopped."""
        self._stopping = True
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()
        for loop in self._loops:
            loop.after_fork()
        for clients in self._clients:
            clients.after_fork()
        self._threads.after_fork()

    # Owner ------------------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, address: object) -> None:
        """Owner of the first loop: deal a connection to a loop."""
        if self._file is not None and not address:
            address = self._file.path  # the clients of a unix socket rarely have one
        clients = next(self._next_clients)
        if self._tls is None:
            peer = Peer(clients, sock, address)
        else:
            peer = TLSPeer(clients, sock, address, self._tls, refuse_plain_http)
        if not self._admission.enter(peer):
            self._reject(sock, address)
        elif peer.loop.owned():
            self._connected(peer)
        else:
            peer.loop.call_soon(partial(self._connected, peer))

    def _reject(self, sock: socket.socket, address: object) -> None:
        """Owner of the first loop: let a client go, and tell it why if that costs little."""
        clients = self._clients[0]
        clients.refusals.count(503, CONNECTIONS)
        peer = Peer(clients, sock, address)
        if self._tls is not None:
            disconnect(sock)
        elif self._admission.may_linger(peer):
            clients.add(peer)
            peer.finish(SERVICE_UNAVAILABLE)
        else:
            with suppress(OSError):
                sock.send(SERVICE_UNAVAILABLE)
            disconnect(sock)

    def _connected(self, peer: Peer) -> None:
        self._dispatcher.open(peer, self.settings.handshake_timeout)
        peer.loop.survive(peer.ready, READ)  # the request has often arrived already

    def _disconnected(self, peer: Peer) -> None:
        """Owner of its loop: a connection has ended."""
        self._admission.leave(peer)
        access.log_connection(peer)

    def _network_of(self, peer: Peer) -> Hashable:
        """Any thread: which client address the threads that work for this connection count for.

        None for a unix socket, and for a trusted proxy that does not report the address.
        """
        request = peer.record.request
        client = request.client if request is not None else UNIX
        return None if self._proxies.trust(client) else client_network(client)

    def _shut_down_paced(self, spread: float, gone: list[threading.Event]) -> None:
        """Owner of the first loop: have every loop tell its clients."""
        for number, (clients, event) in enumerate(zip(self._clients, gone, strict=True)):
            phase = number / len(self._clients)
            clients.loop.call_soon(partial(clients.shut_down_paced, spread, phase))
            clients.loop.call_soon(partial(clients.when_empty, event.set))


def url(host: str, port: int, *, secured: bool) -> str:
    """Where a server is that listens there."""
    host = host or "localhost"
    return f"{'https' if secured else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def default_loop_count() -> int:
    """As many loops as can run at once: one where there is a GIL."""
    return 1 if has_gil() else os.cpu_count() or 1


def _wait_for_all(events: Iterable[threading.Event], deadline: float) -> None:
    for event in events:
        event.wait(max(0.0, deadline - monotonic()))

"""A running server: the creation of its parts, its start and its stop."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from time import monotonic

from .addresses import UNIX, TrustedNetworks, client_network, client_of
from .dispatch.dispatcher import Dispatcher
from .dispatch.opening import Opening
from .dispatch.routes import Routes
from .forks import disconnect, release_in_children
from .handoff.loop import READ, Loop
from .handoff.monitor import Monitor
from .handoff.patches import check_patches
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
from .sockets.admission import Admission, unavailable
from .sockets.certificate import tls_context
from .sockets.clients import Clients
from .sockets.handshakes import Handshakes
from .sockets.listener import BACKLOG, Listener, bound_buffers, disable_delay
from .sockets.listening import Listening
from .sockets.peer import Peer
from .sockets.proxied import ProxiedConnections
from .sockets.secured import SecuredPeer, SecureSocket, is_secured
from .sockets.sink import Sinks
from .sockets.snapshot import ConnectionInfo, connections_of
from .sockets.tls import TLSPeer
from .timing import Timing, waitable
from .topics.registry import Topics


class Server:
    """A server that runs in its own threads; :meth:`wsframe.server.App.start` returns one.

    The server is a context manager, which stops it at the end of the ``with`` block.

    >>> with App().start(port=0, drain=1) as server:
    ...     server.url
    'http://localhost:...'
    >>> server.running
    False

    Attributes:
        host: the name or address that the server was started with; "" for a unix socket.
        port: the port that the server listens on; 0 for a unix socket.
        settings: the settings of the server.
    """

    def __init__(
        self,
        routes: Routes,
        listening: Listening,
        settings: Settings,
        topics: Topics,
        timing: Timing,
    ) -> None:
        check_patches()
        self._tls = tls_context(settings)
        self._handshakes = Handshakes()
        for sock in listening.sockets:
            bound_buffers(sock, settings.socket_buffer)
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.listen(BACKLOG)
        self.host: str = listening.host
        self.port: int = listening.port
        self._listening = listening
        self.settings = settings
        self._timing = timing
        self._started = monotonic()
        self._topics = topics
        self._proxies = Proxies(settings.trusted_proxies)
        self._monitor = Monitor(timing)
        self._admission = Admission(settings.max_connections, settings.max_handshakes_per_address)
        hosts = hosts_of(settings.hosts, listening.host, listening.sockets)
        host_policy = HostPolicy(self._proxies, hosts)
        self._dispatcher = Dispatcher(routes, host_policy, topics, self._admission.request_complete)
        self._proxied = ProxiedConnections(
            TrustedNetworks(settings.proxy_protocol, "proxy_protocol"),
            self._admission,
            self._dispatcher.reader,
        )
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
            Clients(loop, settings, self._disconnected, self._network_of, topics.closings.follow)
            for loop in self._loops
        )
        self._sinks = Sinks(self._loops[0])
        for loop in self._loops:
            topics.add_loop(loop)
            loop.at_end(partial(topics.remove_loop, loop))
        for clients in self._clients:
            close = clients.identities.close_soon
            topics.closings.add(close)
            clients.loop.at_end(partial(topics.closings.remove, close))
        self._next_clients = cycle(self._clients)
        self._listeners = [
            Listener(self._loops[0], sock, self._accepted, kept=listening.kept)
            for sock in listening.sockets
        ]
        self._lock = threading.Lock()  # protects _stopping
        self._leaving = False  # True from the beginning of stop(), also during its delay
        self._stopping = False
        self._stopped = threading.Event()
        release_in_children(self)
        with ExitStack() as undo:  # undone if the system cannot start a thread
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
        """Any thread: the URL of the server, as in "http://localhost:9292".

        The URL of a unix socket is "http+unix://" and the percent-encoded path.
        """
        return self._listening.url(secured=self._tls is not None)

    @property
    def running(self) -> bool:
        """Any thread: True until the server has stopped."""
        return not self._stopped.is_set()

    @property
    def stopping(self) -> bool:
        """Any thread: True from the beginning of :meth:`stop`."""
        return self._leaving

    def stats(self) -> Stats:
        """Any thread: return the statistics of the server."""
        workers, handlers = self._threads.counts()
        return replace(
            total(clients.stats() for clients in self._clients),
            uptime=monotonic() - self._started,
            threads=workers + self._topics.sources.running() + 1,  # the 1 is the monitor
            handlers_in_threads=handlers,
        )

    def __enter__(self) -> Server:
        """Any thread: return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Any thread except those of the server: stop the server."""
        self.stop()

    def renew_certificate(self) -> None:
        """Any thread: read the files of the certificate and the key again, for new connections.

        A TLS context that was passed to the server is not changed.

        Raises:
            OSError: as for :meth:`wsframe.server.App.start`; the server keeps the old certificate.
        """
        self._tls = tls_context(self.settings)

    def stop(self, drain: float | None = None, *, spread: float = 0.0, delay: float = 0.0) -> None:
        """Any thread except those of the server: shut down gracefully, and return at the end.

        The server accepts no more connections, closes WebSockets with 1001, ends event streams, and
        waits for their handlers. After ``drain`` seconds it aborts the connections that remain. A
        second call waits for the end of the first.

        Args:
            drain: the seconds to wait for clients and handlers; by default the setting ``drain``.
            spread: the seconds over which the connections are closed, one by one in random order,
                so that clients do not all reconnect at once (a thundering herd). A connection is
                served until it is closed, and ``drain`` includes this time.
            delay: the seconds before the shutdown, in which :attr:`stopping` is true and clients
                are still accepted.

        Raises:
            ValueError: ``spread`` is negative.
            RuntimeError: a handler has called this method.
        """
        if spread < 0:
            raise ValueError(f"spread must not be negative: {spread!r}")
        if self._threads.running_here():
            raise RuntimeError(
                "a handler cannot wait for its own end: call stop from another thread"
            )
        self._leaving = True
        if delay:
            self._stopped.wait(waitable(delay))
        with self._lock:
            first, self._stopping = not self._stopping, True
        if not first:
            self._stopped.wait()
            return
        deadline = monotonic() + waitable(self.settings.drain if drain is None else drain)
        empty = [threading.Event() for _ in self._loops]
        try:
            if self._listening.file is not None:
                self._listening.file.remove()
            for listener in self._listeners:
                self._loops[0].call_soon(listener.close)
            self._topics.catch_up(max(0.0, deadline - monotonic()))
            # The first loop closes the connections after it has assigned all accepted ones.
            self._loops[0].call_soon(partial(self._shut_down_paced, spread, empty))
            _wait_for_all(empty, deadline)
        finally:
            self._topics.end(max(0.0, deadline - monotonic()))
            for clients in self._clients:
                clients.loop.call_soon(partial(clients.for_each_peer, Peer.abort))
            _wait_for_all(empty, max(deadline, monotonic() + self._timing.handler_grace))
            for loop in self._loops:
                loop.stop(self._timing.handler_grace)
            self._handshakes.close()
            self._monitor.stop()
            self._threads.close(max(deadline, monotonic() + self._timing.handler_grace))
            background.close(self._timing.log_flush_timeout)
            self._stopped.set()

    def adopt(
        self,
        sock: socket.socket | SecureSocket,
        address: object,
        opening: Opening | None = None,
    ) -> None:
        """Any thread: serve the client of a socket that other code has accepted.

        This method is internal to wsframe, not part of the public interface. The server takes
        ownership of the socket, and closes it.

        Args:
            sock: a connected stream socket. If the settings have a certificate, the client must
                begin with a TLS handshake. Alternatively, a non-blocking TLS socket whose handshake
                is complete.
            address: the client's address, as ``accept`` returns it.
            opening: the request, which other code has received and checked; None if no data has
                been read from the socket.

        Raises:
            RuntimeError: the server is shutting down; the caller still owns the socket.
        """
        if not is_secured(sock):
            sock.setblocking(False)
            with suppress(OSError):  # the client has disconnected, or the socket is a unix socket
                disable_delay(sock)
                bound_buffers(sock, self.settings.socket_buffer)
        with self._lock:  # stop() closes only connections that were queued earlier
            if self._stopping:
                raise RuntimeError("the server is shutting down and accepts no more connections")
            self._loops[0].call_soon(partial(self._accepted, sock, address, opening))

    def discard_from(self, sock: socket.socket) -> None:
        """Any thread: discard the data of a socket until its other end is closed, then close it.

        This method is internal to wsframe. The stop of the server closes the socket at the latest.
        """
        with self._lock:
            if not self._stopping:
                self._loops[0].call_soon(partial(self._sinks.add, sock))
                return
        sock.close()

    def connections(self) -> list[ConnectionInfo]:
        """Any thread: return the open WebSockets and event streams, as of this call.

        The call takes some microseconds for each, and pauses often, so that it delays no loop.
        """
        return connections_of(self._clients)

    def capacity(self) -> tuple[int, int]:
        """Any thread: return the number of open connections, and its limit."""
        return self._admission.count, self._admission.max_connections

    def call_when_each_loop_turns(self, function: Callable[[], object]) -> None:
        """Any thread: call ``function``, on the last loop, once every loop has run a callback.

        This method is internal to wsframe. The call shows that no handler blocks a loop.
        """
        others = [None] * (len(self._loops) - 1)

        def turned() -> None:
            try:
                others.pop()
            except IndexError:  # raised on the last loop
                function()

        for loop in self._loops:
            loop.call_soon(turned)

    def after_fork(self) -> None:
        """The child of a fork: mark the server as stopped, although the parent's continues."""
        self._stopping = True
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()
        for loop in self._loops:
            loop.after_fork()
        for clients in self._clients:
            clients.after_fork()
        self._threads.after_fork()

    # Loop owner -------------------------------------------------------------------------------

    def _accepted(
        self,
        sock: socket.socket | SecureSocket,
        address: object,
        opening: Opening | None = None,
    ) -> None:
        """Owner of the first loop: assign a connection to the next loop, or reject it."""
        if not address and self._listening.path:
            address = self._listening.path  # clients of a unix socket rarely have an address
        clients = next(self._next_clients)
        if is_secured(sock):
            peer: Peer = SecuredPeer(clients, sock, address)
        elif self._tls is None:
            peer = Peer(clients, sock, address)
        else:
            peer = TLSPeer(clients, sock, address, self._tls, self._handshakes, refuse_plain_http)
        plain = opening is None and not is_secured(sock)
        proxied = plain and self._proxied.expect(client_of(address))
        if not self._admission.enter(peer, with_address=not proxied):
            self._reject(sock, address)
        elif peer.loop.owned():
            self._connected(peer, opening, proxied)
        else:
            peer.loop.call_soon(partial(self._connected, peer, opening, proxied))

    def _reject(self, sock: socket.socket | SecureSocket, address: object) -> None:
        """Owner of the first loop: close a connection, with a 503 if resources permit."""
        clients = self._clients[0]
        clients.refusals.count(503, CONNECTIONS)
        answer = unavailable(clients)
        peer = Peer(clients, sock, address)
        if self._tls is not None or is_secured(sock):
            disconnect(sock)
        elif self._admission.may_linger(peer):
            clients.add(peer)
            peer.finish(answer)
        else:
            with suppress(OSError):
                sock.send(answer)
            disconnect(sock)

    def _connected(self, peer: Peer, opening: Opening | None, proxied: bool) -> None:
        """Owner of its loop: start to serve a connection."""
        if opening is not None:
            self._dispatcher.begin(peer, opening)
            return
        first = self._proxied if proxied else self._dispatcher
        first.open(peer, self.settings.handshake_timeout)
        if proxied or self._tls is None:  # a TLS handshake cannot begin without data
            peer.loop.call_safely(peer.ready, READ)  # often the request has already arrived

    def _disconnected(self, peer: Peer) -> None:
        """Owner of its loop: release and log a connection that has ended."""
        self._admission.leave(peer)
        access.log_connection(peer)

    def _network_of(self, peer: Peer) -> Hashable:
        """Any thread: return the client network whose share of the threads a connection uses.

        The result is None, which means no limit, for a unix socket, and for a proxy that does not
        report the client's address.
        """
        request = peer.record.request
        client = request.client if request is not None else UNIX
        if self._proxies.trust(client) or self._proxied.expect(client):
            return None
        return client_network(client)

    def _shut_down_paced(self, spread: float, empty: list[threading.Event]) -> None:
        """Owner of the first loop: make every loop close its connections."""
        for number, (clients, event) in enumerate(zip(self._clients, empty, strict=True)):
            phase = number / len(self._clients)
            clients.loop.call_soon(partial(clients.shut_down_paced, spread, phase))
            clients.loop.call_soon(partial(clients.when_empty, event.set))


def default_loop_count() -> int:
    """Return the number of loops that can run in parallel: 1 with a GIL, or one for each CPU."""
    return 1 if has_gil() else os.cpu_count() or 1


def _wait_for_all(events: Iterable[threading.Event], deadline: float) -> None:
    for event in events:
        event.wait(max(0.0, deadline - monotonic()))

"""What a server can be told when it is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite, isnan
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

from .addresses import TrustedNetworks
from .hosts import Hosts

MAX_SOCKET_BUFFER = 1 << 30  # which a system doubles, and keeps in 32 bits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server behaves; every field is an option of :meth:`wsframe.server.App.start`.

    Times are in seconds.

    Attributes:
        drain: how long a stop waits for clients and handlers.
        handshake_timeout: how long the head of a request may take to come.
        send_timeout: how long a client may acknowledge nothing of what it was sent. Then it is cut
            off. A slow client that goes on reading is never cut off. Acknowledgements are checked
            eight times within this time, so that a client may be cut off an eighth later.
        close_timeout: how long a client that is being closed may acknowledge nothing. While it
            acknowledges data it is waited for, and after that for as long as a client that reads
            20 KB a second needs for them, and ``close_timeout``. Then the connection is cut off.
            A handler has the same time to answer what came before the client's close frame.
        message_timeout: how long a WebSocket message may take from the first part of it that is
            found to its end, plus one second for each KiB received meanwhile. Then the connection
            is closed with 1008. 0 for no limit.
        ping_interval: how long a WebSocket's client may be silent before it is sent a ping. Every
            byte received is a sign of life, and so are acknowledgements; those alone postpone the
            ping for four intervals at most, unless there is more to be sent than the system takes.
            If data wait and are not acknowledged, there is no ping, but ``send_timeout`` counts. 0
            for no pings.
        ping_timeout: how long a client may take to answer a ping, counted from the ping's
            acknowledgement, or, before that, from the last acknowledgement of anything. Then it is
            closed with 1011. A client's system acknowledges data that its program has not read. So
            a client that reads 20 KB a second has the time on top that it needs to read what it
            was sent before the ping, 8 MiB at most.
        heartbeat: how long an event stream may be silent before its client is sent a comment, which
            keeps proxies from closing the connection. A client that has vanished does not
            acknowledge it, and is cut off after ``send_timeout``. 0 for no comments.
        retry: how long the clients of an event stream are told to wait before they come back: each
            another time, from half of this to one and a half of it, so that they do not come
            together. 0 to tell them nothing.
        socket_buffer: the size of each of the two kernel buffers of a client's TCP connection, in
            bytes; Linux doubles it for its own overhead. With the default, a client that reads
            nothing occupies less than 256 KiB of kernel memory. The size bounds the throughput of a
            connection, too: at a round-trip time of 100 ms the default permits about 1.2 MB/s to
            the client and 0.6 MB/s from it. 0 leaves the sizes to the system, which may use several
            MiB.
        max_threads: how many turns may block at once, each in a thread: those of generator
            handlers, plain functions of event streams, and calls of ``authorize``. Further ones
            wait for a thread. Turns that wait for each other need one thread each.
        max_handler_threads: how many handlers may run at once that have a thread for as long as
            their connection lasts: plain functions of WebSockets, and generators of event streams.
            A further request is answered with 503. A thread that waits costs about 20 KiB.
        reserve_threads: how many more turns may block, for each I/O loop, that began on the loop
            and lost it. Nothing else uses these threads. A turn that might block the loop with no
            thread left to take it over waits as well.
        max_thread_share: which part of each of these limits one route may use, and one client
            address (IPv6: one network of 64 bits), between 0 and 1; and which part of a route's one
            address may use. So by default an address may have a quarter of the threads on one
            route, and half on several. The address is that which a trusted proxy reports. Clients
            of a unix socket or of a trusted proxy are not limited by address where none is
            reported.
        thread_timeout: how long a new request may wait for a thread for its ``authorize``, or for
            the first turn of its handler. Then it is answered with 503.
        worker_timeout: how long the I/O loops of a worker may stand still; then its supervisor logs
            the stacks of its threads and replaces it. Handlers that block do not count, because
            they lose the loop. A worker that is held by a debugger does count. 0 for ever.
        loops: how many I/O loops, each on a thread of its own; 0 for one, or one for each core on a
            Python without a GIL.
        trusted_proxies: the addresses from which ``X-Forwarded-*`` and ``Forwarded`` headers are
            believed, networks as in "10.0.0.0/8", and "unix" for whoever uses a unix socket. The
            proxies must set or remove these headers, whatever their clients send.
        hosts: the hosts that are served; a request with another Host is answered with 421. Names,
            addresses, and patterns as in "*.example.com"; "*" for every host. The port is not
            compared. A host that a trusted proxy forwards must be one of them, too. None for the
            default: a server that listens on loopback addresses alone serves "localhost", the names
            below it, every address, and the name that it was given to listen on, so that no page of
            another site reaches it by DNS rebinding. Any other serves every host.
        max_kept_head: how many bytes of a request's target and headers are kept for as long as its
            connection is open. Of more, ``request.headers`` and ``request.query`` are there for
            ``authorize`` and at the beginning of the handler only; see :class:`Request`.
        max_connections: how many clients there may be at once; more are answered with 503. 0 for as
            many as the process may have files, but for 32 that are kept for other things.
        max_handshakes_per_address: how many clients of one IPv4 address, or of one IPv6 network of
            64 bits, may be connected without having sent a whole request; more are answered with
            503. 0 for half of ``max_connections``.
        max_subscriptions: how many subscriptions to topics one connection may have; each takes some
            4 KiB. One more is a StateError in the handler.
        unix: the path of a unix socket to listen on, in place of host and port.
        unix_mode: the permissions of its file, as in 0o660; who may connect must be allowed to
            write. None for those that the umask leaves.
        unix_group: the group of its file, by name or number, such as the one of a proxy; the
            process must be root or one of its members. None for the process's own.
        cert: the file of a certificate, with those that vouch for it: the server speaks TLS.
        key: the file of its private key, unless that is in the same file.
        ssl_context: instead of both, for more than a certificate: what TLS is spoken with.
    """

    drain: float = 5.0
    handshake_timeout: float = 10.0
    send_timeout: float = 30.0
    close_timeout: float = 5.0
    message_timeout: float = 30.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    heartbeat: float = 15.0
    retry: float = 2.0
    socket_buffer: int = 64 * 1024
    max_threads: int = 64
    max_handler_threads: int = 4000
    reserve_threads: int = 8
    max_thread_share: float = 0.5
    thread_timeout: float = 2.0
    worker_timeout: float = 60.0
    loops: int = 0
    trusted_proxies: Sequence[str] = ()
    hosts: Sequence[str] | None = None
    max_kept_head: int = 4096
    max_connections: int = 0
    max_handshakes_per_address: int = 0
    max_subscriptions: int = 1000
    unix: str | PathLike[str] | None = None
    unix_mode: int | None = None
    unix_group: str | int | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"{name} must not be negative: {value!r}")
            if isinstance(value, float) and isnan(value):
                raise ValueError(f"{name} must be a number: {value!r}")
        for name in ("drain", "retry"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite: {getattr(self, name)!r}")
        for name in ("max_threads", "max_handler_threads", "reserve_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 0 < self.max_thread_share <= 1:
            raise ValueError(
                f"max_thread_share must be over 0 and at most 1: {self.max_thread_share!r}"
            )
        if self.socket_buffer > MAX_SOCKET_BUFFER:
            raise ValueError(
                f"socket_buffer must be at most {MAX_SOCKET_BUFFER}: {self.socket_buffer!r}"
            )
        TrustedNetworks(self.trusted_proxies)  # raises what is wrong with them
        Hosts(self.hosts)  # likewise
        if self.unix is None and (self.unix_mode is not None or self.unix_group is not None):
            raise ValueError("unix_mode and unix_group are for a server that listens on unix")
        if self.unix_mode is not None and self.unix_mode > 0o777:
            raise ValueError(f"unix_mode must be from 0 to 0o777, as in 0o660: {self.unix_mode:#o}")
        if self.cert is None and self.key is not None:
            raise ValueError("a key needs a cert")
        if self.cert is not None and self.ssl_context is not None:
            raise ValueError("an ssl_context has a cert already")

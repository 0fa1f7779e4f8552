"""The settings of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite, isnan
from os import PathLike
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ssl

from .addresses import TrustedNetworks
from .headers import BY_DEFAULT, added_headers
from .heartbeats import encode_heartbeat
from .hosts import Hosts

AT_LEAST_1 = (
    "max_threads",
    "max_handler_threads",
    "reserve_threads",
    "max_head_size",
    "max_headers",
)
CLIENT_CERT = ("required", "optional")
MAX_SOCKET_BUFFER = 1 << 30  # the system doubles the value and stores it in 32 bits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a server; every field is an option of :meth:`wsframe.server.App.start`.

    Times are in seconds. The fields below are the defaults. The command line has an option for
    nearly every field, whose help is the first sentence here.

    >>> Settings(ping_interval=30).ping_timeout
    20.0
    >>> Settings(drain=-1)
    Traceback (most recent call last):
    ValueError: drain must not be negative: -1

    Attributes:
        drain: time that a graceful shutdown may take. Clients are closed one after another over
            most of it, so that they do not reconnect all at once. Connections that remain at its
            end are aborted.
        stop_delay: time between a stop signal and the beginning of the shutdown. New clients are
            still served, but paths of :meth:`App.health` are answered with 503, so that load
            balancers choose another server.
        handshake_timeout: time in which a client must send the head of its request.
        send_timeout: time without an acknowledgement of sent data after which a client is
            disconnected. A slow client that keeps reading is never disconnected. Acknowledgements
            are checked eight times within this time, so the client may stay connected for up to an
            eighth longer.
        close_timeout: time without an acknowledgement after which a closing connection is aborted.
            While the client acknowledges data, the server waits. After the last acknowledgement it
            waits for the time that a client needs to read the data at 20 KB/s, plus
            ``close_timeout``. A handler has the same time to answer messages that arrived before
            the client's close frame.
        message_timeout: time in which a WebSocket message must arrive, plus one second per KiB; 0
            for no limit. It is counted from the first part of the message that the server reads. A
            connection with a late message is closed with 1008.
        ping_interval: silence after which a WebSocket's client is sent a ping; 0 for no pings.
            Received bytes and acknowledgements end the silence. Acknowledgements alone postpone
            the ping for at most four intervals. That limit does not apply while data waits in the
            process, because the socket accepts no more.
            While sent data are not acknowledged there is no ping, but ``send_timeout`` applies.
        ping_timeout: time in which a client must answer a ping. It is counted from the
            acknowledgement of the ping or, before that, from the last acknowledgement of any data.
            A connection without an answer is closed with 1011. A client's system acknowledges data
            that its program has not read. So a client gets additional time for the data sent
            before the ping, at most 8 MiB: the time that reading takes at 20 KB/s.
        heartbeat: longest silence on an event stream, after which at the latest its client is sent
            a comment; 0 for no comments. A comment keeps proxies from closing the connection. A
            client that has vanished does not acknowledge it and is disconnected after
            ``send_timeout``.
        heartbeat_event: type of the event that an event stream sends in place of that comment, such
            as "heartbeat"; "" for a comment. A page cannot see comments. With an event it detects
            that its connection is dead, because nothing has arrived for longer than ``heartbeat``.
            The event has no id and empty data, and a route may have another type.
        retry: average time that clients of event streams wait before they reconnect; 0 to send no
            value. Each client gets a random value from half to one and a half times this, so that
            they do not reconnect all at once.
        max_connection_age: time after which a WebSocket or an event stream is closed so that its
            client reconnects, for example to another server; 0 for no limit. Each connection has a
            random time that differs by up to 10 %, so that clients do not reconnect all at once. A
            WebSocket is closed with 1001. An event stream ends, and its client resumes.
        socket_buffer: size of each of the two kernel buffers of a client's TCP connection; 0 for
            the system's default. In bytes; Linux doubles it for its own overhead. With the
            default, a client that reads nothing occupies less than 256 KiB of kernel memory. The
            size also limits the throughput of a connection: at a round-trip time of 100 ms the
            default permits about 1.2 MB/s to the client and 0.6 MB/s from it. The system's default
            may use several MiB.
        max_threads: number of turns of handlers that may block at once, each in a thread. A turn is
            the run of a generator handler between two waits, a plain function of an event stream,
            or a call of ``authorize``. Further turns wait for a thread. Turns that wait for each
            other need one thread each.
        max_handler_threads: number of running handlers that keep a thread while their connection
            lasts. These are plain functions of WebSockets and generators of event streams. A
            further request is answered with 503. A waiting thread costs about 20 KiB.
        reserve_threads: number of additional threads for each I/O loop, only for turns that block
            after they began on the loop. A turn also waits if it might block the loop and no thread
            could take the loop over.
        max_thread_share: share of the threads that one route, or one client address, may use, from
            0 to 1. It applies to each of the three limits above; an IPv6 address counts as its
            network of 64 bits. One address may use this share of a route's share. So by default an
            address may use a quarter of the threads on one route, and half of them on several. The
            address is the one that a trusted proxy reports. Clients of a unix socket, or of a
            trusted proxy that reports no address, are not limited by address.
        thread_timeout: time that a new request may wait for a thread before it is answered with
            503. The thread is for its ``authorize``, or for the first turn of its handler.
        worker_timeout: time without progress of its I/O loops after which a worker is replaced; 0
            for no limit. The supervisor logs the stacks of the worker's threads. Handlers that
            block do not count, because another thread takes over the loop. A worker that is
            stopped by a debugger does count.
        loops: number of I/O loops, each in a thread of its own; 0 for one loop, or one per CPU core
            on a Python without a GIL.
        trusted_proxies: addresses or networks of proxies whose ``X-Forwarded-*`` and ``Forwarded``
            headers are trusted; "unix" for all clients of the unix socket. A network is
            "10.0.0.0/8", for example. The proxies must set or remove these headers in every
            request.
        proxy_protocol: addresses of proxies that begin each connection with a PROXY header,
            networks, or "unix" for all clients of the unix socket. The header is that of HAProxy's
            PROXY protocol, version 1 or 2, and comes before TLS. Its address replaces that of the
            proxy, also for ``trusted_proxies`` and the limits for one address. A connection without
            a valid header of at most 4 KiB is closed. Only the address and port of the client are
            used.
        hosts: hosts that are served: names, patterns such as "*.example.com", addresses, or "*" for
            all. A request with another Host is answered with 421. The port is not compared. A host
            that a trusted proxy forwards must be one of them, too. The default, None, depends on
            the addresses: a server that listens only on loopback addresses serves "localhost", the
            names below it, every IP address, and the name that it was given to listen on. So no
            page of another site reaches it by DNS rebinding. Any other server serves every host.
        max_head_size: maximum size of a request head, in bytes. A larger head is answered with 431.
            The request target may have half of this size, and is otherwise answered with 414.
        max_headers: maximum number of headers of a request. A request with more is answered with
            431.
        headers: headers of every answer, such as "Strict-Transport-Security: max-age=31536000". In
            Python they are a mapping or (name, value) pairs. A header of the same name that an
            answer has itself, for example from its route, takes precedence. The server sets
            headers such as Connection, Content-Length, Content-Type and Date itself, so they are
            refused.
        max_kept_head: maximum size of a request head that is kept while its connection is open, in
            bytes. For a larger head, ``request.headers`` and ``request.query`` are available only
            in ``authorize`` and at the beginning of the handler; see :class:`Request`.
        max_connections: maximum number of clients; 0 for the open-file limit minus 32. Further
            clients are answered with 503.
        max_handshakes_per_address: maximum number of clients of one address that have not sent a
            complete request; 0 for half of ``max_connections``. An IPv6 address counts as its
            network of 64 bits. Further clients are answered with 503.
        max_subscriptions: maximum number of subscriptions to topics of one connection. Each takes
            about 4 KiB. A further one raises a StateError in the handler.
        fds: file descriptors of listening sockets that the process has inherited, instead of a host
            and a port. The server closes its copies when it stops, and other processes may
            continue to listen.
        unix: path of a unix socket to listen on, instead of a host and a port.
        unix_mode: permissions of the unix socket, such as 0o660; by default they depend on the
            umask. Clients need the permission to write.
        unix_group: group of the unix socket, by name or number; by default the group of the
            process. The process must be root or a member of the group.
        cert: file with a certificate for TLS and its chain.
        key: file with the private key of the certificate; by default the file of the certificate.
        client_ca: file with the certificates of the authorities that issue certificates of clients.
            OpenSSL verifies the certificate of a client in the handshake, and
            ``request.client_certificate`` returns it. It requires ``cert``. By default, no
            certificate is requested.
        client_cert: "required" or "optional", with ``client_ca``: clients without a certificate are
            refused, or served. A certificate that is not valid is refused in both cases.
        ssl_context: TLS context, instead of ``cert``, ``key`` and ``client_ca``.
    """

    drain: float = 5.0
    stop_delay: float = 0.0
    handshake_timeout: float = 10.0
    send_timeout: float = 30.0
    close_timeout: float = 5.0
    message_timeout: float = 30.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    heartbeat: float = 15.0
    heartbeat_event: str = ""
    retry: float = 2.0
    max_connection_age: float = 0.0
    socket_buffer: int = 64 * 1024
    max_threads: int = 64
    max_handler_threads: int = 4000
    reserve_threads: int = 8
    max_thread_share: float = 0.5
    thread_timeout: float = 2.0
    worker_timeout: float = 60.0
    loops: int = 0
    trusted_proxies: Sequence[str] = ()
    proxy_protocol: Sequence[str] = ()
    hosts: Sequence[str] | None = None
    max_head_size: int = 16 * 1024
    max_headers: int = 100
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    max_kept_head: int = 4096
    max_connections: int = 0
    max_handshakes_per_address: int = 0
    max_subscriptions: int = 1000
    fds: Sequence[int] = ()
    unix: str | PathLike[str] | None = None
    unix_mode: int | None = None
    unix_group: str | int | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    client_ca: str | PathLike[str] | None = None
    client_cert: Literal["required", "optional"] = "required"
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"{name} must not be negative: {value!r}")
            if isinstance(value, float) and isnan(value):
                raise ValueError(f"{name} must be a number: {value!r}")
        for name in ("drain", "stop_delay", "retry"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite: {getattr(self, name)!r}")
        for name in AT_LEAST_1:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: {getattr(self, name)!r}")
        if not 0 < self.max_thread_share <= 1:
            raise ValueError(
                f"max_thread_share must be greater than 0 and at most 1: {self.max_thread_share!r}"
            )
        if self.socket_buffer > MAX_SOCKET_BUFFER:
            raise ValueError(
                f"socket_buffer must be at most {MAX_SOCKET_BUFFER}: {self.socket_buffer!r}"
            )
        encode_heartbeat(self.heartbeat_event)  # raises errors in the value
        if self.heartbeat_event and not self.heartbeat:
            raise ValueError("heartbeat_event requires heartbeat")
        object.__setattr__(self, "headers", added_headers(self.headers, BY_DEFAULT))
        for name in ("trusted_proxies", "proxy_protocol"):
            try:
                TrustedNetworks(getattr(self, name), name)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        Hosts(self.hosts)  # raises errors in the values
        if any(fd < 0 for fd in self.fds):
            raise ValueError(f"fds must not be negative: {self.fds!r}")
        if len(set(self.fds)) < len(self.fds):
            raise ValueError(f"fds must differ: {self.fds!r}")
        if self.fds and self.unix is not None:
            raise ValueError("fds and unix cannot be combined")
        if self.unix is None and (self.unix_mode is not None or self.unix_group is not None):
            raise ValueError("unix_mode and unix_group require unix")
        if self.unix_mode is not None and self.unix_mode > 0o777:
            raise ValueError(f"unix_mode must be from 0 to 0o777, as in 0o660: {self.unix_mode:#o}")
        for name in ("key", "client_ca"):
            if self.cert is None and getattr(self, name) is not None:
                raise ValueError(f"{name} requires cert")
        if self.client_cert not in CLIENT_CERT:
            expected = " or ".join(map(repr, CLIENT_CERT))
            raise ValueError(f"client_cert must be {expected}: {self.client_cert!r}")
        if self.cert is not None and self.ssl_context is not None:
            raise ValueError("cert and ssl_context cannot be combined")

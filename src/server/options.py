"""The settings as keyword arguments, for type checkers: the fields of :class:`Settings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import ssl


class CommonOptions(TypedDict, total=False):
    """The settings of every server, also of a server without listening sockets."""

    drain: float
    send_timeout: float
    close_timeout: float
    message_timeout: float
    ping_interval: float
    ping_timeout: float
    heartbeat: float
    heartbeat_event: str
    retry: float
    max_connection_age: float
    socket_buffer: int
    max_threads: int
    max_handler_threads: int
    reserve_threads: int
    max_thread_share: float
    thread_timeout: float
    loops: int
    trusted_proxies: Sequence[str]
    hosts: Sequence[str] | None
    max_head_size: int
    max_headers: int
    headers: Mapping[str, str] | Sequence[tuple[str, str]]
    max_kept_head: int
    max_connections: int
    max_subscriptions: int


class ServerOptions(CommonOptions, total=False):
    """All settings, with those of listening sockets, TLS and worker processes."""

    stop_delay: float
    handshake_timeout: float
    worker_timeout: float
    max_handshakes_per_address: int
    proxy_protocol: Sequence[str]
    fds: Sequence[int]
    unix: str | PathLike[str] | None
    unix_mode: int | None
    unix_group: str | int | None
    cert: str | PathLike[str] | None
    key: str | PathLike[str] | None
    client_ca: str | PathLike[str] | None
    client_cert: Literal["required", "optional"]
    ssl_context: ssl.SSLContext | None

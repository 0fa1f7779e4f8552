"""The options of the command line, and their help."""

from __future__ import annotations

import argparse

from ..server.app import REDIS_PREFIX
from ..server.settings import Settings
from . import values

# These are settings of the same name.
OPTIONS = [
    (
        "loops",
        values.count,
        "N",
        "I/O threads in each process; 0 for one, or for one a core on a Python without a GIL",
    ),
    (
        "max_threads",
        values.count,
        "N",
        "how many turns of handlers, and calls of authorize, may block at once in a process; "
        "further ones wait for a thread",
    ),
    (
        "max_handler_threads",
        values.count,
        "N",
        "how many handlers of a process may run at once that keep a thread for as long as their "
        "connection lasts; a further request is answered with 503",
    ),
    (
        "reserve_threads",
        values.count,
        "N",
        "how many more turns may block, for each I/O thread, that began on it",
    ),
    (
        "max_thread_share",
        values.part,
        "PART",
        "which part of these threads one route may use, and one client address; 1 for all",
    ),
    (
        "thread_timeout",
        values.seconds,
        "SECONDS",
        "how long a request may wait for a thread before it is answered with 503",
    ),
    (
        "max_subscriptions",
        values.count,
        "N",
        "how many subscriptions to topics one connection may have",
    ),
    (
        "max_connections",
        values.count,
        "N",
        "how many clients a process may have at once; 0 for as many as it may have files, but for "
        "a few",
    ),
    (
        "max_kept_head",
        values.count,
        "BYTES",
        "how long the head of a request may be to be kept while its connection is open; a longer "
        "one is there for authorize and the beginning of the handler only",
    ),
    (
        "max_handshakes_per_address",
        values.count,
        "N",
        "how many of them may be of one address and have yet to send a whole request; 0 for half",
    ),
    (
        "socket_buffer",
        values.count,
        "BYTES",
        "size of each kernel buffer of a client's TCP connection; it bounds the memory that a "
        "client can occupy, and its throughput; 0 leaves it to the system",
    ),
    (
        "worker_timeout",
        values.seconds,
        "SECONDS",
        "how long the I/O threads of a worker may stand still, until its stacks are logged and it "
        "is replaced; handlers that block do not count; 0 for ever",
    ),
    (
        "drain",
        values.seconds,
        "SECONDS",
        "how long a stop may take; clients are told one after the other, so that they do not come "
        "back all at once, and what is left at the end is cut off",
    ),
    (
        "handshake_timeout",
        values.seconds,
        "SECONDS",
        "how long a client may take to send its request",
    ),
    (
        "send_timeout",
        values.seconds,
        "SECONDS",
        "how long a client may acknowledge nothing of what it was sent, until it is cut off",
    ),
    (
        "close_timeout",
        values.seconds,
        "SECONDS",
        "how long a client whose connection is closed may acknowledge nothing, until it is cut off",
    ),
    (
        "message_timeout",
        values.seconds,
        "SECONDS",
        "how long a WebSocket message may take to arrive, plus one second for each KiB; 0 for no "
        "limit",
    ),
    (
        "ping_interval",
        values.seconds,
        "SECONDS",
        "how long a WebSocket may be silent before its client is sent a ping; 0 for never",
    ),
    (
        "ping_timeout",
        values.seconds,
        "SECONDS",
        "how long a client may take to answer a ping that it has acknowledged, until it is closed",
    ),
    (
        "heartbeat",
        values.seconds,
        "SECONDS",
        "how long an event stream may be silent before its client is sent a comment; 0 for never",
    ),
    (
        "retry",
        values.seconds,
        "SECONDS",
        "how long the clients of an event stream are told to wait, more or less, before they come "
        "back; 0 to tell them nothing",
    ),
]


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    parser = argparse.ArgumentParser(
        prog="python -m wsframe.server",
        description="Serve WebSockets and server-sent events.",
    )
    parser.add_argument(
        "app",
        nargs="?",
        type=values.app_name,
        metavar="module:app",
        help="the module and the App in it; the demo if left out",
    )
    parser.add_argument(
        "--host", default="localhost", help='name or address to listen on, "" for all (%(default)s)'
    )
    parser.add_argument(
        "--port", type=values.port, default=9292, help="0 for one that is free (%(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=values.count,
        default=0,
        metavar="N",
        help="serve in so many processes, which share the port; one that dies is replaced; "
        "0 for this process alone (%(default)s)",
    )
    parser.add_argument(
        "--unix", metavar="PATH", help="unix socket to listen on, in place of host and port"
    )
    parser.add_argument(
        "--unix-mode",
        type=values.mode,
        metavar="MODE",
        help="permissions of its file, in octal, as in 660; by default what the umask leaves",
    )
    parser.add_argument(
        "--unix-group",
        type=values.group,
        metavar="GROUP",
        help="group of its file, by name or number, such as the one of a proxy",
    )
    parser.add_argument("--cert", metavar="FILE", help="certificate, to speak TLS with")
    parser.add_argument("--key", metavar="FILE", help="its key, if that is in another file")
    for name, kind, metavar, text in OPTIONS:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=getattr(Settings, name),
            metavar=metavar,
            help=f"{text} (%(default)s)",
        )
    parser.add_argument(
        "--access-log",
        action="store_true",
        help="log a line for each connection when it is over, to standard error; queries are left "
        "out, for they may be secrets",
    )
    parser.add_argument(
        "--log-json",
        action="store_true",
        help="log one JSON object a line, errors and the lines of --access-log, which this implies",
    )
    parser.add_argument(
        "--metrics",
        metavar="PATH",
        help="answer on this path, as in /metrics, with statistics for Prometheus (OpenMetrics)",
    )
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="keep the logs of topics in this Redis, for all processes that name it: "
        "redis://user:password@host:6379/0, rediss://... for TLS, unix:///path",
    )
    parser.add_argument(
        "--redis-prefix",
        default=REDIS_PREFIX,
        metavar="TEXT",
        help="what the names of all keys and channels in that Redis begin with (%(default)s)",
    )
    parser.add_argument(
        "--trusted-proxy",
        dest="trusted_proxies",
        type=values.proxy,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe the X-Forwarded-For, -Proto, -Host and Forwarded headers that come from this "
        'address or network, as in 10.0.0.0/8, or from unix sockets ("unix"); may be repeated',
    )
    parser.add_argument(
        "--hosts",
        type=values.hosts,
        action="extend",
        metavar="NAME",
        help='serve this host: a name, "*.example.com" for those below it, an address, or "*" for '
        "all; others are answered with 421; may be repeated, or have several with commas (on "
        "loopback addresses alone: localhost and addresses; else all)",
    )
    return parser

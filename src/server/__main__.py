"""The command line: ``python -m wsframe.server [module:app]``."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial

from .app import REDIS_PREFIX, App, serve
from .http.hosts import Hosts
from .http.proxies import Proxies
from .logs.stderr import configure
from .reports.output import settle
from .running import run
from .server import Server
from .settings import Settings
from .sockets.certificate import CertificateError, tls_context
from .sockets.listener import ListenError
from .sockets.unix import group_number
from .topics.errors import RedisRefused
from .workers.worker import Link

DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+")


def main() -> None:
    """Serve an application, or the demo, until it is told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m wsframe.server",
        description="Serve WebSockets and server-sent events.",
    )
    parser.add_argument(
        "app",
        nargs="?",
        type=_app_name,
        metavar="module:app",
        help="the module and the App in it; the demo if left out",
    )
    parser.add_argument(
        "--host", default="localhost", help='name or address to listen on, "" for all (%(default)s)'
    )
    parser.add_argument(
        "--port", type=_port, default=9292, help="0 for one that is free (%(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=_count,
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
        type=_mode,
        metavar="MODE",
        help="permissions of its file, in octal, as in 660; by default what the umask leaves",
    )
    parser.add_argument(
        "--unix-group",
        type=_group,
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
        type=_proxy,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe the X-Forwarded-For, -Proto, -Host and Forwarded headers that come from this "
        'address or network, as in 10.0.0.0/8, or from unix sockets ("unix"); may be repeated',
    )
    parser.add_argument(
        "--hosts",
        type=_hosts,
        action="extend",
        metavar="NAME",
        help='serve this host: a name, "*.example.com" for those below it, an address, or "*" for '
        "all; others are answered with 421; may be repeated, or have several with commas (on "
        "loopback addresses alone: localhost and addresses; else all)",
    )
    arguments = parser.parse_args()
    names = {field.name for field in fields(Settings)}
    options = {name: value for name, value in vars(arguments).items() if name in names}
    cert, key = options.pop("cert"), options.pop("key")
    try:
        options["ssl_context"] = tls_context(Settings(cert=cert, key=key))
        settings = Settings(**options)
    except ValueError as error:
        parser.error(str(error))
    except CertificateError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    host, port, workers = arguments.host, arguments.port, arguments.workers
    if workers and settings.unix is not None:
        parser.error("workers share a port, not a unix socket")
    _configure_log(arguments)  # for the parent of workers, too; the app may do it otherwise
    try:
        run(partial(_start, arguments), host, port, workers, settings)
    except RedisRefused as error:
        sys.exit(f"--redis: {error}")
    except ListenError as error:
        where = settings.unix or f"{host or '*'}:{port}"
        sys.exit(f"cannot listen on {where}: {error.strerror or error}")
    if not settle():
        os._exit(0)  # a handler hangs in print, for which Python would abort


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is 0-65535, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text):
        raise argparse.ArgumentTypeError(f"a whole number is wanted, not {text!r}")
    return int(text)


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"permissions are three octal digits, not {text!r}")
    return int(text, 8)


def _group(text: str) -> str | int:
    group = int(text) if re.fullmatch("[0-9]{1,9}", text) else text
    try:
        group_number(group)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return group


def _proxy(text: str) -> str:
    try:
        Proxies([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _hosts(text: str) -> list[str]:
    hosts = text.split(",")
    try:
        Hosts(hosts)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return hosts


def _seconds(text: str) -> float:
    if not DECIMAL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"a number of seconds is wanted, not {text!r}")
    return float(text)


def _part(text: str) -> float:
    if not DECIMAL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"a number between 0 and 1 is wanted, not {text!r}")
    return float(text)


def _app_name(text: str) -> str:
    module, _, attribute = text.partition(":")
    if not module or module.startswith(".") or not attribute:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form module:app")
    return text


def _start(
    arguments: argparse.Namespace,
    host: str,
    port: int,
    settings: Settings,
    *,
    link: Link | None = None,
    interrupting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Server:
    """Load the app and start its server, as ``running.Start`` has it."""
    with interrupting():
        app = _prepare(arguments)
    return serve(app, host, port, settings, link=link, interrupting=interrupting)


def _prepare(arguments: argparse.Namespace) -> App:
    """The app, and the logs of the process that serves it."""
    app = _load(arguments.app)
    _configure_log(arguments)
    if arguments.metrics is not None:
        try:
            app.metrics(arguments.metrics)
        except ValueError as error:
            sys.exit(f"--metrics: {error}")
    if arguments.redis is not None:
        try:
            app.share_topics(arguments.redis, arguments.redis_prefix)
        except (ModuleNotFoundError, ValueError, RuntimeError) as error:
            sys.exit(f"--redis: {error}")
    return app


def _configure_log(arguments: argparse.Namespace) -> None:
    configure(access_log=arguments.access_log or arguments.log_json, as_json=arguments.log_json)


def _load(name: str | None) -> App:
    """The app of this name; SystemExit with a line of text if there is none."""
    if name is None:
        from .demo import app as demo

        return demo
    sys.path.insert(0, "")  # the module is looked for where the command is given
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        sys.exit(f"no module named {module_name!r}")
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        sys.exit(f"{attribute!r} in module {module_name!r} is not an App")
    return app


# These are settings of the same name.
OPTIONS = [
    (
        "loops",
        _count,
        "N",
        "I/O threads in each process; 0 for one, or for one a core on a Python without a GIL",
    ),
    (
        "max_threads",
        _count,
        "N",
        "how many turns of handlers, and calls of authorize, may block at once in a process; "
        "further ones wait for a thread",
    ),
    (
        "max_handler_threads",
        _count,
        "N",
        "how many handlers of a process may run at once that keep a thread for as long as their "
        "connection lasts; a further request is answered with 503",
    ),
    (
        "reserve_threads",
        _count,
        "N",
        "how many more turns may block, for each I/O thread, that began on it",
    ),
    (
        "max_thread_share",
        _part,
        "PART",
        "which part of these threads one route may use, and one client address; 1 for all",
    ),
    (
        "thread_timeout",
        _seconds,
        "SECONDS",
        "how long a request may wait for a thread before it is answered with 503",
    ),
    (
        "max_subscriptions",
        _count,
        "N",
        "how many subscriptions to topics one connection may have",
    ),
    (
        "max_connections",
        _count,
        "N",
        "how many clients a process may have at once; 0 for as many as it may have files, but for "
        "a few",
    ),
    (
        "max_kept_head",
        _count,
        "BYTES",
        "how long the head of a request may be to be kept while its connection is open; a longer "
        "one is there for authorize and the beginning of the handler only",
    ),
    (
        "max_handshakes_per_address",
        _count,
        "N",
        "how many of them may be of one address and have yet to send a whole request; 0 for half",
    ),
    (
        "socket_buffer",
        _count,
        "BYTES",
        "size of each kernel buffer of a client's TCP connection; it bounds the memory that a "
        "client can occupy, and its throughput; 0 leaves it to the system",
    ),
    (
        "worker_timeout",
        _seconds,
        "SECONDS",
        "how long the I/O threads of a worker may stand still, until its stacks are logged and it "
        "is replaced; handlers that block do not count; 0 for ever",
    ),
    (
        "drain",
        _seconds,
        "SECONDS",
        "how long a stop may take; clients are told one after the other, so that they do not come "
        "back all at once, and what is left at the end is cut off",
    ),
    (
        "handshake_timeout",
        _seconds,
        "SECONDS",
        "how long a client may take to send its request",
    ),
    (
        "send_timeout",
        _seconds,
        "SECONDS",
        "how long a client may acknowledge nothing of what it was sent, until it is cut off",
    ),
    (
        "close_timeout",
        _seconds,
        "SECONDS",
        "how long a client whose connection is closed may acknowledge nothing, until it is cut off",
    ),
    (
        "message_timeout",
        _seconds,
        "SECONDS",
        "how long a WebSocket message may take to arrive, plus one second for each KiB; 0 for no "
        "limit",
    ),
    (
        "ping_interval",
        _seconds,
        "SECONDS",
        "how long a WebSocket may be silent before its client is sent a ping; 0 for never",
    ),
    (
        "ping_timeout",
        _seconds,
        "SECONDS",
        "how long a client may take to answer a ping that it has acknowledged, until it is closed",
    ),
    (
        "heartbeat",
        _seconds,
        "SECONDS",
        "how long an event stream may be silent before its client is sent a comment; 0 for never",
    ),
    (
        "retry",
        _seconds,
        "SECONDS",
        "how long the clients of an event stream are told to wait, more or less, before they come "
        "back; 0 to tell them nothing",
    ),
]


if __name__ == "__main__":
    main()

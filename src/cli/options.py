"""The options of the command line.

An option with the name of a setting or of an argument of :class:`App` is described there: its help
is the first sentence of that description.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields

from ..server.app import HOST, PORT, REDIS_PREFIX, App
from ..server.settings import Settings
from . import values
from .reference import first_sentences


@dataclass(frozen=True)
class SettingOption:
    """An option with the name of a field of :class:`Settings`.

    Attributes:
        metavar: the placeholder for the value in the help.
        convert: returns the value of a text.
    """

    metavar: str
    convert: Callable[[str], object]


COUNT = SettingOption("N", values.count)
BYTES = SettingOption("BYTES", values.count)
SECONDS = SettingOption("SECONDS", values.seconds)
FILE = SettingOption("FILE", str)

# Options by the field that they set, in the groups and the order of the help.
GROUPS = {
    "limits": {
        "max_connections": COUNT,
        "max_handshakes_per_address": COUNT,
        "max_subscriptions": COUNT,
        "max_kept_head": BYTES,
        "socket_buffer": BYTES,
    },
    "threads": {
        "loops": COUNT,
        "max_threads": COUNT,
        "max_handler_threads": COUNT,
        "reserve_threads": COUNT,
        "max_thread_share": SettingOption("SHARE", values.share),
        "thread_timeout": SECONDS,
        "worker_timeout": SECONDS,
    },
    "time limits": {
        "handshake_timeout": SECONDS,
        "message_timeout": SECONDS,
        "send_timeout": SECONDS,
        "close_timeout": SECONDS,
        "ping_interval": SECONDS,
        "ping_timeout": SECONDS,
        "heartbeat": SECONDS,
        "retry": SECONDS,
        "drain": SECONDS,
    },
}

SETTINGS = first_sentences(Settings)
DEFAULTS = {field.name: field.default for field in fields(Settings)}


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
        help="module and name of the App to serve (default: a demo)",
    )
    _add_listening(parser.add_argument_group("listening"))
    for title, options in GROUPS.items():
        group = parser.add_argument_group(title)
        for name, option in options.items():
            _add_setting(group, name, option)
    _add_operations(parser.add_argument_group("operations"))
    return parser


def _add_listening(group: argparse._ArgumentGroup) -> None:
    arguments = first_sentences(App.run)
    start_arguments = first_sentences(App.start)
    group.add_argument("--host", default=HOST, help=_help(start_arguments.get("host"), HOST))
    group.add_argument(
        "--port", type=values.port, default=PORT, help=_help(start_arguments.get("port"), PORT)
    )
    group.add_argument(
        "--workers",
        type=values.count,
        default=0,
        metavar="N",
        help=_help(arguments.get("workers"), 0),
    )
    _add_setting(group, "unix", SettingOption("PATH", str))
    _add_setting(group, "unix_mode", SettingOption("MODE", values.mode))
    _add_setting(group, "unix_group", SettingOption("GROUP", values.group))
    _add_setting(group, "cert", FILE)
    _add_setting(group, "key", FILE)
    group.add_argument(
        "--hosts",
        type=values.hosts,
        action="extend",
        metavar="NAME",
        help=_help(SETTINGS.get("hosts"))
        + "; may be repeated or contain commas (default: all; on loopback addresses only localhost "
        "and addresses)",
    )
    group.add_argument(
        "--trusted-proxy",
        dest="trusted_proxies",
        type=values.proxy,
        action="append",
        default=[],
        metavar="ADDRESS",
        help=_help(SETTINGS.get("trusted_proxies")) + "; may be repeated",
    )


def _add_operations(group: argparse._ArgumentGroup) -> None:
    arguments = first_sentences(App)
    group.add_argument(
        "--access-log",
        action="store_true",
        help="log each connection at its end, to standard error; queries are omitted because they "
        "may contain secrets",
    )
    group.add_argument(
        "--log-json",
        action="store_true",
        help="log JSON, one object per line; implies --access-log",
    )
    group.add_argument(
        "--metrics",
        metavar="PATH",
        help="path for metrics in the OpenMetrics format of Prometheus, such as /metrics",
    )
    group.add_argument("--redis", metavar="URL", help=_help(arguments.get("redis")))
    group.add_argument(
        "--redis-prefix",
        default=REDIS_PREFIX,
        metavar="TEXT",
        help=_help(arguments.get("redis_prefix"), REDIS_PREFIX),
    )


def _add_setting(group: argparse._ArgumentGroup, name: str, option: SettingOption) -> None:
    group.add_argument(
        f"--{name.replace('_', '-')}",
        type=option.convert,
        default=DEFAULTS[name],
        metavar=option.metavar,
        help=_help(SETTINGS.get(name), DEFAULTS[name]),
    )


def _help(text: str | None, default: object = None) -> str:
    """Return the help of an option, which ends with its default."""
    escaped = (text or "").replace("%", "%%")
    return escaped if default is None else f"{escaped} (default: %(default)s)"

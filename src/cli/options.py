"""The settings of the command line: one table for options, the environment and files.

A setting with the name of a field of :class:`Settings`, or of an argument of :class:`App`, is
described there: the help of its option is the first sentence of that description.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from ..server.app import HOST, PORT, App
from ..server.service import REDIS_PREFIX
from ..server.settings import Settings
from ..server.topics.registry import MEMORY
from . import values
from .failing import ServerParser
from .parsers import command_parser
from .reference import first_sentences
from .values import Kind

# The prefix of variables of the environment.
PREFIX = "WSFRAME_"

FIELDS = first_sentences(Settings)
DEFAULTS = {field.name: field.default for field in fields(Settings)}


@dataclass(frozen=True)
class Setting:
    """A setting of the command line.

    Attributes:
        name: the key in a file. The variable of the environment has the same name in upper case,
            after ``WSFRAME_``.
        kind: the kind of its values.
        help: the description of its option.
        default: its value if it is not set.
        flag: the option; None for an argument without an option.
    """

    name: str
    kind: Kind
    help: str
    default: object
    flag: str | None

    @property
    def variable(self) -> str:
        """The variable of the environment."""
        return PREFIX + self.name.upper()


def _field(name: str, kind: Kind, *, flag: str | None = None, note: str = "") -> Setting:
    """Return the setting for a field of :class:`Settings`."""
    repeated = "; may be repeated" if kind.many else ""
    if kind.many and kind is not values.HEADERS:
        repeated += " or contain commas"
    text = FIELDS.get(name, "") + repeated + note
    return Setting(name, kind, text, DEFAULTS[name], flag or _flag(name))


def _other(name: str, kind: Kind, text: str | None, default: object = None) -> Setting:
    return Setting(name, kind, text or "", default, _flag(name))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_start, _run, _app = map(first_sentences, (App.start, App.run, App))

APP = Setting(
    "app", values.APP, "module and name of the App to serve (default: a demo)", None, None
)

REDIS = (
    _other(
        "redis",
        values.SECRET_URL,
        f"{_app.get('redis', '')}; options are visible in the list of processes, so a URL with "
        f"a password belongs in {PREFIX}REDIS, the file of --config, or --redis-file",
    ),
    _other("redis_file", values.FILE, "file with the URL for --redis"),
    _other("redis_prefix", values.TEXT, _app.get("redis_prefix"), REDIS_PREFIX),
)

# The settings with options, in the groups and the order of the help.
GROUPS: dict[str, tuple[Setting, ...]] = {
    "listening": (
        _other("host", values.HOST, _start.get("host"), HOST),
        _other("port", values.PORT, _start.get("port"), PORT),
        _other("workers", values.COUNT, _run.get("workers"), 0),
        _field("fds", values.FDS, flag="--fd"),
        _field("unix", values.PATH),
        _field("unix_mode", values.MODE),
        _field("unix_group", values.GROUP),
        _field("cert", values.FILE),
        _field("key", values.FILE),
        _field("client_ca", values.FILE),
        _field("client_cert", values.CLIENT_CERT),
        _field(
            "hosts",
            values.HOSTS,
            note=" (default: all; on loopback addresses only localhost and addresses)",
        ),
        _field("trusted_proxies", values.PROXIES, flag="--trusted-proxy"),
        _field("proxy_protocol", values.PROXIES),
        _field("headers", values.HEADERS, flag="--header"),
    ),
    "limits": (
        _field("max_connections", values.COUNT),
        _field("max_handshakes_per_address", values.COUNT),
        _field("max_subscriptions", values.COUNT),
        _field("max_head_size", values.BYTES),
        _field("max_headers", values.COUNT),
        _field("max_kept_head", values.BYTES),
        _field("socket_buffer", values.BYTES),
        _other(
            "topic_memory",
            values.BYTES,
            f"{_app.get('topic_memory', '')} (default: that of the program, usually {MEMORY})",
        ),
    ),
    "threads": (
        _field("loops", values.COUNT),
        _field("max_threads", values.COUNT),
        _field("max_handler_threads", values.COUNT),
        _field("reserve_threads", values.COUNT),
        _field("max_thread_share", values.SHARE),
        _field("thread_timeout", values.SECONDS),
        _field("worker_timeout", values.SECONDS),
    ),
    "time limits": (
        _field("handshake_timeout", values.SECONDS),
        _field("message_timeout", values.SECONDS),
        _field("send_timeout", values.SECONDS),
        _field("close_timeout", values.SECONDS),
        _field("ping_interval", values.SECONDS),
        _field("ping_timeout", values.SECONDS),
        _field("heartbeat", values.SECONDS),
        _field("heartbeat_event", values.EVENT),
        _field("retry", values.SECONDS),
        _field("max_connection_age", values.SECONDS),
        _field("drain", values.SECONDS),
        _field("stop_delay", values.SECONDS),
    ),
    "topics in Redis": REDIS,
    "operations": (
        _other(
            "reload",
            values.SWITCH,
            "restart when a file of an imported module changes, for development",
            default=False,
        ),
        _other(
            "access_log",
            values.SWITCH,
            "log each connection at its end, to standard error; queries are omitted because they "
            "may contain secrets",
            default=False,
        ),
        _other(
            "log_level",
            values.LOG_LEVEL,
            "lowest level of the log: debug, info, warning, error or critical (default: warning, "
            "unless the program has configured logging)",
        ),
        _other(
            "log_format",
            values.LOG_FORMAT,
            "text, or json for one object per line",
            default="text",
        ),
        _other(
            "metrics",
            values.PATH,
            "path for metrics in the OpenMetrics format of Prometheus, such as /metrics",
        ),
        _other(
            "health",
            values.PATH,
            "path that is answered with 200, and with 503 once the server begins to stop, such as "
            "/health",
        ),
        _other(
            "ready",
            values.PATH,
            "path that is answered as that of --health, and with 503 also while Redis is silent",
        ),
    ),
}

SETTINGS = {
    setting.name: setting
    for setting in (APP, *(setting for group in GROUPS.values() for setting in group))
}

EXAMPLES = """\
examples:
  %(prog)s                              the demo, on http://localhost:9292
  %(prog)s shop:app --port 8000         the App "app" of the module "shop"
  %(prog)s shop:app --cert cert.pem --key key.pem --port 443 --workers 4
  %(prog)s shop:app --unix /run/shop.sock --unix-mode 660 --trusted-proxy unix
  %(prog)s --config shop.toml           settings in a file: app = "shop:app", port = 8000, ...
"""

SOURCES = f"""\
Each setting may also be a variable of the environment or a key of the file of
--config. --max-threads is {PREFIX}MAX_THREADS and max_threads there, and
--trusted-proxy is {PREFIX}TRUSTED_PROXIES and trusted_proxies. An option has
precedence over the environment, and the environment over the file.
"""


def argument_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of all options; its argument is the name of the program.

    It has no defaults, so that its result contains only the values of given options.
    """
    description = "Serve WebSockets and server-sent events."
    parser = command_parser(prog, description, SOURCES, EXAMPLES, kind=ServerParser)
    parser.usage = f"{prog} [OPTION ...] [{APP.kind.metavar}]"
    parser.add_argument(
        APP.name,
        nargs="?",
        type=APP.kind.convert,
        metavar=APP.kind.metavar,
        help=APP.help,
    )
    add_config(parser)
    for title, settings in GROUPS.items():
        add_options(parser.add_argument_group(title), settings)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option for a file of settings."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with settings (default: {PREFIX}CONFIG)"
    )


def add_options(group: argparse._ArgumentGroup, settings: Iterable[Setting]) -> None:
    """Add the options of settings to a group of a parser."""
    for setting in settings:
        kind = setting.kind
        assert setting.flag is not None
        form: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kind is not values.SWITCH:
            action = "extend" if kind.many else "store"
            form = {"action": action, "type": kind.convert, "metavar": kind.metavar}
        group.add_argument(
            setting.flag, dest=setting.name, default=argparse.SUPPRESS, help=_help(setting), **form
        )


def _help(setting: Setting) -> str:
    """Return the help of an option, which ends with its default."""
    escaped = setting.help.replace("%", "%%")
    default = setting.default
    if default is None or default is False or default in ((), ""):
        return escaped
    return f"{escaped} (default: {default})"

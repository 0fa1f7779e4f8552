"""The servers, as data: how each is started, and what it supports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto


class Ending(Enum):
    """The last bytes that clients receive when a server ends after SIGTERM."""

    CLOSE_FRAME = auto()  # 1001, because Python's exit handlers run
    NOTHING = auto()  # the process ends at once
    EITHER = auto()  # the first, unless a reloader or router ends the connection before


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A server in one configuration.

    Attributes:
        name: its name in tests and tables.
        package: the distribution that must be installed, whose version is reported.
        command: the arguments of the interpreter. They may contain ``{fd}`` (the listening
            socket), ``{root}``, ``{prefix}`` (of the interpreter) and ``{directory}`` (a temporary
            one).
        program: the program in the place of the interpreter, from the same folder.
        prints_port: True if it chooses a port and prints it; others inherit a listening socket.
        ending: the last bytes for clients when it ends.
        keeps_alive: True if a connection can have several requests.
        takes_read_ahead: True if bytes that the server has read behind the upgrade can be taken
            over. RFC 6455 section 4.1 forbids clients to send them.
        ends_input: True if the input of a request ends with its body. Otherwise the unread rest of
            a body cannot be measured.
        understands_chunks: True if it decodes chunked request bodies.
        unix: True if it listens on a unix socket, behind nginx.
        nginx: the directive with which nginx passes requests to it; "" without nginx.
        tls: True if it is started with a certificate.
        reloads: True if it restarts when a source file changes.
        restarts: True if SIGHUP replaces the process that serves the application.
        moves: True if the restarted server has another port.
        removed_in: the first major version of the package that lacks it; 0 for none.
        in_tests: True if the tests use it, too.
    """

    name: str
    package: str
    command: tuple[str, ...]
    program: str = ""
    prints_port: bool = False
    ending: Ending = Ending.NOTHING
    keeps_alive: bool = True
    takes_read_ahead: bool = True
    ends_input: bool = True
    understands_chunks: bool = True
    unix: bool = False
    nginx: str = ""
    tls: bool = False
    reloads: bool = False
    restarts: bool = False
    moves: bool = False
    removed_in: int = 0
    in_tests: bool = True


def gunicorn(worker: str, *options: str, **changes: object) -> Kind:
    """Return a gunicorn with one worker of this class."""
    kind = Kind(
        name=f"gunicorn {worker}",
        package="gunicorn",
        command=(
            *("-m", "gunicorn", "servers.app:application", "--bind", "fd://{fd}"),
            *("--worker-class", worker, "--workers", "1", *options),
        ),
        ending=Ending.CLOSE_FRAME,
        restarts=True,
    )
    return replace(kind, **changes)  # type: ignore[arg-type]


def launched(server: str, *options: str, **changes: object) -> Kind:
    """Return a server that ``servers.launch`` starts by its interface in Python."""
    kind = Kind(
        name=" ".join((server, *options)),
        package=server,
        command=("-m", "servers.launch", server, "{fd}", *options),
        ending=Ending.CLOSE_FRAME,
    )
    return replace(kind, **changes)  # type: ignore[arg-type]


def werkzeug(*options: str, **changes: object) -> Kind:
    """Return the development server of Werkzeug and Flask."""
    return launched("werkzeug", *options, keeps_alive=False, ends_input=False, **changes)


def uwsgi(*options: str, **changes: object) -> Kind:
    """Return a uWSGI with one process of four threads; the first option is its way to listen."""
    kind = Kind(
        name=f"uwsgi {options[0]}",
        package="uwsgi",
        program="uwsgi",
        command=(
            *("--master", "--die-on-term", "--need-app", "--enable-threads", "--threads", "4"),
            *("--home", "{prefix}", "--pythonpath", "{root}"),
            *("--module", "servers.app:application", *options),
        ),
        ending=Ending.CLOSE_FRAME,
        restarts=True,
        keeps_alive=False,
        takes_read_ahead=False,
        understands_chunks=False,
        in_tests=False,
    )
    return replace(kind, **changes)  # type: ignore[arg-type]


FOUR_THREADS = ("--threads", "4")
CERTIFICATE = ("--certfile", "{directory}/cert.pem", "--keyfile", "{directory}/key.pem")
PROXY, UWSGI = "proxy_pass http://backend", "uwsgi_pass backend"

KINDS = (
    gunicorn("sync", keeps_alive=False),
    gunicorn("gthread", *FOUR_THREADS),
    gunicorn("gevent"),
    gunicorn("gthread", *FOUR_THREADS, name="nginx, TCP, gunicorn gthread", nginx=PROXY),
    gunicorn("sync", name="nginx, unix, gunicorn sync", nginx=PROXY, unix=True),
    werkzeug(),
    werkzeug("reloader", prints_port=True, ending=Ending.EITHER, reloads=True),
    Kind(
        name="django runserver",
        package="django",
        command=(
            *("-m", "django", "runserver", "127.0.0.1:0"),
            *("--settings", "servers.django_settings"),
        ),
        prints_port=True,
        ending=Ending.EITHER,
        reloads=True,
        moves=True,
        understands_chunks=False,
    ),
    launched("waitress"),
    launched("cheroot", prints_port=True),
    launched(
        *("wsgiref", "abrupt"),
        name="wsgiref",
        ending=Ending.NOTHING,
        keeps_alive=False,
        ends_input=False,
        understands_chunks=False,
    ),
    launched("pywsgi", package="gevent"),
    # Only in the long form.
    gunicorn("eventlet", removed_in=27, in_tests=False),
    gunicorn(
        *("gthread", *FOUR_THREADS, *CERTIFICATE),
        name="gunicorn gthread, TLS",
        tls=True,
        in_tests=False,
    ),
    werkzeug("tls", tls=True, in_tests=False),
    launched("cheroot", "tls", tls=True, prints_port=True, in_tests=False),
    launched("waitress", "proxied", name="nginx, TCP, waitress", nginx=PROXY, in_tests=False),
    launched("eventlet", "abrupt", name="eventlet", ending=Ending.NOTHING, in_tests=False),
    uwsgi("--http-socket", "fd://{fd}"),
    uwsgi("--http", "fd://{fd}", "--http-websockets", ending=Ending.EITHER, restarts=False),
    uwsgi(
        *("--socket", "fd://{fd}"),
        name="nginx, TCP, uwsgi",
        nginx=UWSGI,
        keeps_alive=True,
        takes_read_ahead=True,
    ),
)

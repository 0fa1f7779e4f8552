"""The places in which WSGI servers keep the socket of a request, and the bytes after the request.

WSGI has no interface for the socket, so this module has a function for each server. These functions
change nothing in a server, except that the takeover removes bytes from its buffer. :data:`SERVERS`
lists the functions. These servers have no accessible socket: bjoern, granian, hypercorn, and
mod_wsgi in daemon mode.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .environ import Environ
from .errors import CannotTakeError

# The attributes through which the socket's reader is found, starting at ``wsgi.input``.
BELOW = ("rfile", "_rfile", "_read", "__self__", "_stream", "stream")
MAX_DEPTH = 6
# Seconds to wait until waitress has sent the end of the previous response.
FLUSH_TIMEOUT = 1.0
FLUSH_INTERVAL = 0.005


def nothing() -> bytes:
    """Return b"", for a server whose buffer is not accessible."""
    return b""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a request's connection in its server.

    Attributes:
        server: the name of the server.
        fileno: a function that returns the descriptor of the socket; -1 if it is closed.
        sock: the socket; None if the server is not written in Python.
        read_ahead: a function that removes the bytes after the request from the server's buffer,
            and returns these bytes. When it is called, the server's descriptor already refers to
            the dummy.
        prepare: a function that waits until the server no longer uses the socket, or raises
            CannotTakeError. Its argument is True if the bytes after the request are kept.
        own_versions: True if SERVER_PROTOCOL may differ from the HTTP version of this connection.
        forks: True if the server forks a process for each request when ``wsgi.multiprocess`` is
            set.
        encrypted: True if the connection uses TLS that is implemented outside of Python.
        is_confirmed: a function that returns True if the server itself confirms that the descriptor
            belongs to the request of the environment. Then the socket's peer may be the server's
            router.
    """

    server: str
    fileno: Callable[[], int]
    sock: Any
    read_ahead: Callable[[], bytes] = nothing
    prepare: Callable[[bool], object] = lambda upgrade: None
    own_versions: bool = False
    forks: bool = False
    encrypted: bool = False
    is_confirmed: Callable[[], bool] = lambda: False


def find(environ: Environ) -> Place | None:
    """The request's thread: return the place of the request's connection; None if none is known."""
    for way in SERVERS:
        place = way.find(environ)
        if place is not None:
            return place
    return None


def _gunicorn(environ: Environ) -> Place | None:
    """Find gunicorn's socket in ``gunicorn.socket``, its buffer in ``wsgi.input``."""
    sock: Any = environ.get("gunicorn.socket")
    if sock is None:
        return None
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    if unreader is None:  # the body is chunked
        unreader = getattr(getattr(reader, "req", None), "unreader", None)
    hidden = getattr(unreader, "sock", None) is not sock  # a middleware has replaced the input
    return Place("gunicorn", sock.fileno, sock, nothing if hidden else unreader.read)


def _waitress(environ: Environ) -> Place | None:
    """Find waitress's channel, to which the function ``waitress.client_disconnected`` is bound."""
    channel: Any = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is None:
        return None
    waitress = Waitress(channel)
    sock = channel.socket
    return Place("waitress", sock.fileno, sock, waitress.read_ahead, waitress.prepare)


class Waitress:
    """A connection of waitress, whose main thread receives and sends for all other threads."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def prepare(self, upgrade: bool) -> None:
        """Wait until the previous response is sent, and check that waitress does not read ahead.

        Args:
            upgrade: True if the bytes after the request are kept.

        Raises:
            CannotTakeError: waitress reads ahead, has parsed the bytes after the request as another
                request, or does not send the previous response in time.
        """
        channel = self._channel
        if channel.adj.channel_request_lookahead:
            raise CannotTakeError(
                "waitress reads and closes the socket while the application runs: set "
                "channel_request_lookahead to 0"
            )
        begun = channel.request
        if upgrade and (len(channel.requests) > 1 or (begun and begun.headers_finished)):
            raise CannotTakeError(
                "the client sent data before the response to its upgrade request, and waitress "
                "parsed this data as another request"
            )
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while channel.total_outbufs_len:
            if time.monotonic() > deadline:
                raise CannotTakeError(
                    "waitress has not sent the previous response to this client in time"
                )
            time.sleep(FLUSH_INTERVAL)

    def read_ahead(self) -> bytes:
        """Remove the queued requests after this one; return the bytes of an incomplete head."""
        channel = self._channel
        with channel.requests_lock:
            begun, channel.request = channel.request, None
            later = channel.requests[1:]
            del channel.requests[1:]
        for request in later:
            request.close()
        return b"" if begun is None else bytes(begun.header_plus)


def _uwsgi(environ: Environ) -> Place | None:
    """Find uWSGI's socket with ``uwsgi.connection_fd()``; its buffer is not accessible."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or "uwsgi.version" not in environ:
        return None
    encrypted = environ.get("wsgi.url_scheme") == "https" and "https-socket" in uwsgi.opt
    source: Any = environ.get("wsgi.input")

    def fileno() -> int:
        try:
            return int(uwsgi.connection_fd())
        except SystemError:  # uWSGI raises SystemError outside of a request
            raise CannotTakeError(
                "uWSGI has no request in this thread: call the view in the request's thread"
            ) from None

    def is_confirmed() -> bool:
        # The descriptors of this thread's request and of the environment's request. They differ if
        # an environment is used in the thread of another request.
        return hasattr(source, "fileno") and fileno() == source.fileno()

    # A router (uWSGI's own, or nginx with uwsgi_pass) reports the version of its own client.
    return Place(
        "uWSGI",
        fileno,
        None,
        own_versions=True,
        encrypted=encrypted,
        is_confirmed=is_confirmed,
    )


def _meinheld(environ: Environ) -> Place | None:
    """Find meinheld's socket in ``meinheld.client``; its buffer is not accessible."""
    client: Any = environ.get("meinheld.client")
    return None if client is None else Place("meinheld", client.get_fd, None)


def _eventlet(environ: Environ) -> Place | None:
    """Find eventlet's socket and buffered reader in ``eventlet.input``."""
    source: Any = environ.get("eventlet.input")
    if source is None:
        return None
    sock = source.get_socket()
    # eventlet reports HTTP/1.0 for every request.
    return Place("eventlet", sock.fileno, sock, _buffer_of(source, sock), own_versions=True)


def _werkzeug(environ: Environ) -> Place | None:
    """Find Werkzeug's socket in ``werkzeug.socket``, and its buffered reader in ``wsgi.input``."""
    sock: Any = environ.get("werkzeug.socket")
    if sock is None:
        return None
    buffer = _buffer_of(environ.get("wsgi.input"), sock)
    return Place("Werkzeug", sock.fileno, sock, buffer, forks=True)


def _below_input(environ: Environ) -> Place | None:
    """Find the socket through its buffered reader in ``wsgi.input``, as in most servers."""
    reader = _reader_below(environ.get("wsgi.input"))
    if reader is None:
        return None
    sock = reader.raw._sock
    name = str(environ.get("SERVER_SOFTWARE") or "the server")
    return Place(name, sock.fileno, sock, _buffer_of(reader, sock))


def _reader_below(source: Any) -> Any:
    """Return the buffered reader of a socket that an input uses; None without such a reader."""
    for _ in range(MAX_DEPTH):
        if hasattr(getattr(getattr(source, "raw", None), "_sock", None), "fileno"):
            return source
        below = (getattr(source, name, None) for name in BELOW)
        source = next((part for part in below if part is not None), None)
    return None


def _buffer_of(source: Any, sock: Any) -> Callable[[], bytes]:
    """Return a function that removes the bytes in the buffer of a socket's reader."""
    reader = _reader_below(source)
    if reader is None or reader.raw._sock is not sock:  # a middleware has replaced the input
        return nothing

    def read() -> bytes:
        # If the buffer is empty, read() reads the dummy, whose data has already ended.
        size = len(reader.peek(1))
        return bytes(reader.read(size)) if size else b""

    return read


@dataclass(frozen=True, slots=True)
class Way:
    """The function that finds the socket in a kind of server, and the versions that it supports."""

    servers: str
    find: Callable[[Environ], Place | None]


SERVERS = (
    Way("gunicorn 20.1 to 27, except its worker gevent_pywsgi", _gunicorn),
    Way("waitress 2.1 to 3.0", _waitress),
    Way("uWSGI 2.0", _uwsgi),
    Way("meinheld 1.0", _meinheld),
    Way("eventlet.wsgi 0.33 to 0.41", _eventlet),
    Way("Werkzeug 2.2 to 3.1", _werkzeug),
    Way(
        "gevent.pywsgi 21 to 26 and gunicorn's worker gevent_pywsgi, Django's runserver 4.2 to "
        "6.0, wsgiref, cheroot 8 to 11",
        _below_input,
    ),
)

"""The places in which WSGI servers keep the socket of a request, and the bytes behind it.

WSGI has no interface for this, so each server has a function here. Nothing of a server is changed,
except that the bytes that it has read behind the request are removed when they are taken over.
:data:`SERVERS` lists the functions. Other servers have no such socket: bjoern, granian, hypercorn,
and mod_wsgi in daemon mode.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .environ import Environ
from .errors import CannotTakeError

# The attributes that lead from ``wsgi.input`` to the reader of the socket.
BELOW = ("rfile", "_rfile", "_read", "__self__", "_stream", "stream")
MAX_DEPTH = 6
# Seconds to wait until waitress has sent the end of the previous response.
FLUSH_TIMEOUT = 1.0
FLUSH_INTERVAL = 0.005


def nothing() -> bytes:
    """Return no bytes, for a server whose buffer is not accessible."""
    return b""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a request's connection in its server.

    Attributes:
        server: the name of the server.
        fileno: returns the descriptor of the socket; -1 if it is closed.
        sock: the socket; None if the server is not written in Python.
        read_ahead: removes the bytes that the server has read behind the request, and returns them.
            The server's descriptor refers to another socket then.
        prepare: waits until the server does not use the socket any more. Its argument is True if
            the bytes behind the request are kept. It raises CannotTakeError.
        own_versions: True if SERVER_PROTOCOL is not the version of this connection.
        forks: True if each request has a process, unless there is only one.
        encrypted: True if the data of a socket without an object is encrypted.
        is_confirmed: returns True if the server itself confirms that the descriptor belongs to the
            request of the environment. Then the peer may be a router of the server.
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
    """The request's thread: return the place of its connection; None if the server has none."""
    for way in SERVERS:
        place = way.find(environ)
        if place is not None:
            return place
    return None


def _gunicorn(environ: Environ) -> Place | None:
    """Use ``gunicorn.socket``, and ``read()`` of the unreader below ``wsgi.input``."""
    sock: Any = environ.get("gunicorn.socket")
    if sock is None:
        return None
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    if unreader is None:  # the reader of a chunked body
        unreader = getattr(getattr(reader, "req", None), "unreader", None)
    hidden = getattr(unreader, "sock", None) is not sock  # by middleware
    return Place("gunicorn", sock.fileno, sock, nothing if hidden else unreader.read)


def _waitress(environ: Environ) -> Place | None:
    """Use the channel, to which ``waitress.client_disconnected`` is bound."""
    channel: Any = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is None:
        return None
    waitress = Waitress(channel)
    sock = channel.socket
    return Place("waitress", sock.fileno, sock, waitress.read_ahead, waitress.prepare)


class Waitress:
    """A connection of waitress, whose main thread reads and sends for the application's threads."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def prepare(self, upgrade: bool) -> None:
        """Wait until the previous response is sent, and check that nothing more is read.

        Args:
            upgrade: True if the bytes behind the request are kept.

        Raises:
            CannotTakeError: waitress reads ahead, the bytes behind the request are parsed as
                another one, or the previous response is not sent in time.
        """
        channel = self._channel
        if channel.adj.channel_request_lookahead:
            raise CannotTakeError(
                "waitress reads and closes the socket while the application runs: set "
                "channel_request_lookahead to 0"
            )
        begun = channel.request
        if upgrade and (len(channel.requests) > 1 or (begun and begun.headers_finished)):
            raise CannotTakeError("waitress has parsed the data after the upgrade as a request")
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while channel.total_outbufs_len:
            if time.monotonic() > deadline:
                raise CannotTakeError("waitress has not sent the previous response yet")
            time.sleep(FLUSH_INTERVAL)

    def read_ahead(self) -> bytes:
        """Remove the requests behind the current one; return the bytes of an incomplete head."""
        channel = self._channel
        with channel.requests_lock:
            begun, channel.request = channel.request, None
            later = channel.requests[1:]
            del channel.requests[1:]
        for request in later:
            request.close()
        return b"" if begun is None else bytes(begun.header_plus)


def _uwsgi(environ: Environ) -> Place | None:
    """Use ``uwsgi.connection_fd()``; the buffer is not accessible."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or "uwsgi.version" not in environ:
        return None
    encrypted = environ.get("wsgi.url_scheme") == "https" and "https-socket" in uwsgi.opt
    source: Any = environ.get("wsgi.input")

    def fileno() -> int:
        try:
            return int(uwsgi.connection_fd())
        except SystemError:  # the error of uWSGI
            raise CannotTakeError(
                "uWSGI has no request in this thread: call the view in the request's thread"
            ) from None

    def is_confirmed() -> bool:
        # The first is the connection of this thread's request, the second that of the environment.
        # They differ if an environment is used in the thread of another request.
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
    """Use ``meinheld.client``; the buffer is not accessible."""
    client: Any = environ.get("meinheld.client")
    return None if client is None else Place("meinheld", client.get_fd, None)


def _eventlet(environ: Environ) -> Place | None:
    """Use ``get_socket()`` of ``eventlet.input``, and ``read()`` of its reader."""
    source: Any = environ.get("eventlet.input")
    if source is None:
        return None
    sock = source.get_socket()
    # eventlet reports HTTP/1.0 for every request.
    return Place("eventlet", sock.fileno, sock, _buffer_of(source, sock), own_versions=True)


def _werkzeug(environ: Environ) -> Place | None:
    """Use ``werkzeug.socket``, and ``read()`` of ``wsgi.input``."""
    sock: Any = environ.get("werkzeug.socket")
    if sock is None:
        return None
    buffer = _buffer_of(environ.get("wsgi.input"), sock)
    return Place("Werkzeug", sock.fileno, sock, buffer, forks=True)


def _below_input(environ: Environ) -> Place | None:
    """Use the reader of the socket below ``wsgi.input``, and its ``read()``."""
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
    if reader is None or reader.raw._sock is not sock:  # a middleware hides it
        return nothing

    def read() -> bytes:
        # With an empty buffer this reads the socket in the place of the client's, which is at its
        # end.
        size = len(reader.peek(1))
        return bytes(reader.read(size)) if size else b""

    return read


@dataclass(frozen=True, slots=True)
class Way:
    """A function that finds sockets, and the servers and versions for which it was written."""

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

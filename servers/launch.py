"""A server with an interface in Python: ``python -m servers.launch NAME FD [OPTION ...]``.

The options are "reloader", "proxied", "tls" and "abrupt". The file descriptor is a listening
socket. A server that cannot use it chooses a port and prints it.

Most of these servers end at once by SIGTERM. So the program exits by :func:`sys.exit`, and Python's
exit handlers run; except with the option "abrupt". An error that a signal handler raises in a
program of greenlets may end any of them. So gevent has a function for signals.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

THREADS = 4
# The directory with cert.pem and key.pem.
CERTIFICATES = "WSFRAME_CERTIFICATES"


def certificate() -> tuple[str, str]:
    """Return the paths of the certificate and its key."""
    directory = Path(os.environ[CERTIFICATES])
    return str(directory / "cert.pem"), str(directory / "key.pem")


def werkzeug(fd: int, options: set[str]) -> None:
    """Serve by the development server of Werkzeug and Flask."""
    from werkzeug.serving import make_server, run_simple

    from .app import application

    if "reloader" in options:
        run_simple("127.0.0.1", 0, application, use_reloader=True, threaded=True)
    else:
        tls = certificate() if "tls" in options else None
        make_server(
            "127.0.0.1", 0, application, threaded=True, fd=fd, ssl_context=tls
        ).serve_forever()


def waitress(fd: int, options: set[str]) -> None:
    """Serve by waitress."""
    from waitress import serve

    from .app import application

    trusted: dict[str, str] = {}
    if "proxied" in options:
        headers = "x-forwarded-for x-forwarded-proto"
        trusted = {"trusted_proxy": "127.0.0.1", "trusted_proxy_headers": headers}
    serve(application, sockets=[socket.socket(fileno=fd)], threads=THREADS, **trusted)


def cheroot(fd: int, options: set[str]) -> None:
    """Serve by cheroot."""
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    from .app import application

    server = Server(("127.0.0.1", 0), application, numthreads=THREADS)
    if "tls" in options:
        server.ssl_adapter = BuiltinSSLAdapter(*certificate())
    server.prepare()
    print(f"Running on http://127.0.0.1:{server.bind_addr[1]}", flush=True)
    try:
        server.serve()
    finally:
        server.stop()  # exit handlers run after the end of its threads


def wsgiref(fd: int, options: set[str]) -> None:
    """Serve by the standard library's server."""
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    from .app import application

    server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=fd)
    server.server_name, server.server_port = "127.0.0.1", server.socket.getsockname()[1]
    server.setup_environ()
    server.set_app(application)
    server.serve_forever()


def pywsgi(fd: int, options: set[str]) -> None:
    """Serve by gevent."""
    import gevent
    from gevent import monkey

    monkey.patch_all()
    from gevent.pywsgi import WSGIServer

    from .app import application

    server = WSGIServer(socket.socket(fileno=fd), application)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()


def eventlet(fd: int, options: set[str]) -> None:
    """Serve by eventlet."""
    import eventlet

    eventlet.monkey_patch()
    from eventlet import wsgi

    from .app import application

    wsgi.server(socket.socket(fileno=fd), application)


SERVERS: dict[str, Callable[[int, set[str]], None]] = {
    "werkzeug": werkzeug,
    "waitress": waitress,
    "cheroot": cheroot,
    "wsgiref": wsgiref,
    "pywsgi": pywsgi,
    "eventlet": eventlet,
}


def main(name: str, fd: str, *options: str) -> None:
    """Run a server."""
    if "abrupt" not in options:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    SERVERS[name](int(fd), set(options))


if __name__ == "__main__":
    main(*sys.argv[1:])

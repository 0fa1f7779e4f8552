"""WSGI servers in threads of the test process, and gunicorn as a program."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cheroot.wsgi
import waitress.server
import werkzeug.serving
from waitress import wasyncore

from tests.support.processes import ServerProcess
from wsframe.testing import WSGIAppServer

Application = Callable[..., Any]

GUNICORN = re.compile(r"Listening at: (?P<url>https?://\S+:(?P<port>\d+)) ")


@contextmanager
def wsgiref(application: Application) -> Iterator[int]:
    """Run wsgiref; yield the port."""
    with WSGIAppServer(application) as server:
        yield server.port


@contextmanager
def werkzeug_server(application: Application, **options: Any) -> Iterator[int]:
    """Run the development server of Werkzeug; yield the port."""

    class Handler(werkzeug.serving.WSGIRequestHandler):
        def log(self, *arguments: object) -> None:
            """Log nothing."""

    server = werkzeug.serving.make_server(
        "127.0.0.1", 0, application, request_handler=Handler, threaded=True, **options
    )
    server.daemon_threads = False  # type: ignore[attr-defined]
    with running(partial(server.serve_forever, 0.02), server.shutdown):
        yield server.port
    server.server_close()


class End(wasyncore.dispatcher):  # type: ignore[misc]
    """A channel that closes all channels of waitress, so its main thread ends.

    The trigger of waitress cannot be used: its pipe may be closed while another thread writes.
    """

    def __init__(self, channels: dict[int, Any]) -> None:
        """Create the channel among those of a server."""
        self._sender, receiver = socket.socketpair()
        self._channels = channels
        super().__init__(receiver, channels)

    def request(self) -> None:
        """End the main thread; in another thread."""
        self._sender.close()

    def writable(self) -> bool:
        """Return False, because this channel only receives."""
        return False

    def handle_read(self) -> None:
        """Close all channels; in the main thread."""
        wasyncore.close_all(self._channels, ignore_all=True)


@contextmanager
def waitress_server(application: Application, **options: Any) -> Iterator[int]:
    """Run waitress; yield the port."""
    channels: dict[int, Any] = {}
    server: Any = waitress.server.create_server(
        application, map=channels, host="127.0.0.1", port=0, threads=2, **options
    )
    end = End(channels)

    def stop() -> None:
        server.task_dispatcher.shutdown()  # first, because its threads use the trigger
        end.request()

    with running(server.run, stop):
        yield int(server.effective_port)


@contextmanager
def cheroot_server(application: Application, ssl_adapter: Any = None) -> Iterator[int]:
    """Run cheroot; yield the port."""
    server = cheroot.wsgi.Server(("127.0.0.1", 0), application, numthreads=2)
    server.ssl_adapter = ssl_adapter
    server.expiration_interval = 0.02
    server.prepare()
    with running(server.serve, server.stop):
        yield server.bind_addr[1]


@contextmanager
def running(serve: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    """Run a server in a thread."""
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()


def gunicorn(directory: Path, program: str, *options: str) -> ServerProcess:
    """Start gunicorn with an application; a context manager."""
    (directory / "program.py").write_text(program)
    arguments = ("-m", "gunicorn", "--bind", "127.0.0.1:0", *options, "program:application")
    return ServerProcess(*arguments, directory=directory, until=GUNICORN)

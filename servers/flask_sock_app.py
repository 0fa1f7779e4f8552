"""The same Flask application with flask-sock: each connection holds a thread of the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response
from flask_sock import Sock

from .data import content
from .state import State

application = Flask(__name__)
sock = Sock(application)
ENDED = threading.Event()  # never set


@application.get("/state")
def state() -> bytes:
    """Return the resources of this process."""
    return State.of_this_process().encode()


@application.get("/page")
def page() -> bytes:
    """Return a kilobyte."""
    return content(1000)


@sock.route("/echo")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    """Echo every message."""
    while True:
        ws.send(ws.receive())


@application.get("/topic")
def topic() -> Response:
    """Open an event stream, on which nothing happens after its position."""

    def events() -> Iterator[str]:
        yield "id: 1\n\n"
        ENDED.wait()

    return Response(events(), mimetype="text/event-stream")

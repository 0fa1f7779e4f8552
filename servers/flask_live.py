"""A Flask application with ``wsframe.wsgi``, for the comparison."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from flask import Flask

from wsframe.server import WebSocket
from wsframe.wsgi import Live

from .data import content
from .state import State

application = Flask(__name__)
live = Live(ping_interval=0)  # no pings, as with flask-sock
news = live.topic("news")


@application.get("/state")
def state() -> bytes:
    """Return the resources of this process."""
    return State.of_this_process().encode()


@application.get("/page")
def page() -> bytes:
    """Return a kilobyte."""
    return content(1000)


@application.get("/echo", websocket=True)
def echo() -> Any:
    """Open a WebSocket."""
    return live.websocket(echo_messages)


def echo_messages(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Echo every message."""
    while True:
        message = yield
        ws.send(message)


@application.get("/topic")
def topic() -> Any:
    """Open an event stream."""
    return live.events(news)

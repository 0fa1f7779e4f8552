"""WebSockets and event streams in WSGI applications, on connections of the WSGI server."""

from wsframe import ConnectionClosed

from ..server import EventStream, Request, Stats, Topic, WebSocket
from .application import Application
from .live import Live
from .replies import Answer, Reply

__all__ = [
    "Answer",
    "Application",
    "ConnectionClosed",
    "EventStream",
    "Live",
    "Reply",
    "Request",
    "Stats",
    "Topic",
    "WebSocket",
]

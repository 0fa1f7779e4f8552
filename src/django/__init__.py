"""WebSockets and event streams in Django projects, on the connections of their WSGI server."""

from wsframe import ConnectionClosed

from ..server import EventStream, Stats, Topic, WebSocket
from .live import Live
from .views import View

__all__ = ["ConnectionClosed", "EventStream", "Live", "Stats", "Topic", "View", "WebSocket"]
